"""How commands end before their end: by Ctrl-C, by SIGTERM, for want of a reader; always in one line."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import reprism
from reprism import cli
from reprism.cli import main, train
from reprism.training.recipes import RECIPES, write_recipe


@pytest.mark.parametrize("command", ["index", "optimize", "compress", "reproduce"])
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_in_one_line(
    command: str, signum: signal.Signals, status: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def run(_: Sequence[str]) -> int:
        os.kill(os.getpid(), signum)
        return 0

    module = cli.import_module(f"reprism.cli.{command}")
    monkeypatch.setattr(module, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    assert main([command]) == status
    assert signal.getsignal(signal.SIGTERM) == before
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"reprism {command}: stopped")


@pytest.mark.parametrize("arguments", [["--help"], ["data", "check", "--help"]])
def test_nothing_is_said_where_nobody_reads(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "reprism", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Sequence[str]) -> int:
        raise BrokenPipeError(32, "a worker has gone")

    monkeypatch.setattr(cli.import_module("reprism.cli.optimize"), "run", run)
    assert main(["optimize"]) == 1
    assert "a worker has gone" in capsys.readouterr().err


class Called(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize(
    ("arguments", "name", "out"),
    [
        (["cpu-hour", "--resume"], "mine", "cpu-hour"),  # the run in that folder
        (["./cpu-hour", "--resume"], "mine", "cpu-hour"),
        (["cpu-hour"], "cpu-hour", "runs/cpu-hour"),  # the recipe
        (["scr-mars", "--resume"], "scr-mars", "runs/scr-mars"),  # no such folder
    ],
)
def test_a_run_in_a_folder_named_like_a_recipe_is_resumed(
    arguments: list[str], name: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(RECIPES["scr-mars"].model_copy(update={"name": "mine"}), Path("cpu-hour/recipe.json"))

    def called(recipe: object, folder: Path, **_: object) -> None:
        raise Called(recipe.name, str(folder))  # type: ignore[attr-defined]

    monkeypatch.setattr("reprism.training.run.train", called)
    with pytest.raises(Called) as call:
        train.run(arguments)
    assert call.value.args == (name, out)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--trainer.accelerator", "gpu"], "--trainer.accelerator cpu"),
        (["--trainer.accelerator", "gpu", "--trainer.devices", "4"], "trainer.devices 4, but PyTorch finds no GPU"),
    ],
)
def test_devices_that_are_not_there_are_told_in_one_line(
    options: list[str], says: str, tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    assert main(["train", "cpu-hour", "--data.root", str(people), "--out", str(tmp_path / "run"), *options]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line
    assert not (tmp_path / "run").exists()


def test_a_device_to_embed_on_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    model = reprism.save(reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8), tmp_path / "m.safetensors")
    for device in ("cuda", "cuda:3", "tpu9"):
        assert main(["evaluate", str(model), "--data", f"market1501:{people}", "--device", device]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert f"device {device!r} cannot be used here" in line
