"""``reprism evaluate-tracks``: what it prints and writes."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from reprism.cameras import TrackFigures, TrackMetrics
from reprism.cli import main
from reprism.cli.evaluate_tracks import tracks_table

TRUTH = "1,1,10,20,30,60,1,1,1\n1,2,100,20,30,60,1,1,0.1\n2,1,12,20,30,60,1,1,1\n"


def test_figures_are_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for camera in ("yard", "[red]hall"):
        (tmp_path / "truth" / camera / "gt").mkdir(parents=True)
        (tmp_path / "truth" / camera / "gt" / "gt.txt").write_text(TRUTH)
        (tmp_path / "tracks").mkdir(exist_ok=True)
        (tmp_path / "tracks" / f"{camera}.txt").write_text("1,7,10,20,30,60,0.9\n2,8,12,20,30,60,0.9\n")
    command = ["evaluate-tracks", str(tmp_path / "truth"), str(tmp_path / "tracks"), "--json", str(tmp_path / "f.json")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["yard"] == rows["[red]hall"]
    assert rows["yard"][3:8] == ["40.0", "33.3", "1", "1", "0"]  # 2·1/(3+2), and 1 - 2/3
    assert rows["all"][4:9] == ["40.0", "33.3", "2", "2", "0"]
    assert "at IoU 0.5" in shown
    written = json.loads((tmp_path / "f.json").read_text())
    assert written["overall"]["idf1"] == pytest.approx(0.4)
    assert sorted(written["cameras"]) == ["[red]hall", "yard"]
    assert main([*command[:3], "--min-visibility", "0.25"]) == 0
    shown = capsys.readouterr().out
    assert "less than 25% shows" in " ".join(shown.split())
    assert "50.0" in shown


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gt.txt").write_text(TRUTH)
    assert main(["evaluate-tracks", str(tmp_path / "gt.txt"), str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("reprism evaluate-tracks: error: no tracks at ")
    assert main(["evaluate-tracks", str(tmp_path / "gt.txt"), str(tmp_path / "gt.txt"), "--iou", "2"]) == 1
    assert "expected an IoU above 0 and up to 1, got 2" in capsys.readouterr().err


@pytest.mark.parametrize("width", [70, 80, 120])
def test_the_table_fits(width: int) -> None:
    figures = TrackFigures(0.5, 0.5, 0.5, 0.5, float("nan"), 12_345, 123_456, 123_456, 1_234_567, 10_000, 10_000)
    found = TrackMetrics(figures, {"entrance-10": figures, "b": figures}, 0.5, 0.0)
    console = Console(file=io.StringIO(), width=width)
    console.print(tracks_table(found, width))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if "entrance-10" in line).split()
    assert row[1:7] == ["50.0", "50.0", "50.0", "50.0", "–", "12,345"]
    assert ("1,234,567" in row) == (width > 96)
