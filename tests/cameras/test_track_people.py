"""Tracks with the ids of people: of a drawn site's truth, and of a gallery's rows."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from reprism.cameras import BoxTable, TracksError, name_people, read_people
from reprism.cli import main
from reprism.embedding import DescriptorKind
from reprism.gallery.people import keep_people
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery

GT = "1,{a},11,11,10,20,1,1,1\n2,{a},12,11,10,20,1,1,1\n2,{b},51,11,10,20,1,1,1\n"


def site_of(folder: Path) -> Path:
    """Two cameras of a drawn site: ann is track 1 of the one and track 2 of the other."""
    for camera, tracks in (("cam1", {"a": 1, "b": 2}), ("cam2-1", {"a": 2, "b": 1})):
        (folder / camera / "gt").mkdir(parents=True)
        (folder / camera / "gt" / "gt.txt").write_text(GT.format(**tracks))
    rows = ["cam1,cam1.mp4,1,7", "cam1,cam1.mp4,2,8", "cam2,cam2-1.mp4,1,8", "cam2,cam2-1.mp4,2,7"]
    (folder / "tracks.csv").write_text("\n".join(["camera,file,track,pid", *rows]) + "\n")
    return folder


def test_a_drawn_sites_tracks_are_its_people(tmp_path: Path) -> None:
    site = site_of(tmp_path / "site")
    found = read_people(site)
    assert {camera: table.ids for camera, table in found.items()} == {
        "cam1": ("7", "7", "8"),
        "cam2-1": ("7", "7", "8"),
    }
    (site / "tracks.csv").write_text("camera,file,track,pid\ncam1,cam1.mp4,1,7\n")
    with pytest.raises(TracksError, match=r"tracks.csv does not say whose \('cam1', '2'\) is"):
        read_people(site)
    (site / "tracks.csv").unlink()
    assert read_people(site)["cam1"].ids == ("1", "1", "2")


def line(row: str, source: str, frames: tuple[int, int], box: list[float]) -> str:
    return json.dumps(
        {"id": row, "source": source, "first": {"frame": frames[0], "box": box}, "last": {"frame": frames[1]}}
    )


def test_boxes_have_the_people_of_their_rows(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 10, 20], [50, 0, 60, 20], [1, 0, 11, 20], [51, 0, 61, 20], [2, 0, 12, 20]], np.float32)
    tracks = {
        "cam1": BoxTable(np.array([0, 0, 1, 1, 9]), boxes, np.ones(5, np.float32), ("1", "2", "1", "2", "1")),
        "cam2": BoxTable(np.array([4]), boxes[:1], np.ones(1, np.float32), ("1",)),
    }
    lines = tmp_path / "tracklets.jsonl"
    rows = [
        line(
            "t", "/site/cam1.mp4", (9, 9), [2, 0, 12, 20]
        ),  # the track of the next row, in view for too long: another row
        line("r", "/site/cam1.mp4", (0, 1), [0.01, 0, 10, 19.99]),  # as rounded
        line("s", "/site/cam1.mp4", (0, 1), [50, 0, 60, 20]),
        line("u", "/site/cam2.mp4", (4, 4), [0, 0, 10, 20]),
    ]
    lines.write_text("\n".join(rows) + "\n")
    found = name_people(tracks, lines, {"r": "ann", "t": "bob", "u": "ann"})
    assert found["cam1"].ids == ("ann", "cam1 2", "ann", "cam1 2", "bob")
    assert found["cam2"].ids == ("ann",)
    for wrong in (
        line("v", "/site/cam3.mp4", (0, 1), [0, 0, 10, 20]),
        line("v", "cam2.mp4", (4, 4), [0, 0, 10, 21]),
        "7",
    ):
        lines.write_text(f"{rows[0]}\n{wrong}\n")
        with pytest.raises(TracksError, match=r"tracklets.jsonl:2: expected a tracklet of which the tracks have"):
            name_people(tracks, lines, {})
    for text in ("{", "\x00"):
        lines.write_text(text)
        with pytest.raises(TracksError, match="holds no lines of reprism watch"):
            name_people(tracks, lines, {})


def test_the_command_scores_people_across_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = site_of(tmp_path / "site")
    (tmp_path / "tracks").mkdir()
    for camera in ("cam1", "cam2-1"):  # ann is one, bob is another in each camera
        name = {"cam1": 5, "cam2-1": 6}[camera]
        (tmp_path / "tracks" / f"{camera}.txt").write_text(GT.format(a=3, b=name))
    command = ["evaluate-tracks", str(site), str(tmp_path / "tracks"), "--json", str(tmp_path / "f.json")]
    assert main(command) == 0
    assert "across" not in json.loads((tmp_path / "f.json").read_text())
    capsys.readouterr()
    assert main([*command, "--across"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "of 6 boxes of 2 people: IDF1 83.3, precision 83.3, recall 83.3 percent; 3 people in the tracks" in shown
    assert json.loads((tmp_path / "f.json").read_text())["across"]["idf1"] == pytest.approx(5 / 6)
    assert main([*command, "--people", "gallery"]) == 1
    assert "--people GALLERY and --lines FILE together" in capsys.readouterr().err


def test_people_of_a_gallery_are_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows as reprism watch makes them; linking took ann in both cameras for one person, and bob for two."""
    site, now = site_of(tmp_path / "site"), datetime.now(UTC)
    (tmp_path / "tracks").mkdir()
    lines, cameras = [], ("cam1", "cam2-1")
    for camera in cameras:
        (tmp_path / "tracks" / f"{camera}.txt").write_text(GT.format(a=3, b=4))
        lines += [line(row_id(f"ann {camera}"), f"{camera}.mp4", (0, 1), [10, 10, 20, 30])]
        lines += [line(row_id(f"bob {camera}"), f"{camera}.mp4", (1, 1), [50, 10, 60, 30])]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines) + "\n")
    names = [f"{who} {camera}" for camera in cameras for who in ("ann", "bob")]
    gallery = Gallery.create(tmp_path / "gallery", DescriptorKind("ab" * 32, "p1", 8, True))
    gallery.add([Entry(name, np.ones(8, np.float32), name, camid=name[4:], time=now) for name in names])
    given = ["--people", str(tmp_path / "gallery"), "--lines", str(tmp_path / "lines.jsonl")]
    command = ["evaluate-tracks", str(site), str(tmp_path / "tracks"), *given]
    linking = gallery.enable_linking("a test on drawn people", 30)
    assert main(command) == 1
    assert "got none that linking keeps: reprism link run" in capsys.readouterr().err
    keep_people(gallery.store, linking, [row_id(name) for name in names], np.array([0, 1, 0, 2]), np.ones(3))
    assert main(command) == 0
    assert "IDF1 83.3, precision 83.3, recall 83.3 percent; 3 people" in " ".join(capsys.readouterr().out.split())
