"""Counting pairs of descriptors by distance, block by block: working memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reprism.data.records import DISTRACTOR, JUNK, Item
from reprism.evaluation.crowding import centered
from reprism.evaluation.distances import Matrix, as_matrix
from reprism.progress import Count

BINS = 4096
"""Bins of a histogram of distances."""

CANDIDATES = 10
"""Nearest gallery items of a query whose rightness the probability is fitted to."""

_BLOCK = 2**21  # distances at a time
_GATHERED = 2**20  # counts of pairs of people, before those of the same two people are added up


class _Block(NamedTuple):
    """Some queries against the whole gallery; B×M each but for ``queries``."""

    queries: slice
    distance: Tensor
    bins: Tensor
    same: Tensor  # pairs of one person in different cameras
    different: Tensor  # pairs of two people in different cameras
    hidden: Tensor  # the person's own items by the query's own camera: not ranked


@dataclass(frozen=True)
class Histograms:
    """Counts of one pass over all pairs.

    Attributes:
        same, different: Pairs by distance, ``BINS`` each.
        nearest_same, nearest_different: N distances; infinite without a mate.
        candidates: N×k distances of the nearest items, infinite where there are fewer.
        right: N×k: whether they are of the query's person.
    """

    same: np.ndarray
    different: np.ndarray
    nearest_same: np.ndarray
    nearest_different: np.ndarray
    candidates: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class PeopleCounts:
    """Pairs nearer than a threshold, by the people who are in them.

    Attributes:
        same: Accepted pairs of each person with themselves.
        first, second: Every two people who have an accepted pair, once.
        different: Number of accepted pairs of those two people.
    """

    same: np.ndarray
    first: np.ndarray
    second: np.ndarray
    different: np.ndarray


class LabelledRows:
    """Descriptors of queries and of a gallery, and who is on them: everything that pairs are counted from.

    Junk is left out. Each distractor is a person of its own, so that it is nobody's match.

    Args:
        query, gallery: N×D and M×D descriptors.
        query_items, gallery_items: In the descriptors' order.
        asking: M booleans: which gallery rows are among the queries too. Two of them are a pair in both orders, and
            count half in each. None: none is.

    Raises:
        ValueError: Rows and items do not agree, or a value is not finite.
    """

    def __init__(
        self,
        query: Matrix,
        gallery: Matrix,
        query_items: Sequence[Item],
        gallery_items: Sequence[Item],
        asking: Sequence[bool] | np.ndarray | None = None,
    ) -> None:
        self.query, query_items, _ = _without_junk("query", query, query_items)
        self.gallery, gallery_items, kept = _without_junk("gallery", gallery, gallery_items)
        person: dict[Any, int] = {}
        camera: dict[Any, int] = {}
        self.query_person, self.query_camera = _codes(query_items, person, camera, unknown=-1)
        self.query_people = len(person)
        # An unknown camera is like no other, not even another unknown one.
        self.gallery_person, self.gallery_camera = _codes(gallery_items, person, camera, unknown=-2)
        self.people, self.cameras = len(person), len(camera)
        self.weight = None
        if asking is not None:
            self.weight = torch.where(torch.as_tensor(np.asarray(asking, dtype=bool)[kept]), 0.5, 1.0).double()
        if len(self.gallery):
            self.query, self.gallery = centered(self.query, self.gallery)
        self._norms, self._own = self.gallery.square().sum(1), self.query.square().sum(1)
        if not bool(torch.isfinite(self._norms).all() and torch.isfinite(self._own).all()):
            raise ValueError("a descriptor holds NaN or infinite values, or is too long: every value must be finite")

    @cached_property
    def edges(self) -> np.ndarray:
        """The bins' bounds, ``BINS`` + 1, from 0 to a distance that none exceeds."""
        return np.linspace(0, self._reach, BINS + 1)

    @cached_property
    def _reach(self) -> float:
        if not len(self.query) or not len(self.gallery):
            return 1.0
        return float(self._norms.amax().sqrt() + self._own.amax().sqrt()) or 1.0

    def histograms(self, progress: Count | None = None) -> Histograms:
        """Count all pairs by distance, and find the nearest items of every query."""
        counts = torch.zeros((2, BINS), dtype=torch.float64)
        count, k = len(self.query), min(CANDIDATES, len(self.gallery))
        near = torch.full((2, count), torch.inf)
        candidates, right = torch.empty((count, k)), torch.empty((count, k), dtype=torch.bool)
        nothing = torch.tensor(torch.inf)
        for block in self._blocks(progress):
            some, distance = block.queries, block.distance
            for index, chosen in enumerate((block.same, block.different)):
                counts[index] += self._count(block.bins, chosen)
            alike = block.same | block.hidden
            near[0, some] = torch.where(block.same, distance, nothing).amin(1)
            near[1, some] = torch.where(alike, nothing, distance).amin(1)
            found = distance.masked_fill(block.hidden, torch.inf).topk(k, dim=1, largest=False)
            candidates[some], right[some] = found.values, alike.gather(1, found.indices)
        return Histograms(*(each.numpy() for each in (*counts, *near, candidates, right)))

    def by_people(self, bins: Sequence[int], progress: Count | None = None) -> list[PeopleCounts]:
        """Count the pairs that lie in the first so many bins, by the people who are in them.

        Beside the descriptors, memory holds a number for every two people of whom a pair lies in them.

        Args:
            bins: Number of bins to count, one for each threshold.
            progress: Called with queries done and all of them.
        """
        same = [torch.zeros(self.people, dtype=torch.float64) for _ in bins]
        together = [_Gathered() for _ in bins]
        for block in self._blocks(progress):
            rows, columns = torch.nonzero((block.same | block.different) & (block.bins < max(bins)), as_tuple=True)
            first, second = self.query_person[block.queries][rows], self.gallery_person[columns]
            weight = torch.ones(len(rows), dtype=torch.float64) if self.weight is None else self.weight[columns]
            found, alike = block.bins[rows, columns], first == second
            code = torch.minimum(first, second) * self.people + torch.maximum(first, second)
            for number, limit in enumerate(bins):
                near = found < limit
                of_one = near & alike
                same[number] += torch.bincount(first[of_one], weight[of_one], minlength=self.people)
                of_two = near & ~alike
                together[number].add(code[of_two].numpy(), weight[of_two].numpy())
        results = []
        for of_one, gathered in zip(same, together, strict=True):
            codes, different = gathered.total()
            results.append(PeopleCounts(of_one.numpy(), *np.divmod(codes, max(1, self.people)), different))
        return results

    @cached_property
    def met(self) -> tuple[np.ndarray, np.ndarray]:
        """Two matrices, people × (1 + cameras), whose product is how often people meet.

        ``met[0][i] @ met[1][j]`` counts the pairs of a query of person i and a gallery item of person j by another
        camera: all pairs, less those of each camera.
        """
        sides = []
        for person, camera, weight, sign in (
            (self.query_person, self.query_camera, None, 1),
            (self.gallery_person, self.gallery_camera, self.weight, -1),
        ):
            weights = torch.ones(len(person), dtype=torch.float64) if weight is None else weight
            known, width = camera >= 0, 1 + self.cameras
            cells = torch.cat([person * width, (person * width + 1 + camera)[known]])
            signed = torch.cat([weights, sign * weights[known]])
            sides.append(torch.bincount(cells, signed, minlength=self.people * width).view(self.people, width).numpy())
        return sides[0], sides[1]

    def _count(self, bins: Tensor, chosen: Tensor) -> Tensor:
        if self.weight is None:
            return torch.bincount(bins[chosen], minlength=BINS)
        return torch.bincount(bins[chosen], self.weight.expand_as(bins)[chosen], minlength=BINS)

    def _blocks(self, progress: Count | None) -> Iterator[_Block]:
        """Count all pairs; the same pairs fall in the same bins, however often it is called."""
        step = max(1, _BLOCK // max(1, len(self.gallery)))
        for start in range(0, len(self.query), step):
            some = slice(start, min(start + step, len(self.query)))
            distance = torch.addmm(self._norms, self.query[some], self.gallery.T, alpha=-2)
            distance.add_(self._own[some, None]).clamp_(min=0).sqrt_()
            alike = self.query_person[some, None] == self.gallery_person
            together = self.query_camera[some, None] == self.gallery_camera
            bins = (distance * (BINS / self._reach)).long().clamp_(max=BINS - 1)
            yield _Block(some, distance, bins, alike & ~together, ~alike & ~together, alike & together)
            if progress is not None:
                progress(some.stop, len(self.query))


class _Gathered:
    """Counts by code, added up now and then."""

    def __init__(self) -> None:
        self._codes: list[np.ndarray] = []
        self._counts: list[np.ndarray] = []
        self._waiting = 0

    def add(self, codes: np.ndarray, counts: np.ndarray) -> None:
        self._codes.append(codes)
        self._counts.append(counts)
        self._waiting += len(codes)
        if self._waiting > _GATHERED:
            self.total()

    def total(self) -> tuple[np.ndarray, np.ndarray]:
        codes, index = np.unique(np.concatenate([np.zeros(0, np.int64), *self._codes]), return_inverse=True)
        counts = np.bincount(index, np.concatenate([np.zeros(0), *self._counts]), minlength=len(codes))
        self._codes, self._counts, self._waiting = [codes], [counts], 0
        return codes, counts


def _without_junk(name: str, rows: Matrix, items: Sequence[Item]) -> tuple[Tensor, list[Item], list[int]]:
    matrix = as_matrix(rows, name)
    if len(matrix) != len(items):
        raise ValueError(f"{name} has {len(matrix)} descriptors for {len(items)} items")
    kept = [index for index, item in enumerate(items) if item.pid != JUNK]
    matrix = matrix if len(kept) == len(items) else matrix[torch.tensor(kept, dtype=torch.int64)]
    return matrix.float().cpu(), [items[index] for index in kept], kept


def _codes(
    items: Sequence[Item], person: dict[Any, int], camera: dict[Any, int], unknown: int
) -> tuple[Tensor, Tensor]:
    """People and cameras as integers."""
    people = [person.setdefault(object() if item.pid == DISTRACTOR else item.pid, len(person)) for item in items]
    cameras = [unknown if item.camid is None else camera.setdefault(item.camid, len(camera)) for item in items]
    return torch.tensor(people, dtype=torch.int64), torch.tensor(cameras, dtype=torch.int64)
