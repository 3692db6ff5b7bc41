"""A training run: from a recipe to a run folder that holds everything about it."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from reprism.data import open_dataset
from reprism.data.images import DecodedImages, ImageSet, check_images
from reprism.data.records import DataError, ReIDDataset, Sample, as_images, without_images
from reprism.data.transforms import train_transform
from reprism.files import write_json
from reprism.models.checkpoint import save
from reprism.models.network import PartNet, build_model
from reprism.precision import fastest_precision
from reprism.training.module import ReIDModule
from reprism.training.recipes import Recipe, RecipeError, find_recipe, write_recipe

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``."""

_LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run left behind.

    Attributes:
        folder: the run folder: ``recipe.json``, ``environment.json``, ``metrics.json``, ``model.safetensors``,
            ``last.ckpt`` (to resume from), ``tensorboard/``, ``csv/``.
        model: the trained network.
        metrics: the contents of ``metrics.json``.
    """

    folder: Path
    model: PartNet
    metrics: dict[str, Any]


def train(
    recipe: Recipe, folder: str | Path, *, resume: bool = False, progress: Progress | None = None
) -> TrainingResult:
    """Train as a recipe says.

    Args:
        recipe: the settings; ``recipe.data.root`` must be set.
        folder: the run folder; made if absent. One that holds a run is refused unless ``resume``.
        resume: go on from the last point the run in ``folder`` saved (from the start if it saved none). The final
            weights are those of an uninterrupted run.
        progress: called while images are checked or decoded beforehand.

    Raises:
        RecipeError: no data folder, a run in the way, or one to resume that was made by another recipe.
        DataError: the data set cannot be read; names the file.
        BackboneError: the backbone or its weights cannot be had.
        ValueError: too few identities for a batch, no query to evaluate, and other settings that fit nothing.
    """
    started = time.perf_counter()
    folder = Path(folder)
    pl.seed_everything(recipe.seed, verbose=False)
    # Known before the trainer is: its other processes run this very function.
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))
    if rank == 0:
        _check_folder(recipe, folder, resume)
    dataset, images, unreadable = _load_data(recipe, progress)
    model = build_model(
        recipe.model.partition,
        recipe.model.backbone,
        num_classes=dataset.num_train_identities,
        part_dim=recipe.model.part_dim,
        pretrained=recipe.model.pretrained,
        size=recipe.data.size,
    )
    model.to(memory_format=torch.channels_last)
    data = recipe.data
    augment = train_transform(
        model.preprocessing, data.flip, data.erasing, pad_crop=data.pad_crop, color_jitter=data.color_jitter
    )
    train_set = ImageSet(
        dataset.train_images, augment, dataset.train_targets, cache=images if images is not None else "none"
    )
    module = ReIDModule(model, recipe, train_set, dataset.query, dataset.gallery, dataset.single_shot_trials)
    if rank == 0:
        # Only now that all the settings have proved to fit.
        folder.mkdir(parents=True, exist_ok=True)
        write_recipe(recipe, folder / "recipe.json")
        write_json(folder / "environment.json", _environment())
    _hush_lightning()
    trainer = _trainer(recipe, folder)
    checkpoint = folder / "last.ckpt"
    trainer.fit(
        module,
        ckpt_path=checkpoint if resume and checkpoint.is_file() else None,
        weights_only=True,
    )
    if not module.evaluations or module.evaluations[-1]["epoch"] != recipe.optimizer.epochs:
        trainer.validate(module, verbose=False)
        module.evaluations[-1]["epoch"] = recipe.optimizer.epochs
    metrics = {
        **module.evaluations[-1],
        "evaluations": module.evaluations,
        "train_images": len(dataset.train_images),
        "train_identities": dataset.num_train_identities,
        "seconds": round(time.perf_counter() - started, 1),
        "resumed": resume,
        "unreadable": [{"path": str(sample.path), "reason": reason} for sample, reason in unreadable],
    }
    if trainer.is_global_zero:
        save(model, folder / "model.safetensors", recipe=recipe.model_dump(mode="json"))
        write_json(folder / "metrics.json", metrics)
    return TrainingResult(folder, model.eval(), metrics)


def _check_folder(recipe: Recipe, folder: Path, resume: bool) -> None:
    record = folder / "recipe.json"
    if record.is_file():
        if not resume:
            raise RecipeError(
                f"{folder} holds a run already: go on with it by --resume, or choose another folder by --out"
            )
        # How the work is spread and reported may change between sittings; what is computed may not.
        before, now = (_what_is_computed(made) for made in (find_recipe(str(folder)), recipe))
        if before != now:
            changed = ", ".join(sorted(_differences(before, now)))
            raise RecipeError(
                f"the run in {folder} was made by another recipe; it differs in {changed}. Resume with the recipe it "
                f"was started with: reprism train {folder} --resume"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise RecipeError(f"{folder} exists, is not empty and holds no run: choose another folder by --out")


def _what_is_computed(recipe: Recipe) -> dict[str, Any]:
    values = recipe.model_dump(mode="json")
    for field in ("checkpoint_seconds", "log_every"):
        del values["trainer"][field]
    for field in ("workers", "cache"):
        del values["data"][field]
    return values


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
    recipe: Recipe, progress: Progress | None
) -> tuple[ReIDDataset, DecodedImages | None, list[tuple[Sample, str]]]:
    data = recipe.data
    if data.root is None:
        raise RecipeError("no data to train on: give the folder of the data set by --data.root DIR")
    dataset = open_dataset(data.name, data.root, progress=progress, **data.options)
    unreadable: list[tuple[Sample, str]] = []

    def report(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(what, done, total)

    if data.on_error == "skip":
        # Found out before the first step: which images a batch holds must not depend on what fails when.
        parts: dict[str, Any] = {}
        for part in ("train", "query", "gallery"):
            items = getattr(dataset, part)
            readable, bad = check_images(as_images(items), report(f"checking {part} images"))
            unreadable += bad
            parts[part] = tuple(without_images(items, [sample for sample, _ in bad]))
            if not readable:
                raise DataError(f"{data.root}: none of the {part} images can be read; the first: {bad[0][1]}")
        dataset = replace(dataset, **parts)
    images = None
    if data.cache == "ram":
        images = DecodedImages(dataset.train_images, progress=report("decoding training images"))
    return dataset, images, unreadable


def _trainer(recipe: Recipe, folder: Path) -> pl.Trainer:
    settings = recipe.trainer
    accelerator = settings.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    precision = settings.precision
    if precision == "auto":
        precision = fastest_precision({"gpu": "cuda"}.get(accelerator, accelerator))
    return pl.Trainer(
        accelerator=accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy="ddp" if settings.devices * settings.num_nodes > 1 else "auto",
        precision=_LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
        max_epochs=recipe.optimizer.epochs,
        accumulate_grad_batches=settings.accumulate,
        check_val_every_n_epoch=settings.evaluate_every or None,
        val_check_interval=None if settings.evaluate_every else 10**9,
        num_sanity_val_steps=0,
        log_every_n_steps=settings.log_every,
        logger=[TensorBoardLogger(folder, "tensorboard", version=""), CSVLogger(folder, "csv")],
        callbacks=[_ResumePoints(folder / "last.ckpt", settings.checkpoint_seconds), _Progress()],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def _hush_lightning() -> None:
    """Leave out what it says of itself and of choices made here on purpose; its warnings about the run stay."""
    for name in ("", ".utilities.rank_zero", ".accelerators.cuda", ".trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"pytorch_lightning{name}").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        ".*number of training batches .* is smaller than the logging interval",
        ".*isinstance\\(treespec, LeafSpec\\)",
    ):
        warnings.filterwarnings("ignore", message)


class _ResumePoints(Callback):
    """Writes the point to resume from: after epochs and, where those are long, between steps."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.seconds = seconds
        self.last = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = batch_idx + 1
        # Gradients gathered so far are not saved, so only after a step; the epoch's last is saved at its end.
        if done % trainer.accumulate_grad_batches == 0 and done < trainer.num_training_batches:
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save_if_due(trainer, certainly=trainer.current_epoch + 1 == trainer.max_epochs)

    def _save_if_due(self, trainer: pl.Trainer, certainly: bool = False) -> None:
        due = certainly or time.monotonic() - self.last >= self.seconds
        if trainer.strategy.broadcast(due):  # rank 0's clock decides for all
            trainer.save_checkpoint(self.path)
            self.last = time.monotonic()


class _Progress(TQDMProgressBar):
    """The bar, without the number of the log folder."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return items


def _environment() -> dict[str, Any]:
    packages = ("reprism", "torch", "torchvision", "timm", "pytorch-lightning", "numpy")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": torch.cpu.get_capabilities().get("cpu_name") if hasattr(torch.cpu, "get_capabilities") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "packages": {package: importlib.metadata.version(package) for package in packages},
    }
