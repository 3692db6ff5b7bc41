"""From files to rows: everything that can be read is in, once, under its own name."""

import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reprism
from reprism.data.records import DataError
from reprism.gallery.indexing import THUMBNAIL_HEIGHT, index_images
from reprism.gallery.inputs import IndexItem, find_items
from reprism.gallery.rows import row_id
from reprism.gallery.table import Gallery, GalleryError


@pytest.fixture(scope="module")
def embedder(model_file) -> reprism.Embedder:
    return reprism.Embedder(model_file, batch_size=8, precision="fp32", device="cpu")


def stored(gallery: Gallery, keys: list[str]) -> np.ndarray:
    return gallery.descriptors([row_id(key) for key in keys])


# ---- what inputs name ------------------------------------------------------------------------------------


def test_images_and_folders_are_found_by_their_absolute_paths(people, monkeypatch):
    monkeypatch.chdir(people)
    folder = people / "query"
    found = find_items(["query", "query/../query", folder / "0001_c1s2_002302_00.jpg", folder], source="yard")
    assert [sighting.key for sighting in found] == sorted(str(path) for path in folder.glob("*.jpg"))
    assert {(s.pid, s.camid, s.tracklet, s.source) for s in found} == {(None, None, None, "yard")}


def test_a_loop_of_links_is_an_image_that_cannot_be_read(tmp_path, embedder):
    Image.new("RGB", (32, 64)).save(tmp_path / "a.png")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "round").symlink_to("round")
    found = find_items([tmp_path])
    assert [Path(sighting.key).name for sighting in found] == ["a.png", "loop.jpg"]
    gallery = Gallery.create(tmp_path / "g", embedder)
    outcome = index_images(gallery, embedder, found)
    assert outcome.added == 1
    assert outcome.unreadable == [(str(tmp_path / "loop.jpg"), "Too many levels of symbolic links")]
    with pytest.raises(DataError, match=r"round is no image .*: it is a link that leads nowhere\."):
        find_items([tmp_path / "round"])


def test_names_say_who_and_where_and_junk_is_passed_over(people):
    found = find_items([people / "bounding_box_test"], naming="market1501")
    names = [Path(sighting.key).name for sighting in found]
    assert not [name for name in names if name.startswith("-1")]
    for sighting, name in zip(found, names, strict=True):
        pid = str(int(name[:4]))
        assert sighting.pid == (None if pid == "0" else pid)
        assert sighting.camid == name[name.index("_c") + 2]
    with pytest.raises(DataError, match=r"not of DukeMTMC.*query"):
        find_items([people / "query"], naming="dukemtmc")


def test_a_table_gives_images_and_tracklets(tmp_path):
    table = tmp_path / "seen.csv"
    table.write_text(
        "path,pid,camid,time,tracklet,frame\n"
        "a.jpg,anna,1,2024-05-01T12:00:00+02:00,,\n"
        "b.jpg,,2,2024-05-01T12:00:00,,\n"
        "t/10.jpg,ben,1,2024-05-01T00:00:10Z,7,10\n"
        "t/9.jpg,ben,1,2024-05-01T00:00:09Z,7,9\n"
        "u/9.jpg,,2,,7,9\n"
    )
    first, second, track, other = find_items([table])
    ten = datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert first == IndexItem(str(tmp_path / "a.jpg"), (str(tmp_path / "a.jpg"),), "anna", "1", ten)
    assert (second.pid, second.time) == (None, datetime(2024, 5, 1, 12, tzinfo=UTC))
    assert track.key == f"{tmp_path}/1/7"
    assert [Path(path).name for path in track.paths] == ["9.jpg", "10.jpg"]
    assert (track.pid, track.camid, track.tracklet) == ("ben", "1", "7")
    assert track.time == datetime(2024, 5, 1, 0, 0, 9, tzinfo=UTC)
    assert (other.key, other.camid, other.pid) == (f"{tmp_path}/2/7", "2", None)
    assert find_items([table], source="yard")[2].key == "yard/1/7"


def test_junk_of_a_table_is_passed_over_and_distractors_are_nobody(tmp_path):
    (tmp_path / "t.csv").write_text(
        "path,pid,role\na.jpg,anna,\nb.jpg,,junk\nc.jpg,ben,distractor\n"
        "-1_c3s2_000901_04.jpg,-1,\n0000_c1s1_000151_01.jpg,0,\nd.jpg,0,\n"
    )
    found = {Path(sighting.key).name: sighting.pid for sighting in find_items([tmp_path / "t.csv"])}
    assert found == {"a.jpg": "anna", "c.jpg": None, "0000_c1s1_000151_01.jpg": None, "d.jpg": "0"}


def test_frames_that_are_files_of_a_folder_are_in_the_order_of_their_numbers(tmp_path):
    names = ["f1.jpg", "f2.jpg", "f10.jpg", "f100.jpg"]
    for name in names:
        (tmp_path / name).touch()
    (track,) = find_items([tmp_path], tracks=True)
    assert [Path(path).name for path in track.paths] == names


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("path,tracklet,frame\na.jpg,1,9\nb.jpg,1,f10\n", "the tracklet 1: the frame '9' is a number and 'f10' is not"),
        ("path,time\na.jpg,yesterday\n", "line 2: the time 'yesterday'"),
        ("pid\nanna\n", "no column path"),
        ("path,pid,tracklet\na.jpg,anna,1\nb.jpg,ben,1\n", "line 3: the identity 'ben', but 'anna' in line 2"),
        ("path\na\0b\n", "null character"),
        ("path,pid\n", "no row"),
    ],
)
def test_tables_that_cannot_be_right(tmp_path, rows, complaint):
    (tmp_path / "t.csv").write_text(rows)
    with pytest.raises(DataError, match=complaint):
        find_items([tmp_path / "t.csv"])


def test_inputs_that_are_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        find_items([tmp_path / "empty"])
    with pytest.raises(DataError, match="no such file"):
        find_items([tmp_path / "gone"])
    with pytest.raises(ValueError, match="nothing to put in"):
        find_items([])


# ---- from items to rows ------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 2])
def test_rows_are_what_the_embedder_makes_of_the_files(tmp_path, people, embedder, threads):
    gallery = Gallery.create(tmp_path / "g", embedder)
    items = find_items([people / "query"], naming="market1501")
    seen = []
    outcome = index_images(
        gallery, embedder, items, threads=threads, progress=lambda done, total: seen.append((done, total))
    )
    keys = [sighting.key for sighting in items]
    assert (outcome.added, outcome.already, outcome.unreadable) == (len(keys), 0, [])
    assert seen[-1] == (len(keys), len(keys))
    np.testing.assert_allclose(stored(gallery, keys), embedder.embed(keys), atol=1e-5)
    row = gallery.get(row_id(keys[0]))
    assert (row.pid, row.camid, row.path, row.frames) == (items[0].pid, items[0].camid, keys[0], 1)


def test_what_cannot_be_read_is_listed_and_the_rest_is_in(tmp_path, people, embedder):
    good = sorted((people / "query").glob("*.jpg"))[:5]
    (tmp_path / "torn.jpg").write_bytes(good[0].read_bytes()[:300])
    paths = [*good[:2], tmp_path / "torn.jpg", *good[2:], tmp_path / "gone.jpg"]
    gallery = Gallery.create(tmp_path / "g", embedder)
    outcome = index_images(gallery, embedder, find_items(paths))
    assert outcome.added == 5
    assert {Path(path).name: bool(reason) for path, reason in outcome.unreadable} == {
        "torn.jpg": True,
        "gone.jpg": True,
    }
    again = index_images(gallery, embedder, find_items(paths))
    assert (again.added, again.already, len(again.unreadable)) == (0, 5, 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_hostile_files_of_a_table_are_listed_and_the_rest_is_in(tmp_path, embedder):
    """A pipe would be waited for for ever; a picture of one by 33 million pixels, 65 kB, takes gigabytes to resize."""
    Image.new("RGB", (32, 64)).save(tmp_path / "good.png")
    Image.new("1", (1, 2**25)).save(tmp_path / "thin.png")
    assert (tmp_path / "thin.png").stat().st_size < 100_000
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "table.csv").write_text("path\npipe.jpg\nthin.png\ngood.png\n")
    gallery = Gallery.create(tmp_path / "g", embedder)
    outcome = index_images(gallery, embedder, find_items([tmp_path / "table.csv"]))
    assert [Path(path).name for path, _ in outcome.unreadable] == ["pipe.jpg", "thin.png"]
    assert [Path(row.key).name for row in gallery.rows()] == ["good.png"]


def test_a_track_is_the_mean_of_its_frames_less_those_unreadable(tmp_path, people, embedder):
    frames = sorted(str(path) for path in (people / "bounding_box_train").glob("*.jpg"))[:6]
    gone = str(tmp_path / "gone.jpg")
    gallery = Gallery.create(tmp_path / "g", embedder)
    tracks = [IndexItem("t", (*frames[:3], gone, *frames[3:]), tracklet="t"), IndexItem("u", (gone,), tracklet="u")]
    outcome = index_images(gallery, embedder, [*tracks, IndexItem("v", tuple(frames), tracklet="v")], frames=3)
    assert outcome.added == 2
    assert [path for path, _ in outcome.unreadable] == [gone]  # of t it was not among the three looked at
    mean = embedder.embed([frames[0], frames[2], frames[3]]).mean(0)
    np.testing.assert_allclose(stored(gallery, ["t"])[0], mean / np.linalg.norm(mean), atol=1e-5)
    row = gallery.get(row_id("t"))
    assert (row.frames, row.path, row.tracklet) == (7, frames[0], "t")


def test_what_is_there_is_not_decoded_again(tmp_path, people, embedder, monkeypatch):
    gallery = Gallery.create(tmp_path / "g", embedder)
    items = find_items([people / "query"])
    index_images(gallery, embedder, items[:4])
    read = []
    original = __import__("reprism.gallery.indexing", fromlist=["read_image"]).read_image
    monkeypatch.setattr("reprism.gallery.indexing.read_image", lambda path: read.append(path) or original(path))
    outcome = index_images(gallery, embedder, items)
    assert (outcome.already, outcome.added) == (4, len(items) - 4)
    assert sorted(read) == sorted(sighting.key for sighting in items[4:])


def test_thumbnails_are_small_and_can_be_left_out(tmp_path, embedder):
    Image.new("RGB", (500, 1000), (200, 30, 30)).save(tmp_path / "red.png")
    keys = [str(tmp_path / "red.png")]
    for name, wanted in (("with", True), ("without", False)):
        gallery = Gallery.create(tmp_path / name, embedder)
        index_images(gallery, embedder, find_items(keys), thumbnails=wanted)
        content = gallery.thumbnail(row_id(keys[0]))
        assert (content is not None) == wanted
        if content is not None:
            with Image.open(io.BytesIO(content)) as picture:
                assert (picture.format, picture.size) == ("JPEG", (THUMBNAIL_HEIGHT // 2, THUMBNAIL_HEIGHT))
                assert picture.getpixel((10, 10))[0] > 150


def test_another_embedder_is_refused(tmp_path, model_file, embedder):
    gallery = Gallery.create(tmp_path / "g", embedder)
    with pytest.raises(GalleryError, match="flip"):
        index_images(gallery, reprism.Embedder(model_file, flip=False, device="cpu"), [])


def test_an_error_in_writing_is_raised(tmp_path, people, embedder, monkeypatch):
    gallery = Gallery.create(tmp_path / "g", embedder)

    def full(entries):
        raise OSError("no space left")

    monkeypatch.setattr(gallery, "add", full)
    with pytest.raises(OSError, match="no space"):
        index_images(gallery, embedder, find_items([people / "query"]))


@pytest.mark.slow
def test_killed_while_indexing_and_run_again(tmp_path, people, model_file, embedder):
    command = [sys.executable, "-m", "reprism", "index", str(people / "bounding_box_train"), "--model", str(model_file)]
    command += ["--gallery", str(tmp_path / "g"), "--batch-size", "4", "--precision", "fp32", "--device", "cpu"]
    for attempt in range(3):
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while run.poll() is None and not Gallery.exists(tmp_path / "g"):
            time.sleep(0.01)
        time.sleep(0.05 * attempt)
        os.kill(run.pid, signal.SIGKILL) if run.poll() is None else None
        run.wait()
    subprocess.run(command, check=True, capture_output=True)
    keys = sorted(str(path) for path in (people / "bounding_box_train").glob("*.jpg"))
    gallery = Gallery.open(tmp_path / "g", embedder)
    assert Counter(gallery.keys()) == Counter(keys)
    np.testing.assert_allclose(stored(gallery, keys), embedder.embed(keys), atol=1e-5)
