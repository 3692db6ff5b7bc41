"""Odds learned without a label equal those of the densities that pairs were drawn from."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from reprism.linking.odds import DISTANCE_BINS, TIME_BINS, OddsError, PairOdds, count_pairs, distance_bin, time_bin

SAME, OTHER = norm(0.7, 0.12), norm(1.2, 0.14)  # of distances
WALK, WINDOW = norm(40, 12), 600.0  # seconds: of one person's ways, and of chance


def drawn(prior, count, seed=0):
    """Return pairs: whether they are of one person, their distances, and what their times say."""
    rng = np.random.default_rng(seed)
    same = rng.random(count) < prior
    distances = np.where(same, SAME.rvs(count, random_state=rng), OTHER.rvs(count, random_state=rng)).clip(0, 2)
    seconds = np.where(same, WALK.rvs(count, random_state=rng), rng.uniform(-WINDOW / 2, WINDOW / 2, count))
    return same, distances, time_ratio(seconds)


def time_ratio(seconds):
    return np.maximum(WALK.logpdf(seconds) + np.log(WINDOW), -8.0)


def counted(distances, times):
    cells = distance_bin(distances) * TIME_BINS + time_bin(times)
    return np.bincount(cells, minlength=DISTANCE_BINS * TIME_BINS).reshape(DISTANCE_BINS, TIME_BINS)


@pytest.mark.parametrize(("prior", "within"), [(0.002, 0.25), (0.02, 0.05), (0.2, 0.05)])
def test_the_odds_are_those_of_the_densities(prior, within):
    same, distances, times = drawn(prior, 1_000_000)
    odds = PairOdds.learn(counted(distances, times))
    assert odds.prior == pytest.approx(same.mean(), rel=within)
    assert odds.expected_matches == pytest.approx(same.sum(), rel=within)
    assert odds.pairs == 1_000_000
    at = np.linspace(0.75, 0.96, 8)
    truth = SAME.logpdf(at) - OTHER.logpdf(at) + np.log(prior / (1 - prior))
    at, truth = at[np.abs(truth) < 5], truth[np.abs(truth) < 5]  # beyond, either has hardly a pair
    assert len(at) >= 5
    np.testing.assert_allclose(odds.log_odds(at), truth, atol=0.35 + within)
    np.testing.assert_allclose(odds.log_odds(at, 2.0), odds.log_odds(at) + 2.0)
    np.testing.assert_allclose(odds.probability(at), 1 / (1 + np.exp(-odds.log_odds(at))))


def test_probabilities_are_shares_of_right_ones_among_pairs_that_were_not_learned_from():
    _, distances, times = drawn(0.01, 1_000_000, seed=1)
    odds = PairOdds.learn(counted(distances, times))
    same, distances, times = drawn(0.01, 1_000_000, seed=2)
    found = odds.probability(distances, times)
    for low in np.arange(0.1, 0.9, 0.2):
        inside = (found >= low) & (found < low + 0.2)
        error = 4 * np.sqrt(0.25 / inside.sum())
        assert found[inside].mean() == pytest.approx(same[inside].mean(), abs=error + 0.04)


def test_matches_are_found_among_people_in_one_uniform():
    """The nearest pairs of all are of strangers, which times tell: at first next to nothing seems to match."""
    rng, count = np.random.default_rng(0), {"same": 600, "alike": 300, "other": 45_000}
    distances = [
        rng.normal(*at, count[kind]) for kind, at in zip(count, ((0.75, 0.18), (0.45, 0.06), (1.45, 0.2)), strict=True)
    ]
    times = [rng.normal(0.5 if kind == "same" else -0.5, 1, many) for kind, many in count.items()]
    odds = PairOdds.learn(counted(np.concatenate(distances), np.concatenate(times)))
    assert odds.expected_matches == pytest.approx(600, rel=0.3)
    assert odds.appearance[distance_bin(0.75)] > 2 > -2 > odds.appearance[distance_bin(1.45)]


def test_without_times_that_tell_anything_it_refuses():
    _, distances, _ = drawn(0.0001, 200_000)
    with pytest.raises(OddsError, match="fewer than 50 seem to be of one person"):
        PairOdds.learn(counted(distances, np.zeros(len(distances))))
    with pytest.raises(OddsError, match="got no pair of two cameras"):
        PairOdds.learn(np.zeros((DISTANCE_BINS, TIME_BINS)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 40))
def test_pairs_are_counted_as_one_by_one(seed, count, block):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cameras, said = rng.integers(0, 3, count), rng.normal(scale=4, size=(count, count))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("reprism.linking.odds._BLOCK", block)
        found = count_pairs(rows, cameras, lambda some, others: said[np.ix_(some, others)])
    want = np.zeros((DISTANCE_BINS, TIME_BINS))
    for one in range(count):
        for other in range(one + 1, count):
            if cameras[one] != cameras[other]:
                distance = np.linalg.norm(rows[one] - rows[other])
                want[min(int(distance * 64), 127), round((np.clip(said[one, other], -10, 10) + 10) * 8)] += 1
    assert found.sum() == want.sum()
    # Rounding may move a pair to the next bin.
    assert np.abs(found.cumsum(0) - want.cumsum(0)).max() <= 1


def test_a_larger_distance_never_speaks_for_one_person():
    _, distances, times = drawn(0.01, 100_000)
    odds = PairOdds.learn(counted(distances, times))
    assert (np.diff(odds.appearance) <= 0).all()
    assert (np.diff(odds.log_odds(np.linspace(0, 2, 500))) <= 1e-12).all()


def test_odds_come_back_from_json_and_nothing_else_does():
    odds = PairOdds(0.01, np.linspace(3, -3, DISTANCE_BINS), 1234)
    again = PairOdds.from_dict(json.loads(json.dumps(odds.as_dict())))
    assert (again.prior, again.pairs) == (odds.prior, odds.pairs)
    np.testing.assert_array_equal(again.appearance, odds.appearance)
    good = odds.as_dict()
    for wrong in (
        {},
        good | {"prior": 1.5},
        good | {"prior": "x"},
        good | {"appearance": [1.0]},
        good | {"pairs": None},
    ):
        with pytest.raises(OddsError, match="expected"):
            PairOdds.from_dict(wrong)
