"""What is erased is gone: from every answer, and from every file."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from reprism.embedding import DescriptorKind
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery

KIND = DescriptorKind("ab" * 32, "p1", 64, True)
NOW = datetime.now(UTC)


def picture(number):
    return np.random.default_rng(number).bytes(400)  # what no compression makes shorter


def descriptor(number):
    row = np.random.default_rng(1000 + number).normal(size=64).astype(np.float32)
    return row / np.linalg.norm(row)


def fill(root, count=400):
    gallery = Gallery.create(root, KIND)
    gallery.add(
        Entry(
            f"secret-key-{n:05}", descriptor(n), f"/secret-path-{n:05}",
            pid=f"secret-pid-{n // 4:05}", camid=f"c{n % 3}",
            time=NOW - timedelta(days=n) if n % 2 else None, thumbnail=picture(n),
        )
        for n in range(count)
    )  # fmt: skip
    return gallery


def traces(root, number):
    """The files in which something of a row is left: its picture, its descriptor, its names, its id."""
    marks = [
        picture(number)[:40],
        descriptor(number).tobytes()[:40],
        f"secret-path-{number:05}".encode(),
        f"secret-key-{number:05}".encode(),
        row_id(f"secret-key-{number:05}").encode(),
        f"secret-pid-{number // 4:05}".encode(),
    ]
    return [f for f in root.rglob("*") if f.is_file() and any(mark in f.read_bytes() for mark in marks)]


@pytest.mark.parametrize("indexed", [False, True])
def test_no_byte_is_left_on_disk(tmp_path, indexed, monkeypatch):
    monkeypatch.setattr("reprism.gallery.upkeep.EXACT_ROWS", 100)
    root = tmp_path / "g"
    gallery = fill(root)
    if indexed:
        gallery.optimize()
        assert gallery.index()["indexed"] == 400
    assert traces(root, 9)
    assert gallery.erase(pids=["secret-pid-00002"]) == 4  # a hundredth: less than Lance's own compaction bothers about
    assert len(gallery) == 396
    for number in range(8, 12):
        assert traces(root, number) == []
    assert traces(root, 12)
    assert gallery.search(descriptor(9), top=1)[0][0].distance > 0.1
    assert (gallery.index() or {"indexed": None})["indexed"] == (396 if indexed else None)


def test_a_search_index_forgets_the_rows_too(tmp_path, monkeypatch):
    """The files of an index that held the row are other files afterwards, and none is from before."""
    monkeypatch.setattr("reprism.gallery.upkeep.EXACT_ROWS", 100)
    root = tmp_path / "g"
    gallery = fill(root)
    gallery.optimize()
    before = {f for f in root.rglob("*") if f.is_file() and f.name not in (".writing", ".confirmed")}
    gallery.erase(ids=[row_id("secret-key-00009")])
    after = {f for f in root.rglob("*") if f.is_file()}
    assert {f.parent.parent.name for f in after if f.suffix in (".idx", ".lance")} >= {"_indices", "rows.lance"}
    assert before & after == set() or {f.name for f in before & after} <= {"latest_version_hint.json"}


def test_an_erasure_that_was_interrupted_is_finished_later(tmp_path):
    root = tmp_path / "g"
    gallery = fill(root)
    assert gallery.erase(ids=[row_id("secret-key-00009")], compact=False) == 1
    assert len(gallery) == 399
    assert traces(root, 9)
    assert gallery.stats()["erasing"]
    again = Gallery.open(root)
    assert again.erase(ids=[row_id("secret-key-00009")]) == 0
    assert not [f for f in traces(root, 9) if picture(9)[:40] in f.read_bytes()]
    assert not again.stats()["erasing"]
    assert len(again) == 399


def test_retention_goes_by_the_time_taken_or_else_by_the_time_added(tmp_path):
    gallery = fill(tmp_path / "g", 100)
    gone = gallery.erase(older_than=NOW - timedelta(days=30, hours=1))
    assert gone == len([n for n in range(100) if n % 2 and n > 30])
    assert {row.key for row in gallery.rows()} == {f"secret-key-{n:05}" for n in range(100) if n % 2 == 0 or n <= 30}
    assert gallery.erase(older_than=datetime.now(UTC) + timedelta(seconds=1)) == 100 - gone
    assert len(gallery) == 0
    gallery.add([Entry("new", descriptor(1), "new")])
    assert len(gallery) == 1


def test_what_would_go_is_what_goes(tmp_path):
    """Rows that meet several conditions count once, however they are asked for."""
    gallery = fill(tmp_path / "g", 2400)
    ids = [row_id(f"secret-key-{n:05}") for n in range(1200)]
    chosen = {"ids": [*ids, "unknown"], "pids": ["secret-pid-00001", "secret-pid-00400"]}
    chosen["older_than"] = NOW - timedelta(days=2300, hours=1)
    found = gallery.erasable(**chosen)
    expected = {n for n in range(2400) if n < 1200 or n // 4 == 400 or (n % 2 and n > 2300)}
    assert found.ids == sorted(row_id(f"secret-key-{n:05}") for n in expected)
    assert found.paths == [gallery.get(row).path for row in found.ids[:3]] + found.paths[3:]
    assert found.cameras == {f"c{c}": len([n for n in expected if n % 3 == c]) for c in range(3)}
    assert found.identities["secret-pid-00400"] == 4
    assert sum(found.identities.values()) == len(found) == len(expected)
    times = [NOW - timedelta(days=n) for n in expected if n % 2]
    assert (found.first, found.last) == (min(times), max(times))
    assert len(gallery) == 2400
    assert gallery.erase(**chosen, compact=False) == len(expected)
    assert gallery.erasable(**chosen).ids == gallery.erasable().ids == []


def test_nothing_is_erased_by_nothing(tmp_path):
    gallery = fill(tmp_path / "g", 20)
    assert gallery.erase() == 0
    assert gallery.erase(ids=["x' OR 1=1 --"], pids=["' OR '1'='1"]) == 0
    assert len(gallery) == 20
