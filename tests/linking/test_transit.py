"""Transit times that are learned, against the true ones of synthetic walks."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.data.records import Sample
from reprism.linking.matches import mutual_nearest
from reprism.linking.ratios import TransitSettings, by_chance
from reprism.linking.transit import CameraNetwork, CameraNetworkError

SPAN = 6000.0  # seconds in which people come
AFTER = {"gate": 0.0, "hall": 60.0, "yard": 240.0}  # seconds until a person reaches each camera
OFFSET = {"gate": 0.0, "hall": 300.0, "yard": 0.0}  # of each camera's clock
DEVIATION = 8.0


def walks(people: int, seed: int = 0, recordings: tuple[str, ...] = ("day",), noise: float = 0.2):
    """People who walk by three cameras: descriptors that are like those of others, and items."""
    rng = np.random.default_rng(seed)
    rows, items = [], []
    for pid in range(people):
        start, recording, center = rng.uniform(0, SPAN), recordings[pid % len(recordings)], rng.normal(size=16)
        for camera, after in AFTER.items():
            time = start + after + OFFSET[camera] + (rng.normal(0, DEVIATION) if after else 0)
            rows.append(center / np.linalg.norm(center) + noise * rng.normal(size=16))
            items.append(Sample(Path(f"{pid}{camera}.jpg"), pid, camera, float(time), recording))
    rows = np.array(rows)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), items


def true_pairs(items: list[Sample]) -> np.ndarray:
    return np.array(
        [(i, j) for i, one in enumerate(items) for j in range(i + 1, min(i + 3, len(items))) if items[j].pid == one.pid]
    )


def ratio(network: CameraNetwork, one: str, other: str, gap: float, recordings=("day", "day")) -> float:
    query = Sample(Path("q.jpg"), 0, one, 1000.0, recordings[0])
    gallery = Sample(Path("g.jpg"), 0, other, 1000.0 + gap, recordings[1])
    return float(network.log_ratio([query], [gallery])[0, 0])


def right(pairs: np.ndarray, items: list[Sample]) -> float:
    return float(np.mean([items[i].pid == items[j].pid for i, j in pairs]))


# ---- the ratio -------------------------------------------------------------------------------------------


def test_it_is_that_of_the_densities_of_gaps() -> None:
    """Of a normal distribution of transit times, and the triangular one of any two arrivals."""
    _, items = walks(3000)
    smoothing = 6.0
    options = TransitSettings(bin_seconds=1.0, smoothing=smoothing, horizon=3000.0)
    network = CameraNetwork.of_pairs(items, true_pairs(items), options)
    for one, other, deviations in (("gate", "hall", 1), ("gate", "yard", 1), ("hall", "yard", 2)):
        mean = AFTER[other] + OFFSET[other] - AFTER[one] - OFFSET[one]
        variance = deviations * DEVIATION**2 + smoothing**2
        for gap in (mean - 12, mean - 5, mean, mean + 5, mean + 12):
            likely = np.exp(-((gap - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
            shift = abs(gap - mean + AFTER[other] - AFTER[one])
            by_chance = (SPAN - shift) / SPAN**2
            # One cell in 6,003 is added to both, as the documentation says.
            expected = np.log((likely + 1 / 6003) / (by_chance + 1 / 6003))
            assert ratio(network, one, other, gap) == pytest.approx(expected, abs=0.15)
        for gap in (mean + 200, mean - 200, -2000.0):
            assert ratio(network, one, other, gap) < -0.4


def test_it_is_the_same_from_either_side() -> None:
    rows, items = walks(80, recordings=("day", "night"))
    network = CameraNetwork.learn(rows, items)
    found = network.log_ratio(items, items)
    np.testing.assert_array_equal(found, found.T)
    assert (found != 0).any()


def test_what_is_not_known_says_nothing() -> None:
    _, items = walks(200)
    network = CameraNetwork.of_pairs(items, true_pairs(items))
    assert ratio(network, "gate", "hall", 360) > 1
    assert ratio(network, "gate", "gate", 360) == 0
    assert ratio(network, "gate", "roof", 360) == 0
    assert ratio(network, "gate", "hall", 360, ("day", "night")) == 0
    asked = Sample(Path("q.jpg"), 0, "gate", 1000.0, "day")
    for unknown in (replace(items[1], time=None), replace(items[1], camid=None)):
        assert network.log_ratio([asked], [unknown]).tolist() == [[0.0]]
    assert network.log_ratio([], [asked]).shape == (0, 1)


def test_in_another_recording_it_is_that_of_all_recordings() -> None:
    _, items = walks(600, recordings=("monday", "tuesday"))
    network = CameraNetwork.of_pairs(items, true_pairs(items))
    known = ratio(network, "gate", "hall", 360, ("monday", "monday"))
    assert known > 1
    # Half of all pairs of sightings are of two days, which tells more than the gap on one.
    assert ratio(network, "gate", "hall", 360, ("friday", "friday")) == pytest.approx(known - np.log(2), abs=0.3)
    assert ratio(network, "gate", "hall", 360, ("friday", "saturday")) == 0
    assert ratio(network, "gate", "hall", 360, ("monday", "tuesday")) < -1, "nobody comes back the next day"


def test_a_recording_with_few_matches_leans_on_the_others() -> None:
    _, items = walks(400, recordings=("monday", "monday", "monday", "tuesday"))
    pairs = true_pairs(items)
    on_monday = pairs[[items[i].recording == "monday" for i, _ in pairs]]
    network = CameraNetwork.of_pairs(items, on_monday)
    tuesday = [ratio(network, "gate", "hall", gap, ("tuesday", "tuesday")) for gap in (360, 1500, -700)]
    assert tuesday[0] > max(tuesday[1:]) + 0.2


def test_transits_are_the_quartiles_of_matched_gaps() -> None:
    _, items = walks(900, recordings=("monday", "tuesday"))
    network = CameraNetwork.of_pairs(items, true_pairs(items), TransitSettings(bin_seconds=1.0))
    found = network.transits()
    assert list(found) == [("gate", "hall"), ("gate", "yard"), ("hall", "yard")]
    for (one, other), transit in found.items():
        gaps = [
            items[j].time - items[i].time
            for i, j in true_pairs(items)
            if (items[i].camid, items[j].camid) == (one, other)
        ]
        np.testing.assert_allclose(transit.quartiles, np.quantile(gaps, (0.25, 0.5, 0.75)), atol=1.5)
        assert (transit.pairs, transit.known) == (900, True)


def test_two_cameras_with_few_matches_say_nothing() -> None:
    _, items = walks(200)
    pairs = true_pairs(items)
    cameras = [{items[i].camid, items[j].camid} for i, j in pairs]
    few = [pair for pair, two in zip(pairs, cameras, strict=True) if two == {"gate", "hall"}][:19]
    rest = [pair for pair, two in zip(pairs, cameras, strict=True) if two != {"gate", "hall"}]
    network = CameraNetwork.of_pairs(items, np.array([*few, *rest]))
    assert ratio(network, "gate", "hall", 360) == 0
    assert ratio(network, "gate", "yard", 240) > 1
    network = CameraNetwork.of_pairs(items, np.array([*few, few[0], *rest]))
    assert ratio(network, "gate", "hall", 360) > 0.5


def test_no_gap_is_less_likely_than_the_floor() -> None:
    _, items = walks(400)
    network = CameraNetwork.of_pairs(items, true_pairs(items))
    lowest = network.log_ratio(items, items).min()
    assert -np.log(400 / 10 + 1) - 0.01 <= lowest < -1


@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(1, 30), st.floats(1, 50), st.floats(60, 900))
@settings(deadline=None, max_examples=40)
def test_gaps_by_chance_are_those_of_all_pairs(seed: int, n: int, m: int, width: float, horizon: float) -> None:
    rng = np.random.default_rng(seed)
    items = [
        Sample(Path("x.jpg"), 0, camera, float(time))
        for camera, count in (("a", n), ("b", m))
        for time in rng.uniform(-500, 500, count)
    ]
    network = CameraNetwork.of_pairs(items, np.zeros((0, 2), int), TransitSettings(width, 20.0, horizon))
    reach = int(np.ceil(horizon / width))
    counted = Counter(
        min(max(int(np.floor(other.time / width) - np.floor(one.time / width)), -reach - 1), reach + 1)
        for one in items[:n]
        for other in items[n:]
    )
    found = by_chance(*network.sightings.values(), reach)
    assert {gap - reach - 1: int(count) for gap, count in enumerate(found) if count} == dict(counted)


# ---- learning --------------------------------------------------------------------------------------------


def test_transit_times_are_learned_from_appearance_alone() -> None:
    rows, items = walks(500)
    cameras = np.unique([item.camid for item in items], return_inverse=True)[1]
    by_looks = mutual_nearest(rows, cameras)
    assert 0.3 < right(by_looks, items) < 0.8, "matches by appearance are often wrong"
    network = CameraNetwork.learn(rows, items)
    for one, other in (("gate", "hall"), ("gate", "yard"), ("hall", "yard")):
        gaps = np.arange(-1000.0, 1000.0, 4.0)
        best = gaps[np.argmax([ratio(network, one, other, gap) for gap in gaps])]
        assert best == pytest.approx(AFTER[other] + OFFSET[other] - AFTER[one] - OFFSET[one], abs=10)
    # Other people, of whom nothing was learned.
    rows, items = walks(500, seed=1)
    gate = [row for row, item in enumerate(items) if item.camid == "gate"]
    yard = [row for row, item in enumerate(items) if item.camid == "yard"]
    asked, shown = [items[row] for row in gate], [items[row] for row in yard]
    alike = 20 * rows[gate] @ rows[yard].T

    def rank_1(scores: np.ndarray) -> float:
        return float(np.mean([shown[at].pid == item.pid for item, at in zip(asked, scores.argmax(1), strict=True)]))

    assert rank_1(alike + network.log_ratio(asked, shown)) > rank_1(alike) + 0.15


def test_further_rounds_find_better_matches() -> None:
    rows, items = walks(300)
    once, often = (CameraNetwork.learn(rows, items, rounds=rounds) for rounds in (1, 5))
    truth = {(one.camera, other.camera): AFTER[other.camera] + OFFSET[other.camera] - AFTER[one.camera]
             - OFFSET[one.camera] for one, other in often.gaps}  # fmt: skip

    def near(network: CameraNetwork) -> float:
        share = [
            sum(count for gap, count in histogram.items() if abs(4 * gap - truth[one.camera, other.camera]) < 30)
            / sum(histogram.values())
            for (one, other), histogram in network.gaps.items()
        ]
        return float(np.mean(share))

    assert near(often) > near(once) + 0.1


def test_neither_identities_nor_the_order_of_sightings_matter() -> None:
    rows, items = walks(60, recordings=("day", "night"))
    network = CameraNetwork.learn(rows, items)
    order = np.random.default_rng(0).permutation(len(items))
    other = CameraNetwork.learn(rows[order], [replace(items[row], pid="nobody") for row in order])
    assert (other.gaps, other.sightings) == (network.gaps, network.sightings)
    assert network.num_pairs > 60


def test_sightings_without_a_time_take_no_part() -> None:
    rows, items = walks(60)
    extra = [*items, replace(items[0], time=None), replace(items[1], camid=None)]
    network = CameraNetwork.learn(np.concatenate([rows, rows[:2]]), extra)
    assert network.gaps == CameraNetwork.learn(rows, items).gaps


def test_what_cannot_be_learned_from_is_refused() -> None:
    rows, items = walks(5)
    with pytest.raises(ValueError, match="a descriptor for each of 15 items, got 14"):
        CameraNetwork.learn(rows[:-1], items)
    for few in ([replace(item, time=None) for item in items], [replace(item, camid="gate") for item in items]):
        with pytest.raises(CameraNetworkError, match="by two cameras with times, got none"):
            CameraNetwork.learn(rows, few)
    with pytest.raises(ValueError, match="rounds of at least 1, got 0"):
        CameraNetwork.learn(rows, items, rounds=0)
    with pytest.raises(ValueError, match="bins apart: give wider bins"):
        CameraNetwork.of_pairs([replace(items[0], time=0.0), replace(items[0], time=1e9)], np.zeros((0, 2)))
    with pytest.raises(ValueError, match="pairs of two cameras, got two sightings by camera gate"):
        CameraNetwork.of_pairs(items, np.array([[0, 3]]))
    for options in ({"bin_seconds": 0}, {"smoothing": float("nan")}, {"bin_seconds": 10, "horizon": 5}):
        with pytest.raises(ValueError, match="expected"):
            TransitSettings(**options)


# ---- files -----------------------------------------------------------------------------------------------


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    rows, items = walks(60, recordings=("day", "night"))
    network = CameraNetwork.learn(rows, items, settings=TransitSettings(smoothing=12.5))
    read = CameraNetwork.load(network.save(tmp_path / "network.json"))
    assert (read.gaps, read.sightings, read.settings) == (network.gaps, network.sightings, network.settings)
    np.testing.assert_array_equal(read.log_ratio(items, items), network.log_ratio(items, items))


def test_files_that_hold_no_network_are_refused(tmp_path: Path) -> None:
    rows, items = walks(60)
    path = CameraNetwork.learn(rows, items).save(tmp_path / "network.json")
    good = json.loads(path.read_text())
    first = good["gaps"][0]
    bad = {
        "newer": good | {"version": 2},
        "another": good | {"format": "something else"},
        "setting": good | {"settings": good["settings"] | {"smoothing": -1}},
        "view": good | {"gaps": [first | {"to": 99}]},
        "one camera": good | {"gaps": [first | {"to": first["from"]}]},
        "order": good | {"gaps": [first | {"from": first["to"], "to": first["from"]}]},
        "count": good | {"gaps": [first | {"pairs": [[0, -1]]}]},
        "far": good | {"gaps": [first | {"pairs": [[9000, 1]]}]},
        "long": good | {"views": [good["views"][0] | {"sightings": [[0, 1], [2**40, 1]]}]},
        "list": [good],
    }
    for name, values in bad.items():
        path.write_text(json.dumps(values))
        with pytest.raises(CameraNetworkError, match=r"network\.json holds no network of cameras"):
            CameraNetwork.load(path), name
    path.write_text(json.dumps(good)[:-20])
    with pytest.raises(CameraNetworkError, match="holds no network of cameras"):
        CameraNetwork.load(path)
    with pytest.raises(CameraNetworkError, match="absent holds no network"):
        CameraNetwork.load(tmp_path / "absent")
