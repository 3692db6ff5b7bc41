"""Who arrives, and until when: against walks of which it is known who went on."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.data.records import Sample
from reprism.linking.ratios import TransitSettings
from reprism.linking.transit import CameraNetwork
from reprism.linking.ways import count_gaps, right_matches

FINE = TransitSettings(bin_seconds=1.0, smoothing=10.0)


def walks(there: float, back: float, wrong: float, seed: int) -> tuple[CameraNetwork, np.ndarray, np.ndarray]:
    """From each of two cameras 500 people leave, of whom these shares arrive at the other; the times they take."""
    rng = np.random.default_rng(seed)
    items: list[Sample] = []
    pairs, taken = [], []
    for start, end, share, usual in (("a", "b", there, 60.0), ("b", "a", back, 100.0)):
        times = rng.gamma(16, usual / 16, 500)
        went = rng.random(500) < share
        taken.append(times[went])
        for left, time, arrives in zip(rng.uniform(0, 40_000, 500), times, went, strict=True):
            items.append(Sample(Path("x.jpg"), 0, start, float(left)))
            if arrives:
                pairs.append((len(items) - 1, len(items)))
                items.append(Sample(Path("x.jpg"), 0, end, float(left + time)))
    places = {camera: [n for n, item in enumerate(items) if item.camid == camera] for camera in "ab"}
    count = int(wrong * len(pairs))
    pairs += list(zip(rng.choice(places["a"], count), rng.choice(places["b"], count), strict=True))
    return CameraNetwork.of_pairs(items, np.array(pairs), FINE), taken[0], taken[1]


@given(st.integers(0, 2**31), st.floats(0.15, 1), st.floats(0.15, 1), st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=10)
def test_the_rate_is_the_share_that_arrives(seed: int, there: float, back: float, wrong: float) -> None:
    network, forth_times, back_times = walks(there, back, wrong, seed)
    transit = network.transits()["a", "b"]
    left = {view.camera: sum(times.values()) for view, times in network.sightings.items()}
    for way, camera, times in ((transit.there, "a", forth_times), (transit.back, "b", back_times)):
        assert way is not None
        # All sightings by a camera count as departures: those of people who came there too.
        assert way.rate == pytest.approx(len(times) / left[camera], abs=0.025 + 0.05 * wrong)
        assert way.quartiles[1] == pytest.approx(np.median(times), abs=5)
        assert way.latest >= np.quantile(times, 0.93)
        assert way.latest <= times.max() + 10 + 100 * wrong


def test_hardly_anybody_arrives_later() -> None:
    network, forth, back = walks(0.9, 0.5, 0.0, 0)
    transit = network.transits()["a", "b"]
    assert transit.there.latest == pytest.approx(np.quantile(forth, 0.99), abs=5)
    assert transit.back.latest == pytest.approx(np.quantile(back, 0.99), abs=10)


def test_only_recordings_of_both_cameras_count() -> None:
    seen = [("a", 0.0, "1"), ("b", 40.0, "1"), ("a", 80.0, "1"), ("a", 0.0, "2"), ("b", 9.0, "3")]
    items = [Sample(Path("x.jpg"), 0, camera, time, day) for camera, time, day in seen]
    network = CameraNetwork.of_pairs(items, np.array([(0, 1), (3, 4)]), FINE)
    counted = count_gaps(("a", "b"), network.sightings, network.gaps, FINE.reach)
    assert counted.sightings == (2, 1)
    assert counted.matched.sum() == 1
    assert counted.by_chance.sum() == 2
    assert counted.matched[40 + FINE.reach + 1] == 1
    assert {gap - FINE.reach - 1 for gap in np.flatnonzero(counted.by_chance)} == {40, -40}
    transit = network.transits()["a", "b"]
    assert (transit.there, transit.back, transit.known) == (None, None, False)


@given(st.floats(0.05, 0.9), st.floats(20, 60))
@settings(deadline=None, max_examples=20)
def test_wrong_matches_are_taken_off(wrong: float, walkers: float) -> None:
    """Of wrong matches that lie as any two sightings do, and right ones in a few bins, the right ones are left."""
    chance = 5 + 3 * np.sin(np.linspace(0, 6, 400))
    right = np.zeros(400)
    right[200:206] = walkers
    left = right_matches(wrong * chance + right, chance, 5)
    assert left.sum() == pytest.approx(right.sum(), rel=0.02)
    assert (left[:190] == 0).all()
