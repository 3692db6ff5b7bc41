"""People follow what comes in: new rows, and what somebody says; in the end they are those of one run over all."""

from dataclasses import replace
from datetime import timedelta
from itertools import combinations

import numpy as np
import pytest

import reprism
from reprism.evaluation.clusters import score_clusters
from reprism.gallery.answers import AnswerError, all_answers
from reprism.gallery.people import PeopleChangedError
from reprism.gallery.permission import LinkingError, linking_of
from reprism.gallery.rows import row_id
from reprism.linking import gallery_people
from reprism.linking.gallery_people import link_gallery, update_people


@pytest.fixture(scope="module")
def walks(seen):
    """All rows in order of time."""
    return sorted(seen, key=lambda entry: entry.time)


@pytest.fixture
def site(gallery_of, walks):
    """A gallery that was linked; 30 of its rows came later."""
    gallery = gallery_of(walks[:-30])
    link_gallery(gallery)
    gallery.add(walks[-30:])
    return gallery


@pytest.fixture
def compared(monkeypatch):
    """The numbers of rows of which people were found."""
    numbers, find = [], gallery_people.find_people

    def counted(descriptors, *given, **named):
        numbers.append(len(descriptors))
        return find(descriptors, *given, **named)

    monkeypatch.setattr(gallery_people, "find_people", counted)
    return numbers


def people_in(gallery):
    return {person.id: frozenset(person.rows) for person in gallery.people()}


def person_of(gallery):
    return {row: person.id for person in gallery.people() for row in person.rows}


def truth_of(entries):
    return {row_id(entry.key): entry.pid for entry in entries}


def f1_of(gallery, entries):
    person, truth = person_of(gallery), truth_of(entries)
    return score_clusters([person[row] for row in truth], list(truth.values())).f1


def two_of(gallery, entries, *, one):
    """Two rows of one person that are two people in the gallery, or (one) of two that are one, least sure first."""
    truth, person = truth_of(entries), person_of(gallery)
    for first, second in combinations(sorted(truth), 2):
        if (truth[first] == truth[second]) != one and (person[first] == person[second]) == one:
            return first, second
    raise AssertionError("every row is of the right person: nothing is left to test")


# ---- rows that come ----------------------------------------------------------------------------------------


def test_rows_that_come_one_by_one_end_where_one_run_does(gallery_of, walks):
    half = len(walks) // 2
    gallery = gallery_of(walks[:half])
    link_gallery(gallery)
    learned = gallery.linking().network
    for start in range(half, len(walks), 40):
        gallery.add(walks[start : start + 40])
        update_people(gallery)
    assert gallery.linking().network == learned  # nothing is learned anew
    updated = person_of(gallery)
    assert set(updated) == set(truth_of(walks))
    f1 = f1_of(gallery, walks)
    at_once = {row: person.id for person in link_gallery(gallery).people for row in person.rows}
    decided = [
        (updated[one] == updated[other], at_once[one] == at_once[other])
        for one, other in combinations(sorted(updated), 2)
    ]
    either = [pair for pair in decided if any(pair)]
    assert sum(one == other for one, other in either) > 0.95 * len(either)
    assert f1 > f1_of(gallery, walks) - 0.02


def test_only_people_who_are_near_are_found_anew(gallery_of, walks, compared):
    site = gallery_of(walks[:-5])
    link_gallery(site)
    compared.clear()
    site.add(walks[-5:])
    before = people_in(site)
    update_people(site)
    assert len(compared) == 1
    assert 5 <= compared[0] < 0.5 * len(site)
    same = [number for number, rows in people_in(site).items() if before.get(number) == rows]
    assert len(same) > 0.5 * len(before)
    # Nothing new: nobody is compared.
    found = update_people(site)
    assert len(compared) == 1
    assert found.changes == []
    assert found.people == site.people()


def test_an_answer_concerns_its_own_people_and_nobody_who_ever_moved(gallery_of, walks, compared):
    gallery = gallery_of(walks[:-60])
    link_gallery(gallery)
    gallery.add(walks[-60:])
    update_people(gallery)
    moved = {row for change in gallery.people_changes() for row in change.rows}
    one, other = [person for person in gallery.people() if not moved & {*person.rows}][:2]
    assert moved
    compared.clear()
    reprism.answer_link(gallery, "same", one.rows, other.rows, by="anna")
    assert compared == [len(one.rows) + len(other.rows)]


def test_many_new_rows_are_linked_with_all_others(gallery_of, walks, compared, monkeypatch):
    gallery = gallery_of(walks[:100])
    link_gallery(gallery)
    gallery.add(walks)
    update_people(gallery)
    assert compared == [100, len(walks)]
    # More rows than can be compared at once still come in.
    monkeypatch.setattr(gallery_people, "MOST_ROWS", 200)
    monkeypatch.setattr("reprism.linking.gallery_sightings.MOST_ROWS", 200)
    with pytest.raises(LinkingError, match="at most 200"):
        link_gallery(gallery)
    late = [replace(entry, key=f"late {entry.key}", tracklet=f"late {entry.key}") for entry in walks[:5]]
    gallery.add(late)
    update_people(gallery)
    assert {row_id(entry.key) for entry in late} <= set(person_of(gallery))
    assert compared[-1] < len(walks)


def test_rows_that_were_erased_are_in_nobody_after_an_update(site, walks, gallery_of):
    gone = {walks[0].pid, walks[-1].pid}
    site.erase(pids=sorted(gone))
    update_people(site)
    never = gallery_of([entry for entry in walks if entry.pid not in gone], "never")
    link_gallery(never)
    assert site.linking().network == never.linking().network
    assert site.linking().odds == never.linking().odds
    assert site.linking().statistics == never.linking().statistics
    assert set(people_in(site).values()) == set(people_in(never).values())


def test_rows_that_are_too_old_leave_with_an_update(site, walks):
    now = walks[20].time + timedelta(days=30, microseconds=1)
    update_people(site, now=now)
    assert set(person_of(site)) == {row_id(entry.key) for entry in walks[21:]}


def test_an_update_that_others_overtake_begins_again(site, walks, monkeypatch):
    keep, overtaken = gallery_people.keep_people, [None]

    def meanwhile(*given, **named):
        if overtaken:
            overtaken.pop()
            reprism.answer_link(site, "same", [row_id(walks[-1].key)], [row_id(walks[0].key)], by="anna")
        return keep(*given, **named)

    monkeypatch.setattr(gallery_people, "keep_people", meanwhile)
    update_people(site)
    assert set(person_of(site)) == set(truth_of(walks))
    assert person_of(site)[row_id(walks[-1].key)] == person_of(site)[row_id(walks[0].key)]
    version = gallery_people.read_kept(site.store).state.version

    def always(*given, **named):
        raise PeopleChangedError("the people were changed meanwhile")

    site.add([replace(walks[0], key="another", tracklet="another")])
    monkeypatch.setattr(gallery_people, "keep_people", always)
    with pytest.raises(PeopleChangedError, match="meanwhile"):
        update_people(site)
    assert gallery_people.read_kept(site.store).state.version == version


def test_a_first_update_is_a_run_over_all(gallery_of, walks):
    gallery, other = gallery_of(walks), gallery_of(walks, "other")
    assert update_people(gallery_of([], "empty")).people == []
    update_people(gallery)
    link_gallery(other)
    assert set(people_in(gallery).values()) == set(people_in(other).values())


# ---- what somebody says ------------------------------------------------------------------------------------


def test_two_who_are_said_to_be_one_are_until_it_is_taken_back(site, walks):
    update_people(site)
    one, other = two_of(site, walks, one=False)
    answered = reprism.answer_link(site, "same", [one], [other], by="anna")
    (answer,) = answered.answers
    assert person_of(site)[one] == person_of(site)[other]
    assert answered.changes == site.people_changes()[-len(answered.changes) :]
    assert {change.answer for change in answered.changes} == {answer.number}
    assert site.link_answers() == [answer]
    # It holds, whatever is found or learned again.
    link_gallery(site, relearn=True)
    assert person_of(site)[one] == person_of(site)[other]
    link_gallery(site)
    undone = reprism.undo_link_answer(site, answer.number, by="bert")
    assert undone.answers == (answer,)
    assert person_of(site)[one] != person_of(site)[other]
    assert site.link_answers() == []
    assert [(each.kind, each.by) for each in all_answers(site.store)] == [("same", "anna"), ("undo", "bert")]
    with pytest.raises(AnswerError, match=f"no answer {answer.number}"):
        reprism.undo_link_answer(site, answer.number, by="bert")


def test_taking_back_brings_everybody_back_with_their_numbers(site, walks):
    link_gallery(site)
    before = people_in(site)
    for kind, one in (("same", False), ("different", True)):
        rows = two_of(site, walks, one=one) if not one else next(rows for rows in before.values() if len(rows) > 1)
        first, second = sorted(rows)[:2]
        answered = reprism.answer_link(site, kind, [first], [second], by="anna")
        assert (person_of(site)[first] == person_of(site)[second]) == (kind == "same")
        assert {change.kind for change in answered.changes} <= {"merge", "split", "move"}
        reprism.undo_link_answer(site, answered.answers[0].number, by="anna")
        assert people_in(site) == before


def test_a_change_that_rows_led_to_can_be_undone(gallery_of, walks):
    gallery = gallery_of(walks[:-60])
    link_gallery(gallery)
    before = person_of(gallery)
    gallery.add(walks[-60:])
    update_people(gallery)
    changes = gallery.people_changes()
    assert changes, "nobody came to somebody else: nothing is left to test"
    change = changes[-1]
    assert change.answer is None
    reprism.undo_change(gallery, change.number, by="anna")
    now = person_of(gallery)
    assert {before[row] for row in change.rows} == {change.before}
    assert not {now[row] for row in change.rows} & {now[row] for row in change.met}
    assert len({now[row] for row in (*change.rows, *change.left)}) == 1
    # One that an answer led to goes with the answer.
    link_gallery(gallery)
    people = people_in(gallery)
    first, second = two_of(gallery, walks, one=False)
    answered = reprism.answer_link(gallery, "same", [first], [second], by="anna")
    undone = reprism.undo_change(gallery, answered.changes[-1].number, by="bert")
    assert undone.answers == answered.answers
    assert people_in(gallery) == people
    with pytest.raises(AnswerError, match="no change 999"):
        reprism.undo_change(gallery, 999, by="anna")


def test_what_is_learned_counts_answers_until_their_rows_are_erased(gallery_of, walks):
    gallery, never = gallery_of(walks), gallery_of([entry for entry in walks if entry.pid != "3"], "never")
    by_pid = {}
    for entry in walks:
        by_pid.setdefault(entry.pid, []).append(row_id(entry.key))
    pairs = [rows for pid, rows in sorted(by_pid.items()) if len(rows) > 1 and pid != "3"]
    said = [("same", rows[:1], rows[1:]) for rows in pairs[:8]] + [("different", pairs[0], pairs[1])]
    for each in (gallery, never):
        for kind, one, other in said:
            reprism.answer_link(each, kind, one, other, by="anna")
    gone = by_pid["3"]
    reprism.answer_link(gallery, "different", gone, pairs[2], by="anna")
    network = link_gallery(gallery).network
    without = sum(len(one) * len(other) for kind, one, other in said if kind == "different")
    assert network.basis.together == sum(len(rows) - 1 for rows in pairs[:8])
    assert network.basis.apart == without + len(gone) * len(pairs[2])
    assert "with answers about" in network.describe()
    plain = link_gallery(gallery_of(walks, "plain")).network
    assert (plain.basis.together, plain.basis.apart) == (0, 0)
    assert plain.gaps != network.gaps
    gallery.erase(pids=["3"])
    link_gallery(gallery)
    link_gallery(never)
    for name in ("network", "odds", "statistics"):
        assert getattr(gallery.linking(), name) == getattr(never.linking(), name)


def test_answers_that_contradict_are_refused_and_nothing_changes(site, walks):
    update_people(site)
    free = [row for row in sorted(truth_of(walks)) if row != row_id("twin")]
    one, other, third = free[0], free[60], free[120]
    twin = replace(walks[5], key="twin", tracklet="twin")
    site.add([twin])
    update_people(site)
    before = people_in(site)
    with pytest.raises(AnswerError, match="what the cameras saw"):
        reprism.answer_link(site, "same", [row_id("twin")], [row_id(walks[5].key)], by="anna")
    assert all_answers(site.store) == []
    assert people_in(site) == before
    first = reprism.answer_link(site, "same", [one], [other], by="anna").answers[0]
    second = reprism.answer_link(site, "same", [other], [third], by="bert").answers[0]
    with pytest.raises(AnswerError, match=rf"contradicts answer {second.number} \(same, by bert, .*--answer 2"):
        reprism.answer_link(site, "different", [third], [one], by="carl")
    reprism.undo_link_answer(site, first.number, by="anna")
    reprism.answer_link(site, "different", [third], [one], by="carl")
    assert person_of(site)[third] == person_of(site)[other] != person_of(site)[one]
    for kind, ones, others, message in (
        ("same", [one], [], "two rows or more"),
        ("different", [one], [], "two rows or more"),
        ("same", [one], [one], "on both sides"),
        ("same", [one], ["unknown"], "no row 'unknown' may be linked"),
        ("maybe", [one], [other], "expected one of same, different, unsure, got 'maybe'"),
    ):
        with pytest.raises(AnswerError, match=message):
            reprism.answer_link(site, kind, ones, others, by="carl")
    assert len(site.link_answers()) == 2


def test_answers_are_refused_while_linking_is_off(gallery_of, walks):
    gallery = gallery_of(walks[:10], on=False)
    for work in (
        lambda: reprism.answer_link(gallery, "same", ["a"], ["b"], by="anna"),
        lambda: reprism.undo_link_answer(gallery, 1, by="anna"),
        lambda: reprism.undo_change(gallery, 1, by="anna"),
        lambda: reprism.review_queue(gallery),
        gallery.link_answers,
        gallery.people_changes,
    ):
        with pytest.raises(LinkingError, match="linking is off"):
            work()
    assert linking_of(gallery.store) is None


# ---- what is asked -----------------------------------------------------------------------------------------


def test_what_is_answered_is_not_asked_again(site, walks):
    update_people(site)
    asked = set()
    for kind in ("unsure", "different", "same", "unsure"):
        queue = reprism.review_queue(site)
        person = person_of(site)
        assert [doubt.doubt for doubt in queue] == sorted((doubt.doubt for doubt in queue), reverse=True)
        people = [{person[row] for row in (*doubt.one, *doubt.other)} for doubt in queue]
        assert sum(map(len, people)) == len(set().union(*people))  # one question about each
        assert all(len({person[row] for row in side}) == 1 for doubt in queue for side in (doubt.one, doubt.other))
        doubt = queue[0]
        assert frozenset((doubt.one[0], doubt.other[0])) not in asked
        asked.add(frozenset((doubt.one[0], doubt.other[0])))
        reprism.answer_link(site, kind, doubt.one, doubt.other, by="anna")
        for later in reprism.review_queue(site, 1_000):
            assert frozenset((later.one[0], later.other[0])) not in asked
    assert len(reprism.review_queue(site, 3)) == 3
    link_gallery(site)
    assert not asked & {frozenset((doubt.one[0], doubt.other[0])) for doubt in reprism.review_queue(site, 1_000)}


def test_right_answers_make_people_better(gallery_of, walks):
    gallery = gallery_of(walks)
    link_gallery(gallery)
    before, truth = f1_of(gallery, walks), truth_of(walks)
    for doubt in reprism.review_queue(gallery, 8):
        person = person_of(gallery)
        if any(len({person[row] for row in side}) > 1 for side in (doubt.one, doubt.other)):
            continue  # an answer before changed it
        same = truth[doubt.one[0]] == truth[doubt.other[0]]
        reprism.answer_link(gallery, "same" if same else "different", doubt.one[:1], doubt.other[:1], by="anna")
    assert f1_of(gallery, walks) > before
    assert np.mean([person.confidence is not None for person in gallery.people()]) == 1
