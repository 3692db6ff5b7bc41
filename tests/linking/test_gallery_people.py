"""Rows of a gallery are linked where that is on, as they would be outside of it; what is erased leaves no trace."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reprism
from reprism.data.records import Sample
from reprism.evaluation.clusters import score_clusters
from reprism.gallery.camera_settings import CameraSettings
from reprism.gallery.people import same_numbers
from reprism.gallery.permission import LinkingError
from reprism.gallery.rows import Entry, Row, row_id
from reprism.linking.constraints import known_pairs
from reprism.linking.gallery_people import link_gallery, update_people
from reprism.linking.gallery_sightings import read_sightings
from reprism.linking.held_out import hold_out
from reprism.linking.learned import kept_network, learn_and_keep
from reprism.linking.people import find_people
from reprism.linking.transit import CameraNetwork, CameraNetworkError

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def sets_of(people):
    return {frozenset(person.rows) for person in people}


def by_hand(entries):
    """The network and the people of entries, without a gallery."""
    entries = sorted(entries, key=lambda entry: row_id(entry.key))
    rows, cameras = np.array([entry.descriptor for entry in entries]), [entry.camid for entry in entries]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows = reprism.CameraStatistics.fit(rows, cameras).apply(rows, cameras)
    items = [Sample(entry.path, 0, entry.camid, entry.time.timestamp()) for entry in entries]
    network = replace(CameraNetwork.learn(rows, items), held_out=hold_out(rows, items))
    return network, find_people(rows, items, network), [row_id(entry.key) for entry in entries]


def test_a_gallery_is_linked_as_its_rows_are_by_hand(gallery_of, seen):
    gallery = gallery_of(seen)
    network, expected, ids = by_hand(seen)
    assert CameraNetwork.of_gallery(gallery).as_dict() == replace(network, held_out=None).as_dict()
    assert gallery.linking().network is None  # to learn is not to keep
    found = reprism.link_gallery(gallery)
    assert (found.rows, found.expired, found.unplaced) == (len(seen), 0, 0)
    assert found.network.as_dict() == kept_network(gallery).as_dict() == network.as_dict()
    groups = {label: [ids[row] for row in np.flatnonzero(expected.labels == label)] for label in expected.labels}
    assert sets_of(found.people) == {frozenset(members) for members in groups.values()}
    entries = {row_id(entry.key): entry for entry in seen}
    confidence = {frozenset(members): expected.confidence[label] for label, members in groups.items()}
    for person in gallery.people():
        walks = sorted((entries[row] for row in person.rows), key=lambda entry: entry.time)
        assert person.rows == tuple(row_id(entry.key) for entry in walks)
        assert person.cameras == tuple(dict.fromkeys(entry.camid for entry in walks))
        assert (person.first, person.last) == (walks[0].time, max(entry.until for entry in walks))
        assert person.confidence == pytest.approx(confidence[frozenset(person.rows)])
    assert [len(person.rows) for person in found.people] == sorted(
        (len(each) for each in groups.values()), reverse=True
    )
    assert found.people == gallery.people()
    labels = {row: person.id for person in found.people for row in person.rows}
    assert score_clusters([labels[row] for row in entries], [entry.pid for entry in entries.values()]).f1 > 0.85


def test_the_model_after_erasing_is_the_one_learned_without_the_person(gallery_of, seen):
    gallery = gallery_of(seen)
    link_gallery(gallery)
    before = CameraNetwork.of_gallery(gallery).as_dict()
    gone = {row_id(entry.key) for entry in seen if entry.pid in ("3", "7", "11")}
    people = gallery.people()
    gallery.erase(pids=["3", "7", "11"])
    # At once, and nobody else is touched.
    assert sets_of(gallery.people()) == {frozenset(p.rows) - gone for p in people} - {frozenset()}
    for person in gallery.people():
        (earlier,) = [each for each in people if each.id == person.id]
        assert person.confidence == (None if gone & {*earlier.rows} else earlier.confidence)
    assert kept_network(gallery) is None  # what was learned from them cannot be used any more
    found = link_gallery(gallery)
    never = gallery_of([entry for entry in seen if entry.pid not in ("3", "7", "11")], "never")
    expected = link_gallery(never)
    assert found.network.as_dict() == expected.network.as_dict() == kept_network(gallery).as_dict()
    assert found.network.as_dict() != before
    assert sets_of(found.people) == sets_of(expected.people)


def test_rows_that_are_too_old_take_no_part_and_leave(gallery_of, seen):
    old = [
        replace(entry, key=f"old-{entry.key}", tracklet=f"old-{entry.key}", time=entry.time - timedelta(days=31),
                until=entry.until - timedelta(days=31))
        for entry in seen
    ]  # fmt: skip
    gallery = gallery_of([*seen, *old])
    found = link_gallery(gallery)
    assert (found.rows, found.expired) == (len(seen), len(old))
    assert found.network.as_dict() == by_hand(seen)[0].as_dict()
    # Half of the rows have become too old when they are looked at, though nothing ran since.
    cutoff = sorted(entry.time for entry in seen)[len(seen) // 2]
    later = cutoff + timedelta(days=30)
    young = [entry for entry in seen if entry.time >= cutoff]
    assert {row for each in gallery.people(later) for row in each.rows} == {row_id(entry.key) for entry in young}
    whole = {each.id: each for each in gallery.people()}
    for each in gallery.people(later):
        assert each.confidence == (whole[each.id].confidence if each.rows == whole[each.id].rows else None)
    # The next run learns without them, and drops them.
    again = link_gallery(gallery, now=later)
    assert again.network.as_dict() == by_hand(young)[0].as_dict()
    assert {row for each in gallery.people() for row in each.rows} == {row_id(entry.key) for entry in young}
    # A run that finds nothing to link drops the last ones all the same; so does one that fails.
    nearly = max(entry.time for entry in young) + timedelta(days=30)
    with pytest.raises(CameraNetworkError, match="two cameras with times"):
        link_gallery(gallery, now=nearly)
    assert len(gallery.people()) == 1
    assert link_gallery(gallery, now=nearly + timedelta(days=1)).people == gallery.people() == []


def test_people_keep_their_numbers(gallery_of, seen):
    half = [entry for entry in seen if int(entry.pid) < 120]
    gallery = gallery_of(half)
    first = {person.id: {*person.rows} for person in link_gallery(gallery).people}
    assert sorted(first) == list(range(1, len(first) + 1))
    assert link_gallery(gallery).people == gallery.people()
    assert {person.id: {*person.rows} for person in gallery.people()} == first
    gallery.add(seen)
    second = {person.id: {*person.rows} for person in link_gallery(gallery, relearn=True).people}
    for number, rows in second.items():
        if number in first:
            assert rows & first[number]
        else:
            assert number > len(first)
    same = sum(bool(first[number] <= second.get(number, set())) for number in first)
    assert same > 0.9 * len(first)
    # The number of somebody who is gone is not given again.
    gallery.erase(ids=second[max(second)])
    gallery.add(entry for entry in seen if row_id(entry.key) in second[max(second)])
    third = {person.id: {*person.rows} for person in link_gallery(gallery).people}
    assert max(second) not in third
    assert max(third) > max(second)


def test_without_leave_nothing_links(gallery_of, seen):
    gallery = gallery_of(seen, on=False)
    for work in (link_gallery, update_people, kept_network, CameraNetwork.of_gallery, lambda each: each.people()):
        with pytest.raises(LinkingError, match=r"linking is off .* reprism link enable .*site --purpose"):
            work(gallery)
    assert gallery.linking() is None
    gallery.enable_linking("find lost children", 30)
    assert gallery.people() == []
    link_gallery(gallery)
    assert gallery.disable_linking()
    with pytest.raises(LinkingError):
        gallery.people()
    gallery.enable_linking("find lost children", 30)
    assert gallery.people() == []
    assert kept_network(gallery) is None


def test_too_many_rows_are_refused_by_name(gallery_of, seen, monkeypatch):
    gallery = gallery_of(seen)
    monkeypatch.setattr("reprism.linking.gallery_sightings.MOST_ROWS", len(seen) - 1)
    with pytest.raises(
        LinkingError, match=rf"has {len(seen)} rows .* at most {len(seen) - 1}, for each is compared with each"
    ):
        link_gallery(gallery)
    monkeypatch.setattr("reprism.linking.gallery_sightings.MOST_ROWS", len(seen))
    assert len(read_sightings(gallery).rows) == len(seen)


def test_only_placed_rows_take_part(gallery_of, seen):
    extra = [replace(seen[0], key="no camera", camid=None), replace(seen[0], key="no time", time=None)]
    gallery = gallery_of([*seen, *extra])
    found = read_sightings(gallery)
    assert [row.id for row in found.rows] == sorted(row_id(entry.key) for entry in seen)
    assert (found.unplaced, found.expired) == (2, 0)
    assert not {item.pid for item in found.items} & {entry.pid for entry in seen}  # who they are is not looked at


def test_a_clock_that_is_set_right_makes_the_model_stale(gallery_of, seen):
    gallery = gallery_of(seen)
    learn_and_keep(gallery, read_sightings(gallery))[0]
    gallery.set_camera("b", CameraSettings(20.0))
    assert kept_network(gallery) is None


@pytest.mark.parametrize("change", ["erase", "clock", "off", "off and on"])
def test_what_changes_meanwhile_is_noticed(gallery_of, seen, monkeypatch, change):
    gallery = gallery_of(seen)
    learn_and_keep(gallery, read_sightings(gallery))[0]
    work = {
        "erase": lambda: gallery.erase(pids=["3"]),
        "clock": lambda: gallery.set_camera("a", CameraSettings(3.0)),
        "off": gallery.disable_linking,
        "off and on": lambda: (gallery.disable_linking(), gallery.enable_linking("find lost children", 30)),
    }[change]
    learn, find = CameraNetwork.learn, find_people

    def meanwhile(original):
        def changed(*given, **named):
            work()
            return original(*given, **named)

        return changed

    monkeypatch.setattr(CameraNetwork, "learn", meanwhile(learn))
    with pytest.raises(LinkingError, match=r"were erased or set right|is off|off and on"):
        learn_and_keep(gallery, read_sightings(gallery))[0]
    if gallery.linking():
        assert kept_network(gallery) is None
    monkeypatch.setattr(CameraNetwork, "learn", learn)
    if change == "off":
        gallery.enable_linking("find lost children", 30)
    gallery.add(seen)
    gallery.set_camera("a", CameraSettings(0.0))
    monkeypatch.setattr("reprism.linking.gallery_people.find_people", meanwhile(find))
    if change.startswith("off"):
        with pytest.raises(LinkingError, match=r"is off|off and on"):
            link_gallery(gallery)
        assert not gallery.linking() or gallery.people() == []
    else:
        link_gallery(gallery)
        rows = {row for person in gallery.people() for row in person.rows}
        assert rows == {row.id for row in gallery.rows()}


# ---- against brute force -----------------------------------------------------------------------------------

SPANS = st.tuples(
    st.sampled_from("ab"), st.sampled_from([None, "x"]), st.sampled_from([None, "1", "2", "3"]), st.integers(0, 12),
    st.none() | st.integers(0, 5),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(SPANS, max_size=12))
def test_what_rows_tell_of_each_other(spans):
    rows = [
        Row(id=f"{n}", key=f"{n}", path=f"{n}", pid=None, camid=camid, time=NOON + timedelta(seconds=start),
            tracklet=tracklet, frames=1, source=source, added=NOON,
            until=None if length is None else NOON + timedelta(seconds=start + length))
        for n, (camid, source, tracklet, start, length) in enumerate(spans)
    ]  # fmt: skip
    together, apart, _ = known_pairs(rows)
    groups = {}
    for n, row in enumerate(rows):
        if row.tracklet:
            groups.setdefault((row.camid, row.source, row.tracklet), set()).add(n)
    joined = [{n} for n in range(len(rows))]
    for one, other in together.tolist():
        whole = next(group for group in joined if one in group) | next(group for group in joined if other in group)
        joined = [group for group in joined if not group & whole] + [whole]
    assert {frozenset(group) for group in joined if len(group) > 1} == {
        frozenset(group) for group in groups.values() if len(group) > 1
    }

    def moments(key):
        first = min(spans[n][3] for n in groups[key])
        return set(range(first, max(spans[n][3] + (spans[n][4] or 0) for n in groups[key]) + 1))

    expected = {
        frozenset((one, other))
        for one, other in itertools.combinations(groups, 2)
        if one[:2] == other[:2] and moments(one) & moments(other)
    }
    key_of = {n: key for key, members in groups.items() for n in members}
    found = [frozenset((key_of[one], key_of[other])) for one, other in apart.tolist()]
    assert set(found) == expected
    assert len(found) == len(expected)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.none() | st.integers(1, 5)), max_size=14), st.integers(6, 9))
def test_numbers_go_to_those_who_share_most(rows, following):
    ids = [f"{n}" for n in range(len(rows))]
    labels, earlier = [label for label, _ in rows], {ids[n]: one for n, (_, one) in enumerate(rows) if one is not None}
    numbers, after = same_numbers(ids, labels, earlier, following)
    assert set(numbers) == set(labels)
    assert len(set(numbers.values())) == len(numbers)
    new = {number for number in numbers.values() if number >= following}
    assert new == set(range(following, after))
    # Nobody would rather have a number whose holder shares no more with it.
    share = {(label, one): rows.count((label, one)) for label in labels for one in range(1, 6)}
    holder = {number: label for label, number in numbers.items()}
    for (label, one), count in share.items():
        if count and numbers[label] != one:
            mine = share.get((label, numbers[label]), 0)
            its = share[holder[one], one] if one in holder else 0
            assert mine >= count or its >= count


def test_tracklets_at_once_are_two_people_and_rows_of_one_are_one(gallery_of, seen):
    """However alike they look: twins in view of one camera; and two pictures of one tracklet that look different."""
    rng = np.random.default_rng(5)
    twin = next(entry for entry in seen if entry.camid == "a")
    copy = replace(twin, key="twin", tracklet="twin")
    late = replace(twin, key="late", tracklet="late", time=twin.until + timedelta(microseconds=1), until=None)
    pictures = [
        Entry(f"picture-{n}", rng.normal(size=32), "p", None, "c", twin.time + timedelta(seconds=n), "shots")
        for n in range(3)
    ]  # fmt: skip
    gallery = gallery_of([*seen, copy, late, *pictures])
    person = {row: each.id for each in link_gallery(gallery).people for row in each.rows}
    assert person[row_id(twin.key)] != person[row_id("twin")]
    assert person[row_id("late")] in (person[row_id(twin.key)], person[row_id("twin")])
    assert len({person[row_id(f"picture-{n}")] for n in range(3)}) == 1
