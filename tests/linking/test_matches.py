"""Rows that are each other's nearest, against looking at every pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.linking import matches
from reprism.linking.matches import mutual_nearest


def brute(rows: np.ndarray, cameras: np.ndarray, bonus: np.ndarray) -> set[tuple[int, int]]:
    alike = rows @ rows.T + bonus
    found = set()
    for i in range(len(rows)):
        for j in range(len(rows)):
            if cameras[i] < cameras[j]:
                of_j = [k for k in range(len(rows)) if cameras[k] == cameras[i]]
                of_i = [k for k in range(len(rows)) if cameras[k] == cameras[j]]
                if alike[i, j] == max(alike[i, k] for k in of_i) == max(alike[k, j] for k in of_j):
                    found.add((i, j))
    return found


@given(st.integers(0, 2**31), st.integers(2, 18), st.booleans(), st.sampled_from([1, 7, 2**24]))
@settings(deadline=None, max_examples=60)
def test_they_are_those_that_looking_at_every_pair_finds(seed: int, count: int, with_bonus: bool, block: int) -> None:
    rng = np.random.default_rng(seed)
    rows, cameras = rng.normal(size=(count, 3)), rng.integers(0, 3, count)
    bonus = rng.normal(size=(count, count)) * with_bonus
    bonus = bonus + bonus.T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matches, "_BLOCK", block)
        given_bonus = (lambda some, others: bonus[np.ix_(some, others)]) if with_bonus else None
        pairs = mutual_nearest(rows, cameras, given_bonus)
    assert set(map(tuple, pairs.tolist())) == brute(rows, cameras, bonus)
    assert len(pairs) == len(brute(rows, cameras, bonus))


def test_one_camera_has_no_pairs() -> None:
    assert mutual_nearest(np.ones((4, 2)), np.zeros(4, int)).shape == (0, 2)
