"""Ranked lists of one network, or of two beside each other, as pictures and as one page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from reprism.data.records import ReIDDataset
from reprism.evaluation.distances import part_distances
from reprism.evaluation.part_scale import PartAgreement, PartScale
from reprism.evaluation.ranking import RankingMetrics
from reprism.figures.ranked import RankedList, draw_ranked_lists, ranked_lists
from reprism.figures.report import Section, image, page, paragraph, picture_uri
from reprism.files import write_whole
from reprism.notation import Partition

LEGEND = (
    "Green with a tick: the query's person; red with a cross: somebody else. Below each match its distance, identity "
    "and camera."
)
"""Legend of a ranked list."""

BARS = (
    "Bars: how far apart each part is, compared with pairs of strangers. A short bar is nearer than almost all of "
    "them, a full one farther. Filled: agrees; hollow: unclear; striped: differs."
)
"""Legend of the bars of parts."""

NO_BARS = "No bars: there are too few pairs of strangers seen by different cameras to compare parts with."
"""Legend where there is no scale for bars."""

LEAST_WIDTH = 620
"""CSS pixels below which the words in such a picture could not be read."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """What a network made of a data set.

    Attributes:
        name: of the network.
        dataset: what it was shown.
        query, gallery: descriptors of the data set's queries and gallery, N×D and M×D.
        metrics: their ranking.
        partition: of the network.
        runs: descriptors side by side in a row: 1, or of tracklets their runs.
    """

    name: str
    dataset: ReIDDataset
    query: np.ndarray
    gallery: np.ndarray
    metrics: RankingMetrics
    partition: Partition
    runs: int = 1

    @cached_property
    def scale(self) -> PartScale | None:
        """Return the scale that parts are measured by; None where there are too few pairs."""
        items = self.dataset.query, self.dataset.gallery
        return PartScale.fit(self.query, self.gallery, *items, self.partition, self.runs)

    def parts(self, found: RankedList) -> list[dict[str, PartAgreement]]:
        """Return how well each part of each match agrees; a match of no parts where there is no scale."""
        if self.scale is None:
            return [{} for _ in found.gallery]
        distances = part_distances(self.query[found.query], self.gallery[found.gallery], self.partition, self.runs)
        return self.scale.agreement(distances)


def hardest(metrics: RankingMetrics, count: int) -> list[int]:
    """The queries of least average precision, hardest first; lost ones are none of them."""
    order = np.argsort(metrics.average_precision, kind="stable")  # NaN sorts last
    return order[: min(count, metrics.num_valid_queries)].tolist()


def most_different(one: RankingMetrics, other: RankingMetrics, count: int) -> list[int]:
    """The queries whose average precision differs most, by how much."""
    gaps = np.abs(one.average_precision - other.average_precision)
    order = np.argsort(-gaps, kind="stable")
    return order[: min(count, int(np.isfinite(gaps).sum()))].tolist()


def legend(ranked: Sequence[Ranked]) -> str:
    """Return what :func:`draw_lists` shows of some networks, in words."""
    if all(one.scale is None for one in ranked):
        return f"{LEGEND} {NO_BARS}"
    orders = "; ".join(f"{one.name}: {', '.join(part.name for part in one.partition.parts)}" for one in ranked)
    return f"{LEGEND} {BARS} From left to right, {orders}."


def draw_lists(lists: Sequence[tuple[Ranked, RankedList]], captions: Sequence[str]) -> Image.Image:
    """Draw ranked lists below each other, and under every match how well each part agrees.

    Args:
        lists: each with the network that ranked it; all of one data set.
        captions: a line above each list.

    Raises:
        ImageError: an image cannot be read; names it.
    """
    dataset = lists[0][0].dataset
    compared = any(one.scale is not None for one, _ in lists)
    parts = [one.parts(found) for one, found in lists] if compared else None
    return draw_ranked_lists([found for _, found in lists], dataset.query, dataset.gallery, captions, parts=parts)


def write_lists(
    folder: str | PathLike[str],
    ranked: Sequence[Ranked],
    chosen: Sequence[int],
    k: int = 10,
    *,
    title: str,
    about: str = "",
) -> Path:
    """Write a picture of each chosen query's lists (``0001.png``, …) and ``index.html``, which holds them all.

    Args:
        folder: where; made if absent.
        ranked: one network, or several to compare on one data set: each gives a list, below each other.
        chosen: places of queries, in the order wanted.
        k: matches in a list.
        title: of the page.
        about: a paragraph at its head.

    Returns:
        The page's path.

    Raises:
        ValueError: no query is chosen.
        ImageError: an image cannot be read; names it.
    """
    if not chosen:
        raise ValueError("there is no query to show: all are lost, or none was asked for")
    folder, dataset = Path(folder), ranked[0].dataset
    lists = [ranked_lists(one.query, one.gallery, dataset.query, dataset.gallery, chosen, k) for one in ranked]
    sections = []
    for place, query in enumerate(chosen):
        captions = [f"{one.name}: average precision {one.metrics.average_precision[query]:.1%}" for one in ranked]
        picture = draw_lists([(one, found[place]) for one, found in zip(ranked, lists, strict=True)], captions)
        write_whole(folder / f"{place + 1:04d}.png", _png(picture))
        heading = dataset.query[query].path.name
        alt = f"Ranked lists of {heading}. {'; '.join(captions)}"
        sections.append(Section(f"{place + 1}. {heading}", [image(picture_uri(picture), alt, least_width=LEAST_WIDTH)]))
    lead = [*([about] if about else []), legend(ranked)]
    write_whole(folder / "index.html", page(title, sections, lead=[paragraph(text) for text in lead]))
    return folder / "index.html"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()
