"""Training without a recipe, an average of the weights, an epoch chosen by people set aside, loggers by name."""

import copy
import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from safetensors.torch import load_file
from torch import Tensor

import reprism
from reprism.data.division import hold_out
from reprism.data.records import ReIDDataset
from reprism.training.averaging import average_of
from reprism.training.fit import fit
from reprism.training.ingredients import build_ingredients
from reprism.training.module import ReIDModule
from reprism.training.recipes import RecipeError, find_recipe
from reprism.training.run import fit_settings, train

MakeRecipe = Callable[..., Any]


@pytest.fixture(scope="module")
def dataset(people: Path) -> ReIDDataset:
    return reprism.open_dataset("market1501", people)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


# ---- without a recipe ------------------------------------------------------------------------------------------------


def test_ingredients_train_without_a_recipe_as_with_one(
    uninterrupted: Path, people: Path, dataset: ReIDDataset, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_of(people)
    torch.manual_seed(recipe.seed)
    made = build_ingredients(recipe, dataset, fused=True)
    result = fit(made, dataset, tmp_path / "run", fit_settings(recipe))
    assert same(weights(tmp_path / "run"), weights(uninterrupted))
    assert result.metrics["evaluations"] == metrics(uninterrupted)["evaluations"]
    assert not (tmp_path / "run" / "recipe.json").exists()
    with pytest.raises(RecipeError, match="is not empty"):
        fit(made, dataset, tmp_path / "run", fit_settings(recipe))


# ---- the average of the weights --------------------------------------------------------------------------------------


def test_the_average_is_the_one_that_its_formula_gives() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    average, expected = average_of(model, 0.5), {}
    for step in range(30):
        for tensor in (*model.parameters(), model[1].running_mean):
            tensor.data.normal_()
        average.update_parameters(model)
        decay = 0.0 if step == 0 else min(0.5, (step + 1) / (step + 10))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected.get(name, 0.0) + (1 - decay) * tensor.double()
    assert set(expected) > {"0.weight", "1.running_mean"}
    for name, tensor in expected.items():
        torch.testing.assert_close(average.module.state_dict()[name].double(), tensor, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def averaged(people: Path, recipe_of: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an average of the weights, beside which those of every step are kept."""
    folder = tmp_path_factory.mktemp("averaged") / "run"

    class Keep(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            steps.append(copy.deepcopy(module.model.state_dict()))

    steps: list[dict[str, Tensor]] = []
    train(recipe_of(people, optimizer={"ema": 0.9}), folder, callbacks=[Keep()])
    torch.save(steps, folder.parent / "steps.pt")
    return folder


def test_the_average_is_evaluated_and_saved(averaged: Path, uninterrupted: Path, dataset: ReIDDataset) -> None:
    steps = torch.load(averaged.parent / "steps.pt", weights_only=True)
    assert same(steps[-1], weights(uninterrupted))  # it does not touch the training
    saved = weights(averaged)
    names = [name for name in saved if name.endswith("weight")]
    for name in (names[0], names[-1]):
        expected = steps[0][name].double()
        for count, step in enumerate(steps[1:], 1):
            decay = min(0.9, (count + 1) / (count + 10))
            expected = decay * expected + (1 - decay) * step[name].double()
        torch.testing.assert_close(saved[name].double(), expected, rtol=1e-4, atol=1e-6)
        assert not torch.equal(saved[name], steps[-1][name])
    again = reprism.evaluate_model(averaged / "model.safetensors", dataset)
    assert metrics(averaged)["mAP"] == pytest.approx(again.metrics.mAP, abs=1e-3)


class Interrupted(Exception):  # noqa: N818
    pass


def interrupted_at(step: int, patch: pytest.MonkeyPatch) -> None:
    training_step = ReIDModule.training_step

    def until(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.trainer.global_step == step:
            raise Interrupted
        return training_step(self, batch, batch_idx)

    patch.setattr(ReIDModule, "training_step", until)


@pytest.mark.parametrize("step", [1, 4, 6])
def test_an_interrupted_run_ends_with_the_same_average(
    averaged: Path, people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    recipe = recipe_of(people, optimizer={"ema": 0.9})
    with monkeypatch.context() as patch:
        interrupted_at(step, patch)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run"), weights(averaged))
    assert metrics(tmp_path / "run")["evaluations"] == metrics(averaged)["evaluations"]


# ---- an epoch chosen by people set aside -----------------------------------------------------------------------------

CHOOSING: dict[str, Any] = {
    "data": {"validation": 0.3},
    "trainer": {"evaluate_every": 1},
    "optimizer": {"epochs": 6, "lr": 3e-3},
}


def scores_of(values: list[float], patch: pytest.MonkeyPatch) -> list[str]:
    """Have the n-th evaluation of people set aside score the n-th value; return what was evaluated, in order."""
    evaluated: list[str] = []
    ends = ReIDModule.on_validation_epoch_end

    def end(self: Any) -> None:
        ends(self)
        evaluated.append(self.evaluated_as)
        if self.evaluated_as == "validation":
            self.evaluations[-1]["mAP"] = values[len(self.evaluations) - 1]

    patch.setattr(ReIDModule, "on_validation_epoch_end", end)
    return evaluated


class KeepEpochs(Callback):
    """Keeps the weights at the end of every epoch."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.weights.append(copy.deepcopy(pl_module.result.state_dict()))


def test_the_best_epoch_on_people_set_aside_is_kept(
    people: Path, dataset: ReIDDataset, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, kept = recipe_of(people, **CHOOSING), KeepEpochs()
    evaluated = scores_of([0.1, 0.3, 0.2, 0.3, 0.0, 0.1], monkeypatch)
    result = train(recipe, tmp_path / "run", callbacks=[kept])
    # The test set is looked at once, when all is chosen.
    assert evaluated == ["validation"] * 6 + ["test"]
    assert same(weights(tmp_path / "run"), kept.weights[1])
    assert not same(kept.weights[1], kept.weights[3])
    found = metrics(tmp_path / "run")
    assert found["epoch"] == found["validation"]["epoch"] == 2
    assert [each["of"] for each in found["evaluations"]] == ["validation"] * 6
    assert same(dict(result.model.state_dict()), kept.weights[1])
    again = reprism.evaluate_model(tmp_path / "run" / "model.safetensors", dataset)
    assert found["mAP"] == pytest.approx(again.metrics.mAP, abs=1e-3)
    left, held = hold_out(dataset, 0.3, recipe.seed)
    assert found["train_identities"] == left.num_train_identities == 12 - found["validation"]["identities"]
    assert found["num_queries"] == len(dataset.query)
    assert found["validation"]["num_queries"] == len(held.query)


def test_training_stops_once_nothing_gets_better(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**CHOOSING, "trainer": {"evaluate_every": 1, "patience": 2, "checkpoint_seconds": 1000}}
    evaluated = scores_of([0.1, 0.3, 0.2, 0.3, 0.9, 0.9], monkeypatch)
    train(recipe_of(people, **changes), tmp_path / "run")
    assert evaluated == ["validation"] * 4 + ["test"]
    first = weights(tmp_path / "run")
    # It stays so, however often it is resumed.
    evaluated.clear()
    train(recipe_of(people, **changes), shutil.copytree(tmp_path / "run", tmp_path / "again"), resume=True)
    assert evaluated == ["test"]
    assert same(weights(tmp_path / "again"), first)


@pytest.mark.parametrize("step", [2, 5, 9])
def test_an_interrupted_run_keeps_the_same_epoch(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    recipe = recipe_of(people, **CHOOSING)
    scores_of([0.1, 0.2, 0.5, 0.4, 0.3, 0.2], monkeypatch)
    train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupted_at(step, patch)
        with pytest.raises(Interrupted):
            train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True)
    assert metrics(tmp_path / "run")["epoch"] == 3
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_the_last_epoch_is_judged_too(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**CHOOSING, "trainer": {"evaluate_every": 2}, "optimizer": {"epochs": 3, "lr": 3e-3}}
    kept = KeepEpochs()
    evaluated = scores_of([0.1, 0.2], monkeypatch)
    train(recipe_of(people, **changes), tmp_path / "run", callbacks=[kept])
    assert evaluated == ["validation", "validation", "test"]
    assert metrics(tmp_path / "run")["epoch"] == 3
    assert same(weights(tmp_path / "run"), kept.weights[1])
    assert not same(kept.weights[0], kept.weights[1])


def test_patience_without_people_set_aside_is_refused(
    people: Path, dataset: ReIDDataset, recipe_of: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_of(people)
    settings = replace(fit_settings(recipe), trainer=recipe.trainer.model_copy(update={"patience": 2}))
    with pytest.raises(RecipeError, match="needs a validation set"):
        fit(build_ingredients(recipe, dataset), dataset, tmp_path / "run", settings)


def test_settings_that_would_choose_by_the_test_set_are_refused(people: Path, recipe_of: MakeRecipe) -> None:
    with pytest.raises(ValueError, match="the test set must not decide"):
        recipe_of(people, trainer={"patience": 3})
    with pytest.raises(ValueError, match=r"give trainer\.evaluate_every"):
        recipe_of(people, data={"validation": 0.1}, trainer={"evaluate_every": 0})


# ---- loggers ---------------------------------------------------------------------------------------------------------


def test_loggers_are_made_by_name(people: Path, recipe_of: MakeRecipe, tmp_path: Path) -> None:
    train(recipe_of(people, trainer={"loggers": ("csv",)}), tmp_path / "quiet")
    assert not (tmp_path / "quiet" / "tensorboard").exists()
    train(recipe_of(people, trainer={"loggers": ()}), tmp_path / "named", loggers=["tensorboard"])
    assert list((tmp_path / "named" / "tensorboard").glob("events*"))
    for folder in ("quiet", "named"):
        with (tmp_path / folder / "csv" / "version_0" / "metrics.csv").open() as file:
            assert len([row for row in csv.DictReader(file) if row["loss/total"]]) == 9
    # They may differ between sittings.
    train(recipe_of(people, trainer={"loggers": ("tensorboard",)}), tmp_path / "quiet", resume=True)


def test_a_logger_that_is_not_installed_is_named(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reprism.training.fit.importlib.util.find_spec", lambda _: None)
    with pytest.raises(RecipeError, match="names wandb, which is not installed: pip install wandb"):
        train(recipe_of(people, trainer={"loggers": ("wandb",)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_old_runs_without_these_settings_are_read(uninterrupted: Path, tmp_path: Path) -> None:
    values = json.loads((uninterrupted / "recipe.json").read_text())
    for section, field in (("data", "validation"), ("optimizer", "ema"), ("trainer", "loggers")):
        del values[section][field]
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    assert find_recipe(str(tmp_path)) == find_recipe(str(uninterrupted))


# ---- a compiled step -------------------------------------------------------------------------------------------------


def losses(folder: Path) -> list[float]:
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [float(row["loss/total"]) for row in csv.DictReader(file) if row["loss/total"]]


def test_a_compiled_step_trains_the_same_network(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes, called, compiled = [], [], torch.compile

    def without_a_compiler(function: Callable[..., Any], *, mode: str, dynamic: bool) -> Callable[..., Any]:
        # The same tracing and gradients, and no minutes of C++.
        modes.append(mode)
        step = compiled(function, backend="aot_eager", dynamic=dynamic)
        return lambda images: called.append(images.shape) or step(images)

    monkeypatch.setattr(torch, "compile", without_a_compiler)
    settings = {"precision": "fp32", "evaluate_every": 0}  # in bfloat16 the order of roundings soon tells
    train(recipe_of(people, trainer={**settings, "compile": "reduce-overhead"}), tmp_path / "compiled")
    assert modes == ["reduce-overhead"]
    assert called == [(8, 3, 32, 16)] * 9  # training steps alone
    train(recipe_of(people, trainer=settings), tmp_path / "eager")
    ours, theirs = weights(tmp_path / "compiled"), weights(tmp_path / "eager")
    assert ours.keys() == theirs.keys()
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-2)


def test_compiling_without_a_compiler_is_refused(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RecipeError, match=r"trainer\.compile needs a C\+\+ compiler.*apt-get install g\+\+"):
        train(recipe_of(people, trainer={"compile": "default"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
