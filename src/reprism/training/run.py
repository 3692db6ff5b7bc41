"""A training run: from a recipe to a run folder that holds everything about it."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from reprism.data import LOADERS, open_dataset
from reprism.data.check import require_trainable
from reprism.data.images import DecodedImages, check_images
from reprism.data.joint import join_training, named_data
from reprism.data.records import DataError, ReIDDataset, Sample, as_images, without_images
from reprism.files import write_json
from reprism.models.checkpoint import save
from reprism.models.network import PartNet
from reprism.precision import fastest_precision
from reprism.progress import Progress, step
from reprism.training.ingredients import Ingredients, build_ingredients
from reprism.training.module import ReIDModule
from reprism.training.progress import TrainingProgress
from reprism.training.recipes import Recipe, RecipeError, find_recipe, what_is_computed, write_recipe
from reprism.training.resuming import PREVIOUS, ResumePoints, WholeCheckpoints, resume_point
from reprism.training.stopping import Stop, StopRequest, TrainingInterrupted, how_to_resume

_LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run left behind.

    Attributes:
        folder: the run folder: ``recipe.json``, ``environment.json``, ``metrics.json``, ``model.safetensors``,
            ``last.ckpt`` (to resume from; while it runs, also ``previous.ckpt``), ``tensorboard/``, ``csv/``.
        model: the trained network.
        metrics: the contents of ``metrics.json``.
    """

    folder: Path
    model: PartNet
    metrics: dict[str, Any]


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    dataset: ReIDDataset | None = None,
    adapt: Callable[[Ingredients], Ingredients] | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train as a recipe says, with parts of your own where you give some.

    Args:
        recipe: The settings; without a ``dataset``, ``recipe.data.root`` must be set.
        folder: The run folder; made if absent. One that holds a run is refused unless ``resume``.
        dataset: What to train and evaluate on, in place of the one that the recipe names.
        adapt: Called with what the recipe built; returns what is trained. To have a loss of your own:
            ``adapt=lambda made: dataclasses.replace(made, loss=MyLoss())``. It is no part of the recipe: give it again
            to resume.
        callbacks: Lightning callbacks, called after Reprism's own.
        loggers: Lightning loggers, in place of TensorBoard's. The log that ``reprism report`` reads is always written.
        resume: Go on from the last point the run in ``folder`` saved (from the start if it saved none). The final
            weights are those of an uninterrupted run.
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
        ValueError: Other settings that fit nothing.
    """
    started = time.perf_counter()
    folder = Path(folder)
    pl.seed_everything(recipe.seed, verbose=False)
    _hush_lightning()
    stop = StopRequest()
    # Before all else: it knows which of several processes this is, however they were started.
    trainer = _trainer(recipe, folder, stop, callbacks, loggers, uses_all=adapt is None and recipe.loss.use is None)
    stop.quiet = not trainer.is_global_zero
    if dataset is not None:
        known = {"name": dataset.name, "root": dataset.root, "options": {}}
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=known)})
    _check_folder(recipe, folder, resume)
    dataset, images, unreadable = _load_data(recipe, dataset, trainer.world_size, progress)
    fused = trainer.strategy.root_device.type in ("cpu", "cuda")
    made = build_ingredients(recipe, dataset, images, fused=fused)
    if adapt is not None:
        made = adapt(made)
        if not isinstance(made, Ingredients) or not isinstance(made.model, PartNet):
            raise TypeError(
                "expected Ingredients with a PartNet from adapt, such as dataclasses.replace(made, loss=MyLoss())"
            )
    model = made.model
    model.to(memory_format=torch.channels_last)
    module = ReIDModule(made, recipe, dataset.query, dataset.gallery, dataset.single_shot_trials)
    module.started = started
    with stop.listening():
        try:
            trainer.fit(module, ckpt_path=resume_point(folder) if resume else None, weights_only=True)
            _save_model(trainer, module, folder)
            if not module.evaluations or module.evaluations[-1]["epoch"] != recipe.optimizer.epochs:
                trainer.validate(module, verbose=False)
                module.evaluations[-1]["epoch"] = recipe.optimizer.epochs
        except Stop:
            raise TrainingInterrupted(stop.signum, how_to_resume(folder)) from None
        metrics = {
            **module.evaluations[-1],
            "evaluations": module.evaluations,
            "train_images": len(dataset.train_images),
            "train_identities": dataset.num_train_identities,
            "seconds": round(module.seconds(), 1),
            "resumed": resume,
            "unreadable": [{"path": str(sample.path), "reason": reason} for sample, reason in unreadable],
        }
        if trainer.is_global_zero:
            write_json(folder / "metrics.json", metrics)
            (folder / PREVIOUS).unlink(missing_ok=True)
    if stop.signum:  # too late for the run, but not for what would follow it
        raise TrainingInterrupted(stop.signum, how_to_resume(folder))
    return TrainingResult(folder, model.eval(), metrics)


def is_first_process() -> bool:
    """Return whether this process, of those that train together, is the one that writes and prints.

    Lightning tells it from what torchrun, Slurm's srun or Lightning itself set in the environment; and knows it better
    once the run has begun.
    """
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def _save_model(trainer: pl.Trainer, module: ReIDModule, folder: Path) -> None:
    if trainer.is_global_zero:
        save(module.model, folder / "model.safetensors", recipe=module.recipe.model_dump(mode="json"))


def _check_folder(recipe: Recipe, folder: Path, resume: bool) -> None:
    record = folder / "recipe.json"
    if record.is_file():
        if not resume:
            raise RecipeError(
                f"{folder} holds a run already: go on with it by --resume, or choose another folder by --out"
            )
        # How the work is spread and reported may change between sittings; what is computed may not.
        before, now = (what_is_computed(made) for made in (find_recipe(str(folder)), recipe))
        if before != now:
            changed = ", ".join(sorted(_differences(before, now)))
            raise RecipeError(
                f"the run in {folder} was made by another recipe; it differs in {changed}. Resume with the recipe it "
                f"was started with: reprism train {folder} --resume"
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
) -> tuple[ReIDDataset, DecodedImages | None, list[tuple[Sample, str]]]:
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
    images = None
    if data.cache == "ram":
        images = DecodedImages(dataset.train_images, progress=step(progress, "decoding training images"))
    return dataset, images, unreadable


def _trainer(
    recipe: Recipe,
    folder: Path,
    stop: StopRequest,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger] | None,
    uses_all: bool,
) -> pl.Trainer:
    settings = recipe.trainer
    accelerator = settings.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    gpus = max(torch.cuda.device_count(), int(torch.backends.mps.is_available()))
    if accelerator != "cpu" and settings.devices > gpus:
        raise RecipeError(
            f"trainer.accelerator is {settings.accelerator} and trainer.devices {settings.devices}, but PyTorch finds "
            f"{gpus or 'no'} GPU{'s' * (gpus > 1)} here (python -m torch.utils.collect_env says why): give "
            + (f"--trainer.devices {gpus}" if gpus else "--trainer.accelerator cpu")
        )
    precision = settings.precision
    if precision == "auto":
        precision = fastest_precision({"gpu": "cuda"}.get(accelerator, accelerator))
    processes = settings.devices * settings.num_nodes
    if loggers is None:
        loggers = [TensorBoardLogger(folder, "tensorboard", version="")]
    try:
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            # Looking for parameters without a gradient costs time; a loss of one's own may leave some, as classifiers.
            strategy=("ddp" if uses_all else "ddp_find_unused_parameters_true") if processes > 1 else "auto",
            precision=_LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
            max_epochs=recipe.optimizer.epochs,
            accumulate_grad_batches=settings.accumulate,
            check_val_every_n_epoch=settings.evaluate_every or None,
            val_check_interval=None if settings.evaluate_every else 10**9,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.log_every,
            logger=[*loggers, CSVLogger(folder, "csv")],
            plugins=[WholeCheckpoints()],
            callbacks=[
                _RunFolder(folder),
                ResumePoints(folder, settings.checkpoint_seconds, stop),
                TrainingProgress(),
                *callbacks,
            ],
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        # Lightning's own words on devices and clusters, on one line.
        raise RecipeError(f"these trainer settings do not fit this machine: {' '.join(str(error).split())}") from error
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and trainer.world_size == 1:
        raise RecipeError(
            f"srun started {tasks} tasks, and each would train this run by itself, since trainer.devices × "
            "trainer.num_nodes is 1: give --trainer.devices (tasks of a node) and --trainer.num-nodes, or srun -n 1"
        )
    return trainer


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


class _RunFolder(Callback):
    """Writes what is run, and what came of it before that is measured."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Record the run: only now that all its processes have met, each having found that the settings fit."""
        if stage == "fit" and trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_recipe(cast(ReIDModule, pl_module).recipe, self.folder / "recipe.json")
            write_json(self.folder / "environment.json", _environment())

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the model before its last evaluation."""
        if trainer.state.fn == TrainerFn.FITTING and trainer.current_epoch + 1 == trainer.max_epochs:
            _save_model(trainer, cast(ReIDModule, pl_module), self.folder)


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
