"""Waiting, and what it is bounded by."""

import asyncio
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from reprism.files import one_at_a_time
from reprism.service.work import Admission, Batcher, BusyError

PATIENCE = 300  # seconds until what does not come about fails


class Gate:
    """Holds the network up, and counts what it was given."""

    def __init__(self, embedder, monkeypatch):
        self.open = threading.Event()
        self.entered = threading.Event()
        self.batches = []
        real = embedder.embed_ready

        def embed_ready(images):
            self.batches.append(len(images))
            self.entered.set()
            assert self.open.wait(PATIENCE)
            return real(images)

        monkeypatch.setattr(embedder, "embed_ready", embed_ready)


@pytest.fixture
def gate(embedder, monkeypatch):
    gate = Gate(embedder, monkeypatch)
    yield gate
    gate.open.set()


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.005)


# ---- in the service --------------------------------------------------------------------------------------


def test_beyond_its_bound_it_answers_503_and_recovers(serve, gate, pictures):
    client = serve(queue=2)
    admission = client.app.state.admission
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(client.post, "/search", files={"image": pictures[n]}) for n in range(2)]
        until(lambda: admission.present == 2)
        for answer in (
            client.post("/search", files={"image": pictures[2]}),
            client.post("/images", files={"image": pictures[2]}),
            client.get("/stats"),
        ):
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "try again" in answer.json()["detail"]
        assert client.get("/healthz").status_code == 200  # it is busy, not dead
        assert client.delete("/identities/ada").status_code == 404  # erasures have places of their own
        metrics = client.get("/metrics").text
        assert "reprism_requests_refused_total 3.0" in metrics
        assert "reprism_requests_present 2.0" in metrics
        gate.open.set()
        assert [future.result().status_code for future in accepted] == [200, 200]
    assert admission.present == 0
    assert client.post("/search", files={"image": pictures[2]}).status_code == 200


def test_whoever_fills_the_places_of_one_holder_leaves_those_of_others(serve, access, gate, pictures, bearer):
    client = serve(queue=4, access=access)  # of three holders, each has one place of the four
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(client.post, "/search", files={"image": pictures[0]}, headers=bearer("search"))
        until(lambda: client.app.state.admission.present == 1)
        refused = client.get("/stats", headers=bearer("search"))
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "your requests" in refused.json()["detail"]
        assert client.post("/images", files={"image": b"none"}, headers=bearer("write")).status_code == 415
        gate.open.set()
        assert accepted.result().status_code == 200
    assert client.get("/stats", headers=bearer("search")).status_code == 200


def test_a_process_that_hangs_while_it_writes_stops_neither_searches_nor_the_end(serve, gallery, pictures):
    client = serve(lock_seconds=0.2)
    id_ = client.post("/images", files={"image": pictures[0]}, data={"pid": "ada"}).json()["id"]
    with one_at_a_time(Path(gallery.uri) / ".writing"):
        for answer in (client.delete("/identities/ada"), client.post("/images", files={"image": pictures[1]})):
            assert answer.status_code == 503
            assert "another process is writing" in answer.json()["detail"]
        assert client.get(f"/images/{id_}").json()["pid"] == "ada"
        assert client.post("/search", files={"image": pictures[0]}).json()["matches"][0]["id"] == id_
        client.app.state.operations.close()  # returns


def test_what_was_found_no_more_but_is_on_the_disk_is_said(serve, gallery, pictures, monkeypatch, caplog):
    client = serve()
    client.post("/images", files={"image": pictures[0]}, data={"pid": "ada"})

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gallery, "compact", full)
    answer = client.delete("/identities/ada")
    assert answer.status_code == 503
    assert "bytes are still on the disk" in answer.json()["detail"]
    assert "No space left" in caplog.text
    monkeypatch.undo()
    stats = client.get("/stats").json()
    assert (stats["rows"], stats["erasing"]) == (0, True)
    client.portal.call(client.app.state.operations.upkeep)
    assert not client.get("/stats").json()["erasing"]


def test_a_refused_or_failed_request_gives_its_place_back(serve, pictures):
    client = serve(queue=1)
    for content in (b"no picture", pictures[0][:500], pictures[0]):
        assert client.post("/search", files={"image": content}).status_code != 503
    assert client.get("/images/" + "0" * 32).status_code == 404


def test_pictures_that_wait_together_are_embedded_together(serve, gate, gallery, pictures):
    client = serve(batch_size=4)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(client.post, "/images", files={"image": pictures[0]})
        assert gate.entered.wait(PATIENCE)
        others = [pool.submit(client.post, "/images", files={"image": pictures[n]}) for n in range(1, 7)]
        until(lambda: len(client.app.state.operations._network._waiting) == 6)
        gate.open.set()
        ids = [future.result().json()["id"] for future in (first, *others)]
    assert gate.batches == [1, 4, 2]
    # Each got its own descriptor, not its neighbour's.
    for n, id_ in enumerate(ids):
        found = client.post("/search?top=1", files={"image": pictures[n]}).json()["matches"][0]
        assert (found["id"], found["distance"] < 1e-4) == (id_, True)


def test_what_nobody_waits_for_any_more_is_not_embedded(serve, gate, pictures):
    client = serve()
    app = client.app
    boundary = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    body = boundary + pictures[1] + b"\r\n--b--\r\n"

    async def visit():
        """Uploads a picture, and goes away once it waits."""
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        answers = []

        async def receive():
            if messages:
                return messages.pop()
            while not app.state.operations._network._waiting:
                await asyncio.sleep(0.005)
            return {"type": "http.disconnect"}

        async def send(message):
            answers.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/search",
            "raw_path": b"/search", "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b")],
        }  # fmt: skip
        await asyncio.wait_for(app(scope, receive, send), PATIENCE)
        return answers[0]["status"]

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/search", files={"image": pictures[0]})
        assert gate.entered.wait(PATIENCE)
        assert client.portal.call(visit) == 499
        assert app.state.admission.present == 1  # its place is free again
        gate.open.set()
        assert first.result().status_code == 200
    client.post("/search", files={"image": pictures[2]})
    assert gate.batches == [1, 1]


def test_it_ends_while_requests_wait(serve, gate, pictures):
    client = serve()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(client.post, "/search", files={"image": pictures[n]}) for n in range(3)]
        assert gate.entered.wait(PATIENCE)
        until(lambda: len(client.app.state.operations._network._waiting) == 2)
        closing = threading.Thread(target=client.app.state.operations.close)
        closing.start()
        gate.open.set()
        closing.join(PATIENCE)
        assert not closing.is_alive()
        for answer in answers:
            answer.exception(PATIENCE)
    assert not [t for t in threading.enumerate() if t.name.startswith(("network", "decoding", "reading", "adding"))]


# ---- its parts -------------------------------------------------------------------------------------------


def test_admission_counts():
    refused = []
    admission = Admission(2, 2, lambda: refused.append(True))
    with admission.admit("ada"), admission.admit("bob"):
        with pytest.raises(BusyError) as caught, admission.admit("eve"):
            pass
        assert not caught.value.of_holder
        assert (admission.present, len(refused)) == (2, 1)
    with pytest.raises(ZeroDivisionError), admission.admit("ada"):
        raise ZeroDivisionError
    assert admission.present == 0


def test_one_holder_leaves_places_for_others():
    admission = Admission(8, 2, lambda: None)
    with admission.admit("ada"), admission.admit("ada"):
        with pytest.raises(BusyError) as caught, admission.admit("ada"):
            pass
        assert caught.value.of_holder
        with admission.admit("bob"):
            assert admission.present == 3
    with admission.admit("ada"):
        pass


def test_what_a_batch_raises_each_of_it_gets_and_the_next_goes_on():
    held, batches = threading.Event(), []

    def invert(items):
        held.wait(PATIENCE)
        batches.append(list(items))
        return [1 / item for item in items]

    batcher = Batcher(invert, 3, "test")
    futures = [batcher.submit(item) for item in (1, 2, 0, 4, 5)]
    cancelled = batcher.submit(6)
    assert cancelled.cancel()
    held.set()
    assert futures[0].result(PATIENCE) == 1
    for future in futures[1:4]:
        assert isinstance(future.exception(PATIENCE), ZeroDivisionError)
    assert futures[4].result(PATIENCE) == 0.2
    batcher.close()
    assert batches == [[1], [2, 0, 4], [5]]
    with pytest.raises(RuntimeError):
        batcher.submit(7)


def test_closing_drops_what_waits():
    held, entered = threading.Event(), threading.Event()

    def work(items):
        entered.set()
        held.wait(PATIENCE)
        return items

    batcher = Batcher(work, 1, "test")
    futures = [batcher.submit(n) for n in range(3)]
    assert entered.wait(PATIENCE)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    held.set()
    closing.join(PATIENCE)
    assert futures[0].result(0) == 0
    for future in futures[1:]:
        with pytest.raises(CancelledError):
            future.result(PATIENCE)
