"""What a network of cameras knows about a site: ways and their times, views that overlap, clocks that are off.

All of it is read from gaps within one recording: those of matched sightings, beside those of any two.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from reprism.linking.clocks import Middle, middle_of_ways
from reprism.linking.ratios import View
from reprism.linking.transit import CameraNetwork
from reprism.linking.ways import Transit, Way, count_gaps, find_ways, usual_gaps

_AT_ONCE_SHARE = 0.5  # of all matches, beyond chance, that one peak must hold
_LEAST_SPREAD = 0.12  # of a walk's time: people's speeds differ by a seventh to a fifth (coefficient of variation)
_MOST_SPREAD = 1.25  # bins
_NEAR = 1  # bins on either side of the peak that belong to it
_AROUND = 3  # bins on either side over which the peak's middle and width are taken
_AGREE = 5.0  # seconds by which clocks differ that agree
_AT_ONCE_ERROR = 1.0  # seconds: views seldom begin to see a person at the same moment
_BINNING = 1 / 6  # variance in bins that rounding two times down adds to their difference


@dataclass(frozen=True, eq=False)
class Route:
    """What is known about two cameras.

    Attributes:
        pairs: Matches within one recording.
        hours: Hours in which both cameras had sightings.
        known: False if the two say nothing.
        doubtful: True if they say nothing as held-out matches do not lie where those learned from do.
        gaps: K gaps in seconds, up to the horizon: the second camera's time less the first's, by their clocks.
        matched: K: number of matches at each gap.
        chance: K: number that would be expected there if matches were any two sightings.
        peak: Most frequent gap in seconds: the middle of the matches around it, which is finer than the bins.
        spread: Standard deviation of these in seconds.
        at_peak, at_peak_by_chance: Share of the matches within a bin of the peak, and of any two sightings.
        at_once: Whether both cameras see a person at once.
        smoothing: Seconds on either side that tell whether matches have a gap more often than chance.
        sightings: Number of sightings of either camera.
        middle: Middle between the ways there and back, which tells of the clocks; None if it does not.
    """

    pairs: int
    hours: float
    known: bool
    doubtful: bool
    gaps: np.ndarray
    matched: np.ndarray
    chance: np.ndarray
    peak: float
    spread: float
    at_peak: float
    at_peak_by_chance: float
    at_once: bool
    smoothing: float
    sightings: tuple[int, int]
    middle: Middle | None

    @property
    def per_hour(self) -> float:
        """Matches in an hour in which both cameras had sightings."""
        return self.pairs / self.hours

    @cached_property
    def usual(self) -> np.ndarray:
        """Which of the K gaps matches have more often than any two sightings do, as booleans."""
        window = int(self.smoothing / (self.gaps[1] - self.gaps[0]))
        return usual_gaps(self.matched, self.chance, window)

    def ways(self, ahead: float = 0.0, *, least: int = 20) -> tuple[Way | None, Way | None]:
        """Return who walks from the first camera to the second, and who walks back.

        Args:
            ahead: Seconds that the second camera's clock is ahead of the first's.
            least: With fewer matches there is no way.
        """
        return find_ways(
            self.gaps - ahead,
            self.matched,
            self.chance,
            self.sightings,
            window=int(self.smoothing / (self.gaps[1] - self.gaps[0])),
            least=least,
        )


class Offset(NamedTuple):
    """How far a camera's clock is ahead.

    Attributes:
        reference: Camera whose clock it is compared with: one of those that most others agree with.
        seconds: Seconds that it is ahead of that clock.
        error: Standard error in seconds.
        pairs: Matches that tell it, with the camera next to it.
    """

    reference: str
    seconds: float
    error: float = 0.0
    pairs: int = 0

    @property
    def is_off(self) -> bool:
        """Whether the clock is off by more than chance and different ways explain: by 5 s, and by 3 errors."""
        return abs(self.seconds) >= max(_AGREE, 3 * self.error)


def find_routes(
    network: CameraNetwork, *, overlapping: Collection[tuple[str, str]] = ()
) -> dict[tuple[str, str], Route]:
    """Return what is known about every two cameras that have matches within one recording.

    Two cameras see a person at once where at least half of the matches, beyond chance, lie within a bin of one gap, and
    that gap is about 0; or where it is another, as where a clock is off, that is kept more exactly than people walk:
    their standard deviation is below 1.25 bins, and below 12 % of it. A clock that is off by less than that is not told
    from a way that all take in one direction: name such cameras.

    Args:
        network: The network.
        overlapping: Two cameras each that are known to overlap.

    Returns:
        By the two cameras, in order.

    Raises:
        ValueError: Cameras that are said to overlap have no matches.
    """
    said = {(min(pair), max(pair)) for pair in overlapping}
    transits = network.transits()
    if missing := said - set(transits):
        one, other = min(missing)
        raise ValueError(f"expected cameras with matches as overlapping, got {one} and {other}")
    return {cameras: _route(network, cameras, transit, cameras in said) for cameras, transit in transits.items()}


def clock_offsets(routes: Mapping[tuple[str, str], Route]) -> dict[str, Offset]:
    """Return how far cameras' clocks are ahead of each other, as far as people tell.

    Two cameras that see people at once tell by how much their clocks differ, to a second or two: by the gap that these
    have. So do two between which people walk both ways: by the middle of both. That holds if walks there take as long
    as walks back, so that it counts only where it agrees over three cameras: from the first to the second and on to the
    third as from the first to the third. From camera to camera the most exact links count.

    Nothing is told of two cameras alone, of cameras that people pass one way, and of one that takes longer to come to
    from everywhere than to leave (as up a hill), the half of the difference looks like its clock.

    Args:
        routes: What :func:`find_routes` returned.

    Returns:
        By camera, for those that are told. Of each group, the camera that most others agree with is the reference; of
        several, the first by name.
    """
    links = _links(routes)
    names = sorted({camera for cameras in links for camera in cameras})
    number = {camera: at for at, camera in enumerate(names)}
    ends = np.array([(number[one], number[other]) for one, other in links], np.int64).reshape(-1, 2)
    costs = np.array([link.cost for link in links.values()])
    tree = minimum_spanning_tree(coo_array((costs, (ends[:, 0], ends[:, 1])), shape=(len(names), len(names))).tocsr())
    found: dict[str, Offset] = {}
    for at, name in enumerate(names):
        if name in found:
            continue
        group = {name: Offset(name, 0.0)}
        order, before = breadth_first_order(tree, at, directed=False)
        for other in order[1:].tolist():
            start, end = names[before[other]], names[other]
            link = links[min(start, end), max(start, end)]
            seconds = group[start].seconds + (link.seconds if start < end else -link.seconds)
            group[end] = Offset(name, seconds, math.hypot(group[start].error, link.error), link.pairs)
        found |= _beside_most(group)
    return found


def clock_advice(offsets: Mapping[str, Offset], gallery: str = "GALLERY") -> list[str]:
    """Return a sentence for each camera whose clock is off, with the command that sets it right in a gallery.

    Args:
        offsets: What :func:`clock_offsets` returned.
        gallery: Name of the gallery.
    """
    return [
        f"{camera}'s clock seems {abs(offset.seconds):.0f} s {'ahead of' if offset.seconds > 0 else 'behind'} "
        f"{offset.reference}'s (from {offset.pairs:,} matches); if {offset.reference}'s is right, set it: "
        f"reprism cameras {shlex.quote(gallery)} --clock-ahead {shlex.quote(f'{camera}={offset.seconds:.0f}')}"
        for camera, offset in sorted(offsets.items())
        if offset.is_off
    ]


def clock_ahead(offsets: Mapping[str, Offset], one: str, other: str) -> float | None:
    """Return the seconds that the other camera's clock is ahead of the one's; None if they were never compared."""
    if one in offsets and other in offsets and offsets[one].reference == offsets[other].reference:
        return offsets[other].seconds - offsets[one].seconds
    return None


class _Link(NamedTuple):
    """What two cameras tell of the second's clock; the less it costs, the sooner it counts."""

    seconds: float
    error: float
    pairs: int
    cost: float


def _links(routes: Mapping[tuple[str, str], Route]) -> dict[tuple[str, str], _Link]:
    """Return what tells of clocks: cameras that see people at once, and both ways that agree over three cameras."""
    sure = {
        # The more matches, the less it costs to go that way; and always less than by walks.
        cameras: _Link(route.peak, _AT_ONCE_ERROR, route.pairs, 1 / route.pairs)
        for cameras, route in routes.items()
        if route.at_once
    }
    walked = {
        cameras: _Link(middle.seconds, middle.error, middle.pairs, 1 + middle.error**2)
        for cameras, route in routes.items()
        if cameras not in sure and route.known and (middle := route.middle) is not None
    }
    links = sure | walked
    votes = Counter[tuple[str, str]]()
    for one, other, last in combinations(sorted({camera for cameras in links for camera in cameras}), 3):
        sides = (one, other), (other, last), (one, last)
        if all(side in links for side in sides):
            first, second, both = (links[side] for side in sides)
            error = math.hypot(first.error, second.error, both.error)
            agree = abs(first.seconds + second.seconds - both.seconds) <= 3 * error
            votes.update(dict.fromkeys(sides, 1 if agree else -1))
    return sure | {cameras: link for cameras, link in walked.items() if votes[cameras] > 0}


def _beside_most(group: Mapping[str, Offset]) -> dict[str, Offset]:
    """Return offsets beside a camera that most others agree with, the first by name of several."""
    agree = {
        name: sum(abs(one.seconds - other.seconds) < _AGREE for other in group.values()) for name, one in group.items()
    }
    reference = min(group, key=lambda name: (-agree[name], name))
    ahead, error = group[reference].seconds, group[reference].error
    return {
        name: Offset(
            reference,
            one.seconds - ahead,
            0.0 if name == reference else math.hypot(one.error, error),
            one.pairs or group[reference].pairs,
        )
        for name, one in group.items()
    }


def _route(network: CameraNetwork, cameras: tuple[str, str], transit: Transit, overlap: bool) -> Route:
    settings = network.settings
    reach, width = settings.reach, settings.bin_seconds
    matched, anyhow, bins, sightings = count_gaps(cameras, network.sightings, network.gaps, reach)
    pairs = int(matched.sum())
    # The ends are all gaps beyond the horizon.
    share, by = (counts[1:-1] / counts.sum() for counts in (matched, anyhow))
    beyond = np.convolve(share - by, np.ones(2 * _NEAR + 1), "same")
    middle, spread = _middle(np.maximum(share - by, 0), int(beyond.argmax()))
    window = np.abs(np.arange(len(share)) - middle) <= _NEAR + 0.5
    at_peak, by_luck = float(share[window].sum()), float(by[window].sum())
    far = abs(middle - reach)
    narrow = far <= _NEAR or spread <= min(_MOST_SPREAD, _LEAST_SPREAD * far)
    return Route(
        pairs=pairs,
        hours=bins * width / 3600,
        known=transit.known,
        doubtful=transit.doubtful,
        gaps=width * np.arange(-reach, reach + 1),
        matched=matched[1:-1],
        chance=pairs * by,
        peak=width * (middle - reach),
        spread=width * spread,
        at_peak=at_peak,
        at_peak_by_chance=by_luck,
        at_once=overlap or (transit.known and narrow and at_peak - by_luck >= _AT_ONCE_SHARE * (1 - by_luck)),
        smoothing=settings.smoothing,
        sightings=sightings,
        middle=_middle_of(network, cameras),
    )


def _middle_of(network: CameraNetwork, cameras: tuple[str, str]) -> Middle | None:
    """Return the middle between the ways there and back in each recording that tells one, on average.

    A clock belongs to a recording: what several have together may lie about a middle that none of them has. Nothing is
    told where two recordings contradict.
    """
    settings = network.settings
    reach, width = settings.reach, settings.bin_seconds
    found: list[Middle] = []
    for recording in sorted({view.recording for view in network.sightings}):
        one, other = (View(camera, recording) for camera in cameras)
        pairs = sum(network.gaps.get((one, other), {}).values())
        if pairs < 2 * settings.least_pairs:
            continue
        sightings = {view: network.sightings[view] for view in (one, other)}
        matched, anyhow, _, _ = count_gaps(cameras, sightings, network.gaps, reach)
        middle = middle_of_ways(
            width * np.arange(-reach, reach + 1),
            matched[1:-1],
            pairs * anyhow[1:-1] / anyhow.sum(),
            window=int(settings.smoothing / width),
            least=settings.least_pairs,
        )
        if middle is not None:
            found.append(middle)
    if not found:
        return None
    seconds, errors, walks, counts = (np.array(values) for values in zip(*found, strict=True))
    weights = errors**-2 / np.sum(errors**-2)
    mean = float(weights @ seconds)
    if (np.abs(seconds - mean) > 3 * errors).any():
        return None
    return Middle(mean, float(np.sum(errors**-2) ** -0.5), float(weights @ walks), int(counts.sum()))


def _middle(weights: np.ndarray, start: int) -> tuple[float, float]:
    """Return the mean and the standard deviation around the peak, in bins, without what the bins add."""
    middle, bins = float(start), np.arange(len(weights))
    spread = 0.0
    for _ in range(10):  # from bin to bin, until it stays
        around = np.where(np.abs(bins - middle) <= _AROUND + 0.5, weights, 0)
        total = float(around.sum())
        if not total:
            return middle, spread
        before, middle = middle, float(around @ bins) / total
        spread = max(0.0, float(around @ (bins - middle) ** 2) / total - _BINNING) ** 0.5
        if middle == before:
            break
    return middle, spread
