"""Planted faults are found, kind by kind, on descriptors of known people; and statistics equal their definitions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.cleaning.chances import chances
from reprism.cleaning.duplicates import Copies, near_pairs
from reprism.cleaning.faults import Faults, find_faults
from reprism.cleaning.findings import Placed
from reprism.cleaning.labels import NEAREST, fit_labels
from reprism.data.records import Sample

PEOPLE, EACH, DIM = 60, 10, 64


def drawn(seed: int = 0) -> tuple[np.ndarray, list[Placed]]:
    """People as directions, each with ten pictures around it by two cameras; the last fifteen are to test with."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.standard_normal((PEOPLE, DIM)), EACH, axis=0) + 0.7 * rng.standard_normal((PEOPLE * EACH, DIM))
    entries = [
        Placed(Sample(Path(f"/data/{person}_{n}.jpg"), person + 1, n % 2), _split(person, n))
        for person in range(PEOPLE)
        for n in range(EACH)
    ]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), entries


def _split(person: int, n: int):
    if person < PEOPLE - 15:
        return "train"
    return "query" if n < 2 else "gallery"


def renamed(entries: Sequence[Placed], names: dict[int, int]) -> list[Placed]:
    return [
        Placed(replace(entry.item, pid=names.get(row, entry.item.pid)), entry.split)
        for row, entry in enumerate(entries)
    ]


def of(faults: Faults, kind: str):
    return [finding for finding in faults.findings if finding.kind == kind]


def person(number: int) -> range:
    """Rows of the person with this identity."""
    return range((number - 1) * EACH, number * EACH)


def test_clean_labels_have_next_to_no_findings():
    faults = find_faults(*drawn(1))
    assert len(faults.findings) <= 1
    assert max(faults.shares.values()) < 0.05


def test_planted_faults_are_found():
    rows, entries = drawn()
    swapped = {person(number)[3]: number + 15 for number in range(1, 11)}
    pairs = [(31, 32), (33, 34), (35, 36), (37, 38)]
    cut = [40, 41, 42, 43]
    names = dict(swapped)
    names |= {row: one for one, other in pairs for row in person(other)}  # two people under one name
    names |= {row: 100 + one for one in cut for row in person(one)[one % 2 :: 2]}  # one person under two names
    entries = renamed(entries, names)
    for row in person(44)[:5]:  # in training, and in test under another name
        entries[row] = Placed(replace(entries[row].item, pid=97), "gallery")
    faults = find_faults(rows, entries, [Copies((0, 1), 0.95, False), Copies((5, EACH * PEOPLE - 1), 1.0, True)])

    wrong = {finding.groups[0].rows[0]: finding for finding in of(faults, "wrong identity")}
    assert len(set(wrong) & set(swapped)) >= 9
    assert len(set(wrong) - set(swapped)) <= 1
    for row in set(wrong) & set(swapped):  # and it says whose picture it is
        assert wrong[row].changes == {row: str(row // EACH + 1)}
    people = {frozenset(finding.changes) for finding in of(faults, "two people")}
    assert len(people) >= 3
    assert people <= {frozenset(person(number)) for pair in pairs for number in pair}
    again = {frozenset(finding.renamed) for finding in of(faults, "two names")}
    assert len(again) >= 3
    assert again <= {frozenset({one, 100 + one}) for one in cut}
    leaks = [set(finding.changes) for finding in of(faults, "leak")]
    assert set(person(44)[5:]) in leaks  # the person's pictures in training go, those in test stay
    assert {5} in leaks
    assert len(leaks) == 2
    assert [finding.score for finding in of(faults, "duplicate")] == [0.95]
    # The share of wrong pictures is about what was planted.
    assert faults.shares["wrong identity"] == pytest.approx(10 / len(rows), rel=0.6)


def test_an_identity_on_both_sides_is_a_leak():
    rows, entries = drawn()
    entries = renamed(entries, dict.fromkeys(person(PEOPLE), 1))
    found = [finding for finding in of(find_faults(rows, entries), "leak") if finding.score == 1]
    assert [set(finding.changes) for finding in found] == [set(person(1))]


def test_margins_are_those_of_their_definition():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((40, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    identity = np.concatenate([np.arange(6), rng.integers(0, 6, 33), [6]])  # the last is alone
    side = np.array([0, 0, 0, 0, 1, 1, 0])
    fit = fit_labels(rows, identity, side, rng=rng)
    for row in range(len(rows)):
        fits = {}
        for other in range(7):
            some = [index for index in np.flatnonzero(identity == other) if index != row]
            if some and side[other] == side[identity[row]]:
                fits[other] = np.mean(sorted(float(rows[row] @ rows[index]) for index in some)[-NEAREST:])
        own = fits.pop(identity[row], np.nan)
        best = max(fits, key=lambda each: fits[each])
        assert fit.best[row] == best
        assert np.isclose(fit.margin[row], own - fits[best], atol=1e-5, equal_nan=True)


def test_blocks_change_nothing(monkeypatch):
    rows, entries = drawn()
    entries = renamed(entries, {3: 9, 40: 2})
    whole = find_faults(rows, entries)
    monkeypatch.setattr("reprism.cleaning.identities._BLOCK", 7)
    monkeypatch.setattr("reprism.cleaning.labels._BLOCK_BYTES", 4 * len(rows) * 37)
    cut = find_faults(rows, entries)
    of_wrong = [[finding.groups for finding in of(each, "wrong identity")] for each in (whole, cut)]
    assert of_wrong[0] == of_wrong[1]


@settings(max_examples=25)
@given(st.floats(0.02, 0.5), st.integers(0, 50))
def test_chances_tell_the_share_and_never_rise(share, seed):
    rng = np.random.default_rng(seed)
    is_wrong = rng.random(2000) < share
    observed = np.where(is_wrong, rng.normal(-2, 1, 2000), rng.normal(2, 1, 2000))
    probability, found = chances(observed, rng.normal(-2, 1, 2000))
    assert found == pytest.approx(is_wrong.mean(), rel=0.25, abs=0.02)
    assert np.all(np.diff(probability[np.argsort(observed)]) <= 1e-12)
    # What it says is how often it is so: beside the true posterior of two normal densities.
    odds = is_wrong.mean() / (1 - is_wrong.mean()) * np.exp(-4 * observed)
    assert np.mean(np.abs(probability - odds / (1 + odds))) < 0.06


def test_labels_that_cannot_be_judged_are_not_accused():
    probability, share = chances(np.array([np.nan, 1.0]), np.array([]))
    assert probability.tolist() == [0, 0]
    assert share == 0


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_near_pairs_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    hashes = rng.random((12, 256)) < 0.5
    hashes[7] = hashes[2] ^ (rng.random(256) < 0.08)
    loop = {
        (one, other): float((hashes[one] == hashes[other]).mean()) for one in range(12) for other in range(one + 1, 12)
    }
    found = {(one, other): share for one, other, share in near_pairs(hashes)}
    assert found == {pair: share for pair, share in loop.items() if share >= 0.9}


def test_wrong_arguments_are_refused():
    rows, entries = drawn()
    with pytest.raises(ValueError, match="expected a descriptor for each of 600 items, got 599"):
        find_faults(rows[1:], entries)
    with pytest.raises(ValueError, match="between 0 and 1"):
        find_faults(rows, entries, least=2)
