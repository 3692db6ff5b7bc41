"""Ways, overlap and clocks: against walks whose times are set, and against people who cross a drawn site."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.data.records import Sample
from reprism.drawn.sites import Site, draw_site, sees_ground, shared_area
from reprism.drawn.walks import plan_visits, stance
from reprism.linking.ratios import TransitSettings
from reprism.linking.routes import Route, clock_ahead, clock_offsets, find_routes
from reprism.linking.transit import CameraNetwork

SIZE = (360, 640)


def sighting(camera: str, time: float, recording: str = "day") -> Sample:
    return Sample(Path("x.jpg"), 0, camera, time, recording)


def learned(
    gaps: np.ndarray, span: float = 36_000.0, wrong: int = 0, settings: TransitSettings | None = None, seed: int = 0
) -> CameraNetwork:
    """Two cameras, with matches at these gaps, and wrong ones of any two sightings."""
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, span, len(gaps))
    items = [
        item
        for start, gap in zip(starts, gaps, strict=True)
        for item in (sighting("a", start), sighting("b", start + gap))
    ]
    pairs = [(2 * n, 2 * n + 1) for n in range(len(gaps))]
    pairs += [(2 * int(i), 2 * int(j) + 1) for i, j in rng.integers(0, len(gaps), (wrong, 2))]
    return CameraNetwork.of_pairs(items, np.array(pairs), settings)


def route(network: CameraNetwork, **options: object) -> Route:
    return find_routes(network, **options)["a", "b"]  # type: ignore[arg-type]


# ---- ways ------------------------------------------------------------------------------------------------


def test_ways_have_their_directions_and_quartiles() -> None:
    rng = np.random.default_rng(0)
    there, back = rng.normal(60, 10, 600), rng.normal(90, 10, 300)
    found = route(learned(np.concatenate([there, -back]), wrong=90, settings=TransitSettings(bin_seconds=1.0)))
    forth, home = found.ways()
    assert forth is not None
    assert home is not None
    for way, times in ((forth, there), (home, back)):
        assert way.pairs == pytest.approx(len(times), abs=10)
        np.testing.assert_allclose(way.quartiles, np.quantile(times, (0.25, 0.5, 0.75)), atol=1.5)
    assert not found.at_once
    # With the clock of the second camera 20 s ahead, the way there is as much shorter.
    assert found.ways(20.0)[0].quartiles[1] == pytest.approx(forth.quartiles[1] - 20)
    assert found.ways(20.0)[1].quartiles[1] == pytest.approx(home.quartiles[1] + 20)
    assert found.ways(least=400)[1] is None


def test_matches_at_any_time_make_no_way() -> None:
    rng = np.random.default_rng(0)
    items = [sighting(camera, time) for camera in "ab" for time in rng.uniform(0, 9000, 400)]
    pairs = np.stack([rng.integers(0, 400, 600), rng.integers(400, 800, 600)], axis=1)
    found = route(CameraNetwork.of_pairs(items, pairs))
    assert found.ways() == (None, None)
    assert not found.at_once


def test_the_rate_is_that_of_hours_that_both_were_there() -> None:
    items = [sighting("a", 3600.0 * n, day) for n in range(11) for day in ("monday", "tuesday")]
    items += [sighting("b", 3600.0 * n + 60, day) for n in range(6) for day in ("monday", "tuesday")]
    pairs = [(n, 22 + n) for n in range(12)]
    found = route(CameraNetwork.of_pairs(items, np.array(pairs)))
    assert (found.pairs, found.known) == (12, False)
    assert found.per_hour == pytest.approx(12 / 10, rel=0.01)


# ---- at once ---------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.floats(-300, 300), st.integers(0, 60))
@settings(deadline=None, max_examples=20)
def test_a_clock_is_told_to_a_part_of_a_bin(seed: int, ahead: float, wrong: int) -> None:
    gaps = ahead + np.random.default_rng(seed).normal(0, 2, 200)
    found = route(learned(gaps, wrong=wrong, seed=seed), overlapping=[("b", "a")])
    assert found.at_once
    assert found.peak == pytest.approx(gaps.mean(), abs=0.8)
    assert found.at_peak > 0.6 > 0.01 > found.at_peak_by_chance
    if abs(ahead) < 3.5 or abs(ahead) > 40:
        assert route(learned(gaps, wrong=wrong, seed=seed)).at_once


def test_the_spread_is_that_of_the_gaps_and_not_of_the_bins() -> None:
    gaps = np.random.default_rng(0).normal(100, 2, 400)
    spreads = [route(learned(gaps + phase, seed=int(10 * phase))).spread for phase in np.arange(0, 4, 0.5).tolist()]
    assert np.mean(spreads) == pytest.approx(gaps.std(), abs=0.2)


@given(st.integers(0, 2**31), st.floats(15, 600), st.floats(0.15, 0.25))
@settings(deadline=None, max_examples=20)
def test_a_walk_is_no_overlap(seed: int, seconds: float, spread: float) -> None:
    walks = seconds / np.clip(np.random.default_rng(seed).normal(1, spread, 300), 0.5, 1.5)
    assert not route(learned(walks, seed=seed)).at_once


def test_overlap_without_matches_is_refused() -> None:
    with pytest.raises(ValueError, match="cameras with matches as overlapping, got a and c"):
        find_routes(learned(np.full(30, 1.0)), overlapping=[("c", "a")])


# ---- clocks ----------------------------------------------------------------------------------------------


def test_clocks_are_compared_along_the_links_with_most_matches() -> None:
    """And cameras that overlap with none are not told."""
    ahead = {"a": 5.0, "b": -120.0, "c": 300.0, "x": 40.0, "y": -60.0, "z": 0.0}
    rng = np.random.default_rng(0)
    items, pairs = [], []
    for one, other, count, error in (
        ("a", "c", 90, 0.0),
        ("b", "c", 80, 0.0),
        ("a", "b", 30, 9.0),
        ("x", "y", 50, 0.0),
    ):
        for start in rng.uniform(0, 36_000, count):
            pairs.append((len(items), len(items) + 1))
            items.append(sighting(one, start + ahead[one]))
            items.append(sighting(other, start + ahead[other] + error))
    for start in rng.uniform(0, 36_000, 100):
        pairs.append((len(items), len(items) + 1))
        items += [sighting("a", start), sighting("z", start + rng.normal(200, 40))]
    found = clock_offsets(find_routes(CameraNetwork.of_pairs(items, np.array(pairs))))
    assert {camera: offset.reference for camera, offset in found.items()} == dict(zip("abcxy", "aaaxx", strict=True))
    for camera, offset in found.items():
        assert offset.seconds == pytest.approx(ahead[camera] - ahead[offset.reference], abs=1.5)
    assert clock_ahead(found, "b", "c") == pytest.approx(420, abs=1.5)
    assert clock_ahead(found, "a", "x") is None
    assert clock_ahead(found, "a", "z") is None


def crossings(site: Site, offsets: dict[str, float], seed: int) -> tuple[list[Sample], np.ndarray]:
    """When each person's feet are first in each camera's picture, by its clock; and the pairs of one visit."""
    items, pairs = [], []
    for visit in plan_visits(site, people=150, seconds=7200.0, returning=0.2, crowd=0.0, seed=seed):
        first: dict[str, float] = {}
        for time in np.arange(visit.times[0], visit.times[-1], 0.5).tolist():
            at = stance(visit, time)
            for camera in site.cameras:
                if at is not None and camera.name not in first and sees_ground(camera, at.x, at.y, SIZE):
                    first[camera.name] = time
        rows = range(len(items), len(items) + len(first))
        pairs += list(combinations(rows, 2))
        items += [sighting(camera, time + offsets.get(camera, 0.0)) for camera, time in first.items()]
    return items, np.array(pairs)


@pytest.mark.parametrize("ahead", [0, 40, -75])
def test_a_drawn_camera_whose_clock_is_off(ahead: int) -> None:
    site = draw_site(4, 3)
    items, pairs = crossings(site, {"cam2": ahead}, 3)
    found = find_routes(CameraNetwork.of_pairs(items, pairs))
    overlap = {
        (one.name, other.name)
        for one, other in combinations(site.cameras, 2)
        if shared_area(site, one, other, SIZE) > 0
    }
    assert overlap == {("cam1", "cam2")}
    assert {cameras for cameras, each in found.items() if each.at_once} == overlap
    offsets = clock_offsets(found)
    # The clock of the third is told by those who walk there and back, if they are many enough.
    assert {"cam1", "cam2"} <= set(offsets) <= {"cam1", "cam2", "cam3"}
    if "cam3" in offsets:
        assert offsets["cam3"].reference == "cam1"
        assert offsets["cam3"].seconds == pytest.approx(0, abs=5)
    assert offsets["cam2"].seconds == pytest.approx(ahead, abs=2)
    # With it, the way from the second camera on is as long as the way back.
    there, home = found["cam2", "cam3"].ways(-offsets["cam2"].seconds, least=15)
    assert there is not None
    assert home is not None
    assert there.quartiles[1] == pytest.approx(home.quartiles[1], abs=8)
