"""Say how sure a network of cameras is: learn from one half of the time, and predict the matches of the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reprism.data.records import Item
from reprism.linking.answers import Answers
from reprism.linking.gains import HeldOut, mean_gain
from reprism.linking.matches import mutual_nearest
from reprism.linking.ratios import TransitSettings, View, by_chance
from reprism.linking.transit import CameraNetwork, CameraNetworkError
from reprism.progress import Progress, step


def hold_out(
    descriptors: np.ndarray,
    items: Sequence[Item],
    *,
    rounds: int = 3,
    settings: TransitSettings | None = None,
    use_identities: bool = False,
    together: np.ndarray | None = None,
    apart: np.ndarray | None = None,
    progress: Progress | None = None,
) -> HeldOut:
    """Learn a network from each half of the time, and compare it with no network on the matches of the other half.

    Every recording is cut in the middle of its sightings. The held-out matches are found by appearance alone: found
    with the help of times, they would agree with any network. Some are wrong, and lower the gain: that of true matches
    is higher. Two cameras of which a half knows too little gain 0 there. No identity is looked at, unless you ask for
    it: then the held-out matches are right.

    Args:
        descriptors, items, rounds, settings, use_identities, together, apart, progress: As of
            :meth:`reprism.CameraNetwork.learn`. Answers about two sightings of one half count there.

    Raises:
        ValueError: Numbers of descriptors and items differ, or a setting is out of range.
    """
    if len(descriptors) != len(items):
        raise ValueError(f"expected a descriptor for each of {len(items)} items, got {len(descriptors)}")
    settings = settings or TransitSettings()
    known = np.array([n for n, item in enumerate(items) if item.camid is not None and item.time is not None], int)
    answers = Answers.of(items, use_identities=use_identities, together=together, apart=apart).of_rows(known)
    rows, chosen = np.asarray(descriptors)[known], [items[row] for row in known]
    late = later_half(chosen)
    found: list[tuple[CameraNetwork, CameraNetwork]] = []
    for name, learned_from in (("first half", ~late), ("second half", late)):
        some, others = (np.flatnonzero(each) for each in (learned_from, ~learned_from))
        named = None if progress is None else _named(progress, name)
        try:
            network = CameraNetwork.learn(
                rows[some],
                [chosen[row] for row in some],
                rounds=rounds,
                settings=settings,
                use_identities=use_identities,
                together=answers.of_rows(some).together,
                apart=answers.of_rows(some).apart,
                progress=named,
            )
        except CameraNetworkError:  # A half with one camera has nothing to teach.
            continue
        rest = [chosen[row] for row in others]
        cameras = np.unique([str(item.camid) for item in rest], return_inverse=True)[1]
        theirs = answers.of_rows(others)
        pairs = mutual_nearest(rows[others], cameras, theirs.bonus(None), progress=step(named, "matches to predict"))
        pairs = theirs.joined(pairs, cameras)
        found.append((network, CameraNetwork.of_pairs(rest, pairs, settings)))
    return gains(found)


def gains(networks: Sequence[tuple[CameraNetwork, CameraNetwork]]) -> HeldOut:
    """Compare networks with none on matches that they were not learned from.

    The density of a gap with the network is that of any two sightings times the network's ratio, divided by its sum:
    over all gaps of the two cameras' held-out sightings it adds up to 1, as that without does.

    Args:
        networks: A network, and the sightings and matches that it is to predict, counted with the same settings.
    """
    values: dict[tuple[str, str], list[float]] = {}
    counts: dict[tuple[str, str], list[int]] = {}
    for network, held in networks:
        sums = {cameras: _log_sum(network, held, *cameras) for cameras in {(a.camera, b.camera) for a, b in held.gaps}}
        for (one, other), histogram in held.gaps.items():
            cameras = one.camera, other.camera
            table = network.ratio_by_gap(one, other)
            for gap, count in histogram.items():
                ratio = 0.0 if table is None else float(table[gap + network.settings.reach + 1])
                values.setdefault(cameras, []).append(ratio - sums[cameras])
                counts.setdefault(cameras, []).append(count)
    return HeldOut(
        mean_gain(np.concatenate([[], *values.values()]), np.concatenate([[], *counts.values()])),
        {cameras: mean_gain(np.array(values[cameras]), np.array(counts[cameras])) for cameras in sorted(values)},
    )


def later_half(items: Sequence[Item]) -> np.ndarray:
    """Return which sightings come after the middle one of their recording."""
    times = np.array([item.time for item in items], float)
    recordings = np.array([item.recording or "" for item in items])
    late = np.zeros(len(items), bool)
    for recording in np.unique(recordings):
        within = recordings == recording
        late[within] = times[within] > np.median(times[within])
    return late


def _log_sum(network: CameraNetwork, held: CameraNetwork, camera: str, another: str) -> float:
    """Return the logarithm of what the network's ratios are on average over any two held-out sightings."""
    reach = network.settings.reach
    weighted = pairs = 0.0
    views: list[tuple[View, View]] = [
        (one, other)
        for one in held.sightings
        for other in held.sightings
        if (one.camera, other.camera) == (camera, another)
    ]
    for one, other in views:
        counted = by_chance(held.sightings[one], held.sightings[other], reach)
        table = network.ratio_by_gap(one, other)
        weighted += float(counted.sum() if table is None else counted @ np.exp(table.astype(np.float64)))
        pairs += float(counted.sum())
    return float(np.log(weighted / pairs))


def _named(progress: Progress, name: str) -> Progress:
    return lambda what, done, total: progress(f"{name}: {what}", done, total)
