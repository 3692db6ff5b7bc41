"""``reprism erase``: it shows what would go, asks, and notes what went where the service notes it."""

import getpass
import hmac
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from reprism.cli import main
from reprism.embedding import DescriptorKind
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery

START = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
NAMES = ("anna", "bob", "anna", None)


@pytest.fixture
def gallery(tmp_path):
    """Twelve rows: six of anna, three of bob, three of nobody known; three cameras; an hour apart."""
    gallery = Gallery.create(tmp_path / "site", DescriptorKind("ab" * 32, "p1", 8, True))
    rows = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    gallery.add(
        Entry(f"k{n}", rows[n], f"/crops/{n:02}.jpg", NAMES[n % 4], f"c{n % 3}", START + timedelta(hours=n))
        for n in range(12)
    )
    return gallery


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def answer(monkeypatch):
    """Types an answer on a terminal; None: there is no terminal."""

    def set_up(text):
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n") if text is None else Terminal(text))

    return set_up


def audited(tmp_path):
    path = tmp_path / "site.audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def named(tmp_path, ids):
    """What the audit log calls rows."""
    key = (tmp_path / "site" / ".audit.key").read_bytes()
    return [hmac.digest(key, id_.encode(), "sha256").hex()[:32] for id_ in ids]


def ids_of(*numbers):
    return sorted(row_id(f"k{n}") for n in numbers)


def test_it_shows_what_would_go_before_it_asks(gallery, answer, capsys):
    answer("no\n")
    assert main(["erase", gallery.uri, "--pid", "anna", "--id", row_id("k0"), row_id("k3")]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:5] == [
        f"{gallery.uri}: 7 rows are to be erased",
        "  identities  anna (6), unknown (1)",
        "  cameras     c0 (3), c1 (2), c2 (2)",
        "  taken       2026-05-01 12:30:00 to 2026-05-01 22:30:00 UTC",
        f"  paths       {sorted_paths(gallery, (0, 2, 3, 4, 6, 8, 10))[0]}",
    ]
    assert set(re.findall(r"/crops/\d\d", shown.out)) <= {f"/crops/{n:02}" for n in (0, 2, 3, 4, 6, 8, 10)}
    assert "and 2 more" in shown.out
    assert shown.out.endswith("Nothing was erased.\n")
    assert shown.err == "Erase them? This cannot be undone. [y/N] "


def sorted_paths(gallery, numbers):
    return [gallery.get(row).path for row in ids_of(*numbers)]


@pytest.mark.parametrize(
    ("said", "options", "status", "left"),
    [
        ("y\n", [], 0, 6), (" YES \n", [], 0, 6), ("n\n", [], 1, 12), ("\n", [], 1, 12), ("", [], 1, 12),
        ("yea\n", [], 1, 12), (None, [], 1, 12), (None, ["--yes"], 0, 6), ("n\n", ["--yes"], 0, 6),
    ],
)  # fmt: skip
def test_only_yes_erases(gallery, answer, capsys, tmp_path, said, options, status, left):
    answer(said)
    assert main(["erase", gallery.uri, "--pid", "anna", *options]) == status
    shown = capsys.readouterr()
    assert len(gallery) == left
    assert "6 rows are to be erased" in shown.out
    assert ("6 rows erased, 6 left" in shown.out) == (left == 6)
    assert ("no terminal to ask on, so nothing was erased: add --yes" in shown.err) == (said is None and not options)
    assert len(audited(tmp_path)) == (2 if left == 6 else 0)


def test_what_it_shows_is_what_it_erases(gallery, monkeypatch, capsys):
    """Whatever comes in while it asks has not been shown, and is not in the log."""

    def answer():
        gallery.add([Entry("late", np.ones(8, np.float32), "/late.jpg", "anna")])
        return True

    monkeypatch.setattr("reprism.cli.erase._confirmed", answer)
    assert main(["erase", gallery.uri, "--pid", "anna"]) == 0
    assert "6 rows erased, 7 left" in capsys.readouterr().out
    assert [row.key for row in gallery.rows() if row.pid == "anna"] == ["late"]


def test_it_is_noted_as_the_services_erasures_are(gallery, answer, tmp_path):
    answer("y\n")
    assert main(["erase", gallery.uri, "--pid", "anna"]) == 0
    assert main(["erase", gallery.uri, "--older-than", (START + timedelta(hours=4)).isoformat(), "--yes"]) == 0
    begun, done, begun_older, done_older = audited(tmp_path)
    assert {"at", "who", "what", "event", "state", "ids"} <= begun.keys()
    assert (begun["who"], begun["what"], begun["state"]) == (getpass.getuser(), "erase", "begun")
    assert begun["ids"] == named(tmp_path, ids_of(0, 2, 4, 6, 8, 10))
    assert (done["event"], done["state"], done["erased"]) == (begun["event"], "done", 6)
    assert begun_older["ids"] == named(tmp_path, ids_of(1, 3))
    assert begun_older["older_than"] == (START + timedelta(hours=4)).isoformat()
    assert (done_older["state"], done_older["erased"]) == ("done", 2)
    text = (tmp_path / "site.audit.jsonl").read_text()
    assert "anna" not in text
    assert "crops" not in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_nothing_is_erased_that_cannot_be_noted(gallery, capsys):
    assert main(["erase", gallery.uri, "--pid", "anna", "--yes", "--audit", "/dev/full"]) == 1
    assert "the audit log /dev/full cannot be written: No space left on device" in capsys.readouterr().err
    assert len(gallery) == 12


def test_nobody_is_asked_about_nothing(gallery, answer, capsys, tmp_path):
    answer(None)
    assert main(["erase", gallery.uri, "--pid", "eve"]) == 1
    shown = capsys.readouterr()
    assert "no row is to be erased" in shown.out
    assert "has no row of the identity 'eve'" in shown.err
    assert audited(tmp_path) == []
    # An erasure that was interrupted is finished.
    gallery.erase(pids=["bob"], compact=False)
    assert gallery.stats()["erasing"]
    assert main(["erase", gallery.uri, "--pid", "bob"]) == 0
    assert not gallery.stats()["erasing"]
    assert "an erasure that had been interrupted is finished" in capsys.readouterr().out


def test_who_is_named_and_not_there_is_said_and_the_others_go(gallery, capsys):
    absent = row_id("nobody")
    command = ["erase", gallery.uri, "--pid", "anna", "eve", "--id", absent, "--yes"]
    assert main(command) == 1
    shown = capsys.readouterr()
    assert "6 rows erased, 6 left" in shown.out
    assert "no row of the identity 'eve'" in shown.err
    assert absent in shown.err
    assert "anna" not in shown.err
    # That nothing is outdated is no fault: such runs are repeated every day.
    assert main(["erase", gallery.uri, "--older-than", "1990-01-01", "--yes"]) == 0


@pytest.mark.parametrize("step", ["delete", "create_table"])
def test_a_full_disk_says_what_remains(gallery, capsys, monkeypatch, step):
    said = "lance error: LanceError(IO): No space left on device (os error 28), /root/.cargo/lance/src/io.rs:12:3"
    target = gallery.store.connection if step == "create_table" else gallery.store.table
    real, calls = getattr(type(target), step), []

    def full(*given, **options):
        calls.append(step)
        if step == "create_table" and len(calls) == 1:
            return real(*given, **options)  # the note of it
        raise RuntimeError(said)

    monkeypatch.setattr(type(target), step, full)
    assert main(["erase", gallery.uri, "--pid", "anna", "--yes"]) == 1
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    assert "the disk is full: free some space and try again" in shown
    assert ("6 of 6 rows were not erased" if step == "delete" else "their bytes are still on the disk") in shown
    assert "reprism optimize" in shown
    monkeypatch.undo()
    assert main(["erase", gallery.uri, "--pid", "anna", "--yes"]) == 0
    assert (len(gallery), gallery.stats()["erasing"]) == (6, False)


def test_json_says_the_same(gallery, capsys):
    assert main(["erase", gallery.uri, "--pid", "anna", "bob", "--yes", "--json"]) == 0
    shown = capsys.readouterr()
    said = json.loads(shown.out)
    assert said["ids"] == ids_of(*(n for n in range(12) if n % 4 != 3))
    assert len(said["paths"]) == 9
    assert (said["identities"], said["cameras"]) == ({"anna": 6, "bob": 3}, {"c0": 3, "c1": 3, "c2": 3})
    assert said["first"] == START.isoformat()
    assert (said["erased"], said["left"]) == (9, 3)
    assert "9 rows are to be erased" in shown.err


@pytest.mark.parametrize("pid", ["a\nb", "a\n", "\x1b[2J\x1b[H", "o'neill"], ids=ascii)
def test_a_name_of_any_characters_is_erased_and_moves_no_cursor(gallery, capsys, tmp_path, pid):
    gallery.add([Entry("odd", np.ones(8, np.float32), f"/crops/{pid}.jpg", pid, pid)])
    assert main(["erase", gallery.uri, "--pid", pid, "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "1 row is to be erased" in shown
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 6
    assert len(gallery) == 12
    assert len(audited(tmp_path)) == 2
    assert main(["erase", gallery.uri, "--pid", "a", "--yes"]) == 1
    assert len(gallery) == 12


def test_object_storage_needs_a_place_for_the_log(capsys):
    assert main(["erase", "s3://bucket/site", "--pid", "anna", "--yes"]) == 1
    assert "--audit FILE" in capsys.readouterr().err
