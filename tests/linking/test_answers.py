"""Identities and a person's answers: against what every pair says, looked at one by one."""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.data.records import DISTRACTOR, JUNK, Sample
from reprism.linking.answers import Answers, Basis
from reprism.linking.ratios import View
from reprism.linking.transit import CameraNetwork, CameraNetworkError


def sightings(count: int, people: int, seed: int) -> tuple[np.ndarray, list[Sample]]:
    """Sightings that look like anybody, by three cameras at any time; some of them are of unknown people."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 4)).astype(np.float32)
    pids = [JUNK, DISTRACTOR, *range(1, people + 1)]
    items = [
        Sample(Path(f"{n}.jpg"), pids[rng.integers(len(pids))], "abc"[rng.integers(3)], float(rng.uniform(0, 4000)))
        for n in range(count)
    ]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), items


def counted(network: CameraNetwork) -> dict[tuple[str, str, int], int]:
    return {
        (one.camera, other.camera, gap): count
        for (one, other), histogram in network.gaps.items()
        for gap, count in histogram.items()
    }


def mutual(rows: np.ndarray, items: list[Sample], allowed: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of two cameras that are each other's nearest among those allowed, found one by one."""
    alike = rows @ rows.T
    nearest: dict[tuple[int, str], int] = {}
    for row, item in enumerate(items):
        for camera in {"a", "b", "c"} - {item.camid}:
            others = [n for n, other in enumerate(items) if other.camid == camera and allowed[row, n]]
            if others:
                nearest[row, camera] = max(others, key=lambda n: alike[row, n])
    return {
        (one, other)
        for (one, camera), other in nearest.items()
        if items[one].camid < camera and nearest.get((other, items[one].camid)) == one
    }


def by_hand(items: list[Sample], pairs: set[tuple[int, int]]) -> dict[tuple[str, str, int], int]:
    found: dict[tuple[str, str, int], int] = {}
    for one, other in pairs:
        gap = int(items[other].time // 4) - int(items[one].time // 4)
        key = items[one].camid, items[other].camid, gap
        found[key] = found.get(key, 0) + 1
    return found


@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_matches_by_identity_are_of_one_person_each(seed: int, count: int, people: int) -> None:
    rows, items = sightings(count, people, seed)
    if len({item.camid for item in items}) < 2:
        return
    pids = np.array([item.pid for item in items])
    allowed = (pids[:, None] == pids) & (pids > 0)
    network = CameraNetwork.learn(rows, items, use_identities=True)
    assert counted(network) == by_hand(items, mutual(rows, items, allowed))
    assert network.basis == Basis(identities=True)


def test_by_identity_each_walk_is_one_match() -> None:
    """Where everybody passes each camera once, all pairs of one person are found, whatever they look like."""
    rng = np.random.default_rng(0)
    items = [
        Sample(Path("x.jpg"), f"p{pid}", camera, start + after + float(rng.normal(0, 5)))
        for pid, start in enumerate(rng.uniform(0, 9000, 60))
        for camera, after in (("a", 0.0), ("b", 50.0), ("c", 130.0))
    ]
    rows = rng.normal(size=(len(items), 4)).astype(np.float32)
    network = CameraNetwork.learn(rows, items, use_identities=True)
    pairs = {(3 * n + i, 3 * n + j) for n in range(60) for i, j in ((0, 1), (0, 2), (1, 2))}
    assert counted(network) == by_hand(items, pairs)
    assert "learned from 180 matches by identities" in network.describe()


@given(st.integers(0, 2**31), st.integers(4, 30), st.data())
@settings(deadline=None, max_examples=40)
def test_answers_hold_whatever_looks_say(seed: int, count: int, data: st.DataObject) -> None:
    rows, items = sightings(count, 3, seed)
    if len({item.camid for item in items}) < 2:
        return
    index = st.integers(0, count - 1)
    pair = st.tuples(index, index).filter(lambda two: two[0] != two[1])
    together = data.draw(st.lists(pair, max_size=4))
    groups = list(range(count))  # of whom somebody said that they are one
    for one, other in together:
        groups = [groups[one] if group == groups[other] else group for group in groups]
    apart = [two for two in data.draw(st.lists(pair, max_size=6)) if groups[two[0]] != groups[two[1]]]
    barred = {frozenset((groups[one], groups[other])) for one, other in apart}
    allowed = np.array([[frozenset((groups[i], groups[j])) not in barred for j in range(count)] for i in range(count)])
    network = CameraNetwork.learn(
        rows, items, rounds=1, together=np.array(together, int), apart=np.array(apart, int).reshape(-1, 2)
    )
    expected = mutual(rows, items, allowed)
    for one, other in together:
        if items[one].camid != items[other].camid:
            expected.add((one, other) if items[one].camid < items[other].camid else (other, one))
    assert counted(network) == by_hand(items, expected)
    assert network.basis == Basis(False, len(together), len(apart))


def test_answers_hold_in_every_round_and_with_identities() -> None:
    """Two who look the same and walk as everybody does never match once somebody said so."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 40_000, 80)
    items = [Sample(Path("x.jpg"), n, camera, float(start + after)) for n, start in enumerate(starts, 1)
             for camera, after in (("a", 0.0), ("b", 60.0))]  # fmt: skip
    rows = np.repeat(rng.normal(size=(80, 16)), 2, axis=0).astype(np.float32)
    at = View("a", ""), View("b", "")
    assert CameraNetwork.learn(rows, items).gaps[at] == {15: 80}
    barred = np.array([(0, 1), (2, 3)])
    for options in ({}, {"use_identities": True}):
        network = CameraNetwork.learn(rows, items, apart=barred, **options)
        assert network.gaps[at][15] == 78
    network = CameraNetwork.learn(rows, items, together=np.array([(0, 3)]), use_identities=True)
    assert network.num_pairs == 81
    assert "with answers about 1 pairs (0 of two people)" in network.describe()


def test_answers_about_sightings_without_a_time_still_tie_others() -> None:
    items = [
        Sample(Path("x.jpg"), 1, camera, time) for camera, time in (("a", 0.0), ("b", None), ("c", 9.0), ("b", 5.0))
    ]
    answers = Answers.of(items, together=np.array([(0, 1)]), apart=np.array([(1, 2)]))
    known = answers.of_rows(np.array([0, 2, 3]))
    assert known.together.tolist() == []
    assert known.apart.tolist() == [[0, 1]]
    said = known.bonus(None)(np.array([0, 2]), np.array([1, 2]))
    assert said.tolist() == [[-np.inf, 0], [0, 0]]
    assert known.basis == Basis(False, 1, 1)


def test_what_cannot_hold_is_refused() -> None:
    rows, items = sightings(9, 3, 0)
    with pytest.raises(ValueError, match="sightings 0 and 2 are said to be of one person and of two"):
        CameraNetwork.learn(rows, items, together=np.array([(0, 1), (1, 2)]), apart=np.array([(0, 2)]))
    for name, pairs in product(("together", "apart"), ([(0, 9)], [(3, 3)], [(0.5, 1)])):
        with pytest.raises(ValueError, match=f"{name}: "):
            CameraNetwork.learn(rows, items, **{name: np.array(pairs)})


def test_how_it_was_learned_is_in_the_file(tmp_path: Path) -> None:
    rows, items = sightings(40, 3, 0)
    network = CameraNetwork.learn(rows, items, use_identities=True, apart=np.array([(0, 1)]))
    read = CameraNetwork.load(network.save(tmp_path / "network.json"))
    assert read.basis == network.basis == Basis(True, 0, 1)
    assert read.describe() == network.describe()
    values = network.as_dict()
    # Files of before do not say.
    assert CameraNetwork.from_json(json.dumps({k: v for k, v in values.items() if k != "learned"})).basis is None
    for bad in ({"identities": 1}, {"together": -1}, {"apart": 1.5}, {"who": 3}, [1]):
        with pytest.raises(CameraNetworkError, match="holds no network"):
            CameraNetwork.from_json(json.dumps(values | {"learned": bad}))
    assert replace(network, basis=None).describe().endswith("matches")
