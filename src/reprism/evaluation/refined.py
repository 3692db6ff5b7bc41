"""Distances in bfloat16, made exact wherever a rank depends on it: what costs less than the float32 product.

Ranking asks of a gallery row only whether it lies closer than a true match. Processors with bfloat16 instructions
multiply in it about three times as fast as in float32, and how far such a product can be off is known: so it settles
all rows but those within that bound of some match, and only these few are computed in float32.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from reprism.evaluation.distances import MANY_ROWS, Distances, EuclideanDistances
from reprism.evaluation.identities import Identities
from reprism.precision import fastest_precision

# Of narrower descriptors the product is too small a share of the work.
_FEWEST_COLUMNS = 1024
# A distance on its own costs as much as some twenty of a float32 product: with more of them it would be the faster.
_WORTH_IT = 0.03
_PROBE = (32, 4096)  # queries and gallery rows looked at to find out
# Half the distance from 1 to the next number.
_HALF_ULP = {torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24}
_TILE_ELEMENTS = 2**20


class RefinedDistances(Distances):
    """Distances as of :class:`EuclideanDistances`: to within rounding near a match, on its right side elsewhere.

    The distances of the matches, and all that are as close to one as bfloat16 can err, are float32 sums taken row by
    row: identical gallery rows have identical distances there.
    """

    device = torch.device("cpu")
    dtype = torch.float32
    # Without a first pass for the matches' distances, cutting the gallery costs nothing: many rows at a time are best.
    fewest_rows = MANY_ROWS

    def __init__(self, plain: EuclideanDistances, block_bytes: int) -> None:
        self.shape = plain.shape
        self.query, self.gallery, self.norms = plain.query, plain.gallery, plain.gallery_norms
        self.max_rows = min(plain.max_rows, 1024)
        width = self.gallery.shape[1]
        self.step = max(1, block_bytes // (8 * (width + self.max_rows)))
        self.longest = float(self.norms.max().sqrt())
        self.gallery_error = max(
            float(_rounding_error(rows).max()) for rows in self.gallery.split(max(1, _TILE_ELEMENTS // width))
        )

    @classmethod
    def where_faster(
        cls, plain: EuclideanDistances, identities: Identities, block_bytes: int
    ) -> RefinedDistances | EuclideanDistances:
        """Choose the faster way to the same ranking: by hardware, width, and the number of rows close to a match."""
        sides = (plain.query, plain.gallery)
        if (
            fastest_precision(plain.device) != "bf16"
            or plain.device.type != "cpu"
            # Crowded rows: bfloat16 would leave too many of them open.
            or plain.center is not None
            or any(side.dtype != torch.float32 or not side.is_contiguous() for side in sides)
            or plain.gallery.shape[1] < _FEWEST_COLUMNS
            # Far from 1, subnormal numbers would be lost, or sums of squares infinite.
            or not 1e-12 < float(plain.gallery_norms.min()) <= float(plain.gallery_norms.max()) < 1e12
        ):
            return plain
        refined = cls(plain, block_bytes)
        return refined if refined._share_near(identities) < _WORTH_IT else plain

    def of_matches(self, queries: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """Return P float32, each summed from its own two rows."""
        starts = np.searchsorted(rows, np.arange(len(queries) + 1))
        return self._one_by_one(self._queries(queries), torch.from_numpy(starts), torch.from_numpy(columns))

    def fill(self, out: Tensor, queries: np.ndarray, start: int, stop: int) -> None:
        """Write the bfloat16 product alone."""
        self._rough(out, self._queries(queries), start, stop)

    def fill_near(self, out: Tensor, queries: np.ndarray, start: int, stop: int, matches: Tensor) -> None:
        """Write the bfloat16 product, and in float32 whatever that leaves open."""
        some = self._queries(queries)
        self._rough(out, some, start, stop)
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

    def _rough(self, out: Tensor, some: Tensor, start: int, stop: int) -> None:
        """Return the bfloat16 product, by blocks of gallery rows."""
        doubled = some.bfloat16().mul_(-2)
        width = min(self.step, stop - start)
        rows = torch.empty(width, some.shape[1], dtype=torch.bfloat16)
        products = torch.empty(len(some) * width, dtype=torch.bfloat16)
        for left in range(start, stop, width):
            right = min(left + width, stop)
            product = products[: len(some) * (right - left)].view(len(some), right - left)
            torch.mm(doubled, rows[: right - left].copy_(self.gallery[left:right]).T, out=product)
            torch.add(product, self.norms[left:right], out=out[:, left - start : right - start])

    def _bounds(self, some: Tensor, matches: Tensor, norms: Tensor) -> Tensor:
        """B: how far from a match a rough distance must be to lie on the right side of it.

        Cauchy-Schwarz on what rounding took from either side, the classical bound on float32 sums (twice: rough and
        exact, with as much again to spare), and the rounding of the product. The latter is relative to the product, and
        rounding keeps order: so it counts where the product is as large as at the match.
        """
        lengths = torch.linalg.vector_norm(some, dim=1)
        sums = 4 * some.shape[1] * _HALF_ULP[torch.float32]
        inputs = _rounding_error(some) * self.longest + 1.01 * lengths * self.gallery_error
        error = 2 * (inputs + sums * lengths * self.longest)
        real = torch.isfinite(matches)
        largest = torch.zeros(len(some))
        for norm in (norms.min(), norms.max()):
            largest = torch.maximum(largest, torch.where(real, (matches - norm).abs(), 0).amax(1))
        return 1.01 * (error + _HALF_ULP[torch.bfloat16] * (largest + error))

    def _one_by_one(self, some: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
        """Return the float32 distances of pairs: for query i those to columns[starts[i]:starts[i + 1]]."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse")  # "in beta", on every first use
            wanted = torch.sparse_csr_tensor(
                starts, columns, torch.zeros(len(columns)), (len(some), len(self.gallery)), check_invariants=False
            )
            products = torch.sparse.sampled_addmm(wanted, some, self.gallery.T, beta=0.0).values()
        return self.norms[columns].sub_(products, alpha=2)

    def _share_near(self, identities: Identities) -> float:
        """Estimate, from a few queries and gallery rows, the distances that would have to be computed one by one."""
        order = identities.query_order()
        queries = order[:: max(1, len(order) // _PROBE[0])][: _PROBE[0]]
        pairs = identities.pairs(queries)
        matches = torch.full((len(queries), int(identities.num_matches[queries].max())), -torch.inf)
        matches[pairs.rows, pairs.slots] = self.of_matches(queries, pairs.rows, pairs.columns)
        columns = torch.arange(0, len(self.gallery), -(-len(self.gallery) // _PROBE[1]))
        some = self._queries(queries)
        distances = self.norms[columns] - 2 * (some @ self.gallery[columns].T)
        near = _within(
            distances,
            matches,
            self._bounds(some, matches, self.norms),
            torch.empty_like(distances),
            torch.empty_like(distances),
        )
        return float(near.mean())


def _within(x: Tensor, centers: Tensor, bounds: Tensor, nearest: Tensor, difference: Tensor) -> np.ndarray:
    """B×W bool: which values of each row of x (B×W) are within its bound (B) of one of its centres (B×n, or -inf).

    The last two are memory to work in, of x's width and at least its length.
    """
    nearest, difference = nearest[: len(x)].fill_(torch.inf), difference[: len(x)]
    last = (torch.isfinite(centers) * torch.arange(1, len(x) + 1)[:, None]).amax(0)
    for column, rows in zip(centers.T, last.tolist(), strict=True):
        torch.sub(x[:rows], column[:rows, None], out=difference[:rows]).abs_()
        torch.minimum(nearest[:rows], difference[:rows], out=nearest[:rows])
    near: np.ndarray = (nearest <= bounds[:, None]).numpy()
    return near


def _rounding_error(rows: Tensor) -> Tensor:
    """Return the length, for each row, of what bfloat16 cannot hold."""
    return torch.linalg.vector_norm(rows - rows.bfloat16().float(), dim=1)
