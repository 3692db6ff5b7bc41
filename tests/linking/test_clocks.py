"""Clocks that are off, told by people who walk both ways: against walks whose times and clocks are set."""

import shlex
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.cli.cameras import Arguments, settings_of
from reprism.data.records import Sample
from reprism.linking.clocks import Middle
from reprism.linking.ratios import View
from reprism.linking.routes import clock_advice, clock_offsets, find_routes
from reprism.linking.transit import CameraNetwork


def site(
    seed: int,
    ahead: dict[str, float],
    *,
    cameras: str = "abcd",
    people: int = 300,
    both: bool = True,
    wrong: float = 0.2,
    speeds: tuple[float, ...] = (1.0,),
    hours: float = 10.0,
) -> CameraNetwork:
    """People who walk by two to four cameras of a site, in any direction or (``both=False``) in order.

    The cameras lie anywhere on 120 × 120 m, 25 m from each other at least. Everybody has a speed of their own, and for
    each way another; ``wrong`` of the matches are of any two sightings.
    """
    rng = np.random.default_rng(seed)
    while True:
        at = dict(zip(cameras, rng.uniform(0, 120, (len(cameras), 2)), strict=True))
        if min(np.linalg.norm(at[one] - at[other]) for one, other in combinations(cameras, 2)) > 25:
            break
    items: list[Sample] = []
    pairs: list[tuple[int, int]] = []
    for _ in range(people):
        stops = rng.choice(list(cameras), rng.integers(2, min(4, len(cameras)) + 1), replace=False).tolist()
        stops = stops if both else sorted(stops)
        time = float(rng.uniform(0, hours * 3600))
        speed = rng.choice(speeds) * np.clip(rng.normal(1.3, 0.2), 0.7, 2)
        rows = []
        for before, stop in pairwise([None, *stops]):
            if before is not None:
                time += float(np.linalg.norm(at[before] - at[stop])) / speed * rng.uniform(0.9, 1.1)
            rows.append(len(items))
            items.append(Sample(Path("x.jpg"), 0, stop, time + ahead.get(stop, 0.0)))
        pairs += combinations(rows, 2)
    mixed = rng.integers(0, len(items), (int(wrong * len(pairs)), 2)).tolist()
    pairs += [(one, other) for one, other in mixed if items[one].camid != items[other].camid]
    return CameraNetwork.of_pairs(items, np.array(pairs))


def off(network: CameraNetwork) -> dict[str, float]:
    return {camera: each.seconds for camera, each in clock_offsets(find_routes(network)).items() if each.is_off}


@pytest.mark.parametrize("seed", range(6))
def test_clocks_that_are_off_are_found(seed: int) -> None:
    """One by 40 s and one by 12 s, neither told by overlap; those of the others are right."""
    found = clock_offsets(find_routes(site(seed, {"b": 40.0, "d": -12.0}, cameras="abcdef", people=1500)))
    assert {each.reference for each in found.values()} <= {"a", "c", "e", "f"}
    assert {camera: found[camera].is_off for camera in "abcdef"} == {camera: camera in "bd" for camera in "abcdef"}
    for camera, seconds in (("b", 40), ("d", -12)):
        assert found[camera].seconds == pytest.approx(seconds, abs=4)
        assert abs(found[camera].seconds - seconds) < 4 * found[camera].error
        assert found[camera].pairs >= 40
    # The command that is named does what it says.
    first, second = clock_advice(found, "my site")
    assert first.startswith(f"b's clock seems {found['b'].seconds:.0f} s ahead of ")
    assert second.startswith(f"d's clock seems {-found['d'].seconds:.0f} s behind ")
    for sentence, camera in ((first, "b"), (second, "d")):
        words = shlex.split(sentence.partition("reprism cameras ")[2])
        assert words[0] == "my site"
        (changed,) = settings_of(Arguments(words[0], clock_ahead=(words[2],)), {}).values()
        assert changed.clock_ahead == round(found[camera].seconds)


def test_no_clock_is_off_where_none_is() -> None:
    """In fifty sites; and most of them do tell that, of most cameras."""
    told = 0
    for seed in range(50):
        network = site(1000 + seed, {}, cameras="abc" if seed % 2 else "abcd")
        assert off(network) == {}, seed
        told += len(clock_offsets(find_routes(network)))
    assert told > 0.5 * 25 * (3 + 4)


@pytest.mark.parametrize("speeds", [(1.0,), (1.0, 3.0), (1.0, 1.6)])
def test_who_walks_one_way_tells_nothing(speeds: tuple[float, ...]) -> None:
    """Nor do slow and fast people, whose times fall into two groups."""
    for seed in range(6):
        found = find_routes(site(seed, {"b": 40.0}, both=False, speeds=speeds))
        assert clock_offsets({cameras: route for cameras, route in found.items() if not route.at_once}) == {}, seed


def test_two_cameras_alone_tell_nothing() -> None:
    network = site(0, {"b": 40.0}, cameras="ab")
    route = find_routes(network)["a", "b"]
    assert isinstance(route.middle, Middle)
    assert route.middle.seconds == pytest.approx(40, abs=4)
    assert clock_offsets({("a", "b"): route}) == {}


def test_cameras_that_do_not_agree_tell_nothing() -> None:
    """Where walks from a to b take 30 s longer than back, and others do not, no clock explains it."""
    rng = np.random.default_rng(0)
    items: list[Sample] = []
    pairs = []
    for one, other, there, back in (("a", "b", 80.0, 50.0), ("b", "c", 60.0, 60.0), ("a", "c", 70.0, 70.0)):
        for start, end, seconds in ((one, other, there), (other, one, back)):
            for time in rng.uniform(0, 36_000, 100):
                pairs.append((len(items), len(items) + 1))
                items += [Sample(Path("x.jpg"), 0, start, float(time)),
                          Sample(Path("x.jpg"), 0, end, float(time + rng.normal(seconds, 5)))]  # fmt: skip
    routes = find_routes(CameraNetwork.of_pairs(items, np.array(pairs)))
    assert [round(route.middle.seconds) for route in routes.values()] == pytest.approx([15, 0, 0], abs=2)
    assert clock_offsets(routes) == {}


def days(*offsets: float) -> CameraNetwork:
    """The same walks on several days, with b's clock ahead by another offset each day."""
    sightings, gaps = {}, {}
    for day, ahead in enumerate(offsets):
        network = site(3, {"b": ahead})
        sightings |= {View(view.camera, f"day {day}"): times for view, times in network.sightings.items()}
        for key, counts in network.gaps.items():
            one, other = (View(view.camera, f"day {day}") for view in key)
            gaps[one, other] = counts
    return CameraNetwork(sightings, gaps)


def test_each_recording_has_a_clock_of_its_own() -> None:
    """Two days that agree tell it more exactly than one; two that do not tell nothing, and no middle between both."""
    one, same, other = days(40.0), days(40.0, 40.0), days(40.0, -30.0)
    assert off(one).keys() == off(same).keys() == {"b"}
    assert off(same)["b"] == pytest.approx(off(one)["b"], abs=1)
    told = {cameras: route.middle for cameras, route in find_routes(one).items() if route.middle is not None}
    for cameras, middle in told.items():
        again = find_routes(same)[cameras].middle
        assert again is not None
        assert again.error == pytest.approx(middle.error / 2**0.5)
        assert (again.seconds, again.pairs) == (pytest.approx(middle.seconds), 2 * middle.pairs)
    assert "b" not in clock_offsets(find_routes(other))


@given(st.integers(0, 2**31), st.floats(-120, 120), st.floats(15, 150), st.integers(40, 300))
@settings(deadline=None, max_examples=25)
def test_the_middle_is_the_offset_within_its_error(seed: int, ahead: float, walk: float, people: int) -> None:
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0, 36_000, 2 * people)
    times = walk / np.clip(rng.normal(1, 0.15, 2 * people), 0.6, 1.5)
    items: list[Sample] = []
    for n, (start, time) in enumerate(zip(starts.tolist(), times.tolist(), strict=True)):
        first, second = ("a", "b") if n < people else ("b", "a")
        shift = {"a": 0.0, "b": ahead}
        items += [Sample(Path("x.jpg"), 0, first, start + shift[first]),
                  Sample(Path("x.jpg"), 0, second, start + time + shift[second])]  # fmt: skip
    pairs = np.arange(4 * people).reshape(-1, 2)
    middle = find_routes(CameraNetwork.of_pairs(items, pairs))["a", "b"].middle
    assert middle is None or abs(middle.seconds - ahead) < 5 * middle.error + 0.5
    # Of few, whose gaps all have one sign, it may be that slow and fast people walk one way.
    if walk > 30 and (abs(ahead) < walk / 2 or people > 200):
        assert middle is not None
        assert middle.pairs == pytest.approx(2 * people, rel=0.05)
        assert middle.walk == pytest.approx(np.median(times), rel=0.1)
