"""Train ingredients, however they were made: the loop, its folder, its points to resume from."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import platform
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import safetensors.torch
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from reprism.data.check import require_evaluable
from reprism.data.records import ReIDDataset
from reprism.files import make_folder, write_json
from reprism.models.checkpoint import save
from reprism.models.depthwise import speed_up_depthwise
from reprism.models.network import PartNet
from reprism.precision import fastest_precision
from reprism.training.batch_statistics import join_batch_statistics
from reprism.training.ingredients import Ingredients
from reprism.training.memory import keep_freed_memory
from reprism.training.module import FitSettings, ReIDModule
from reprism.training.progress import TrainingProgress
from reprism.training.recipes import LoggerName, RecipeError
from reprism.training.resuming import PREVIOUS, ResumePoints, WholeCheckpoints, resume_point
from reprism.training.stopping import Stop, StopRequest, TrainingInterrupted, how_to_resume

MODEL = "model.safetensors"
"""Name of the trained network's file in a run folder."""

_LIGHTNING_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Result of a run.

    Attributes:
        folder: Run folder: ``environment.json``, ``metrics.json``, ``model.safetensors``, ``last.ckpt`` (to resume
            from; while it runs, also ``previous.ckpt``), ``tensorboard/``, ``csv/``; of a recipe also ``recipe.json``.
        model: Trained network, in eval mode.
        metrics: Contents of ``metrics.json``.
    """

    folder: Path
    model: PartNet
    metrics: dict[str, Any]


def fit(
    made: Ingredients,
    dataset: ReIDDataset,
    folder: str | Path,
    settings: FitSettings,
    *,
    validation: ReIDDataset | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger | LoggerName] | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Train ingredients on their own training set, without a recipe.

    Random numbers that the network itself draws, as stochastic depth does, come from torch's generator: seed it first.

    Args:
        made: Model, training set, sampler, loss, optimizer and schedule.
        dataset: Data set whose queries and gallery are evaluated.
        folder: Run folder; made if absent.
        settings: Epochs, devices, evaluations.
        validation: Another data set to evaluate during training, such as :func:`reprism.data.division.hold_out` sets
            aside. The epoch that is best on it is kept, and evaluated on ``dataset`` once, at the end.
        callbacks: Lightning callbacks, called after Reprism's own.
        loggers: Lightning loggers, or names of some, in place of the ``settings``' loggers. The log in ``csv/`` is
            always written.
        resume: Go on from the last point that the run in ``folder`` saved.

    Raises:
        RecipeError: The settings do not fit this machine or each other, or the folder holds a run and ``resume`` is
            not given.
        CheckpointError: The points to resume from are damaged.
        DivergedError: The loss is not finite any more. The last good point to resume from is kept.
        TrainingInterrupted: Ctrl-C or SIGTERM came; a point to resume from was saved at the next step.
    """
    folder = Path(folder)
    if not resume and folder.exists() and any(folder.iterdir()):
        raise RecipeError(f"{folder} exists and is not empty: resume the run in it (resume=True), or choose another")
    if settings.trainer.patience and validation is None:
        raise RecipeError("trainer.patience needs a validation set: the test set must not decide when training stops")
    require_evaluable(dataset)
    stop = StopRequest()
    trainer = make_trainer(folder, settings, stop, callbacks, loggers, uses_all=False)
    return run_trainer(trainer, stop, made, dataset, folder, settings, validation=validation, resume=resume)


def run_trainer(
    trainer: pl.Trainer,
    stop: StopRequest,
    made: Ingredients,
    dataset: ReIDDataset,
    folder: Path,
    settings: FitSettings,
    *,
    validation: ReIDDataset | None = None,
    resume: bool = False,
    recipe: Mapping[str, Any] | None = None,
    started: float | None = None,
    about: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Train by a trainer of :func:`make_trainer`, then evaluate, and write the run folder.

    Args:
        recipe: Record of the recipe, for ``recipe.json`` and the model file.
        started: When the run began, by ``time.perf_counter`` (default: now).
        about: Further entries of ``metrics.json``.
        trainer, stop, made, dataset, folder, settings, validation, resume: As in :func:`fit`.
    """
    if settings.trainer.sync_batchnorm and trainer.world_size > 1:
        join_batch_statistics(made.model, trainer.strategy.root_device)
    speed_up_depthwise(made.model)
    made.model.to(memory_format=torch.channels_last)
    module = ReIDModule(made, settings, dataset)
    if validation is not None:
        module.evaluate_on(validation, "validation")
    module.started = time.perf_counter() if started is None else started
    stop.quiet = not trainer.is_global_zero
    files = _Files(folder, recipe)
    keeper = None if validation is None else _KeepBest(files, settings.trainer.patience)
    # In front of the callbacks that the caller gave.
    trainer.callbacks[:0] = [files, keeper or _KeepLast(files)]  # type: ignore[attr-defined]
    with stop.listening():
        try:
            trainer.fit(module, ckpt_path=resume_point(folder) if resume else None, weights_only=True)
            if keeper is None:
                files.save(trainer, module)
            if not module.evaluations or module.evaluations[-1]["epoch"] != module.epochs_done:
                _evaluate(trainer, module, module.epochs_done)
                if keeper is not None:
                    keeper.keep(trainer, module)
            evaluations, chosen = module.evaluations, {}
            if validation is not None:
                best = best_evaluation(evaluations)
                chosen = {"validation": {**best, "identities": len({item.pid for item in validation.query})}}
                _take_up(trainer, module, folder / MODEL)
                module.evaluate_on(dataset, "test")
                module.evaluations = []
                _evaluate(trainer, module, best["epoch"])
        except Stop:
            raise TrainingInterrupted(stop.signum, how_to_resume(folder)) from None
        metrics = {
            **module.evaluations[-1],
            "evaluations": evaluations,
            **chosen,
            "train_images": len(made.train_set),
            "train_identities": len(set(made.train_set.labels or ())),
            "seconds": round(module.seconds(), 1),
            "resumed": resume,
            **(about or {}),
        }
        if trainer.is_global_zero:
            write_json(folder / "metrics.json", metrics)
            (folder / PREVIOUS).unlink(missing_ok=True)
    if stop.signum:  # too late for the run, but not for what would follow it
        raise TrainingInterrupted(stop.signum, how_to_resume(folder))
    return TrainingResult(folder, module.result.eval(), metrics)


def best_evaluation(evaluations: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the evaluation with the best mAP; of equal ones the first."""
    return max(evaluations, key=lambda each: each["mAP"])


def _evaluate(trainer: pl.Trainer, module: ReIDModule, epoch: int) -> None:
    module.evaluated_epoch = epoch
    trainer.validate(module, verbose=False)


def _take_up(trainer: pl.Trainer, module: ReIDModule, path: Path) -> None:
    """Give every process the weights that the first has written: others may not see its disk."""
    weights: Mapping[str, Any] = safetensors.torch.load_file(path) if trainer.is_global_zero else {}
    module.result.load_state_dict(trainer.strategy.broadcast(weights))


def make_trainer(
    folder: Path,
    settings: FitSettings,
    stop: StopRequest,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger | LoggerName] | None,
    *,
    uses_all: bool,
) -> pl.Trainer:
    """Make the Lightning trainer of a run.

    Args:
        folder, settings, callbacks, loggers: As in :func:`fit`.
        stop: Request to stop the run.
        uses_all: The loss is known to use every parameter; looking for those that it does not use costs time.

    Raises:
        RecipeError: The settings do not fit this machine.
    """
    _hush_lightning()
    options = settings.trainer
    accelerator = options.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    gpus = max(torch.cuda.device_count(), int(torch.backends.mps.is_available()))
    if accelerator != "cpu" and options.devices > gpus:
        raise RecipeError(
            f"trainer.accelerator is {options.accelerator} and trainer.devices {options.devices}, but PyTorch finds "
            f"{gpus or 'no'} GPU{'s' * (gpus > 1)} here (python -m torch.utils.collect_env says why): give "
            + (f"--trainer.devices {gpus}" if gpus else "--trainer.accelerator cpu")
        )
    if accelerator == "cpu":
        keep_freed_memory()
    processes = options.devices * options.num_nodes
    if options.compile != "no" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl"))):
        raise RecipeError(
            "trainer.compile needs a C++ compiler, and none is on the PATH: install one (apt-get install g++), or give "
            "--trainer.compile no"
        )
    precision = options.precision
    if precision == "auto":
        precision = fastest_precision({"gpu": "cuda"}.get(accelerator, accelerator))
    asked = options.loggers if loggers is None else loggers
    named = [_logger(each, folder) for each in asked if each != "csv"]  # which is always written
    try:
        trainer = pl.Trainer(
            accelerator=accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            # Looking for parameters without a gradient costs time; a loss of one's own may leave some, as classifiers.
            strategy=("ddp" if uses_all else "ddp_find_unused_parameters_true") if processes > 1 else "auto",
            precision=_LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
            max_epochs=settings.epochs,
            accumulate_grad_batches=options.accumulate,
            check_val_every_n_epoch=options.evaluate_every or None,
            val_check_interval=None if options.evaluate_every else 10**9,
            num_sanity_val_steps=0,
            log_every_n_steps=options.log_every,
            logger=[*named, CSVLogger(folder, "csv")],
            plugins=[WholeCheckpoints()],
            callbacks=[
                ResumePoints(folder, options.checkpoint_seconds, stop),
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


def _logger(logger: Logger | LoggerName, folder: Path) -> Logger:
    """Return a logger, made if its name is given: in the run folder, or of MLflow beside it.

    Raises:
        RecipeError: Its package is not installed.
    """
    if isinstance(logger, Logger):
        return logger
    if importlib.util.find_spec(logger) is None:
        raise RecipeError(f"trainer.loggers names {logger}, which is not installed: pip install {logger}")
    if logger == "tensorboard":
        return TensorBoardLogger(folder, "tensorboard", version="")
    if logger == "wandb":
        return WandbLogger(name=folder.name, save_dir=folder)
    # One database for all runs that lie side by side: MLflow's page compares them.
    where = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.absolute().parent / 'mlflow.db'}")
    make_folder(folder.parent)
    return MLFlowLogger("reprism", run_name=folder.name, tracking_uri=where)


def _hush_lightning() -> None:
    """Silence Lightning about itself and about choices made here on purpose; its warnings about the run stay."""
    for name in ("", ".utilities.rank_zero", ".accelerators.cuda", ".trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"pytorch_lightning{name}").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",
        ".*number of training batches .* is smaller than the logging interval",
        ".*isinstance\\(treespec, LeafSpec\\)",
        ".*sync_dist=True",  # what all processes log of an evaluation is the same
    ):
        warnings.filterwarnings("ignore", message)


class _Files(Callback):
    """Writes the recipe, the environment and the network.

    Args:
        folder: Run folder.
        recipe: Record of the recipe; None without one.
    """

    def __init__(self, folder: Path, recipe: Mapping[str, Any] | None) -> None:
        self.folder = folder
        self.recipe = recipe

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Record the run: only now that all its processes have met, each having found that the settings fit."""
        if stage == "fit" and trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.recipe is not None:
                write_json(self.folder / "recipe.json", self.recipe)
            write_json(self.folder / "environment.json", _environment())

    def save(self, trainer: pl.Trainer, module: ReIDModule) -> None:
        """Write the network, as it is evaluated."""
        if trainer.is_global_zero:
            save(module.result, self.folder / MODEL, recipe=self.recipe)


class _KeepLast(Callback):
    """Saves the network before its last evaluation."""

    def __init__(self, files: _Files) -> None:
        self.files = files

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save it where the epoch is the last."""
        if trainer.state.fn == TrainerFn.FITTING and trainer.current_epoch + 1 == trainer.max_epochs:
            self.files.save(trainer, cast(ReIDModule, pl_module))


class _KeepBest(Callback):
    """Saves the network whenever its evaluation is the best so far, and stops a run that does not get better.

    Args:
        files: Writes it.
        patience: Evaluations in a row without a better one after which training stops; 0: never.
    """

    def __init__(self, files: _Files, patience: int) -> None:
        self.files = files
        self.patience = patience

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further where a run that stopped early is resumed."""
        self._stop_early(trainer, cast(ReIDModule, pl_module))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge an evaluation during training."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.keep(trainer, cast(ReIDModule, pl_module))
            self._stop_early(trainer, cast(ReIDModule, pl_module))

    def keep(self, trainer: pl.Trainer, module: ReIDModule) -> None:
        """Save the network that was evaluated last, if it is the best."""
        if best_evaluation(module.evaluations) is module.evaluations[-1]:
            self.files.save(trainer, module)

    def _stop_early(self, trainer: pl.Trainer, module: ReIDModule) -> None:
        evaluations = module.evaluations
        if self.patience and evaluations:
            since_best = len(evaluations) - 1 - evaluations.index(best_evaluation(evaluations))
            trainer.should_stop = trainer.should_stop or since_best >= self.patience


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
