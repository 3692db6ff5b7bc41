"""Resume points: when they are saved, how they are written and read; and how a run ends that diverges."""

from __future__ import annotations

import logging
import math
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn

from reprism.files import whole_file
from reprism.models.checkpoint import CheckpointError
from reprism.training.module import ReIDModule
from reprism.training.stopping import Stop, StopRequest

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"

_log = logging.getLogger(__name__)


class DivergedError(ValueError):
    """The loss or the weights are not finite any more; the message names the step and what to try."""


def resume_point(folder: Path) -> Path | None:
    """Return the path to resume the run in ``folder`` from; None if it saved no point yet."""
    # A kill between the two renames of a save leaves the point before alone.
    return folder / LAST if any((folder / name).is_file() for name in (LAST, PREVIOUS)) else None


class WholeCheckpoints(TorchCheckpointIO):
    """Writes resume points that a kill or a power cut leaves whole, and reads the last whole one.

    Lightning writes into the system's temporary folder and moves the file from there. On another file system moving
    is copying, and a kill in the middle leaves half a file.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a point beside ``path``, then rename it; the point before becomes ``previous.ckpt``."""
        path = Path(path)
        for unfinished in path.parent.glob(f".{path.name}.*.part"):  # of a save that was killed
            unfinished.unlink()
        with whole_file(path, previous=path.with_name(PREVIOUS)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Any = lambda storage, _: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the point at ``path``, or the one before where it is damaged, which is then said.

        Raises:
            CheckpointError: Neither can be read.
        """
        faults: list[str] = []
        for candidate in (Path(path), Path(path).with_name(PREVIOUS)):
            if not candidate.is_file():
                continue
            point = _read_point(candidate, map_location)
            if point is not None:
                if faults:
                    _log.warning("%s is damaged: resuming from the point before it, %s", faults[0], candidate)
                return point
            faults.append(str(candidate))
        raise CheckpointError(
            f"cannot resume: {' and '.join(faults)} cannot be read as resume points; they are damaged or of another "
            "program. Train anew in another folder (--out)."
        )


def _read_point(path: Path, map_location: Any) -> dict[str, Any] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch.load does not look at checksums
                return None
        point = torch.load(path, map_location=map_location, weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError):
        return None
    return point if isinstance(point, dict) and "torch_rng_state" in point else None


class ResumePoints(Callback):
    """Saves resume points after epochs and, where those are long, between steps. Ends a run that diverges.

    Args:
        folder: Run folder.
        seconds: Minimum seconds between two points.
        stop: Ends the run after the next step, which is saved.
    """

    def __init__(self, folder: Path, seconds: float, stop: StopRequest) -> None:
        self.path = folder / LAST
        self.seconds = seconds
        self.stop = stop
        self.last = time.monotonic()
        self._losses: torch.Tensor | float = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take SIGTERM back from Lightning."""
        self.stop.listen()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save between steps, if it is time."""
        done = batch_idx + 1
        # Gradients gathered so far are not saved, so only after a step; the epoch's last is saved at its end.
        within_epoch = done < trainer.num_training_batches
        can_save = within_epoch and done % trainer.accumulate_grad_batches == 0
        is_due, was_told = can_save and self._is_due(trainer), self.stop.signum
        # Reading a number off a GPU makes it wait: done no more often than for the logs.
        logs = done % cast(ReIDModule, pl_module).settings.trainer.log_every == 0
        looks = pl_module.device.type == "cpu" or is_due or was_told or logs or not within_epoch
        self._losses = self._losses + outputs["loss"].detach()  # a sum stays infinite or nan, once one loss was
        diverged, due, signum = _agreed(trainer, looks and not math.isfinite(self._losses), is_due, was_told)
        if diverged:
            raise self._diverged(trainer, pl_module, "loss")
        if can_save and (due or signum):
            self._save(trainer, pl_module, signum)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save between epochs, if it is time; certainly after the last."""
        due, signum = _agreed(trainer, self._is_due(trainer), self.stop.signum)
        if due or signum or trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs:
            self._save(trainer, pl_module, signum)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take SIGTERM back from Lightning, where an evaluation is run by itself."""
        self.stop.listen()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop in the middle of an evaluation. Several processes, whose shares differ, go on to its end."""
        if self.stop.signum and trainer.world_size == 1:
            if trainer.state.fn != TrainerFn.FITTING:
                raise Stop  # all is saved
            self._save(trainer, pl_module, self.stop.signum)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Record an evaluation under way as just begun: a run that resumes here repeats all of it."""
        if trainer.validating:
            begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"] = {
                "total": begun,
                "current": begun,
                "is_last_batch": False,
            }

    def _is_due(self, trainer: pl.Trainer) -> bool:
        # Rank 0's clock decides for all.
        return trainer.is_global_zero and time.monotonic() - self.last >= self.seconds

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule, signum: int) -> None:
        if not all(bool(weight.isfinite().all()) for weight in pl_module.parameters()):
            raise self._diverged(trainer, pl_module, "network")
        trainer.save_checkpoint(self.path)
        self.last = time.monotonic()
        if signum:
            self.stop.signum = signum  # another process may have had it
            raise Stop

    def _diverged(self, trainer: pl.Trainer, pl_module: pl.LightningModule, what: str) -> DivergedError:
        peak = max(group["initial_lr"] for group in trainer.optimizers[0].param_groups)
        where = f"in epoch {trainer.current_epoch + 1}, by step {trainer.global_step}"
        precision = "" if trainer.precision == "32-true" else ", or --trainer.precision fp32"
        kept = resume_point(self.path.parent)
        return DivergedError(
            f"the {what} is not finite any more {where}: training has diverged. Try a lower --optimizer.lr (it is "
            f"{peak:g}), a longer --optimizer.warmup{precision}, in another folder. "
            + (f"{kept} keeps the last good state." if kept else "No state was saved yet.")
        )


def _agreed(trainer: pl.Trainer, *values: int) -> list[int]:
    """Return the largest of each value among all processes."""
    if trainer.world_size == 1:
        return list(values)
    mine = torch.tensor(values, dtype=torch.int32, device=trainer.strategy.root_device)
    return cast(torch.Tensor, trainer.strategy.reduce(mine, reduce_op="max")).tolist()
