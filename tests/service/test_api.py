"""What the endpoints answer, compared with what the gallery and the network say themselves."""

import asyncio
import hmac
import io
import json
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from torch import nn

import reprism
from reprism.embedding import DescriptorKind
from reprism.evaluation.calibration import Calibration, CalibrationError
from reprism.evaluation.fitted_on import FittedOn
from reprism.gallery.filters import Filter
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery, GalleryError
from reprism.models.foreign import ForeignNet
from reprism.service.api import create_app
from reprism.service.operations import UnavailableError

TIMES = [f"2026-03-{day:02}T08:00:00+01:00" for day in range(1, 13)]


def put(client, content, **fields):
    return client.post("/images", files={"image": content}, data=fields)


def fill(client, pictures, count=12):
    """The first pictures: two of each person, three cameras in turn, a day apart. Their ids."""
    answers = [
        put(client, pictures[n], pid=f"person-{n // 2}", camid=f"c{n % 3}", time=TIMES[n], source="yard")
        for n in range(count)
    ]
    assert [answer.status_code for answer in answers] == [201] * count
    return [answer.json()["id"] for answer in answers]


def described(embedder, content):
    return embedder.embed([Image.open(io.BytesIO(content))])


class _Described(nn.Module):
    """A network as an engine runs it: images in, descriptors out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).descriptor


def test_an_export_of_the_gallerys_model_searches_and_adds_nothing(serve, gallery, embedder, pictures):
    fill(serve(), pictures)
    net = embedder.model
    export = ForeignNet(
        _Described(net), net.preprocessing, net.partition, net.backbone, original=embedder.kind.fingerprint
    )
    with TestClient(create_app(gallery, reprism.Embedder(export)), base_url="http://127.0.0.1:8000") as client:
        (first, *_) = client.post("/search", files={"image": pictures[5]}).json()["matches"]
        assert first["distance"] < 1e-3
        answer = put(client, pictures[20])
        assert (answer.status_code, len(gallery)) == (409, 12)
        assert "only the original may add" in answer.json()["detail"]


# ---- searching and looking up ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "options", "where"),
    [
        ({}, {}, Filter()),
        ({"top": 3}, {"top": 3}, Filter()),
        ({"camera": ["c0", "c2"]}, {}, Filter(cameras=("c0", "c2"))),
        ({"not_camera": "c0"}, {}, Filter(not_cameras=("c0",))),
        (
            {"after": "2026-03-04T00:00:00", "before": "2026-03-08T07:00:00Z"},
            {},
            Filter(after=datetime(2026, 3, 4, tzinfo=UTC), before=datetime(2026, 3, 8, 7, tzinfo=UTC)),
        ),
        ({"threshold": 0.009}, {"threshold": 0.009}, Filter()),
        ({"group_by": "pid"}, {"group_by": "pid"}, Filter()),
        ({"rerank": "true"}, {"rerank": True}, Filter()),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_search_is_the_gallerys_own(serve, gallery, embedder, pictures, parameters, options, where):
    client = serve()
    fill(client, pictures)
    answer = client.post("/search", files={"image": pictures[5]}, params=parameters)
    assert answer.status_code == 200
    expected = gallery.search(described(embedder, pictures[5]), where=where, **options)[0]
    found = answer.json()["matches"]
    assert 0 < len(expected) < 12 or not (set(parameters) - {"rerank"})
    assert [match["id"] for match in found] == [match.id for match in expected]
    for match, true in zip(found, expected, strict=True):
        assert match["rank"] == true.rank
        assert match["distance"] == pytest.approx(true.distance, abs=1e-6)
        assert match["shares"] == pytest.approx(true.shares, abs=1e-7)
        assert sum(match["shares"].values()) == pytest.approx(match["distance"] ** 2, abs=1e-7)
        assert match["parts"] is None  # of 12 pictures there are too few pairs
        assert (match["pid"], match["camid"], match["source"]) == (true.pid, true.camid, "yard")
        assert datetime.fromisoformat(match["time"]) == true.time
        assert match["path"] == true.path
        assert match["probability"] is None


def calibration_of(embedder, **changes):
    fitted_on = replace(FittedOn(embedder.kind.fingerprint, embedder.flip), **changes)
    return Calibration((), (), -8.0, 3.0, 0.0, (), {}, {}, {}, fitted_on=fitted_on)


def test_another_ones_calibration_is_refused(serve, gallery, embedder, pictures, caplog):
    for changes in ({"fingerprint": "cd" * 32}, {"flip": False}, {"projection": "ef" * 32}):
        with pytest.raises(CalibrationError, match=f"{next(iter(changes))}: expected .* reprism calibrate --gallery"):
            serve(calibration=calibration_of(embedder, **changes))
    # What changes the gallery's distances under a running service.
    client = serve(calibration=calibration_of(embedder))
    fill(client, pictures, 6)
    assert client.post("/search", files={"image": pictures[0]}).status_code == 200
    gallery.compress(dim=3)
    answer = client.post("/search", files={"image": pictures[0]})
    assert answer.status_code == 409
    assert answer.json()["detail"] == "the calibration no longer fits the gallery: calibrate it anew"
    assert f"reprism calibrate --gallery {gallery.uri}" in caplog.text


def test_parts_of_a_picture_that_is_there_agree_and_strangers_parts_do_not(
    serve, gallery, embedder, pictures, monkeypatch
):
    monkeypatch.setattr("reprism.evaluation.part_scale.FEWEST_STRANGERS", 20)
    client = serve()
    fill(client, pictures)
    found = client.post("/search", files={"image": pictures[5]}).json()["matches"]
    agreeing = {"strangers": 0.0, "same_person": None, "verdict": "agrees"}
    assert found[0]["parts"] == dict.fromkeys(("p1", "p1s1", "p1s2"), agreeing)
    expected = gallery.search(described(embedder, pictures[5]))[0]
    for match, true in zip(found, expected, strict=True):
        assert {name: part["verdict"] for name, part in match["parts"].items()} == {
            name: part.verdict for name, part in true.parts.items()
        }
    farthest = [part["verdict"] for match in found[-4:] for part in match["parts"].values()]
    assert "agrees" not in farthest


def test_a_calibration_gives_probabilities(serve, embedder, pictures):
    client = serve(calibration=calibration_of(embedder))
    fill(client, pictures, 4)
    for match in client.post("/search", files={"image": pictures[0]}).json()["matches"]:
        assert match["probability"] == pytest.approx(1 / (1 + np.exp(8 * match["distance"] - 3)), abs=1e-4)


def test_a_row_and_its_picture_are_looked_up(serve, gallery, pictures):
    client = serve()
    ids = fill(client, pictures, 2)
    facts = client.get(f"/images/{ids[1]}").json()
    assert facts["pid"] == "person-0"
    assert facts["camid"] == "c1"
    assert datetime.fromisoformat(facts["time"]) == datetime.fromisoformat(TIMES[1])
    assert re.fullmatch("upload:[0-9a-f]{64}", facts["path"])
    picture = client.get(facts["thumbnail"])
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content == gallery.thumbnail(ids[1])
    assert Image.open(io.BytesIO(picture.content)).size == (32, 64)


def test_pictures_are_not_kept_if_not_wanted(serve, pictures):
    client = serve(thumbnails=False)
    (id_,) = fill(client, pictures, 1)
    assert client.get(f"/images/{id_}").json()["thumbnail"] is None
    assert client.get(f"/images/{id_}/thumbnail").status_code == 404
    assert client.post("/search", files={"image": pictures[0]}).json()["matches"][0]["thumbnail"] is None


def test_the_same_picture_comes_in_once(serve, gallery, pictures):
    client = serve()
    first, again = put(client, pictures[0], pid="ada"), put(client, pictures[0], pid="bob")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert [row.pid for row in gallery.rows()] == ["ada"]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: put(client, pictures[1]).status_code, range(4)))
    assert sorted(answers) == [200, 200, 200, 201]
    assert len(gallery) == 2


def test_a_picture_is_stored_upright_as_the_embedder_sees_it(serve, gallery, embedder, pictures):
    upright = Image.open(io.BytesIO(pictures[0]))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    upright.rotate(90, expand=True).save(turned, "png", exif=exif)
    id_ = put(serve(), turned.getvalue()).json()["id"]
    np.testing.assert_allclose(gallery.descriptors([id_])[0], embedder.embed([upright])[0], atol=1e-5)


def test_what_is_in_it_and_who_may_do_what(serve, gallery, pictures):
    client = serve()
    all_scopes = ["erase", "link", "search", "write"]
    assert client.get("/session").json() == {
        "scopes": all_scopes,
        "tokens": False,
        "cameras": [],
        "times": [],
        "people": False,
    }
    fill(client, pictures, 6)
    assert client.get("/session").json()["cameras"] == ["c0", "c1", "c2"]
    stats = client.get("/stats").json()
    assert (stats["rows"], stats["identities"], stats["cameras"]) == (6, 3, {"c0": 2, "c1": 2, "c2": 2})
    assert stats["fingerprint"] == gallery.fingerprint
    assert client.get("/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/images/" + "0" * 32, 404),
        ("/images/" + "0" * 32 + "/thumbnail", 404),
        ("/images/..%2F..%2F..%2Fetc%2Fpasswd", 404),
        ("/images/%2e%2e", 422),
        ("/images/..%5C..%5Cgallery", 422),
        ("/images/" + "0" * 31 + "'", 422),
        ("/images/%00", 422),
        ("/page.js/../../api.py", 404),
        ("/..%2Fapi.py", 404),
        ("/docs/", 404),
        ("/swagger-ui.css.map", 404),
    ],
)
def test_no_path_leads_out(serve, pictures, path, status):
    client = serve()
    fill(client, pictures, 1)
    for answer in (client.get(path), client.delete(path)):
        assert answer.status_code in (status, 404, 405)
        assert set(answer.json()) == {"detail"}
    assert client.get(path).status_code == status
    assert client.get("/stats").json()["rows"] == 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"top": 0}, {"top": 201}, {"top": "many"}, {"threshold": -1}, {"threshold": "nan"}, {"after": "yesterday"},
        {"before": "0001-01-01T00:00:00+23:00"}, {"group_by": "source"}, {"cam": "c0"}, {"camera": ""},
    ],
)  # fmt: skip
def test_parameters_that_cannot_be_meant(serve, pictures, parameters):
    answer = serve().post("/search", files={"image": pictures[0]}, params=parameters)
    assert answer.status_code == 422
    assert next(iter(parameters)) in answer.json()["detail"]


@pytest.mark.parametrize(
    "fields", [{"time": "noon"}, {"pid": "x" * 201}, {"pid": ["a", "b"]}, {"camera": "c0"}, {"camid": ""}]
)
def test_facts_that_cannot_be_meant(serve, gallery, pictures, fields):
    answer = put(serve(), pictures[0], **fields)
    assert answer.status_code == 422
    assert (
        next(iter(fields)) in answer.json()["detail"] or "the fields that the form may have" in answer.json()["detail"]
    )
    assert len(gallery) == 0


# ---- erasing ---------------------------------------------------------------------------------------------


def traces(root, marks):
    return [f for f in root.rglob("*") if f.is_file() and any(mark in f.read_bytes() for mark in marks)]


def test_an_erased_identity_leaves_no_byte(serve, gallery, pictures, tmp_path):
    client = serve()
    ids = fill(client, pictures)
    marks = [
        b"person-2", *(id_.encode() for id_ in ids[4:6]),
        *(gallery.thumbnail(id_)[-60:] for id_ in ids[4:6]),
        *(gallery.descriptors([id_]).tobytes()[:24] for id_ in ids[4:6]),
    ]  # fmt: skip
    root = tmp_path / "gallery"
    assert all(traces(root, [mark]) for mark in marks)
    assert client.delete("/identities/person-2").json() == {"erased": 2}
    assert traces(root, marks) == []
    assert client.get(f"/images/{ids[4]}").status_code == 404
    found = client.post("/search", files={"image": pictures[4]}).json()["matches"]
    assert {match["id"] for match in found} == set(ids) - set(ids[4:6])
    again = client.delete("/identities/person-2")
    assert again.status_code == 404
    assert "person-2" not in again.text
    # What was erased may come in again.
    assert put(client, pictures[4]).status_code == 201


def test_an_image_is_erased_by_its_id(serve, gallery, pictures):
    client = serve()
    ids = fill(client, pictures, 4)
    assert client.delete(f"/images/{ids[2]}").json() == {"erased": 1}
    assert client.delete(f"/images/{ids[2]}").status_code == 404
    assert {row.id for row in gallery.rows()} == {*ids} - {ids[2]}


@pytest.mark.parametrize(
    "pid",
    [
        "a/b", "o'neill; DROP TABLE rows", "..", "ünïcode ☂", " ", "person-0\n", "\nperson-0", "\n", "a\r\nb",
        "a\u2028b", "\x1b[2J", "\x00", "x" * 5000,
    ],
    ids=ascii,
)  # fmt: skip
def test_any_identity_can_be_erased(serve, gallery, embedder, pictures, tmp_path, pid):
    client = serve()
    fill(client, pictures, 2)
    gallery.add([Entry("by hand", described(embedder, pictures[2])[0], "by hand", pid=pid)])
    quoted = "".join(f"%{byte:02X}" for byte in pid.encode())
    assert client.delete(f"/identities/{quoted}").json() == {"erased": 1}
    assert {row.pid for row in gallery.rows()} == {"person-0"}
    assert client.delete(f"/identities/{quoted}").status_code == 404
    assert [line["what"] for line in audited(tmp_path)] == ["add"] * 4 + ["erase"] * 2


def test_searches_go_on_while_people_are_erased(serve, gallery, pictures):
    """No search fails, and none shows a mixture: the nearest row of a picture that stays is that picture."""
    client = serve()
    ids = fill(client, pictures)
    done = threading.Event()

    def searches():
        count = 0
        while not done.is_set():
            answer = client.post("/search", files={"image": pictures[11]})
            assert answer.status_code == 200, answer.text
            found = [match["id"] for match in answer.json()["matches"]]
            assert found[0] == ids[11]
            assert len(found) == len(set(found)) <= 12
            assert client.get("/stats").status_code == 200
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        searching = [pool.submit(searches) for _ in range(2)]
        erasing = [pool.submit(client.delete, f"/identities/person-{n}") for n in range(5)]
        assert [future.result().json() for future in erasing] == [{"erased": 2}] * 5
        done.set()
        assert all(future.result() for future in searching)
    assert len(gallery) == 2


@pytest.mark.parametrize(
    ("error", "calls", "status"),
    [
        (RuntimeError("lance error: Not found: gallery/rows.lance/data/1.lance"), 2, 200),
        (FileNotFoundError("gallery/rows.lance/_indices"), 2, 200),
        (RuntimeError("lance error: the table is damaged"), 1, 503),
        (RuntimeError("a defect"), 1, 500),
    ],
)
def test_a_search_whose_files_an_erasure_took_is_begun_again(
    serve, gallery, pictures, monkeypatch, error, calls, status
):
    client = serve()
    fill(client, pictures, 2)
    real, called = gallery.search, []

    def search(*args, **options):
        called.append(True)
        if len(called) == 1:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(gallery, "search", search)
    client._transport.raise_server_exceptions = False
    assert client.post("/search", files={"image": pictures[0]}).status_code == status
    assert len(called) == calls


# ---- retention and the audit log -------------------------------------------------------------------------


def audited(tmp_path):
    return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


def test_outdated_rows_go_at_the_start_and_while_it_runs(serve, gallery, embedder, pictures, tmp_path):
    now = datetime.now(UTC)
    rows = described(embedder, pictures[0])

    def see(name, days):
        gallery.add([Entry(name, rows[0], name, time=now - timedelta(days=days))])

    see("old", 31)
    see("new", 29)
    serve(retain=timedelta(days=30), upkeep_seconds=0.05)
    assert {row.key for row in gallery.rows()} == {"new"}
    see("late", 40)
    until = time.monotonic() + 300
    while len(audited(tmp_path)) < 4 and time.monotonic() < until:
        time.sleep(0.05)
    assert {row.key for row in gallery.rows()} == {"new"}
    lines = audited(tmp_path)
    assert [(line["who"], line["what"], line.get("erased")) for line in lines] == [
        ("retention", "erase", erased) for erased in (None, 1, None, 1)
    ]
    limit = datetime.fromisoformat(lines[0]["older_than"])
    assert timedelta(days=30) <= datetime.now(UTC) - limit < timedelta(days=30, minutes=1)


def test_without_retention_nothing_goes(serve, gallery, embedder, pictures):
    gallery.add([Entry("old", described(embedder, pictures[0])[0], "old", time=datetime(1990, 1, 1, tzinfo=UTC))])
    serve(upkeep_seconds=0.01).get("/healthz")
    time.sleep(0.1)
    assert len(gallery) == 1


def test_the_log_says_who_did_what_to_which_rows(serve, access, bearer, pictures, tmp_path):
    client = serve(access=access)
    before = datetime.now(UTC)
    ids = [
        client.post(
            "/images",
            files={"image": pictures[n]},
            data={"pid": "secret-name", "camid": "gate"},
            headers=bearer("write"),
        ).json()["id"]
        for n in range(2)
    ]
    found = client.post("/search?top=1", files={"image": pictures[1]}, headers=bearer("search")).json()["matches"]
    client.delete("/identities/secret-name", headers=bearer("erase"))
    client.delete("/identities/secret-name", headers=bearer("erase"))  # nobody is left: nothing happened
    client.post("/search", files={"image": b"no picture"}, headers=bearer("search"))
    lines = audited(tmp_path)
    key = (tmp_path / "audit.jsonl.key").read_bytes()
    named = {id_: hmac.digest(key, id_.encode(), "sha256").hex()[:32] for id_ in ids}
    assert [(line["who"], line["what"], line.get("state"), line.get("ids")) for line in lines] == [
        ("write", "add", "begun", [named[ids[0]]]),
        ("write", "add", "done", None),
        ("write", "add", "begun", [named[ids[1]]]),
        ("write", "add", "done", None),
        ("search", "search", None, [named[found[0]["id"]]]),
        ("erase", "erase", "begun", [named[id_] for id_ in sorted(ids)]),
        ("erase", "erase", "done", None),
    ]
    events = [line["event"] for line in lines if "event" in line]
    assert events[::2] == events[1::2]
    assert len(set(events)) == 3
    assert lines[4]["matches"] == 1
    assert lines[6]["erased"] == 2
    assert all(before <= datetime.fromisoformat(line["at"]) + timedelta(seconds=1) for line in lines)
    text = (tmp_path / "audit.jsonl").read_text()
    assert "secret-name" not in text
    assert "gate" not in text
    assert not [word for word in text.split() if len(word) > 100]  # no picture, no descriptor
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o077 == 0


# ---- a gallery that is taken away ------------------------------------------------------------------------


def everything(client, picture):
    yield client.post("/search", files={"image": picture})
    yield put(client, picture)
    for path in ("/stats", "/healthz", "/session", "/images/" + "0" * 32, "/images/" + "0" * 32 + "/thumbnail"):
        yield client.get(path)
    for path in ("/images/" + "0" * 32, "/identities/ada"):
        yield client.delete(path)


def test_a_gallery_that_is_gone_is_said_to_be_until_it_is_back(serve, gallery, pictures, tmp_path, caplog):
    client = serve()
    fill(client, pictures, 2)
    (tmp_path / "gallery").rename(tmp_path / "elsewhere")
    for answer in everything(client, pictures[3]):
        assert answer.status_code == 503
        assert answer.json() == {"detail": "the gallery is missing: it was moved or deleted"}
    with pytest.raises(UnavailableError):
        asyncio.run(client.app.state.operations.upkeep())
    assert client.get("/metrics").status_code == 200
    assert not (tmp_path / "gallery").exists()
    assert "Traceback" not in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)
    (tmp_path / "elsewhere").rename(tmp_path / "gallery")
    assert [answer.status_code for answer in everything(client, pictures[3])] == [200, 201, 200, 200, 200, *[404] * 4]
    assert len(client.post("/search", files={"image": pictures[0]}).json()["matches"]) == 3


def test_a_gallery_of_another_model_in_its_place_is_not_used(serve, gallery, pictures, tmp_path, caplog):
    client = serve()
    fill(client, pictures, 2)
    width = gallery.dim
    shutil.rmtree(tmp_path / "gallery")
    Gallery.create(tmp_path / "gallery", DescriptorKind("ab" * 32, "p1(s2)", width, True))
    for answer in everything(client, pictures[3]):
        assert answer.status_code == 503
        assert answer.json() == {"detail": "the gallery was replaced by one that this service cannot read"}
    assert "holds descriptors of another model" in caplog.text


# ---- around the endpoints --------------------------------------------------------------------------------


def test_figures_name_routes_and_never_what_was_sent(serve, pictures):
    client = serve()
    (id_,) = fill(client, pictures, 1)
    client.get(f"/images/{id_}")
    client.delete("/identities/secret-name")
    client.get("/no-such-secret-path")
    client.request("BREW", "/stats")
    text = client.get("/metrics").text
    for line in (
        'reprism_requests_total{method="GET",route="/images/{id}",status="200"} 1.0',
        'reprism_requests_total{method="DELETE",route="/identities/{pid:name}",status="404"} 1.0',
        'reprism_requests_total{method="GET",route="unknown",status="404"} 1.0',
        'reprism_request_seconds_count{method="POST",route="/images"} 1.0',
        "reprism_gallery_rows 1.0",
        "reprism_requests_present 0.0",
    ):
        assert line in text.splitlines()
    assert "secret" not in text
    assert "BREW" not in text
    assert id_ not in text


@pytest.mark.parametrize("path", ["/healthz", "/stats", "/images", "/search", "/docs", "/page.js", "/openapi.json"])
def test_nothing_leads_to_where_the_host_header_says(serve, access, bearer, path):
    client = serve(access=access)
    for target in (f"{path}/", f"{path}//", f"/{path}"):
        for method in ("GET", "POST", "DELETE"):
            answer = client.request(
                method, f"http://evil.example{target}", headers=bearer("search"), follow_redirects=False
            )
            assert answer.status_code in (404, 405)
            assert "location" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/stats", "/no-such-path", "/images/zz", "/openapi.json"])
def test_every_answer_forbids_what_the_page_does_not_need(serve, path):
    headers = serve().get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert all(set(sources.split()) <= {"'self'", "'none'", "blob:", "data:"} for sources in policy.values())
    assert "data:" not in policy["script-src"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_the_pages_files_are_served_by_name(serve, tmp_path, monkeypatch):
    monkeypatch.setattr("reprism.service.web.files", lambda _: tmp_path)
    assert serve().get("/").status_code == 404  # an installation without the page works
    (tmp_path / "page").mkdir()
    for name in ("index.html", "page.css", "page.js", "notes.txt"):
        (tmp_path / "page" / name).write_text(name)
    client = serve()
    assert client.get("/").text == "index.html"
    assert client.get("/page.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/page.css").headers["content-type"].startswith("text/css")
    assert client.get("/notes.txt").status_code == 404


def test_an_embedder_of_another_kind_is_refused_at_once(gallery, model_file):
    with pytest.raises(GalleryError, match="flip"):
        create_app(gallery, reprism.Embedder(model_file, flip=False))


# ---- the service's own words -----------------------------------------------------------------------------


def test_health_and_figures_look_at_the_gallery_and_outlive_it(serve, gallery, pictures):
    client = serve()
    client.post("/images", files={"image": pictures[0]})
    assert client.get("/healthz").json() == {"status": "ok"}
    assert "reprism_gallery_rows 1.0" in client.get("/metrics").text
    shutil.move(gallery.uri, f"{gallery.uri}.away")
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert "moved or deleted" in answer.json()["detail"]
    figures = client.get("/metrics")
    assert figures.status_code == 200
    assert "reprism_gallery_rows NaN" in figures.text
    assert 'reprism_requests_total{method="POST",route="/images",status="201"} 1.0' in figures.text
    shutil.move(f"{gallery.uri}.away", gallery.uri)
    assert client.get("/healthz").status_code == 200


def test_health_is_bad_where_the_gallery_cannot_be_read_in_time(serve, gallery, monkeypatch):
    client, release = serve(), threading.Event()
    monkeypatch.setattr("reprism.service.routes._HEALTHY_WITHIN", 0.1)
    monkeypatch.setattr(type(gallery), "__len__", lambda _: int(release.wait(60)))
    answer = client.get("/healthz")
    release.set()
    assert answer.status_code == 503
    assert "within 0.1 seconds" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/images/" + "0" * 32, {"DELETE", "GET", "OPTIONS"}),
        ("/images", {"OPTIONS", "POST"}),
        ("/identities/ada", {"DELETE", "OPTIONS"}),
        ("/healthz", {"GET", "OPTIONS"}),
        ("/", {"GET", "OPTIONS"}),
    ],
)
def test_an_address_names_all_of_its_methods(serve, path, methods):
    client = serve()
    options, patch = client.options(path), client.patch(path)
    assert (options.status_code, patch.status_code) == (204, 405)
    for answer in (options, patch):
        assert set(answer.headers["allow"].split(", ")) == methods
    assert "nosniff" in options.headers["x-content-type-options"]
