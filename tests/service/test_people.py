"""People over HTTP: who may see them, what is answered, decided and noted, and how they are kept up to date."""

import itertools
import json
import logging
import shutil
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import reprism
from reprism.gallery.doubts import Doubt
from reprism.gallery.people import read_kept
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery
from reprism.linking.answering import answer_link, review_queue
from reprism.linking.gallery_people import link_gallery
from reprism.linking.gallery_sightings import read_some
from reprism.linking.learned import kept_learned, kept_network
from reprism.linking.network_search import Seen
from reprism.linking.odds import OddsError
from reprism.linking.reasons import Site, explain_pair
from reprism.linking.transit import CameraNetwork
from reprism.service import keeping_up
from reprism.service.access import Access
from reprism.service.held_questions import HeldQuestions
from reprism.service.people_links import ways_of

NOW = datetime.now(UTC).replace(microsecond=0)
WAYS = {"a": 0.0, "b": 40.0, "c": 90.0}  # seconds from the camera before
OFF = "linking is off for this gallery"
TOKENS = {name: f"token-of-{name}-for-the-test" for name in ("ada", "ben", "searcher", "linker")}
ENDPOINTS = [
    ("GET", "/people"),
    ("GET", "/people/1"),
    ("GET", "/people/network"),
    ("GET", "/people/questions"),
    ("GET", "/people/answers"),
    ("GET", "/people/changes"),
    ("POST", "/people/answers"),
    ("DELETE", "/people/answers/1"),
    ("POST", "/people/changes/1/undo"),
]


def walkers(dim: int, people: int = 90, seed: int = 0, hours: float = 6) -> list[Entry]:
    """Tracklets of people who pass a, then b, then c within six hours, from so many hours ago on."""
    rng = np.random.default_rng(seed)
    found = []
    for person, start in enumerate(rng.uniform(0, 20_000, people)):
        looks, taken = rng.normal(size=dim), start
        for camera, way in WAYS.items():
            taken += rng.normal(way, way / 5) if way else 0.0
            if rng.random() < 0.85:
                key, at = f"walk-{seed}-{person}-{camera}", NOW - timedelta(hours=hours) + timedelta(seconds=taken)
                row = (looks + 0.55 * rng.normal(size=dim)).astype(np.float32)
                found.append(Entry(key, row, key, None, camera, at, key, 5, until=at + timedelta(seconds=1)))
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory, model_file) -> Gallery:
    """A gallery whose people were found, to be copied; some were seen more than a day ago."""
    embedder = reprism.Embedder(model_file, precision="fp32", device="cpu")
    gallery = Gallery.create(tmp_path_factory.mktemp("site") / "gallery", embedder)
    gallery.add(walkers(gallery.descriptor_dim))
    gallery.add(walkers(gallery.descriptor_dim, people=12, seed=1, hours=36))
    gallery.enable_linking("find lost children", 30)
    link_gallery(gallery)
    return gallery


@pytest.fixture
def gallery(tmp_path, site) -> Gallery:
    """A copy of it, which the services of this file serve."""
    shutil.copytree(site.uri, tmp_path / "gallery")
    return Gallery.open(tmp_path / "gallery")


@pytest.fixture
def holders() -> Access:
    """Ada and Ben may see people; of two others, one may only search and one only link."""
    scopes = {"searcher": ["search"], "linker": ["link"]}
    lines = [
        f'{name} = {{token = "{token}", scopes = {json.dumps(scopes.get(name, ["search", "link"]))}}}'
        for name, token in TOKENS.items()
    ]
    return Access.from_toml("\n".join(lines), "the test")


def of(name):
    return {"Authorization": f"Bearer {TOKENS[name]}"}


def audited(tmp_path):
    return list(map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines()))


def changed(line):
    """A line of the log without what is another each time."""
    return {name: value for name, value in line.items() if name not in ("at", "event", "ids")}


# ---- looking ---------------------------------------------------------------------------------------------


def test_people_are_those_of_the_gallery(serve, gallery):
    client = serve()
    expected = gallery.people()
    answer = client.get("/people", params={"limit": 200}).json()
    assert answer["total"] == len(expected) > 90
    assert [one["id"] for one in answer["people"]] == [one.id for one in expected]
    for found, person in zip(answer["people"], expected, strict=True):
        assert found["rows"] == len(person.rows)
        assert found["cameras"] == list(person.cameras)
        assert datetime.fromisoformat(found["first"]) == person.first
        assert datetime.fromisoformat(found["last"]) == person.last
        assert found["confidence"] == pytest.approx(person.confidence)
        assert len(person.rows) > 6 or found["faces"] == list(person.rows)
    page = client.get("/people", params={"offset": 7, "limit": 3}).json()
    assert page == {"total": len(expected), "people": answer["people"][7:10]}
    assert client.get("/people", params={"offset": 1000}).json() == {"total": len(expected), "people": []}


def test_faces_are_spread_over_time(serve, gallery):
    first, second, third, *_ = gallery.people()
    rows = [*first.rows, *second.rows, *third.rows]
    answer_link(gallery, "same", rows, by="the test")
    (person,) = (one for one in gallery.people() if set(rows) <= set(one.rows))
    assert len(person.rows) >= 9
    faces = next(one for one in serve().get("/people").json()["people"] if one["id"] == person.id)["faces"]
    at = [person.rows.index(face) for face in faces]
    assert (len(at), at[0], at[-1]) == (6, 0, len(person.rows) - 1)
    steps = np.diff(at)
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize(
    "asked",
    [{"camera": "b"}, {"camera": ["a", "c"]}, {"after": 4}, {"before": 4}, {"camera": "c", "after": 5, "before": 4}],
)
def test_conditions_hold_for_one_sight(serve, gallery, asked):
    moments = {name: NOW - timedelta(hours=asked[name]) for name in ("after", "before") if name in asked}
    cameras = np.atleast_1d(asked.get("camera", list(WAYS))).tolist()
    rows = {row.id: row for row in gallery.rows()}
    expected = [
        person.id
        for person in gallery.people()
        if any(
            rows[row].camid in cameras
            and rows[row].time >= moments.get("after", rows[row].time)
            and rows[row].time < moments.get("before", NOW)
            for row in person.rows
        )
    ]
    asked = asked | {name: moment.isoformat() for name, moment in moments.items()} | {"limit": 200}
    found = serve().get("/people", params=asked).json()
    assert 0 < len(expected) < len(gallery.people())
    assert [person["id"] for person in found["people"]] == expected
    assert found["total"] == len(expected)


def test_a_person_has_sights_and_why_they_are_linked(serve, gallery):
    client, person = serve(), gallery.people()[0]
    found = client.get(f"/people/{person.id}").json()
    assert [sight["id"] for sight in found["sights"]] == list(person.rows)
    for sight in found["sights"]:
        row = gallery.get(sight["id"])
        assert (sight["camera"], sight["strip"], sight["thumbnail"]) == (row.camid, 0, False)
        assert [datetime.fromisoformat(sight[name]) for name in ("time", "until")] == [row.time, row.until]
    learned = kept_learned(gallery)
    assert len(found["links"]) == len(person.rows) - 1 > 1
    for link, (one, other) in zip(found["links"], itertools.pairwise(person.rows), strict=True):
        assert (link["one"], link["other"]) == (one, other)
        some, others = read_some(gallery, [one]), read_some(gallery, [other])
        assert link["sentence"] == explain_pair(some.items[0], others.items[0], Site.of(learned.network)).times
        assert link["probability"] == pytest.approx(float(learned.probability(some, others)[0, 0]), abs=1e-6)
    assert client.get("/people/100000").status_code == 404
    # What was learned goes with an erased row; its person stays, of the other rows.
    client.delete(f"/images/{person.rows[0]}")
    found = client.get(f"/people/{person.id}").json()
    assert [sight["id"] for sight in found["sights"]] == list(person.rows[1:])
    assert found["confidence"] is None
    assert {link["probability"] for link in found["links"]} == {None}


def test_the_network_has_the_ways_between_cameras(serve, gallery):
    client = serve()
    answer = client.get("/people/network").json()
    rows = Counter(row.camid for row in gallery.rows())
    assert answer["cameras"] == [{"camera": camera, "rows": rows[camera]} for camera in "abc"]
    transits = kept_network(gallery).transits()
    expected = [
        {"from": start, "to": end, "usual": [way.quartiles[0], way.quartiles[2]],
         "median": way.quartiles[1], "matches": way.pairs}
        for (one, other), transit in transits.items()
        for start, end, way in ((one, other, transit.there), (other, one, transit.back))
        if way is not None
    ]  # fmt: skip
    assert answer["ways"] == expected
    walked = next(way for way in answer["ways"] if (way["from"], way["to"]) == ("a", "b"))
    assert walked["usual"][0] <= 40 <= walked["usual"][1] + 4
    client.delete(f"/images/{gallery.people()[0].rows[0]}")
    answer = client.get("/people/network")
    assert answer.status_code == 409
    assert "reprism link learn" in answer.json()["detail"]


def test_ways_are_told_by_direction():
    """People take a minute from the gate to the hall, and two minutes back."""
    rng = np.random.default_rng(0)
    items = [
        Seen(camera, NOW + timedelta(seconds=float(start + later))).as_item()
        for start in rng.uniform(0, 20_000, 100)
        for ways in ((("gate", 0.0), ("hall", rng.normal(60, 8))), (("hall", 1e5), ("gate", 1e5 + rng.normal(120, 12))))
        for camera, later in ways
    ]
    there, back = ways_of(Site.of(CameraNetwork.of_pairs(items, np.arange(400).reshape(-1, 2))))
    for way, cameras, seconds in ((there, ("gate", "hall"), 60), (back, ("hall", "gate"), 120)):
        assert (way["start"], way["to"]) == cameras
        assert way["median"] == pytest.approx(seconds, abs=6)
        assert way["usual"][0] < way["median"] < way["usual"][1]
        assert 90 <= way["matches"] <= 100


def test_questions_are_those_of_the_queue(serve, gallery):
    client, expected = serve(), review_queue(gallery, 1000)
    assert len(expected) > 3
    answer = client.get("/people/questions", params={"limit": 2}).json()
    assert answer["left"] == len(expected) - 2
    person = {row: one.id for one in gallery.people() for row in one.rows}
    site = Site.of(kept_network(gallery))
    for found, doubt in zip(answer["questions"], expected[:2], strict=True):
        said = found.pop("sentence"), found.pop("people")
        assert found == json.loads(json.dumps(doubt.as_dict()))
        items = [read_some(gallery, [group[0]]).items[0] for group in (doubt.one, doubt.other)]
        assert said == (
            explain_pair(*items, site).times,
            list(dict.fromkeys((person[doubt.one[0]], person[doubt.other[0]]))),
        )


def test_two_who_decide_at_once_are_asked_different_questions(serve, gallery, holders):
    client = serve(access=holders)

    def asked(name, limit=2):
        answer = client.get("/people/questions", params={"limit": limit}, headers=of(name)).json()
        return [tuple(one["one"] + one["other"]) for one in answer["questions"]], answer["left"]

    queue = [doubt.one + doubt.other for doubt in review_queue(gallery, 1000)]
    assert asked("ada") == (queue[:2], len(queue) - 2)
    assert asked("ben") == (queue[2:4], len(queue) - 4)
    assert asked("ada") == (queue[:2], len(queue) - 4)
    assert asked("ben", 100) == (queue[2:], 0)
    assert asked("ada", 100) == (queue[:2], 0)


def test_a_question_is_held_for_a_time():
    now = 0.0
    held = HeldQuestions(120, lambda: now)
    doubts = [Doubt((f"{n}",), (f"{n}'",), 0.5, 0.5) for n in range(3)]
    assert held.take(doubts, 1, "ada") == (doubts[:1], 2)
    now = 100
    # The rows are the same in whatever order.
    turned = [Doubt(doubts[0].other, doubts[0].one, 0.5, 0.5), *doubts[1:]]
    assert held.take(turned, 3, "ben") == (doubts[1:], 0)
    now = 119.9
    assert held.take(doubts, 3, "cem") == ([], 0)
    now = 120
    assert held.take(doubts, 3, "cem") == (doubts[:1], 0)
    now = 220
    assert held.take(doubts, 1, "ada") == (doubts[1:2], 1)


# ---- deciding --------------------------------------------------------------------------------------------


def test_what_is_said_holds_and_is_noted_and_can_be_taken_back(serve, gallery, holders, tmp_path):
    client = serve(access=holders)
    one, other = gallery.people()[10:12]
    told = {"kind": "same", "one": list(one.rows), "other": list(other.rows)}
    answer = client.post("/people/answers", json=told, headers=of("ada"))
    assert answer.status_code == 201
    (kept,) = gallery.link_answers()
    assert (kept.kind, kept.one, kept.other, kept.by) == ("same", one.rows, other.rows, "ada")
    as_told = {name: value for name, value in kept.as_dict().items() if name != "undoes"}
    said = answer.json()["answer"]
    assert said | {"at": None} == json.loads(json.dumps(as_told)) | {"at": None}
    assert datetime.fromisoformat(said["at"]) == kept.at
    merged = next(person for person in gallery.people() if one.rows[0] in person.rows)
    assert set(one.rows + other.rows) <= set(merged.rows)
    changes = answer.json()["changes"]
    assert [change["number"] for change in changes] == [change.number for change in gallery.people_changes()]
    assert {(change["kind"], change["answer"]) for change in changes} == {("merge", kept.number)}
    assert client.get("/people/answers", headers=of("ben")).json() == {"answers": [said]}
    assert client.get("/people/changes", headers=of("ben")).json() == {"changes": changes}
    begun, done, *_ = audited(tmp_path)
    facts = {"who": "ada", "what": "link answer"}
    sides = [len(one.rows), len(other.rows)]
    assert changed(begun) == facts | {
        "state": "begun", "kind": "same", "sides": sides, "people": sorted([one.id, other.id])
    }  # fmt: skip
    assert changed(done) == facts | {
        "state": "done", "answers": [1], "people": [merged.id], "changes": [change["number"] for change in changes]
    }  # fmt: skip
    assert begun["event"] == done["event"]
    # Rows stand in the log by pseudonyms alone, as in those of erasures.
    assert len(begun["ids"]) == sum(sides)
    assert not any(row in (tmp_path / "audit.jsonl").read_text() for row in one.rows + other.rows)

    answer = client.post("/people/answers", json=told | {"kind": "different"}, headers=of("ben"))
    assert answer.status_code == 409
    assert "that contradicts answer 1 (same, by ada" in answer.json()["detail"]
    assert str(gallery.uri) not in answer.text
    assert audited(tmp_path)[-1]["state"] == "failed"
    assert len(gallery.link_answers()) == 1

    answer = client.delete("/people/answers/1", headers=of("ben"))
    assert answer.status_code == 200
    assert answer.json()["answer"] == said
    assert gallery.link_answers() == []
    assert {one.rows, other.rows} <= {person.rows for person in gallery.people()}
    begun, done = audited(tmp_path)[-2:]
    facts = {"who": "ben", "what": "link undo"}
    assert changed(begun) == facts | {"state": "begun", "answer": 1, "kind": "same", "people": [merged.id]}
    apart = sorted(person.id for person in gallery.people() if person.rows in (one.rows, other.rows))
    assert done["people"] == apart
    assert client.delete("/people/answers/1", headers=of("ben")).status_code == 404
    assert len(audited(tmp_path)) == 8


def test_a_split_is_undone_by_its_change(serve, gallery, tmp_path):
    client, person = serve(), gallery.people()[0]
    told = {"kind": "different", "one": list(person.rows[:1]), "other": list(person.rows[1:])}
    answer = client.post("/people/answers", json=told)
    assert answer.status_code == 201
    assert not any(set(person.rows) <= set(one.rows) for one in gallery.people())
    change = next(one for one in answer.json()["changes"] if one["kind"] == "split")
    undone = client.post(f"/people/changes/{change['number']}/undo")
    assert undone.status_code == 200
    assert [one["number"] for one in undone.json()["answers"]] == [1]
    assert gallery.link_answers() == []
    assert person.rows in {one.rows for one in gallery.people()}
    assert changed(audited(tmp_path)[-2])["change"] == change["number"]
    assert client.post("/people/changes/1000/undo").status_code == 404
    newest_first = [one["number"] for one in client.get("/people/changes").json()["changes"]]
    assert newest_first == [one.number for one in gallery.people_changes()][::-1]
    assert [
        one["number"] for one in client.get("/people/changes", params={"limit": 1}).json()["changes"]
    ] == newest_first[:1]


def test_what_cannot_be_told_is_not_asked_again(serve, gallery):
    client = serve()
    first, second = client.get("/people/questions", params={"limit": 2}).json()["questions"]
    told = {"kind": "unsure", "one": first["one"], "other": first["other"]}
    assert client.post("/people/answers", json=told).status_code == 201
    (again, *_) = client.get("/people/questions").json()["questions"]
    assert again["one"] + again["other"] == second["one"] + second["other"]


def test_what_cannot_be_said_is_refused(serve, gallery):
    client, rows = serve(max_bytes=2000), gallery.people()[0].rows
    right = {"kind": "same", "one": [rows[0]], "other": [rows[1]]}
    for wrong, status, words in (
        ({"kind": "perhaps"}, 422, "kind"),
        ({"one": []}, 422, "one"),
        ({"one": ["x"]}, 422, "one"),
        ({"by": "somebody else"}, 422, "by"),
        ({"other": [rows[0]]}, 409, "on both sides"),
        ({"other": []}, 409, "two rows or more"),
        ({"other": ["0" * 32]}, 409, "not in GALLERY"),
        ({"other": ["0" * 32] * 100}, 413, "2,000 bytes"),
    ):
        answer = client.post("/people/answers", json=right | wrong)
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
        assert str(gallery.uri) not in answer.text
    assert client.post("/people/answers", content=b"{", headers={"Content-Type": "application/json"}).status_code == 422
    assert client.post("/people/answers", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert gallery.link_answers() == []


def test_while_another_process_writes_it_says_so(serve, gallery, tmp_path):
    client, rows = serve(lock_seconds=0.1), gallery.people()[0].rows
    told = {"kind": "same", "one": [rows[0]], "other": [rows[1]]}
    with Gallery.open(tmp_path / "gallery").disk.writing():
        answer = client.post("/people/answers", json=told)
        assert answer.status_code == 503
        assert "another process is writing" in answer.json()["detail"]
        assert client.get("/people").status_code == 200
    assert client.post("/people/answers", json=told).status_code == 201


# ---- who may ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_both_scopes_are_needed_and_linking(serve, gallery, holders, method, path, tmp_path):
    client, rows = serve(access=holders), gallery.people()[0].rows
    body = {"json": {"kind": "same", "one": list(rows)}} if path.endswith("answers") and method == "POST" else {}
    assert client.request(method, path, **body).status_code == 401
    for name, lacks in (("searcher", "link"), ("linker", "search")):
        answer = client.request(method, path, headers=of(name), **body)
        assert (answer.status_code, answer.json()["detail"]) == (403, f"this token has not the scope {lacks}")
    assert audited(tmp_path) == []
    assert client.request(method, path, headers=of("ada"), **body).status_code in (200, 201, 404)
    gallery.disable_linking()
    noted = len(audited(tmp_path))
    answer = client.request(method, path, headers=of("ada"), **body)
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith(OFF)
    assert len(audited(tmp_path)) == noted


def test_no_endpoint_is_left_out_of_that_table(serve, holders):
    paths = serve(access=holders).get("/openapi.json").json()["paths"]
    found = {
        (method.upper(), path.replace("{number}", "1")): answers["security"]
        for path, methods in paths.items()
        for method, answers in methods.items()
        if path.startswith("/people")
    }
    assert set(found) == set(ENDPOINTS)
    assert all(found.values())


def test_the_session_says_whether_people_may_be_seen(serve, gallery, holders):
    client = serve(access=holders)
    assert [client.get("/session", headers=of(name)).json()["people"] for name in TOKENS] == [True, True, False, False]
    assert client.get("/session").json()["people"] is False
    gallery.disable_linking()
    assert client.get("/session", headers=of("ada")).json()["people"] is False


def test_whoever_looks_is_noted(serve, gallery, holders, tmp_path):
    client, person = serve(access=holders), gallery.people()[0]
    for path in (
        "/people?limit=3",
        f"/people/{person.id}",
        "/people/questions?limit=1",
        "/people/answers",
        "/people/changes",
    ):
        assert client.get(path, headers=of("ada")).status_code == 200
    client.get("/people/network", headers=of("ada"))  # tells of nobody
    shown = [{"people": 3}, {"person": person.id}, {"questions": 1}, {"answers": 0}, {"changes": 0}]
    kinds = ("people", "person", "questions", "answers", "changes")
    lines = audited(tmp_path)
    expected = [{"who": "ada", "what": f"link {kind}"} | facts for kind, facts in zip(kinds, shown, strict=True)]
    assert [changed(line) for line in lines] == expected
    assert len(lines[0]["ids"]) == sum(min(6, len(one.rows)) for one in gallery.people()[:3])  # their faces
    assert len(lines[1]["ids"]) == len(person.rows)


def test_rows_that_linking_does_not_keep_never_appear(serve, gallery):
    limit = NOW - timedelta(hours=24)
    old = {row.id for row in gallery.rows() if row.time < limit}
    first, second, *_ = (person for person in gallery.people() if set(person.rows) <= old)
    recent = next(person for person in gallery.people() if not set(person.rows) & old)
    answer_link(gallery, "same", [*first.rows, *second.rows, *recent.rows], by="the test")
    answer_link(gallery, "unsure", first.rows[:1], gallery.people()[-1].rows[:1], by="the test")
    client = serve()
    looks = ["/people?limit=200", "/people/questions?limit=200", "/people/answers", "/people/changes"]
    merged = next(person.id for person in gallery.people() if first.rows[0] in person.rows)
    looks += [f"/people/{person.id}" for person in (first, recent)]

    def told():
        answers = [client.get(path) for path in looks]
        assert {answer.status_code for answer in answers} <= {200, 404}
        text = "".join(answer.text for answer in answers)
        return {row.id for row in gallery.rows() if row.id in text}

    assert told() >= old
    gallery.enable_linking("find lost children", 1)
    assert told()
    assert not told() & old
    assert client.get(f"/people/{merged}").json()["rows"] == len(recent.rows)
    rows = Counter(row.camid for row in gallery.rows() if row.time >= limit)
    cameras = client.get("/people/network").json()["cameras"]
    assert cameras == [{"camera": camera, "rows": rows[camera]} for camera in "abc"]
    answer = client.delete("/people/answers/1")
    assert answer.status_code == 200
    assert not any(row in answer.text for row in old)
    answer = client.post("/people/answers", json={"kind": "same", "one": [first.rows[0]], "other": [recent.rows[0]]})
    assert answer.status_code == 409


# ---- while rows come in ----------------------------------------------------------------------------------


def until(is_so):
    """Wait for something that another thread does."""
    while not is_so():
        time.sleep(0.02)


def person_of(gallery, row):
    return next((person for person in gallery.people() if row in person.rows), None)


def test_rows_that_come_in_are_taken_into_the_people(serve, gallery, pictures, tmp_path):
    client = serve(link_seconds=0.05)
    before = {person.id: set(person.rows) for person in gallery.people()}
    facts = {"camid": "a", "time": (NOW - timedelta(minutes=5)).isoformat()}
    row = client.post("/images", files={"image": pictures[0]}, data=facts).json()["id"]
    until(lambda: person_of(gallery, row))
    until(lambda: audited(tmp_path)[-1]["what"] == "link update" and audited(tmp_path)[-1]["state"] == "done")
    begun, done = audited(tmp_path)[-2:]
    assert changed(begun) == {"who": "service", "what": "link update", "state": "begun", "new": 1, "expired": 0}
    assert done["people"] == len(gallery.people())
    assert len(begun["ids"]) == 1
    # By another process.
    more = walkers(gallery.descriptor_dim, people=3, seed=2, hours=3)
    Gallery.open(tmp_path / "gallery").add(more)
    until(lambda: all(person_of(gallery, row_id(entry.key)) for entry in more))
    assert set().union(*before.values()) <= {row for person in gallery.people() for row in person.rows}
    until(lambda: audited(tmp_path)[-1]["state"] == "done")
    # What changes nothing is not noted: a row without a camera is nobody's.
    noted = audited(tmp_path)
    client.post("/images", files={"image": pictures[1]})
    time.sleep(0.2)
    assert [line["what"] for line in audited(tmp_path)[len(noted) :]] == ["add", "add"]


def test_rows_that_grow_too_old_leave_though_none_comes_in(serve, gallery, tmp_path):
    serve(link_seconds=0.05, upkeep_seconds=0.1)
    old = {row.id for row in gallery.rows() if row.time < NOW - timedelta(hours=24)}
    assert old & set(read_kept(gallery.store).person) == old
    gallery.enable_linking("find lost children", 1)
    until(lambda: not old & set(read_kept(gallery.store).person))
    until(lambda: audited(tmp_path)[-1]["state"] == "done")
    assert [(line["new"], line["expired"]) for line in audited(tmp_path) if line["state"] == "begun"] == [(0, len(old))]


def test_what_is_due(gallery):
    assert keeping_up.what_is_due(gallery) is None
    new = walkers(gallery.descriptor_dim, people=2, seed=2)
    gallery.add(new)
    due = keeping_up.what_is_due(gallery)
    assert due == (sorted(row_id(entry.key) for entry in new), [], False)
    old = {row.id for row in gallery.rows() if row.time < NOW - timedelta(hours=24)}
    assert keeping_up.what_is_due(gallery, NOW + timedelta(days=29)).expired == sorted(old)
    reprism.update_people(gallery)
    assert keeping_up.what_is_due(gallery) is None
    gallery.disable_linking()
    gallery.add(walkers(gallery.descriptor_dim, people=2, seed=3))
    assert keeping_up.what_is_due(gallery) is None
    # Nobody asked for people yet.
    gallery.enable_linking("find lost children", 30)
    assert keeping_up.what_is_due(gallery) is None


def test_what_fails_is_logged_and_tried_again(serve, gallery, monkeypatch, caplog, tmp_path):
    failures = [OddsError("too few matches"), RuntimeError("a defect")]
    update = keeping_up.update_people

    def failing(some):
        if failures:
            raise failures.pop(0)
        return update(some)

    monkeypatch.setattr(keeping_up, "update_people", failing)
    client = serve(link_seconds=0.05)
    (entry,) = walkers(gallery.descriptor_dim, people=1, seed=2)[:1]
    with caplog.at_level(logging.ERROR, "reprism.service.keeping_up"):
        gallery.add([entry])
        until(lambda: person_of(gallery, row_id(entry.key)))
    said = [record.getMessage() for record in caplog.records if record.name == "reprism.service.keeping_up"]
    assert said == [f"people were not kept up to date: {why}" for why in ("too few matches", "an unexpected error")]
    assert client.get("/healthz").status_code == 200
    states = [line["state"] for line in audited(tmp_path) if line["what"] == "link update"]
    assert states[:5] == ["begun", "failed", "begun", "failed", "begun"]


def test_it_can_be_left(serve, gallery, monkeypatch):
    looked = []
    monkeypatch.setattr(keeping_up, "what_is_due", looked.append)
    serve(link_seconds=0)
    gallery.add(walkers(gallery.descriptor_dim, people=1, seed=2))
    time.sleep(0.3)
    assert looked == []
    with pytest.raises(ValueError, match="link_seconds is -1"):
        serve(link_seconds=-1)
