"""The part network: one trunk, a branch per ``p``, a head and a classifier per part."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from reprism.data.transforms import Preprocessing
from reprism.models.backbone import OUTPUT_STRIDE, CutBackbone, cut_backbone
from reprism.models.parts import PartHead, part_channels, part_classifier, pool_parts
from reprism.notation import Part, Partition


@dataclass(frozen=True, slots=True)
class PartOutput:
    """What a part network says of a batch of B images.

    Attributes:
        parts: the partition's parts, in the order of the descriptor's columns.
        features: by part name, B×part_dim float32, after batch normalisation, not L2-normalised.
        logits: by part name, B×classes float32; empty for a network without classifiers.
    """

    parts: tuple[Part, ...]
    features: dict[str, Tensor]
    logits: dict[str, Tensor]

    @property
    def descriptor(self) -> Tensor:
        """B×(part_dim·parts): the features side by side, in the order of ``parts``, not normalised."""
        return torch.cat([self.features[part.name] for part in self.parts], dim=1)


class PartNet(nn.Module):
    """A network of spatial and channel parts; made by :func:`build_model` and ``reprism.load``.

    Attributes:
        partition: what the branches' maps are cut into.
        backbone: name of the network that was cut.
        num_classes: width of every classifier; 0 for a network without.
        part_dim: width of every part's feature.
        preprocessing: how images are made into its input; travels with the weights.
    """

    def __init__(
        self,
        partition: Partition,
        backbone: str,
        cut: CutBackbone,
        num_classes: int,
        part_dim: int,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.partition = partition
        self.backbone = backbone
        self.num_classes = num_classes
        self.part_dim = part_dim
        self.preprocessing = preprocessing
        self.trunk = cut.trunk
        self.branches = nn.ModuleDict(
            {branch.name: copy.deepcopy(cut.branch) for branch in partition.branches},
        )
        self.heads = nn.ModuleDict(
            {part.name: PartHead(part_channels(part, cut.channels), part_dim) for part in partition.parts}
        )
        self.classifiers = nn.ModuleDict(
            {part.name: part_classifier(part_dim, num_classes) for part in partition.parts} if num_classes else {}
        )

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
        """By branch name, the map B×C×H/16×W/16 that its parts are pooled from."""
        shared = self.trunk(images)
        return {name: branch(shared) for name, branch in self.branches.items()}

    def forward(self, images: Tensor) -> PartOutput:
        """Features and logits of B×3×H×W normalised images.

        Raises:
            ValueError: a batch of one image in training mode, which batch normalisation cannot normalise.
        """
        if self.training and len(images) < 2:
            raise ValueError(
                "a batch of one image cannot be trained on: batch normalisation has nothing to normalise over. "
                "Use a larger batch, or model.eval() to compute descriptors."
            )
        maps = self.maps(images)
        precision = next(self.heads.parameters()).dtype
        features: dict[str, Tensor] = {}
        logits: dict[str, Tensor] = {}
        # Heads are less than a thousandth of the work, and the losses look at small differences: full precision.
        with torch.autocast(images.device.type, enabled=False):
            for branch in self.partition.branches:
                pooled = pool_parts(maps[branch.name], branch.parts)
                for name, vector in pooled.items():
                    head = self.heads[name]
                    features[name] = head(vector.to(precision))
                    if self.num_classes:
                        logits[name] = self.classifiers[name](features[name])
        return PartOutput(self.partition.parts, features, logits)


def build_model(
    partition: Partition | str,
    backbone: str = "resnet50",
    num_classes: int = 0,
    part_dim: int = 256,
    pretrained: bool | str | Path = False,
    *,
    size: tuple[int, int] = (384, 192),
) -> PartNet:
    """Build a part network (paper section 3.1) on a backbone.

    Args:
        partition: such as ``p1+p2(s2c2)+p3(s3c3)``, as text or parsed.
        backbone: a timm model name, or ``residual_attention56``. ``resnet50`` alone means ``resnet50.tv_in1k``, the
            weights of the recipes (:data:`reprism.models.backbone.PREFERRED_TAGS` lists such names).
        num_classes: identities to classify in training; 0 builds no classifiers.
        part_dim: width of every part's feature.
        pretrained: ``False``, ``True`` for timm's download, or a file of weights in timm's layout.
        size: height and width in pixels that images are resized to; goes into the model's preprocessing.

    Raises:
        NotationError: the partition does not follow the grammar.
        BackboneError: the backbone is unknown, cannot be cut, or its weights cannot be had.
        ValueError: a number is out of range, or a branch is cut into more parts than its map has rows or channels.
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
    preprocessing = Preprocessing(size=size, mean=cut.mean, std=cut.std)
    return PartNet(partition, backbone, cut, num_classes, part_dim, preprocessing)
