"""Intervals against the definition of their variance, pair by pair, and against populations whose rates are known."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, binomtest, chi2, t

from reprism.data.records import Sample
from reprism.evaluation.calibration import calibrate
from reprism.evaluation.intervals import _interval, different_people_interval, same_person_interval
from reprism.evaluation.pair_counts import LabelledRows

WIDTH, SPREADS = 8, (0.2, 0.5)


def draw(seed: int, count: int, cameras: int = 2, each: int = 2, distractors: int = 0):
    """People around centres from a normal distribution, some of them more alike to themselves than others."""
    rng = np.random.default_rng(seed)
    query, gallery = ([], []), ([], [])
    for pid in range(1, count + 1):
        center, spread = rng.normal(size=WIDTH), rng.choice(SPREADS)
        for camera, number in product(range(cameras), range(each)):
            rows, items = gallery if number else query
            rows.append(center + spread * rng.normal(size=WIDTH))
            items.append(Sample(Path("x.jpg"), pid, camera))
    for _ in range(distractors):
        gallery[0].append(rng.normal(size=WIDTH) + rng.choice(SPREADS) * rng.normal(size=WIDTH))
        gallery[1].append(Sample(Path("x.jpg"), 0, int(rng.integers(cameras))))
    return np.float32(query[0]), np.float32(gallery[0]), query[1], gallery[1]


def true_rates(threshold: float) -> tuple[float, float]:
    """False match rate and true positive rate in the population: a squared distance is a multiple of chi-squared."""
    same = [chi2.cdf(threshold**2 / (2 * s**2), WIDTH) for s in SPREADS]
    different = [chi2.cdf(threshold**2 / (2 + a**2 + b**2), WIDTH) for a, b in product(SPREADS, repeat=2)]
    return float(np.mean(different)), float(np.mean(same))


def listed(query, gallery, query_items, gallery_items):
    """Every pair of different cameras: its distance, and the people in it, each distractor one of its own."""
    pairs = []
    for row, asked in zip(query, query_items, strict=True):
        for number, (other, there) in enumerate(zip(gallery, gallery_items, strict=True)):
            if asked.camid is None or asked.camid != there.camid:
                distance = float(np.sqrt(((row.astype(float) - other) ** 2).sum()))
                pairs.append((distance, asked.pid, there.pid or f"distractor {number}"))
    return pairs


def variance(accepted: np.ndarray, people: list[set]) -> tuple[float, float]:
    """A rate and its variance: residuals multiplied for all pairs of pairs that share a person."""
    residuals = accepted - accepted.mean()
    shared = np.array([[bool(one & other) for other in people] for one in people])
    return float(accepted.mean()), float(residuals @ shared @ residuals) / len(people) ** 2


@pytest.mark.parametrize("seed", range(3))
def test_the_variance_is_that_of_pairs_that_share_people(seed: int) -> None:
    case = draw(seed, count=6, cameras=3, distractors=4)
    pairs = listed(*case)
    rows = LabelledRows(*case)
    far, close = rows.by_people([1500, 400])
    near, nearer = (np.array([distance < rows.edges[place] for distance, *_ in pairs]) for place in (1500, 400))
    different = np.array([a != b for _, a, b in pairs])
    people = [{a, b} for _, a, b in pairs]
    rate, spread = variance(near[different], [who for who, two in zip(people, different, strict=True) if two])
    assert far.different.sum() / different.sum() == rate
    # By person: how far the matches that they are in lie from what was to be expected.
    sums = [
        sum(hit - rate for hit, who, two in zip(near, people, different, strict=True) if two and person in who)
        for person in sorted(set().union(*people), key=str)
    ]
    freedom = np.square(sums).sum() ** 2 / np.power(sums, 4).sum()
    assert spread > 0
    want = clopper_pearson(rate, different.sum(), spread, freedom)
    assert different_people_interval(rows, far) == pytest.approx(want, rel=1e-9)
    rate, spread = variance(nearer[~different], [who for who, two in zip(people, different, strict=True) if not two])
    want = clopper_pearson(rate, (~different).sum(), spread * 6 / 5, 5)
    assert same_person_interval(rows, close) == pytest.approx(want, rel=1e-9)


def clopper_pearson(rate, total, spread, freedom):
    count = min(rate * (1 - rate) / spread, total) * (t.ppf(0.975, total - 1) / t.ppf(0.975, freedom)) ** 2
    return (
        beta.ppf(0.025, rate * count, (1 - rate) * count + 1),
        beta.ppf(0.975, rate * count + 1, (1 - rate) * count),
    )


@pytest.mark.parametrize(("hits", "total"), [(0, 50), (1, 50), (7, 200), (50, 50)])
def test_of_independent_pairs_it_is_clopper_and_pearsons(hits: int, total: int) -> None:
    rate = hits / total
    found = _interval(rate, total, rate * (1 - rate) / total, freedom=total - 1, fewest=total)
    assert found == pytest.approx(tuple(binomtest(hits, total).proportion_ci()), abs=1e-9)


def test_none_seen_bounds_the_rate_and_does_not_make_it_zero() -> None:
    (point,) = calibrate(*draw(1, count=40), fmrs=(1e-7,)).points
    assert point.fmr == 0
    low, high = point.fmr_interval
    assert low == 0
    assert true_rates(point.threshold)[0] < high < 0.01  # the rule of three: 3.7 of 40·39/2 pairs of people


def test_95_of_100_intervals_cover_the_rates_of_the_population() -> None:
    """The rates at the threshold that was chosen, not at one that was given."""
    covered = []
    for seed in range(200):
        case = draw(seed, count=40, distractors=20)
        for point in calibrate(*case, fmrs=(0.1, 0.01)).points:
            fmr, tpr = true_rates(point.threshold)
            assert point.fmr_interval[0] <= point.fmr <= point.fmr_interval[1]
            assert point.tpr_interval[0] <= point.tpr <= point.tpr_interval[1]
            covered.append((
                point.fmr_interval[0] <= fmr <= point.fmr_interval[1],
                point.tpr_interval[0] <= tpr <= point.tpr_interval[1],
            ))  # fmt: skip
    # A share of 400 such, seeds given: 95 % to three of its standard deviations, the two rates being dependent.
    assert (np.mean(covered, axis=0) >= 0.92).all(), np.mean(covered, axis=0)
    assert (np.mean(covered, axis=0) <= 0.985).all(), np.mean(covered, axis=0)
