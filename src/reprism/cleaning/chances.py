"""How likely a label is wrong, judged by the data set itself: by what its pictures look like when one makes it wrong.

A statistic is measured for all labels as they are, and again for labels that are wrong on purpose: a picture held out
and given a stranger's name, two people put under one name, one person cut in two. The first mixes right labels with
some share of wrong ones, and the second has wrong ones alone. So the share follows from how often the first is as low
as the second mostly is, and the probability at a value is share · density of the second / density of the first: the
local false discovery rate of Efron (2001), with wrong labels as the discoveries.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import isotonic_regression

_QUANTILES = np.linspace(0.2, 0.95, 16)  # of the wrong ones, at which their share among all is bounded


def chances(observed: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the probability that each label is wrong, and the share of wrong labels.

    Args:
        observed: N values of a statistic that is lower where labels are wrong; NaN where it is not known.
        wrong: M values of it for labels that are wrong on purpose.

    Returns:
        N probabilities, 0 … 1, that never rise with the value, 0 where that is NaN; and the share, 0 … 1.
    """
    known = np.isfinite(observed)
    values = observed[known].astype(float)
    wrong = wrong[np.isfinite(wrong)].astype(float)
    result = np.zeros(len(observed))
    if not len(values) or not len(wrong):
        return result, 0.0
    # Right labels can only add to what lies below a value: at every quantile this bounds the share from above. A
    # standard deviation of the count is added, lest the least of the bounds be one that is low by chance.
    below = np.searchsorted(np.sort(values), np.quantile(wrong, _QUANTILES), side="right")
    share = float(min(1.0, ((below + np.sqrt(below + 1)) / (_QUANTILES * len(values))).min()))
    result[known] = np.minimum(1.0, share * _density_ratio(values, wrong))
    return result, share


def _density_ratio(values: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return the density of ``wrong`` over that of ``values`` at each of ``values``, never rising with the value."""
    # What lies below all values counts where the least of them is: else few values would be judged by part of it.
    wrong = np.maximum(wrong, values.min())
    pooled, places = np.unique(np.concatenate([values, wrong]), return_inverse=True)
    of_values = np.bincount(places[: len(values)], minlength=len(pooled)) / len(values)
    of_wrong = np.bincount(places[len(values) :], minlength=len(pooled)) / len(wrong)
    weights = of_values + of_wrong
    # Which of the two a value at this place comes from, by regression that only falls.
    among = np.clip(isotonic_regression(of_wrong / weights, weights=weights, increasing=False).x, 0, 1 - 1e-12)
    return np.asarray((among / (1 - among))[places[: len(values)]])
