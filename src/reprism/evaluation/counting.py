"""The rank of every true match: how many gallery rows come before it, counted block by block.

No query × gallery matrix is kept, none sorted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from reprism.evaluation.distances import MANY_ROWS, Distances, few_below
from reprism.evaluation.identities import Identities

# Comparisons run over tiles that stay in a core's cache; a GPU prefers few large launches.
_TILE_ELEMENTS = {"cpu": 2**20}
_TILE_ELEMENTS_GPU = 2**24
# Past this many matches in a query, sorting its row is cheaper than one comparison sweep per match.
_SORT_ABOVE = 256
# A float32 sum of ones is exact up to here, so no block is wider.
_WIDEST_BLOCK = 2**24


def ranks_of_matches(
    distances: Distances, identities: Identities, block_bytes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of valid queries (B indices) with the ranks of their matches (B×n int64, in gallery order)."""
    order = identities.query_order()
    rows, width = _block_shape(distances, len(order), identities, block_bytes)
    tile = max(1, min(rows, _TILE_ELEMENTS.get(distances.device.type, _TILE_ELEMENTS_GPU) // width))
    buffer, scratch = (torch.empty(n * width, dtype=distances.dtype, device=distances.device) for n in (rows, tile))
    for start in range(0, len(order), rows):
        queries = order[start : start + rows]
        # Inside a tile, most matches first: the rows still in play are then always the first ones.
        queries = queries[np.lexsort((-identities.num_matches[queries], np.arange(len(queries)) // tile))]
        with torch.inference_mode():
            counts = _count_before(distances, identities, queries, width, tile, buffer, scratch)
        yield queries, counts.cpu().numpy() + 1


def _block_shape(distances: Distances, queries: int, identities: Identities, block_bytes: int) -> tuple[int, int]:
    """Return the rows and columns of a block of distances: a quarter of the budget, the rest for what they need."""
    gallery, queries = len(identities.members), min(queries, distances.max_rows)
    elements = max(1, block_bytes // (4 * distances.dtype.itemsize))
    # Of every match up to 256 bytes are held (column, distance, count, precision, …).
    of_matches = 16 * identities.most
    rows = elements // (gallery + of_matches)
    if rows >= min(queries, distances.fewest_rows) and gallery <= _WIDEST_BLOCK:
        return min(rows, queries), gallery
    many = max(MANY_ROWS, distances.fewest_rows)
    rows = max(1, min(queries, many, math.isqrt(elements), elements // of_matches))
    return rows, max(1, min(gallery, elements // rows, _WIDEST_BLOCK))


def _count_before(
    distances: Distances,
    identities: Identities,
    queries: np.ndarray,
    width: int,
    tile: int,
    buffer: Tensor,
    scratch: Tensor,
) -> Tensor:
    """B×n int64: how many rows of the gallery come before each match of each of B queries."""
    device, gallery_size = buffer.device, len(identities.members)
    sizes, pairs = identities.num_matches[queries], identities.pairs(queries)
    shape = (len(queries), int(sizes.max()))

    # Absent matches lie infinitely close, so nothing is counted before them; their column is the row's first.
    columns = np.repeat(pairs.columns[np.cumsum(sizes) - sizes][:, None], shape[1], axis=1)
    columns[pairs.rows, pairs.slots] = pairs.columns
    thresholds = torch.full(shape, -torch.inf, dtype=buffer.dtype, device=device)

    def block(start: int) -> Tensor:
        stop = min(start + width, gallery_size)
        out = buffer[: len(queries) * (stop - start)].view(len(queries), stop - start)
        if of_matches is None:
            distances.fill(out, queries, start, stop)
        else:
            distances.fill_near(out, queries, start, stop, thresholds)
        return out

    def among(start: int, columns: np.ndarray, *others: np.ndarray) -> list[Tensor]:
        inside = (columns >= start) & (columns < start + width)
        return [torch.from_numpy(x[inside]).to(device) for x in (columns - start, *others)]

    current = -1  # where the block now in the buffer starts
    of_matches = distances.of_matches(queries, pairs.rows, pairs.columns)
    if of_matches is not None:
        thresholds[pairs.rows, pairs.slots] = of_matches
    else:
        # A product's rounding depends on where in it a number stands: thresholds must come from the very blocks.
        for start in range(0, gallery_size, width):
            column, row, slot = among(start, pairs.columns, pairs.rows, pairs.slots)
            if len(column):
                current, values = start, block(start)
                thresholds[row, slot] = values[row, column]

    counts = torch.zeros(shape, dtype=torch.int64, device=device)
    # The block still in the buffer goes first; unless the gallery is cut it is the only one.
    for start in sorted(range(0, gallery_size, width), key=lambda s: s != current):
        if start != current:
            values = block(start)
        column, row = among(start, pairs.ignored_columns, pairs.ignored_rows)
        values[row, column] = torch.inf
        for top in range(0, shape[0], tile):
            part, n = slice(top, top + tile), sizes[top]
            counts[part, :n] += _count_in_tile(
                values[part], thresholds[part, :n], columns[part, :n] - start, sizes[part], scratch
            )
    return counts


def _count_in_tile(x: Tensor, thresholds: Tensor, columns: np.ndarray, sizes: np.ndarray, scratch: Tensor) -> Tensor:
    """B×n int64: how many values of each row of x (B×W) come before its thresholds (B×n), at columns (B×n).

    A value comes before a threshold if it is smaller, or equal and further left. Columns may lie outside x.
    """
    W = x.shape[1]
    if thresholds.shape[1] and (few := few_below(x, thresholds.amax(1))) is not None:
        return _count_among(x, thresholds, columns, *few)
    if thresholds.shape[1] > _SORT_ABOVE:
        low, high = 0, W
        before, equal = (torch.zeros(thresholds.shape, dtype=torch.int64, device=x.device) for _ in range(2))
        # By pieces, because sorting takes several times the memory of what is sorted.
        for piece in x.split(max(1, scratch.numel() // (4 * len(x))), dim=1):
            ordered = piece.sort(1).values
            smaller = torch.searchsorted(ordered, thresholds)
            before += smaller
            equal += torch.searchsorted(ordered, thresholds, right=True) - smaller
    else:
        # Left of all these matches an equal value comes before them, right of them it does not. Only between
        # must equals be looked at one by one: a short stretch in a gallery sorted by identity.
        low, high = (int(c.clip(0, W)) for c in (columns.min(), columns.max() + 1))
        before = _count(torch.le, x[:, :low], thresholds, sizes, scratch)
        before += _count(torch.lt, x[:, low:], thresholds, sizes, scratch)
        equal = _count(torch.eq, x[:, low:high], thresholds, sizes, scratch)
    column = torch.from_numpy(columns).to(x.device)
    # The match itself is the one equal value expected; ties beyond it are rare and settled by position.
    row, slot = torch.nonzero(equal > ((column >= 0) & (column < W)), as_tuple=True)
    position = torch.arange(low, high, device=x.device)
    step = max(1, scratch.numel() // (4 * max(1, high - low)))
    for some in range(0, len(row), step):
        r, s = row[some : some + step], slot[some : some + step]
        tied = x[r, low:high] == thresholds[r, s, None]
        before[r, s] += (tied & (position < column[r, s, None])).sum(1)
    return before


def _count_among(x: Tensor, thresholds: Tensor, columns: np.ndarray, rows: Tensor, places: Tensor) -> Tensor:
    """Return the same where only the values at these rows and columns can come before a threshold."""
    before = torch.zeros(thresholds.shape, dtype=torch.int64)
    column = torch.from_numpy(columns)
    step = max(1, _TILE_ELEMENTS["cpu"] // thresholds.shape[1])
    for row, place in zip(rows.split(step), places.split(step), strict=True):
        value, limit = x[row, place][:, None], thresholds[row]
        before.index_add_(0, row, ((value < limit) | ((value == limit) & (place[:, None] < column[row]))).long())
    return before


def _count(compare: Callable[..., Tensor], x: Tensor, thresholds: Tensor, sizes: np.ndarray, scratch: Tensor) -> Tensor:
    """B×n int64: for how many values v of each row of x (B×W) compare(v, threshold) holds, as scratch allows.

    sizes (B, descending) says how many thresholds of each row are real.
    """
    counts = torch.zeros(thresholds.shape, dtype=x.dtype, device=x.device)
    step = max(1, scratch.numel() // max(1, x.numel()))
    for j in range(0, thresholds.shape[1] if x.numel() else 0, step):
        rows = int(np.count_nonzero(sizes > j))
        some = thresholds[:rows, j : j + step, None]
        # Ones and zeros of the values' own type: torch vectorises such comparisons, but not to bool.
        hits = scratch[: rows * some.shape[1] * x.shape[1]].view(rows, some.shape[1], x.shape[1])
        compare(x[:rows, None, :], some, out=hits)
        counts[:rows, j : j + step] = hits.sum(2)
    return counts.to(torch.int64)
