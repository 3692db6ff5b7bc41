"""The part network: one trunk, a branch per ``p``, a head and a classifier per part."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reprism.data.transforms import Preprocessing
from reprism.models.backbone import OUTPUT_STRIDE, cut_backbone
from reprism.models.parts import HEADS, POOLS, MaxPool, part_channels, part_classifier, pool_parts
from reprism.notation import Part, Partition


@dataclass(frozen=True, slots=True)
class PartOutput:
    """Output of a part network for a batch of B images.

    Attributes:
        parts: The partition's parts, in the order of the descriptor's columns.
        features: B×part_dim float32 by part name, not L2-normalised: the descriptor's columns and the classifiers'
            input.
        logits: B×classes float32 by part name; empty for a network without classifiers.
        compared: B×part_dim float32 by part name: metric losses compare these. Heads without a feature of this kind
            give the one in ``features``.
    """

    parts: tuple[Part, ...]
    features: dict[str, Tensor]
    logits: dict[str, Tensor]
    compared: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compared", {**self.features, **self.compared})

    @property
    def descriptor(self) -> Tensor:
        """B×(part_dim·parts): the features side by side, in the order of ``parts``, not normalised."""
        return torch.cat([self.features[part.name] for part in self.parts], dim=1)


class PartNet(nn.Module):
    """A network of spatial and channel parts; made by :func:`build_model` and ``reprism.load``, or of built modules.

    Args:
        partition: Parts that the branches' maps are cut into.
        trunk: Module from images B×3×H×W to a map, shared by all branches.
        branches: Modules by branch name, from the trunk's map to a map B×C×h×w.
        heads: Modules by part name, from the part's pooled vector to its feature; see
            :data:`reprism.models.parts.HEADS`.
        classifiers: Modules by part name, from the feature to logits; none for a network that only describes.
        pool: Pools stripes from a map; see :data:`reprism.models.parts.POOLS`.
        part_dim: Width of every part's feature.
        preprocessing: Size and normalisation of the network's input; travels with the weights.
        backbone: Name of the network that trunk and branches were cut from.
        kinds: Names of pooling and head, where they are not the paper's; written to files.

    Attributes:
        num_classes: Width of every classifier; 0 for a network without.
    """

    def __init__(
        self,
        partition: Partition,
        trunk: nn.Module,
        branches: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        classifiers: Mapping[str, nn.Linear],
        *,
        pool: nn.Module | None = None,
        part_dim: int,
        preprocessing: Preprocessing,
        backbone: str,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        for what, given, wanted in (
            ("branches", branches, [branch.name for branch in partition.branches]),
            ("heads", heads, [part.name for part in partition.parts]),
            ("classifiers", classifiers, [part.name for part in partition.parts] if classifiers else []),
        ):
            if list(given) != wanted:
                raise ValueError(
                    f"expected {what} {', '.join(wanted)} for {partition}, got {', '.join(given) or 'none'}"
                )
        self.partition = partition
        self.backbone = backbone
        self.part_dim = part_dim
        self.preprocessing = preprocessing
        self.kinds = dict(kinds or {})
        self.num_classes = next(iter(classifiers.values())).out_features if classifiers else 0
        self.trunk = trunk
        self.branches = nn.ModuleDict(branches)
        self.heads = nn.ModuleDict(heads)
        self.classifiers = nn.ModuleDict(classifiers)
        self.pool = pool or MaxPool()

    def __repr__(self) -> str:
        """Name the network; ``print(model.trunk)``, ``.branches`` and ``.heads`` show the layers."""
        height, width = self.preprocessing.size
        return (
            f"PartNet({str(self.partition)!r} on {self.backbone}, {height}×{width} images, "
            f"{self.descriptor_dim:,} columns, {self.num_classes:,} classes)"
        )

    @property
    def descriptor_dim(self) -> int:
        """Columns of the descriptor: part_dim times the number of parts."""
        return self.part_dim * len(self.partition.parts)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps that parts are pooled from, B×C×H/16×W/16 by branch name."""
        shared = self.trunk(images)
        return {name: branch(shared) for name, branch in self.branches.items()}

    def forward(self, images: Tensor) -> PartOutput:
        """Features and logits of B×3×H×W normalised images.

        Raises:
            ValueError: A batch of one image in training mode, which batch normalisation cannot normalise.
        """
        if self.training and len(images) < 2:
            raise ValueError(
                "a batch of one image cannot be trained on: batch normalisation has nothing to normalise over. "
                "Use a larger batch, or model.eval() to compute descriptors."
            )
        maps = self.maps(images)
        precision = next((each.dtype for each in self.heads.parameters()), torch.float32)
        features: dict[str, Tensor] = {}
        compared: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        # Heads are less than a thousandth of the work, and the losses look at small differences: full precision.
        with torch.autocast(images.device.type, enabled=False):
            for branch in self.partition.branches:
                pooled = pool_parts(maps[branch.name], branch.parts, self.pool)
                for name, vector in pooled.items():
                    feature = self.heads[name](vector.to(precision))
                    if isinstance(feature, tuple):
                        feature, compared[name] = feature
                    features[name] = feature
                    if self.num_classes:
                        logits[name] = self.classifiers[name](features[name])
        return PartOutput(self.partition.parts, features, logits, compared)


def build_model(
    partition: Partition | str,
    backbone: str = "resnet50",
    num_classes: int = 0,
    part_dim: int = 256,
    pretrained: bool | str | Path = False,
    *,
    size: tuple[int, int] = (384, 192),
    pool: str | nn.Module = "max",
    head: str | Callable[[int, int], nn.Module] = "paper",
) -> PartNet:
    """Build a part network (paper section 3.1) on a backbone.

    Args:
        partition: Such as ``p1+p2(s2c2)+p3(s3c3)``, as text or parsed.
        backbone: A timm model name, or ``residual_attention56``. ``resnet50`` alone means ``resnet50.tv_in1k``, the
            weights of the recipes (:data:`reprism.models.backbone.PREFERRED_TAGS` lists such names).
        num_classes: Identities to classify in training; 0 builds no classifiers.
        part_dim: Width of every part's feature.
        pretrained: ``False``, ``True`` for timm's download, or a file of weights in timm's layout.
        size: Height and width in pixels that images are resized to; goes into the model's preprocessing.
        pool: Pooling of the maps: ``max`` (the paper's), ``avg``, ``gem``, or a module of your own.
        head: Head of every part: ``paper``, ``bnneck``, or a function of your own that makes one from the widths of its
            input and of its feature.

    Raises:
        NotationError: The partition does not follow the grammar.
        BackboneError: The backbone is unknown, cannot be cut, or its weights cannot be had.
        ValueError: A number is out of range, a name is unknown, or a branch is cut into more parts than its map has
            rows or channels.
    """
    if isinstance(partition, str):
        partition = Partition.parse(partition)
    if part_dim < 1 or num_classes < 0:
        raise ValueError(f"part_dim must be at least 1 and num_classes at least 0, not {part_dim} and {num_classes}")
    cut = cut_backbone(backbone, pretrained)
    rows = -(-size[0] // OUTPUT_STRIDE)
    for part in partition.parts:
        limit, what = (rows, "rows") if part.kind == "stripe" else (cut.channels, "channels")
        if part.count > limit:
            raise ValueError(
                f"{partition} cuts {part.branch} into {part.count} {part.kind} parts, but the map of {backbone} at "
                f"{size[0]}×{size[1]} has {limit} {what}"
            )
    make_head = _named(head, HEADS, "head")
    pooling = _named(pool, POOLS, "pool")
    heads = {part.name: make_head(part_channels(part, cut.channels), part_dim) for part in partition.parts}
    classifiers = {
        name: part_classifier(part_dim, num_classes, getattr(each, "classifier_bias", True))
        for name, each in heads.items()
        if num_classes
    }
    kinds = {"pool": kind_of(pool), "head": kind_of(head)}
    return PartNet(
        partition,
        cut.trunk,
        # Copies of one branch: all start from the same weights.
        {branch.name: copy.deepcopy(cut.branch) for branch in partition.branches},
        heads,
        classifiers,
        pool=pooling() if isinstance(pool, str) else pooling,
        part_dim=part_dim,
        preprocessing=Preprocessing(size=size, mean=cut.mean, std=cut.std),
        backbone=backbone,
        kinds={what: kind for what, kind in kinds.items() if kind != PAPERS[what]},
    )


PAPERS = {"pool": "max", "head": "paper"}
"""The paper's pooling and head, which files need not name."""


def _named(given: Any, known: Mapping[str, Any], what: str) -> Any:
    """Return what a name stands for; what is no name, as it is."""
    if isinstance(given, str) and given not in known:
        raise ValueError(f"expected {what} {', '.join(known)} or an object of your own, got {given!r}")
    return known[given] if isinstance(given, str) else given


def kind_of(given: Any) -> str:
    """Return the name that a pooling or head has in files: of an object of somebody's own, where its code lies."""
    if isinstance(given, str):
        return given
    named = type(given) if isinstance(given, nn.Module) else given
    return f"{named.__module__}:{getattr(named, '__qualname__', type(given).__qualname__)}"
