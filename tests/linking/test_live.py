"""People are kept up to date beside whoever puts rows in: as one update by hand finds them, and never in their way."""

import shutil
import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest

import reprism
from reprism.gallery.permission import LinkingError
from reprism.linking import live as module
from reprism.linking.live import LivePeople, keep_people_live


def sets_of(gallery):
    return {frozenset(person.rows) for person in gallery.people()}


@pytest.fixture
def some(seen):
    return [entry for entry in seen if int(entry.pid) < 90]


def wait_for(condition):
    while not condition():  # ended by the time that pytest gives a test, if it never comes
        time.sleep(0.01)


def test_rows_that_come_meanwhile_are_taken_in(gallery_of, some, tmp_path):
    gallery = gallery_of(some[:-20])
    reprism.link_gallery(gallery)
    twin = reprism.Gallery.open(shutil.copytree(gallery.uri, tmp_path / "twin"))
    said, live = [], LivePeople()
    with keep_people_live(gallery.uri, live, every=0.01, report=said.append):
        for start in (20, 10):
            gallery.add(some[-start : len(some) - start + 10])
            twin.add(some[-start : len(some) - start + 10])
            expected = len(reprism.update_people(twin).people)
            wait_for(lambda: sum(len(one.rows) for one in gallery.people()) == len(some) - start + 10)  # noqa: B023
            assert sets_of(gallery) == sets_of(twin)
            wait_for(lambda: live.people == expected)  # noqa: B023
    assert said == []
    assert live.updates >= 2


def test_what_comes_last_is_taken_in_at_the_end(gallery_of, some):
    gallery = gallery_of(some[:-20])
    reprism.link_gallery(gallery)
    live = LivePeople()
    with keep_people_live(gallery.uri, live, every=1000):
        wait_for(lambda: live.updates)
        gallery.add(some[-20:])
    assert live.updates == 2
    assert sum(len(one.rows) for one in gallery.people()) == len(some)
    assert live.people == len(gallery.people())


def test_too_few_rows_are_said_once_until_there_are_enough(gallery_of, some, monkeypatch):
    """It is not tried again with every row that comes: learning looks at all of them."""
    tries, update = [], module.update_people

    def counted(gallery):
        tries.append(len(gallery))
        return update(gallery)

    monkeypatch.setattr(module, "update_people", counted)
    few = [replace(entry, camid="a") for entry in some[:20]]
    gallery = gallery_of(few)
    said, live = [], LivePeople()
    update_once = module._Updates(gallery, live, said.append)
    for number in range(3):
        update_once()
        key = f"more-{number}"
        gallery.add(
            [replace(few[0], key=key, time=few[0].time + timedelta(hours=number + 1), tracklet=key, until=None)]
        )
    assert tries == [20, 22]  # 21 are not a tenth more
    assert live == LivePeople(None, 0)
    gallery.add(some[20:])
    update_once()
    assert len(said) == 1
    assert said[0].startswith("nobody is linked yet, until more rows are there: ")
    assert live == LivePeople(len(gallery.people()), 1)


def test_linking_that_is_switched_off_ends_the_updates_alone(gallery_of, some):
    gallery = gallery_of(some)
    reprism.link_gallery(gallery)
    said, live = [], LivePeople()
    with keep_people_live(gallery.uri, live, every=0.01, report=said.append):
        wait_for(lambda: live.people)
        gallery.disable_linking()
        wait_for(lambda: live.people is None)
        wait_for(lambda: said)
    assert [line.split(" for ")[0] for line in said][-1] == "linking was switched off"
    assert live.people is None
    with pytest.raises(LinkingError, match="linking is off"), keep_people_live(gallery.uri, live):
        raise AssertionError("entered")


def test_an_error_of_the_program_is_raised_at_the_end(gallery_of, some, monkeypatch):
    errors, seen = [RuntimeError("a bug")], threading.Event()

    def broken(gallery):
        seen.set()
        if errors:
            raise errors.pop()

    monkeypatch.setattr(module, "update_people", broken)
    done = []

    def put_in():
        with keep_people_live(gallery_of(some).uri, LivePeople(), every=0.01):
            seen.wait()
            done.append(True)

    with pytest.raises(RuntimeError, match="a bug"):
        put_in()
    assert done


def test_what_goes_wrong_with_the_gallery_is_reported_and_tried_again(gallery_of, some, monkeypatch):
    errors, update = [LinkingError("busy"), LinkingError("busy"), OSError("disk full")], module.update_people

    def fails(gallery):
        if errors:
            raise errors.pop(0)
        return update(gallery)

    gallery = gallery_of(some)
    reprism.link_gallery(gallery)
    monkeypatch.setattr(module, "update_people", fails)
    said, live = [], LivePeople()
    with keep_people_live(gallery.uri, live, every=0.01, report=said.append):
        wait_for(lambda: live.people)
    assert said == ["people are not up to date: busy", "people are not up to date: disk full"]
