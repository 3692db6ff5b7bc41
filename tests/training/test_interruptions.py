"""Runs that end before their end: by a signal, a kill, a damaged file, a full disk, a loss that is not finite."""

import dataclasses
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import reprism
from reprism.data.records import DataError
from reprism.files import whole_file
from reprism.losses import TotalLoss
from reprism.models.checkpoint import CheckpointError
from reprism.training import module as training_module
from reprism.training import run
from reprism.training.module import ReIDModule
from reprism.training.recipes import Recipe, RecipeError, write_recipe
from reprism.training.resuming import DivergedError, WholeCheckpoints
from reprism.training.run import train
from reprism.training.stopping import TrainingInterrupted

MakeRecipe = Callable[..., Recipe]

pytestmark = pytest.mark.slow  # runs that are stopped and go on


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def at_step(patch: pytest.MonkeyPatch, step: int, act: Callable[[Any], Any]) -> None:
    """Do something in the training step with this number, 0 … 8, before it is computed."""
    training_step = ReIDModule.training_step

    def acting(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.processed == step:
            act(self)
        return training_step(self, batch, batch_idx)

    patch.setattr(ReIDModule, "training_step", acting)


def in_evaluation(patch: pytest.MonkeyPatch, batch: int, act: Callable[[], Any]) -> None:
    validation_step = ReIDModule.validation_step

    def acting(self: Any, images: Any, batch_idx: int) -> None:
        if batch_idx == batch:
            act()
        validation_step(self, images, batch_idx)

    patch.setattr(ReIDModule, "validation_step", acting)


def send(signum: int) -> Callable[..., None]:
    return lambda *_: os.kill(os.getpid(), signum)


# ---- Ctrl-C and SIGTERM ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signum", "step", "trainer", "workers", "saved"),
    [
        (signal.SIGINT, 1, {}, 0, 2),  # within an epoch
        (signal.SIGTERM, 2, {}, 1, 3),  # in an epoch's last step
        (signal.SIGTERM, 4, {}, 1, 5),
        (signal.SIGINT, 5, {}, 0, 6),  # in the step before an evaluation
        (signal.SIGINT, 8, {}, 0, 9),  # in the very last
    ],
)
def test_a_signal_saves_at_the_next_step_and_resuming_changes_nothing(
    uninterrupted: Path, people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    signum: signal.Signals, step: int, trainer: dict[str, Any], workers: int, saved: int,
) -> None:  # fmt: skip
    # No point but the one that the signal asks for.
    recipe = recipe_of(people, trainer={"checkpoint_seconds": 1e9}, data={"workers": workers})
    folder = tmp_path / "a run"
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        at_step(patch, step, send(signum))
        with pytest.raises(TrainingInterrupted, match=f"Resume with: reprism train '{folder}' --resume") as stopped:
            train(recipe, folder)
    assert stopped.value.signum == signum
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == saved
    train(recipe, folder, resume=True)
    assert same(weights(folder), weights(uninterrupted))
    whole, resumed = (json.loads((each / "metrics.json").read_text()) for each in (uninterrupted, folder))
    assert resumed["evaluations"] == whole["evaluations"]


# As Ctrl-C at a terminal and scancel do it: the signal goes to worker processes too, in the middle of a step.
GROUP = """
import multiprocessing, os, signal, sys
from reprism.cli import main
from reprism.training.module import ReIDModule
step = ReIDModule.training_step
def training_step(self, batch, batch_idx):
    if self.trainer.fit_loop.epoch_loop.batch_progress.total.processed == 0:
        os.killpg(0, signal.Signals[sys.argv[1]])
    return step(self, batch, batch_idx)
ReIDModule.training_step = training_step
multiprocessing.set_start_method("spawn")  # as macOS does; a forked worker has the handlers of the run
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("signal_name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_to_the_whole_group_is_told_in_one_line(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, signal_name: str, status: int
) -> None:
    # More batches to a step than a worker loads ahead: it must live on for the rest of them.
    data, trainer = {"workers": 1, "ids_per_batch": 2}, {"accumulate": 6, "log_every": 1}
    write_recipe(recipe_of(people, data=data, trainer=trainer), tmp_path / "recipe.json")
    command = [sys.executable, "-c", GROUP, signal_name, "train", "recipe.json", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, start_new_session=True, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    at_once, line = [line for line in done.stderr.splitlines() if line and not line.startswith("Epoch")]
    assert at_once.startswith("Stopping after this step")
    assert line.endswith("Resume with: reprism train ./run --resume")
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 1


@pytest.mark.parametrize("batch", [0, 2])
def test_a_signal_in_an_evaluation_stops_it_and_resuming_evaluates_anew(
    uninterrupted: Path, people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    batch: int,
) -> None:  # fmt: skip
    recipe = recipe_of(people, trainer={"checkpoint_seconds": 1e9})
    with monkeypatch.context() as patch:
        in_evaluation(patch, batch, send(signal.SIGTERM))
        in_evaluation(patch, batch + 1, lambda: pytest.fail("the evaluation went on"))
        with pytest.raises(TrainingInterrupted):
            train(recipe, tmp_path / "run")
    point = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert (point["global_step"], point["evaluations"]) == (6, [])
    train(recipe, tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(uninterrupted))
    whole, resumed = (json.loads((each / "metrics.json").read_text()) for each in (uninterrupted, tmp_path / "run"))
    assert resumed["evaluations"] == whole["evaluations"]


def test_gathered_gradients_are_stepped_before_a_signal_is_obeyed(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(people, trainer={"accumulate": 2, "checkpoint_seconds": 1e9}, optimizer={"epochs": 1})
    at_step(monkeypatch, 0, send(signal.SIGTERM))
    with pytest.raises(TrainingInterrupted):
        train(recipe, tmp_path / "run")
    point = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert point["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"] == 2
    assert point["global_step"] == 1


def test_a_second_signal_ends_the_run_within_the_step(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the step went on")

    at_step(monkeypatch, 4, twice)
    with pytest.raises(TrainingInterrupted):
        train(recipe_of(people), tmp_path / "run")
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_the_seconds_of_all_sittings_are_counted(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(people, optimizer={"epochs": 1})
    with monkeypatch.context() as patch:
        at_step(patch, 1, send(signal.SIGINT))
        with pytest.raises(TrainingInterrupted):
            train(recipe, tmp_path / "run")
    point = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert 0 < point["seconds"] < 3600
    torch.save({**point, "seconds": 86_400.0}, tmp_path / "run" / "last.ckpt")
    assert train(recipe, tmp_path / "run", resume=True).metrics["seconds"] > 86_400


# ---- points to resume from -------------------------------------------------------------------------------------------


@pytest.fixture(params=["temporary", "another"])
def file_system(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A folder on the file system of the temporary folder, and one on another."""
    if request.param == "temporary":
        yield tmp_path
        return
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second file system to write to: /dev/shm is none")
    folder = Path(tempfile.mkdtemp(dir=other))
    yield folder
    shutil.rmtree(folder)


def _save_and_be_killed(folder: Path, moment: str) -> None:
    writer, save, rename = WholeCheckpoints(), torch.save, Path.replace
    for number in (1, 2):
        writer.save_checkpoint({"torch_rng_state": number}, folder / "last.ckpt")

    def half(values: Any, target: Any) -> None:
        save(values, target)
        target.truncate(target.tell() // 2)
        target.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def between(self: Path, target: Path) -> Any:
        rename(self, target)
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "half written":
        torch.save = half
    else:
        Path.replace = between  # type: ignore[method-assign]
    writer.save_checkpoint({"torch_rng_state": 3}, folder / "last.ckpt")


@pytest.mark.parametrize("moment", ["half written", "between the renames"])
def test_a_kill_9_within_a_write_leaves_a_whole_point(file_system: Path, moment: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=_save_and_be_killed, args=(file_system, moment))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    reader = WholeCheckpoints()
    assert reader.load_checkpoint(file_system / "last.ckpt", weights_only=True)["torch_rng_state"] == 2
    # What it left behind goes with the next write.
    reader.save_checkpoint({"torch_rng_state": 4}, file_system / "last.ckpt")
    assert {path.name for path in file_system.iterdir()} <= {"last.ckpt", "previous.ckpt"}


def test_a_damaged_point_is_named_and_the_one_before_taken(
    uninterrupted: Path, people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 5, send(signal.SIGINT))
        with pytest.raises(TrainingInterrupted):
            train(recipe_of(people), folder)
    damaged = bytearray((folder / "last.ckpt").read_bytes())
    damaged[len(damaged) // 2] ^= 1  # in some weight: torch.load would take it
    (folder / "last.ckpt").write_bytes(damaged)
    train(recipe_of(people), folder, resume=True)
    (said,) = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert f"{folder / 'last.ckpt'} is damaged" in said
    assert "previous.ckpt" in said
    assert same(weights(folder), weights(uninterrupted))
    assert not (folder / "previous.ckpt").exists()
    for content in (damaged[:1000], b"", bytes(damaged)):
        (folder / "last.ckpt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"cannot resume: .*last\.ckpt") as error:
            train(recipe_of(people), folder, resume=True)
        assert "weights_only" not in str(error.value)
        assert "\n" not in str(error.value)


def test_a_full_disk_is_said_with_the_file_and_leaves_what_was_there(tmp_path: Path) -> None:
    writer, path = WholeCheckpoints(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"torch_rng_state": 1}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # the system refuses to write more, as when full
    try:
        with pytest.raises(OSError, match=r"last\.ckpt"):
            writer.save_checkpoint({"torch_rng_state": torch.zeros(100_000)}, path)
        model = reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16))
        with pytest.raises(OSError, match=r"model\.safetensors cannot be written"):
            reprism.save(model, tmp_path / "model.safetensors")
        with pytest.raises(OSError, match="notes"), whole_file(tmp_path / "notes") as file:
            file.write(bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert writer.load_checkpoint(path, weights_only=True)["torch_rng_state"] == 1
    assert [left.name for left in tmp_path.iterdir()] == ["last.ckpt"]


def test_files_are_synced_before_they_take_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append(f"sync {os.fstat(file).st_size > 0}") or sync(file))
    monkeypatch.setattr(Path, "replace", lambda self, target: done.append("rename") or rename(self, target))
    with whole_file(tmp_path / "notes") as file:
        file.write(b"text")
        assert not (tmp_path / "notes").exists()
    assert done == ["sync True", "rename", "sync True"]  # the file; its name; the folder that holds the name


# ---- losses and weights that are not finite --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run_at_that_step(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    loss, calls = TotalLoss.forward, []

    def exploding(self: Any, output: Any, labels: Any) -> Any:
        terms = loss(self, output, labels)
        calls.append(1)
        return terms._replace(total=terms.total * value) if len(calls) == 5 else terms

    monkeypatch.setattr(TotalLoss, "forward", exploding)
    with pytest.raises(DivergedError, match=r"loss is not finite .*epoch 2, .*--optimizer\.lr.* 0\.001") as error:
        train(recipe_of(people, trainer={"precision": "bf16"}), tmp_path / "run")
    assert "--trainer.precision fp32" in str(error.value)
    assert str(tmp_path / "run" / "last.ckpt") in str(error.value)
    assert len(calls) == 5
    point = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert point["global_step"] == 4
    assert all(value.isfinite().all() for value in point["state_dict"].values())
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_weights_that_are_not_finite_are_not_saved(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a gradient that is none, of a loss that is one."""

    def spoil(self: Any) -> None:
        self.model.heads["p1"].reduce.weight.register_hook(lambda gradient: gradient * float("nan"))

    at_step(monkeypatch, 4, spoil)
    with pytest.raises(DivergedError, match="network is not finite"):
        train(recipe_of(people), tmp_path / "run")
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 4


# ---- before the first step, and after the last -----------------------------------------------------------------------


def test_data_that_cannot_be_evaluated_or_trained_on_are_refused_first(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReIDModule, "training_step", lambda *_: pytest.fail("a step was trained"))
    whole = reprism.open_dataset("market1501", people)
    strangers = tuple(item for item in whole.gallery if item.pid == 0)
    for says, part in (
        ("no query", {"query": ()}),
        ("no gallery", {"gallery": ()}),
        ("no valid query", {"gallery": strangers}),
        ("no training images", {"train": ()}),
    ):
        monkeypatch.setattr(run, "open_dataset", lambda *_, part=part, **__: dataclasses.replace(whole, **part))
        with pytest.raises(DataError, match=says):
            train(recipe_of(people), tmp_path / "run")
    monkeypatch.setattr(run, "open_dataset", lambda *_, **__: whole)
    with pytest.raises(DataError, match=r"12 training identities cannot fill a batch of 13"):
        train(recipe_of(people, data={"ids_per_batch": 13}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("evaluate_every", [0, 3])
def test_the_model_is_saved_before_it_is_evaluated(
    uninterrupted: Path, people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    evaluate_every: int,
) -> None:  # fmt: skip
    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("the evaluation fails")

    monkeypatch.setattr(training_module, "evaluate_items", fail)
    with pytest.raises(ValueError, match="the evaluation fails"):
        train(recipe_of(people, trainer={"evaluate_every": evaluate_every}), tmp_path / "run")
    assert same(weights(tmp_path / "run"), weights(uninterrupted))


def test_data_may_move_but_must_be_the_same(
    uninterrupted: Path, people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(people, tmp_path / "before")
    with monkeypatch.context() as patch:
        at_step(patch, 4, send(signal.SIGINT))
        with pytest.raises(TrainingInterrupted):
            train(recipe_of(tmp_path / "before"), tmp_path / "run")
    (tmp_path / "before").rename(tmp_path / "after")
    shutil.copytree(tmp_path / "after", tmp_path / "other")
    image = next((tmp_path / "other" / "bounding_box_train").glob("*.jpg"))
    image.rename(image.with_name(image.name.replace("c1", "c2").replace("_0", "_9")))
    with pytest.raises(RecipeError, match="not those that the run began with"):
        train(recipe_of(tmp_path / "other"), tmp_path / "run", resume=True)
    train(recipe_of(tmp_path / "after"), tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(uninterrupted))
