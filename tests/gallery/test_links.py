"""Linking is off until it is switched on; people forget with the rows, whenever the process or the machine stops."""

import itertools
import os
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from reprism.embedding import DescriptorKind
from reprism.gallery import durability
from reprism.gallery.answers import add_answer, all_answers, undo_answer
from reprism.gallery.camera_settings import CameraSettings
from reprism.gallery.database import LINK_TABLES
from reprism.gallery.doubts import Doubt, read_doubts, write_doubts
from reprism.gallery.forgetting import forget_expired
from reprism.gallery.people import keep_people, read_kept
from reprism.gallery.permission import LinkingError, keep_learned, linking_of, sighted
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery

KIND = DescriptorKind("ab" * 32, "p1[s2]", 8, True)
NOW = datetime.now(UTC)
SECRET = "secret-time-of-the-sight"
IDS = [row_id(f"{n}") for n in range(40)]
GONE = {row for n, row in enumerate(IDS) if n % 10 == 3}


class Killed(BaseException):
    """The process dies."""


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """What is killed here is the process: the system keeps what it was given."""
    monkeypatch.setattr(durability, "sync_file", lambda path: None)
    monkeypatch.setattr(durability, "sync_folder", lambda path: None)


def times():
    return {row: (f"c{n % 2}", NOW - timedelta(hours=n)) for n, row in enumerate(IDS)}


def linked(root, network=SECRET):
    """Forty rows of twelve people: those with the numbers 3, 13, 23 and 33 have the identity that is to go.

    Somebody gave three answers and took one back, the rows 3 and 4 changed places, and two groups are in doubt.
    """
    gallery = Gallery.create(root, KIND)
    gallery.add(
        Entry(
            f"{n}", np.random.default_rng(n).normal(size=8), f"{n}", f"{n % 10}", f"c{n % 2}", NOW - timedelta(hours=n)
        )
        for n in range(40)
    )
    linking = gallery.enable_linking("find lost children", 30)
    keep_learned(gallery.store, linking, times(), network=network)
    labels = np.arange(40) % 12
    swapped = labels.copy()
    swapped[[3, 4]] = 4, 3
    keep_people(gallery.store, linking, IDS, swapped, np.linspace(0.5, 1, 12))
    add_answer(gallery.store, "same", [IDS[3]], [IDS[15], IDS[27]], "anna")
    add_answer(gallery.store, "different", [IDS[0]], [IDS[13]], "bert")
    add_answer(gallery.store, "unsure", [IDS[1]], [IDS[2]], "bert")
    undo_answer(gallery.store, 2, "anna")
    keep_people(gallery.store, linking, IDS, labels, np.linspace(0.5, 1, 12), answers=4)
    with gallery.store.disk.writing():
        write_doubts(
            gallery.store,
            [Doubt((IDS[1], IDS[13]), (IDS[2],), 0.6, 0.6), Doubt((IDS[5],), (IDS[6], IDS[18]), 0.5, 0.5)],
        )
    return gallery


def raw(gallery):
    """What lies in the table of people, whether the gallery shows it or not."""
    return set(gallery.store.connection.open_table("people").search().to_arrow()["id"].to_pylist())


def told(gallery):
    """The rows that answers, changes and doubts tell of."""
    doubts = read_doubts(gallery.store, dict.fromkeys(IDS, 1))
    changes = [] if gallery.linking() is None else gallery.people_changes()
    lists = ("one", "other", "rows", "left", "met")
    tables = [*all_answers(gallery.store), *changes, *doubts]
    return {row for each in tables for name in lists for row in getattr(each, name, ())}


def traces(root, marks):
    tables = [root / f"{name}.lance" for name in LINK_TABLES]
    files = [file for table in tables for file in table.rglob("*") if file.is_file()]
    assert files
    return [file for file in files if any(mark.encode() in file.read_bytes() for mark in marks)]


def test_it_is_switched_on_for_a_purpose_and_a_time(tmp_path):
    gallery = Gallery.create(tmp_path / "g", KIND)
    assert gallery.linking() is None
    assert not gallery.disable_linking()
    for purpose, days in ((" ", 3), ("lost children", 0), ("lost children", 181), ("lost children", -1)):
        with pytest.raises(ValueError, match="expected"):
            gallery.enable_linking(purpose, days)
    before = datetime.now(UTC)
    linking = gallery.enable_linking(" lost children\n", 30)
    assert Gallery.open(gallery.uri).linking() == linking
    assert (linking.purpose, linking.keep_days, linking.network) == ("lost children", 30, None)
    assert before <= linking.since <= datetime.now(UTC)
    assert linking.cutoff(NOW) == NOW - timedelta(days=30)


def test_another_purpose_is_another_permission(tmp_path):
    gallery = linked(tmp_path / "g")
    since, people = gallery.linking().since, gallery.people()
    with pytest.raises(LinkingError, match=r"for another purpose, 'find lost children'.*link disable"):
        gallery.enable_linking("count customers", 30)
    again = gallery.enable_linking("find lost children", 20)
    assert (again.since, again.keep_days, again.network) == (since, 20, SECRET)
    assert gallery.people() == people
    assert gallery.disable_linking()
    assert gallery.enable_linking("count customers", 30).since > since
    assert gallery.people() == []
    assert gallery.linking().network is None


def test_erasing_forgets_at_once_and_leaves_no_byte(tmp_path):
    gallery = linked(tmp_path / "g")
    assert traces(tmp_path / "g", GONE)
    assert traces(tmp_path / "g", [SECRET])
    assert gallery.erase(pids=["3"], compact=False) == 4
    assert raw(gallery) == set(IDS) - GONE
    assert gallery.linking().network is None
    assert traces(tmp_path / "g", [*GONE, SECRET]) == []
    assert traces(tmp_path / "g", set(IDS) - GONE)
    assert {row for person in gallery.people() for row in person.rows} == set(IDS) - GONE
    # Of an answer, a change and a doubt stays what is not about them; an answer about nobody goes with its undoing.
    first, unsure = all_answers(gallery.store)
    assert (first.number, first.one, first.other, first.by) == (1, (), (IDS[15], IDS[27]), "anna")
    assert (unsure.number, unsure.kind) == (3, "unsure")
    (change,) = gallery.people_changes()
    assert (change.rows, change.kind) == ((IDS[4],), "move")
    (doubt,) = read_doubts(gallery.store, read_kept(gallery.store).person)
    assert doubt.one == (IDS[5],)
    assert add_answer(gallery.store, "same", [IDS[1]], [IDS[2]], "anna").number == 5


def test_erasing_nothing_forgets_nothing(tmp_path):
    gallery = linked(tmp_path / "g")
    gallery.erase(ids=["unknown"])
    gallery.compact()
    assert gallery.linking().network == SECRET
    assert raw(gallery) == set(IDS)


def test_a_new_run_leaves_no_byte_of_the_last(tmp_path):
    gallery = linked(tmp_path / "g")
    keep_people(gallery.store, gallery.linking(), IDS[:5], np.zeros(5, int), np.ones(1))
    assert traces(tmp_path / "g", set(IDS[5:]) - told(gallery)) == []
    keep_learned(gallery.store, gallery.linking(), times(), network="another")
    assert traces(tmp_path / "g", [SECRET]) == []


def test_what_is_too_old_is_dropped(tmp_path):
    gallery = linked(tmp_path / "g")
    now = NOW + timedelta(days=30, hours=-20)
    gone = set(IDS[21:])
    assert forget_expired(gallery.store, NOW) == 0
    assert gallery.linking().network == SECRET
    assert {row for person in gallery.people(now) for row in person.rows} == set(IDS) - gone
    shown = [*gallery.link_answers(now), *gallery.people_changes(now)]
    assert not gone & {row for each in shown for name in ("one", "rows", "left") for row in getattr(each, name, ())}
    assert raw(gallery) == set(IDS)
    assert forget_expired(gallery.store, now) == len(gone)
    assert raw(gallery) == set(IDS) - gone
    assert gallery.linking().network is None
    assert traces(tmp_path / "g", [*gone, SECRET]) == []


def test_a_model_of_rows_too_old_goes_though_nobody_is_too_old(tmp_path):
    gallery = linked(tmp_path / "g")
    keep_people(gallery.store, gallery.linking(), IDS[:5], np.zeros(5, int), np.ones(1))
    assert forget_expired(gallery.store, NOW + timedelta(days=30, hours=-20)) == 0
    assert gallery.linking().network is None
    assert len(raw(gallery)) == 5


def test_numbers_are_never_given_again(tmp_path):
    gallery = linked(tmp_path / "g")
    assert {person.id for person in gallery.people()} == set(range(1, 13))
    gallery.erase(ids=IDS)
    assert gallery.people() == []
    gallery.add([Entry("new", np.ones(8), "new", None, "c0", NOW)])
    keep_people(gallery.store, gallery.linking(), [row_id("new")], np.zeros(1, int), np.ones(1))
    (person,) = gallery.people()
    assert person.id == 13


def _steps(gallery):
    """What of LanceDB's and of the gallery's own changes something on the disk."""
    connection, table = type(gallery.store.connection), type(gallery.store.table)
    return [
        (connection, "create_table"), (connection, "drop_table"), (table, "delete"), (table, "optimize"),
        (durability.Disk, "confirm"),
    ]  # fmt: skip


def _killed_at(number, gallery, work):
    """Do some work that is killed before its step with this number; return whether there was such a step."""
    count = itertools.count()

    def counted(original):
        def step(self, *given, **named):
            if next(count) >= number:
                raise Killed
            return original(self, *given, **named)

        return step

    with pytest.MonkeyPatch.context() as patch:
        for kind, name in _steps(gallery):
            patch.setattr(kind, name, counted(getattr(kind, name)))
        try:
            work(gallery)
        except Killed:
            return True
    return False


def test_an_erasure_killed_at_any_step_is_finished(tmp_path, monkeypatch):
    linked(tmp_path / "before")
    for steps in itertools.count():
        root = tmp_path / f"{steps}"
        shutil.copytree(tmp_path / "before", root)
        if not _killed_at(steps, Gallery.open(root), lambda gallery: gallery.erase(pids=["3"])):
            break
        shutil.copytree(root, tmp_path / f"{steps}-cut")
        with monkeypatch.context() as patch:
            patch.setattr(durability, "_boot", lambda: "another")
            cut = Gallery.open(tmp_path / f"{steps}-cut")
        again = Gallery.open(root)
        for gallery in (cut, again):
            rows = {row.id for row in gallery.rows()}
            # At no moment do people, or what was learned, hold somebody who is erased.
            assert raw(gallery) <= rows
            assert told(gallery) <= rows
            assert rows == set(IDS) or gallery.linking().network is None
            assert {row for person in gallery.people() for row in person.rows} <= rows
        chosen = cut if steps % 2 else again
        if chosen.stats()["erasing"] and len(chosen) == len(IDS) - len(GONE):
            chosen.optimize()
        else:
            chosen.erase(pids=["3"])
        assert {row.id for row in chosen.rows()} == raw(chosen) == set(IDS) - GONE
        assert traces(tmp_path / chosen.uri, [*GONE, SECRET]) == []
        assert chosen.linking().purpose == "find lost children"
    assert steps > 8


def test_people_are_replaced_whole_or_not_at_all(tmp_path):
    linked(tmp_path / "before")

    def work(gallery):
        keep_people(gallery.store, gallery.linking(), IDS[:20], np.arange(20) // 4, np.full(5, 0.7))

    for steps in itertools.count():
        root = tmp_path / "g"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "before", root)
        before = Gallery.open(root).people()
        done = not _killed_at(steps, Gallery.open(root), work)
        found = Gallery.open(root).people()
        if done:
            break
        assert found == before or {row for person in found for row in person.rows} == set(IDS[:20])
    assert len(found) == 5
    assert steps > 1


@pytest.mark.parametrize("what", ["enable", "disable"])
def test_switching_is_whole_or_not_at_all(tmp_path, what):
    for steps in itertools.count():
        root = tmp_path / f"{steps}"
        gallery = linked(root) if what == "disable" else Gallery.create(root, KIND)

        def work(gallery):
            return gallery.disable_linking() if what == "disable" else gallery.enable_linking("lost children", 3)

        done = not _killed_at(steps, gallery, work)
        again = Gallery.open(root)
        linking = again.linking()
        if linking is not None and what == "enable":
            assert (linking.purpose, linking.keep_days) == ("lost children", 3)
        work(again)  # whatever was done of it, doing it again does the rest
        assert (again.linking() is None) == (what == "disable")
        if what == "disable":
            assert not [name for name in LINK_TABLES if (root / f"{name}.lance").exists()]
        if done:
            break
    assert steps > 1


@pytest.mark.parametrize("name", LINK_TABLES)
def test_a_table_that_cannot_be_read_is_not_trusted(tmp_path, name):
    gallery = linked(tmp_path / "g")
    for data in (tmp_path / "g" / f"{name}.lance" / "data").iterdir():
        os.truncate(data, 10)
    again = Gallery.open(tmp_path / "g")
    if name == "linking":
        assert linking_of(again.store) is None
    else:
        empty = {"people": again.people, "answers": again.link_answers, "people_changes": again.people_changes}
        assert (empty[name]() if name in empty else read_doubts(again.store, dict.fromkeys(IDS, 1))) == []
    before = told(again)
    assert again.erase(pids=["3"]) == 4
    assert told(again) <= (set() if name == "linking" else before - GONE)
    assert name != "linking" or not [each for each in LINK_TABLES if (tmp_path / "g" / f"{each}.lance").exists()]
    assert not (tmp_path / "g" / f"{name}.lance").exists()
    again.enable_linking("find lost children", 30)
    keep_people(again.store, again.linking(), IDS, np.zeros(40, int), np.ones(1))
    assert {row for person in again.people() for row in person.rows} == set(IDS) - GONE
    assert len(gallery) == 36


def test_the_tables_come_to_the_disk_with_the_rows(tmp_path):
    gallery = linked(tmp_path / "g")
    assert durability.is_whole(tmp_path / "g")
    noted = durability._confirmed(tmp_path / "g")["manifests"]
    assert {*LINK_TABLES, "rows"} <= noted.keys()
    assert gallery.people()


def test_a_table_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    gallery = linked(tmp_path / "g")
    before, open_table = all_answers(gallery.store), type(gallery.store.connection).open_table
    count = itertools.count()

    def opened(self, name, *given, **named):
        if name == "answers" and next(count) < 2:
            raise OSError("the file is gone")
        return open_table(self, name, *given, **named)

    monkeypatch.setattr(type(gallery.store.connection), "open_table", opened)
    assert all_answers(gallery.store) == before != []


def test_what_another_process_changes_is_seen(tmp_path):
    gallery = linked(tmp_path / "g")
    other = Gallery.open(gallery.uri)
    before = sighted(gallery.store)
    assert before == times() == sighted(gallery.store)
    other.add([Entry("new", np.ones(8), "new", None, "c0", NOW)])
    assert sighted(gallery.store) == times() | {row_id("new"): ("c0", NOW)}
    other.erase(pids=["3"])
    assert set(sighted(gallery.store)) == {*IDS, row_id("new")} - GONE
    other.set_camera("c1", CameraSettings(60.0))
    moved = sighted(gallery.store)
    assert {before[row][1] - at for row, (camera, at) in moved.items() if camera == "c1"} == {timedelta(minutes=1)}
