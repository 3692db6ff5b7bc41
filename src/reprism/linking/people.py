"""From sightings to people: who was seen by which cameras, by appearance and time together, without a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from reprism.data.records import Item
from reprism.linking.clustering import cluster
from reprism.linking.odds import PairOdds, Times, count_pairs, pairs_in_blocks
from reprism.linking.transit import CameraNetwork
from reprism.progress import Progress, step

_UNLIKELY = 0.01  # probability below which a pair is not kept

Likely: TypeAlias = tuple[np.ndarray, np.ndarray]
"""M×2 indices of pairs of sightings, the lesser one first, and their M probabilities."""


@dataclass(frozen=True, eq=False)
class People:
    """Sightings as people.

    Attributes:
        labels: N: the number of each sighting's person, from 0 on, in the order of their first sightings.
        confidence: P: mean probability of all pairs of a person's sightings, 0 … 1; 1 for a single sighting.
        odds: The odds of pairs by which they were found.
        halves: N booleans: which half of a person a sighting is in, where one would come apart first.
        pairs, probabilities: M×2 indices of likely pairs, the lesser one first, and their probabilities.
    """

    labels: np.ndarray
    confidence: np.ndarray
    odds: PairOdds
    halves: np.ndarray
    pairs: np.ndarray
    probabilities: np.ndarray


def find_people(
    descriptors: np.ndarray,
    items: Sequence[Item],
    network: CameraNetwork | None = None,
    *,
    odds: PairOdds | None = None,
    least: float = 0.2,
    together: np.ndarray | None = None,
    apart: np.ndarray | None = None,
    progress: Progress | None = None,
) -> People:
    """Find out which sightings are of one person.

    Of every two sightings the probability that they are of one person follows from their distance and from what the
    network says of their times; of two by one camera from their distance alone. Groups are joined as long as, on
    average over all pairs between them, that probability is at least ``least``. All pairs are looked at, a block at a
    time; those kept in memory are the likely ones. No identity is looked at.

    Args:
        descriptors: N×D of ``items``, rows of length 1; best normalized by camera (:class:`reprism.CameraStatistics`).
        items: Images or tracklets, with cameras and times.
        network: Transit times between the cameras; None: times say nothing, and ``odds`` must be given.
        odds: Odds of pairs (default: learned from these sightings and the network).
        least: Least mean probability between two groups that become one, 0 … 1. More makes more people, who are purer.
        together: K×2 indices of sightings that are known to be of one person.
        apart: L×2 indices of sightings that are known to be of two people.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        OddsError: There are too few matches to learn odds from.
        ValueError: Numbers of descriptors and items differ; ``least`` is out of range; neither network nor odds are
            given; or sightings are to be both together and apart.
    """
    check_sightings(descriptors, items, least)
    if network is None and odds is None:
        raise ValueError("give a network, to learn odds by, or odds")
    times = times_of(network, items)
    if odds is None:
        odds = learn_odds(descriptors, items, times, progress=progress)
    found = [
        likely_pairs(some, others, odds.probability(distances, said))
        for some, others, distances, said in pairs_in_blocks(descriptors, times, step(progress, "comparing sightings"))
    ]
    return people_of(len(items), found, odds, least=least, together=together, apart=apart)


def check_sightings(descriptors: np.ndarray, items: Sequence[Item], least: float) -> None:
    """Refuse descriptors that do not fit the items, and a probability that is none, as :func:`find_people` does."""
    if len(descriptors) != len(items):
        raise ValueError(f"expected a descriptor for each of {len(items)} items, got {len(descriptors)}")
    if not 0 < least < 1:
        raise ValueError(f"least={least}: expected a probability between 0 and 1")


def learn_odds(
    descriptors: np.ndarray, items: Sequence[Item], times: Times, *, progress: Progress | None = None
) -> PairOdds:
    """Learn the odds of pairs from sightings and their times, as :func:`find_people` does.

    Raises:
        OddsError: There are too few matches.
    """
    cameras = np.unique([str(item.camid) for item in items], return_inverse=True)[1]
    return PairOdds.learn(count_pairs(descriptors, cameras, times, progress=step(progress, "counting pairs")))


def likely_pairs(some: np.ndarray, others: np.ndarray, probability: np.ndarray) -> Likely:
    """Return the pairs of a block that are kept (:func:`reprism.linking.odds.pairs_in_blocks`), and how likely each is.

    Args:
        some, others: Indices of n and m sightings.
        probability: n×m probabilities that they are of one person.
    """
    rows, columns = np.nonzero((probability > _UNLIKELY) & (some[:, None] < others))
    return np.stack([some[rows], others[columns]], axis=1), probability[rows, columns]


def people_of(
    count: int,
    found: Sequence[Likely],
    odds: PairOdds,
    *,
    least: float,
    together: np.ndarray | None = None,
    apart: np.ndarray | None = None,
) -> People:
    """Join sightings to people by their likely pairs.

    Args:
        count: Number of sightings.
        found: Likely pairs of all blocks.
        odds: The odds that they are likely by.
        least, together, apart: As of :func:`find_people`.
    """
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *(each for each, _ in found)])
    probabilities = np.concatenate([np.zeros(0), *(each for _, each in found)])
    labels, halves = cluster(count, pairs, probabilities - least, missing=-least, together=together, apart=apart)
    return People(labels, _confidence(labels, pairs, probabilities), odds, halves, pairs, probabilities)


def times_of(network: CameraNetwork | None, items: Sequence[Item]) -> Times:
    """Return what a network says of the times of items, which are given by their indices; without one, nothing."""

    def times(some: np.ndarray, others: np.ndarray) -> np.ndarray:
        if network is None:
            return np.zeros((len(some), len(others)), np.float32)
        return network.log_ratio([items[row] for row in some], [items[row] for row in others])

    return times


def _confidence(labels: np.ndarray, pairs: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return each person's mean probability over all pairs of sightings; those that were not kept count as 0."""
    sizes = np.bincount(labels)
    within = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    sums = np.bincount(labels[pairs[within, 0]], probabilities[within], len(sizes))
    return np.where(sizes > 1, sums / np.maximum(sizes * (sizes - 1) / 2, 1), 1.0)
