"""People over HTTP: who may see them, what is answered, decided and noted, and how they are kept up to date."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import reprism
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery
from reprism.linking.gallery_people import link_gallery

NOW = datetime.now(UTC).replace(microsecond=0)
WAYS = {"a": 0.0, "b": 40.0, "c": 90.0}  # seconds from the camera before


def walkers(dim: int, people: int = 120, seed: int = 0) -> list[Entry]:
    """Tracklets of people who pass a, then b, then c within the last six hours."""
    rng = np.random.default_rng(seed)
    found = []
    for person, start in enumerate(rng.uniform(0, 20_000, people)):
        looks, time = rng.normal(size=dim), start
        for camera, way in WAYS.items():
            time += rng.normal(way, way / 5) if way else 0.0
            if rng.random() < 0.85:
                key, at = f"walk-{seed}-{person}-{camera}", NOW - timedelta(hours=6) + timedelta(seconds=time)
                row = (looks + 0.35 * rng.normal(size=dim)).astype(np.float32)
                found.append(Entry(key, row, key, None, camera, at, key, 5, until=at + timedelta(seconds=1)))
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory, model_file):
    """A gallery whose people were found, to be copied."""
    embedder = reprism.Embedder(model_file, precision="fp32", device="cpu")
    gallery = Gallery.create(tmp_path_factory.mktemp("site") / "gallery", embedder)
    gallery.add(walkers(gallery.descriptor_dim))
    gallery.enable_linking("find lost children", 30)
    link_gallery(gallery)
    return gallery


@pytest.fixture
def gallery(tmp_path, site) -> Gallery:
    """A copy of it, which the services of this file serve."""
    shutil.copytree(site.uri, tmp_path / "gallery")
    return Gallery.open(tmp_path / "gallery")


def audited(tmp_path):
    return list(map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines()))


def test_people_are_those_of_the_gallery(serve, gallery):
    client = serve()
    expected = gallery.people()
    answer = client.get("/people", params={"limit": 200}).json()
    assert answer["total"] == len(expected) > 100
    assert [one["id"] for one in answer["people"]] == [one.id for one in expected]
    for found, person in zip(answer["people"], expected, strict=True):
        assert found["rows"] == len(person.rows)
        assert found["cameras"] == list(person.cameras)
        assert datetime.fromisoformat(found["first"]) == person.first
        assert datetime.fromisoformat(found["last"]) == person.last
        assert found["confidence"] == pytest.approx(person.confidence)
        assert found["faces"] == list(person.rows[:6])  # nobody has more
    page = client.get("/people", params={"offset": 7, "limit": 3}).json()
    assert page == {"total": len(expected), "people": answer["people"][7:10]}
