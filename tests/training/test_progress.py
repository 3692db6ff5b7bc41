"""The line that shows how a training run goes: on narrow terminals, and in logs."""

import io
import re
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from reprism.training import progress as progress_module
from reprism.training.progress import TrainingProgress, evaluations_left, fitting
from reprism.training.recipes import Recipe
from reprism.training.run import train

FIGURES = ["1:23:45 left", "mAP 100.0%", "loss 12.34", "1,234 images/s"]


def recipe(root: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"root": root, "size": (32, 16), "ids_per_batch": 4, "images_per_id": 2, "workers": 0},
            "model": {"backbone": "mobilenetv3_small_050", "pretrained": False, "partition": "p1", "part_dim": 8},
            "optimizer": {"epochs": 3, "milestones": (1,), "lr": 1e-3},
            "trainer": {"accelerator": "cpu", "checkpoint_seconds": 0, "evaluate_every": 2},
        }
    )


BATCH = (None, range(32))  # images, labels
NOTHING_YET: Any = SimpleNamespace(evaluations=[])


def stub(epoch: int) -> tuple[Any, Any]:
    """What the line looks at of a trainer: five epochs of a hundred steps on two devices. And its count of steps."""
    done = SimpleNamespace(processed=100 * epoch)
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=done)))
    return SimpleNamespace(
        current_epoch=epoch,
        max_epochs=5,
        num_training_batches=100,
        check_val_every_n_epoch=2,
        world_size=2,
        callback_metrics={"loss/total": 1.0},
        fit_loop=loop,
    ), done


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A terminal of a width, or none, kept in memory; every step is shown."""

    def make(width: int, terminal: bool) -> io.StringIO:
        for name in ("CI", "TTY_INTERACTIVE", "TTY_COMPATIBLE", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm")
        file = io.StringIO()
        monkeypatch.setattr(
            progress_module, "Console", lambda **_: Console(file=file, width=width, force_terminal=terminal)
        )
        monkeypatch.setattr(progress_module, "_REDRAW_SECONDS", 0)
        return file

    return make


def test_a_run_on_a_terminal(people: Path, tmp_path: Path, screen: Any) -> None:
    file = screen(60, terminal=True)
    result = train(recipe(people), tmp_path / "run")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    frames = [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert max(map(len, frames)) <= 60
    training = [frame for frame, _ in groupby(frames) if re.match(r"epoch \d/3 ", frame)]
    assert [frame.split()[1] for frame in training] == ["1/3"] * 3 + ["2/3"] * 3 + ["3/3"] * 3
    assert all(re.search(r"\d:\d\d left", frame) and "loss " in frame for frame in training)
    assert not any("mAP" in frame for frame in training[:6])  # not measured yet
    first, last = result.metrics["evaluations"]
    assert all(f"mAP {first['mAP']:.1%}" in frame for frame in training[6:])
    assert any(frame.startswith("epoch 2/3, evaluating") for frame in frames)
    for epoch, found in ((2, first), (3, last)):
        assert f"epoch {epoch}/3: mAP {found['mAP']:.1%}, rank-1 {found['rank1']:.1%}" in frames


def test_a_run_in_a_log(people: Path, tmp_path: Path, screen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = screen(60, terminal=False)
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0)
    train(recipe(people), tmp_path / "run")
    lines = file.getvalue().splitlines()
    assert re.fullmatch(r"epoch 1/3, \d:\d\d left, loss \d+\.\d\d, [\d,]+ images/s", lines[0])
    assert not re.search(r"[\r\x1b]", file.getvalue())


def test_a_log_gets_a_line_now_and_then(screen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file, moment = screen(60, terminal=False), [0.0]
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: moment[0]))
    trainer, done = stub(epoch=0)
    line = TrainingProgress()
    line.on_train_start(trainer, NOTHING_YET)
    for _ in range(100):
        done.processed, moment[0] = done.processed + 1, moment[0] + 4
        line.on_train_batch_end(trainer, NOTHING_YET, None, BATCH, 0)
    assert len(file.getvalue().splitlines()) == 400 // 60
    line.disable()  # as on every process but the first
    moment[0] += 1000
    line.on_train_batch_end(trainer, NOTHING_YET, None, BATCH, 0)
    assert len(file.getvalue().splitlines()) == 400 // 60


def test_the_time_left_of_a_resumed_run_is_that_of_its_own_steps(screen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file, moment = screen(80, terminal=False), [1000.0]
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: moment[0]))
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0)
    trainer, done = stub(epoch=3)
    module: Any = SimpleNamespace(evaluations=[{"epoch": 3, "mAP": 0.25, "rank1": 0.5}])
    line = TrainingProgress()
    line.on_train_start(trainer, module)
    for _ in range(100):  # two seconds a step
        done.processed += 1
        moment[0] += 2
        line.on_train_batch_end(trainer, module, None, BATCH, 0)
    # 199 steps were left after the first of this sitting, not the 301st of all; 32 images on each of two devices.
    lines = file.getvalue().splitlines()
    assert lines[0] == "epoch 4/5, 6:38 left, mAP 25.0%, loss 1.00, 32 images/s"
    assert lines[-1].startswith("epoch 4/5, 3:20 left")
    # An evaluation of 90 seconds, after which one is still to come, counts beside the steps and not among them.
    line.on_validation_start(trainer, module)
    moment[0] += 90
    line.on_validation_end(trainer, module)
    trainer.current_epoch, done.processed = 4, done.processed + 1
    moment[0] += 2
    line.on_train_batch_end(trainer, module, None, BATCH, 0)
    assert file.getvalue().splitlines()[-1].startswith("epoch 5/5, 4:48 left")  # 99 steps of 2 s, and 90 s


@given(st.integers(1, 40), st.one_of(st.none(), st.integers(1, 45)), st.data())
def test_evaluations_left_are_those_that_a_count_finds(epochs: int, every: int | None, data: st.DataObject) -> None:
    epoch = data.draw(st.integers(0, epochs - 1))
    after = {e for e in range(1, epochs + 1) if every and e % every == 0} | {epochs}
    assert evaluations_left(epoch, epochs, every) == len([e for e in after if e > epoch])


def test_figures_that_do_not_fit_are_left_out_from_the_end() -> None:
    assert fitting(FIGURES, 80) == "1:23:45 left  mAP 100.0%  loss 12.34  1,234 images/s"
    assert fitting(FIGURES, 40) == "1:23:45 left  mAP 100.0%  loss 12.34"
    assert fitting(FIGURES, 5) == ""
    # The longest line of the longest recipes, on 80 columns: nothing is left out.
    assert fitting(FIGURES, 80 - len("epoch 500/500") - 10 - 2) == fitting(FIGURES, 80)
