"""Compare pictures with identities: their own, and the other that they fit best; all pairs, a block at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reprism.progress import Count

NEAREST = 3
"""Pictures of an identity by which a picture is compared with it: the nearest ones."""

_BLOCK_BYTES = 64 * 2**20
_PRETENDED = 50_000  # pictures given a stranger's name, at least, where there are as many


class Fit(NamedTuple):
    """The fit of N pictures to the identities.

    Attributes:
        margin: N: mean cosine similarity to the nearest pictures of its own identity, less the same for the best other
            identity of its side; NaN where either has no picture.
        best: N int64: that other identity; -1 where there is none.
        wrong: Margins of pictures that were held out and given the name of a random other identity.
    """

    margin: np.ndarray
    best: np.ndarray
    wrong: np.ndarray


def fit_labels(
    rows: np.ndarray,
    identity: np.ndarray,
    side: np.ndarray,
    *,
    rng: np.random.Generator,
    progress: Count | None = None,
) -> Fit:
    """Compare every picture with every identity of its side, by its nearest pictures, itself left out.

    Args:
        rows: N×D descriptors, rows of length 1.
        identity: N numbers of identities, 0 … P-1, each in use.
        side: P: numbers that are equal for identities that may be confused, such as 0 for training and 1 for test.
        rng: Draws the strangers.
        progress: Called with the pictures done and all of them.
    """
    order = np.argsort(identity, kind="stable")
    sizes = np.bincount(identity)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sorted_rows = np.ascontiguousarray(rows[order])
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    margin = np.full(len(rows), np.nan, np.float32)
    best = np.full(len(rows), -1, np.int64)
    wrong = []
    draws = min(8, max(1, -(-_PRETENDED // max(1, len(rows)))))
    step = max(1, _BLOCK_BYTES // (4 * max(1, len(rows))))
    for start in range(0, len(rows), step):
        some = np.arange(start, min(start + step, len(rows)))
        here = np.arange(len(some))
        alike = rows[some] @ sorted_rows.T
        alike[here, place[some]] = -np.inf
        fits = mean_of_nearest(alike, starts, sizes)
        fits[side[identity[some]][:, None] != side[None, :]] = -np.inf
        own = fits[here, identity[some]].copy()
        others = fits.copy()
        others[here, identity[some]] = -np.inf
        best[some] = np.where(np.isfinite(others.max(axis=1)), others.argmax(axis=1), -1)
        with np.errstate(invalid="ignore"):
            margin[some] = own - others.max(axis=1)
        for _ in range(draws):
            stranger = rng.integers(0, len(sizes), len(some))
            named = fits[here, stranger]
            judged = np.isfinite(named) & np.isfinite(own) & (stranger != identity[some])
            rest = fits.copy()
            rest[here, stranger] = -np.inf
            wrong.append((named - rest.max(axis=1))[judged])
        if progress is not None:
            progress(int(some[-1]) + 1, len(rows))
    margin[~np.isfinite(margin)] = np.nan
    return Fit(margin, best, np.concatenate(wrong) if wrong else np.zeros(0, np.float32))


def mean_of_nearest(alike: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the mean of each row's largest values among the columns of each group; equal ones count once.

    Args:
        alike: B×N, minus infinity where a pair does not count. It is overwritten.
        starts, sizes: P: first column and number of columns of each group.

    Returns:
        B×P: mean of the :data:`NEAREST` largest, or of as many as there are; minus infinity where there is none.
    """
    total = np.zeros((len(alike), len(starts)), np.float32)
    count = np.zeros_like(total)
    for turn in range(NEAREST):
        top = np.maximum.reduceat(alike, starts, axis=1)
        known = np.isfinite(top)
        total += np.where(known, top, 0)
        count += known
        if turn + 1 < NEAREST:
            alike[alike == np.repeat(top, sizes, axis=1)] = -np.inf
    return np.where(count > 0, total / np.maximum(count, 1), -np.inf)
