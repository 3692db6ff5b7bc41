"""Score a clustering of items into people against their identities: B-cubed and pair by pair."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array


@dataclass(frozen=True)
class ClusterScores:
    """Scores of a clustering.

    Attributes:
        precision, recall: B-cubed (Bagga and Baldwin, 1998): for an item, the share of its cluster that is of its
            person, and the share of its person that is in its cluster; means over all items, 0 … 1.
        pair_precision: Share of the pairs within a cluster that are of one person; 1 where there is no such pair.
        pair_recall: Share of the pairs of one person that are within a cluster; 1 where there is no such pair.
        items, people, clusters: Counts.
    """

    precision: float
    recall: float
    pair_precision: float
    pair_recall: float
    items: int
    people: int
    clusters: int

    @property
    def f1(self) -> float:
        """Harmonic mean of B-cubed precision and recall."""
        return _harmonic_mean(self.precision, self.recall)

    @property
    def pair_f1(self) -> float:
        """Harmonic mean of the precision and recall of pairs."""
        return _harmonic_mean(self.pair_precision, self.pair_recall)


def score_clusters(clusters: Sequence[Hashable] | np.ndarray, identities: Sequence[Hashable]) -> ClusterScores:
    """Score a clustering.

    Args:
        clusters: N: the cluster of each item.
        identities: N: who each item is of. Leave out those of unknown identity, from both.

    Raises:
        ValueError: There is no item, or a cluster or an identity for some items only.
    """
    clusters = clusters.tolist() if isinstance(clusters, np.ndarray) else clusters
    if len(clusters) != len(identities) or not len(clusters):
        raise ValueError(f"expected a cluster and an identity for each item, got {len(clusters)} and {len(identities)}")
    cluster, person = _numbers(clusters), _numbers(identities)
    cells, place = np.unique(np.stack([cluster, person]), axis=1, return_inverse=True)
    both = np.bincount(place.reshape(-1))
    of_cluster, of_person = np.bincount(cluster), np.bincount(person)
    count = len(cluster)
    within, linked, same = (float((sizes * (sizes - 1) // 2).sum()) for sizes in (both, of_cluster, of_person))
    return ClusterScores(
        precision=float((both * (both / of_cluster[cells[0]])).sum() / count),
        recall=float((both * (both / of_person[cells[1]])).sum() / count),
        pair_precision=within / linked if linked else 1.0,
        pair_recall=within / same if same else 1.0,
        items=count,
        people=len(of_person),
        clusters=len(of_cluster),
    )


class LinkedPairs(NamedTuple):
    """Pairs of items by two cameras.

    Attributes:
        linked: Pairs within a cluster.
        same: Pairs of one person.
        right: Pairs that are both.
    """

    linked: int
    same: int
    right: int

    @property
    def precision(self) -> float:
        """Share of the linked pairs that are of one person; 1 where there is no such pair."""
        return self.right / self.linked if self.linked else 1.0

    @property
    def recall(self) -> float:
        """Share of the pairs of one person that are linked; 1 where there is no such pair."""
        return self.right / self.same if self.same else 1.0


def pairs_by_camera(
    clusters: Sequence[Hashable] | np.ndarray, identities: Sequence[Hashable], cameras: Sequence[str]
) -> dict[tuple[str, str], LinkedPairs]:
    """Count linked pairs and pairs of one person between every two cameras.

    Args:
        clusters, identities: As of :func:`score_clusters`.
        cameras: N: the camera of each item.

    Returns:
        By the two cameras, in order.
    """
    names, camera = np.unique(np.asarray(cameras), return_inverse=True)
    cluster = _numbers(clusters.tolist() if isinstance(clusters, np.ndarray) else clusters)
    person = _numbers(identities)
    both = np.unique(np.stack([cluster, person]), axis=1, return_inverse=True)[1].reshape(-1)
    linked, same, right = (_between(group, camera, len(names)) for group in (cluster, person, both))
    return {
        (str(names[one]), str(names[other])): LinkedPairs(
            int(linked[one, other]), int(same[one, other]), int(right[one, other])
        )
        for one, other in combinations(range(len(names)), 2)
    }


def _between(group: np.ndarray, camera: np.ndarray, cameras: int) -> np.ndarray:
    """Return the number of pairs within a group between every two cameras; the diagonal means nothing."""
    counts = coo_array((np.ones(len(group), np.int64), (group, camera)), shape=(group.max() + 1, cameras)).tocsr()
    return np.asarray((counts.T @ counts).toarray())


def _numbers(values: Sequence[Hashable]) -> np.ndarray:
    # Not np.unique: 1 and "1" are two.
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(value, len(seen)) for value in values])


def _harmonic_mean(one: float, other: float) -> float:
    return 2 * one * other / (one + other) if one + other else 0.0
