"""Rough distances, made exact wherever a rank depends on it: what costs less than the float32 product.

Ranking asks of a gallery row only whether it lies closer than a true match. Many processors multiply bfloat16 three
times as fast as float32, or integers of 8 bits five times, and how far such a product can be off is known
(:mod:`reprism.evaluation.rough`): so it settles all rows but those within that bound of some match, and only these few
are computed in float32.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from reprism.evaluation.distances import Distances, EuclideanDistances, few_below
from reprism.evaluation.identities import Identities
from reprism.evaluation.rough import Rough, rough_products

# Of narrower descriptors the product is too small a share of the work.
_FEWEST_COLUMNS = 384
_ALONE = 20  # A distance on its own costs as much as so many of a float32 product.
_WORTH_IT = 0.9  # of the float32 product's cost
_PROBE = (32, 4096)  # queries and gallery rows looked at to find out
_HALF_ULP = 2.0**-24  # half the distance from 1 to the next float32
_TILE_ELEMENTS = 2**20
_STEP = 4096  # gallery rows at once
_MOST_ROWS = 1024  # queries at once


class RefinedDistances(Distances):
    """Distances as of :class:`EuclideanDistances`: to within rounding near a match, on its right side elsewhere.

    The distances of the matches, and all that are as close to one as the rough product can err, are float32 sums taken
    row by row: identical gallery rows have identical distances there.
    """

    device = torch.device("cpu")
    dtype = torch.float32
    # Without a first pass for the matches' distances, cutting the gallery costs nothing. Many queries at a time are
    # best: the gallery is brought to few bits for each block of them.
    fewest_rows = _MOST_ROWS

    def __init__(self, plain: EuclideanDistances, rough: Rough, block_bytes: int) -> None:
        self.shape = plain.shape
        self.query, self.gallery, self.norms = plain.query, plain.gallery, plain.gallery_norms
        self.max_rows = min(plain.max_rows, _MOST_ROWS)
        self.rough = rough
        # A block of the gallery in few bits, and of products beside the distances, has a quarter of the memory.
        row_bytes = self.gallery.shape[1] * rough.bytes_per_column + 8 * self.max_rows
        self.step = max(1, min(_STEP, block_bytes // (4 * row_bytes)))
        self.longest = longest_of(plain)

    @classmethod
    def where_faster(
        cls, plain: EuclideanDistances, identities: Identities, block_bytes: int
    ) -> RefinedDistances | EuclideanDistances:
        """Choose the faster way to the same ranking: by hardware, width, and the number of rows close to a match."""
        sides = (plain.query, plain.gallery)
        if (
            plain.device.type != "cpu"
            # Crowded rows: few bits would leave too many of them open.
            or plain.center is not None
            or any(side.dtype != torch.float32 or not side.is_contiguous() for side in sides)
            or plain.gallery.shape[1] < _FEWEST_COLUMNS
            # Far from 1, subnormal numbers would be lost, or sums of squares infinite.
            or not 1e-12 < float(plain.gallery_norms.min()) <= float(plain.gallery_norms.max()) < 1e12
        ):
            return plain
        best, least, sample = None, _WORTH_IT, None
        for rough in rough_products(plain.gallery, longest_of(plain)):
            if rough.cost >= least:
                break
            refined = cls(plain, rough, block_bytes)
            sample = sample or refined._sample(identities)
            cost = rough.cost + _ALONE * refined._share_near(*sample)
            if cost < least:
                best, least = refined, cost
        return best or plain

    def of_matches(self, queries: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """Return P float32, each summed from its own two rows."""
        starts = np.searchsorted(rows, np.arange(len(queries) + 1))
        return self._one_by_one(self._queries(queries), torch.from_numpy(starts), torch.from_numpy(columns))

    def fill(self, out: Tensor, queries: np.ndarray, start: int, stop: int) -> None:
        """Write the rough product alone."""
        self._write_rough(out, self._queries(queries), start, stop)

    def fill_near(self, out: Tensor, queries: np.ndarray, start: int, stop: int, matches: Tensor) -> None:
        """Write the rough product, and in float32 whatever that leaves open."""
        some = self._queries(queries)
        self._write_rough(out, some, start, stop)
        bounds = self._bounds(some, matches, self.norms[start:stop])
        # By tiles that stay in a core's cache.
        size = max(1, _TILE_ELEMENTS // out.shape[1])
        nearest = torch.empty(min(size, len(out)), out.shape[1])
        difference = torch.empty_like(nearest)
        for top in range(0, len(out), size):
            tile = out[top : top + size]
            near = _within(tile, matches[top : top + size], bounds[top : top + size], nearest, difference)
            counts = np.count_nonzero(near, axis=1)
            starts = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))
            flat = np.flatnonzero(near)
            columns = torch.from_numpy(flat % out.shape[1])
            rows = torch.from_numpy(flat // out.shape[1])
            tile[rows, columns] = self._one_by_one(some[top : top + size], starts, columns + start)

    def _queries(self, queries: np.ndarray) -> Tensor:
        return self.query[torch.from_numpy(queries)]

    def _write_rough(self, out: Tensor, some: Tensor, start: int, stop: int) -> None:
        for left in range(start, stop, self.step):
            right = min(left + self.step, stop)
            block = out[:, left - start : right - start]
            self.rough.write(block, some, self.gallery[left:right], self.norms[left:right])

    def _bounds(self, some: Tensor, matches: Tensor, norms: Tensor) -> Tensor:
        """B: how far from a match a rough distance must be to lie on the right side of it.

        What the rough product can be off, the classical bound on float32 sums (twice: rough and exact, with as much
        again to spare), and the rough product's rounding. The latter is relative to the product, and rounding keeps
        order: so it counts where the product is as large as at the match.
        """
        lengths = torch.linalg.vector_norm(some, dim=1)
        sums = 4 * some.shape[1] * _HALF_ULP * lengths * self.longest
        # Rounding of the sum with the row's squared length.
        last = 4 * _HALF_ULP * self.longest * (self.longest + 2 * lengths)
        error = 2 * (self.rough.errors(some) + sums) + last
        real = torch.isfinite(matches)
        largest = torch.zeros(len(some))
        for norm in (norms.min(), norms.max()):
            largest = torch.maximum(largest, torch.where(real, (matches - norm).abs(), 0).amax(1))
        return 1.01 * (error + self.rough.rounding(largest + error))

    def _one_by_one(self, some: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
        """Return the float32 distances of pairs: for query i those to columns[starts[i]:starts[i + 1]]."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # "in beta", on every first use
            wanted = torch.sparse_csr_tensor(
                starts, columns, torch.zeros(len(columns)), (len(some), len(self.gallery)), check_invariants=False
            )
            products = torch.sparse.sampled_addmm(wanted, some, self.gallery.T, beta=0.0).values()
        return self.norms[columns].sub_(products, alpha=2)

    def _sample(self, identities: Identities) -> tuple[Tensor, Tensor, Tensor]:
        """Return a few queries, the distances of their matches, and those of a few gallery rows."""
        order = identities.query_order()
        queries = order[:: max(1, len(order) // _PROBE[0])][: _PROBE[0]]
        pairs = identities.pairs(queries)
        matches = torch.full((len(queries), int(identities.num_matches[queries].max())), -torch.inf)
        matches[pairs.rows, pairs.slots] = self.of_matches(queries, pairs.rows, pairs.columns)
        columns = torch.arange(0, len(self.gallery), -(-len(self.gallery) // _PROBE[1]))
        some = self._queries(queries)
        return some, matches, self.norms[columns] - 2 * (some @ self.gallery[columns].T)

    def _share_near(self, some: Tensor, matches: Tensor, distances: Tensor) -> float:
        """Estimate, from a sample, the share of distances that would have to be computed one by one."""
        work = torch.empty_like(distances), torch.empty_like(distances)
        return float(_within(distances, matches, self._bounds(some, matches, self.norms), *work).mean())


def _within(x: Tensor, centers: Tensor, bounds: Tensor, nearest: Tensor, difference: Tensor) -> np.ndarray:
    """B×W bool: which values of each row of x (B×W) are within its bound (B) of one of its centres (B×n, or -inf).

    The last two are memory to work in, of x's width and at least its length.
    """
    if (few := few_below(x, centers.amax(1) + bounds)) is not None:
        near = np.zeros(x.shape, bool)
        step = max(1, _TILE_ELEMENTS // centers.shape[1])
        for rows, columns in zip(*(part.split(step) for part in few), strict=True):
            away = (x[rows, columns][:, None] - centers[rows]).abs_().amin(1)
            near[rows.numpy(), columns.numpy()] = (away <= bounds[rows]).numpy()
        return near
    nearest, difference = nearest[: len(x)].fill_(torch.inf), difference[: len(x)]
    last = (torch.isfinite(centers) * torch.arange(1, len(x) + 1)[:, None]).amax(0)
    for column, count in zip(centers.T, last.tolist(), strict=True):
        torch.sub(x[:count], column[:count, None], out=difference[:count]).abs_()
        torch.minimum(nearest[:count], difference[:count], out=nearest[:count])
    within: np.ndarray = (nearest <= bounds[:, None]).numpy()
    return within


def longest_of(plain: EuclideanDistances) -> float:
    """Return the length of a gallery's longest row."""
    return float(plain.gallery_norms.max().sqrt())
