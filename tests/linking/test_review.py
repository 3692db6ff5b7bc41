"""Questions about people: of every two who might be one, and of every one who might be two."""

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.linking.review import questions_about


@st.composite
def groupings(draw):
    count = draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.integers(0, draw(st.integers(1, 4)), count)
    labels = np.unique(labels, return_inverse=True)[1]
    halves = rng.random(count) < 0.5
    every = list(combinations(range(count), 2))
    chosen = [pair for pair in every if rng.random() < 0.7]
    apart = [pair for pair in every if labels[pair[0]] != labels[pair[1]] and rng.random() < 0.1]
    return labels, halves, chosen, rng.random(len(chosen)), apart


@settings(deadline=None, max_examples=200)
@given(groupings())
def test_questions_are_those_of_the_definition(case):
    labels, halves, pairs, values, apart = case
    least = 0.2
    probability = {frozenset(pair): value for pair, value in zip(pairs, values.tolist(), strict=True)}

    def asked(one, other, joined):
        between = {(a, b): probability.get(frozenset((a, b)), 0.0) for a in one for b in other}
        mean = sum(between.values()) / len(between)
        same = mean**2 / (mean**2 + least**2 / 2)
        doubt = 1 - same if joined else same
        if doubt < 0.05 or not mean or not len(between):
            return []
        return [(frozenset(one), frozenset(other), same, doubt, max(between, key=between.__getitem__))]

    rows_of = {label: np.flatnonzero(labels == label).tolist() for label in set(labels.tolist())}
    expected = []
    for one, other in combinations(rows_of, 2):
        if not any({labels[a], labels[b]} == {one, other} for a, b in apart):
            expected += asked(rows_of[one], rows_of[other], joined=False)
    for members in rows_of.values():
        first, second = ([row for row in members if halves[row] == half] for half in (False, True))
        if first and second:
            expected += asked(first, second, joined=True)
    found = questions_about(
        labels, halves, np.array(pairs, int).reshape(-1, 2), values, least=least, apart=np.array(apart).reshape(-1, 2)
    )
    doubts = sorted((each[3] for each in expected), reverse=True)
    np.testing.assert_allclose([question.doubt for question in found], doubts)
    told = {frozenset((frozenset(one), frozenset(other))): rest for one, other, *rest in expected}
    assert len(found) == len(told)
    for question in found:
        same, doubt, likeliest = told[frozenset((frozenset(question.one.tolist()), frozenset(question.other.tolist())))]
        assert np.isclose(question.probability, same)
        assert np.isclose(question.doubt, doubt)
        assert {question.one[0], question.other[0]} == {*likeliest}


def test_two_at_the_bound_are_likelier_one():
    """Two thirds: of pairs of groups at the least mean probability."""
    labels = np.array([0, 1])
    (question,) = questions_about(labels, labels > 1, np.array([[0, 1]]), np.array([0.2]), least=0.2)
    assert question.probability == question.doubt == 2 / 3
