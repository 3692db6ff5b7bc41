"""Rank by more than appearance: evidence about pairs of sightings beside the cosine of their descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from reprism.data.records import Item, ReIDDataset
from reprism.evaluation.distances import Distances, Matrix, as_matrix

_BLOCK_BYTES = 128 * 2**20


class Evidence(Protocol):
    """Whatever knows how likely two sightings are of one person, such as a :class:`reprism.CameraNetwork`."""

    @property
    def weight(self) -> float:
        """Weight of the cosine of two descriptors beside the logarithm of the ratio."""

    def log_ratio(self, query: Sequence[Item], gallery: Sequence[Item]) -> np.ndarray:
        """Return N×M logarithms: how much likelier each pair is as one person than as any two."""

    def describe(self) -> str:
        """Put it into a few words, for the protocol of a result."""


class JoinedDistances(Distances):
    """``weight · (1 − cosine) − log_ratio`` of queries and gallery rows, a block at a time.

    Args:
        query, gallery: N×D and M×D descriptors.
        query_items, gallery_items: Images or tracklets, in the descriptors' order.
        evidence: What is added to appearance.

    Raises:
        ValueError: A value is not finite.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(
        self,
        query: Matrix,
        gallery: Matrix,
        query_items: Sequence[Item],
        gallery_items: Sequence[Item],
        evidence: Evidence,
    ) -> None:
        self.query, self.gallery = (
            torch.nn.functional.normalize(as_matrix(rows, name).to("cpu", torch.float32))
            for rows, name in ((query, "query"), (gallery, "gallery"))
        )
        for name, rows in (("query", self.query), ("gallery", self.gallery)):
            if not torch.isfinite(rows).all():
                raise ValueError(f"{name} descriptors hold NaN or infinite values: every value must be finite")
        self.items = query_items, gallery_items
        self.evidence = evidence
        self.shape = len(query_items), len(gallery_items)
        self.max_rows = max(1, min(self.shape[0], _BLOCK_BYTES // (16 * self.shape[1])))

    def fill(self, out: Tensor, queries: np.ndarray, start: int, stop: int) -> None:
        """Write the distances of ``queries`` (B indices) to gallery rows ``start`` … ``stop`` - 1 into ``out``."""
        cosines = self.query[torch.from_numpy(queries)] @ self.gallery[start:stop].T
        ratios = self.evidence.log_ratio([self.items[0][row] for row in queries], self.items[1][start:stop])
        out.copy_(self.evidence.weight * (1 - cosines) - torch.from_numpy(ratios))


def require_times(dataset: ReIDDataset) -> None:
    """Refuse to rank by times where there are none.

    Raises:
        ValueError: No query, or no gallery item, has a camera and a time; names the data set and the remedy.
    """
    for name, items in (("query", dataset.query), ("gallery", dataset.gallery)):
        if not any(item.time is not None and item.camid is not None for item in items):
            raise ValueError(
                f"a network of cameras needs times, and no {name} item of {dataset.name} in {dataset.root} has one: "
                "give the data columns camid and time, or evaluate without --network"
            )
