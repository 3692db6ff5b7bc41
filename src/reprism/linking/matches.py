"""Confident matches across cameras, without a label: rows that are each other's nearest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reprism.progress import Count

Bonus = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Returns n×m values that are added to the similarities of n rows and m others, which are given by their indices."""

_BLOCK = 2**24  # similarities at a time


def mutual_nearest(
    rows: np.ndarray, cameras: np.ndarray, bonus: Bonus | None = None, *, progress: Count | None = None
) -> np.ndarray:
    """Return the pairs of rows of two cameras that are each other's nearest, for every two cameras.

    All rows of two cameras are compared, a block at a time: time grows with the square of the rows, memory does not.

    Args:
        rows: N×D, such that larger products are more alike.
        cameras: N numbers of cameras.
        bonus: Added to the products; None: nothing. Rows that it gives -inf never match.
        progress: Called with the pairs of cameras done and all of them.

    Returns:
        P×2 indices, the camera of the lesser number first. Of equals, the first row counts.
    """
    members = [np.flatnonzero(cameras == camera) for camera in np.unique(cameras)]
    pairs = [(one, other) for at, one in enumerate(members) for other in members[at + 1 :]]
    found = [np.zeros((0, 2), np.int64)]
    for done, (one, other) in enumerate(pairs, 1):
        found.append(_between(rows, one, other, bonus))
        if progress is not None:
            progress(done, len(pairs))
    return np.concatenate(found)


def _between(rows: np.ndarray, one: np.ndarray, other: np.ndarray, bonus: Bonus | None) -> np.ndarray:
    nearest = np.zeros(len(one), np.int64)
    best = np.full(len(other), -np.inf)
    back = np.zeros(len(other), np.int64)
    step = max(1, _BLOCK // len(other))
    for start in range(0, len(one), step):
        some = one[start : start + step]
        alike = rows[some] @ rows[other].T
        if bonus is not None:
            alike = alike + bonus(some, other)
        nearest[start : start + step] = alike.argmax(1)
        first = alike.argmax(0)
        highest = alike[first, np.arange(len(other))]
        better = highest > best
        best[better], back[better] = highest[better], first[better] + start
    mutual = np.flatnonzero((back[nearest] == np.arange(len(one))) & (best[nearest] > -np.inf))
    return np.stack([one[mutual], other[nearest[mutual]]], axis=1)
