"""Tell how likely a label is wrong by the data set itself: by what its pictures look like when one makes it wrong.

A statistic is measured for all labels as they are, and again for labels that are wrong on purpose: a picture held out
and given a stranger's name, two people put under one name, one person cut in two. The first mixes right labels with
some share of wrong ones, and the second has wrong ones alone. So the share follows from how often the first is as low
as the second mostly is, and the probability at a value is share · density of the second / density of the first: the
local false discovery rate of Efron (2001), with wrong labels as the discoveries.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import isotonic_regression

_QUANTILES = np.linspace(0.2, 0.95, 16)  # of the wrong ones, at which their share among all is bounded
_BINS = 2048
_WIDTH = 1.0  # of the kernel, in deviations of the wrong ones; narrower the more of them there are


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
    result[known] = np.minimum(1.0, share * _density_ratio(values, wrong, share))
    return result, share


def _density_ratio(values: np.ndarray, wrong: np.ndarray, share: float) -> np.ndarray:
    """Return the density of ``wrong`` over that of ``values`` at each of ``values``, never rising with the value."""
    width = _WIDTH * (wrong.std() or 1e-9) * max(1.0, share * len(values)) ** -0.2
    low, high = (edge(wrong) + side * 4 * width for edge, side in ((np.min, -1), (np.max, 1)))
    edges = np.linspace(min(low, values.min()), max(high, values.max()), _BINS + 1)
    step = edges[1] - edges[0]
    densities = [
        gaussian_filter1d(np.histogram(each, edges)[0] / len(each), width / step, mode="nearest")
        for each in (wrong, values)
    ]
    weights = densities[0] + densities[1] + 1e-12
    # Which of the two a value in a bin comes from, by regression that only falls.
    among = np.clip(isotonic_regression(densities[0] / weights, weights=weights, increasing=False).x, 0, 1 - 1e-12)
    return np.interp(values, (edges[1:] + edges[:-1]) / 2, among / (1 - among))
