"""Drawn cameras: the truth that is written is the truth of the pixels, and the files are as their readers want them."""

import csv
import json
import math
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.cli import main
from reprism.drawn.cameras import plan_recordings, render_cameras
from reprism.drawn.footage import Sight, scenery
from reprism.drawn.output import DRAWN_MARK
from reprism.drawn.sites import draw_site
from reprism.drawn.truth import number_tracks

av = pytest.importorskip("av", reason="PyAV is not installed")

SIZE = (180, 320)
SMALL: dict[str, Any] = {"cameras": 3, "people": 4, "seconds": 4, "fps": 5, "size": (96, 128), "seed": 19}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cameras without noise; camera 2 is 45 s ahead, camera 3 lacks 10 s."""
    return render_cameras(
        tmp_path_factory.mktemp("drawn") / "site",
        people=14,
        seconds=40,
        fps=5,
        size=SIZE,
        returning=0.3,
        crowd=0.4,
        uniforms=3,
        clock_offsets={2: 45},
        dropouts=[(3, 12, 22)],
        noise=0,
        seed=5,
    )


@pytest.fixture(scope="module")
def described(site: Path) -> dict[str, Any]:
    return json.loads((site / "site.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def truth(site: Path) -> list[dict[str, str]]:
    return rows(site / "truth.csv")


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def box(row: dict[str, str]) -> tuple[slice, slice]:
    left, top, right, bottom = (int(row[side]) for side in ("left", "top", "right", "bottom"))
    return slice(top, bottom), slice(left, right)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.lists(st.sets(st.integers(1, 3)), max_size=40), st.integers(1, 9))
def test_a_new_track_begins_after_a_second_outside(fps: int, present: list[set[int]], first: int) -> None:
    seen = [[Sight(pid, 1, 0, 0, 1, 1, 1.0, 0.0, 0.0) for pid in sorted(pids)] for pids in present]
    numbers = number_tracks(seen, fps, first)
    tracks = defaultdict(list)
    for frame, (sights, given_numbers) in enumerate(zip(seen, numbers, strict=True)):
        for sight, number in zip(sights, given_numbers, strict=True):
            tracks[number].append((frame, sight.pid))
    assert sorted(tracks) == list(range(first, first + len(tracks)))
    for frames in tracks.values():
        assert len({pid for _, pid in frames}) == 1
    for pid in (1, 2, 3):
        runs = "".join("x" if pid in pids else "." for pids in present).split("." * fps)
        assert sum(any(who == pid for _, who in frames) for frames in tracks.values()) == sum(
            "x" in run for run in runs
        )


def test_videos_have_every_frame_at_its_time(site: Path, described: dict[str, Any]) -> None:
    names = [file["name"] for each in described["cameras"] for file in each["files"]]
    assert names == ["cam1.mp4", "cam2.mp4", "cam3-1.mp4", "cam3-2.mp4", "cam4.mp4"]
    assert sorted(path.name for path in site.glob("*.mp4")) == names
    for place in described["cameras"]:
        for file in place["files"]:
            with av.open(str(site / file["name"])) as video:
                stream = video.streams.video[0]
                assert (stream.codec_context.name, stream.height, stream.width) == ("h264", *SIZE)
                times = [float(frame.pts * frame.time_base) for frame in video.decode(stream)]
                assert times == pytest.approx([number / 5 for number in range(file["frames"])])
                tagged = datetime.fromisoformat(video.metadata["creation_time"])
                assert tagged == datetime.fromisoformat(file["clock_start"])
                assert tagged - datetime.fromisoformat(file["start"]) == timedelta(seconds=place["clock_offset"])
    assert [place["clock_offset"] for place in described["cameras"]] == [0, 45, 0, 0]


def test_a_dropout_leaves_no_frames_and_times_are_those_of_the_frames(site: Path, truth: list[dict[str, str]]) -> None:
    begun = datetime(2026, 1, 5, 9, tzinfo=UTC)
    seconds = defaultdict(list)
    for row in truth:
        seconds[row["file"]].append((datetime.fromisoformat(row["time"]) - begun).total_seconds())
    assert len(decoded(site / "cam3-1.mp4")) == 60
    assert len(decoded(site / "cam3-2.mp4")) == 90
    assert 0 <= min(seconds["cam3-1.mp4"]) <= max(seconds["cam3-1.mp4"]) < 12
    assert 22 <= min(seconds["cam3-2.mp4"]) <= max(seconds["cam3-2.mp4"]) < 40
    for row in truth:
        start = 22 if row["file"] == "cam3-2.mp4" else 0
        at = begun + timedelta(seconds=start + (int(row["frame"]) - 1) / 5)
        assert datetime.fromisoformat(row["time"]) == at
        assert datetime.fromisoformat(row["clock"]) == at + timedelta(seconds=45 * (row["camera"] == "cam2"))


def test_decoded_frames_are_those_of_the_truth(site: Path, truth: list[dict[str, str]]) -> None:
    """Inside a truth box the picture differs from the empty scene; outside all boxes only as much as the codec does."""
    plan = draw_site(4, 5)
    by_frame = defaultdict(list)
    for row in truth:
        by_frame[row["file"], int(row["frame"])].append(row)
    checked = 0
    for place in plan.cameras:
        empty = scenery(plan, place, SIZE).picture.astype(int)
        for path in sorted(site.glob(f"{place.name}*.mp4")):
            for number, frame in enumerate(decoded(path)[::7]):
                differs = np.abs(frame - empty).mean(axis=2)
                outside = np.ones(SIZE, bool)
                for row in by_frame[path.name, 1 + 7 * number]:
                    rows_, columns = box(row)
                    near = slice(max(rows_.start - 4, 0), rows_.stop + 4)
                    outside[near, max(columns.start - 4, 0) : columns.stop + 4] = False
                    if float(row["visibility"]) > 0.6:
                        checked += 1
                        assert np.quantile(differs[rows_, columns], 0.9) > 20
                assert np.quantile(differs[outside], 0.999) < 25
                assert differs[outside].mean() < 4
    assert checked > 40


def test_who_is_seen_by_two_cameras_is_seen_by_the_twins_at_one_time_and_place(truth: list[dict[str, str]]) -> None:
    together = defaultdict(dict)
    for row in truth:
        together[row["pid"], row["time"]][row["camera"]] = (row["x"], row["y"])
    shared = [places for places in together.values() if len(places) > 1]
    assert len(shared) > 20
    for places in shared:
        assert set(places) == {"cam1", "cam2"}
        assert len(set(places.values())) == 1


def test_tables_and_plan_agree(site: Path, described: dict[str, Any], truth: list[dict[str, str]]) -> None:
    assert json.loads((site / DRAWN_MARK).read_text("utf-8"))["seed"] == 5
    assert [overlap["cameras"] for overlap in described["overlaps"]] == [["cam1", "cam2"]]
    assert sum(each["uniform"] for each in described["people"]) == 3
    visits = {(str(visit["pid"]), str(visit["visit"])): visit for visit in described["visits"]}
    for row in truth:
        visit = visits[row["pid"], row["visit"]]
        assert visit["start"] <= row["time"] <= visit["end"]
    tracks = rows(site / "tracks.csv")
    assert len({(track["camera"], track["track"]) for track in tracks}) == len(tracks)
    for track in tracks:
        own = [row for row in truth if (row["camera"], row["track"]) == (track["camera"], track["track"])]
        assert {(row["file"], row["pid"], row["visit"]) for row in own} == {
            (track["file"], track["pid"], track["visit"])
        }
        for end, row in (("first", own[0]), ("last", own[-1])):
            assert (track[f"{end}_frame"], track[f"{end}_time"]) == (row["frame"], row["time"])
        assert float(track["visibility"]) == pytest.approx(np.mean([float(row["visibility"]) for row in own]), abs=1e-3)
    assert sum(1 for _ in truth) == sum(
        len((site / name / "gt" / "gt.txt").read_text().splitlines())
        for name in ("cam1", "cam2", "cam3-1", "cam3-2", "cam4")
    )


def test_mot_challenge_counts_from_one(site: Path, truth: list[dict[str, str]]) -> None:
    for name in ("cam1", "cam3-2"):
        lines = (site / name / "gt" / "gt.txt").read_text().splitlines()
        own = [row for row in truth if row["file"] == f"{name}.mp4"]
        for line, row in zip(lines, own, strict=True):
            frame, track, left, top, wide, tall, considered, kind, visibility = line.split(",")
            assert (frame, track, considered, kind, visibility) == (
                row["frame"],
                row["track"],
                "1",
                "1",
                row["visibility"],
            )
            assert (int(left) - 1, int(top) - 1) == (int(row["left"]), int(row["top"]))
            assert int(left) - 1 + int(wide) == int(row["right"]) <= SIZE[1]
            assert int(top) - 1 + int(tall) == int(row["bottom"]) <= SIZE[0]
    assert (site / "cam3-2" / "seqinfo.ini").read_text() == (
        "[Sequence]\nname=cam3-2\nimDir=img1\nframeRate=5\nseqLength=90\nimWidth=320\nimHeight=180\nimExt=.jpg\n"
    )


def test_the_truth_against_itself_is_perfect(site: Path, tmp_path: Path) -> None:
    evaluate = pytest.importorskip("trackers.eval.evaluate", reason="trackers is not installed")
    text = (site / "cam1" / "gt" / "gt.txt").read_text()
    (tmp_path / "found.txt").write_text("".join(f"{line.rsplit(',', 2)[0]},-1,-1,-1\n" for line in text.splitlines()))
    result = evaluate.evaluate_mot_sequence(
        site / "cam1" / "gt" / "gt.txt", tmp_path / "found.txt", metrics=["CLEAR", "HOTA", "Identity"]
    )
    perfect = pytest.approx((1, 1, 1))
    assert perfect == (result.CLEAR.MOTA, result.HOTA.HOTA, result.Identity.IDF1)


def test_trackeval_reads_it(site: Path, tmp_path: Path) -> None:
    trackeval = pytest.importorskip("trackeval", reason="trackeval is not installed")
    names = ["cam1", "cam2", "cam3-1", "cam3-2", "cam4"]
    (tmp_path / "truth" / "data").mkdir(parents=True)
    for name in names:
        text = (site / name / "gt" / "gt.txt").read_text()
        (tmp_path / "truth" / "data" / f"{name}.txt").write_text(text)
    data = trackeval.datasets.MotChallenge2DBox(
        {
            **trackeval.datasets.MotChallenge2DBox.get_default_dataset_config(),
            "GT_FOLDER": str(site),
            "TRACKERS_FOLDER": str(tmp_path),
            "TRACKERS_TO_EVAL": ["truth"],
            "SEQ_INFO": dict.fromkeys(names),
            "SKIP_SPLIT_FOL": True,
            "PRINT_CONFIG": False,
        }
    )
    for name in names:
        sequence = data.get_preprocessed_seq_data(data.get_raw_seq_data("truth", name), "pedestrian")
        assert sequence["num_gt_dets"] == len((site / name / "gt" / "gt.txt").read_text().splitlines())
        assert trackeval.metrics.HOTA().eval_sequence(sequence)["HOTA"] == pytest.approx(1)
        assert trackeval.metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(sequence)["IDF1"] == pytest.approx(1)


def test_a_wrong_clock_changes_nothing_but_what_it_says(tmp_path: Path) -> None:
    right = render_cameras(tmp_path / "right", **SMALL)
    wrong = render_cameras(tmp_path / "wrong", **SMALL, clock_offsets={1: -30})
    assert {row["camera"] for row in rows(right / "truth.csv")} >= {"cam1", "cam2"}
    for table in ("truth.csv", "tracks.csv"):
        for one, other in zip(rows(right / table), rows(wrong / table), strict=True):
            clocks = one.pop("clock", None), other.pop("clock", None)
            assert one == other
            if table == "truth.csv":
                late = datetime.fromisoformat(clocks[0] or "") - datetime.fromisoformat(clocks[1] or "")
                assert late.total_seconds() == (30 if one["camera"] == "cam1" else 0)
    for path in right.glob("*.mp4"):
        np.testing.assert_array_equal(decoded(path), decoded(wrong / path.name))
    with av.open(str(wrong / "cam1.mp4")) as video:
        assert video.metadata["creation_time"].startswith("2026-01-05T08:59:30")


def test_the_same_seed_gives_the_same_truth_and_frames(tmp_path: Path) -> None:
    first, again = (render_cameras(tmp_path / name, **SMALL) for name in ("first", "again"))
    other = render_cameras(tmp_path / "other", **{**SMALL, "seed": 8})
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for name in files:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    assert (first / "truth.csv").read_bytes() != (other / "truth.csv").read_bytes()


def test_noise_is_there_and_can_be_left_out(tmp_path: Path) -> None:
    """Without people the frames of a camera differ by their noise alone."""
    spread = {}
    for noise in (0.0, 1.0, 6.0):
        folder = render_cameras(
            tmp_path / str(noise), cameras=1, people=1, seconds=2, fps=2, size=SIZE, noise=noise, seed=6
        )
        assert not rows(folder / "truth.csv")
        frames = np.array(decoded(folder / "cam1.mp4"), float)
        spread[noise] = frames.std(axis=0).mean()
    # Without noise the codec alone makes them differ.
    assert spread[0.0] < 2
    assert spread[0.0] < spread[1.0] < spread[6.0]
    assert spread[0.0] + 3 < spread[6.0] < 25


def test_progress_counts_every_frame(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    render_cameras(tmp_path / "site", **SMALL, dropouts=[(1, 1, 2)], progress=lambda *at: told.append(at))
    assert told == [(number, 55) for number in range(1, 56)]


def test_an_occupied_root_is_refused_and_an_interrupted_rendering_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="full exists and is not empty"):
        render_cameras(tmp_path / "full", **SMALL)

    def stop(done: int, total: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_cameras(tmp_path / "new", **SMALL, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cameras": 13}, "cameras must be 1 to 12, but is 13"),
        ({"people": 0}, "people must be 1 or more, but is 0"),
        ({"fps": 61}, "fps must be 1 to 60, but is 61"),
        ({"uniforms": 5}, "uniforms must be 0 to 4, but is 5"),
        ({"seed": -1}, "seed must be 0 or more, but is -1"),
        ({"day": 0}, "day must be 1 to 366, but is 0"),
        ({"seconds": math.nan}, "seconds must be 1 to 86400, but is nan"),
        ({"returning": 1.5}, "returning must be 0 to 1, but is 1.5"),
        ({"crowd": -0.1}, "crowd must be 0 to 1, but is -0.1"),
        ({"noise": 21}, "noise must be 0 to 20, but is 21"),
        ({"size": (97, 128)}, r"even \(height, width\).*\(97, 128\)"),
        ({"start": datetime(2026, 1, 1)}, "time zone"),
        ({"clock_offsets": {4: 1}}, "camera from 1 to 3 .*got 4"),
        ({"clock_offsets": {1: 0.5}}, "whole seconds.*camera 1, got 0.5"),
        ({"dropouts": [(1, 2, 5)]}, r"within the 4 seconds of the recording, got \(2, 5\)"),
        ({"dropouts": [(1, 0, 2), (1, 1, 3)]}, r"one after the other.*got \(1, 3\)"),
        ({"dropouts": [(2, 3, 3)]}, r"got \(3, 3\)"),
        ({"dropouts": [(1, 0, 4)]}, "camera 1 leave nothing"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        render_cameras(tmp_path / "site", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def test_several_dropouts_and_one_at_the_beginning() -> None:
    plan = draw_site(2, 0)
    begun = datetime(2026, 1, 5, 9, tzinfo=UTC)
    found = plan_recordings(
        plan, frames=100, fps=10, start=begun, clock_offsets={}, dropouts=[(2, 6, 7), (1, 0, 4), (2, 2, 3)]
    )
    assert [(each.name, each.first, each.frames, (each.start - begun).seconds) for each in found] == [
        ("cam1", 40, 60, 4),
        ("cam2-1", 0, 20, 0),
        ("cam2-2", 30, 30, 3),
        ("cam2-3", 70, 30, 7),
    ]


def test_without_pyav_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"needs PyAV. Install it: pip install 'reprism\[video\]'"):
        render_cameras(tmp_path / "site", **SMALL)


def test_pyav_is_imported_only_to_draw() -> None:
    look = "import sys, reprism.cli.data, reprism.drawn.cameras; print('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], capture_output=True, text=True).stdout == "False\n"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--cameras", "2", "--people", "3", "--seconds", "4", "--fps", "2", "--size", "96", "128"]
    asked = ["--clock-offsets", "1=-5", "2=45", "--dropouts", "1=1-2", "--start", "2026-05-01T12:00:00+02:00"]
    command = ["data", "render", "cameras", str(tmp_path / "site"), *small, *asked, "--day", "3"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'site'}\n"
    written = json.loads((tmp_path / "site" / "site.json").read_text())
    assert [place["clock_offset"] for place in written["cameras"]] == [-5, 45]
    assert [file["name"] for file in written["cameras"][0]["files"]] == ["cam1-1.mp4", "cam1-2.mp4"]
    assert written["cameras"][1]["files"][0]["clock_start"] == "2026-05-03T12:00:45+02:00"
    with av.open(str(tmp_path / "site" / "cam2.mp4")) as video:
        assert video.metadata["creation_time"].startswith("2026-05-03T10:00:45")
    assert main(command) == 1
    assert "is not empty" in capsys.readouterr().err
    for option, value in (("--clock-offsets", "2:45"), ("--dropouts", "1=2"), ("--start", "noon")):
        assert main(["data", "render", "cameras", str(tmp_path / "other"), option, value]) == 1
        assert f"expected {option}" in capsys.readouterr().err
