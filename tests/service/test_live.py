"""Server-sent events of a real server: what comes in is told, to each in the order of arrival, once."""

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from reprism.gallery.arrivals import Mark
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery
from reprism.service import live
from reprism.service.api import create_app
from reprism.service.audit import AuditLog
from reprism.service.live import Arrival, Listener
from reprism.service.schemas import Image as ImageFacts

START = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)


@pytest.fixture
def come(gallery, embedder, pictures):
    """Puts tracklets in, as another process does: ``come(2, 5, camid=…)``; gives their ids in the order of time."""
    other = Gallery.open(gallery.uri)
    vectors = embedder.embed([Image.open(io.BytesIO(picture)) for picture in pictures[:12]])

    def put(first, end, **known):
        numbers = range(first, end)
        other.add(
            Entry(
                f"k{n}", vectors[n % 12], f"/p{n}", time=START + timedelta(seconds=n), strip=(pictures[0],) * 2, **known
            )
            for n in numbers
        )
        return [row_id(f"k{n}") for n in numbers]

    return put


@pytest.fixture
def started(gallery, embedder, tmp_path):
    """Starts services: ``started(access=…)`` gives the app and its address."""
    with ExitStack() as stack:

        def start(**options):
            audit = stack.enter_context(AuditLog(tmp_path / "audit.jsonl"))
            app = create_app(gallery, embedder, audit=audit, **options)
            server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run)
            thread.start()

            def end():
                server.should_exit = True
                thread.join()

            stack.callback(end)
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            return app, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

        yield start


class Stream:
    """An event stream, read as the standard says."""

    def __init__(self, answer):
        self.status, self.headers = answer.status_code, answer.headers
        self._lines = answer.iter_lines()
        self.comments, self.last_id = [], None

    def event(self, until_comment=False):
        """The next event: its name, its id and its data; or None at the next comment, or at the end."""
        name, data = "message", []
        for line in self._lines:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data:
                    return name, self.last_id, json.loads("\n".join(data))
                if until_comment and self.comments:
                    return None
            elif not field:
                self.comments.append(value)
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                self.last_id = value
        return None

    def rows(self, count):
        events = [self.event() for _ in range(count)]
        assert {name for name, *_ in events} <= {"row"}
        return [data["id"] for *_, data in events]

    def begun(self):
        assert self.event(until_comment=True) is None
        return self


@contextmanager
def listening(address, headers=None, **parameters):
    with (
        httpx2.Client(timeout=60) as client,
        client.stream("GET", f"{address}/events", params=parameters, headers=headers or {}) as answer,
    ):
        yield Stream(answer)


def test_what_comes_in_is_told_as_it_would_be_looked_up(started, come, tmp_path):
    come(0, 2)
    _, address = started()
    with listening(address) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        stream.begun()
        ids = come(5, 8, camid="gate") + come(2, 4)
        events = [stream.event() for _ in ids]
        assert [name for name, *_ in events] == ["row"] * 5
        assert [data["id"] for *_, data in events] == ids
        for _, _, data in events:
            assert data == httpx2.get(f"{address}/images/{data['id']}").json()
            assert len(data["strip"]) == 2
    noted = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {(line["who"], line["what"]) for line in noted} == {("local", "live")}
    with AuditLog(tmp_path / "audit.jsonl") as log:
        assert [each for line in noted for each in line["ids"]] == [log.pseudonym(id_) for id_ in ids]


def test_whoever_comes_back_misses_nothing_and_sees_nothing_twice(started, come):
    come(0, 2)
    _, address = started()
    with listening(address) as stream:
        stream.begun()
        at_first = stream.last_id  # also before anything has come
        ids = come(2, 7)
        assert stream.rows(2) == ids[:2]
        seen = stream.last_id
    ids += come(7, 9)
    for since, missed in ((seen, ids[2:]), (at_first, ids)):
        with listening(address, {"Last-Event-ID": since}) as stream:
            assert stream.rows(len(missed)) == missed
            ids += come(len(ids) + 2, len(ids) + 3)
            assert stream.rows(1) == ids[-1:]


def test_the_program_of_the_documentation(started, come, tmp_path):
    page = (Path(__file__).parents[2] / "docs/how-to/serve.md").read_text()
    (tmp_path / "follow.py").write_text(page.partition('```python title="follow.py"\n')[2].partition("```")[0])
    app, address = started()
    command = [sys.executable, str(tmp_path / "follow.py"), f"{address}/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        while not app.state.live.listeners:
            time.sleep(0.01)
        come(0, 1)
        (id_,) = come(1, 2, camid="gate")
        assert program.stdout.readline().split()[1:] == ["gate", id_]
        app.state.live.close()
    assert program.returncode == 0


def test_erased_rows_are_not_told_later(started, come, gallery):
    _, address = started()
    with listening(address) as stream:
        since = stream.begun().last_id
    ids = come(0, 4)
    gallery.erase([ids[1]])
    with listening(address, {"Last-Event-ID": since}) as stream:
        assert stream.rows(3) == [ids[0], *ids[2:]]


def test_only_some_cameras(started, come):
    _, address = started()
    with listening(address, camera=["gate", "hall"]) as some, listening(address) as every:
        some.begun(), every.begun()
        ids = [*come(0, 1, camid="yard"), *come(1, 2, camid="hall"), *come(2, 3), *come(3, 4, camid="gate")]
        assert every.rows(4) == ids
        assert some.rows(2) == [ids[1], ids[3]]


def test_too_many_at_once_are_counted(started, come, monkeypatch):
    monkeypatch.setattr(live, "WAITING", 5)
    _, address = started()
    with listening(address) as stream:
        stream.begun()
        ids = come(0, 12)
        assert stream.event()[::2] == ("skipped", {"rows": 7})
        assert stream.rows(5) == ids[7:]


@pytest.mark.parametrize("sizes", [[1, 2], [200], [150, 51], [1, 250, 3], [500]])
def test_a_listener_who_is_slow_keeps_the_newest(sizes):
    listener, told = Listener((), Mark(0, 0, "")), []
    for size in sizes:
        told += [len(told) + n for n in range(size)]
        fields = dict.fromkeys(ImageFacts.model_fields) | {"id": "0" * 32, "path": "", "frames": 1, "strip": []}
        new = [Arrival(Mark(n + 1, 0, ""), ImageFacts(**fields)) for n in told[-size:]]
        listener.offer(new[-live.WAITING :], max(0, size - live.WAITING))
        listener.offer(new[-live.WAITING :], 0)  # again: they are not new
    arrivals, left_out = asyncio.run(listener.take())
    assert [one.mark.added - 1 for one in arrivals] == told[-200:]
    assert left_out == max(0, len(told) - 200)


def test_the_gallery_is_looked_at_once_for_all(started, come, monkeypatch):
    app, address = started()
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(address)).begun() for _ in range(5)]
        asked = []
        monkeypatch.setattr(live, "rows_after", lambda *given, true=live.rows_after: asked.append(1) or true(*given))
        ids = come(0, 3)
        assert [stream.rows(3) for stream in streams] == [ids] * 5
        time.sleep(0.3)
        assert len(asked) <= 2  # of what did not change nothing is asked
        assert app.state.live.listeners == 5
    while app.state.live.listeners:
        time.sleep(0.01)
    assert app.state.listeners.present == 0


def test_a_sign_of_life_is_sent(started, monkeypatch):
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    _, address = started()
    with listening(address) as stream:
        for line in stream._lines:
            if line.startswith(": ping"):
                break


def test_few_listen_at_a_time(started, access, bearer, come):
    app, address = started(access=access)
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(address, bearer("search"))).begun() for _ in range(8)]
        with listening(address, bearer("search")) as ninth:
            assert (ninth.status, ninth.headers["retry-after"]) == (429, "1")
        figures = httpx2.get(f"{address}/metrics", headers=bearer("search")).text
        assert "reprism_listeners 8.0" in figures
        assert len(streams) == app.state.listeners.present
    while app.state.listeners.present:
        time.sleep(0.01)
    with listening(address, bearer("search")) as stream:
        stream.begun()


def test_it_ends_when_the_service_does(started):
    app, address = started()
    with listening(address) as stream:
        stream.begun()
        app.state.live.close()
        assert stream.event() is None
    with listening(address) as late:
        assert late.event() is None


def test_a_gallery_that_is_away_for_a_while(started, come, gallery, tmp_path, caplog):
    _, address = started()
    come(0, 1)
    folder, aside = tmp_path / "gallery", tmp_path / "aside"
    with listening(address) as stream, caplog.at_level(logging.ERROR):
        stream.begun()
        folder.rename(aside)
        while "told of nothing: the gallery is missing" not in caplog.text:
            time.sleep(0.01)
        aside.rename(folder)
        ids = come(1, 2)
        assert stream.rows(1) == ids
        assert "Traceback" not in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_what_cannot_be_noted_is_not_told(started, come, caplog):
    app, address = started()
    with listening(address) as stream:
        stream.begun()
        audit = app.state.operations._audit
        audit._on_disk = False
        os.dup2(os.open("/dev/full", os.O_WRONLY), audit._file)
        come(0, 1)
        assert stream.event() is None
    assert "a live view was ended: the audit log" in caplog.text


@pytest.mark.parametrize("id_", ["x", "1", "1-2-zz", "1" * 30 + "-0-", "-"])
def test_an_id_that_is_none(serve, id_):
    answer = serve().get("/events", headers={"Last-Event-ID": id_})
    assert answer.status_code == 422
    assert "last-event-id" in answer.json()["detail"].lower()


@pytest.mark.parametrize(("scope", "status"), [(None, 401), ("write", 403), ("erase", 403)])
def test_only_who_may_search_may_listen(serve, access, bearer, scope, status):
    client: TestClient = serve(access=access)
    assert client.get("/events", headers=bearer(scope) if scope else {}).status_code == status
