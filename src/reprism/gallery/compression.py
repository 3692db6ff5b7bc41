"""Narrower descriptors: principal components, whitened or not.

Whitening (Jégou and Chum, *Negative evidences and co-occurrences in image retrieval*, ECCV 2012) divides each component
by its standard deviation, then takes the L2 norm again. What all people share then counts no more than what tells them
apart. It helps where a few directions drown the rest, and makes the noise of the last components loud where none do:
docs/explanation/benchmarks.md has what it costs on photographs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import safetensors.numpy


@dataclass(frozen=True, eq=False)
class Projection:
    """A map from D columns to fewer: ``(x - mean) @ matrix``, then length 1.

    Attributes:
        mean: D float32.
        matrix: D×d float32: principal components, each divided by its standard deviation if they are whitened.
    """

    mean: np.ndarray
    matrix: np.ndarray

    @property
    def source_dim(self) -> int:
        """Columns that go in."""
        return int(self.matrix.shape[0])

    @property
    def dim(self) -> int:
        """Columns that come out."""
        return int(self.matrix.shape[1])

    @cached_property
    def digest(self) -> str:
        """Digest that tells it from any other."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def fit(
        cls, blocks: Callable[[], Iterable[np.ndarray]], source_dim: int, dim: int, whitening: float = 0.0
    ) -> Projection:
        """Fit the first ``dim`` principal components of rows that are read through once, block by block.

        Args:
            blocks: Gives the rows, N×D floating-point, in as many pieces as suits.
            source_dim: D.
            dim: Number of components to keep, 1 … D.
            whitening: The power of its standard deviation that a component is divided by: 0 (none) … 1 (whole).

        Raises:
            ValueError: An argument is out of range, there are not more rows than components wanted, or the rows do not
                vary in so many directions.
        """
        if not 1 <= dim <= source_dim:
            raise ValueError(f"dim is {dim}; descriptors of {source_dim} columns have 1 to {source_dim} components")
        if not 0 <= whitening <= 1:
            raise ValueError(f"whitening is {whitening}; it lies in 0 (none) … 1 (whole)")
        count, total, products = 0, np.zeros(source_dim), np.zeros((source_dim, source_dim))
        for block in blocks():
            rows = block.astype(np.float64)
            count += len(rows)
            total += rows.sum(0)
            products += rows.T @ rows
        if count <= dim:
            raise ValueError(f"{count} rows are too few for {dim} components: fit to more, or keep fewer")
        mean = total / count
        values, axes = np.linalg.eigh(products / count - np.outer(mean, mean))
        values, axes = values[::-1][:dim], axes[:, ::-1][:, :dim]
        if values[-1] < 1e-10 * values[0]:
            kept = int((values >= 1e-10 * values[0]).sum())
            raise ValueError(
                f"the rows vary in {kept} directions only, not in {dim}: fit to more rows, or keep fewer columns"
            )
        return cls(mean.astype(np.float32), np.ascontiguousarray(axes / values ** (whitening / 2), dtype=np.float32))

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """N×D descriptors as N×d float32 of length 1."""
        narrow = (np.asarray(rows, dtype=np.float32) - self.mean) @ self.matrix
        lengths = np.linalg.norm(narrow, axis=1, keepdims=True)
        out: np.ndarray = narrow / np.maximum(lengths, np.finfo(np.float32).tiny)
        return out

    def to_bytes(self) -> bytes:
        """Return the projection as the bytes of a safetensors file."""
        return safetensors.numpy.save({"mean": self.mean, "matrix": self.matrix})

    @classmethod
    def from_bytes(cls, content: bytes) -> Projection:
        """Read what :meth:`to_bytes` wrote."""
        tensors = safetensors.numpy.load(content)
        return cls(tensors["mean"], tensors["matrix"])


def cost(
    descriptors: np.ndarray, projection: Projection, pids: Sequence[Any], camids: Sequence[Any] | None = None
) -> tuple[float, float]:
    """Measure what a projection costs on labelled rows: mAP before and after.

    Every row is searched for among all others; rows of its own person and camera, itself included, are ignored.

    Args:
        descriptors: N×D, of length 1.
        projection: Projection to judge, on people that it was not fitted to.
        pids: N identities.
        camids: N cameras; without them only a row itself is ignored.

    Raises:
        ValueError: No row has another of its person to be found.
    """
    from reprism.evaluation.ranking import evaluate

    cameras = range(len(descriptors)) if camids is None else camids
    before, after = (
        evaluate(rows, rows, list(pids), list(pids), list(cameras), list(cameras)).mAP
        for rows in (descriptors, projection.apply(descriptors))
    )
    return before, after
