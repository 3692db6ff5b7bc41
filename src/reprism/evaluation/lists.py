"""Ranked lists: the nearest gallery items of chosen queries, and which queries are worth looking at.

Lists follow the rules of the evaluation: images of the query's person by the query's own camera are left out, and
equally near items keep their order in the gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reprism.data.records import JUNK, Item
from reprism.evaluation.ranking import RankingMetrics


@dataclass(frozen=True, slots=True, eq=False)
class RankedList:
    """The head of one query's ranking: k images, or fewer where the gallery has no more for this query.

    Attributes:
        query: Index of the query among the query items.
        gallery: K int64, indices among the gallery items, nearest first.
        distances: K float64, Euclidean distances to the query, ascending.
        correct: K bool, whether the image shows the query's person.
    """

    query: int
    gallery: np.ndarray
    distances: np.ndarray
    correct: np.ndarray


def ranked_lists(
    query: np.ndarray,
    gallery: np.ndarray,
    query_items: Sequence[Item],
    gallery_items: Sequence[Item],
    chosen: Sequence[int] | None = None,
    k: int = 10,
    *,
    block_bytes: int = 64 * 2**20,
) -> list[RankedList]:
    """Rank the gallery for some queries and keep the k nearest of each.

    Junk is left out, and so is a gallery image with the query's identity and camera, where cameras are known.
    Distances are float64, each from its own two rows alone, so identical gallery rows tie exactly and stay in gallery
    order. :func:`reprism.evaluate` works in float32 blocks: there, images closer to each other than its rounding may
    swap places.

    Args:
        query: N×D descriptors, compared as given.
        gallery: M×D descriptors of the same model; memory-mapped too, it is read in blocks.
        query_items: N images or tracklets, in the order of the rows.
        gallery_items: M images or tracklets, likewise.
        chosen: Indices of the queries to rank, in this order; None: all of them.
        k: Most images in a list, 1 or more.
        block_bytes: Bound on the working memory, some arrays of length M aside.

    Returns:
        One list per chosen query, in their order.

    Raises:
        ValueError: Rows and items differ in number, the widths differ, k is below 1, a query is out of range, or a
            descriptor is not finite.
    """
    _check(query, gallery, query_items, gallery_items, k)
    indices = range(len(query_items)) if chosen is None else chosen
    for index in indices:
        if not 0 <= index < len(query_items):
            raise ValueError(f"query {index} was chosen, but there are {len(query_items)}, counted from 0")
    heads = {index: (np.empty(0), np.empty(0, np.int64)) for index in indices}
    step = max(1, block_bytes // (3 * 8 * gallery.shape[1]))
    for start in range(0, len(gallery_items), step):
        block = np.asarray(gallery[start : start + step], np.float64)
        if not np.isfinite(block).all():
            raise ValueError(f"a gallery descriptor in rows {start} to {start + len(block) - 1} is not finite")
        for index, (nearest, rows) in heads.items():
            found, columns = _nearest(
                block, query[index], _left_out(query_items[index], gallery_items[start : start + step]), k
            )
            # What was found before lies earlier in the gallery: a stable sort keeps it first among equals.
            nearest, rows = np.concatenate([nearest, found]), np.concatenate([rows, start + columns])
            order = np.argsort(nearest, kind="stable")[:k]
            heads[index] = (nearest[order], rows[order])
    return [_ranked_list(index, *heads[index], query_items, gallery_items) for index in indices]


def _check(
    query: np.ndarray,
    gallery: np.ndarray,
    query_items: Sequence[Item],
    gallery_items: Sequence[Item],
    k: int,
) -> None:
    for side, rows, samples in (("query", query, query_items), ("gallery", gallery, gallery_items)):
        if rows.ndim != 2 or len(rows) != len(samples):
            shape = "×".join(map(str, rows.shape))
            raise ValueError(f"the {side} has {len(samples)} items but descriptors {shape}: expected one row each")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query descriptors are {query.shape[1]} wide and gallery descriptors {gallery.shape[1]}: both must come "
            "from the same model"
        )
    if k < 1:
        raise ValueError(f"k is {k}; a ranked list has 1 image or more")
    if not np.isfinite(query).all():
        raise ValueError("a query descriptor is not finite")


def _nearest(block: np.ndarray, query: np.ndarray, left_out: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and indices of the k rows of ``block`` nearest to ``query``, in order, ties by index."""
    difference = block - query.astype(np.float64)
    distances = np.sqrt(np.einsum("nd,nd->n", difference, difference))
    indices = np.flatnonzero(~left_out)
    distances = distances[indices]
    if len(distances) > k:
        near = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
        distances, indices = distances[near], indices[near]
    order = np.argsort(distances, kind="stable")[:k]
    return distances[order], indices[order]


def _left_out(query: Item, gallery: Sequence[Item]) -> np.ndarray:
    known = query.camid is not None
    out = (item.pid == JUNK or (known and item.pid == query.pid and item.camid == query.camid) for item in gallery)
    return np.fromiter(out, bool, len(gallery))


def _ranked_list(
    index: int,
    distances: np.ndarray,
    rows: np.ndarray,
    query_items: Sequence[Item],
    gallery_items: Sequence[Item],
) -> RankedList:
    pid = query_items[index].pid
    correct = np.fromiter((gallery_items[row].pid == pid for row in rows), bool, len(rows))
    return RankedList(index, rows, distances, correct)


def hardest(metrics: RankingMetrics, count: int) -> list[int]:
    """Return the queries of least average precision, hardest first, without lost ones."""
    order = np.argsort(metrics.average_precision, kind="stable")  # NaN sorts last
    return order[: min(count, metrics.num_valid_queries)].tolist()


def most_different(one: RankingMetrics, other: RankingMetrics, count: int) -> list[int]:
    """Return the queries whose average precision differs most, by how much, without lost ones."""
    gaps = np.abs(one.average_precision - other.average_precision)
    order = np.argsort(-gaps, kind="stable")
    return order[: min(count, int(np.isfinite(gaps).sum()))].tolist()
