"""How far two cameras' clocks lie apart, told from people who walk both ways between them.

Who walks there takes about as long as who walks back. By clocks that agree, the gaps of the two lie as far above 0 as
below; where one clock is ahead, both are moved by that. So the middle between them is the offset.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from reprism.linking.ways import right_matches

_FARTHEST = 600.0  # seconds that an offset is looked for
_SMOOTHED_BY = 1.5  # bins
_TRIED = 12  # middles, the most alike ones first
_VALLEY = 0.1  # of the matches: most that may lie nearer to the middle than half a walk
_SPREAD = 0.6  # of a walk: most that its middle half may spread
_UNLIKE = 1.63  # Kolmogorov and Smirnov's statistic that alike walks exceed once in a hundred times
_MEDIAN_ERROR = 1.2533 / 1.349  # of a normal distribution's median, by its quartiles and the root of the number
_LEAST_ERROR = 0.5  # seconds


class Middle(NamedTuple):
    """The middle between the gaps of those who walk there and of those who walk back.

    Attributes:
        seconds: Seconds that the second camera's clock is ahead of the first's, if both ways take as long.
        error: Standard error in seconds.
        walk: Median time of a walk in seconds.
        pairs: Matches that tell it.
    """

    seconds: float
    error: float
    walk: float
    pairs: int


def middle_of_ways(
    gaps: np.ndarray, matched: np.ndarray, chance: np.ndarray, *, window: int, least: int
) -> Middle | None:
    """Return the middle between two ways, None if it is not told.

    It is told where the gaps that matches have more often than chance fall into two groups that are each other's mirror
    image, narrow, and with hardly a match between them, as nobody walks in no time. Two groups on one side of 0 may be
    slow and fast people who walk one way: then slower times vary as much more as they are longer, and nothing is told.

    Args:
        gaps, matched, chance, window: As of :func:`reprism.linking.ways.find_ways`.
        least: Fewest matches either way.
    """
    right = np.maximum(right_matches(matched, chance, window), 0)
    for middle in _mirrors(gaps, right):
        found = _told(gaps, right, middle, least)
        if found is not None:
            return found
    return None


def _mirrors(gaps: np.ndarray, right: np.ndarray) -> list[float]:
    """Return the middles about which the matches are most like their mirror image, the most alike first."""
    width = float(gaps[1] - gaps[0])
    smooth = gaussian_filter1d(right, _SMOOTHED_BY)
    count = len(gaps)
    most = min(count - 1, int(2 * _FARTHEST / width))
    alike = []
    for twice in range(count - 1 - most, count + most):  # the sum of two bins that mirror each other
        low = np.arange(max(0, twice - count + 1), (twice + 1) // 2)
        alike.append((float(np.minimum(smooth[low], smooth[twice - low]).sum()), twice))
    best = sorted(alike, reverse=True)[:_TRIED]
    return [float(gaps[0]) + width * twice / 2 for similar, twice in best if similar > 0]


def _told(gaps: np.ndarray, right: np.ndarray, middle: float, least: int) -> Middle | None:
    far = np.abs(gaps - middle)
    walk = _quantiles(far, right)[1]
    for _ in range(3):  # the middle moves the window, and the window the middle
        within = right * ((far >= walk / 2) & (far <= 2 * walk))
        sides = within * (gaps < middle), within * (gaps > middle)
        if min(side.sum() for side in sides) < least:
            return None
        back, forth = (_quantiles(gaps, side) for side in sides)
        middle, walk = (back[1] + forth[1]) / 2, (forth[1] - back[1]) / 2
        far = np.abs(gaps - middle)
    counts = [float(side.sum()) for side in sides]
    spreads = [side[2] - side[0] for side in (back, forth)]
    if max(spreads) > _SPREAD * walk or 2 * sum(counts) < right.sum():
        return None
    if right[far < walk / 2].sum() > _VALLEY * sum(counts) or _are_unlike(gaps - middle, middle - gaps, *sides):
        return None
    # As much slower or faster walks one way, by clocks that agree.
    if back[1] * forth[1] > 0 and not _are_unlike(gaps * back[1] / forth[1], gaps, sides[1], sides[0]):
        return None
    errors = [_MEDIAN_ERROR * spread / count**0.5 for spread, count in zip(spreads, counts, strict=True)]
    return Middle(middle, max(_LEAST_ERROR, float(np.hypot(*errors)) / 2), walk, round(sum(counts)))


def _quantiles(values: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """Return the quartiles of values that occur so often, between the values where the counts are."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(counts[order])
    middles = cumulated - counts[order] / 2
    some = counts[order] > 0
    low, middle, high = np.interp(np.array([0.25, 0.5, 0.75]) * cumulated[-1], middles[some], values[order][some])
    return float(low), float(middle), float(high)


def _are_unlike(values: np.ndarray, others: np.ndarray, counts: np.ndarray, other_counts: np.ndarray) -> bool:
    """Return whether values and others, that occur so often, are of different distributions (Kolmogorov-Smirnov)."""
    shares = []
    steps = np.sort(np.concatenate([values[counts > 0], others[other_counts > 0]]))
    for each, number in ((values, counts), (others, other_counts)):
        order = np.argsort(each)
        order = order[number[order] > 0]
        cumulated = np.cumsum(number[order])
        # A bin's matches lie anywhere in it.
        shares.append(np.interp(steps, each[order], (cumulated - number[order] / 2) / cumulated[-1], left=0, right=1))
    one, other = float(counts.sum()), float(other_counts.sum())
    return float(np.abs(shares[0] - shares[1]).max()) > _UNLIKE * ((one + other) / (one * other)) ** 0.5
