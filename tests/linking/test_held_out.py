"""How sure a network of cameras is: against a closed form, and against what no network says."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from reprism.data.records import Sample
from reprism.linking.gains import likely_share, mean_gain
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


# ---- what is doubtful ------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.lists(st.floats(-9, 4), min_size=1, max_size=12))
@settings(deadline=None, max_examples=40)
def test_the_share_is_the_likeliest_one(seed: int, values: list[float]) -> None:
    """Against the likelihood, minimized by another method; and its interval's ends are as unlikely as said."""
    if not any(values):
        return
    counts = np.random.default_rng(seed).integers(1, 60, len(values))
    ratios = np.exp(np.array(values))

    def cost(share: float) -> float:
        return -float(counts @ np.log(1 - share + share * ratios))

    best = minimize_scalar(cost, bounds=(0, 1), method="bounded", options={"xatol": 1e-6})
    found = likely_share(np.array(values), counts)
    assert found is not None
    assert cost(found.best) == pytest.approx(min(best.fun, cost(0), cost(1)), abs=0.05)
    for end, step in ((found.low, -0.002), (found.high, 0.002)):
        assert cost(end) <= cost(found.best) + 1.92
        if 0.002 < end < 0.998:
            assert cost(end + step) > cost(found.best) + 1.92


def test_the_share_is_that_of_matches_that_follow() -> None:
    """Whatever many others lie anywhere and pull the mean below 0."""
    _, items, pairs = walks(2000)
    learned = CameraNetwork.of_pairs(items, pairs)
    _, others, right = walks(1000, seed=1)
    wrong = right.copy()
    wrong[:, 1] = (wrong[:, 1] + 3 * np.random.default_rng(0).integers(100, 900, len(wrong))) % len(others)
    for true in (0.0, 0.15, 0.5):
        pairs = np.where((np.arange(len(right)) < true * len(right))[:, None], right, wrong)
        gain = gains([(learned, CameraNetwork.of_pairs(others, pairs))]).overall
        assert gain.share is not None
        # The floor of the ratios is as if some matches lay anywhere already.
        assert true - 0.03 <= gain.share.best <= 2 * true + 0.03
        assert gain.is_doubtful == (true == 0)
        assert gain.mean < 0 if true < 0.2 else gain.mean > 0


def strollers(seed: int) -> tuple[np.ndarray, list[Sample]]:
    """People who go from the gate to the hall in a minute, and are in the park at any time of the day."""
    rng = np.random.default_rng(seed)
    rows, items = [], []
    for pid in range(400):
        start, center = rng.uniform(0, SPAN), rng.normal(size=16)
        times = {"gate": start, "hall": start + rng.normal(60, DEVIATION), "park": rng.uniform(0, SPAN)}
        for camera, time in times.items():
            rows.append(center / np.linalg.norm(center) + 0.12 * rng.normal(size=16))
            items.append(Sample(Path("x.jpg"), pid, camera, float(time), "day"))
    rows = np.array(rows)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), items


def test_cameras_that_nobody_walks_between_say_nothing() -> None:
    rows, items = strollers(0)
    network = CameraNetwork.learn(rows, items)
    sure = replace(network, held_out=hold_out(rows, items))
    transits = sure.transits()
    assert {cameras for cameras, each in transits.items() if each.doubtful} == {("gate", "park"), ("hall", "park")}
    assert {cameras for cameras, each in transits.items() if each.known} == {("gate", "hall")}
    at = {camera: [item for item in items if item.camid == camera][:50] for camera in AFTER | {"park": 0}}
    assert (sure.log_ratio(at["gate"], at["park"]) == 0).all()
    assert (network.log_ratio(at["gate"], at["park"]) != 0).any()
    np.testing.assert_array_equal(sure.log_ratio(at["gate"], at["hall"]), network.log_ratio(at["gate"], at["hall"]))
    # What was made up only pushes the right person down.
    rows, others = strollers(1)
    right = [(network.log_ratio([one], [other])[0, 0]) for one, other in zip(others[::3], others[2::3], strict=True)]
    assert np.mean(right) < 0.05


def test_with_identities_held_out_matches_are_right() -> None:
    rows, items, _ = walks(300, noise=0.6)
    by_looks, by_identity = hold_out(rows, items), hold_out(rows, items, use_identities=True)
    assert by_identity.overall.mean > by_looks.overall.mean + 1
    assert by_identity.overall.share.best > 0.97 > by_looks.overall.share.best
    together = np.array([(3 * pid, 3 * pid + 1) for pid in range(300)])
    answered = hold_out(rows, items, together=together)
    assert answered.cameras["gate", "hall"].pairs > by_looks.cameras["gate", "hall"].pairs
    assert answered.cameras["gate", "hall"].mean > by_looks.cameras["gate", "hall"].mean


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
