"""Sums of the descriptors of each camera, exact in any order, from which statistics are made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reprism.data.records import Label

# Sums are integers: the same in any order, and what is taken away is taken away exactly. Values of rows of length 1 lie
# in -1 … 1, known to 2**-32, finer than float32 has them; 2**31 rows fit.
UNIT = 2.0**32
_MOST_ROWS = 2**31
_BLOCK = 4096  # rows that are raised to float64 at a time


@dataclass
class Totals:
    """Number of a camera's rows, and D int64 sums of them and of their squares, in units of ``1 / UNIT``."""

    count: int
    sums: np.ndarray
    squares: np.ndarray


def add_rows(totals: dict[str, Totals], descriptors: np.ndarray, cameras: Sequence[Label | None], sign: int) -> None:
    """Add rows of known camera to the totals of their cameras, or with a sign of -1 take them away."""
    dim = np.shape(descriptors)[1]
    for _, rows, camera in rows_by_camera(descriptors, cameras):
        if camera is None:
            continue
        total = totals.setdefault(str(camera), Totals(0, np.zeros(dim, np.int64), np.zeros(dim, np.int64)))
        rows = unit(rows)
        total.count += sign * len(rows)
        total.sums += sign * np.rint(rows * UNIT).astype(np.int64).sum(0)
        total.squares += sign * np.rint(np.square(rows) * UNIT).astype(np.int64).sum(0)
        if total.count > _MOST_ROWS:
            raise ValueError(f"camera {camera!r} has more than {_MOST_ROWS:,} rows: fit to a sample of them")


def rows_by_camera(
    descriptors: np.ndarray, cameras: Sequence[Label | None]
) -> Iterator[tuple[np.ndarray, np.ndarray, Label | None]]:
    """Yield indices, rows in float64 and the camera of a few thousand rows of one camera at a time."""
    if len(descriptors) != len(cameras):
        raise ValueError(f"expected a camera for each of {len(descriptors)} descriptors, got {len(cameras)} cameras")
    members: dict[Label | None, list[int]] = {}
    for row, camera in enumerate(cameras):
        members.setdefault(camera, []).append(row)
    for camera, indices in members.items():
        for start in range(0, len(indices), _BLOCK):
            some = np.array(indices[start : start + _BLOCK])
            rows = np.asarray(descriptors[some], dtype=np.float64)
            if not np.isfinite(rows).all():
                row = int(some[~np.isfinite(rows).all(1)][0])
                raise ValueError(f"descriptor {row} holds NaN or infinite values: every value must be finite")
            yield some, rows, camera


def unit(rows: np.ndarray, least: float = 0) -> np.ndarray:
    """Return rows of length 1; those that are no longer than ``least`` become zeros."""
    lengths = np.sqrt(np.square(rows).sum(1, keepdims=True))
    return np.asarray(np.where(lengths > least, rows, 0) / np.where(lengths > least, lengths, 1))


def checked_dim(descriptors: np.ndarray, dim: int) -> int:
    """Return the number of columns; refuses other than ``dim``, unless that is 0."""
    shape = np.shape(descriptors)
    if len(shape) != 2 or (dim and shape[1] != dim):
        raise ValueError(f"expected N×{dim or 'D'} descriptors, got shape {shape}")
    return int(shape[1])


def variance_of(count: Any, sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return D float64, the variance of each column."""
    return np.asarray(np.maximum(squares / UNIT / count - np.square(sums / UNIT / count), 0))
