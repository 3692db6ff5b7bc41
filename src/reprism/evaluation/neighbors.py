"""The nearest rows of each row, exactly, a block of distances at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reprism.progress import Count


class Neighbors(NamedTuple):
    """The nearest gallery rows of each of N query rows.

    Attributes:
        rows: N×k int64, gallery rows, nearest first; equal distances in gallery order.
        squared: N×k, their squared Euclidean distances, at least 0.
        farthest: N, the squared distance of the farthest gallery row.
    """

    rows: Tensor
    squared: Tensor
    farthest: Tensor


def nearest(
    query: Tensor, gallery: Tensor, k: int, block_bytes: int = 256 * 2**20, progress: Count | None = None
) -> Neighbors:
    """Return the ``k`` nearest gallery rows of every query row.

    Args:
        query: N×D float32 or float64.
        gallery: M×D of the same type and device, M at least ``k``.
        k: Number of neighbours, at least 1.
        block_bytes: Bound on the working memory, beside the result.
        progress: Called with the query rows done and all of them.
    """
    dtype, device = query.dtype, query.device
    norms = gallery.square().sum(1)
    own = query.square().sum(1)
    index = torch.empty((len(query), k), dtype=torch.int64, device=device)
    squared = torch.empty((len(query), k), dtype=dtype, device=device)
    farthest = torch.empty(len(query), dtype=dtype, device=device)
    # A block, and what selecting from it takes.
    rows = max(1, min(len(query), block_bytes // (3 * len(gallery) * dtype.itemsize)))
    block = torch.empty((rows, len(gallery)), dtype=dtype, device=device)
    for start in range(0, len(query), rows):
        some = slice(start, min(start + rows, len(query)))
        values = block[: some.stop - some.start]
        torch.addmm(norms, query[some], gallery.T, alpha=-2, out=values)
        found = values.topk(k, dim=1, largest=False)
        order = found.indices.sort(1)
        # By index, then stably by value: among equals the first in the gallery comes first.
        by_value = found.values.gather(1, order.indices).sort(dim=1, stable=True)
        index[some] = order.values.gather(1, by_value.indices)
        squared[some] = by_value.values
        farthest[some] = values.amax(1)
        # Equals on both sides of the k-th place: topk took any of them.
        last = by_value.values[:, -1:]
        for row in torch.nonzero((values <= last).sum(1) > k).flatten().tolist():
            index[start + row] = values[row].sort(stable=True).indices[:k]
        if progress is not None:
            progress(some.stop, len(query))
    return Neighbors(index, (squared + own[:, None]).clamp_(min=0), (farthest + own).clamp_(min=0))
