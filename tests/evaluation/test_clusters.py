"""Scores of clusterings equal their definitions, item by item and pair by pair."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprism.evaluation.clusters import pairs_by_camera, score_clusters


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["ann", "bob", 1, "1"])), min_size=1, max_size=25))
def test_scores_are_those_of_the_definitions(rows):
    clusters, people = map(list, zip(*rows, strict=True))
    precisions, recalls = [], []
    for cluster, person in rows:
        both = sum((c, p) == (cluster, person) for c, p in rows)
        precisions.append(both / clusters.count(cluster))
        recalls.append(both / people.count(person))
    linked = same = right = 0
    for (c, p), (d, q) in combinations(rows, 2):
        linked, same, right = linked + (c == d), same + (p == q), right + (c == d and p == q)
    found = score_clusters(clusters, people)
    assert found.precision == pytest.approx(np.mean(precisions))
    assert found.recall == pytest.approx(np.mean(recalls))
    assert found.pair_precision == pytest.approx(right / linked if linked else 1)
    assert found.pair_recall == pytest.approx(right / same if same else 1)
    assert found.f1 == pytest.approx(2 / (1 / np.mean(precisions) + 1 / np.mean(recalls)))
    assert (found.items, found.people, found.clusters) == (len(rows), len(set(people)), len(set(clusters)))


def test_the_example_of_the_literature():
    """Three clusters of 6, 6 and 5 (Manning, Raghavan and Schütze 2008, figure 16.4): 20 of 40 pairs are right."""
    found = score_clusters(np.repeat([0, 1, 2], [6, 6, 5]), [*"xxxxxo", *"xooood", *"xxddd"])
    assert found.pair_precision == pytest.approx(20 / 40)
    assert found.pair_recall == pytest.approx(20 / 44)


def test_the_ends():
    together, apart = score_clusters([0] * 4, "aabb"), score_clusters(range(4), "aabb")
    assert (together.recall, together.precision) == (1, 0.5)
    assert (apart.recall, apart.precision) == (0.5, 1)
    assert score_clusters([3, 3, 7, 7], "aabb").pair_f1 == 1
    assert apart.pair_f1 == 0  # no pair is found
    for clusters, people in (([], []), ([1], [])):
        with pytest.raises(ValueError, match="a cluster and an identity for each item"):
            score_clusters(clusters, people)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["ann", "bob", 1, "1"]), st.sampled_from("xyz")), min_size=1)
)
def test_pairs_between_cameras_are_counted_one_by_one(rows):
    clusters, people, cameras = map(list, zip(*rows, strict=True))
    found = pairs_by_camera(np.array(clusters), people, cameras)
    assert list(found) == list(combinations(sorted(set(cameras)), 2))
    for two, linked in found.items():
        pairs = [(a, b) for a, b in combinations(rows, 2) if {a[2], b[2]} == set(two)]
        same = [a[1] == b[1] and type(a[1]) is type(b[1]) for a, b in pairs]
        joined = [a[0] == b[0] for a, b in pairs]
        right = sum(x and y for x, y in zip(joined, same, strict=True))
        assert linked == (sum(joined), sum(same), right)
        assert linked.precision == (right / sum(joined) if any(joined) else 1)
        assert linked.recall == (right / sum(same) if any(same) else 1)
