"""How sure a network of cameras is: against a closed form, and against what no network says."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.data.records import Sample
from reprism.linking.gains import mean_gain
from reprism.linking.held_out import gains, hold_out, later_half
from reprism.linking.ratios import TransitSettings
from reprism.linking.transit import CameraNetwork, CameraNetworkError

SPAN = 6000.0  # seconds in which people come
AFTER = {"gate": 0.0, "hall": 60.0, "yard": 240.0}  # seconds until a person reaches each camera
DEVIATION = 8.0


def walks(
    people: int, seed: int = 0, noise: float = 0.2, recording: str = "day"
) -> tuple[np.ndarray, list[Sample], np.ndarray]:
    """People who walk by three cameras: descriptors, items, and the pairs of one person."""
    rng = np.random.default_rng(seed)
    rows, items = [], []
    for pid in range(people):
        start, center = rng.uniform(0, SPAN), rng.normal(size=16)
        for camera, after in AFTER.items():
            time = start + after + (rng.normal(0, DEVIATION) if after else 0)
            rows.append(center / np.linalg.norm(center) + noise * rng.normal(size=16))
            items.append(Sample(Path(f"{pid}{camera}.jpg"), pid, camera, float(time), recording))
    rows = np.array(rows)
    pairs = [pair for pid in range(people) for pair in combinations(range(3 * pid, 3 * pid + 3), 2)]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), items, np.array(pairs)


def _normal(shift: np.ndarray, variance: float) -> np.ndarray:
    return np.exp(-(shift**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def test_the_gain_is_that_of_the_densities_of_gaps() -> None:
    """Other people's gaps under a normal distribution, less under the triangular one of any two arrivals."""
    smoothing = 6.0
    options = TransitSettings(bin_seconds=1.0, smoothing=smoothing, horizon=3000.0)
    learned, held = (
        CameraNetwork.of_pairs(items, pairs, options) for _, items, pairs in (walks(3000), walks(3000, seed=1))
    )
    found = gains([(learned, held)])
    gaps = np.arange(-3000.0, 3001.0)
    for (one, other), deviations in ((("gate", "hall"), 1), (("gate", "yard"), 1), (("hall", "yard"), 2)):
        mean, true = AFTER[other] - AFTER[one], deviations * DEVIATION**2
        smoothed = true + smoothing**2
        shift = np.abs(gaps - mean)
        by_chance = (SPAN - shift) / SPAN**2
        # One cell in 6,003 is added to both, as the documentation says.
        ratio = (_normal(shift, smoothed) + 1 / 6003) / (by_chance + 1 / 6003)
        beyond = 1 - by_chance.sum()
        in_all = by_chance @ ratio + beyond / 6003 / (beyond / 2 + 1 / 6003)
        expected = _normal(shift, true) @ np.log(ratio / in_all)
        spread = _normal(shift, true) @ np.log(ratio / in_all) ** 2 - expected**2
        gain = found.cameras[one, other]
        assert gain.mean == pytest.approx(expected, abs=0.08)
        assert gain.pairs == 3000
        half = 1.96 * np.sqrt(spread / 3000)
        assert (gain.mean - gain.low, gain.high - gain.mean) == pytest.approx((half, half), rel=0.25)
    assert found.overall.pairs == 9000
    assert found.overall.mean == pytest.approx(np.mean([gain.mean for gain in found.cameras.values()]))


@given(st.integers(0, 2**31), st.integers(3, 40))
@settings(deadline=None, max_examples=30)
def test_densities_add_up_to_one(seed: int, people: int) -> None:
    """Nothing predicts chance better than chance: with any two sightings as matches, no network gains."""
    options = TransitSettings(least_pairs=1, horizon=600.0)
    _, items, pairs = walks(people, seed)
    learned = CameraNetwork.of_pairs(items, pairs, options)
    _, others, _ = walks(6, seed + 1)
    everybody = [(i, j) for i, j in combinations(range(18), 2) if others[i].camid != others[j].camid]
    found = gains([(learned, CameraNetwork.of_pairs(others, np.array(everybody), options))])
    for gain in found.cameras.values():
        assert gain.mean <= 1e-6


def test_a_network_of_other_matches_gains_nothing() -> None:
    _, items, pairs = walks(400)
    learned = CameraNetwork.of_pairs(items, pairs)
    _, others, right = walks(400, seed=1)
    wrong = right.copy()
    wrong[:, 1] = (wrong[:, 1] + 3 * 50) % len(others)
    assert gains([(learned, CameraNetwork.of_pairs(others, right))]).overall.low > 3
    assert gains([(learned, CameraNetwork.of_pairs(others, wrong))]).overall.high < -0.5
    # A network that knows nothing says nothing.
    nothing = CameraNetwork.of_pairs(items, pairs[:5])
    none = gains([(nothing, CameraNetwork.of_pairs(others, right))]).overall
    assert (none.mean, none.low, none.high) == (0, 0, 0)


def test_it_is_found_from_appearance_alone() -> None:
    rows, items, _ = walks(500)
    found = hold_out(rows, items)
    assert set(found.cameras) == {("gate", "hall"), ("gate", "yard"), ("hall", "yard")}
    assert 1 < found.overall.low < found.overall.mean < found.overall.high < 4
    assert hold_out(rows, [replace(item, pid="nobody") for item in items]) == found
    # Where people come and go at random, what was learned is an accident, and is said to be none the better.
    rng = np.random.default_rng(0)
    anyhow = [replace(item, time=float(rng.uniform(0, SPAN))) for item in items]
    assert -0.5 < hold_out(rows, anyhow).overall.high < 0


def test_halves_are_cut_within_each_recording() -> None:
    items = [
        Sample(Path("x.jpg"), 0, "a", time, recording)
        for recording, times in (("one", (1.0, 5.0, 9.0)), ("two", (101.0, 102.0, 103.0, 104.0)))
        for time in times
    ]
    assert later_half(items).tolist() == [False, False, True, False, False, True, True]


def test_too_little_to_hold_out_is_said() -> None:
    rows, items, _ = walks(1)
    found = hold_out(rows, [replace(item, time=0.0) for item in items])
    assert found.overall.pairs == 0
    assert found.describe() == "no match could be held out"
    with pytest.raises(ValueError, match="a descriptor for each of 3 items, got 2"):
        hold_out(rows[:2], items)


@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 9)), min_size=1, max_size=20))
@settings(deadline=None, max_examples=50)
def test_the_mean_is_that_of_all_pairs(each: list[tuple[float, int]]) -> None:
    values, counts = np.array([value for value, _ in each]), np.array([count for _, count in each])
    gain = mean_gain(values, counts)
    repeated = np.repeat(values, counts)
    assert (gain.pairs, gain.mean) == (len(repeated), pytest.approx(repeated.mean(), abs=1e-9))
    assert repeated.min() - 1e-9 <= gain.low <= gain.high <= repeated.max() + 1e-9


def test_the_interval_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(1, 2, 900)
    gain = mean_gain(values, np.ones(900))
    half = 1.96 * values.std() / 30
    assert (gain.mean - gain.low, gain.high - gain.mean) == pytest.approx((half, half), rel=0.1)


def test_a_file_keeps_it(tmp_path: Path) -> None:
    rows, items, _ = walks(200)
    network = replace(CameraNetwork.learn(rows, items), held_out=hold_out(rows, items))
    path = network.save(tmp_path / "network.json")
    read = CameraNetwork.load(path)
    assert read.held_out == network.held_out
    assert read.describe() == network.describe()
    assert "held-out matches gain" in read.describe()
    assert "held-out" not in replace(read, held_out=None).describe()
    good = json.loads(path.read_text())
    for bad in ({"overall": [1, 2, 3]}, {"overall": [9, 1.0, 2.0, 0.0], "cameras": []}, [1]):
        path.write_text(json.dumps(good | {"held_out": bad}))
        with pytest.raises(CameraNetworkError, match="holds no network"):
            CameraNetwork.load(path)
