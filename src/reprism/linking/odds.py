"""One probability from appearance and time that two sightings are of one person, learned without labels.

Given that two sightings are of one person, how alike they look says nothing about how long the way took, and the same
holds for two people. So the share of pairs that are of one person, and how far apart such pairs look, follow from the
times alone: by expectation maximization over all pairs, counted by distance and by what their times say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import isotonic_regression

from reprism.progress import Count

DISTANCE_BINS = 128
"""Bins of the distance, from 0 to 2."""

TIME_BINS = 161
"""Bins of what times say, logarithms from -10 to 10; an odd number, so that 0, which says nothing, is one's middle."""

_MOST_TIME = 10.0
_BLOCK = 512  # rows compared with all others at a time
_SMOOTHED_BY = 1.0  # bins
_ROUNDS, _SETTLED = 500, 1e-9
_NONE = 1e-3  # matches, as expected: from so few on no round comes back
_FEWEST = 50.0  # matches, as expected, from which on odds are trusted


class OddsError(ValueError):
    """There are too few pairs of one person to tell their distances from those of others."""


Times = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Returns n×m logarithms of ratios for n rows and m others, which are given by their indices."""


def pairs_in_blocks(
    descriptors: np.ndarray, times: Times, progress: Count | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield some rows, those from the first of them on, and what speaks for each two of these; memory is a block's.

    Args:
        descriptors: N×D, rows of length 1.
        times: Logarithms of the ratios of rows' times.
        progress: Called with the rows done and all of them.

    Yields:
        Indices of n rows and of m others, n×m Euclidean distances, and n×m logarithms of their times. A pair within a
        block comes twice, and a row with itself: those of which the first index is the lesser come once each.
    """
    every = np.arange(len(descriptors))
    for start in range(0, len(every), _BLOCK):
        some, others = every[start : start + _BLOCK], every[start:]
        distances = np.sqrt(np.clip(2 - 2 * descriptors[some] @ descriptors[others].T, 0, 4))
        yield some, others, distances, times(some, others)
        if progress is not None:
            progress(min(start + _BLOCK, len(every)), len(every))


def count_pairs(
    descriptors: np.ndarray,
    cameras: np.ndarray,
    times: Times,
    *,
    progress: Count | None = None,
) -> np.ndarray:
    """Count the pairs of rows of two cameras, by distance and by what their times say.

    Args:
        descriptors: N×D, rows of length 1.
        cameras: N numbers of cameras.
        times: Logarithms of the ratios of rows' times, such as of a network of cameras.
        progress: Called with the rows done and all of them.

    Returns:
        DISTANCE_BINS × TIME_BINS counts.
    """
    found = np.zeros(DISTANCE_BINS * TIME_BINS)
    for some, others, distances, said in pairs_in_blocks(descriptors, times, progress):
        counted = (some[:, None] < others) & (cameras[some][:, None] != cameras[others])
        cells = distance_bin(distances) * TIME_BINS + time_bin(said)
        found += np.bincount(cells[counted], minlength=len(found))
    return found.reshape(DISTANCE_BINS, TIME_BINS)


def distance_bin(distances: np.ndarray) -> np.ndarray:
    """Return the bin of each distance."""
    return np.clip((np.asarray(distances) * (DISTANCE_BINS / 2)).astype(np.int64), 0, DISTANCE_BINS - 1)


def time_bin(logarithms: np.ndarray) -> np.ndarray:
    """Return the bin of each logarithm."""
    steps = (np.asarray(logarithms, float) + _MOST_TIME) * ((TIME_BINS - 1) / (2 * _MOST_TIME))
    return np.clip(np.rint(steps).astype(np.int64), 0, TIME_BINS - 1)


_TIME_VALUES = np.linspace(-_MOST_TIME, _MOST_TIME, TIME_BINS)


@dataclass(frozen=True, eq=False)
class PairOdds:
    """The odds that two sightings by two cameras are of one person, by how far apart they look and by their times.

    Attributes:
        prior: Share of all pairs of two cameras that are of one person, 0 … 1.
        appearance: DISTANCE_BINS: logarithm of how much likelier a distance is for one person than for two, falling.
        pairs: Number of pairs that it was learned from.
    """

    prior: float
    appearance: np.ndarray
    pairs: int

    @property
    def expected_matches(self) -> float:
        """Number of pairs of one person among those that it was learned from."""
        return self.prior * self.pairs

    @classmethod
    def learn(cls, counts: np.ndarray) -> PairOdds:
        """Learn the odds from pairs whose people are unknown.

        Args:
            counts: What :func:`count_pairs` returns.

        Raises:
            OddsError: There are no pairs; or times tell too little, so that fewer than 50 pairs seem to match.
        """
        counts = np.asarray(counts, float)
        total = counts.sum()
        if not total:
            raise OddsError("expected sightings by two cameras or more, got no pair of two cameras")
        by_distance = counts.sum(axis=1)
        # The distance up to which pairs are nearer that might match at all begins it, by whatever share of them.
        prior = min(0.1, 1 / math.sqrt(total))
        appearance = _first_guess(by_distance, prior)
        for _ in range(_ROUNDS):
            shares = _probability(appearance[:, None] + _TIME_VALUES, prior)
            before, matches = prior, (counts * shares).sum(axis=1)
            prior = float(matches.sum() / total)
            if prior * total < _NONE:
                break
            appearance = _falling_ratio(matches, by_distance - matches, by_distance)
            if abs(prior - before) < _SETTLED * prior:
                break
        # Only now: the first guess may be far off, and a later round find what an early one had lost.
        if prior * total < _FEWEST:
            raise OddsError(
                f"of {round(total):,} pairs of sightings fewer than {_FEWEST:.0f} seem to be of one person: times "
                "tell too little of who walks where, or hardly anybody is seen twice"
            )
        return cls(prior, appearance, round(total))

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {"prior": self.prior, "appearance": self.appearance.tolist(), "pairs": self.pairs}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PairOdds:
        """Return what :meth:`as_dict` was called on.

        Raises:
            OddsError: They are no odds.
        """
        try:
            odds = cls(float(values["prior"]), np.array(values["appearance"], float), int(values["pairs"]))
        except (KeyError, TypeError, ValueError) as error:
            raise OddsError(f"expected odds of pairs, got something else: {error!r}") from error
        if odds.appearance.shape != (DISTANCE_BINS,) or not 0 < odds.prior < 1:
            raise OddsError(f"expected {DISTANCE_BINS} logarithms and a share, got {odds.appearance.shape}")
        return odds

    def log_odds(self, distances: np.ndarray, times: np.ndarray | float = 0.0) -> np.ndarray:
        """Return the logarithm of the odds that pairs are of one person.

        Args:
            distances: Euclidean distances of descriptors of length 1, 0 … 2.
            times: What their times say, as logarithms of ratios; 0: nothing.
        """
        centers = (np.arange(DISTANCE_BINS) + 0.5) * (2 / DISTANCE_BINS)
        looks = np.interp(distances, centers, self.appearance)
        return looks + np.clip(times, -_MOST_TIME, _MOST_TIME) + math.log(self.prior / (1 - self.prior))

    def probability(self, distances: np.ndarray, times: np.ndarray | float = 0.0) -> np.ndarray:
        """Return the probability that pairs are of one person, 0 … 1; arguments as of :meth:`log_odds`."""
        return np.asarray(1 / (1 + np.exp(-self.log_odds(distances, times))))


def _probability(log_ratio: np.ndarray, prior: float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(log_ratio + math.log(prior / (1 - prior))))))


def _first_guess(by_distance: np.ndarray, share: float) -> np.ndarray:
    """Return logarithms that fall with the distance, through 0 where such a share of all pairs is nearer."""
    nearer = int(np.searchsorted(np.cumsum(by_distance), share * by_distance.sum()))
    return (nearer - np.arange(len(by_distance))) * (40 * 2 / len(by_distance))


def _falling_ratio(same: np.ndarray, other: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the logarithm of the ratio of two densities, such that a larger distance never speaks for one person."""
    densities = [gaussian_filter1d(each, _SMOOTHED_BY, mode="nearest") + 1e-9 for each in (same, other)]
    ratio = np.log(densities[0] / densities[0].sum()) - np.log(densities[1] / densities[1].sum())
    return np.asarray(isotonic_regression(ratio, weights=weights + 1e-3, increasing=False).x)
