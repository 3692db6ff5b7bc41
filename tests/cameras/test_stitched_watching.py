"""People who are behind a pole for two seconds: one row of a gallery each, and two where somebody else comes out."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import reprism
from reprism.cameras import Frame, evaluate_tracks, read_tracks, watching
from reprism.cameras.crops import cut
from reprism.cameras.track_boxes import Span, renumber_boxes
from reprism.cameras.watching import View, watch
from reprism.cli import main
from reprism.evaluation.calibration import Calibration, CalibrationError
from reprism.evaluation.fitted_on import FittedOn
from reprism.gallery.table import Gallery

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
FPS = 10
SIZE = (96, 200)
COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}
OPTIONS = {"stitch_seconds": 2.5, "crops": 6}
# Who is in view when (frames, the last one included), and from where to where the middle of the box moves.
SAME = (("red", 5, 25, 20, 60), ("red", 46, 70, 100, 150), ("green", 80, 95, 20, 50), ("green", 114, 125, 85, 110))
OTHER = (("red", 5, 25, 20, 60), ("blue", 46, 70, 100, 150))


def boxes_of(parts):
    """Yield frame, number of the part, and box (left, top, right, bottom)."""
    for number, (_, first, last, start, end) in enumerate(parts):
        for index in range(first, last + 1):
            middle = start + (end - start) * (index - first) / (last - first)
            yield index, number, (middle - 9, 20, middle + 9, 74)


@cache
def drawn(parts, frames=130):
    """Return frames of coloured people, with stripes to be sharp."""
    images = np.random.default_rng(0).integers(110, 130, (frames, *SIZE, 3), np.uint8)
    for index, number, (left, top, right, bottom) in boxes_of(parts):
        images[index, top:bottom, round(left) : round(right)] = COLORS[parts[number][0]]
        images[index, top:bottom:6, round(left) : round(right)] //= 2
    return list(images)


class Breaking:
    """A tracker that gives everybody who comes out from behind the pole another number."""

    def __init__(self, parts=SAME):
        self.parts = list(boxes_of(parts))

    def __call__(self, frame, boxes):
        return np.array([number for index, number, _ in self.parts if index == frame.index], int)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    net = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(64, 32))
    net.train()(torch.randn(8, 3, 64, 32))
    return reprism.save(net.eval(), tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture(scope="module")
def embedder(model):
    return reprism.Embedder(model, precision="fp32", device="cpu", engine="torch", batch_size=16)


@pytest.fixture(scope="module")
def calibration(embedder):
    """A calibration whose threshold lies between the distances of pictures of one person and those of two."""
    images = drawn(OTHER)
    first, later, other = (
        embedder.embed_boxes(picture[index], [box for i, _, box in boxes_of(OTHER) if i == index])[0]
        for picture, index in ((images, 12), (images, 22), (images, 60))
    )
    same, apart = np.linalg.norm(first - later), np.linalg.norm(first - other)
    assert 2 * same < apart
    roc = {"threshold": [0.0, float(same + apart) / 2], "fmr": [0.0, 0.01], "tpr": [0.0, 0.9]}
    kind = FittedOn(embedder.kind.fingerprint, embedder.flip)
    densities = {"edges": [0.0, 1.0, 2.0], "same": [1.0, 0.0], "different": [0.0, 1.0]}
    counts = dict.fromkeys(("same_pairs", "different_pairs", "queries", "mated_queries", "gallery", "identities"), 500)
    return Calibration((), (), -1.0, 0.0, 0.0, (), roc, densities, counts, fitted_on=kind)


@pytest.fixture
def street(tmp_path, write_video):
    """Make a video, and a file of the true boxes."""

    def make(parts, name="street"):
        rows = "".join(f"{index},{','.join(map(str, box))},{who}\n" for index, who, box in sorted(boxes_of(parts)))
        (tmp_path / f"{name}.csv").write_text(f"frame,left,top,right,bottom,id\n{rows}")
        start = {"creation_time": START.isoformat()}
        return write_video(tmp_path / f"{name}.mp4", drawn(parts), options={"crf": "10"}, metadata=start)

    return make


def view(video):
    return View(video, "street", detector=f"boxes:{video.with_suffix('.csv')}")


def rows_of(gallery):
    return sorted(gallery.rows(), key=lambda row: row.time)


def frames_of(rows):
    return [tuple(round((at - START).total_seconds() * FPS) for at in (row.time, row.until)) for row in rows]


def test_one_row_for_who_was_behind_the_pole(street, embedder, calibration, tmp_path):
    """From the first to the last sight, with the best crops of both parts; the descriptor is theirs."""
    video, lines = street(SAME), tmp_path / "lines.jsonl"
    gallery = Gallery.create(tmp_path / "g", embedder)
    (done,) = watch(gallery, embedder, [view(video)], tracker=Breaking, calibration=calibration, lines=lines, **OPTIONS)
    assert (done.counts.tracklets, done.added, done.joined, done.short) == (4, 2, 2, 0)
    rows = rows_of(gallery)
    assert frames_of(rows) == [(5, 70), (80, 125)]
    assert [row.path for row in rows] == [f"{video}#t=0.500,7.000", f"{video}#t=8.000,12.500"]
    frames = [frame.image for frame in reprism.cameras.read_frames(video)]
    boxes = {index: box for index, _, box in boxes_of(SAME)}
    written = sorted(map(json.loads, lines.read_text().splitlines()), key=lambda line: line["first"]["frame"])
    for row, line, (one, two) in zip(rows, written, (SAME[:2], SAME[2:]), strict=True):
        assert line["id"] == row.id
        assert (line["first"]["frame"], line["last"]["frame"]) == (one[1], two[2])
        assert line["boxes"] == one[2] - one[1] + 1 + two[2] - two[1] + 1
        chosen = [crop["frame"] for crop in line["crops"]]
        assert 3 <= len(chosen) == row.frames == len(gallery.strip(row.id)) <= 6
        assert chosen == sorted(chosen)
        assert chosen[0] <= one[2] < two[1] <= chosen[-1]
        shares = np.array([boxes[one[1]], boxes[two[2]]]) / [SIZE[1], SIZE[0], SIZE[1], SIZE[0]]
        np.testing.assert_allclose([row.first_box, row.last_box], shares, atol=1e-4)
        want = np.mean([embedder.embed_boxes(frames[index], [boxes[index]])[0] for index in chosen], axis=0)
        np.testing.assert_allclose(gallery.descriptors([row.id])[0], want / np.linalg.norm(want), atol=1e-4)
        best = max(line["crops"], key=lambda crop: crop["score"])
        assert cut(frames[best["frame"]], np.array(boxes[best["frame"]])).size
    (done,) = watch(gallery, embedder, [view(video)], tracker=Breaking, calibration=calibration, lines=lines, **OPTIONS)
    assert (done.added, done.already, len(gallery)) == (0, 2, 2)
    assert len(lines.read_text().splitlines()) == 2


def test_two_rows_for_somebody_else_and_without_a_calibration(street, embedder, calibration, tmp_path):
    for name, parts, given in (("other", OTHER, calibration), ("none", SAME, None)):
        gallery = Gallery.create(tmp_path / name, embedder)
        (done,) = watch(gallery, embedder, [view(street(parts, name))], calibration=given, **OPTIONS)
        assert done.joined == 0
        assert len(gallery) == len(parts)


def test_a_tracker_that_is_no_stand_in_breaks_off_there_too(street, embedder, calibration, tmp_path):
    gallery = Gallery.create(tmp_path / "g", embedder)
    watch(gallery, embedder, [view(street(SAME))], calibration=calibration, **OPTIONS)
    (red, green) = frames_of(rows_of(gallery))
    assert 5 <= red[0] <= 8
    assert red[1] == 70
    assert 80 <= green[0] <= 83
    assert green[1] == 125


def test_parts_that_are_too_short_alone_count_together(street, embedder, calibration, tmp_path):
    gallery = Gallery.create(tmp_path / "g", embedder)
    options = {"tracker": Breaking, "calibration": calibration, **OPTIONS}
    (done,) = watch(gallery, embedder, [view(street(SAME))], min_seconds=4.6, **options)
    assert (done.joined, done.short, frames_of(rows_of(gallery))) == (2, 1, [(5, 70)])
    longest = Gallery.create(tmp_path / "longest", embedder)
    (done,) = watch(longest, embedder, [view(street(SAME))], longest_seconds=5, **options)
    assert (done.joined, frames_of(rows_of(longest))) == (1, [(5, 25), (46, 70), (80, 125)])


def test_written_boxes_have_one_number_for_each_person(street, embedder, calibration, tmp_path):
    """So that they equal the truth by every figure, in which it is the same person."""
    (tmp_path / "site" / "street" / "gt").mkdir(parents=True)
    lines = [
        f"{index + 1},{1 + number // 2},{left + 1},{top + 1},{right - left},{bottom - top},1,1,1\n"
        for index, number, (left, top, right, bottom) in sorted(boxes_of(SAME))
    ]
    (tmp_path / "site" / "street" / "gt" / "gt.txt").write_text("".join(lines))
    gallery, truth = Gallery.create(tmp_path / "g", embedder), read_tracks(tmp_path / "site")
    for name, given, right in (("apart", None, False), ("joined", calibration, True)):
        watch(
            gallery,
            embedder,
            [view(street(SAME))],
            tracker=Breaking,
            calibration=given,
            boxes=tmp_path / name,
            **OPTIONS,
        )
        found = evaluate_tracks(truth, read_tracks(tmp_path / name)).overall
        assert (found.idf1 == pytest.approx(1, abs=1e-3)) == right
        assert (found.id_switches, found.tracks) == ((0, 2) if right else (2, 4))


def test_boxes_of_another_tracklet_with_the_same_number_keep_it(tmp_path):
    """Number 1 (2 in the file) is of two tracklets, of which the first is joined with number 5."""
    path = tmp_path / "boxes.txt"
    rows = [(1, 2), (2, 2), (2, 9), (4, 6), (5, 6), (8, 2)]
    path.write_text("".join(f"{frame},{number},1.00,2.00,3.00,4.00,0.5000,-1,-1,-1\n" for frame, number in rows))
    renumber_boxes(path, [[Span(1, 0, 1), Span(5, 3, 4)]])
    read = [tuple(map(int, line.split(",")[:2])) for line in path.read_text().splitlines()]
    assert read == [(1, 10), (2, 10), (2, 9), (4, 10), (5, 10), (8, 2)]
    assert all(line.endswith(",1.00,2.00,3.00,4.00,0.5000,-1,-1,-1") for line in path.read_text().splitlines())


def same_rows(one, other):
    assert [row.id for row in rows_of(one)] == [row.id for row in rows_of(other)]
    for row, twin in zip(rows_of(one), rows_of(other), strict=True):
        assert (row.key, row.time, row.until, row.frames, row.path) == (
            twin.key, twin.time, twin.until, twin.frames, twin.path
        )  # fmt: skip
    keys = [row.id for row in rows_of(one)]
    np.testing.assert_allclose(one.descriptors(keys), other.descriptors(keys), atol=1e-5)


def test_killed_and_begun_again_is_as_if_it_had_not_been(street, model, embedder, calibration, tmp_path):
    """Killed when one who was behind the pole is in the gallery, and another is behind it."""
    video = street(SAME)
    calibration.write(tmp_path / "calibration.json")
    program = f"""
import os, time, reprism
from reprism.evaluation.calibration import Calibration
from reprism.gallery import indexing
from reprism.cameras import watching
indexing._WRITTEN_AT_ONCE = 1
watching._SOON = 0.0
frames = watching._frames
def slowly(one, *more):
    for frame in frames(one, *more):
        yield frame
        if frame.index == 110:
            while len(gallery) < 1:
                time.sleep(0.01)
            os.kill(os.getpid(), 9)
watching._frames = slowly
embedder = reprism.Embedder({str(model)!r}, precision="fp32", device="cpu", engine="torch", batch_size=16)
gallery = reprism.Gallery.create({str(tmp_path / "g")!r}, embedder)
view = watching.View({str(video)!r}, "street", detector="boxes:{video.with_suffix(".csv")}")
calibration = Calibration.read({str(tmp_path / "calibration.json")!r})
watching.watch(gallery, embedder, [view], calibration=calibration, stitch_seconds=2.5, crops=6)
"""
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == -signal.SIGKILL
    assert len(Gallery.open(tmp_path / "g")) == 1
    whole, again = Gallery.create(tmp_path / "whole", embedder), Gallery.open(tmp_path / "g")
    watch(whole, embedder, [view(video)], calibration=calibration, **OPTIONS)
    (done,) = watch(again, embedder, [view(video)], calibration=calibration, **OPTIONS)
    assert (done.added, done.already) == (1, 1)
    same_rows(again, whole)


def test_stopping_leaves_to_the_next_run_who_may_go_on(street, embedder, calibration, tmp_path, monkeypatch):
    """The first has ended, and nobody has come out from behind the pole by then."""
    stop, frames = threading.Event(), watching._frames

    def stopping(one, *more):
        for frame in frames(one, *more):
            if frame.index == 40:
                stop.set()
            yield frame

    monkeypatch.setattr(watching, "_frames", stopping)
    gallery, whole = (Gallery.create(tmp_path / name, embedder) for name in "gw")
    video = street(SAME)
    options = {"tracker": Breaking, "calibration": calibration, **OPTIONS}
    (done,) = watch(gallery, embedder, [view(video)], stop=stop, **options)
    assert (done.counts.tracklets, len(gallery)) == (1, 0)
    monkeypatch.undo()
    watch(gallery, embedder, [view(video)], **options)
    watch(whole, embedder, [view(video)], **options)
    same_rows(gallery, whole)


def test_what_waits_of_a_source_that_fails_is_written(street, embedder, calibration, tmp_path):
    of_frame = {index: box for index, _, box in boxes_of(SAME)}

    def fails(frame):
        if frame.index == 40:
            raise ValueError("the detector broke")
        return np.array([of_frame[frame.index]] if frame.index in of_frame else []).reshape(-1, 4)

    gallery = Gallery.create(tmp_path / "g", embedder)
    views = [View(street(SAME), "street", detector=fails)]
    (done,) = watch(gallery, embedder, views, tracker=Breaking, calibration=calibration, **OPTIONS)
    assert done.error == "the detector broke"
    assert frames_of(rows_of(gallery)) == [(5, 25)]


@pytest.mark.parametrize("stall", [None, 90])
def test_a_live_source_joins_too_but_not_across_a_stall(embedder, calibration, tmp_path, monkeypatch, stall):
    """A stand-in for a stream. Who was written before it stalled stays a row of their own."""
    gallery = Gallery.create(tmp_path / "g", embedder)
    monkeypatch.setattr(watching, "_SILENCE", 0.3)
    monkeypatch.setattr(watching, "_SOON", 0.05)
    monkeypatch.setattr("reprism.gallery.indexing._WRITTEN_AFTER", 0.05)
    pictures, stop, of_frame = drawn(SAME), threading.Event(), {index: box for index, _, box in boxes_of(SAME)}

    def stream(source, **given):
        for index in range(len(pictures)):
            time.sleep(0.002)
            yield Frame(pictures[index], index, index / FPS, START + timedelta(seconds=index / FPS))
            if index == stall:
                while len(Gallery.open(gallery.uri)) < 2:
                    time.sleep(0.02)
            if index == 97 and stall is None:
                while len(Gallery.open(gallery.uri)) < 1:  # by then nobody can be the first one any more
                    time.sleep(0.02)
        stop.set()

    def found(frame):
        return np.array([of_frame[frame.index]] if frame.index in of_frame else []).reshape(-1, 4)

    monkeypatch.setattr(watching, "read_frames", stream)
    # Nothing is dropped: each frame is looked at before the next one comes.
    monkeypatch.setattr(watching, "keep_up", lambda frames, dropped: frames)
    if stall is None:
        monkeypatch.setattr(watching, "note_silence", lambda frames, seconds: frames)
    views = [View("rtsp://camera/1", "gate", detector=found)]
    options = {"tracker": Breaking, "calibration": calibration, "stop": stop, "lost_seconds": 0.5, **OPTIONS}
    (done,) = watch(gallery, embedder, views, **options)
    want = [(5, 70), (80, 125)] if stall is None else [(5, 70), (80, 90), (91, 125)]
    assert frames_of(rows_of(gallery)) == want
    assert done.added == len(want)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"stitch_seconds": 1.0}, ValueError, "stitch_seconds=1.0: expected more than lost_seconds=1.0"),
        ({"stitch_fmr": 0.0}, ValueError, "fmr=0.0: expected a rate between 0 and 1"),
        ({"stitch_fmr": 1e-5}, CalibrationError, "cannot be told from none"),
    ],
)
def test_mistakes_end_it_before_it_begins(street, embedder, calibration, tmp_path, options, error, match):
    gallery = Gallery.create(tmp_path / "g", embedder)
    with pytest.raises(error, match=match):
        watch(gallery, embedder, [view(street(OTHER))], calibration=calibration, **options)


def test_the_command_joins_by_a_calibration_and_refuses_others(street, model, embedder, calibration, tmp_path, capsys):
    video, path = street(SAME), tmp_path / "calibration.json"
    calibration.write(path)
    network = ["--model", str(model), "--precision", "fp32", "--engine", "torch", "--device", "cpu"]
    given = [
        "watch",
        str(video),
        "--gallery",
        str(tmp_path / "g"),
        *network,
        "--detector",
        f"boxes:{video.with_suffix('.csv')}",
    ]
    joining = ["--calibration", str(path), "--stitch-seconds", "2.5"]
    assert main([*given, *joining, "--no-flip"]) == 1
    shown = capsys.readouterr().err
    assert "the calibration was fitted on other distances (flip: expected False, got True)" in shown
    assert "reprism calibrate" in shown
    assert not (tmp_path / "g").exists()  # nothing is left of it
    assert main([*given, "--calibration", str(tmp_path / "none.json")]) == 1
    assert "holds no calibration" in capsys.readouterr().err
    assert main([*given, *joining]) == 0
    assert "4 tracklets: 2 added, 0 were there, 0 too short, 2 joined to earlier ones" in capsys.readouterr().out
    assert len(Gallery.open(tmp_path / "g")) == 2
