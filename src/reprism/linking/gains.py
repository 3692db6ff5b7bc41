"""How much better a network of cameras predicts the times of matches that were held out than no network does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_SAMPLES = 1000  # of the bootstrap


class Gain(NamedTuple):
    """Mean logarithm of how much likelier the gaps of held-out matches are with the network than without.

    Attributes:
        pairs: Held-out matches.
        mean: Mean over them, a natural logarithm; 0: no better than without, below 0: worse.
        low, high: Ends of its 95 % interval, by bootstrap over the matches. Matches of one person count as independent,
            which they are not where a person has several in two cameras: there the true interval is wider.
    """

    pairs: int
    mean: float
    low: float
    high: float


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
        pairs, mean, low, high = self.overall
        return f"{pairs:,} held-out matches gain {mean:.2f} each ({low:.2f} to {high:.2f}; without it 0)"


def mean_gain(values: np.ndarray, counts: np.ndarray, seed: int = 0) -> Gain:
    """Return the mean of values and its interval.

    Args:
        values: K logarithms.
        counts: K: how many matches have each.
        seed: Of the bootstrap.
    """
    values, counts = np.asarray(values, float), np.asarray(counts, np.int64)
    pairs = int(counts.sum())
    if not pairs:
        return Gain(0, 0.0, 0.0, 0.0)
    drawn = np.random.default_rng(seed).multinomial(pairs, counts / pairs, size=_SAMPLES)
    low, high = np.quantile(drawn @ values / pairs, (0.025, 0.975))
    return Gain(pairs, float(counts @ values / pairs), float(low), float(high))
