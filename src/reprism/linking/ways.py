"""Ways between two cameras: how many of those who leave one arrive at the other, and how long they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from reprism.linking.ratios import Histogram, TransitSettings, View, by_chance, dense_counts

_LATEST = 0.99  # of those who arrive


class Way(NamedTuple):
    """Matches of people who came by one camera first, at gaps that matches have more often than chance.

    Attributes:
        pairs: Matches.
        quartiles: Lower quartile, median and upper quartile of their gaps in seconds, above 0, to the width of a bin.
        rate: Share of the first camera's sightings that have such a match, 0 … 1, without those that wrong matches
            have by chance. At least so many of those who leave arrive: some are not recognized.
        latest: Seconds after which hardly anybody arrives: 99 % of those who do have arrived by then.
    """

    pairs: int
    quartiles: tuple[float, float, float]
    rate: float = 0.0
    latest: float = 0.0


class Transit(NamedTuple):
    """Gaps between matched sightings by two cameras: the second's time less the first's.

    Attributes:
        pairs: Matched pairs.
        quartiles: Lower quartile, median and upper quartile in seconds, to the width of a bin.
        known: False if the cameras say nothing: they had too few matches, or are doubtful.
        doubtful: True if held-out matches do not lie where those learned from do.
        there, back: Who walks from the first camera to the second, and back, by the clocks as they are; None if fewer
            than ``least_pairs`` matches are at gaps that matches have more often than chance.
    """

    pairs: int
    quartiles: tuple[float, float, float]
    known: bool
    doubtful: bool = False
    there: Way | None = None
    back: Way | None = None


class Gaps(NamedTuple):
    """What was counted between two cameras within one recording, over all recordings.

    Attributes:
        matched: 2·reach + 3: matches by gap; gaps beyond the horizon before, from -reach to reach, and beyond it after.
        by_chance: 2·reach + 3: all pairs of sightings by gap.
        bins: Bins in which both cameras had sightings.
        sightings: Sightings of the first camera in recordings of both, and of the second.
    """

    matched: np.ndarray
    by_chance: np.ndarray
    bins: int
    sightings: tuple[int, int]


def count_gaps(
    cameras: tuple[str, str],
    sightings: Mapping[View, Histogram],
    gaps: Mapping[tuple[View, View], Histogram],
    reach: int,
) -> Gaps:
    """Add up what was counted between two cameras in each recording of both.

    Args:
        cameras: The two cameras, in order.
        sightings, gaps: As of :class:`reprism.CameraNetwork`.
        reach: Bins up to the horizon.
    """
    matched, anyhow = np.zeros(2 * reach + 3), np.zeros(2 * reach + 3)
    bins, departed = 0, [0, 0]
    for one, some in sightings.items():
        other = View(cameras[1], one.recording)
        if one.camera != cameras[0] or other not in sightings:
            continue
        others = sightings[other]
        matched += dense_counts(gaps.get((one, other), {}), reach)
        anyhow += by_chance(some, others, reach)
        bins += min(max(times) - min(times) + 1 for times in (some, others))
        departed = [before + sum(times.values()) for before, times in zip(departed, (some, others), strict=True)]
    return Gaps(matched, anyhow, bins, (departed[0], departed[1]))


def usual_gaps(matched: np.ndarray, chance: np.ndarray, window: int) -> np.ndarray:
    """Return which gaps matches have more often than chance.

    Args:
        matched: K matches by gap.
        chance: K: as many as would be expected if matches were any two sightings.
        window: Bins on either side that are looked at together.
    """
    near, expected = (np.convolve(counts, np.ones(2 * window + 1), "same") for counts in (matched, chance))
    # Counts by chance deviate by the root of what is expected.
    return np.asarray(near > expected + 3 * np.sqrt(np.maximum(expected, 0)) + 1)


def right_matches(matched: np.ndarray, chance: np.ndarray, window: int) -> np.ndarray:
    """Return the matches at usual gaps without those that wrong matches have there; K, some may be below 0.

    Args:
        matched, chance, window: As of :func:`usual_gaps`.
    """
    usual = usual_gaps(matched, chance, window)
    # Wrong matches lie as any two sightings do: as many as there are at gaps that nobody takes.
    wrong = matched[~usual].sum() / max(chance[~usual].sum(), 1e-9)
    return np.where(usual, matched - min(wrong, 1.0) * chance, 0)


def find_ways(
    gaps: np.ndarray,
    matched: np.ndarray,
    chance: np.ndarray,
    sightings: tuple[int, int],
    *,
    window: int,
    least: int,
) -> tuple[Way | None, Way | None]:
    """Return who walks from the first camera to the second, and who walks back.

    Args:
        gaps: K gaps in seconds, equally spaced: the second camera's time less the first's.
        matched, chance, window: As of :func:`usual_gaps`.
        sightings: Number of sightings of either camera.
        least: With fewer matches there is no way.
    """
    right = right_matches(matched, chance, window)
    forth, back = gaps > 0, gaps < 0
    counts = matched * usual_gaps(matched, chance, window)
    return (
        _way(gaps, counts * forth, right * forth, sightings[0], least),
        _way(-gaps[::-1], (counts * back)[::-1], (right * back)[::-1], sightings[1], least),
    )


def transit_of(counted: Gaps, settings: TransitSettings, *, known: bool, doubtful: bool) -> Transit:
    """Return the matches between two cameras in short.

    Args:
        counted: Matches and all pairs by gap; some of them are matches.
        settings: Bins, smoothing and least matches.
        known, doubtful: As of :class:`Transit`.
    """
    reach, width = settings.reach, settings.bin_seconds
    matched = counted.matched
    chance = matched.sum() * counted.by_chance / counted.by_chance.sum()
    there, back = find_ways(
        width * np.arange(-reach, reach + 1),
        matched[1:-1],
        chance[1:-1],
        counted.sightings,
        window=int(settings.smoothing / width),
        least=settings.least_pairs,
    )
    gaps, cumulated = width * np.arange(-reach - 1, reach + 2), np.cumsum(matched)
    low, middle, high = (float(gaps[np.searchsorted(cumulated, q * cumulated[-1])]) for q in (0.25, 0.5, 0.75))
    return Transit(int(cumulated[-1]), (low, middle, high), known, doubtful, there, back)


def _way(gaps: np.ndarray, counts: np.ndarray, right: np.ndarray, departed: int, least: int) -> Way | None:
    total = int(counts.sum())
    if total < least:
        return None
    cumulated = np.cumsum(counts)
    low, middle, high = (float(gaps[np.searchsorted(cumulated, share * total)]) for share in (0.25, 0.5, 0.75))
    arrived = np.maximum.accumulate(np.cumsum(right))
    rate = float(np.clip(arrived[-1] / max(departed, 1), 0, 1))
    return Way(total, (low, middle, high), rate, float(gaps[np.searchsorted(arrived, _LATEST * arrived[-1])]))
