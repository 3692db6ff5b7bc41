"""People who walk a site of three cameras, as items and as galleries."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from reprism.data.records import Sample
from reprism.embedding import DescriptorKind
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery

WAYS = {("a", "b"): 40.0, ("b", "c"): 90.0}  # seconds from camera to camera
KIND = DescriptorKind("ab" * 32, "p1", 32, True)
NOW = datetime.now(UTC).replace(microsecond=0)


def _site(people=150, noise=0.55, seed=0):
    """People who pass a, then b, then c; they look alike from camera to camera, and somewhat like others."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(people, 32))
    items, rows = [], []
    for person, start in enumerate(rng.uniform(0, 20_000, people)):
        time = start
        for place in "abc":
            if place != "a":
                time += rng.normal(WAYS[chr(ord(place) - 1), place], 5)
            if rng.random() < 0.85:
                items.append(Sample(f"{person}-{place}.jpg", person + 1, place, time, "day"))
                rows.append(looks[person] + noise * 2 * rng.normal(size=32))
    rows = np.array(rows, np.float32)
    order = rng.permutation(len(items))
    items = [items[index] for index in order]
    return rows[order] / np.linalg.norm(rows[order], axis=1, keepdims=True), items


@pytest.fixture(scope="session")
def walks_of() -> Callable:
    """Return descriptors and items of people who walk by, as many as asked for."""
    return _site


def walkers(people: int = 150, noise: float = 0.55, seed: int = 0) -> list[Entry]:
    """Tracklets of people who pass a, then b, then c within the last six hours; their pid is the truth."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(people, 32))
    found = []
    for person, start in enumerate(rng.uniform(0, 20_000, people)):
        time = start
        for place in "abc":
            time += 0 if place == "a" else rng.normal(WAYS[chr(ord(place) - 1), place], 5)
            if rng.random() < 0.85:
                key, at = f"walk-{person}-{place}", NOW - timedelta(hours=6) + timedelta(seconds=time)
                row = (looks[person] + noise * 2 * rng.normal(size=32)).astype(np.float32)
                found.append(Entry(key, row, key, f"{person}", place, at, key, 5, until=at + timedelta(seconds=1)))
    return [found[index] for index in rng.permutation(len(found))]


@pytest.fixture(scope="session")
def seen() -> list[Entry]:
    return walkers()


@pytest.fixture
def gallery_of(tmp_path) -> Callable[..., Gallery]:
    """Makes a gallery of entries, for which linking is on."""

    def make(entries: list[Entry], name: str = "site", *, on: bool = True) -> Gallery:
        gallery = Gallery.create(tmp_path / name, KIND)
        gallery.add(entries)
        if on:
            gallery.enable_linking("find lost children", 30)
        return gallery

    return make
