"""What goes into a gallery is in it, once, and nothing else is."""

import multiprocessing
import random
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from reprism.embedding import DescriptorKind
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.search import Filter
from reprism.gallery.table import Gallery, GalleryError

KIND = DescriptorKind("ab" * 32, "p1[s2]", 8, True)


def entries(start, stop, **given):
    # Each descriptor depends on its number alone.
    return [
        Entry(f"/crops/{i}.jpg", np.random.default_rng(i).normal(size=8).astype(np.float32), f"/crops/{i}.jpg", **given)
        for i in range(start, stop)
    ]


def test_what_was_put_in_comes_out(tmp_path):
    taken = datetime(2024, 5, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))
    gallery = Gallery.create(tmp_path / "g", KIND)
    whole = Entry(
        "site/c1/t7", np.arange(1, 9, dtype=np.float32), "/a/b.jpg", "anna", "c1", taken, "t7", 12, "site", b"\xff\xd8"
    )
    bare = entries(0, 1)[0]
    before = datetime.now(UTC)
    assert gallery.add([whole, bare]) == 2
    row = Gallery.open(tmp_path / "g").get(row_id("site/c1/t7"))
    assert (row.key, row.path, row.pid, row.camid, row.tracklet, row.frames, row.source) == (
        "site/c1/t7", "/a/b.jpg", "anna", "c1", "t7", 12, "site",
    )  # fmt: skip
    assert row.time == taken
    assert before <= row.added <= datetime.now(UTC)
    assert gallery.thumbnail(row.id) == b"\xff\xd8"
    other = gallery.get(row_id(bare.key))
    assert (other.pid, other.camid, other.time, other.tracklet, other.frames, other.source) == (
        None, None, None, None, 1, None,
    )  # fmt: skip
    assert gallery.thumbnail(other.id) is None
    stored = gallery.descriptors([other.id, row.id])
    want = np.stack([bare.descriptor / np.linalg.norm(bare.descriptor), np.arange(1, 9) / np.sqrt(204)])
    np.testing.assert_allclose(stored, want, atol=1e-6)
    with pytest.raises(KeyError):
        gallery.get("0" * 32)


def test_what_is_known_of_a_tracklet_comes_out(tmp_path):
    gallery = Gallery.create(tmp_path / "g", KIND)
    first, last = datetime(2024, 5, 1, 12, tzinfo=UTC), datetime(2024, 5, 1, 12, 0, 7, tzinfo=UTC)
    boxes = {"first_box": (0.0, 0.25, 0.125, 0.75), "last_box": (0.5, 0.25, 0.625, 1.0)}
    gallery.add([*entries(0, 1, time=first, until=last, strip=(b"a", b"bc"), **boxes), *entries(1, 2, time=first)])
    whole, bare = (gallery.get(row_id(f"/crops/{number}.jpg")) for number in range(2))
    assert (whole.time, whole.until, whole.first_box, whole.last_box) == (first, last, *boxes.values())
    assert (bare.time, bare.until, bare.first_box, bare.last_box) == (first, None, None, None)
    assert [gallery.strip(row.id) for row in (whole, bare)] == [[b"a", b"bc"], []]
    assert gallery.strip_lengths([whole.id, bare.id, "0" * 32]) == {whole.id: 2}
    assert gallery.strip_lengths([]) == {}
    with pytest.raises(KeyError):
        gallery.strip("0" * 32)
    with pytest.raises(ValueError, match="no time zone"):
        gallery.add(entries(2, 3, until=datetime(2024, 5, 1)))


@pytest.fixture
def old_gallery(tmp_path):
    """A gallery as the first format had it."""
    gallery = Gallery.create(tmp_path / "old", KIND)
    gallery.add(entries(0, 5, camid="c1", thumbnail=b"x"))
    gallery.store.table.drop_columns(["until", "first_box", "last_box", "strip"])
    return Gallery.open(gallery.uri)


def test_a_gallery_of_the_first_format_is_read(old_gallery):
    (found,) = old_gallery.search(entries(3, 4)[0].descriptor[None], top=5)
    assert found[0].key == "/crops/3.jpg"
    assert len(old_gallery.rows()) == 5
    assert old_gallery.get(found[0].id).until is None
    assert old_gallery.strip(found[0].id) == []
    assert old_gallery.strip_lengths([found[0].id]) == {}
    assert "until" not in old_gallery.store.table.schema.names  # it was looked at only


@pytest.mark.parametrize("change", ["add", "compact", "erase", "compress"])
def test_a_gallery_of_the_first_format_is_changed(old_gallery, change):
    before = {row.key: row for row in old_gallery.rows()}
    last = datetime(2024, 5, 1, tzinfo=UTC)
    if change == "compact":
        old_gallery.compact()
    elif change == "erase":
        old_gallery.erase(ids=[row_id("/crops/4.jpg")])
        before.pop("/crops/4.jpg")
    elif change == "compress":
        old_gallery.compress(4)
    old_gallery.add(entries(7, 8, until=last, strip=(b"a",)))
    found = {row.key: row for row in Gallery.open(old_gallery.uri).rows()}
    assert found.pop("/crops/7.jpg").until == last
    assert found == before
    assert old_gallery.strip(row_id("/crops/7.jpg")) == [b"a"]
    assert old_gallery.thumbnail(row_id("/crops/0.jpg")) == b"x"


def test_a_key_is_in_once(tmp_path):
    gallery = Gallery.create(tmp_path / "g", KIND)
    assert gallery.add(entries(0, 10, pid="first")) == 10
    assert gallery.add(entries(5, 15, pid="second") + entries(12, 20)) == 10
    assert gallery.add([]) == 0
    assert sorted(gallery.keys()) == sorted(f"/crops/{i}.jpg" for i in range(20))
    assert gallery.get(row_id("/crops/7.jpg")).pid == "first"
    assert gallery.has(["/crops/3.jpg", "/crops/33.jpg"]) == {"/crops/3.jpg"}
    many = [f"/crops/{i}.jpg" for i in range(10, 5000)]
    assert gallery.has(many) == set(many[:10])


def test_bad_entries_change_nothing(tmp_path):
    gallery = Gallery.create(tmp_path / "g", KIND)
    good = entries(0, 1)[0]
    for descriptor, complaint in (
        (np.ones(7, np.float32), "entry 1 is of shape"),
        (np.ones(8, np.int64), "floating-point"),
        (np.zeros(8, np.float32), "entry 1 is all zeros"),
        (np.full(8, np.nan, np.float32), "entry 1 .* not finite"),
    ):
        with pytest.raises(ValueError, match=complaint):
            gallery.add([good, Entry("other", descriptor, "other")])
    with pytest.raises(ValueError, match="no time zone"):
        gallery.add([good, Entry("other", good.descriptor, "other", time=datetime(2024, 1, 1))])
    assert len(gallery) == 0


def test_another_model_is_refused_by_name(tmp_path):
    Gallery.create(tmp_path / "g", KIND)
    Gallery.open(tmp_path / "g", KIND)
    with pytest.raises(GalleryError, match=r"abababababab.*cdcdcdcdcdcd"):
        Gallery.open(tmp_path / "g", DescriptorKind("cd" * 32, "p1[s2]", 8, True))
    with pytest.raises(GalleryError, match=r"flip=True.*flip=False"):
        Gallery.open(tmp_path / "g", DescriptorKind("ab" * 32, "p1[s2]", 8, False))


def test_places_that_are_no_gallery(tmp_path):
    with pytest.raises(GalleryError, match="no gallery at"):
        Gallery.open(tmp_path)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("…")
    with pytest.raises(GalleryError, match="something else"):
        Gallery.create(tmp_path / "letters", KIND)
    Gallery.create(tmp_path / "g", KIND)
    with pytest.raises(GalleryError, match="already"):
        Gallery.create(tmp_path / "g", KIND)
    with pytest.raises(GalleryError, match="int8"):
        Gallery.create(tmp_path / "h", KIND, storage="int8")
    # What a creation leaves that was killed before its last step.
    (tmp_path / "half" / "rows.lance" / "data").mkdir(parents=True)
    assert not Gallery.exists(tmp_path / "half")
    assert Gallery.create(tmp_path / "half", KIND).add(entries(0, 3)) == 3


def test_another_database_is_no_gallery(tmp_path):
    import lancedb

    lancedb.connect(tmp_path / "db").create_table("rows", [{"a": 1}])
    with pytest.raises(GalleryError, match="not a gallery"):
        Gallery.open(tmp_path / "db")


def test_a_handle_sees_what_others_write(tmp_path):
    one = Gallery.create(tmp_path / "g", KIND)
    other = Gallery.open(tmp_path / "g")
    one.add(entries(0, 40))
    assert len(other) == 40
    other.erase(ids=[row_id("/crops/3.jpg")])
    assert len(one) == 39
    one.compress(4)
    assert other.dim == 4
    assert other.search(entries(5, 6)[0].descriptor, top=1)[0][0].path == "/crops/5.jpg"


def test_stats_count(tmp_path):
    gallery = Gallery.create(tmp_path / "g", KIND)
    nothing = gallery.stats()
    assert (nothing["rows"], nothing["identities"], nothing["first"], nothing["index"]) == (0, 0, None, None)
    hour = [datetime(2024, 1, 1, h, tzinfo=UTC) for h in range(3)]
    gallery.add(entries(0, 3, pid="a", camid="1", time=hour[1]) + entries(3, 5, pid="b", camid="2", time=hour[2]))
    gallery.add(entries(5, 6, time=hour[0]))
    stats = gallery.stats()
    assert (stats["rows"], stats["identities"], stats["cameras"]) == (6, 2, {"1": 3, "2": 2})
    assert (stats["first"], stats["last"]) == (hour[0], hour[2])
    assert stats["bytes"] == sum(f.stat().st_size for f in (tmp_path / "g").rglob("*") if f.is_file())
    assert {row.path for row in gallery.rows(Filter(pids=("b",)))} == {"/crops/3.jpg", "/crops/4.jpg"}
    assert len(gallery.rows(limit=2)) == 2


WRITER = """
import sys
from reprism.gallery.table import Gallery
sys.path.insert(0, {folder!r})
from test_table import KIND, entries
gallery = Gallery.open({root!r}, KIND)
started.set()
for start in range(0, 600, 25):
    gallery.add(entries(start, start + 25))
    if start % 100 == 0:
        gallery.optimize()
"""

# A server that has torch already gives away processes at once; LanceDB is loaded in each of them only.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["reprism.gallery.table"])


def start_writer(root):
    code = WRITER.format(folder=str(Path(__file__).parent), root=str(root))
    started = PROCESSES.Event()
    writer = PROCESSES.Process(target=exec, args=(code, {"started": started}))
    writer.start()
    assert started.wait(600)
    return writer


@pytest.mark.slow
def test_killed_at_any_moment_every_entry_is_in_once(tmp_path):
    """Writers are killed as they go; what is there is always whole, and one more run completes it."""
    root, rng, kills = tmp_path / "g", random.Random(0), 0
    gallery = Gallery.create(root, KIND)
    for _ in range(12):
        writer = start_writer(root)
        time.sleep(rng.uniform(0, 0.4))
        writer.kill()
        writer.join()
        kills += writer.exitcode == -signal.SIGKILL
        count = Counter(gallery.keys())
        assert set(count.values()) <= {1}
        assert len(count) % 25 == 0  # a batch is in, or it is not
    assert kills
    writer = start_writer(root)
    writer.join()
    assert writer.exitcode == 0
    assert Counter(gallery.keys()) == Counter(f"/crops/{i}.jpg" for i in range(600))
    want = np.stack([e.descriptor / np.linalg.norm(e.descriptor) for e in entries(0, 600)])
    np.testing.assert_allclose(gallery.descriptors([row_id(f"/crops/{i}.jpg") for i in range(600)]), want, atol=1e-6)


@pytest.mark.slow
def test_writers_at_the_same_time_take_turns(tmp_path):
    gallery = Gallery.create(tmp_path / "g", KIND)
    writers = [start_writer(tmp_path / "g") for _ in range(3)]
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert Counter(gallery.keys()) == Counter(f"/crops/{i}.jpg" for i in range(600))
