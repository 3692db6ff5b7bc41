"""Ingredients of a training run: built from a recipe, and changed by users with parts of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from reprism.data.images import DecodedImages, ImageSet
from reprism.data.records import ReIDDataset
from reprism.data.sampling import IdentityBatchSampler
from reprism.data.transforms import train_transform
from reprism.imports import import_object, is_import_path
from reprism.losses import AcrossProcesses, TotalLoss
from reprism.models.network import PartNet, build_model
from reprism.models.starting import is_model_file, start_from
from reprism.training.recipes import Recipe, RecipeError
from reprism.training.schedule import learning_rate_factor

_log = logging.getLogger(__name__)
_PARTS_OF_A_MODEL = ("trunk", "branches", "heads", "classifiers")


class BatchSampler(Protocol):
    """Draws batches of keys of the training set, the same number in every epoch."""

    def __len__(self) -> int:
        """Return the batches in an epoch."""

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield one epoch's batches."""


@dataclass(frozen=True)
class Ingredients:
    """Everything a training run needs, built but not yet run; ``dataclasses.replace`` changes one.

    Ingredients that depend on another one, on the device or on the process are functions, called later.

    Attributes:
        model: The network, with a class for each training identity.
        loss: Called with the network's :class:`PartOutput` and B integer labels. Returns the loss, a scalar; or scalars
            by name (a mapping or named tuple) with ``total``, all of which are logged. Parameters of its own are
            trained too.
        train_set: Training images and labels. ``train_set.transformed(transform)`` has another augmentation.
        sampler: Makes the batch sampler of one process from its rank and the number of processes. Its batches hold
            indices of ``train_set``, or :class:`reprism.data.sampling.Draw`, which makes augmentation repeatable.
        optimizer: Makes the optimiser from the parameters of model and loss; from groups of them where there are
            ``factors``.
        schedule: Learning rate at a moment as a fraction of the optimiser's, from the epoch, counted with fractions
            from 0.
        factors: Factors of the optimiser's learning rate for ``trunk``, ``branches``, ``heads`` and ``classifiers``;
            1 for what is not named.
    """

    model: PartNet
    loss: nn.Module
    train_set: ImageSet
    sampler: Callable[[int, int], BatchSampler]
    optimizer: Callable[[list[Any]], torch.optim.Optimizer]
    schedule: Callable[[float], float]
    factors: Mapping[str, float] = field(default_factory=dict)


def build_ingredients(
    recipe: Recipe, dataset: ReIDDataset, images: DecodedImages | None = None, *, fused: bool = False
) -> Ingredients:
    """Build the ingredients that a recipe describes, for a data set.

    Random weights are drawn from torch's generator: seed it first.

    Args:
        recipe: The settings.
        dataset: The data set to train on.
        images: Its training images, if they are decoded already.
        fused: Use the optimiser's fused kernel, which CPUs and CUDA have.

    Raises:
        BackboneError: The backbone or its weights cannot be had.
        UntrustedCodeError: The recipe names code that nobody trusts: see :func:`reprism.trust`.
        ValueError: Other settings do not fit the data set or each other.
    """
    model = _build(recipe, dataset.num_train_identities)
    data, loss, settings = recipe.data, recipe.loss, recipe.optimizer
    if data.transform is not None:
        augment = import_object(data.transform, "data.transform")(model.preprocessing)
    else:
        augment = train_transform(
            model.preprocessing, data.flip, data.erasing, pad_crop=data.pad_crop, color_jitter=data.color_jitter
        )
    train_set = ImageSet(
        dataset.train_images, augment, dataset.train_targets, cache=images if images is not None else "none"
    )

    def sampler(rank: int, world_size: int) -> BatchSampler:
        if data.sampler is not None:
            made: BatchSampler = import_object(data.sampler, "data.sampler")(train_set, rank, world_size)
            return made
        return IdentityBatchSampler(
            dataset.train_targets,
            data.ids_per_batch,
            data.images_per_id,
            seed=recipe.seed,
            rank=rank,
            world_size=world_size,
        )

    total: nn.Module = (
        TotalLoss(loss.ce_weight, loss.margin, loss.triplet_weight, loss.label_smoothing)
        if loss.use is None
        else import_object(loss.use, "loss.use")(model)
    )
    return Ingredients(
        model=model,
        loss=AcrossProcesses(total) if loss.gather else total,
        train_set=train_set,
        sampler=sampler,
        optimizer=partial(
            torch.optim.Adam,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            amsgrad=settings.amsgrad,
            fused=fused,
        ),
        schedule=partial(learning_rate_factor, settings),
        factors={str(part): factor for part, factor in settings.factors.items()},
    )


def _build(recipe: Recipe, classes: int) -> PartNet:
    """Build the network, started from timm's weights or from an earlier model, with what is frozen marked so."""
    settings = recipe.model
    earlier = (
        settings.pretrained if isinstance(settings.pretrained, Path) and is_model_file(settings.pretrained) else None
    )
    model = build_model(
        settings.partition,
        settings.backbone,
        num_classes=classes,
        part_dim=settings.part_dim,
        pretrained=settings.pretrained if earlier is None else False,
        size=recipe.data.size,
        pool=import_object(settings.pool, "model.pool")() if is_import_path(settings.pool) else settings.pool,
        head=import_object(settings.head, "model.head") if is_import_path(settings.head) else settings.head,
    )
    if earlier is not None:
        _log.info("started from %s: %s", earlier, start_from(model, earlier))
    frozen: dict[str, list[nn.Module]] = {
        "none": [],
        "trunk": [model.trunk],
        "branches": [model.trunk, model.branches],
    }
    for module in frozen[settings.freeze]:
        module.requires_grad_(False)
    return model


def frozen_modules(model: PartNet) -> list[nn.Module]:
    """Return the trunk and each branch of which no parameter is trained: their batch statistics stay too."""
    return [
        module
        for module in (model.trunk, *model.branches.children())
        if not any(parameter.requires_grad for parameter in module.parameters())
    ]


def build_optimizer(made: Ingredients) -> torch.optim.Optimizer:
    """Build the optimizer of the model's and the loss's parameters, each group at its factor of the learning rate.

    Raises:
        RecipeError: The optimizer holds parameters of something else.
    """
    model, loss = made.model, made.loss
    parameters = [*model.parameters(), *loss.parameters()]
    if made.factors:
        groups = {part: list(getattr(model, part).parameters()) for part in _PARTS_OF_A_MODEL}
        groups["rest"] = [*model.pool.parameters(), *loss.parameters()]
        optimizer = made.optimizer([{"params": some} for some in groups.values() if some])
        factors = [made.factors.get(part, 1.0) for part, some in groups.items() if some]
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] *= factor
    else:
        optimizer = made.optimizer(list(parameters))
    held = {id(each) for group in optimizer.param_groups for each in group["params"]}
    if not held <= set(map(id, parameters)):
        raise RecipeError(
            "the optimizer holds parameters of another model or loss than the run's: make it from the parameters "
            "that it is called with"
        )
    return optimizer


def loss_terms(value: Any) -> dict[str, Tensor]:
    """Return the terms of a loss by name; ``total`` is the one to train by.

    Raises:
        TypeError: It is neither a scalar nor named scalars with ``total``.
    """
    if isinstance(value, Mapping):
        terms = dict(value)
    else:
        terms = value._asdict() if hasattr(value, "_asdict") else {"total": value}
    total = terms.get("total")
    if not isinstance(total, Tensor) or total.numel() != 1:
        got = f"a tensor of shape {tuple(total.shape)}" if isinstance(total, Tensor) else type(value).__name__
        raise TypeError(f"expected a scalar loss, or named scalars with 'total', got {got}")
    return terms


@runtime_checkable
class _Resumable(Protocol):
    start_batch: int


class EpochSampler:
    """A batch sampler that can begin an epoch in its middle, whatever sampler it goes through.

    Args:
        sampler: One with ``start_batch`` begins there itself; of any other the batches before are drawn and dropped.
    """

    def __init__(self, sampler: BatchSampler) -> None:
        self.sampler = sampler
        self.start_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives, if the sampler has epochs."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Any]]:
        # A generator on purpose: a DataLoader with workers calls iter() twice and uses the second one.
        start, self.start_batch = self.start_batch, 0
        if isinstance(self.sampler, _Resumable):
            self.sampler.start_batch = start
            start = 0
        yield from islice(self.sampler, start, None)
