"""The progress of a training run: one line on a terminal, and a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from reprism.terminal import clock, is_animated
from reprism.training.module import ReIDModule

LINE_SECONDS = 60.0
"""Minimum seconds between two lines in a log; evaluations always get theirs."""

_REDRAW_SECONDS = 0.25
_BAR_WIDTH = 10  # at least


class TrainingProgress(ProgressBar):
    """Show epoch, loss, rate, time left and the last mAP of a run; a permanent line for each evaluation.

    The time left counts the evaluations still to come, once one was measured. A resumed run is timed by its own steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(quiet=True)
        self._bar: Progress | None = None
        self._on = True
        self._shown_at = 0.0
        self._mark = 0.0  # when the last step or evaluation ended
        self._first_step = 0
        self._train_seconds = 0.0
        self._evaluation_seconds: list[float] = []
        self._mAP: float | None = None

    def enable(self) -> None:
        """Show progress."""
        self._on = True

    def disable(self) -> None:
        """Show nothing, as all processes but the first do."""
        self._on = False

    # ---- training ----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the steps that a resumed run did before."""
        self._first_step = _steps_done(trainer)
        self._train_seconds = 0.0
        self._mark = self._shown_at = time.monotonic()
        if evaluations := _evaluations(pl_module):
            self._mAP = evaluations[-1]["mAP"]
        self._start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        now = time.monotonic()
        self._train_seconds += now - self._mark
        self._mark = now
        if not self._is_due(now):
            return
        done, total = _steps_done(trainer), int(trainer.num_training_batches) * (trainer.max_epochs or 1)
        step_seconds = self._train_seconds / max(1, done - self._first_step)
        evaluations = evaluations_left(trainer.current_epoch, trainer.max_epochs or 1, trainer.check_val_every_n_epoch)
        evaluation_seconds = sum(self._evaluation_seconds) / max(1, len(self._evaluation_seconds))
        figures = [
            f"{clock((total - done) * step_seconds + evaluations * evaluation_seconds)} left",
            *([] if self._mAP is None else [f"mAP {self._mAP:.1%}"]),
            f"loss {float(trainer.callback_metrics['loss/total']):.2f}",
            f"{len(batch[1]) * trainer.world_size / max(1e-9, step_seconds):,.0f} images/s",
        ]
        self._show(_epoch(trainer), done, total, figures)

    # ---- evaluation --------------------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the evaluation's own bar."""
        self._mark = time.monotonic()
        self._start()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move the evaluation's bar."""
        if self._is_due(time.monotonic()):
            total = int(sum(trainer.num_val_batches))
            self._show(f"{_epoch(trainer)}, evaluating", batch_idx + 1, total, [f"{batch_idx + 1}/{total}"])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the scores as a line that stays."""
        now = time.monotonic()
        self._evaluation_seconds.append(now - self._mark)
        self._mark = self._shown_at = now
        found = _evaluations(pl_module)[-1]
        self._mAP = found["mAP"]
        whom = ", training identities set aside" if found.get("of") == "validation" else ""
        self._print(
            f"epoch {found['epoch']}/{trainer.max_epochs}{whom}: mAP {found['mAP']:.1%}, rank-1 {found['rank1']:.1%}"
        )

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the bar."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar, so that the error is printed below it."""
        self._stop()

    # ---- showing -----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if not self._on or self._bar is not None:
            return
        self._console = Console(stderr=True)
        if is_animated(self._console):
            columns = (TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[figures]}"))
            # No thread that redraws: a worker process forked meanwhile would inherit its locks.
            self._bar = Progress(*columns, console=self._console, auto_refresh=False, transient=True, expand=True)
            self._bar.add_task("starting", total=None, figures="")
            self._bar.start()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _is_due(self, now: float) -> bool:
        return self._on and now - self._shown_at >= (LINE_SECONDS if self._bar is None else _REDRAW_SECONDS)

    def _show(self, what: str, done: int, total: int, figures: Sequence[str]) -> None:
        self._shown_at = time.monotonic()
        if self._bar is None:
            self._print(", ".join((what, *figures)))
            return
        text = fitting(figures, self._console.width - len(what) - _BAR_WIDTH - 2)
        self._bar.update(self._bar.task_ids[0], description=what, completed=done, total=total, figures=text)
        self._bar.refresh()

    def _print(self, line: str) -> None:
        if self._on:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def evaluations_left(epoch: int, epochs: int, every: int | None) -> int:
    """Count the evaluations still to come.

    Args:
        epoch: Completed epochs.
        epochs: Epochs of the run.
        every: Epochs between evaluations; None evaluates after the last one only, which is always evaluated.
    """
    if every is None:
        return 1
    return epochs // every - epoch // every + (epochs % every > 0)


def fitting(figures: Sequence[str], width: int) -> str:
    """Join the first figures that fit into ``width`` characters, the most important being first."""
    chosen: list[str] = []
    for figure in figures:
        if len("  ".join([*chosen, figure])) > width:
            break
        chosen.append(figure)
    return "  ".join(chosen)


def _steps_done(trainer: pl.Trainer) -> int:
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]


def _evaluations(module: pl.LightningModule) -> list[dict[str, Any]]:
    return cast(ReIDModule, module).evaluations


def _epoch(trainer: pl.Trainer) -> str:
    epochs = trainer.max_epochs or 1
    return f"epoch {min(trainer.current_epoch + 1, epochs)}/{epochs}"
