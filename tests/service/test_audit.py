"""The audit log: nothing is done or answered that it does not hold, and each of its lines is one event."""

import hmac
import io
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from reprism.gallery.rows import Entry, row_id
from reprism.service.api import ServiceSettings, create_app
from reprism.service.audit import AuditError, AuditLog, Change
from reprism.service.operations import Operations, _Erasure

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def pseudonyms(ids, key):
    """What rows are called in a log with this key."""
    return [hmac.digest(key.read_bytes(), id_.encode(), "sha256").hex()[:32] for id_ in ids]


@contextmanager
def service(gallery, embedder, path, **options):
    with (
        AuditLog(path, Path(gallery.uri) / ".audit.key") as audit,
        TestClient(
            create_app(gallery, embedder, ServiceSettings(**options), audit=audit), base_url="http://localhost"
        ) as client,
    ):
        yield client


@pytest.fixture
def ids(gallery, embedder, pictures):
    """The ids of two rows of ada, taken in 1990, in the gallery."""
    rows = embedder.embed([Image.open(io.BytesIO(picture)) for picture in pictures[:2]])
    gallery.add(
        Entry(f"k{n}", row, f"/p{n}", pid="ada", time=datetime(1990, 1, 1, tzinfo=UTC)) for n, row in enumerate(rows)
    )
    return sorted(row.id for row in gallery.rows())


# ---- a log that cannot be written ------------------------------------------------------------------------


@needs_full
def test_a_full_disk_stops_whatever_is_to_be_noted(gallery, embedder, ids, pictures, caplog):
    with service(gallery, embedder, FULL) as client:
        answers = [
            client.delete("/identities/ada"),
            client.delete(f"/images/{ids[0]}"),
            client.post("/images", files={"image": pictures[3]}),
            client.post("/search", files={"image": pictures[3]}),
        ]
        # What is noted nowhere goes on, and so does an erasure of nobody.
        assert client.get(f"/images/{ids[0]}").status_code == 200
        assert client.delete("/identities/bob").status_code == 404
    for answer in answers:
        assert answer.status_code == 503
        assert "the audit log cannot be written, so this was not done" in answer.json()["detail"]
        assert str(FULL) not in answer.text
    assert sorted(row.id for row in gallery.rows()) == ids
    assert not gallery.stats()["erasing"]
    assert "/dev/full cannot be written: No space left on device" in caplog.text
    assert "Traceback" not in caplog.text


@needs_full
def test_retention_waits_for_a_log_that_can_be_written(gallery, embedder, ids, tmp_path, caplog):
    with service(gallery, embedder, FULL, retain=timedelta(days=30)) as client:
        assert client.get("/healthz").status_code == 200
        assert len(gallery) == 2
    assert "outdated rows were not erased: the audit log /dev/full" in caplog.text
    assert "Traceback" not in caplog.text
    with service(gallery, embedder, tmp_path / "log", retain=timedelta(days=30)):
        assert len(gallery) == 0
    begun, done = lines(tmp_path / "log")
    named = pseudonyms(ids, Path(gallery.uri) / ".audit.key")
    assert (begun["who"], begun["what"], begun["state"], begun["ids"]) == ("retention", "erase", "begun", named)
    assert (done["event"], done["state"], done["erased"]) == (begun["event"], "done", 2)


def test_one_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(AuditError, match=r"missing/log cannot be opened: No such file .* --audit FILE"):
        AuditLog(tmp_path / "missing" / "log")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(AuditError, match=r"loop cannot be opened: Too many levels of symbolic links"):
        AuditLog(tmp_path / "loop")


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path, monkeypatch):
    real = os.write
    with AuditLog(tmp_path / "log") as log:
        log.write("ada", "search")
        monkeypatch.setattr(os, "write", lambda file, content: real(file, content[:20]))
        with pytest.raises(AuditError, match="20 of"), log.recording([Change("ada", "erase", ["1"])]):
            pytest.fail("the change was made")
        monkeypatch.setattr(os, "write", real)
        log.write("bob", "search")
    first, cut, last = (tmp_path / "log").read_text().splitlines()
    assert (json.loads(first)["who"], len(cut), json.loads(last)["who"]) == ("ada", 20, "bob")


# ---- before and after ------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["erase", "add"])
def test_a_change_is_on_the_disk_before_it_is_made(gallery, embedder, ids, pictures, tmp_path, monkeypatch, what):
    seen, synced, real = [], [], getattr(gallery, what)
    sync = os.fsync

    def fsync(descriptor):
        sync(descriptor)
        if os.path.samestat(os.fstat(descriptor), (tmp_path / "log").stat()):
            synced.append((tmp_path / "log").read_text())

    monkeypatch.setattr(os, "fsync", fsync)

    def change(*args, **options):
        seen.append(lines(tmp_path / "log"))
        assert synced == [(tmp_path / "log").read_text()]
        return real(*args, **options)

    with service(gallery, embedder, tmp_path / "log") as client:
        monkeypatch.setattr(gallery, what, change)
        if what == "erase":
            assert client.delete("/identities/ada").status_code == 200
        else:
            ids = [client.post("/images", files={"image": pictures[3]}).json()["id"]]
    (before,) = seen
    begun, done = lines(tmp_path / "log")
    assert before == [begun]
    assert (begun["what"], begun["state"], begun["ids"]) == (
        what,
        "begun",
        pseudonyms(ids, Path(gallery.uri) / ".audit.key"),
    )
    assert (done["what"], done["state"], done["event"]) == (what, "done", begun["event"])


def test_a_change_that_fails_is_noted_as_failed(gallery, embedder, ids, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise RuntimeError("the table is damaged")

    with service(gallery, embedder, tmp_path / "log") as client:
        monkeypatch.setattr(gallery, "erase", fail)
        client._transport.raise_server_exceptions = False
        assert client.delete("/identities/ada").status_code == 500
    assert [line["state"] for line in lines(tmp_path / "log")] == ["begun", "failed"]


def test_a_process_that_dies_meanwhile_leaves_a_beginning(tmp_path):
    code = (
        "import os, sys; from reprism.service.audit import *\n"
        "with AuditLog(sys.argv[1]) as log, log.recording([Change('ada', 'erase', ['1', '2'])]): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "log"], env=os.environ, check=False).returncode == 9
    (begun,) = lines(tmp_path / "log")
    assert (begun["who"], begun["what"], begun["state"], begun["ids"]) == (
        "ada", "erase", "begun", pseudonyms(["1", "2"], tmp_path / "log.key"),
    )  # fmt: skip


@needs_full
def test_an_outcome_that_cannot_be_noted_is_in_the_services_log(gallery, embedder, ids, tmp_path, monkeypatch, caplog):
    real, full = gallery.compact, os.open(FULL, os.O_WRONLY)

    def compact():
        real()
        monkeypatch.setattr(log, "_file", full)

    with (
        AuditLog(tmp_path / "log") as log,
        TestClient(create_app(gallery, embedder, audit=log), base_url="http://localhost") as client,
    ):
        monkeypatch.setattr(gallery, "compact", compact)
        with caplog.at_level(logging.ERROR):
            assert client.delete("/identities/ada").json() == {"erased": 2}
        monkeypatch.undo()
    os.close(full)
    assert [line["state"] for line in lines(tmp_path / "log")] == ["begun"]
    assert "the outcome (done) of what was begun is not in it" in caplog.text


def test_two_who_erase_the_same_at_once_share_no_row(gallery, embedder, ids, tmp_path):
    with AuditLog(tmp_path / "log") as log:
        work = Operations(gallery, embedder, ServiceSettings(), log, None, lambda _: None)
        wanted = [_Erasure("ada", id=ids[1]), _Erasure("bob", pid="ada"), _Erasure("eve", pid="ada")]
        assert work._erase(wanted) == [1, 1, 0]
        work.close()
    noted = [(line["who"], line.get("ids"), line.get("erased")) for line in lines(tmp_path / "log")]
    first, second = ([name] for name in pseudonyms(ids, tmp_path / "log.key"))
    assert noted == [("ada", second, None), ("bob", first, None), ("ada", None, 1), ("bob", None, 1)]


# ---- who is named --------------------------------------------------------------------------------------------


def test_a_log_and_a_list_of_paths_name_no_row_that_was_erased(gallery, embedder, ids, tmp_path):
    with service(gallery, embedder, tmp_path / "log") as client:
        assert client.delete("/identities/ada").json() == {"erased": 2}
    noted = {name for line in lines(tmp_path / "log") for name in line.get("ids", ())}
    assert len(noted) == 2
    assert not noted & {row_id(f"k{n}") for n in range(1000)}
    key = Path(gallery.uri) / ".audit.key"
    assert noted == set(pseudonyms((row_id("k0"), row_id("k1")), key))
    assert key.stat().st_mode & 0o077 == 0
    # Another gallery's log calls the same row another name.
    with AuditLog(tmp_path / "other") as other:
        assert other.pseudonym(row_id("k0")) not in noted


def test_many_that_begin_at_once_have_one_key(tmp_path):
    def name(n):
        with AuditLog(tmp_path / f"log{n}", tmp_path / "key") as log:
            return log.pseudonym("row")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(name, range(40)))) == 1
    assert sorted(path.name for path in tmp_path.iterdir() if "key" in path.name) == ["key"]


def test_a_key_that_is_damaged_is_refused_and_kept(tmp_path):
    (tmp_path / "log.key").write_bytes(b"short")
    with pytest.raises(AuditError, match=r"log\.key, has 5 bytes instead of 32"):
        AuditLog(tmp_path / "log")
    assert (tmp_path / "log.key").read_bytes() == b"short"


# ---- one line, one event ---------------------------------------------------------------------------------


@given(cut=st.integers(1, 400), count=st.integers(1, 3))
@settings(suppress_health_check=list(HealthCheck))
def test_a_line_cut_off_anywhere_spoils_no_other(tmp_path, cut, count):
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    with AuditLog(path) as log:
        for n in range(count):
            log.write(f"before-{n}", "search", ["1"])
    whole = path.read_bytes()
    os.truncate(path, max(0, len(whole) - cut))
    left = path.read_bytes()
    with AuditLog(path) as log:
        log.write("after", "search", ["2"])
    *others, last = path.read_bytes().splitlines()
    assert json.loads(last)["who"] == "after"
    assert b"\n".join(others) == left.removesuffix(b"\n")


@given(who=st.text(), facts=st.dictionaries(st.sampled_from(["via", "note"]), st.text()))
@settings(suppress_health_check=list(HealthCheck))
def test_no_text_makes_a_line_of_its_own(tmp_path, who, facts):
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    with AuditLog(path) as log:
        log.write(who, "search", ["1"], **facts)
        with log.recording([Change(who, "erase", ["1"], dict(facts))]):
            pass
    content = path.read_bytes()
    assert content.isascii()
    assert len(content.splitlines()) == 3
    for line in content.splitlines()[:2]:
        assert {name: json.loads(line)[name] for name in ("who", *facts)} == {"who": who} | facts
