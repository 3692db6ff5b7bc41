"""The help of every command: it begins with an example, lists what matters first, and says nothing empty."""

import re
import shlex

import pytest

from reprism.cli import COMMANDS as TABLE
from reprism.cli import main

COMMANDS = [[name] for name in TABLE if name not in ("data", "link", "train")]
COMMANDS += [
    ["data", "check"],
    ["data", "clean"],
    ["data", "render"],
    ["data", "render", "cameras"],
    ["link", "answer"],
    ["link", "answers"],
    ["link", "changes"],
    ["link", "disable"],
    ["link", "enable"],
    ["link", "export"],
    ["link", "learn"],
    ["link", "review"],
    ["link", "run"],
    ["link", "show"],
    ["link", "status"],
    ["link", "undo"],
    ["link", "update"],
    ["train"],
    ["train", "scr-market1501-released"],
]
_MOST = 6  # options before those that matter less, --help included


def shown(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_begins_with_an_example_that_parses(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(command, capsys)
    first, heading, *_ = text.split("\n\n")
    assert first.endswith(".")
    assert heading.startswith("Example")
    known = set(re.findall(r"--[a-z][a-z0-9.-]*", text.partition("usage:")[2]))
    examples = [shlex.split(line) for line in heading.splitlines()[1:]]
    assert examples
    for example in examples:
        assert example[:2] == ["reprism", command[0]]
        assert {word for word in example if word.startswith("--")} <= known


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("columns", ["80", "60"])
def test_help_says_nothing_empty_and_fits(
    command: list[str], columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = shown(command, capsys)
    for empty in ("None", "`", "(default: )", "by custom", "wanted is"):
        assert empty not in text
    too_long = [
        line
        for line in text.splitlines()
        if len(line) > int(columns) and not line.startswith(("  reprism ", "usage: "))
    ]
    assert too_long == []


def test_options_that_matter_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    options = re.findall(r"^. (-[-a-z]+)", shown(["index"], capsys), re.MULTILINE)
    assert options[:_MOST] == ["-h", "--model", "--gallery", "--naming", "--tracks", "--source"]
