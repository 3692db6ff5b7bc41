"""Every setting of a recipe reaches what it is for: losses, optimiser, schedule and evaluation stated anew here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import reprism
from reprism.training import module as training_module
from reprism.training.module import ReIDModule
from reprism.training.recipes import Recipe
from reprism.training.run import train

MakeRecipe = Callable[..., Recipe]


class Recorder:
    """What each step of a run saw and did: outputs, labels, loss, and weights and gradients before the update.

    The first step's loss is ``first`` times what it would be.
    """

    def __init__(self, patch: pytest.MonkeyPatch, first: float = 1.0) -> None:
        self.losses: list[float] = []
        self.expected: list[tuple[Any, Tensor]] = []
        self.rates: list[float] = []
        self.weights: list[list[Tensor]] = []
        self.gradients: list[list[Tensor]] = []
        training_step, step = ReIDModule.training_step, torch.optim.Adam.step

        def training(module: Any, batch: Any, batch_idx: int) -> Tensor:
            kept = []
            hook = module.model.register_forward_hook(lambda _, __, output: kept.append(output))
            loss = training_step(module, batch, batch_idx)
            hook.remove()
            self.losses.append(loss.item())
            self.expected.append((kept[0], batch[1]))
            return loss * first if len(self.losses) == 1 else loss

        def update(optimizer: Any, closure: Any = None) -> Any:
            weights: list[Tensor] = []

            def closed() -> Any:
                loss = closure()
                self.rates.append(optimizer.param_groups[0]["lr"])
                weights.extend(weight.detach().double().clone() for weight in optimizer.param_groups[0]["params"])
                self.gradients.append([weight.grad.double().clone() for weight in optimizer.param_groups[0]["params"]])
                return loss

            result = step(optimizer, closed)
            self.weights.append(weights)
            return result

        patch.setattr(ReIDModule, "training_step", training)
        patch.setattr(torch.optim.Adam, "step", update)


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> float:
    """Against the label with weight 1 - smoothing and all classes, evenly, with the rest."""
    total = 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        logs = row - row.exp().sum().log()
        total -= float((1 - smoothing) * logs[label] + smoothing * logs.mean())
    return total / len(labels)


def batch_hard(features: Tensor, labels: Tensor, margin: float) -> float:
    rows, total = features.double(), 0.0
    for anchor, label in zip(rows, labels, strict=True):
        distances = ((anchor - rows) ** 2).sum(1).sqrt()
        total += max(0.0, float(distances[labels == label].max() - distances[labels != label].min()) + margin)
    return total / len(labels)


@pytest.mark.parametrize(
    "loss",
    [
        {"ce_weight": 3.0, "margin": 0.7, "triplet_weight": 0.5, "label_smoothing": 0.3},
        {"ce_weight": 0.5, "margin": 2.0, "triplet_weight": 0.0, "label_smoothing": 0.0},
    ],
)
def test_the_trained_loss_is_that_of_the_recipe(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: dict[str, float]
) -> None:
    recorded = Recorder(monkeypatch)
    recipe = recipe_of(people, loss=loss, trainer={"precision": "fp32"}, optimizer={"epochs": 1})
    train(recipe, tmp_path / "run")
    assert len(recorded.losses) == 3
    for value, (output, labels) in zip(recorded.losses, recorded.expected, strict=True):
        entropies = [
            cross_entropy(logits.detach(), labels, loss["label_smoothing"]) for logits in output.logits.values()
        ]
        triplets = [batch_hard(output.features[name].detach(), labels, loss["margin"]) for name in ("p1", "p2")]
        assert value == pytest.approx(
            loss["triplet_weight"] * np.mean(triplets) + loss["ce_weight"] * np.mean(entropies), rel=1e-4
        )


@pytest.mark.parametrize("amsgrad", [True, False])
def test_the_update_is_adams_with_the_recipes_decay_and_amsgrad(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amsgrad: bool
) -> None:
    """Kingma and Ba's algorithm 1 with L2 regularisation; Reddi et al.'s maximum of the second moments."""
    recorded = Recorder(monkeypatch, first=1e4)  # the second moments fall from then on, which is what AMSGrad is about
    settings = {"epochs": 2, "milestones": (), "lr": 0.05, "weight_decay": 0.3, "amsgrad": amsgrad}
    train(recipe_of(people, optimizer=settings, trainer={"precision": "fp32"}), tmp_path / "run")
    assert len(recorded.weights) == 6
    differs = 0.0
    for place, weight in enumerate(recorded.weights[0]):
        first = second = largest = torch.zeros_like(weight)
        for step in range(5):
            before = recorded.weights[step][place]
            gradient = recorded.gradients[step][place] + 0.3 * before
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            largest = torch.maximum(largest, second)
            plain, ams = (
                before - 0.05 * first / (1 - 0.9 ** (step + 1)) / ((moment / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
                for moment in (second, largest)
            )
            torch.testing.assert_close(
                recorded.weights[step + 1][place], ams if amsgrad else plain, rtol=1e-5, atol=2e-6
            )
            differs = max(differs, float((plain - ams).abs().max()))
    assert differs > 2e-5, "this run cannot tell the two apart"


@pytest.mark.parametrize(("accumulate", "steps_of_an_epoch"), [(1, 3), (2, 2), (3, 1)])
def test_the_schedule_counts_epochs_however_many_batches_make_a_step(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int,
    steps_of_an_epoch: int,
) -> None:  # fmt: skip
    recorded = Recorder(monkeypatch)
    recipe = recipe_of(
        people,
        optimizer={"epochs": 3, "milestones": (1, 2), "lr": 0.01, "gamma": 0.5},
        trainer={"accumulate": accumulate, "evaluate_every": 0},
    )
    train(recipe, tmp_path / "run")
    assert recorded.rates == pytest.approx([rate for rate in (0.01, 0.005, 0.0025) for _ in range(steps_of_an_epoch)])


@pytest.mark.parametrize("flip", [True, False])
def test_evaluation_mirrors_images_as_the_recipe_says(
    people: Path, recipe_of: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    evaluate_items, described = training_module.evaluate_items, []

    def keeping(query: Tensor, gallery: Tensor, *items: Any, **options: Any) -> Any:
        described.append((query, gallery))
        return evaluate_items(query, gallery, *items, **options)

    monkeypatch.setattr(training_module, "evaluate_items", keeping)
    recipe = recipe_of(people, optimizer={"epochs": 1}, trainer={"flip_test": flip, "precision": "fp32"})
    result = train(recipe, tmp_path / "run")
    dataset = reprism.open_dataset("market1501", people)
    same, other = (
        [
            reprism.Embedder(result.model, flip=way, precision="fp32", device="cpu").embed_samples(items)
            for items in (dataset.query, dataset.gallery)
        ]
        for way in (flip, not flip)
    )
    for found, expected, wrong in zip(described[0], same, other, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
        assert np.abs(found.numpy() - wrong).max() > 5e-4
