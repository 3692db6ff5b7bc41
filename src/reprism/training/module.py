"""The Lightning module: one training step, one evaluation, the optimiser and its schedule."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, Subset

from reprism.data.images import ImageSet, prepare_worker
from reprism.data.records import ReIDDataset, Tracklet
from reprism.data.tracklets import TrackletSet
from reprism.data.transforms import eval_transform
from reprism.data.video import VideoSettings
from reprism.embedding import describe, pool_segments
from reprism.evaluation.items import evaluate_items
from reprism.models.network import PartNet, PartOutput
from reprism.training.averaging import average_of
from reprism.training.ingredients import EpochSampler, Ingredients, build_optimizer, frozen_modules, loss_terms
from reprism.training.recipes import RecipeError, TrainerSettings


@dataclass(frozen=True)
class FitSettings:
    """Settings by which ingredients are trained, whatever they are made of.

    Attributes:
        epochs: Passes over the sampler.
        seed: Random seed of worker processes.
        ema: Decay of the moving average of the weights; 0: none.
        workers: Processes that decode images (default: 1 on a CPU, up to 8 with a GPU).
        eval_batch: Images per batch in evaluation.
        video: Frames of a tracklet, and how their descriptors become one, in evaluation.
        trainer: Devices, precision, evaluations and resume points.
    """

    epochs: int
    seed: int = 0
    ema: float = 0.0
    workers: int | None = None
    eval_batch: int = 64
    video: VideoSettings = field(default_factory=VideoSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)


class ReIDModule(pl.LightningModule):
    """Trains a part network on identity batches and evaluates it on query and gallery.

    Args:
        made: Model, training set, sampler, loss, optimizer and schedule.
        settings: Epochs, devices, evaluations.
        evaluated: The data set whose queries and gallery are evaluated.

    Attributes:
        evaluated_epoch: Epoch of the weights that are evaluated, where it is not the current one.
        average: Moving average of the model's weights; None without one.
        evaluations: Epoch and summary of every evaluation so far, the same on all ranks.
        started: When this sitting began, by ``time.perf_counter``.
    """

    def __init__(self, made: Ingredients, settings: FitSettings, evaluated: ReIDDataset) -> None:
        super().__init__()
        self.made = made
        self.model = made.model
        self.loss = made.loss
        self._run: Callable[[Tensor], PartOutput] = self.model.__call__
        if (mode := settings.trainer.compile) != "no":
            # A function, unlike a compiled module, adds no second set of names to checkpoints, and leaves evaluation,
            # whose batches differ in size, as it is.
            self._run = torch.compile(self._run, mode=mode, dynamic=False)
        self.average: AveragedModel | None = average_of(made.model, settings.ema) if settings.ema else None
        self.settings = settings
        self.evaluate_on(evaluated, "test")
        self.evaluated_epoch: int | None = None
        self.evaluations: list[dict[str, Any]] = []
        self._rows = self._seen = torch.empty(0)
        self._rng_state: Tensor | None = None
        self._cuda_rng_state: Tensor | None = None
        self.started = time.perf_counter()
        self._seconds_before = 0.0
        self._last_step_end = time.perf_counter()

    def evaluate_on(self, dataset: ReIDDataset, name: str) -> None:
        """Evaluate on a data set's queries and gallery from now on; ``name`` leads the names of what is logged."""
        self.evaluated, self.evaluated_as = dataset, name
        self.test_items = (*dataset.query, *dataset.gallery)
        self.is_video = isinstance(self.test_items[0], Tracklet)

    @property
    def result(self) -> PartNet:
        """The network that is evaluated and saved: the average of the weights, or the model itself."""
        return self.model if self.average is None else cast(PartNet, self.average.module)

    @property
    def epochs_done(self) -> int:
        """Epochs that are trained to their end, earlier sittings included."""
        return self._batches_done // len(self.sampler)

    @property
    def _batches_done(self) -> int:
        return int(self.trainer.fit_loop.epoch_loop.batch_progress.total.processed)  # type: ignore[attr-defined]

    # --- data --------------------------------------------------------------------------------------------------------

    def _workers(self) -> int:
        workers = self.settings.workers
        if workers is not None:
            return workers
        return 1 if self.device.type == "cpu" else 8

    def setup(self, stage: str) -> None:
        """Make the sampler, now that this process knows its rank."""
        if stage != "fit":
            return
        sampler = self.made.sampler(self.trainer.global_rank, self.trainer.world_size)
        if not len(sampler):
            raise RecipeError("the sampler has no batch in an epoch: there is nothing to train on")
        self.sampler = EpochSampler(sampler)

    def train_dataloader(self) -> DataLoader[Any]:
        """Load identity batches of this rank, from where a resumed run stopped."""
        # Worker processes draw as soon as the loader is iterated, when the trainer's own count of epochs may not have
        # caught up with the point it resumes from; its count of batches has.
        epoch, self.sampler.start_batch = divmod(self._batches_done, len(self.sampler))
        self.sampler.set_epoch(epoch)
        workers = self._workers()
        return _TrainLoader(
            self.made.train_set,
            batch_sampler=self.sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=prepare_worker,
            # Its own generator: seeding workers must not move the one that the network may draw from.
            generator=torch.Generator().manual_seed(self.settings.seed),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Load this rank's share of query and gallery: every world_size-th image, none twice."""
        share = list(range(self.trainer.global_rank, len(self.test_items), self.trainer.world_size))
        transform = eval_transform(self.model.preprocessing)
        items: Dataset[Any]
        if self.is_video:
            items = TrackletSet(self.test_items, transform, self.settings.video)  # type: ignore[arg-type]
        else:
            items = ImageSet(self.test_items, transform)  # type: ignore[arg-type]
        return DataLoader(
            Subset(items, share),
            None if self.is_video else self.settings.eval_batch,
            num_workers=self._workers(),
            worker_init_fn=prepare_worker,
            generator=torch.Generator(),  # as above: an evaluation begun twice must not move the network's either
        )

    # --- training ----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Make the optimiser; its learning rate follows the schedule step by step."""
        steps = math.ceil(len(self.sampler) / self.trainer.accumulate_grad_batches)
        optimizer = build_optimizer(self.made)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.made.schedule(step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take one step, and move the average of the weights towards them."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_train_start(self) -> None:
        """Go on with the random numbers of the run that is resumed; keep the batch statistics of what is frozen."""
        for module in frozen_modules(self.model):
            module.eval()  # an evaluation gives each module back the mode that it had
        if self._rng_state is not None:
            torch.set_rng_state(self._rng_state)
        if self._cuda_rng_state is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(self._cuda_rng_state, self.device)
        self._last_step_end = time.perf_counter()

    def on_train_epoch_start(self) -> None:
        """Let the next pass over the loader draw this epoch's batches."""
        self.sampler.set_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log how long the network had nothing to do."""
        self.log("wait_seconds", time.perf_counter() - self._last_step_end)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the total loss of one batch."""
        images, labels = batch
        output = self._run(images.contiguous(memory_format=torch.channels_last))
        terms = loss_terms(self.loss(output, labels))
        for name, value in terms.items():
            self.log(f"loss/{name}", value.detach(), prog_bar=True)
        return terms["total"]

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the rate, waiting for data included."""
        now = time.perf_counter()
        rate = len(batch[1]) * self.trainer.world_size / (now - self._last_step_end)
        self.log("images/s", rate, prog_bar=True)
        self._last_step_end = now

    def on_train_end(self) -> None:
        """End with the same network on all ranks, batch statistics included."""
        self.share_buffers()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what exact resuming needs beside weights and optimiser: random state, evaluations and seconds so far."""
        checkpoint["torch_rng_state"] = torch.get_rng_state()
        if self.device.type == "cuda":  # stochastic depth draws there
            checkpoint["cuda_rng_state"] = torch.cuda.get_rng_state(self.device)
        checkpoint["evaluations"] = self.evaluations
        checkpoint["seconds"] = self.seconds()
        checkpoint["train_images"] = self._train_images_digest

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume from it, with the same training images: their folder may have moved."""
        if checkpoint.get("train_images", self._train_images_digest) != self._train_images_digest:
            raise RecipeError(
                f"the training images in {self.evaluated.root} are not those that the run began with, by their names "
                "and identities: give their folder by --data.root, or train anew in another folder"
            )
        self._rng_state = checkpoint["torch_rng_state"]
        self._cuda_rng_state = checkpoint.get("cuda_rng_state")
        self.evaluations = checkpoint["evaluations"]
        self._seconds_before = checkpoint.get("seconds", 0.0)  # absent from points of earlier versions

    @cached_property
    def _train_images_digest(self) -> str:
        digest = hashlib.sha256()
        for sample, label in zip(self.made.train_set.samples, self.made.train_set.labels or [], strict=True):
            digest.update(f"{sample.path.name} {label}\n".encode())
        return digest.hexdigest()

    def seconds(self) -> float:
        """Return how long the run has taken, earlier sittings included."""
        return self._seconds_before + time.perf_counter() - self.started

    # --- evaluation --------------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Describe with the same network on all ranks: batch statistics are rank 0's."""
        self.share_buffers()
        segments = self.settings.video.segments if self.is_video else 1
        shape = (len(self.test_items), segments * self.model.descriptor_dim)
        self._rows = torch.zeros(shape)
        self._seen = torch.zeros(shape[0])

    def share_buffers(self) -> None:
        """Copy rank 0's batch statistics to the other ranks; between steps each keeps its own."""
        if self.trainer.world_size > 1:
            for module in {id(each): each for each in (self.model, self.result)}.values():
                for buffer in module.buffers():
                    torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: tuple[Tensor, Tensor | int], batch_idx: int) -> None:
        """Describe one batch of images of this rank's share, or one tracklet."""
        images, index = batch
        flip = self.settings.trainer.flip_test
        rows = torch.cat(
            [
                describe(self.result, some.contiguous(memory_format=torch.channels_last), flip)
                for some in images.split(self.settings.eval_batch)
            ]
        )
        if self.is_video:
            rows = pool_segments(rows, self.settings.video)[None]
        places = torch.as_tensor(index).reshape(-1).cpu()
        self._rows[places] = rows.cpu()
        self._seen[places] += 1

    def on_validation_epoch_end(self) -> None:
        """Join the ranks' shares and rank every query."""
        rows, seen = self._rows, self._seen
        if self.trainer.world_size > 1:
            rows = self.trainer.strategy.reduce(rows.to(self.device), reduce_op="sum").cpu()
            seen = self.trainer.strategy.reduce(seen.to(self.device), reduce_op="sum").cpu()
        if not bool((seen == 1).all()):
            raise RuntimeError(f"{int((seen != 1).sum())} test images were described by no rank, or by several")
        query, gallery, split = self.evaluated.query, self.evaluated.gallery, len(self.evaluated.query)
        metrics = evaluate_items(
            rows[:split], rows[split:], query, gallery, single_shot_trials=self.evaluated.single_shot_trials
        )
        self._rows = self._seen = torch.empty(0)
        whom = {} if self.evaluated_as == "test" else {"of": self.evaluated_as}
        self.evaluations.append({"epoch": self.evaluated_epoch or self.current_epoch + 1, **whom, **metrics.as_dict()})
        scores = {"mAP": metrics.mAP, "rank1": metrics.rank(1), "mINP": metrics.mINP}
        self.log_dict({f"{self.evaluated_as}/{name}": value for name, value in scores.items()}, prog_bar=True)
        self._last_step_end = time.perf_counter()


class _TrainLoader(DataLoader[Any]):
    """Claims to be resumable, so that the trainer does not warn: the sampler starts where the run stopped."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state  # where to start follows from the trainer's own count of batches
