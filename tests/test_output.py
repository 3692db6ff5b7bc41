"""Bars and tables of the command line, at the widths of narrow terminals and where there is no terminal."""

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from reprism.cli import output
from reprism.cli.output import figures_table, metrics_table, progress_bars, shortened, unused

RESULT = {
    **dict.fromkeys(("mAP", "mINP", "rank1", "rank5", "rank10", "rank20"), 1.0),
    "num_queries": 11_659,
    "num_lost_queries": 2_345,
}
LONG = "cuhk03,protocol=classic,split=2:/data/of/the/second/site/cuhk03"


def printed(table: Any, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the commands' bars go to a terminal (or not) of a width, kept in memory."""

    def make(width: int, terminal: bool) -> io.StringIO:
        for name in ("CI", "TTY_INTERACTIVE", "TTY_COMPATIBLE", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        file = io.StringIO()
        console = Console(file=file, width=width, force_terminal=terminal)
        monkeypatch.setattr(output, "Console", lambda **_: console)
        return file

    return make


@pytest.mark.parametrize("width", [60, 80, 120])
def test_metrics_keep_whole_names_and_figures(width: int) -> None:
    lines = printed(metrics_table([RESULT, RESULT], ["market1501", LONG], width), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    rows = lines[lines.index(next(line for line in lines if line.strip().startswith("market1501"))) :]
    assert rows[0].split() == ["market1501", *["100.0"] * (6 if width >= 80 else 4), "11659", "2345"]
    folded = "".join(line.split()[0] for line in rows[1:] if line.strip())
    assert folded == LONG


def test_a_name_is_text_and_no_markup() -> None:
    assert "[red]x" in "".join(printed(metrics_table([RESULT], ["[red]x"], 80), 80))


def test_a_table_of_backbones_fits() -> None:
    table = figures_table("p1", ("parameters", "GFLOP", "descriptor", "images/s"), label="backbone")
    table.add_row("tf_efficientnet_lite0", "13,200,000", "6.0", "3,328", "41.0")
    assert re.search(r"tf_efficientnet_lite0 +13,200,000 +6\.0 +3,328 +41\.0", "\n".join(printed(table, 80)))


@pytest.mark.parametrize("width", [60, 80])
def test_bars_fit(screen: Any, width: int) -> None:
    file = screen(width, terminal=True)
    with progress_bars() as progress:
        for done in (1, 500, 5_328):
            progress("runs/a-long-name/of-a-run/model.safetensors: ranking", done, 5_328)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    frames = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert frames
    assert max(map(len, frames)) <= width
    assert any("ranking" in frame and "/5328" in frame for frame in frames)


def test_off_a_terminal_there_are_lines_now_and_then(screen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file, moment = screen(60, terminal=False), [0.0]
    monkeypatch.setattr(output, "time", SimpleNamespace(monotonic=lambda: moment[0]))
    with progress_bars() as progress:
        for done in range(1, 1001):
            moment[0] += 1
            progress("a description that is longer than the width of the terminal: query", done, 1000)
    lines = file.getvalue().splitlines()
    assert lines[0].endswith("query: 61 of 1,000")
    assert lines[-1].endswith("query: 1,000")
    assert len(lines) == 1000 // 60 + 1
    assert not re.search(r"[\r\x1b]", file.getvalue())


def test_nothing_is_written_where_nothing_was_done(screen: Any) -> None:
    file = screen(80, terminal=False)
    with progress_bars():
        pass
    assert file.getvalue() == ""


def test_shortening_keeps_the_end() -> None:
    assert shortened("model.safetensors", 40) == "model.safetensors"
    assert shortened("runs/one/model.safetensors", 18) == "…model.safetensors"
    assert len(shortened("x" * 99, 3)) == 12


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    path = tmp_path / "evaluation-a.b.json"
    for expected in ("evaluation-a.b.json", "evaluation-a.b-2.json", "evaluation-a.b-3.json"):
        free = unused(path)
        assert free.name == expected
        free.touch()
