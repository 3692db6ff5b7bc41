"""The curve is checked on people that it was not fitted to: held against every way of dividing them."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from reprism.data.records import Sample
from reprism.evaluation.calibration import calibrate

PEOPLE = 6


def unlike_people(seed):
    """Queries by camera 0, a gallery by camera 1: of some people the right match is near, of others a stranger is.

    A curve that has seen a person knows which; one that has not does not.
    """
    rng = np.random.default_rng(seed)
    query, gallery, query_items, gallery_items = [], [], [], []
    for pid in range(1, PEOPLE + 1):
        near, far = (0.2, 0.9) if pid % 3 else (1.1, 0.1)
        for _ in range(int(rng.integers(4, 9))):
            query.append([10.0 * pid, 0.05 * rng.random()])
            query_items.append(Sample(Path("x.jpg"), pid, 0))
        for _ in range(4):
            for who, away in ((pid, near), (0, far)):
                angle = rng.uniform(0, 2 * np.pi)
                away += 0.3 * rng.random()
                gallery.append([10.0 * pid + away * np.cos(angle), away * np.sin(angle)])
                gallery_items.append(Sample(Path("x.jpg"), who, 1))
    return np.float32(query), np.float32(gallery), query_items, gallery_items


def nearest(query, gallery, query_items, gallery_items):
    """The ten nearest items of each query, whether they are right, and whose query it is."""
    distances = np.linalg.norm(query[:, None].astype(float) - gallery[None], axis=2)
    order = np.argsort(distances, axis=1)[:, :10]
    pids = np.array([item.pid for item in gallery_items])
    who = np.array([item.pid for item in query_items])
    return np.take_along_axis(distances, order, 1), pids[order] == who[:, None], who


def fitted(distances, right):
    """Platt's curve by another road: the likelihood maximised without its gradient."""
    positive = right.sum()
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (right.size - positive + 2))

    def loss(w):
        logit = w[0] * distances + w[1]
        return (np.logaddexp(0, logit) - target * logit).sum()

    slope, intercept = minimize(loss, [0, 0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    return lambda distance: 1 / (1 + np.exp(-(slope * distance + intercept)))


def diagram(predicted, right):
    """Mean prediction, share that is right, and count, of each tenth that has any."""
    tenth = np.minimum((predicted * 10).astype(int), 9)
    some = [tenth == n for n in range(10) if (tenth == n).any()]
    return [(predicted[one].mean(), right[one].mean(), one.sum()) for one in some]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_checked_on_people_that_it_was_not_fitted_to(seed):
    case = unlike_people(seed)
    distances, right, who = nearest(*case)
    found = [(bin_.predicted, bin_.observed, bin_.count) for bin_ in calibrate(*case, seed=seed).reliability]
    honest, leaking = [], []
    everyone = fitted(distances, right)
    for held in combinations(range(1, PEOPLE + 1), PEOPLE // 2):
        checked = np.isin(who, held)
        curve = fitted(distances[~checked], right[~checked])
        honest.append(diagram(curve(distances[checked]), right[checked]))
        leaking.append(diagram(everyone(distances[checked]), right[checked]))
        leaking.append(diagram(curve(distances[~checked]), right[~checked]))
    leaking.append(diagram(everyone(distances), right))
    assert sum(alike(found, one) for one in honest) == 1
    assert not any(alike(found, one) for one in leaking)


def alike(found, expected):
    return len(found) == len(expected) and np.allclose(found, expected, atol=1e-3)


def test_leaking_would_look_better_than_it_is():
    """That is why: the gap on people who were seen is smaller than on those who were not."""
    gaps = []
    for seed in range(10):
        case = unlike_people(seed)
        distances, right, _ = nearest(*case)
        found = calibrate(*case, seed=seed)
        seen = diagram(fitted(distances, right)(distances), right)
        gap = sum(abs(p - o) * count for p, o, count in seen) / sum(count for *_, count in seen)
        gaps.append((found.calibration_error, gap))
    honest, leaking = np.mean(gaps, axis=0)
    assert honest > 1.5 * leaking
