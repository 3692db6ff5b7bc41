"""Score linking on labelled sightings: people found with and without times, and whether probabilities hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reprism.data.records import DISTRACTOR, JUNK, Item
from reprism.evaluation.clusters import ClusterScores, score_clusters
from reprism.evaluation.probability import Reliability
from reprism.linking.odds import PairOdds, Times, pairs_in_blocks
from reprism.linking.people import find_people, times_of
from reprism.linking.transit import CameraNetwork
from reprism.progress import Progress

_BINS = 10


@dataclass(frozen=True, eq=False)
class LinkScores:
    """Scores of linking.

    Attributes:
        with_times: People found by appearance and transit times.
        by_looks: People found by appearance alone, with the same odds.
        odds: The odds of pairs, learned without labels.
        true_share: True share of pairs of two cameras that are of one person, beside ``odds.prior``.
        reliability: Bins of the joint probability: what it says, beside the share of pairs that are of one person.
        least: Least mean probability between two groups that become one.
    """

    with_times: ClusterScores
    by_looks: ClusterScores
    odds: PairOdds
    true_share: float
    reliability: tuple[Reliability, ...]
    least: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, rates as fractions."""
        return {
            "with_times": _scores(self.with_times),
            "by_looks": _scores(self.by_looks),
            "share_of_matches": self.odds.prior,
            "true_share_of_matches": self.true_share,
            "reliability": [asdict(each) for each in self.reliability],
            "least": self.least,
        }


def evaluate_links(
    descriptors: np.ndarray,
    items: Sequence[Item],
    network: CameraNetwork,
    *,
    least: float = 0.2,
    progress: Progress | None = None,
) -> LinkScores:
    """Find people with and without times, and compare them with the identities.

    Args:
        descriptors, items, network, least, progress: As of :func:`reprism.linking.people.find_people`. Junk and
            distractors take part as any sighting does, and have no score.

    Raises:
        ValueError: No item has an identity; and what ``find_people`` raises.
    """
    known = [row for row, item in enumerate(items) if item.pid not in (JUNK, DISTRACTOR)]
    if not known:
        raise ValueError("expected sightings of known people to compare with, got none")
    found = find_people(descriptors, items, network, least=least, progress=progress)
    looks = find_people(descriptors, items, odds=found.odds, least=least, progress=progress)
    labelled = [items[row] for row in known]
    people = [item.pid for item in labelled]
    pairs, matches, said = _by_probability(descriptors[known], labelled, times_of(network, labelled), found.odds)
    bins = pairs > 0
    return LinkScores(
        with_times=score_clusters(found.labels[known], people),
        by_looks=score_clusters(looks.labels[known], people),
        odds=found.odds,
        true_share=float(matches.sum() / pairs.sum()) if pairs.sum() else 0.0,
        reliability=tuple(
            Reliability(float(total / count), float(right / count), int(count))
            for total, right, count in zip(said[bins], matches[bins], pairs[bins], strict=True)
        ),
        least=least,
    )


def _by_probability(
    descriptors: np.ndarray, items: Sequence[Item], times: Times, odds: PairOdds
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count pairs of two cameras by the probability that they are of one person.

    Returns:
        For each tenth of the probability the number of pairs, of those of one person, and the sum of probabilities.
    """
    cameras, people = (
        np.unique([str(value) for value in values], return_inverse=True)[1]
        for values in ([item.camid for item in items], [item.pid for item in items])
    )
    counts = np.zeros((3, _BINS))
    for some, others, distances, spoken in pairs_in_blocks(descriptors, times):
        counted = (some[:, None] < others) & (cameras[some][:, None] != cameras[others])
        likely = odds.probability(distances, spoken)[counted]
        right = (people[some][:, None] == people[others])[counted]
        bins = np.minimum((likely * _BINS).astype(int), _BINS - 1)
        for row, weights in enumerate((None, right, likely)):
            counts[row] += np.bincount(bins, weights, minlength=_BINS)
    return counts[0], counts[1], counts[2]


def _scores(found: ClusterScores) -> dict[str, Any]:
    return asdict(found) | {"f1": found.f1, "pair_f1": found.pair_f1}
