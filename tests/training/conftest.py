"""A run at a tiny size that several files of tests look at, and the recipe that made it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reprism.training.recipes import Recipe
from reprism.training.run import train

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "data": {"size": (32, 16), "ids_per_batch": 4, "images_per_id": 2, "workers": 0, "erasing": 0.5, "eval_batch": 16},
    "model": {"backbone": "mobilenetv3_small_050", "pretrained": False, "partition": "p1+p2(s2c2)", "part_dim": 8},
    "loss": {},
    "optimizer": {"epochs": 3, "milestones": (1,), "lr": 1e-3},
    "trainer": {"accelerator": "cpu", "checkpoint_seconds": 0, "evaluate_every": 2, "log_every": 1},
}


def small_recipe(root: Path, **changes: dict[str, Any]) -> Recipe:
    """3 epochs of 3 steps, 4 batches in an evaluation."""
    sections = {
        name: {**value, **changes.get(name, {})} if isinstance(value, dict) else value
        for name, value in SETTINGS.items()
    }
    sections["data"]["root"] = str(root)
    return Recipe.model_validate(sections)


@pytest.fixture(scope="session")
def recipe_of() -> Callable[..., Recipe]:
    return small_recipe


@pytest.fixture(scope="session")
def uninterrupted(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    return train(small_recipe(people), tmp_path_factory.mktemp("uninterrupted") / "run").folder
