"""Rows become people as the definition has it, pair by pair, whatever their order; and what somebody said holds."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.linking.clustering import cluster


def by_definition(count, weight, missing, together, apart):
    """Join the two clusters of the largest mean over all pairs between them, as long as it is above 0.

    Each cluster that was joined comes with the two of the last join; one that was together from the start with itself.
    """
    clusters = [{row} for row in range(count)]
    for one, other in together:
        first, second = (next(c for c in clusters if row in c) for row in (one, other))
        if first is not second:
            clusters.remove(second)
            first |= second
    halves = {}
    while True:
        best = None
        for first, second in combinations(clusters, 2):
            between = [(min(a, b), max(a, b)) for a in first for b in second]
            if any(pair in apart for pair in between):
                continue
            mean = np.mean([weight.get(pair, missing) for pair in between])
            if mean > 0 and (best is None or mean > best[0]):
                best = mean, first, second
        if best is None:
            return {frozenset(c): halves.get(id(c), {frozenset(c)}) for c in clusters}
        halves[id(best[1])] = {frozenset(best[1]), frozenset(best[2])}
        clusters.remove(best[2])
        best[1].update(best[2])


def found(count, weight, missing=-3.0, together=(), apart=(), order=None):
    order = np.arange(count) if order is None else np.asarray(order)  # row -> its number
    pairs = np.array([order[list(pair)] for pair in weight], int).reshape(-1, 2)
    labels, _ = cluster(
        count,
        pairs,
        np.array(list(weight.values()), float),
        missing=missing,
        together=order[np.array(together, int).reshape(-1, 2)],
        apart=order[np.array(sorted(apart), int).reshape(-1, 2)],
    )
    return labels, {frozenset(np.flatnonzero(labels[order] == label).tolist()) for label in set(labels.tolist())}


@st.composite
def cases(draw):
    count = draw(st.integers(1, 8))
    every = list(combinations(range(count), 2))
    chosen = draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = {pair: float(rng.normal(0.5, 2)) for pair in chosen}  # no two means are equal
    some = st.lists(st.sampled_from(every), max_size=3, unique=True) if every else st.just([])
    together, apart = draw(some), set(draw(some))
    tied = by_definition(count, {}, -1.0, together, set())
    apart = {pair for pair in apart if not any(set(pair) <= cluster for cluster in tied)}
    return count, weight, draw(st.sampled_from([-3.0, -0.3])), together, apart


@settings(deadline=None, max_examples=300)
@given(cases(), st.randoms(use_true_random=False))
def test_clusters_are_those_of_the_definition_in_any_order(case, random):
    count, weight, missing, together, apart = case
    want = set(by_definition(count, weight, missing, together, apart))
    order = list(range(count))
    assert found(*case)[1] == want
    random.shuffle(order)
    assert found(*case, order)[1] == want


@settings(deadline=None, max_examples=300)
@given(cases())
def test_a_cluster_comes_apart_where_it_was_joined_last(case):
    count, weight, missing, together, apart = case
    pairs = np.array(list(weight), int).reshape(-1, 2)
    labels, second = cluster(
        count, pairs, list(weight.values()), missing=missing, together=together, apart=sorted(apart)
    )
    assert labels.tolist() == found(*case)[0].tolist()
    for members, expected in by_definition(*case).items():
        halves = {half: frozenset(row for row in members if second[row] == half) for half in (False, True)}
        assert set(halves.values()) - {frozenset()} == expected


@settings(deadline=None, max_examples=100)
@given(cases(), cases())
def test_what_no_chain_connects_is_clustered_by_itself(one, other):
    """So that rows that come later change nothing elsewhere."""
    (count, weight, missing, together, apart), (more, further, _, tied, barred) = one, other
    moved = {(a + count, b + count): value for (a, b), value in further.items()}
    both = found(
        count + more,
        weight | moved,
        missing,
        [*together, *((a + count, b + count) for a, b in tied)],
        apart | {(a + count, b + count) for a, b in barred},
    )[1]
    alone = set(by_definition(more, further, missing, tied, barred))
    want = set(by_definition(count, weight, missing, together, apart))
    assert both == want | {frozenset(row + count for row in cluster) for cluster in alone}


def test_numbers_are_in_the_order_of_the_first_rows():
    labels, _ = found(6, {(0, 4): 1.0, (2, 5): 2.0})
    assert labels.tolist() == [0, 1, 2, 3, 0, 2]
    assert cluster(0, np.zeros((0, 2), int), np.zeros(0))[0].tolist() == []
    assert cluster(2, np.zeros((0, 2), int), np.zeros(0))[0].tolist() == [0, 1]


def test_two_who_overlap_in_time_stay_two_however_many_speak_for_one():
    weight = dict.fromkeys(combinations(range(6), 2), 5.0)
    _, clusters = found(6, weight, apart={(0, 1)})
    assert len(clusters) == 2
    assert not any({0, 1} <= each for each in clusters)


def test_a_long_chain_is_not_one_person():
    """Neighbours are alike, ends are not: by single linkage all would be one."""
    _, clusters = found(50, {(row, row + 1): 1.0 for row in range(49)})
    assert max(map(len, clusters)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": [[0, 3]], "weights": [1.0]}, "numbers 0 … 2"),
        ({"pairs": [[-1, 1]], "weights": [1.0]}, "numbers 0 … 2"),
        ({"pairs": [[1, 1]], "weights": [1.0]}, "row 1 makes a pair with itself"),
        ({"pairs": [[0, 1]], "weights": []}, "a finite weight for each of 1"),
        ({"pairs": [[0, 1]], "weights": [np.nan]}, "a finite weight"),
        ({"pairs": [[0, 1]], "weights": [1.0], "missing": 0.0}, "missing=0.0"),
        ({"together": [[0, 1], [1, 2]], "apart": [[2, 0]]}, "rows 2 and 0 are to be together"),
    ],
)
def test_mistakes_are_named(options, message):
    given = {"pairs": np.zeros((0, 2), int), "weights": []} | options
    with pytest.raises(ValueError, match=message):
        cluster(3, **{name: np.array(v) if isinstance(v, list) else v for name, v in given.items()})
