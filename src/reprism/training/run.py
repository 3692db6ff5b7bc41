"""A training run: from a recipe to a run folder that holds everything about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from reprism.data import LOADERS, open_dataset
from reprism.data.check import require_trainable
from reprism.data.division import hold_out
from reprism.data.images import DecodedImages, check_images
from reprism.data.joint import join_training, named_data
from reprism.data.records import DataError, ReIDDataset, Sample, as_images, without_images
from reprism.models.network import PartNet
from reprism.progress import Progress, step
from reprism.training.fit import TrainingResult, make_trainer, run_trainer
from reprism.training.ingredients import Ingredients, build_ingredients
from reprism.training.module import FitSettings
from reprism.training.recipes import LoggerName, Recipe, RecipeError, find_recipe, what_is_computed
from reprism.training.stopping import StopRequest


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    dataset: ReIDDataset | None = None,
    adapt: Callable[[Ingredients], Ingredients] | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger | LoggerName] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train as a recipe says, with parts of your own where you give some.

    Args:
        recipe: The settings; without a ``dataset``, ``recipe.data.root`` must be set.
        folder: The run folder; made if absent. One that holds a run is refused unless ``resume``.
        dataset: Data set to train and evaluate on, in place of the one that the recipe names.
        adapt: Called with the ingredients that the recipe built; returns those to train. To train by a loss of your
            own: ``adapt=lambda made: dataclasses.replace(made, loss=MyLoss())``. It is not recorded: give it again to
            resume.
        callbacks: Lightning callbacks, called after Reprism's own.
        loggers: Lightning loggers, or names of some, in place of those that the recipe names. The log that
            ``reprism report`` reads is always written.
        resume: Continue from the last resume point in ``folder``, or from the start if there is none. The final
            weights equal an uninterrupted run's.
        progress: Called while images are checked or decoded beforehand.

    Raises:
        RecipeError: No data folder, a run in the way, one to resume that was made by another recipe, or devices that
            are not there.
        DataError: The data set cannot be read, trained on or evaluated; names the file or the reason.
        BackboneError: The backbone or its weights cannot be had.
        CheckpointError: The points to resume from are damaged.
        DivergedError: The loss is not finite any more. The last good point to resume from is kept.
        TrainingInterrupted: Ctrl-C or SIGTERM came; a point to resume from was saved at the next step.
        TypeError: ``adapt`` returned something else than ingredients, or a loss something else than a loss.
        ValueError: Other settings do not fit the data set or each other.
    """
    started = time.perf_counter()
    folder = Path(folder)
    pl.seed_everything(recipe.seed, verbose=False)
    settings = fit_settings(recipe)
    stop = StopRequest()
    uses_all = adapt is None and recipe.loss.use is None
    # Before all else: it knows which of several processes this is, however they were started.
    trainer = make_trainer(folder, settings, stop, callbacks, loggers, uses_all=uses_all)
    if dataset is not None:
        known = {"name": dataset.name, "root": dataset.root, "options": {}}
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=known)})
    _check_folder(recipe, folder, resume)
    dataset, validation, images, unreadable = _load_data(recipe, dataset, trainer.world_size, progress)
    fused = trainer.strategy.root_device.type in ("cpu", "cuda")
    made = build_ingredients(recipe, dataset, images, fused=fused)
    if adapt is not None:
        made = adapt(made)
        if not isinstance(made, Ingredients) or not isinstance(made.model, PartNet):
            raise TypeError(
                "expected Ingredients with a PartNet from adapt, such as dataclasses.replace(made, loss=MyLoss())"
            )
    return run_trainer(
        trainer,
        stop,
        made,
        dataset,
        folder,
        settings,
        validation=validation,
        resume=resume,
        recipe=recipe.model_dump(mode="json"),
        started=started,
        about={"unreadable": [{"path": str(sample.path), "reason": reason} for sample, reason in unreadable]},
    )


def fit_settings(recipe: Recipe) -> FitSettings:
    """Return how a recipe trains its ingredients."""
    data = recipe.data
    return FitSettings(
        epochs=recipe.optimizer.epochs,
        seed=recipe.seed,
        ema=recipe.optimizer.ema,
        workers=data.workers,
        eval_batch=data.eval_batch,
        video=data.video,
        trainer=recipe.trainer,
    )


def is_first_process() -> bool:
    """Return whether this process, of those that train together, is the one that writes and prints.

    Lightning tells it from what torchrun, Slurm's srun or Lightning itself set in the environment; and knows it better
    once the run has begun.
    """
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _check_folder(recipe: Recipe, folder: Path, resume: bool) -> None:
    record = folder / "recipe.json"
    if record.is_file():
        if not resume:
            raise RecipeError(
                f"{folder} holds a run already: continue it with --resume, or choose another folder with --out"
            )
        # How the work is spread and reported may change between sittings; what is computed may not.
        before, now = (what_is_computed(made) for made in (find_recipe(str(folder)), recipe))
        if before != now:
            changed = ", ".join(sorted(_differences(before, now)))
            raise RecipeError(
                f"the run in {folder} was made by another recipe; it differs in {changed}. Resume it with the recipe "
                f"that it was started with: reprism train {folder} --resume"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise RecipeError(f"{folder} exists, is not empty and holds no run: choose another folder by --out")


def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key in before.keys() | now.keys():
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            names.append(f"{prefix}{key}")
    return names


def _load_data(
    recipe: Recipe, dataset: ReIDDataset | None, processes: int, progress: Progress | None
) -> tuple[ReIDDataset, ReIDDataset | None, DecodedImages | None, list[tuple[Sample, str]]]:
    """Return the data set, the people set aside, decoded images, and images that cannot be read."""
    data = recipe.data
    if dataset is None:
        if data.root is None:
            raise RecipeError("no data to train on: give the folder of the data set by --data.root DIR")
        dataset = open_dataset(data.name, data.root, progress=progress, **data.options)
    if data.also:
        further = [named_data(text, LOADERS) for text in data.also]
        others = [open_dataset(name, root, progress=progress, **options) for name, root, options in further]
        dataset = join_training(dataset, others)
    require_trainable(dataset, data.ids_per_batch, processes)
    unreadable: list[tuple[Sample, str]] = []

    if data.on_error == "skip":
        # Found out before the first step: which images a batch holds must not depend on what fails when.
        parts: dict[str, Any] = {}
        for part in ("train", "query", "gallery"):
            items = getattr(dataset, part)
            readable, bad = check_images(as_images(items), step(progress, f"checking {part} images"))
            unreadable += bad
            parts[part] = tuple(without_images(items, [sample for sample, _ in bad]))
            if not readable:
                raise DataError(f"{data.root}: none of the {part} images can be read; the first: {bad[0][1]}")
        dataset = replace(dataset, **parts)
        require_trainable(dataset, data.ids_per_batch, processes)
    validation = None
    if data.validation:
        dataset, validation = hold_out(dataset, data.validation, recipe.seed)
        require_trainable(dataset, data.ids_per_batch, processes)
    images = None
    if data.cache == "ram":
        images = DecodedImages(dataset.train_images, progress=step(progress, "decoding training images"))
    return dataset, validation, images, unreadable
