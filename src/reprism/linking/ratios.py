"""How much likelier a gap between two sightings is for one person than by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import correlate


class View(NamedTuple):
    """A camera in one recording: a clock. The recording "" is that of data with one clock."""

    camera: str
    recording: str


@dataclass(frozen=True)
class TransitSettings:
    """Settings of a network of cameras.

    Attributes:
        bin_seconds: Width of a histogram's bins.
        smoothing: Standard deviation in seconds that gaps are smoothed by.
        horizon: Longest gap in seconds that is told apart; longer ones count as one.
        prior_pairs: Pairs that what was known before counts as: two views are like their two cameras in all recordings,
            and these like chance, as far as matches do not say otherwise.
        least_pairs: With fewer matched pairs, two cameras say nothing.
        weight: Weight of the cosine of two descriptors beside the logarithm of the ratio.
    """

    bin_seconds: float = 4.0
    smoothing: float = 20.0
    horizon: float = 7200.0
    prior_pairs: float = 10.0
    least_pairs: int = 20
    weight: float = 20.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"expected {name} above 0, got {value}")
        if self.horizon < self.bin_seconds:
            raise ValueError(f"expected a horizon of a bin ({self.bin_seconds:g} s) or more, got {self.horizon:g} s")

    @property
    def reach(self) -> int:
        """Bins up to the horizon."""
        return math.ceil(self.horizon / self.bin_seconds)


Histogram = dict[int, int]
"""Counts by bin; bins without any are left out."""


class Ratios(NamedTuple):
    """Ratios of two cameras: of every two views that were learned, and of one recording whichever it is."""

    views: dict[tuple[View, View], np.ndarray]
    pooled: np.ndarray | None


def ratios_between(
    ones: Sequence[View],
    others: Sequence[View],
    sightings: Mapping[View, Histogram],
    gaps: Mapping[tuple[View, View], Histogram],
    settings: TransitSettings,
) -> Ratios:
    """Return the ratios of the views of two cameras.

    Args:
        ones, others: Views of the one camera and of the other, each with sightings.
        sightings: Number of sightings of each view by bin.
        gaps: Number of matched pairs of two views by gap in bins.
        settings: Bins, smoothing, and how much counts as known before.
    """
    keys = [(one, other) for one in ones for other in others]
    reach = settings.reach
    matched = {key: _smooth(dense_counts(gaps.get(key, {}), reach), settings) for key in keys}
    counted = {key: _smooth(by_chance(sightings[key[0]], sightings[key[1]], reach), settings) for key in keys}
    total = sum(float(histogram.sum()) for histogram in counted.values())
    chance = {key: histogram / total for key, histogram in counted.items()}
    prior_pairs = settings.prior_pairs
    same = [key for key in keys if key[0].recording == key[1].recording]
    pooled = None
    if same:
        anyhow = np.sum([chance[key] for key in same], axis=0)
        pairs = np.sum([matched[key] for key in same], axis=0)
        if anyhow.sum() > 0 and pairs.sum() >= settings.least_pairs:
            anyhow = anyhow / anyhow.sum()
            likely = (pairs + prior_pairs * anyhow) / (pairs.sum() + prior_pairs)
            pooled = _log_ratio(likely, anyhow, anyhow.size)
    pairs_in_all = sum(float(histogram.sum()) for histogram in matched.values())
    tables = {}
    for key in keys:
        prior = chance[key]
        if pooled is not None and key in same and prior.sum() > 0:
            prior = prior * np.exp(pooled)
            prior = prior * (chance[key].sum() / prior.sum())
        likely = (matched[key] + prior_pairs * prior) / (pairs_in_all + prior_pairs)
        tables[key] = _log_ratio(likely, chance[key], len(keys) * prior.size).astype(np.float32)
    return Ratios(tables, None if pooled is None else pooled.astype(np.float32))


def dense_counts(histogram: Histogram, reach: int) -> np.ndarray:
    """Return counts from the horizon before to the horizon after, and one bin beyond on either side."""
    dense = np.zeros(2 * reach + 3)
    for gap, count in histogram.items():
        dense[gap + reach + 1] += count
    return dense


def by_chance(one: Histogram, other: Histogram, reach: int) -> np.ndarray:
    """Return the number of all pairs of sightings of two views by gap, the second's time less the first's.

    Args:
        one, other: Number of sightings of each view by bin.
        reach: Bins up to the horizon.

    Returns:
        2·reach + 3 counts: gaps beyond the horizon before, from -reach to reach, and beyond it after.
    """
    (start, some), (begin, rest) = (_timeline(histogram) for histogram in (one, other))
    found = np.maximum(np.rint(correlate(rest, some, "full")), 0)
    gaps = np.clip(np.arange(len(found)) + begin - start - (len(some) - 1), -reach - 1, reach + 1)
    return np.bincount(gaps + reach + 1, weights=found, minlength=2 * reach + 3)


def _smooth(dense: np.ndarray, settings: TransitSettings) -> np.ndarray:
    out = dense.copy()
    sigma = settings.smoothing / settings.bin_seconds
    out[1:-1] = gaussian_filter1d(dense[1:-1], sigma, mode="nearest")
    return out


def _timeline(histogram: Histogram) -> tuple[int, np.ndarray]:
    """Return the first bin, and the counts from there on."""
    bins = np.fromiter(histogram, np.int64)
    counts = np.fromiter(histogram.values(), np.float64)
    return int(bins.min()), np.bincount(bins - bins.min(), weights=counts)


def _log_ratio(likely: np.ndarray, chance: np.ndarray, cells: int) -> np.ndarray:
    # One of all cells is added to both. It bounds the ratio of gaps that chance hardly has, and is the floor of those
    # that no match had: unusual routes stay possible.
    return np.asarray(np.log((likely + 1 / cells) / (chance + 1 / cells)))
