"""Re-ranking by k-reciprocal neighbours on sparse lists, and average query expansion.

Zhong et al., *Re-ranking Person Re-identification with k-reciprocal Encoding*, CVPR 2017. The known implementations
keep several N×N matrices for N = queries + gallery. But a row of the method's vectors has only some hundred entries
that are not zero: neighbours, and neighbours of neighbours. Kept as lists, they take memory of order N·k.

The data flow one way: nearest neighbours -> reciprocal sets -> sparse vectors -> a block of distances.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from reprism.evaluation.crowding import center_of, centered
from reprism.evaluation.distances import Distances, Matrix, as_matrix
from reprism.evaluation.neighbors import Neighbors, nearest
from reprism.progress import Count

_CHUNK = 2**22  # comparisons at a time when sets of neighbours are met


def rerank(
    query: Matrix,
    gallery: Matrix,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    block_bytes: int = 256 * 2**20,
    progress: Count | None = None,
) -> np.ndarray:
    """Return distances after k-reciprocal re-ranking.

    A distance is ``lambda_value`` times the squared Euclidean distance plus ``1 - lambda_value`` times the Jaccard
    distance of the reciprocal neighbourhoods. The squared distance is divided by the query's largest one, to queries
    and gallery, as in the authors' code. Equal distances rank in the order queries, then gallery.
    Beside the result, memory is of order (N+M)·k1 and ``block_bytes``.

    Args:
        query: N×D descriptors, floating-point torch tensor or numpy array.
        gallery: M×D descriptors.
        k1: Neighbours that reciprocity is asked of.
        k2: Neighbours whose vectors are averaged (local query expansion); 1: none.
        lambda_value: Weight of the original distance, 0 … 1.
        block_bytes: Bound on the working memory of a block of distances.
        progress: Called with rows done and all rows, N+M.

    Returns:
        N×M float32, 0 … 1; for :func:`reprism.evaluation.ranking.evaluate_distances`.

    Raises:
        ValueError: Disagreeing widths, an option out of range, or values that are not finite.
        TypeError: Something that is not a floating-point matrix.
    """
    reranked = RerankedDistances(query, gallery, k1, k2, lambda_value, block_bytes=block_bytes, progress=progress)
    out = torch.empty((reranked.num_queries, reranked.num_gallery), dtype=torch.float32)
    for start in range(0, len(out), reranked.max_rows):
        rows = np.arange(start, min(start + reranked.max_rows, len(out)))
        reranked.fill(out[start : start + len(rows)], rows, 0, out.shape[1])
    return out.numpy()


class RerankedDistances(Distances):
    """The distances of :func:`rerank`, a block at a time: what ranks a gallery whose matrix would not fit in memory.

    Arguments and errors as there.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(
        self,
        query: Matrix,
        gallery: Matrix,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float = 0.3,
        *,
        block_bytes: int = 256 * 2**20,
        progress: Count | None = None,
    ) -> None:
        query, gallery = as_matrix(query, "query"), as_matrix(gallery, "gallery")
        if query.shape[1] != gallery.shape[1]:
            raise ValueError(f"query rows are {query.shape[1]} wide and gallery rows {gallery.shape[1]}")
        if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
            raise ValueError(
                f"k1={k1}, k2={k2}, lambda_value={lambda_value}: expected numbers from 1, and a weight from 0 to 1"
            )
        double = torch.float64 in (query.dtype, gallery.dtype)
        rows = torch.cat([side.to("cpu", torch.float64 if double else torch.float32) for side in (query, gallery)])
        bad = torch.nonzero(~torch.isfinite(rows).all(1))
        if len(bad):
            index = int(bad[0])
            side = f"query row {index}" if index < len(query) else f"gallery row {index - len(query)}"
            raise ValueError(f"{side} holds NaN or infinite values: every value must be finite")
        if (center := center_of(gallery)) is not None:
            rows -= center.to(rows.dtype)
        self.rows = rows
        self.num_queries, self.num_gallery = self.shape = len(query), len(gallery)
        self.lambda_value = lambda_value
        self.max_rows = max(1, min(self.num_queries, block_bytes // (16 * self.num_gallery)))
        self.norms = rows.square().sum(1)
        near = nearest(rows, rows, min(max(k1 + 1, k2), len(rows)), block_bytes, progress)
        # What nothing is far from: all rows alike. Their distances are 0, whatever they are divided by.
        self.scale = torch.where(near.farthest > 0, near.farthest, torch.ones(()))
        self.vectors = _encode(rows, self.norms, self.scale, near, k1, k2)
        # Of the gallery alone, column by column: whom a neighbour is shared with.
        self.shared = self.vectors[self.num_queries :].tocsc()

    def fill(self, out: Tensor, queries: np.ndarray, start: int, stop: int) -> None:
        """Write the distances of ``queries`` (B indices) to gallery rows ``start`` … ``stop`` - 1 into ``out``."""
        near = torch.from_numpy(queries)
        gallery = slice(self.num_queries + start, self.num_queries + stop)
        distance = torch.addmm(self.norms[gallery], self.rows[near], self.rows[gallery].T, alpha=-2)
        distance += self.norms[near, None]
        distance.clamp_(min=0).div_(self.scale[near, None])
        overlap = torch.from_numpy(self._overlap(queries, start, stop))
        jaccard = 1 - overlap / (2 - overlap)
        out.copy_(jaccard * (1 - self.lambda_value) + distance * self.lambda_value)

    def _overlap(self, queries: np.ndarray, start: int, stop: int) -> np.ndarray:
        """B×(stop - start): the sum over all columns of the smaller of a query's entry and a gallery row's."""
        shared, width = self.shared, stop - start
        out = np.zeros((len(queries), width), dtype=self.vectors.dtype)
        for index, query in enumerate(queries.tolist()):
            row = slice(self.vectors.indptr[query], self.vectors.indptr[query + 1])
            columns, weights = self.vectors.indices[row], self.vectors.data[row]
            begin, end = shared.indptr[columns], shared.indptr[columns + 1]
            entries = _ranges(begin, end)
            smaller = np.minimum(shared.data[entries], np.repeat(weights, end - begin))
            sums = np.bincount(shared.indices[entries], smaller, minlength=self.num_gallery)
            out[index] = sums[start:stop]
        return out


def average_query_expansion(
    query: Matrix,
    gallery: Matrix,
    k: int = 5,
    *,
    ignored: Sequence[Collection[int]] | None = None,
    block_bytes: int = 256 * 2**20,
) -> np.ndarray:
    """Move queries towards what they find: the mean of each and its nearest gallery rows, brought to length 1.

    Chum et al., *Total Recall*, ICCV 2007.

    Args:
        query: N×D descriptors, floating-point torch tensor or numpy array.
        gallery: M×D descriptors.
        k: Number of gallery rows that join, 1 … M; fewer where so many are ignored that no more are left.
        ignored: For each query, the gallery rows that do not join, such as the query itself (default: none).
        block_bytes: Bound on the working memory.

    Returns:
        N×D, float32 (float64 for float64 descriptors), to be ranked in the queries' place.

    Raises:
        ValueError: Disagreeing widths, ``k`` out of range, or ``ignored`` is not for N queries.
        TypeError: Something that is not a floating-point matrix.
    """
    query, gallery = as_matrix(query, "query").cpu(), as_matrix(gallery, "gallery").cpu()
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query rows are {query.shape[1]} wide and gallery rows {gallery.shape[1]}")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k={k}: expected a number from 1 to the {len(gallery)} gallery rows")
    dtype = torch.float64 if torch.float64 in (query.dtype, gallery.dtype) else torch.float32
    query, gallery = query.to(dtype), gallery.to(dtype)
    ignored = [()] * len(query) if ignored is None else ignored
    if len(ignored) != len(query):
        raise ValueError(f"ignored has {len(ignored)} entries for {len(query)} queries: expected one for each")
    most = max(map(len, ignored), default=0)
    found = nearest(*centered(query, gallery), min(k + most, len(gallery)), block_bytes).rows.tolist()
    expanded = query.clone()
    for row, (near, without) in enumerate(zip(found, ignored, strict=True)):
        expanded[row] += gallery[[index for index in near if index not in without][:k]].sum(0)
    return torch.nn.functional.normalize(expanded, dim=1).numpy()


# ---- the method's vectors --------------------------------------------------------------------------------


class _Sets(NamedTuple):
    """Some of the nearest rows of each row: N×n indices, and a mask of those that count."""

    rows: np.ndarray
    counts: np.ndarray


def _encode(rows: Tensor, norms: Tensor, scale: Tensor, near: Neighbors, k1: int, k2: int) -> sparse.csr_matrix:
    """N×N, some hundred entries a row: how near the k-reciprocal neighbours are, rows summing to 1."""
    index = near.rows.numpy()
    count = len(rows)
    whole = _reciprocal(index[:, : k1 + 1])
    # Half as many for the neighbours' own sets; numpy rounds a half to the even number, as the authors' code does.
    half = _reciprocal(index[:, : int(np.around(k1 / 2)) + 1])
    members = np.unique(np.concatenate(list(_expanded(whole, half, count))))
    row, column = np.divmod(members, count)
    weights = np.empty(len(members), dtype=rows.numpy().dtype)
    step = max(1, _CHUNK // rows.shape[1])
    for start in range(0, len(members), step):
        i, j = (torch.from_numpy(side[start : start + step]) for side in (row, column))
        squared = norms[i] + norms[j] - 2 * (rows[i] * rows[j]).sum(1)
        weights[start : start + step] = torch.exp(-squared.clamp_(min=0) / scale[i]).numpy()
    sums = np.bincount(row, weights, minlength=count)
    weights /= sums[row].astype(weights.dtype)
    vectors = sparse.csr_matrix((weights, column, np.searchsorted(row, np.arange(count + 1))), shape=(count, count))
    if k2 == 1:
        return vectors
    neighbors = index[:, :k2]
    width = neighbors.shape[1]
    ones = np.full(neighbors.size, 1 / width, dtype=weights.dtype)
    average = sparse.csr_matrix(
        (ones, neighbors.ravel(), np.arange(0, neighbors.size + 1, width)), shape=(count, count)
    )
    return (average @ vectors).tocsr()


def _reciprocal(index: np.ndarray) -> _Sets:
    """Return which of each row's neighbours have the row among theirs."""
    counts = np.empty(index.shape, dtype=bool)
    step = max(1, _CHUNK // index.shape[1] ** 2)
    for start in range(0, len(index), step):
        some = index[start : start + step]
        own = np.arange(start, start + len(some))
        counts[start : start + step] = (index[some] == own[:, None, None]).any(2)
    return _Sets(index, counts)


def _expanded(whole: _Sets, half: _Sets, count: int) -> Iterator[np.ndarray]:
    """Pairs row·N + member of the k-reciprocal sets, with the sets of those members that mostly lie inside."""
    index, counts = whole
    width, narrow = index.shape[1], half.rows.shape[1]
    step = max(1, _CHUNK // (width * narrow * width))
    for start in range(0, len(index), step):
        some, real = index[start : start + step], counts[start : start + step]
        base = np.arange(start, start + len(some))[:, None] * count
        yield (base + some)[real]
        # B×n×h: the smaller sets of each neighbour.
        sets, present = half.rows[some], half.counts[some]
        # Distinct numbers for what does not count, so that it meets nothing.
        own = np.where(real, some, -1)
        inside = (sets[:, :, :, None] == own[:, None, None, :]).any(3) & present
        joined = real & (3 * inside.sum(2) > 2 * present.sum(2))
        taken = present & joined[:, :, None]
        yield (base[:, :, None] + sets)[taken]


def _ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return begin[0] … end[0]-1, begin[1] … end[1]-1, … in one array."""
    lengths = (end - begin).astype(np.int64)
    total = int(lengths.sum())
    if total == 0:
        return np.empty(0, dtype=np.int64)
    first = np.cumsum(lengths) - lengths
    return np.repeat(begin.astype(np.int64) - first, lengths) + np.arange(total)
