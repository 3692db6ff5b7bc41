"""Parts: pooled from a branch's map, each reduced by a head of its own (paper section 3.1 and Figure 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprism.notation import Part


def group_sizes(channels: int, count: int) -> list[int]:
    """Return the sizes of ``count`` channel groups, as even as possible, larger first: 2048 in 3 is 683, 683, 682."""
    size, larger = divmod(channels, count)
    return [size + 1] * larger + [size] * (count - larger)


def part_channels(part: Part, channels: int) -> int:
    """Return the width of a part's pooled vector when its branch's map has ``channels`` channels."""
    return group_sizes(channels, part.count)[part.index] if part.kind == "channel" else channels


class MaxPool(nn.Module):
    """Maximum over each of some horizontal stripes (the paper's pooling)."""

    def forward(self, feature_map: Tensor, rows: int) -> Tensor:
        """B×C×H×W → B×C×rows: of rows ⌊i·H/k⌋ … ⌈(i+1)·H/k⌉ of the map, top to bottom."""
        return F.adaptive_max_pool2d(feature_map, (rows, 1)).squeeze(-1)


class AveragePool(nn.Module):
    """Mean over each of some horizontal stripes, in float32."""

    def forward(self, feature_map: Tensor, rows: int) -> Tensor:
        """B×C×H×W → B×C×rows."""
        return F.adaptive_avg_pool2d(_full_precision(feature_map), (rows, 1)).squeeze(-1)


class GeMPool(nn.Module):
    """Generalised mean over each of some horizontal stripes, in float32 (https://arxiv.org/abs/1711.02512, equation 3).

    Its exponent is learned: 1 is the mean, a large one the maximum. Values below ``eps`` count as ``eps``.

    Args:
        exponent: Initial exponent.
        eps: Least value.
    """

    def __init__(self, exponent: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(exponent))
        self.eps = eps

    def forward(self, feature_map: Tensor, rows: int) -> Tensor:
        """B×C×H×W → B×C×rows."""
        powers = _full_precision(feature_map).clamp(min=self.eps).pow(self.exponent)
        return F.adaptive_avg_pool2d(powers, (rows, 1)).squeeze(-1).pow(1 / self.exponent)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


POOLS: Mapping[str, Callable[[], nn.Module]] = {"max": MaxPool, "avg": AveragePool, "gem": GeMPool}
"""Poolings by name. One is called with a map B×C×H×W and a number of rows, and returns B×C×rows."""


def pool_parts(feature_map: Tensor, parts: Iterable[Part], pool: nn.Module | None = None) -> dict[str, Tensor]:
    """Pool the parts of one branch from its map.

    Args:
        feature_map: B×C×H×W.
        parts: Parts of this branch.
        pool: One of :data:`POOLS`, or one of your own (default: the maximum).

    Returns:
        By part name: B×C for the global part (the whole map) and for stripes, B×C/k for channel groups (slices of the
        global part's vector).
    """
    pool = pool or MaxPool()
    whole = pool(feature_map, 1)[:, :, 0]
    stripes: dict[int, Tensor] = {}
    groups: dict[int, tuple[Tensor, ...]] = {}
    pooled = {}
    for part in parts:
        if part.kind == "stripe":
            if part.count not in stripes:
                stripes[part.count] = pool(feature_map, part.count)
            pooled[part.name] = stripes[part.count][:, :, part.index]
        elif part.kind == "channel":
            if part.count not in groups:
                groups[part.count] = whole.split(group_sizes(int(whole.shape[1]), part.count), dim=1)
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


class BNNeck(nn.Module):
    """A part's reduction with batch normalisation as a neck (Luo et al. 2019, https://arxiv.org/abs/1903.07071).

    Metric losses compare what comes before the normalisation, the classifier and the descriptor what comes after. The
    classifier has no bias, nor has the normalisation one that is learned.
    """

    classifier_bias = False

    def __init__(self, in_dim: int, part_dim: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(in_dim, part_dim, bias=False)
        self.norm = nn.BatchNorm1d(part_dim)
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_in")
        self.norm.bias.requires_grad_(False)

    def forward(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """B×in_dim → B×part_dim after the normalisation, and B×part_dim before it."""
        before = self.reduce(vector)
        return self.norm(before), before


HEADS: Mapping[str, Callable[[int, int], nn.Module]] = {"paper": PartHead, "bnneck": BNNeck}
"""Heads by name, made from the widths of a part's vector and of its feature.

One takes B×in_dim and returns the feature, B×part_dim; or two: the feature that is classified and described by, and the
one that metric losses compare. ``classifier_bias = False`` as an attribute leaves out the classifier's bias.
"""


def part_classifier(part_dim: int, num_classes: int, bias: bool = True) -> nn.Linear:
    """Return a part's own linear classifier, B×part_dim → B×num_classes."""
    classifier = nn.Linear(part_dim, num_classes, bias=bias)
    nn.init.kaiming_normal_(classifier.weight, mode="fan_out")
    if bias:
        nn.init.zeros_(classifier.bias)
    return classifier
