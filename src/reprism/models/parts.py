"""Parts: pooled from a branch's map, each reduced by a head of its own (paper section 3.1 and Figure 3)."""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from reprism.notation import Part


def group_sizes(channels: int, count: int) -> list[int]:
    """Sizes of ``count`` channel groups, as even as possible, larger first: 2048 in 3 is 683, 683, 682."""
    size, larger = divmod(channels, count)
    return [size + 1] * larger + [size] * (count - larger)


def part_channels(part: Part, channels: int) -> int:
    """Width of a part's pooled vector when its branch's map has ``channels`` channels."""
    return group_sizes(channels, part.count)[part.index] if part.kind == "channel" else channels


def pool_parts(feature_map: Tensor, parts: Iterable[Part]) -> dict[str, Tensor]:
    """Max-pool the parts of one branch from its map.

    Args:
        feature_map: B×C×H×W.
        parts: parts of this branch.

    Returns:
        By part name: B×C for the global part (maximum over the map) and for stripes (maximum over rows
        ⌊i·H/k⌋ … ⌈(i+1)·H/k⌉, top to bottom), B×C/k for channel groups (slices of the global maximum).
    """
    whole = F.adaptive_max_pool2d(feature_map, 1).flatten(1)
    stripes: dict[int, Tensor] = {}
    groups: dict[int, tuple[Tensor, ...]] = {}
    pooled = {}
    for part in parts:
        if part.kind == "stripe":
            if part.count not in stripes:
                stripes[part.count] = F.adaptive_max_pool2d(feature_map, (part.count, 1)).squeeze(-1)
            pooled[part.name] = stripes[part.count][:, :, part.index]
        elif part.kind == "channel":
            if part.count not in groups:
                groups[part.count] = whole.split(group_sizes(whole.shape[1], part.count), dim=1)
            pooled[part.name] = groups[part.count][part.index]
        else:
            pooled[part.name] = whole
    return pooled


class PartHead(nn.Module):
    """A part's own reduction: 1×1 convolution without bias, then batch normalisation, and no ReLU.

    On a vector a 1×1 convolution is a linear map, and is written so. Input B×in_dim, output B×part_dim.
    """

    def __init__(self, in_dim: int, part_dim: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(in_dim, part_dim, bias=False)
        self.norm = nn.BatchNorm1d(part_dim)
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_in")
        nn.init.normal_(self.norm.weight, mean=1.0, std=0.02)
        nn.init.zeros_(self.norm.bias)

    def forward(self, vector: Tensor) -> Tensor:
        """B×in_dim → B×part_dim."""
        return self.norm(self.reduce(vector))


def part_classifier(part_dim: int, num_classes: int) -> nn.Linear:
    """A part's own linear classifier with bias, B×part_dim → B×num_classes."""
    classifier = nn.Linear(part_dim, num_classes)
    nn.init.kaiming_normal_(classifier.weight, mode="fan_out")
    nn.init.zeros_(classifier.bias)
    return classifier
