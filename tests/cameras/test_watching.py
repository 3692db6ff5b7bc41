"""From videos to rows of a gallery: a row for each tracklet, with its camera, time and picture, and each once."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import reprism
from reprism.cameras import DetectorError, Frame, SourceError, TrackerError, evaluate_tracks, read_tracks, watching
from reprism.cameras.crops import cut
from reprism.cameras.views import check_view
from reprism.cameras.watching import View, watch
from reprism.cli import main
from reprism.cli.watch_display import Rates, lines_of
from reprism.gallery.camera_settings import CameraSettings
from reprism.gallery.indexing import make_thumbnail
from reprism.gallery.table import Gallery

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
FPS = 10
SIZE = (96, 160)
COLORS = [(220, 30, 30), (30, 200, 40), (40, 60, 230), (220, 200, 30)]
# Who is in view when (frames, the last one included), and from where to where the middle of the box moves.
PEOPLE = [(5, 35, 20, 140), (10, 40, 140, 20), (55, 80, 30, 120), (84, 99, 40, 90)]


def truth():
    """Yield frame, person and box (left, top, right, bottom) of people who walk by one behind the other."""
    for who, (first, last, start, end) in enumerate(PEOPLE):
        for index in range(first, last + 1):
            middle = start + (end - start) * (index - first) / (last - first)
            yield index, who, (middle - 9, 20 + 3 * who, middle + 9, 74 + 3 * who)


def drawn():
    """Return a hundred frames: coloured people, the first before the second, with stripes to be sharp."""
    rng = np.random.default_rng(0)
    frames = np.clip(rng.normal(120, 6, (100, *SIZE, 3)), 0, 255).astype(np.uint8)
    for index, who, (left, top, right, bottom) in sorted(truth(), key=lambda one: -one[1]):
        frames[index, top:bottom, round(left) : round(right)] = COLORS[who]
        frames[index, top:bottom:6, round(left) : round(right)] //= 2
    return list(frames)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    net = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(64, 32))
    net.train()(torch.randn(8, 3, 64, 32))
    return reprism.save(net.eval(), tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture(scope="module")
def embedder(model):
    return reprism.Embedder(model, precision="fp32", device="cpu", engine="torch", batch_size=16)


@pytest.fixture
def street(tmp_path, write_video):
    """A video, and a file of the true boxes."""
    video = write_video(
        tmp_path / "street.mp4", drawn(), options={"crf": "10"}, metadata={"creation_time": START.isoformat()}
    )
    rows = "".join(f"{index},{','.join(map(str, box))},{who}\n" for index, who, box in sorted(truth()))
    (tmp_path / "boxes.csv").write_text(f"frame,left,top,right,bottom,id\n{rows}")
    return video


def view(video, camera="street", **more):
    return View(video, camera, detector=f"boxes:{video.parent / 'boxes.csv'}", **more)


class Truth:
    """A tracker that knows: the boxes of a frame are sorted by person."""

    def __call__(self, frame, boxes):
        return np.array([who for index, who, _ in sorted(truth()) if index == frame.index], int)


def rows_of(gallery):
    return sorted(gallery.rows(), key=lambda row: row.time)


def test_boxes_are_written_as_the_truth_has_them(tmp_path, street, embedder):
    """Watched with the true boxes by a tracker that knows, they equal the truth by every figure."""
    (tmp_path / "site" / "street" / "gt").mkdir(parents=True)
    lines = [
        f"{index + 1},{who + 1},{left + 1},{top + 1},{right - left},{bottom - top},1,1,1\n"
        for index, who, (left, top, right, bottom) in sorted(truth())
    ]
    (tmp_path / "site" / "street" / "gt" / "gt.txt").write_text("".join(lines))
    gallery = Gallery.create(tmp_path / "g", embedder)
    watch(gallery, embedder, [view(street, "a gate")], tracker=Truth, boxes=tmp_path / "tracks")
    found = evaluate_tracks(read_tracks(tmp_path / "site"), read_tracks(tmp_path / "tracks"))
    assert list(found.cameras) == ["street"]
    assert (found.overall.hota, found.overall.idf1, found.overall.mota) == pytest.approx((1, 1, 1), abs=1e-3)
    written = (tmp_path / "tracks" / "street.txt").read_text().splitlines()
    index, who, box = min(truth())
    assert written[0].split(",")[:2] == [str(index + 1), str(who + 1)]
    assert [float(value) for value in written[0].split(",")[2:6]] == pytest.approx(
        [box[0] + 1, box[1] + 1, box[2] - box[0], box[3] - box[1]], abs=0.01
    )


def test_regions_are_left_out_and_clocks_set_right(tmp_path, street, embedder):
    """The lower edges of the first two people's boxes are above the fourth's, which alone is left out."""
    picture = np.zeros(SIZE, np.uint8)
    picture[81:84] = 255
    Image.fromarray(picture).save(tmp_path / "view.png")
    gallery = Gallery.create(tmp_path / "g", embedder)
    of_street = view(street, clock_ahead=90.5, ignore=tmp_path / "view.png")
    watch(gallery, embedder, [of_street], tracker="bytetrack", boxes=tmp_path / "tracks")
    firsts = [min(index for index, each, _ in truth() if each == who) for who in range(3)]
    late = [(row.time - START).total_seconds() + 90.5 for row in rows_of(gallery)]
    assert late == pytest.approx([first / FPS for first in firsts], abs=0.45)  # the first sure sight
    with pytest.raises(ValueError, match="this machine's clock"):
        watch(gallery, embedder, [View("rtsp://127.0.0.1:1/x", "live", clock_ahead=3)])
    with pytest.raises(DetectorError, match="expected a picture"):
        watch(gallery, embedder, [view(street, ignore=tmp_path / "boxes.csv")])


def test_cameras_are_watched_as_the_gallery_has_them(tmp_path, street, embedder):
    """By its clock and its mask; what a source has of its own goes before."""
    gallery, other = Gallery.create(tmp_path / "g", embedder), Gallery.create(tmp_path / "other", embedder)
    mask = np.zeros(SIZE, np.uint8)
    mask[81:84] = 255
    Image.fromarray(mask).save(tmp_path / "view.png")
    settings = CameraSettings(60, (tmp_path / "view.png").read_bytes())
    for each in (gallery, other):
        each.set_camera("street", settings)
    watch(gallery, embedder, [view(street)])
    times = [row.time for row in rows_of(gallery)]
    first = START + timedelta(seconds=PEOPLE[0][0] / FPS)
    assert len(times) == 3
    assert timedelta(0) <= times[0] - (first - timedelta(seconds=60)) < timedelta(seconds=0.5)  # the first sure sight
    assert gallery.set_camera("street", settings) == 0  # its rows are right
    gallery.set_camera("street", CameraSettings(61))
    assert [row.time for row in rows_of(gallery)] == [time - timedelta(seconds=1) for time in times]
    watch(other, embedder, [view(street, clock_ahead=5)])
    assert [row.time for row in rows_of(other)] == [time + timedelta(seconds=55) for time in times]


def test_sources_whose_boxes_would_have_one_name_are_refused(tmp_path, street, embedder):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "street.mp4"
    other.write_bytes(street.read_bytes())
    gallery = Gallery.create(tmp_path / "g", embedder)
    with pytest.raises(ValueError, match="two sources are called street"):
        watch(gallery, embedder, [view(street), view(other, "other", start=START)], boxes=tmp_path / "tracks")
    assert not (tmp_path / "tracks").exists()


def same_rows(one, other):
    keys = [row.id for row in rows_of(one)]
    assert keys == [row.id for row in rows_of(other)]
    for row, twin in zip(rows_of(one), rows_of(other), strict=True):
        assert (row.key, row.time, row.frames, row.path) == (twin.key, twin.time, twin.frames, twin.path)
        assert one.thumbnail(row.id) == other.thumbnail(row.id)
    np.testing.assert_allclose(one.descriptors(keys), other.descriptors(keys), atol=1e-5)


@pytest.mark.parametrize("tracker", ["bytetrack", "ocsort", "sort", "botsort", "cbiou"])
def test_every_tracker_gives_a_row_for_each_person_who_walks_by(street, embedder, tmp_path, tracker):
    gallery = Gallery.create(tmp_path / "g", embedder)
    (done,) = watch(gallery, embedder, [view(street)], tracker=tracker)
    rows = rows_of(gallery)
    assert len(rows) == len(PEOPLE) == done.added
    for who, (row, (first, last, *_)) in enumerate(zip(rows, PEOPLE, strict=True)):
        # A tracker is sure of somebody after a frame or three.
        late = (row.time - START) / timedelta(seconds=1) - first / FPS
        assert -1e-6 <= late <= 0.4
        assert row.camid == "street"
        assert row.source == str(street)
        assert 8 <= row.frames <= min(15, last - first + 1)
        # The picture shows that person, and not the one who passed before them.
        picture = np.asarray(Image.open(io.BytesIO(gallery.thumbnail(row.id))).convert("RGB"), float)
        color = np.median(picture.reshape(-1, 3), axis=0)
        assert np.argmin(np.linalg.norm(color - np.array(COLORS), axis=1)) == who
    assert len({row.tracklet for row in rows}) == len(rows)


def test_the_row_is_what_the_crops_are(street, embedder, tmp_path):
    """The descriptor is the mean of those of the chosen crops, cut here by hand; the lines say which and where."""
    gallery = Gallery.create(tmp_path / "g", embedder)
    lines = tmp_path / "lines.jsonl"
    watch(gallery, embedder, [view(street)], tracker=Truth, crops=6, lines=lines)
    frames = [frame.image for frame in reprism.cameras.read_frames(street)]
    boxes = {(index, who): box for index, who, box in truth()}
    written = sorted(map(json.loads, lines.read_text().splitlines()), key=lambda line: line["first"]["frame"])
    assert len(written) == len(PEOPLE)
    for who, (line, row) in enumerate(zip(written, rows_of(gallery), strict=True)):
        first, last, *_ = PEOPLE[who]
        assert line["id"] == row.id
        assert (line["first"]["frame"], line["last"]["frame"], line["boxes"]) == (first, last, last - first + 1)
        assert datetime.fromisoformat(line["first"]["time"]) == row.time == START + timedelta(seconds=first / FPS)
        assert datetime.fromisoformat(line["last"]["time"]) == START + timedelta(seconds=last / FPS)
        np.testing.assert_allclose(line["first"]["box"], boxes[first, who], atol=0.01)
        np.testing.assert_allclose(line["last"]["box"], boxes[last, who], atol=0.01)
        assert line["first"]["of"] == [SIZE[1], SIZE[0]]
        chosen = [crop["frame"] for crop in line["crops"]]
        assert 3 <= len(chosen) == row.frames <= 6
        assert chosen == sorted(chosen)
        assert row.until == START + timedelta(seconds=last / FPS)
        assert row.path == f"{street}#t={first / FPS:.3f},{last / FPS:.3f}"
        shares = np.array([boxes[first, who], boxes[last, who]]) / [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
        np.testing.assert_allclose([row.first_box, row.last_box], shares, atol=1e-4)
        cuts = [cut(frames[i], np.array(boxes[i, who], np.float32)) for i in chosen]
        pictures = [make_thumbnail(torch.from_numpy(each.copy()).permute(2, 0, 1)) for each in cuts]
        assert gallery.strip(row.id) == pictures
        best = max(line["crops"], key=lambda crop: crop["score"])
        pixels = cut(frames[best["frame"]], np.array(boxes[best["frame"], who], np.float32))
        assert gallery.thumbnail(row.id) == make_thumbnail(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        want = np.mean([embedder.embed_boxes(frames[i], [boxes[i, who]])[0] for i in chosen], axis=0)
        np.testing.assert_allclose(gallery.descriptors([row.id])[0], want / np.linalg.norm(want), atol=1e-4)
    # While the first two pass each other their boxes overlap: such a crop is not chosen where there is a free one.
    passing = {i for i, who, box in truth() if who == 0 and (i, 1) in boxes and abs(boxes[i, 1][0] - box[0]) < 9}
    assert passing
    assert not passing & {crop["frame"] for crop in written[0]["crops"]}


def test_a_strip_is_spread_over_the_tracklet(street, embedder, tmp_path):
    gallery = Gallery.create(tmp_path / "g", embedder)
    watch(gallery, embedder, [view(street)], tracker=Truth, crops=20)
    for who, row in enumerate(rows_of(gallery)):
        first, last, *_ = PEOPLE[who]
        assert row.frames > 8 if last - first > 20 else row.frames >= 8
        assert len(gallery.strip(row.id)) == 8
    without = Gallery.create(tmp_path / "without", embedder)
    watch(without, embedder, [view(street)], tracker=Truth, thumbnails=False)
    assert [without.strip(row.id) for row in rows_of(without)] == [[]] * len(PEOPLE)


def test_somebody_who_stays_has_several_tracklets(street, embedder, tmp_path):
    """Of at most 1.25 s, one after the other: as the frames of each person divide by themselves."""
    gallery = Gallery.create(tmp_path / "g", embedder)
    options = {"tracker": Truth, "min_seconds": 0, "lost_seconds": 0.5, "longest_seconds": 1.25}
    watch(gallery, embedder, [view(street)], **options)
    want = [(start, min(start + 12, last)) for first, last, *_ in PEOPLE for start in range(first, last + 1, 13)]
    found = [[round((at - START).total_seconds() * FPS) for at in (row.time, row.until)] for row in rows_of(gallery)]
    assert sorted(map(tuple, found)) == sorted(want)
    watch(gallery, embedder, [view(street)], **options)
    assert len(gallery) == len(want)


def test_watching_again_adds_nothing(street, embedder, tmp_path):
    gallery = Gallery.create(tmp_path / "g", embedder)
    for added, already in ((4, 0), (0, 4)):
        (done,) = watch(gallery, embedder, [view(street)], lines=tmp_path / "lines.jsonl")
        assert (done.added, done.already, len(gallery)) == (added, already, 4)
        assert len((tmp_path / "lines.jsonl").read_text().splitlines()) == 4


def test_killed_and_begun_again_is_as_if_it_had_not_been(street, model, embedder, tmp_path):
    """Killed when some rows are in the gallery and somebody is in view: one row for each all the same."""
    program = f"""
import os, time, reprism
from reprism.gallery import indexing
from reprism.cameras import watching
indexing._WRITTEN_AT_ONCE = 1
watching._SOON = 0.0
frames = watching._frames
def slowly(one, *more):
    for frame in frames(one, *more):
        yield frame
        if frame.index == 70:
            while len(gallery) < 2:
                time.sleep(0.01)
            os.kill(os.getpid(), 9)
watching._frames = slowly
embedder = reprism.Embedder({str(model)!r}, precision="fp32", device="cpu", engine="torch", batch_size=16)
gallery = reprism.Gallery.create({str(tmp_path / "g")!r}, embedder)
view = watching.View({str(street)!r}, "street", detector="boxes:{street.parent / "boxes.csv"}")
watching.watch(gallery, embedder, [view], lines={str(tmp_path / "lines.jsonl")!r})
"""
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == -signal.SIGKILL
    assert len(Gallery.open(tmp_path / "g")) == 2
    with (tmp_path / "lines.jsonl").open("a") as file:
        file.write('{"id": "cut o')
    whole, again = Gallery.create(tmp_path / "whole", embedder), Gallery.open(tmp_path / "g")
    watch(whole, embedder, [view(street)], lines=tmp_path / "whole.jsonl")
    (done,) = watch(again, embedder, [view(street)], lines=tmp_path / "lines.jsonl")
    assert (done.added, done.already) == (2, 2)
    same_rows(again, whole)
    assert sorted((tmp_path / "lines.jsonl").read_text().splitlines()) == sorted(
        (tmp_path / "whole.jsonl").read_text().splitlines()
    )


def test_stopping_leaves_people_in_view_of_a_file_to_the_next_run(street, embedder, tmp_path, monkeypatch):
    stop, frames = threading.Event(), watching._frames

    def stopping(one, *more):
        for frame in frames(one, *more):
            if frame.index == 70:
                stop.set()
            yield frame

    monkeypatch.setattr(watching, "_frames", stopping)
    gallery, whole = (Gallery.create(tmp_path / name, embedder) for name in "gw")
    (done,) = watch(gallery, embedder, [view(street)], stop=stop)
    assert (done.added, len(gallery)) == (2, 2)
    monkeypatch.undo()
    watch(gallery, embedder, [view(street)])
    watch(whole, embedder, [view(street)])
    same_rows(gallery, whole)


def test_several_cameras_and_what_goes_wrong_with_one(street, embedder, tmp_path, write_video, counted):
    """A source that fails is told of; the others are watched all the same, some at once."""
    other = write_video(tmp_path / "yard.mp4", drawn())
    said = []

    def fails(frame):
        if frame.index == 3:
            raise ValueError("the detector broke")
        return np.empty((0, 4))

    views = [view(street), View(street.parent / "broken.mp4", "gate", START, fails), view(other, "yard", start=START)]
    write_video(tmp_path / "broken.mp4", counted(8))
    gallery = Gallery.create(tmp_path / "g", embedder)
    done = watch(gallery, embedder, views, at_once=3, report=said.append)
    assert [one.added for one in done] == [4, 0, 4]
    assert [one.error for one in done] == [None, "the detector broke", None]
    assert sorted(row.camid for row in gallery.rows()) == ["street"] * 4 + ["yard"] * 4
    assert all(one.is_done for one in done)


def test_an_error_of_the_program_ends_it(street, embedder, tmp_path):
    def broken(frame):
        raise RuntimeError("a bug")

    gallery = Gallery.create(tmp_path / "g", embedder)
    with pytest.raises(RuntimeError, match="a bug"):
        watch(gallery, embedder, [View(street, "street", detector=broken)])


def test_a_live_source_gives_people_in_view_when_it_is_stopped(embedder, tmp_path, monkeypatch):
    """A stand-in for a stream; frames that come while the machine is behind are dropped, and it is said."""
    pictures, stop, said = drawn(), threading.Event(), []

    def stream(source, *, start, fps, every, timeouts, report):
        for index in range(30):
            time.sleep(0.001)
            yield Frame(pictures[index], index, index / FPS, START + timedelta(seconds=index / FPS))
        stop.set()
        report("camera 1: it ended; reconnecting")
        raise AssertionError("it was told to stop")

    monkeypatch.setattr(watching, "read_frames", stream)
    boxes = {index: [box for i, _, box in sorted(truth()) if i == index] for index in range(100)}
    gallery = Gallery.create(tmp_path / "g", embedder)
    views = [View("rtsp://me:secret@camera/1", "gate", detector=lambda frame: np.array(boxes[frame.index]))]
    (done,) = watch(gallery, embedder, views, tracker=Truth, stop=stop, report=said.append)
    assert done.added == 2
    assert said == ["camera 1: it ended; reconnecting"]
    rows = rows_of(gallery)
    assert [row.time for row in rows] == [START + timedelta(seconds=s) for s in (0.5, 1.0)]
    assert all("secret" not in f"{row.key} {row.path} {row.source}" for row in rows)
    # Its frames are counted anew each time: keys are made of times.
    assert "2026-03-01T09:30:00.500000+00:00" in rows[0].key


def test_people_in_view_of_a_stream_that_stalls_are_written(embedder, tmp_path, monkeypatch):
    """Not when it goes on, which may be in an hour: the stand-in for a stream waits until they are in the gallery."""
    gallery = Gallery.create(tmp_path / "g", embedder)
    boxes = {index: [box for i, _, box in sorted(truth()) if i == index] for index in range(100)}
    monkeypatch.setattr(watching, "_SILENCE", 0.1)
    monkeypatch.setattr(watching, "_SOON", 0.1)
    monkeypatch.setattr("reprism.gallery.indexing._WRITTEN_AFTER", 0.1)
    pictures, stop, seen = drawn(), threading.Event(), []

    def stream(source, **given):
        for index in range(30):
            yield Frame(pictures[index], index, index / FPS, START + timedelta(seconds=index / FPS))
        while len(Gallery.open(gallery.uri)) < 2:
            time.sleep(0.02)
        seen.extend(rows_of(gallery))
        yield Frame(pictures[30], 30, 60.0, START + timedelta(seconds=60))
        stop.set()

    monkeypatch.setattr(watching, "read_frames", stream)
    views = [View("rtsp://camera/1", "gate", detector=lambda frame: np.array(boxes[frame.index]))]
    (done,) = watch(gallery, embedder, views, tracker=Truth, stop=stop, lost_seconds=0.5, min_seconds=0)
    assert len(seen) == 2
    assert all(row.until <= START + timedelta(seconds=2.9) for row in seen)
    assert done.added == 4  # both are there again, when it goes on


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"longest_seconds": 1}, ValueError, "longest_seconds=1: expected more"),
        ({"tracker": "bytetrak"}, TrackerError, "Did you mean 'bytetrack'"),
        ({"every": 0}, ValueError, "every=0: expected 1 or more"),
        ({"crops": 0}, ValueError, "crops=0"),
        ({"min_seconds": -1}, ValueError, "min_seconds=-1"),
        ({"lost_seconds": 0}, ValueError, "lost_seconds=0"),
    ],
)
def test_mistakes_end_it_before_it_begins(street, embedder, tmp_path, options, error, match):
    gallery = Gallery.create(tmp_path / "g", embedder)
    with pytest.raises(error, match=match):
        watch(gallery, embedder, [view(street)], **options)


def test_nobody_is_no_error(embedder, tmp_path, write_video, counted):
    empty = write_video(tmp_path / "empty.mp4", counted(12))
    gallery = Gallery.create(tmp_path / "g", embedder)
    (done,) = watch(gallery, embedder, [View(empty, "a", START, lambda frame: [])], lines=tmp_path / "lines.jsonl")
    assert (done.counts.frames, done.counts.tracklets, done.error, len(gallery)) == (12, 0, None, 0)
    assert (tmp_path / "lines.jsonl").read_text() == ""


def test_another_file_than_of_tracklets_is_refused_and_left(street, embedder, tmp_path):
    gallery, other = Gallery.create(tmp_path / "g", embedder), tmp_path / "notes.txt"
    other.write_text("my notes\n")
    with pytest.raises(ValueError, match=r"notes\.txt:1: expected a tracklet as a line of JSON"):
        watch(gallery, embedder, [view(street)], lines=other)
    assert other.read_text() == "my notes\n"


def test_the_display_tells_of_each_source_and_of_those_done(street, embedder, tmp_path):
    """Lines for a terminal, with a rate over the last seconds, whatever came before."""
    now = [0.0]
    rates = Rates(lambda: now[0])
    one, other = check_view(view(street)), check_view(view(street, "yard"))
    assert lines_of([one], rates) == []
    for second in range(1, 31):
        now[0] = float(second)
        one.counts.frames += 10 if second <= 20 else 50
        lines_of([one], rates)
    one.counts.open, one.counts.tracklets, one.counts.seconds, one.added, one.dropped = 2, 7, 4.0, 1200, 3
    (line,) = lines_of([one, other], rates)
    assert line == "street: 0:04 of 0:10 · 50.0 frames/s · 2 in view · 7 tracklets · 1,200 rows · 3 dropped"
    one.is_done = True
    assert lines_of([one, other], rates) == ["1 of 2 sources done · 7 tracklets · 1,200 rows"]


def test_mistakes_in_sources(street, embedder, tmp_path, write_video, counted):
    gallery = Gallery.create(tmp_path / "g", embedder)
    undated = write_video(tmp_path / "undated.mp4", counted(3))
    with pytest.raises(SourceError, match=r"undated.mp4: its start time is not known.*--start"):
        watch(gallery, embedder, [View(undated, "a")])
    with pytest.raises(SourceError, match=r"no video at nowhere\.mp4"):
        watch(gallery, embedder, [View("nowhere.mp4", "a")])
    with pytest.raises(ValueError, match="is given twice"):
        watch(gallery, embedder, [view(street), view(street, "other")])
    with pytest.raises(ValueError, match="has no time zone"):
        watch(gallery, embedder, [View(street, "a", datetime(2026, 3, 1))])
    with pytest.raises(DetectorError, match="unknown detector 'motoin'"):
        watch(gallery, embedder, [View(street, "a", detector="motoin")])
    assert len(gallery) == 0


# ---- the command -----------------------------------------------------------------------------------------


def command(model, tmp_path, *more):
    network = ["--model", str(model), "--precision", "fp32", "--engine", "torch", "--device", "cpu"]
    return main(["watch", *more, "--gallery", str(tmp_path / "g"), *network])


def test_the_command_fills_a_gallery_that_can_be_searched(street, model, embedder, tmp_path, capsys):
    boxes = f"boxes:{street.parent / 'boxes.csv'}"
    given = (str(street), "--detector", boxes, "--camera", "gate", "--start", "2026-03-01T10:30+01:00")
    assert command(model, tmp_path, *given) == 0
    shown = capsys.readouterr().out
    assert "gate: 100 frames (9.9 s); 4 tracklets: 4 added, 0 were there, 0 too short" in shown
    assert shown.endswith("4 added; 4 rows\n")
    gallery = Gallery.open(tmp_path / "g", embedder)
    assert {row.camid for row in gallery.rows()} == {"gate"}
    assert min(row.time for row in gallery.rows()) - START < timedelta(seconds=1)
    assert command(model, tmp_path, *given) == 0
    assert "0 added, 4 were there" in capsys.readouterr().out
    assert command(model, tmp_path, *given, "--min-seconds", "2.8", "--every", "3") == 0
    assert "34 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--camera", "a", "b"], "--camera: expected one for each of 1 sources, got 2"),
        (["--start", "noon"], "--start: expected a time such as 2026-03-01T09:30Z, got 'noon'"),
        (["--start", "2026-03-01T09:30"], "has no time zone: give one, such as 2026-03-01T09:30Z"),
        (["--detector", "boxes:nowhere.csv"], "no boxes at nowhere.csv"),
        (["--tracker", "deepsort"], "unknown tracker 'deepsort'. Did you mean"),
    ],
)
def test_the_command_explains_mistakes(street, model, tmp_path, capsys, options, match):
    assert command(model, tmp_path, str(street), *options) == 1
    assert match in capsys.readouterr().err
    assert not (tmp_path / "g").exists()  # nothing is left of it


def test_the_command_refuses_what_is_no_video(street, model, tmp_path, capsys):
    street.write_bytes(street.read_bytes()[:5000])
    assert command(model, tmp_path, str(street), "--start", "2026-03-01T09:30Z") == 1
    assert "street.mp4 is no video that is read" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()


def test_the_command_tells_cameras_apart(street, model, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    twin = street.rename(tmp_path / "other" / "street.mp4")
    street.write_bytes(twin.read_bytes())
    assert command(model, tmp_path, str(street), str(twin)) == 1
    assert "several sources are called street: name their cameras with --camera" in capsys.readouterr().err
    assert command(model, tmp_path, str(street), str(twin), "--camera", "a", "b", "--detector", "boxes:x.csv") == 1
    assert "holds the boxes of one source" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_writes_what_is_finished_and_says_so(street, model, tmp_path, capsys, monkeypatch, number, status):
    frames = watching._frames

    def interrupted(one, *more):
        for frame in frames(one, *more):
            if frame.index == 70:
                os.kill(os.getpid(), number)
                while not more[2]():
                    time.sleep(0.01)
            yield frame

    monkeypatch.setattr(watching, "_frames", interrupted)
    before = signal.getsignal(number)
    given = (str(street), "--detector", f"boxes:{street.parent / 'boxes.csv'}")
    assert command(model, tmp_path, *given) == status
    shown = capsys.readouterr()
    assert "2 added" in shown.out
    assert "the same command begins or goes on again" in shown.err
    assert signal.getsignal(number) is before
    assert len(Gallery.open(tmp_path / "g")) == 2
