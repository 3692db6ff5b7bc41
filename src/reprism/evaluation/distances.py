"""Distances between queries and gallery, filled in a block at a time; and what may be given as descriptors."""

from __future__ import annotations

import warnings
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from reprism.deprecation import renamed_arguments
from reprism.evaluation.crowding import center_of
from reprism.notation import Partition

Matrix: TypeAlias = Tensor | np.ndarray

MANY_ROWS = 256
"""Queries at a time from which on more make no product faster."""

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


_FEW = 1 / 8  # of a block: gathering so many values costs less than passes over all


def few_below(x: Tensor, limits: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return where a block on the CPU (B×W) is at most its row's limit (B): rows and columns; None if that is not rare.

    What lies beyond the farthest true match of a query has no part in any rank: mostly nearly all.
    """
    if x.device.type != "cpu":
        return None
    mask = x.numpy() <= limits[:, None].numpy()  # which NumPy vectorises, unlike torch
    if np.count_nonzero(mask) > _FEW * mask.size:
        return None
    flat = torch.from_numpy(np.flatnonzero(mask))
    return flat // x.shape[1], flat % x.shape[1]


class Distances(Protocol):
    """Whatever can fill out (B×(stop − start)) with the distances of some queries to a run of the gallery.

    Attributes:
        shape: Queries and gallery rows.
        device, dtype: Device and data type of the blocks to fill.
        max_rows: Queries at a time; more would exceed the budget.
        fewest_rows: With fewer queries at a time it is better to cut the gallery as well.
    """

    shape: tuple[int, int]
    device: torch.device
    dtype: torch.dtype
    max_rows: int
    # Below this many rows a matrix product is bound by reading the gallery.
    fewest_rows: int = 32

    def of_matches(self, queries: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Tensor | None:
        """Return the distances of queries[rows] (P indices, ascending) to gallery rows ``columns`` (P).

        None: they are to be taken from the blocks, since the rounding of a product depends on where in it a number
        stands.
        """
        del queries, rows, columns
        return None

    def fill(self, out: Tensor, queries: np.ndarray, start: int, stop: int) -> None:
        """Write the distances of ``queries`` (B indices) to gallery rows ``start`` … ``stop`` - 1 into ``out``."""

    def fill_near(self, out: Tensor, queries: np.ndarray, start: int, stop: int, matches: Tensor) -> None:
        """Write them so that they are exact near those of the matches, and on their right side elsewhere.

        Args:
            matches: B×n, as :meth:`of_matches` gave them, minus infinity where a query has fewer.
        """
        del matches
        self.fill(out, queries, start, stop)


class EuclideanDistances(Distances):
    """Squared Euclidean distances less the query's own squared norm, which changes no ranking.

    Both sides are centred, a block at a time, where rows are too crowded for the precision of a product
    (:mod:`reprism.evaluation.crowding`); norms are the centred rows'.
    """

    def __init__(self, query: Tensor, gallery: Tensor, block_bytes: int) -> None:
        self.query, self.gallery = query, gallery
        self.shape = len(query), len(gallery)
        self.device = query.device if query.device.type != "cpu" else gallery.device
        self.dtype = torch.float64 if torch.float64 in (query.dtype, gallery.dtype) else torch.float32
        row_bytes = gallery.shape[1] * self.dtype.itemsize
        self.step, self.max_rows = (max(1, block_bytes // (part * row_bytes)) for part in (4, 8))
        center = center_of(gallery)
        self.center = None if center is None else center.to(self.device, self.dtype)
        # Rows the product can read where they are need no copy, hence no further cut.
        as_it_is = gallery.dtype == self.dtype and gallery.device == self.device and 1 in gallery.stride()
        self.direct = as_it_is and self.center is None
        self.query_norms = self._squared_norms(query, "query")
        self.gallery_norms = self._squared_norms(gallery, "gallery")

    def _rows(self, rows: Tensor) -> Tensor:
        """Some rows of either side as the product takes them."""
        rows = rows.to(self.device, self.dtype)
        return rows if self.center is None else rows - self.center

    def _squared_norms(self, rows: Tensor, side: str) -> Tensor:
        """Return the squared lengths of the rows of one side; refuses rows that are not finite."""
        norms = torch.empty(len(rows), dtype=self.dtype, device=self.device)
        step = max(1, min(self.step // 2, 2**22 // rows.shape[1]))
        for start in range(0, len(rows), step):
            some = self._rows(rows[start : start + step])
            norms[start : start + step] = some.square().sum(1)
        # A norm within range proves every value of its row finite, which saves a pass, and (Cauchy-Schwarz)
        # every distance too.
        bad = torch.nonzero(~(norms < torch.finfo(self.dtype).max / 4))
        if len(bad):
            row = int(bad[0])
            if torch.isfinite(rows[row]).all():
                raise ValueError(
                    f"{side} row {row} is too long: its squared norm overflows {self.dtype}: scale both sides"
                )
            raise ValueError(_not_finite(side, row))
        return norms

    def fill(self, out: Tensor, queries: np.ndarray, start: int, stop: int) -> None:
        """Fill a block by one matrix product."""
        index = torch.from_numpy(queries).to(self.query.device)
        some = self._rows(self.query[index])
        step = stop - start if self.direct else self.step
        for left in range(start, stop, step):
            right = min(left + step, stop)
            rows = self._rows(self.gallery[left:right])
            target = out[:, left - start : right - start]
            # Written to out=, the product is out of autocast's reach: never rounded to half precision.
            torch.addmm(self.gallery_norms[left:right], some, rows.T, alpha=-2, out=target)


class AllPairsDistances(Distances):
    """Compare tracklets by the sum of the Euclidean distances between all segments of one and all of the other."""

    def __init__(self, query: Tensor, gallery: Tensor, segments: int, block_bytes: int) -> None:
        width = query.shape[1] // segments
        self.pairs = [
            EuclideanDistances(
                query[:, i * width : (i + 1) * width], gallery[:, j * width : (j + 1) * width], block_bytes
            )
            for i in range(segments)
            for j in range(segments)
        ]
        first = self.pairs[0]
        self.shape, self.device, self.dtype = first.shape, first.device, first.dtype
        # Beside a block there is a second one, of the pair at work.
        self.max_rows = max(1, first.max_rows // 2)

    def fill(self, out: Tensor, queries: np.ndarray, start: int, stop: int) -> None:
        """Fill a block by one matrix product for each pair of segments."""
        index = torch.from_numpy(queries).to(self.device)
        out.zero_()
        one = torch.empty_like(out)
        for pair in self.pairs:
            pair.fill(one, queries, start, stop)
            one += pair.query_norms[index, None]
            # Rounding may take the square of a distance of nothing below nothing.
            out += one.clamp_(min=0).sqrt_()


class GivenDistances(Distances):
    """Distances that the caller has."""

    def __init__(self, distances: Tensor) -> None:
        self.distances = distances
        self.shape = distances.shape[0], distances.shape[1]
        self.device = distances.device
        self.dtype = torch.float64 if distances.dtype == torch.float64 else torch.float32
        self.max_rows = len(distances)
        step = max(1, 2**22 // distances.shape[1])
        for start in range(0, len(distances), step):
            finite = torch.isfinite(distances[start : start + step]).all(1)
            if not finite.all():
                raise ValueError(_not_finite("distances", start + int(torch.nonzero(~finite)[0])))

    def fill(self, out: Tensor, queries: np.ndarray, start: int, stop: int) -> None:
        """Return a copy of the block, widened to float32."""
        for row, query in zip(out, queries.tolist(), strict=True):
            row.copy_(self.distances[query, start:stop])


@renamed_arguments(runs="segments")
def part_distances(query: Matrix, gallery: Matrix, partition: Partition, segments: int = 1) -> np.ndarray:
    """Return the share of each part in the squared distance between one query and some gallery rows.

    The squared Euclidean distance is a sum over columns, and every part has its own: so it splits exactly, into what
    agrees and what does not.

    Args:
        query: D, or 1×D: one descriptor.
        gallery: M×D.
        partition: The model's partition; D is its number of parts times their width.
        segments: Number of segments' descriptors side by side in a row; a part has columns in each.

    Returns:
        M×P float64, in the order of ``partition.parts``; rows sum to the squared distance.

    Raises:
        ValueError: A width that is no multiple of the number of parts, or widths that disagree.
        TypeError: Something that is not a floating-point matrix.
    """
    one = as_matrix(query.reshape(1, -1), "query").cpu().double()
    rows = as_matrix(gallery, "gallery").cpu().double()
    parts = len(partition.parts)
    if segments < 1 or one.shape[1] != rows.shape[1] or rows.shape[1] % (segments * parts):
        raise ValueError(
            f"query and gallery are {one.shape[1]} and {rows.shape[1]} wide; expected the same width, a multiple of "
            f"the {parts} parts of {partition}, times {segments} segment(s)"
        )
    squares = (rows - one).square().view(len(rows), segments, parts, -1)
    shares: np.ndarray = squares.sum((1, 3)).numpy()
    return shares


def as_matrix(given: Matrix, name: str) -> Tensor:
    """Return a floating-point torch tensor over the caller's own memory; ``name`` is for errors.

    Raises:
        TypeError: No array, or none of floating-point numbers.
        ValueError: Not two-dimensional, or empty.
    """
    if isinstance(given, np.ndarray) and given.dtype.kind == "f" and given.dtype.itemsize <= 8:
        # Byte order and reversed rows are what torch cannot view in place; both are rare enough for a copy.
        if not given.dtype.isnative or any(stride < 0 for stride in given.strides):
            given = np.ascontiguousarray(given, dtype=given.dtype.newbyteorder("="))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            given = torch.from_numpy(given)  # nothing here writes to it
    if not isinstance(given, Tensor) or given.dtype not in _DTYPES:
        kind = f"{type(given).__name__} of {given.dtype}" if hasattr(given, "dtype") else type(given).__name__
        raise TypeError(
            f"{name} is a {kind}: expected a torch tensor or numpy array of floating-point numbers "
            "(float16, bfloat16, float32, float64)"
        )
    if given.ndim != 2 or 0 in given.shape:
        raise ValueError(f"{name} has shape {tuple(given.shape)}: expected two dimensions, none of them empty")
    return given.detach()


def _not_finite(name: str, row: int) -> str:
    return f"{name} row {row} (the first such) holds NaN or infinite values: every value must be finite"
