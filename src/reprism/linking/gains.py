"""How much better a network of cameras predicts the times of matches that were held out than no network does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_SAMPLES = 1000  # of the bootstrap
_SHARES = np.linspace(0, 1, 1001)
_WITHIN = 1.92  # of the highest log-likelihood: half the 95 % quantile of chi-square with one degree of freedom


class Share(NamedTuple):
    """Share of held-out matches that lie where the network has them, the others lying anywhere, as by chance.

    It is somewhat above the share of right matches, as the floor of the network's ratios stands for some wrong ones.

    Attributes:
        best: The likeliest share, 0 … 1.
        low, high: Ends of its 95 % likelihood interval.
    """

    best: float
    low: float
    high: float


class Gain(NamedTuple):
    """Mean logarithm of how much likelier the gaps of held-out matches are with the network than without.

    Attributes:
        pairs: Held-out matches.
        mean: Mean over them, a natural logarithm; 0: no better than without, below 0: worse.
        low, high: Ends of its 95 % interval, by bootstrap over the matches. Matches of one person count as independent,
            which they are not where a person has several in two cameras: there the true interval is wider.
        share: Share of them that lie where the network has them; None if it said nothing about any.
    """

    pairs: int
    mean: float
    low: float
    high: float
    share: Share | None = None

    @property
    def is_doubtful(self) -> bool:
        """Whether no share of the held-out matches may lie where the network has them.

        The mean does not tell that: wrong matches, which lie anywhere, push it below 0 where the network is right about
        all others. If it is wrong, none lie there more often than chance has it, and the likeliest share is 0.
        """
        return self.share is not None and self.share.low == 0


@dataclass(frozen=True)
class HeldOut:
    """What held-out matches say about a network.

    Attributes:
        overall: Over all of them.
        cameras: Over those of two cameras, by the two, in order.
    """

    overall: Gain
    cameras: Mapping[tuple[str, str], Gain]

    def describe(self) -> str:
        """Return the overall gain in words."""
        if not self.overall.pairs:
            return "no match could be held out"
        pairs, mean, low, high, _ = self.overall
        return f"{pairs:,} held-out matches gain {mean:.2f} each ({low:.2f} to {high:.2f}; without it 0)"


def mean_gain(values: np.ndarray, counts: np.ndarray, seed: int = 0) -> Gain:
    """Return the mean of values and its interval, and the share of matches that lie where the network has them.

    Args:
        values: K logarithms: how much likelier a gap is with the network than by chance.
        counts: K: how many matches have each.
        seed: Of the bootstrap.
    """
    values, counts = np.asarray(values, float), np.asarray(counts, np.int64)
    pairs = int(counts.sum())
    if not pairs:
        return Gain(0, 0.0, 0.0, 0.0)
    drawn = np.random.default_rng(seed).multinomial(pairs, counts / pairs, size=_SAMPLES)
    low, high = np.quantile(drawn @ values / pairs, (0.025, 0.975))
    return Gain(pairs, float(counts @ values / pairs), float(low), float(high), likely_share(values, counts))


def likely_share(values: np.ndarray, counts: np.ndarray) -> Share | None:
    """Return the share of matches that lie where the network has them, by maximum likelihood; None if it says nothing.

    A match's density beside chance is ``1 - share + share · exp(value)``.

    Args:
        values, counts: As for :func:`mean_gain`.
    """
    if not np.any(values):
        return None
    likelihood = np.zeros(len(_SHARES))
    for value, count in zip(np.exp(values).tolist(), counts.tolist(), strict=True):
        likelihood += count * np.log1p(_SHARES * (value - 1))
    within = _SHARES[likelihood >= likelihood.max() - _WITHIN]
    return Share(float(_SHARES[likelihood.argmax()]), float(within[0]), float(within[-1]))
