"""Whole runs at a tiny size: exact resuming, two processes, schedules, what a run folder holds."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import reprism
from reprism.data.records import DataError
from reprism.data.video import VideoSettings
from reprism.drawn.layouts import render_mars
from reprism.evaluation.items import evaluate_items
from reprism.training import module as training_module
from reprism.training.recipes import OptimizerSettings, Recipe, RecipeError
from reprism.training.run import train
from reprism.training.schedule import learning_rate_factor

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "data": {"size": (32, 16), "ids_per_batch": 4, "images_per_id": 2, "workers": 0, "erasing": 0.5},
    "model": {"backbone": "mobilenetv3_small_050", "pretrained": False, "partition": "p1+p2(s2c2)", "part_dim": 8},
    "optimizer": {"epochs": 3, "milestones": (1,), "lr": 1e-3},
    "trainer": {"accelerator": "cpu", "checkpoint_seconds": 0, "evaluate_every": 2, "log_every": 1},
}


def tiny(root: Path, **changes: dict[str, Any]) -> Recipe:
    merged = {key: {**value, **changes.get(key, {})} if isinstance(value, dict) else value
              for key, value in SETTINGS.items()}  # fmt: skip
    merged["data"]["root"] = str(root)
    return Recipe.model_validate(merged)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def whole_run(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted: 3 epochs of 3 steps."""
    return train(tiny(people), tmp_path_factory.mktemp("runs") / "whole").folder


def test_a_run_folder_holds_everything(whole_run: Path, people: Path) -> None:
    assert Recipe.model_validate_json((whole_run / "recipe.json").read_text()) == tiny(people)
    environment = json.loads((whole_run / "environment.json").read_text())
    assert torch.__version__.startswith(environment["packages"]["torch"])
    metrics = json.loads((whole_run / "metrics.json").read_text())
    assert [evaluation["epoch"] for evaluation in metrics["evaluations"]] == [2, 3]
    assert metrics["train_identities"] == 12
    rows = (whole_run / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    assert {"loss/total", "loss/cross_entropy", "loss/triplet", "images/s", "test/mAP"} <= set(rows[0].split(","))
    assert list((whole_run / "tensorboard").glob("events*"))
    model = reprism.load(whole_run / "model.safetensors")
    assert str(model.partition) == "p1+p2(s2c2)"
    assert model.num_classes == 12


def test_the_last_evaluation_is_that_of_the_saved_model(whole_run: Path, people: Path) -> None:
    dataset = reprism.open_dataset("market1501", people)
    embedder = reprism.Embedder(whole_run / "model.safetensors", precision="auto", device="cpu")
    query, gallery = embedder.embed_samples(dataset.query), embedder.embed_samples(dataset.gallery)
    metrics = reprism.evaluate(
        query,
        gallery,
        [s.pid for s in dataset.query],
        [s.pid for s in dataset.gallery],
        [s.camid for s in dataset.query],
        [s.camid for s in dataset.gallery],
    )
    recorded = json.loads((whole_run / "metrics.json").read_text())
    assert recorded["mAP"] == pytest.approx(metrics.mAP, abs=1e-3)
    assert recorded["num_queries"] == len(dataset.query)


class Interrupted(Exception):  # noqa: N818
    pass


# With worker processes it matters where loading starts: in the middle of an epoch, or between two.
@pytest.mark.parametrize(
    ("stop_before", "workers"), [(0, 0), (1, 0), (2, 0), (3, 0), (5, 0), (6, 0), (8, 0), (2, 1), (3, 1), (6, 2)]
)
def test_an_interrupted_run_ends_with_the_same_weights(
    whole_run: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_before: int, workers: int
) -> None:
    step = training_module.ReIDModule.training_step

    def until(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == stop_before:
            raise Interrupted
        return step(self, batch, batch_idx)

    recipe = tiny(people, data={"workers": workers})
    with monkeypatch.context() as patch:
        patch.setattr(training_module.ReIDModule, "training_step", until)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    train(recipe, tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(whole_run))
    whole, resumed = (json.loads((run / "metrics.json").read_text()) for run in (whole_run, tmp_path / "run"))
    assert resumed["evaluations"] == whole["evaluations"]


def test_resuming_a_finished_run_changes_nothing(whole_run: Path, people: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole_run, tmp_path / "run")
    train(tiny(people), folder, resume=True)
    assert same(weights(folder), weights(whole_run))
    whole, again = (json.loads((run / "metrics.json").read_text()) for run in (whole_run, folder))
    assert again["evaluations"] == whole["evaluations"]


# Kills this very process, unannounced, at a step or while the point to resume from is being written.
KILLED = """
import os, signal, sys
import torch
from reprism.training import module, run
from reprism.training.recipes import find_recipe
torch.set_num_threads(int(sys.argv[4]))
folder, when, resume = sys.argv[1], sys.argv[2], sys.argv[3] == "resume"
step, writes = module.ReIDModule.training_step, 0
def training_step(self, batch, batch_idx):
    if when == f"step {self.trainer.global_step}":
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)
module.ReIDModule.training_step = training_step
save = torch.save
def killed_save(values, target, *rest, **options):
    save(values, target, *rest, **options)
    global writes
    writes += 1
    if when == f"write {writes}":
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = killed_save
run.train(find_recipe(folder + ".json"), folder, resume=resume)
"""


@pytest.mark.slow
def test_kill_9_then_resume_ends_with_the_same_weights(whole_run: Path, people: Path, tmp_path: Path) -> None:
    """One run, killed four times: in the first epoch, while writing, at an epoch's first step, at the last step."""
    folder = tmp_path / "run"
    folder.with_suffix(".json").write_text(tiny(people).model_dump_json())
    for when in ("step 2", "write 2", "step 6", "step 8", "never"):
        command = [sys.executable, "-c", KILLED, str(folder), when, "resume", str(torch.get_num_threads())]
        status = subprocess.run(command, capture_output=True, text=True)
        expected = 0 if when == "never" else -signal.SIGKILL
        assert status.returncode == expected, status.stderr[-3000:]
    assert same(weights(folder), weights(whole_run))


def test_gradients_of_several_batches_are_one_step(people: Path, tmp_path: Path) -> None:
    result = train(tiny(people, trainer={"accumulate": 3}, optimizer={"epochs": 2}), tmp_path / "run")
    checkpoint = torch.load(result.folder / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2  # 3 batches an epoch, one step


def test_cached_images_give_the_same_weights_and_decode_once(
    whole_run: Path, people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reprism.data import images

    decoded: list[str] = []
    read = images.read_image
    monkeypatch.setattr(images, "read_image", lambda path: decoded.append(path.parent.name) or read(path))
    train(tiny(people, data={"cache": "ram"}), tmp_path / "run")
    assert same(weights(tmp_path / "run"), weights(whole_run))
    assert decoded.count("bounding_box_train") == len(reprism.open_dataset("market1501", people).train)


def test_a_run_in_the_way_is_not_overwritten(whole_run: Path, people: Path, tmp_path: Path) -> None:
    before = weights(whole_run)
    with pytest.raises(RecipeError, match="holds a run already"):
        train(tiny(people), whole_run)
    with pytest.raises(RecipeError, match=r"differs in optimizer\.lr"):
        train(tiny(people, optimizer={"lr": 1.0}), whole_run, resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds no run"):
        train(tiny(people), tmp_path)
    assert same(weights(whole_run), before)


@pytest.fixture
def damaged(people: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The data set with one training image cut short."""
    root = tmp_path / "data"
    for part in ("bounding_box_train", "query", "bounding_box_test"):
        (root / part).mkdir(parents=True)
        for image in (people / part).glob("*.jpg"):
            os.link(image, root / part / image.name)
    victim = sorted((root / "bounding_box_train").glob("*.jpg"))[3]
    content = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(content[: len(content) // 2])
    return root, victim


def test_a_truncated_image_stops_the_run_by_name(damaged: tuple[Path, Path], tmp_path: Path) -> None:
    root, victim = damaged
    with pytest.raises(DataError, match=victim.name):
        train(tiny(root, data={"cache": "ram"}), tmp_path / "run")


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_a_truncated_image_is_set_aside_and_reported(damaged: tuple[Path, Path], tmp_path: Path, cache: str) -> None:
    root, victim = damaged
    result = train(tiny(root, data={"on_error": "skip", "cache": cache}, optimizer={"epochs": 1}), tmp_path / "run")
    assert [fault["path"] for fault in result.metrics["unreadable"]] == [str(victim)]
    assert result.metrics["train_images"] == len(list(victim.parent.glob("*.jpg"))) - 1


# Two processes train to the end; each writes down what it saw.
DISTRIBUTED = """
import json, os, sys
import torch
from reprism.training import module, run
from reprism.training.recipes import find_recipe
rank = int(os.environ.get("LOCAL_RANK", "0"))
seen, tested = [], []
training_step, validation_step = module.ReIDModule.training_step, module.ReIDModule.validation_step
def step(self, batch, batch_idx):
    seen.append(sorted(set(batch[1].tolist())))
    return training_step(self, batch, batch_idx)
def validate(self, batch, batch_idx):
    tested.extend(batch[1].tolist())
    return validation_step(self, batch, batch_idx)
module.ReIDModule.training_step, module.ReIDModule.validation_step = step, validate
result = run.train(find_recipe(sys.argv[1] + ".json"), sys.argv[1])
state = {name: value.double().sum().item() for name, value in result.model.state_dict().items()}
with open(f"{sys.argv[1]}.rank{rank}", "w") as file:
    json.dump({"seen": seen, "tested": tested, "state": state, "mAP": result.metrics["mAP"]}, file)
"""


@pytest.mark.slow
def test_two_processes_train_to_the_end(people: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe = tiny(people, trainer={"devices": 2, "evaluate_every": 1}, optimizer={"epochs": 2},
                  data={"ids_per_batch": 2})  # fmt: skip
    folder.with_suffix(".json").write_text(recipe.model_dump_json())
    script = tmp_path / "distributed.py"
    script.write_text(DISTRIBUTED)
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    first, second = (json.loads(Path(f"{folder}.rank{rank}").read_text()) for rank in (0, 1))
    assert len(first["seen"]) == len(second["seen"]) == 2 * (12 // 4)
    for ours, theirs in zip(first["seen"], second["seen"], strict=True):
        assert len(ours) == len(theirs) == 2
        assert not set(ours) & set(theirs)
    dataset = reprism.open_dataset("market1501", people)
    total = len(dataset.query) + len(dataset.gallery)
    assert sorted(first["tested"] + second["tested"]) == sorted(2 * list(range(total)))  # in each of two evaluations
    assert first["state"] == second["state"]
    assert first["mAP"] == second["mAP"]


def test_the_papers_schedule() -> None:
    settings = OptimizerSettings()
    rates = {epoch: settings.lr * learning_rate_factor(settings, epoch) for epoch in (0, 299.99, 300, 399.99, 400, 499)}
    assert rates == pytest.approx({0: 2e-4, 299.99: 2e-4, 300: 2e-5, 399.99: 2e-5, 400: 2e-6, 499: 2e-6})


def test_cosine_and_warmup() -> None:
    settings = OptimizerSettings(epochs=10, schedule="cosine", warmup=2)
    assert learning_rate_factor(settings, 1) == pytest.approx(0.5)
    assert learning_rate_factor(settings, 2) == pytest.approx(1)
    assert learning_rate_factor(settings, 4) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert learning_rate_factor(settings, 10) == pytest.approx(0, abs=1e-12)
    assert learning_rate_factor(settings, 0) > 0


def test_without_data_the_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--data\.root"):
        train(Recipe(), tmp_path / "run")


def test_training_on_tracklets_takes_frames_as_images_and_evaluates_tracklets(tmp_path: Path) -> None:
    root = render_mars(tmp_path / "mars", train_identities=4, test_identities=3, frames=(2, 6), size=(32, 16))
    data = {"name": "mars", "options": {"protocol": "without-queries"}, "video": {"frames": 4, "segments": 2}}
    result = train(tiny(root, data=data, optimizer={"epochs": 2}), tmp_path / "run")
    assert result.metrics["train_images"] == len(list((root / "bbox_train").rglob("*.jpg")))
    assert result.metrics["num_lost_queries"] == 1
    opened = reprism.open_dataset("mars", root, protocol="without-queries")
    embedder = reprism.Embedder(result.model, precision="auto", device="cpu")
    video = VideoSettings(frames=4, segments=2)
    rows = [embedder.embed_items(items, video) for items in (opened.query, opened.gallery)]
    metrics = evaluate_items(*rows, opened.query, opened.gallery)
    assert result.metrics["mAP"] == pytest.approx(metrics.mAP, abs=0.02)  # bf16, in batches of another size


def test_unreadable_frames_are_set_aside(tmp_path: Path) -> None:
    root = render_mars(tmp_path / "mars", train_identities=4, test_identities=2, frames=(2, 4), size=(32, 16))
    opened = reprism.open_dataset("mars", root)
    broken = [opened.train[0].frame(0).path, opened.query[0].frame(1).path]
    for path in broken:
        path.write_bytes(b"broken")
    result = train(tiny(root, data={"name": "mars", "on_error": "skip"}, optimizer={"epochs": 1}), tmp_path / "run")
    assert {fault["path"] for fault in result.metrics["unreadable"]} == set(map(str, broken))
    assert result.metrics["num_queries"] == len(opened.query)
