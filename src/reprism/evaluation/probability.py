"""Fit the probability that a match at some distance is right, and check it on people that the fit has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

_BINS = 10  # of the reliability diagram


@dataclass(frozen=True)
class Reliability:
    """A bin of the reliability diagram, on identities that the fit did not see.

    Attributes:
        predicted: Mean probability.
        observed: Share of right matches.
        count: Matches in the bin.
    """

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True)
class Logistic:
    """The probability 1 / (1 + exp(-(slope·distance + intercept)))."""

    slope: float
    intercept: float

    def __call__(self, distance: float | np.ndarray) -> np.ndarray:
        """Return the probability at each distance, 0 … 1."""
        return 1 / (1 + np.exp(-(self.slope * np.asarray(distance, dtype=float) + self.intercept)))


def check_probability(
    candidates: np.ndarray, right: np.ndarray, identity: np.ndarray, rng: np.random.Generator
) -> tuple[Reliability, ...]:
    """Fit to half of the identities, and compare with how often matches of the other half are right.

    Args:
        candidates: N×k distances of each query's nearest items; infinite where there are fewer.
        right: N×k: whether they are of the query's person.
        identity: N: the query's person, 0 … P-1, P at least 2.
        rng: Draws the half.
    """
    people = int(identity.max()) + 1
    checked = np.isin(identity, rng.permutation(people)[: people // 2])
    curve = fit_logistic(candidates[~checked], right[~checked])
    known = np.isfinite(candidates[checked])
    distances, right = candidates[checked][known], right[checked][known]
    predicted = curve(distances)
    bins = np.minimum((predicted * _BINS).astype(int), _BINS - 1)
    return tuple(
        Reliability(float(predicted[bins == n].mean()), float(right[bins == n].mean()), int((bins == n).sum()))
        for n in range(_BINS)
        if (bins == n).any()
    )


def fit_logistic(distances: np.ndarray, right: np.ndarray) -> Logistic:
    """Fit a logistic regression of rightness on distance (Platt 1999); infinite distances do not count.

    Platt's targets keep it finite where right and wrong do not overlap. Where nearer ones are not right more often, as
    with an untrained network, the probability is the same at all distances: farther is never likelier.
    """
    known = np.isfinite(distances)
    x, right = distances[known].astype(float), right[known]
    positive = int(right.sum())
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (len(x) - positive + 2))
    center, spread = x.mean(), x.std() or 1.0
    z = (x - center) / spread

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        logit = w[0] * z + w[1]
        gradient = 1 / (1 + np.exp(-logit)) - target
        value = np.logaddexp(0, logit) - target * logit
        return float(value.mean()), np.array([(gradient * z).mean(), gradient.mean()])

    slope, intercept = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    if slope >= 0:
        return Logistic(0.0, float(np.log(target.mean() / (1 - target.mean()))))
    return Logistic(float(slope / spread), float(intercept - slope * center / spread))
