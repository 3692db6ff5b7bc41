"""The Lightning module: one training step, one evaluation, the optimiser and its schedule."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from reprism.data.images import ImageSet, live_through_signals
from reprism.data.records import Item, Tracklet
from reprism.data.tracklets import TrackletSet
from reprism.data.transforms import eval_transform
from reprism.embedding import describe, pool_runs
from reprism.evaluation.items import evaluate_items
from reprism.training.ingredients import EpochSampler, Ingredients, frozen_modules, loss_terms, parameter_groups
from reprism.training.recipes import Recipe, RecipeError


class ReIDModule(pl.LightningModule):
    """Trains a part network on identity batches and evaluates it on query and gallery.

    Args:
        made: What to train, on what, by which loss and optimiser.
        recipe: The settings of batches, evaluation and logs.
        query, gallery: What is evaluated, images or tracklets.
        single_shot_trials: As the data set has it.

    Attributes:
        evaluations: Epoch and summary of every evaluation so far, the same on all ranks.
        started: When this sitting began, by ``time.perf_counter``.
    """

    def __init__(
        self,
        made: Ingredients,
        recipe: Recipe,
        query: Sequence[Item],
        gallery: Sequence[Item],
        single_shot_trials: int = 0,
    ) -> None:
        super().__init__()
        self.made = made
        self.model = made.model
        self.loss = made.loss
        self.recipe = recipe
        self.num_queries = len(query)
        self.single_shot_trials = single_shot_trials
        self.test_items: tuple[Item, ...] = (*query, *gallery)
        self.is_video = isinstance(self.test_items[0], Tracklet)
        self.evaluations: list[dict[str, Any]] = []
        self._rows = self._seen = torch.empty(0)
        self._rng_state: Tensor | None = None
        self._cuda_rng_state: Tensor | None = None
        self.started = time.perf_counter()
        self._seconds_before = 0.0
        self._last_step_end = time.perf_counter()

    # --- data --------------------------------------------------------------------------------------------------------

    def _workers(self) -> int:
        workers = self.recipe.data.workers
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
        """Identity batches of this rank, from where a resumed run stopped."""
        # Worker processes draw as soon as the loader is iterated, when the trainer's own count of epochs may not have
        # caught up with the point it resumes from; its count of batches has.
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]
        epoch, self.sampler.start_batch = divmod(batches, len(self.sampler))
        self.sampler.set_epoch(epoch)
        workers = self._workers()
        return _TrainLoader(
            self.made.train_set,
            batch_sampler=self.sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=live_through_signals,
            # Its own generator: seeding workers must not move the one that the network may draw from.
            generator=torch.Generator().manual_seed(self.recipe.seed),
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """This rank's share of query and gallery: every world_size-th image, none twice."""
        share = list(range(self.trainer.global_rank, len(self.test_items), self.trainer.world_size))
        transform = eval_transform(self.model.preprocessing)
        items: Dataset[Any]
        if self.is_video:
            items = TrackletSet(self.test_items, transform, self.recipe.data.video)  # type: ignore[arg-type]
        else:
            items = ImageSet(self.test_items, transform)  # type: ignore[arg-type]
        return DataLoader(
            Subset(items, share),
            None if self.is_video else self.recipe.data.eval_batch,
            num_workers=self._workers(),
            worker_init_fn=live_through_signals,
            generator=torch.Generator(),  # as above: an evaluation begun twice must not move the network's either
        )

    # --- training ----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Make the optimiser; its learning rate follows the schedule step by step."""
        steps = math.ceil(len(self.sampler) / self.trainer.accumulate_grad_batches)
        settings = self.recipe.optimizer
        optimizer = self.made.optimizer(parameter_groups(self.model, self.loss, settings.lr, settings.factors))
        held = {id(each) for group in optimizer.param_groups for each in group["params"]}
        if not held <= {id(each) for each in (*self.model.parameters(), *self.loss.parameters())}:
            raise RecipeError(
                "the optimizer holds parameters of another model or loss than the run's: make it from the parameters "
                "that it is called with"
            )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.made.schedule(step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Go on with the random numbers of the run that is resumed; keep the batch statistics of what is frozen."""
        for module in frozen_modules(self.model, self.recipe.model.freeze):
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
        """The total loss of one batch."""
        images, labels = batch
        output = self.model(images.contiguous(memory_format=torch.channels_last))
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
        """All ranks end with the same network, batch statistics included."""
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
        """Take it up again, with the same training images: they may lie elsewhere."""
        if checkpoint.get("train_images", self._train_images_digest) != self._train_images_digest:
            raise RecipeError(
                f"the training images in {self.recipe.data.root} are not those that the run began with, by their names "
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
        """All ranks describe with the same network: batch statistics are rank 0's."""
        self.share_buffers()
        runs = self.recipe.data.video.runs if self.is_video else 1
        shape = (len(self.test_items), runs * self.model.descriptor_dim)
        self._rows = torch.zeros(shape)
        self._seen = torch.zeros(shape[0])

    def share_buffers(self) -> None:
        """Copy rank 0's batch statistics to the other ranks; between steps each keeps its own."""
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def validation_step(self, batch: tuple[Tensor, Tensor | int], batch_idx: int) -> None:
        """Describe one batch of images of this rank's share, or one tracklet."""
        images, index = batch
        rows = torch.cat(
            [
                describe(self.model, some.contiguous(memory_format=torch.channels_last), self.recipe.trainer.flip_test)
                for some in images.split(self.recipe.data.eval_batch)
            ]
        )
        if self.is_video:
            rows = pool_runs(rows, self.recipe.data.video)[None]
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
        items, split = self.test_items, self.num_queries
        metrics = evaluate_items(
            rows[:split], rows[split:], items[:split], items[split:], single_shot_trials=self.single_shot_trials
        )
        self._rows = self._seen = torch.empty(0)
        self.evaluations.append({"epoch": self.current_epoch + 1, **metrics.as_dict()})
        self.log_dict(
            {"test/mAP": metrics.mAP, "test/rank1": metrics.rank(1), "test/mINP": metrics.mINP}, prog_bar=True
        )
        self._last_step_end = time.perf_counter()


class _TrainLoader(DataLoader[Any]):
    """A loader that says it can be resumed, so that the trainer does not warn: the sampler's start sees to it."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state  # where to start follows from the trainer's own count of batches
