"""A search by times between cameras: who may ask, what is answered, and what is noted."""

import io
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from reprism.evaluation.calibration import Calibration
from reprism.evaluation.fitted_on import FittedOn
from reprism.gallery.permission import keep_learned, require_linking
from reprism.gallery.rows import Entry, row_id
from reprism.linking.network_search import Seen, kept_rows, search_by_network
from reprism.linking.reasons import Site
from reprism.linking.transit import CameraNetwork
from reprism.service.access import Access

START = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=6)
TOKEN = "a-token-that-searches-and-links"
AT = {"times": "true", "query_camera": "gate", "query_time": (START + timedelta(minutes=3)).isoformat()}


@pytest.fixture(scope="module")
def network() -> CameraNetwork:
    """A person takes some 60 s from the gate to the hall."""
    rng = np.random.default_rng(0)
    items = [
        Seen(camera, START + timedelta(seconds=float(start + later))).as_item()
        for start in rng.uniform(0, 20_000, 100)
        for camera, later in (("gate", 0.0), ("hall", rng.normal(60, 8)))
    ]
    return CameraNetwork.of_pairs(items, np.arange(200).reshape(-1, 2))


@pytest.fixture
def linked(gallery, embedder, pictures, network):
    """A gallery whose rows lie a minute apart, with times kept."""
    images = [Image.open(io.BytesIO(picture)) for picture in pictures[:12]]
    gallery.add(
        Entry(f"k{n}", row, f"/{n}.jpg", f"p{n}", ("hall", "gate")[n % 2], START + timedelta(minutes=n))
        for n, row in enumerate(embedder.embed(images))
    )
    gallery.enable_linking("find lost children", 30)
    keep(gallery, network)
    return gallery


def keep(gallery, network):
    keep_learned(gallery.store, require_linking(gallery.store), {}, network=json.dumps(network.as_dict()))


def half_sure(embedder) -> Calibration:
    on = FittedOn(embedder.kind.fingerprint, embedder.flip)
    return Calibration((), (), -4.0, 0.0, 0.0, (), {}, {}, {}, fitted_on=on)


def search(client, picture, **asked):
    return client.post("/search", params=asked, files={"image": picture})


def test_matches_carry_a_probability_and_why_and_it_is_noted(serve, linked, embedder, pictures, network, tmp_path):
    client = serve(calibration=half_sure(embedder))
    answer = search(client, pictures[3], top=5, **AT)
    assert answer.status_code == 200
    matches = answer.json()["matches"]
    query = linked.descriptors([row_id("k3")])
    seen = Seen("gate", START + timedelta(minutes=3))
    (want,) = search_by_network(linked, query, [seen], Site.of(network), half_sure(embedder), 5)
    assert [match["id"] for match in matches] == [match.id for match in want]
    for match, expected in zip(matches, want, strict=True):
        assert match["probability"] == pytest.approx(expected.probability, abs=2e-3)
        assert match["by_looks"] == pytest.approx(expected.by_looks, abs=2e-3)
        assert match["reason"]["times"] == expected.reason.times
        assert match["reason"]["text"].endswith(expected.reason.times)
    walked = next(match for match in matches if match["id"] == row_id("k4"))
    assert "60 s between gate and hall, usual" in walked["reason"]["text"]
    assert walked["reason"]["verdict"] == "usual"
    lines = list(map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines()))
    assert (lines[-1]["what"], lines[-1]["times"], lines[-1]["matches"]) == ("search", True, 5)
    # A search by looks alone says and notes nothing of it.
    plain = search(client, pictures[3], top=5).json()["matches"]
    assert all(match["reason"] is None and match["by_looks"] is None for match in plain)
    assert "times" not in json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])


def test_only_the_scope_link_may(serve, linked, embedder, pictures, bearer, tmp_path):
    lines = [f'both = {{token = "{TOKEN}", scopes = ["search", "link"]}}']
    lines += [
        f'{scope} = {{token = "token-that-may-{scope}-only", scopes = ["{scope}"]}}' for scope in ("search", "link")
    ]
    client = serve(calibration=half_sure(embedder), access=Access.from_toml("\n".join(lines), "the test"))
    both = {"Authorization": f"Bearer {TOKEN}"}
    files = {"image": pictures[3]}
    answer = client.post("/search", params=AT, files=files, headers=bearer("search"))
    assert answer.status_code == 403
    assert answer.json()["detail"] == (
        "this token has not the scope link, which a search by the times between cameras takes"
    )
    assert (tmp_path / "audit.jsonl").read_text() == ""
    assert client.post("/search", params=AT, files=files, headers=bearer("link")).status_code == 403
    assert client.post("/search", files=files, headers=bearer("search")).status_code == 200
    assert client.post("/search", params=AT, files=files, headers=both).status_code == 200
    # Nor does anybody else learn that times are there.
    assert client.get("/session", headers=both).json()["times"] == ["gate", "hall"]
    for scope in ("search", "link"):
        assert client.get("/session", headers=bearer(scope)).json()["times"] == []


def test_where_linking_is_off_or_nothing_is_learned_it_says_what_to_do(serve, linked, embedder, pictures, network):
    client = serve(calibration=half_sure(embedder))
    assert search(client, pictures[3], **AT).status_code == 200
    assert client.get("/session").json()["times"] == ["gate", "hall"]
    linked.disable_linking()
    answer = search(client, pictures[3], **AT)
    assert answer.status_code == 409
    assert "linking is off" in answer.json()["detail"]
    assert "reprism link enable" in answer.json()["detail"]
    assert str(linked.uri) not in answer.text
    assert client.get("/session").json()["times"] == []
    linked.enable_linking("find lost children", 30)
    answer = search(client, pictures[3], **AT)
    assert answer.status_code == 409
    assert "reprism link learn" in answer.json()["detail"]
    keep(linked, network)
    assert search(client, pictures[3], **AT).status_code == 200
    # What is erased is forgotten: the times are gone with the row.
    assert client.delete(f"/images/{row_id('k1')}").status_code == 200
    assert search(client, pictures[3], **AT).status_code == 409
    assert client.get("/session").json()["times"] == []


def test_without_a_calibration_too_few_rows_are_too_little(serve, linked, pictures):
    answer = search(serve(), pictures[3], **AT)
    assert answer.status_code == 409
    assert "give the service a calibration" in answer.json()["detail"]


def test_rows_that_linking_does_not_keep_are_not_found(serve, linked, embedder, pictures):
    old = linked.descriptors([row_id("k3")])[0]
    linked.add([Entry("old", old, "/old.jpg", None, "hall", START - timedelta(days=31))])
    client = serve(calibration=half_sure(embedder))
    assert row_id("old") in {match["id"] for match in search(client, pictures[3]).json()["matches"]}
    found = search(client, pictures[3], **AT).json()["matches"]
    assert len(found) == 12
    assert {match["id"] for match in found} == {row.id for row in linked.rows(kept_rows(linked))}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"query_camera": None}, "query_camera and query_time"),
        ({"query_time": None}, "query_camera and query_time"),
        ({"query_camera": "cellar"}, "no times are known of 'cellar'; they are of gate, hall"),
        ({"rerank": "true"}, "leave them or times out"),
        ({"threshold": "1"}, "leave them or times out"),
        ({"group_by": "pid"}, "leave them or times out"),
        ({"times": None}, "query_camera and query_time are for times"),
    ],
)
def test_what_cannot_be_asked_is_refused(serve, linked, embedder, pictures, changed, words):
    asked = {name: value for name, value in (AT | changed).items() if value is not None}
    answer = search(serve(calibration=half_sure(embedder)), pictures[3], **asked)
    assert answer.status_code == 409
    assert words in answer.json()["detail"]
