"""What people are told: near misses, durations, and where bars are drawn."""

import io

import pytest
from rich.console import Console

from reprism.terminal import clock, did_you_mean, is_animated


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("trian", "train"),
        ("EVALUATE", "evaluate"),
        ("opt", "optimize"),
        ("eval", "evaluate"),
        ("xyz", None),
        ("", None),
    ],
)
def test_near_misses(given: str, meant: str | None) -> None:
    hint = did_you_mean(given, ["train", "evaluate", "optimize"])
    assert hint == ("" if meant is None else f" Did you mean {meant!r}?")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (83, "1:23"), (3600, "1:00:00"), (180_000, "50:00:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_bars_move_on_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "TTY_INTERACTIVE", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")

    def terminal(yes: bool) -> Console:
        return Console(file=io.StringIO(), force_terminal=yes)

    assert is_animated(terminal(True))
    assert not is_animated(terminal(False))
    monkeypatch.setenv("CI", "true")
    assert not is_animated(terminal(True))
    monkeypatch.delenv("CI")
    monkeypatch.setenv("TERM", "dumb")
    assert not is_animated(terminal(True))
