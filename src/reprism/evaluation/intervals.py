"""95 % intervals for rates of pairs of people, at a threshold that was chosen on the same pairs.

They cover the rate that the reported threshold has in the population from which the people were drawn.

**Dependence.** Two pairs that share a person, on either side, are dependent; two that share nobody are not. The
variance of a rate is therefore the sum of the products of residuals over all pairs of pairs that share a person:
Fafchamps and Gubert, *Journal of Development Economics* 83, 2007; Aronow, Samii and Assenova, *Cluster-robust variance
estimation for dyadic data*, Political Analysis 23, 2015. Resampling the query's people alone, as in the subsets
bootstrap (Bolle, Ratha and Pankanti, CVIU 93, 2004), leaves out what pairs share on the other side. Resampling both
sides (Owen, *The pigeonhole bootstrap*, Annals of Applied Statistics 1, 2007) counts a pair's own variance three times,
and where false matches are rare nearly all variance is of this kind.

**Few false matches.** The interval is Clopper and Pearson's. Its number of pairs is the number of independent pairs
that would have this variance (Korn and Graubard, Survey Methodology 24, 1998). Choosing the threshold on the same pairs
makes it no wider: at the distance of the k-th false match, the population's rate is distributed as Beta(k, n - k + 1),
and Clopper and Pearson's bounds are quantiles of just that. For other rates the choice is of second order.

``benchmarks/calibration.py`` measures how often they cover the truth (docs/explanation/benchmarks.md).
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv, stdtrit

from reprism.evaluation.pair_counts import LabelledRows, PeopleCounts

LEVEL = 0.95
"""Share of intervals that should cover the truth."""

Interval = tuple[float, float]


def same_person_interval(rows: LabelledRows, counts: PeopleCounts) -> Interval:
    """Return the interval of the true positive rate: only pairs of the same person depend on each other."""
    asking, asked = rows.met
    met = np.einsum("pc,pc->p", asking, asked)
    total, people = met.sum(), int(np.count_nonzero(met))
    rate = counts.same.sum() / total
    residuals = counts.same - rate * met
    variance = np.square(residuals).sum() / total**2 * people / max(1, people - 1)
    return _interval(rate, total, variance, freedom=people - 1, fewest=people)


def different_people_interval(rows: LabelledRows, counts: PeopleCounts) -> Interval:
    """Return the interval of the false match rate: pairs that share a person on either side depend on each other."""
    asking, asked = rows.met
    own = np.einsum("pc,pc->p", asking, asked)
    # Of each person with all others, in either order.
    met = asking @ asked.sum(0) + asked @ asking.sum(0) - 2 * own
    total = met.sum() / 2
    accepted = sum(np.bincount(side, counts.different, minlength=rows.people) for side in (counts.first, counts.second))
    rate = counts.different.sum() / total
    residuals = accepted - rate * met
    # The pairs of two people share both of them: they were counted twice.
    twice = (
        np.square(counts.different).sum()
        - 2 * rate * (counts.different * _met_together(rows, counts)).sum()
        + rate**2 * _squares_met_together(rows)
    )
    variance = max(0.0, np.square(residuals).sum() - twice) / total**2
    # If few people have most of the false matches, the variance is known only as well as from those few.
    fourth = np.power(residuals, 4).sum()
    freedom = np.square(residuals).sum() ** 2 / fourth if fourth > 0 else np.inf
    couples = rows.query_people * (rows.people - (rows.query_people + 1) / 2)
    return _interval(rate, total, variance, freedom=freedom, fewest=couples)


def _met_together(rows: LabelledRows, counts: PeopleCounts) -> np.ndarray:
    """Count all pairs of every two people of whom a pair was accepted."""
    asking, asked = rows.met
    met = np.zeros(len(counts.first))
    for column in range(asking.shape[1]):
        met += asking[counts.first, column] * asked[counts.second, column]
        met += asking[counts.second, column] * asked[counts.first, column]
    return met


def _squares_met_together(rows: LabelledRows) -> float:
    """Return the sum over all pairs of people of (their number of pairs)².

    With M[i, j] = asking[i] @ asked[j], two people i < j have M[i, j] + M[j, i] pairs. Their squares are summed without
    a matrix of people by people: ΣM² = tr(asking.T @ asking @ asked.T @ asked) and ΣM[i, j]·M[j, i] =
    tr((asked.T @ asking)²).
    """
    asking, asked = rows.met
    own = np.einsum("pc,pc->p", asking, asked)
    squares = np.vdot(asking.T @ asking, asked.T @ asked)
    crossed = asked.T @ asking
    return float(squares + np.vdot(crossed, crossed.T) - 2 * np.square(own).sum())


def _interval(rate: float, total: float, variance: float, freedom: float, fewest: float) -> Interval:
    """Return Clopper and Pearson's interval for the effective number of pairs.

    Args:
        rate: The observed rate.
        total: Number of pairs.
        variance: Variance of the rate.
        freedom: Degrees of freedom of the variance.
        fewest: Number of pairs that count as independent if none or all were accepted: the variance is 0 then.
    """
    if variance > 0 and 0 < rate < 1:
        independent = min(rate * (1 - rate) / variance, total)
        known, estimated = (stdtrit(max(1.0, number), (1 + LEVEL) / 2) for number in (total - 1, freedom))
        independent *= (known / estimated) ** 2
    else:
        independent = min(fewest, total)
    accepted, tail = rate * independent, (1 - LEVEL) / 2
    low = 0.0 if rate <= 0 else betaincinv(accepted, independent - accepted + 1, tail)
    high = 1.0 if rate >= 1 else betaincinv(accepted + 1, independent - accepted, 1 - tail)
    return float(low), float(high)
