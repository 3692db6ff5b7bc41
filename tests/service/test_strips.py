"""Tracklets over HTTP: their times, boxes, and small pictures in the order of time."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from PIL import Image

from reprism.gallery.rows import Entry, row_id

FIRST = datetime(2026, 3, 1, 9, 30, 12, tzinfo=UTC)
BOXES = {"first_box": (0.25, 0.125, 0.375, 0.5), "last_box": (0.5, 0.25, 0.625, 1.0)}


@pytest.fixture
def tracklets(gallery, embedder, pictures):
    """The ids of three rows: with a strip of five pictures, of one, and a picture alone."""
    rows = embedder.embed([Image.open(io.BytesIO(picture)) for picture in pictures[:3]])
    seen = {"time": FIRST, "until": FIRST + timedelta(seconds=7.4), **BOXES}
    strips = [{"strip": tuple(pictures[1:6]), **seen}, {"strip": (pictures[0],)}, {}]
    gallery.add(Entry(f"k{n}", row, f"/p{n}", **kept) for n, (row, kept) in enumerate(zip(rows, strips, strict=True)))
    return [row_id(f"k{n}") for n in range(3)]


def test_a_search_says_where_the_pictures_are(serve, tracklets, pictures):
    client = serve()
    found = {match["id"]: match for match in client.post("/search", files={"image": pictures[0]}).json()["matches"]}
    assert found.keys() == {*tracklets}
    assert [len(found[id_]["strip"]) for id_ in tracklets] == [5, 1, 0]
    for id_, kept in zip(tracklets, (pictures[1:6], pictures[:1], []), strict=True):
        answers = [client.get(address) for address in found[id_]["strip"]]
        assert [answer.content for answer in answers] == kept
        assert {answer.headers["content-type"] for answer in answers} <= {"image/jpeg"}
        assert {answer.headers["cache-control"] for answer in answers} <= {"no-store"}
        # The row alone is told of in the same words.
        assert client.get(f"/images/{id_}").json().items() <= found[id_].items()


def test_the_last_sight_and_the_boxes_are_told(serve, tracklets):
    client = serve()
    whole, bare, _ = (client.get(f"/images/{id_}").json() for id_ in tracklets)
    assert datetime.fromisoformat(whole["time"]) == FIRST
    assert datetime.fromisoformat(whole["until"]) == FIRST + timedelta(seconds=7.4)
    assert {name: tuple(whole[name]) for name in BOXES} == BOXES
    assert (bare["until"], bare["first_box"], bare["last_box"]) == (None, None, None)


@pytest.mark.parametrize(
    ("number", "status"), [("5", 404), ("2147483647", 404), ("2147483648", 422), ("-1", 422), ("first", 422), ("", 404)]
)
def test_there_is_no_picture_beyond_the_last(serve, tracklets, number, status):
    client = serve()
    assert client.get(f"/images/{tracklets[0]}/strip/{number}").status_code == status
    assert client.get(f"/images/{tracklets[2]}/strip/0").status_code == 404


def test_an_erased_tracklet_has_no_pictures(serve, tracklets, pictures):
    client = serve()
    client.delete(f"/images/{tracklets[0]}")
    answer = client.get(f"/images/{tracklets[0]}/strip/0")
    assert (answer.status_code, answer.json()) == (404, {"detail": f"there is no image {tracklets[0]}"})


@pytest.mark.parametrize(("scope", "status"), [(None, 401), ("search", 200), ("write", 403), ("erase", 403)])
def test_strips_are_for_those_who_may_search(serve, access, bearer, tracklets, scope, status):
    client = serve(access=access)
    headers = bearer(scope) if scope else {}
    assert client.get(f"/images/{tracklets[0]}/strip/0", headers=headers).status_code == status
