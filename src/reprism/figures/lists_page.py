"""Ranked lists of one network, or of two beside each other, as pictures and as one page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from reprism.data.records import ReIDDataset
from reprism.evaluation.distances import part_distances
from reprism.evaluation.ranking import RankingMetrics
from reprism.figures.ranked import RankedList, draw_ranked_lists, ranked_lists
from reprism.figures.report import Section, image, page, paragraph, picture_uri
from reprism.files import write_whole
from reprism.notation import Partition

LEGEND = (
    "Green with a tick: the query's person; red with a cross: somebody else. Below each match its distance, identity "
    "and camera, and bars: each part's share in the squared distance. A short bar is a part that agrees."
)
"""What the pictures of :func:`draw_lists` show, in words."""

LEAST_WIDTH = 620
"""CSS pixels below which the words in such a picture could not be read."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """What a network made of a data set.

    Attributes:
        name: of the network.
        query, gallery: descriptors of the data set's queries and gallery, N×D and M×D.
        metrics: their ranking.
        partition: of the network.
        runs: descriptors side by side in a row: 1, or of tracklets their runs.
    """

    name: str
    query: np.ndarray
    gallery: np.ndarray
    metrics: RankingMetrics
    partition: Partition
    runs: int = 1

    def shares(self, found: RankedList) -> np.ndarray:
        """k×P: the share of each part in the squared distance of each match; rows sum to it."""
        return part_distances(self.query[found.query], self.gallery[found.gallery], self.partition, self.runs)


def hardest(metrics: RankingMetrics, count: int) -> list[int]:
    """The queries of least average precision, hardest first; lost ones are none of them."""
    order = np.argsort(metrics.average_precision, kind="stable")  # NaN sorts last
    return order[: min(count, metrics.num_valid_queries)].tolist()


def most_different(one: RankingMetrics, other: RankingMetrics, count: int) -> list[int]:
    """The queries whose average precision differs most, by how much."""
    gaps = np.abs(one.average_precision - other.average_precision)
    order = np.argsort(-gaps, kind="stable")
    return order[: min(count, int(np.isfinite(gaps).sum()))].tolist()


def draw_lists(
    lists: Sequence[tuple[Ranked, RankedList]], dataset: ReIDDataset, captions: Sequence[str]
) -> Image.Image:
    """Draw ranked lists below each other, each part's share of the distance under every match.

    Args:
        lists: each with the network that ranked it.
        dataset: what was ranked.
        captions: a line above each list.

    Raises:
        ImageError: an image cannot be read; names it.
    """
    shares = [one.shares(found) for one, found in lists]
    return draw_ranked_lists([found for _, found in lists], dataset.query, dataset.gallery, captions, shares=shares)


def write_lists(
    folder: str | PathLike[str],
    ranked: Sequence[Ranked],
    dataset: ReIDDataset,
    chosen: Sequence[int],
    k: int = 10,
    *,
    title: str,
    about: str = "",
) -> Path:
    """Write a picture of each chosen query's lists (``0001.png``, …) and ``index.html``, which holds them all.

    Args:
        folder: where; made if absent.
        ranked: one network, or several to compare: each gives a list, below each other.
        dataset: what they ranked.
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
    folder = Path(folder)
    lists = [ranked_lists(one.query, one.gallery, dataset.query, dataset.gallery, chosen, k) for one in ranked]
    sections = []
    for place, query in enumerate(chosen):
        captions = [f"{one.name}: average precision {one.metrics.average_precision[query]:.1%}" for one in ranked]
        picture = draw_lists([(one, found[place]) for one, found in zip(ranked, lists, strict=True)], dataset, captions)
        write_whole(folder / f"{place + 1:04d}.png", _png(picture))
        heading = dataset.query[query].path.name
        alt = f"Ranked lists of {heading}. {'; '.join(captions)}"
        sections.append(Section(f"{place + 1}. {heading}", [image(picture_uri(picture), alt, least_width=LEAST_WIDTH)]))
    parts = "; ".join(f"{one.name}: {', '.join(part.name for part in one.partition.parts)}" for one in ranked)
    lead = [
        *([about] if about else []),
        f"{LEGEND} Bars from left to right, {parts}.",
    ]
    write_whole(folder / "index.html", page(title, sections, lead=[paragraph(text) for text in lead]))
    return folder / "index.html"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()
