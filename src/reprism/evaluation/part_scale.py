"""Measure how well each part of a match agrees, on one scale for all matches: percentiles among pairs of strangers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from reprism.data.records import JUNK, Item
from reprism.deprecation import renamed_arguments
from reprism.evaluation.distances import Matrix, as_matrix
from reprism.notation import Partition

Verdict = Literal["agrees", "differs", "unclear"]

AGREES_WITHIN = 5.0
"""A part agrees if no more than so many percent of the pairs of strangers are nearer in it."""

DIFFERS_BEYOND_SAME = 95.0
"""It differs if so many percent of the pairs of the same person are nearer. This goes before agreeing."""

DIFFERS_BEYOND_STRANGERS = 50.0
"""It differs if so many percent of the pairs of strangers are nearer, where no pairs of the same person are known."""

FEWEST_STRANGERS, FEWEST_SAME = 200, 50
"""Pairs below which no percentile is claimed."""

NO_SCALE = (
    f"Parts are not compared: that takes at least {FEWEST_STRANGERS} pairs of strangers in the gallery, or a "
    "calibration (reprism calibrate)."
)
"""Message where there are shares of the distance, but no scale."""

_NAMED = 4  # differing parts in a summary
_LEVELS = np.linspace(0, 100, 201)  # percentiles kept of each part
_DRAWN = 50_000  # pairs of either kind
_BLOCK = 2**20  # numbers of pairs of descriptors at a time


@dataclass(frozen=True)
class PartAgreement:
    """The agreement of one part of two descriptors.

    Attributes:
        strangers: Percentile among strangers, 0 … 100: how many percent of their pairs are nearer in this part.
        same_person: Percentile among pairs of the same person, 0 … 100; None where those are not known.
        verdict: ``differs`` if it is farther than 95 % of the pairs of the same person (where those are not known:
            than half the pairs of strangers); or else ``agrees`` if at most 5 % of the pairs of strangers are nearer;
            or else ``unclear``.
    """

    strangers: float
    same_person: float | None
    verdict: Verdict

    @property
    def nearer_than(self) -> int:
        """Return than how many of 100 pairs of strangers it is nearer."""
        return math.floor(100 - self.strangers)

    @property
    def words(self) -> str:
        """Return the percentile among strangers in words."""
        return f"nearer than {self.nearer_than} of 100 strangers"


@dataclass(frozen=True)
class PartScale:
    """The distances that each part takes between strangers, and between pictures of the same person.

    Attributes:
        strangers: 201 quantiles (every half percent) of each part's squared distance between different people.
        same_person: The same quantiles between pictures of one person from different cameras; None if unknown.
        stranger_pairs, same_pairs: Numbers of pairs behind the quantiles.
    """

    strangers: dict[str, list[float]]
    same_person: dict[str, list[float]] | None
    stranger_pairs: int
    same_pairs: int

    @classmethod
    def of_distances(
        cls, partition: Partition, strangers: np.ndarray, same_person: np.ndarray | None = None
    ) -> PartScale | None:
        """Make a scale from part distances.

        Args:
            partition: Names the parts.
            strangers: N×P squared distances of pairs of different people, in the order of ``partition.parts``.
            same_person: M×P of pairs of the same person; None or fewer than ``FEWEST_SAME``: not claimed.

        Returns:
            The scale; None from fewer than ``FEWEST_STRANGERS`` pairs of strangers, too few for percentiles.
        """
        if len(strangers) < FEWEST_STRANGERS:
            return None
        if same_person is not None and len(same_person) < FEWEST_SAME:
            same_person = None
        return cls(
            _quantiles(partition, strangers),
            None if same_person is None else _quantiles(partition, same_person),
            len(strangers),
            0 if same_person is None else len(same_person),
        )

    @classmethod
    @renamed_arguments(runs="segments")
    def fit(
        cls,
        query: Matrix,
        gallery: Matrix,
        query_items: Sequence[Item],
        gallery_items: Sequence[Item],
        partition: Partition,
        segments: int = 1,
        seed: int = 0,
    ) -> PartScale | None:
        """Fit a scale to labelled descriptors.

        Pairs are of a query with a gallery item of another camera; junk takes no part. Up to 50,000 pairs of either
        kind are drawn at random, so that working memory does not grow with the data.

        Args:
            query: N×D descriptors of ``query_items``.
            gallery: M×D descriptors of ``gallery_items``.
            query_items, gallery_items: In the descriptors' order.
            partition: The model's partition.
            segments: Number of segments' descriptors side by side in a row.
            seed: Random seed of the draw.

        Returns:
            The scale; None where there are too few pairs of strangers.

        Raises:
            ValueError: A width that is no multiple of parts and segments, or rows and items that do not agree.
        """
        one, other = as_matrix(query, "query"), as_matrix(gallery, "gallery")
        for name, rows, items in (("query", one, query_items), ("gallery", other, gallery_items)):
            if len(rows) != len(items):
                raise ValueError(f"{name} has {len(rows)} descriptors for {len(items)} items: give one for each")
        rng = np.random.default_rng(seed)
        same, strangers = _labelled_pairs(query_items, gallery_items, rng)
        return cls.of_distances(
            partition,
            pair_distances(one, other, strangers, partition, segments),
            pair_distances(one, other, same, partition, segments),
        )

    def agreement(self, distances: np.ndarray) -> list[dict[str, PartAgreement]]:
        """Say how well each part of some matches agrees.

        Args:
            distances: M×P squared distances of the parts, as :func:`reprism.part_distances` gives them.

        Returns:
            For each match its parts by name. A part that is farther never has a lower percentile, in any match.

        Raises:
            ValueError: Another number of parts.
        """
        if distances.ndim != 2 or distances.shape[1] != len(self.strangers):
            raise ValueError(f"expected distances of {len(self.strangers)} parts, got shape {distances.shape}")
        columns = [
            self._of_part(name, column) for name, column in zip(self.strangers, distances.T.astype(float), strict=True)
        ]
        return [dict(zip(self.strangers, row, strict=True)) for row in zip(*columns, strict=True)]

    def _of_part(self, name: str, distances: np.ndarray) -> list[PartAgreement]:
        strangers = _percentiles(distances, self.strangers[name]).tolist()
        if self.same_person is None:
            return [PartAgreement(at, None, _verdict(at, None)) for at in strangers]
        same = _percentiles(distances, self.same_person[name]).tolist()
        return [PartAgreement(at, among, _verdict(at, among)) for at, among in zip(strangers, same, strict=True)]


def summary(parts: Mapping[str, PartAgreement]) -> str:
    """Return in a few words how many parts agree, and which differ: ``agree: 11 of 13; differ: p2s1, p3c2``."""
    agreeing, differing = ([n for n, part in parts.items() if part.verdict == kind] for kind in ("agrees", "differs"))
    words = f"agree: {len(agreeing)} of {len(parts)}"
    if not differing:
        return words
    return f"{words}; differ: {', '.join(differing[:_NAMED])}{', …' if len(differing) > _NAMED else ''}"


def pair_distances(
    query: Matrix, gallery: Matrix, pairs: tuple[np.ndarray, np.ndarray], partition: Partition, segments: int = 1
) -> np.ndarray:
    """Return the squared distances of the parts between given pairs of rows.

    Args:
        query: N×D.
        gallery: M×D.
        pairs: K rows of ``query``, and K of ``gallery``.
        partition: The model's partition.
        segments: Number of segments' descriptors side by side in a row.

    Returns:
        K×P float32, in the order of ``partition.parts``.

    Raises:
        ValueError: A width that is no multiple of parts and segments.
    """
    one, other = as_matrix(query, "query"), as_matrix(gallery, "gallery")
    parts, width = len(partition.parts), one.shape[1]
    if width != other.shape[1] or width % (segments * parts):
        raise ValueError(
            f"query and gallery are {width} and {other.shape[1]} wide: expected the same width, a multiple of the "
            f"{parts} parts of {partition}, times {segments} segment(s)"
        )
    found = np.empty((len(pairs[0]), parts), np.float32)
    step = max(1, _BLOCK // width)
    for start in range(0, len(found), step):
        left, right = (_rows(side, at[start : start + step]) for side, at in zip((one, other), pairs, strict=True))
        found[start : start + step] = (
            (left - right).square_().view(-1, segments, parts, width // segments // parts).sum((1, 3))
        )
    return found


def draw(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` of the numbers 0 … ``total`` - 1 at random, or all of them where they are no more."""
    return np.arange(total) if total <= count else rng.choice(total, count, replace=False, shuffle=False)


def _rows(matrix: Tensor, rows: np.ndarray) -> Tensor:
    return matrix[torch.from_numpy(rows).to(matrix.device)].float().cpu()


def _quantiles(partition: Partition, distances: np.ndarray) -> dict[str, list[float]]:
    ordered = np.quantile(np.sort(distances.T, axis=1), _LEVELS / 100, axis=1).T
    # Six digits, so that a file of them stays small.
    return {
        part.name: [float(f"{value:.6g}") for value in row] for part, row in zip(partition.parts, ordered, strict=True)
    }


def _percentiles(distances: np.ndarray, quantiles: list[float]) -> np.ndarray:
    """Return how many percent of the pairs behind the quantiles are nearer; equally near ones are not."""
    return np.interp(np.nextafter(distances, -np.inf), quantiles, _LEVELS)


def _verdict(strangers: float, same_person: float | None) -> Verdict:
    far = strangers >= DIFFERS_BEYOND_STRANGERS if same_person is None else same_person >= DIFFERS_BEYOND_SAME
    if far:
        return "differs"
    return "agrees" if strangers <= AGREES_WITHIN else "unclear"


_Pairs = tuple[np.ndarray, np.ndarray]


def _labelled_pairs(query: Sequence[Item], gallery: Sequence[Item], rng: np.random.Generator) -> tuple[_Pairs, _Pairs]:
    """Draw pairs of the same person and of strangers, of different cameras: rows of either side."""
    pids = _codes([item.pid for item in query], [item.pid for item in gallery])
    cameras = _codes([item.camid for item in query], [item.camid for item in gallery])
    junk = [np.array([item.pid == JUNK for item in items]) for items in (query, gallery)]

    def counted(rows: np.ndarray, columns: np.ndarray, *, same: bool) -> _Pairs:
        fine = ((pids[0][rows] == pids[1][columns]) == same) & ~junk[0][rows] & ~junk[1][columns]
        fine &= (cameras[0][rows] != cameras[1][columns]) | (cameras[0][rows] < 0)
        return rows[fine], columns[fine]

    # The gallery rows of a query's person lie together in the order of identities.
    order = np.argsort(pids[1], kind="stable")
    first, last = (np.searchsorted(pids[1][order], pids[0], side=side) for side in ("left", "right"))
    ends = np.cumsum(last - first)
    drawn = draw(int(ends[-1]), _DRAWN, rng)
    rows = np.searchsorted(ends, drawn, side="right")
    same = counted(rows, order[last[rows] - (ends[rows] - drawn)], same=True)
    rows, columns = np.divmod(draw(len(query) * len(gallery), _DRAWN, rng), len(gallery))
    return same, counted(rows, columns, same=False)


def _codes(query: list[Any], gallery: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers for the labels of both sides, alike for alike ones; -1 for None."""
    codes: dict[Any, int] = {}
    return (
        np.array([-1 if label is None else codes.setdefault(label, len(codes)) for label in query]),
        np.array([-1 if label is None else codes.setdefault(label, len(codes)) for label in gallery]),
    )
