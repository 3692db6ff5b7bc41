"""The README's commands and code run as they stand."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reprism.cli import main
from reprism.notation import Partition
from reprism.training.recipes import find_recipe

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_commands_then_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("reprism ")]
    assert [command[1] for command in commands] == [
        *("data", "train", "evaluate", "data", "evaluate", "index", "search", "serve")
    ]
    for _, *command in commands:
        if command[0] == "serve":  # until it is told to end
            with pytest.raises(SystemExit):
                main([*command, "--help"])
            continue
        # One epoch tries the command; what all of them give is in docs/benchmarks.md.
        shorter = ["--optimizer.epochs", "1"] if command[0] == "train" else []
        assert main([*command, *shorter]) == 0
    assert "data:image" in Path("matches.html").read_text()
    images, tracklets = json.loads(Path("evaluation-cpu-minutes-market1501-people-mars-walks.json").read_text())
    assert images["num_queries"] > tracklets["num_queries"] > tracklets["num_lost_queries"] == 1
    capsys.readouterr()
    known: dict[str, Any] = {}
    exec(compile("\n".join(blocks("python")), "README.md", "exec"), known)
    assert re.match(r"0\.\d+ 0\.\d+ single query, same-camera", capsys.readouterr().out)
    np.testing.assert_allclose(known["rows"], known["result"].query, atol=1e-6)


def test_the_recipe_file(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = find_recipe(str(tmp_path / "recipe.yaml"))
    assert (recipe.name, recipe.trainer.devices, recipe.data.size) == ("stripes-only", 2, (384, 192))


def test_every_partition_parses() -> None:
    named = re.findall(r"`(p\d[^`]*)`", README)
    assert len(named) >= 5
    for text in named:
        assert str(Partition.parse(text)) == text


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted((Path(__file__).parents[1] / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    if example.stem == "track_video":
        # OpenCV, which it brings along, does not load where the system has no libGL.
        pytest.importorskip("trackers", exc_type=ImportError)
    run = subprocess.run([sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout
    assert "Warning" not in run.stderr
    assert len(example.read_text().splitlines()) < 60
    if example.stem == "track_video":
        lines = run.stdout.splitlines()
        for camera in (2, 1):
            assert f"camera {camera}: 4 tracks of 4 people, 0 mixed" in lines
        # Training ends elsewhere on other machines; in other scenes, too, 15 of 16 people are found in the mean.
        assert sum(line.endswith(", right") for line in lines) >= 3, run.stdout


def test_make_commands_exist() -> None:
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", "\n".join(blocks("sh")), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)
