"""The Residual Attention Network, the attention baseline of the paper's Figure 2.

Wang et al., "Residual Attention Network for Image Classification", CVPR 2017, https://arxiv.org/abs/1704.06904, written
from their text: a pre-activation ResNet (He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016) with an
attention module in each of its first three stages. No weights were published in a layout that timm knows.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

RESIDUAL_ATTENTION56 = "residual_attention56"


class ResidualUnit(nn.Module):
    """A bottleneck with its normalisation and ReLU before each convolution: B×in_channels×H×W → B×channels×H/s×W/s."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        width = channels // 4
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        same = stride == 1 and in_channels == channels
        self.shortcut = None if same else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit's input, projected where its shape changes, and what is added to it."""
        y = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        y = self.conv2(F.relu(self.norm2(y)))
        y = self.conv3(F.relu(self.norm3(y)))
        return shortcut + y


class SoftMask(nn.Module):
    """The mask branch: poolings, interpolations, then a weight in 0…1 for every channel and position.

    The paper's "mixed attention": a sigmoid of each value by itself. One unit (its r) follows each pooling and precedes
    each interpolation; where maps of one size occur on the way down and on the way up, a unit joins them.
    """

    def __init__(self, channels: int, poolings: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.down = _residual_units(channels, poolings)
        self.skips = _residual_units(channels, poolings - 1)
        self.up = _residual_units(channels, poolings)
        self.weigh = nn.Sequential(*_conv1x1(channels), *_conv1x1(channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """B×C×H×W, of any height and width → weights of the same shape."""
        sizes, passed = [x.shape[2:]], []
        for unit in self.down:
            x = unit(self.pool(x))
            sizes.append(x.shape[2:])
            passed.append(x)
        # The lowest map is not joined with itself.
        for index, unit in reversed(list(enumerate(self.up))):
            if index < len(self.skips):
                x = x + self.skips[index](passed[index])
            x = F.interpolate(unit(x), size=sizes[index], mode="bilinear", align_corners=False)
        weights: Tensor = self.weigh(x)
        return weights


class AttentionModule(nn.Module):
    """Attention residual learning, H = (1 + M) · F, B×C×H×W → the same shape (the paper's equation 3).

    Attributes:
        before, after: A unit each, on both sides of the two branches (its p).
        trunk: F, two units (its t).
        mask: M.
    """

    def __init__(self, channels: int, poolings: int) -> None:
        super().__init__()
        self.before = ResidualUnit(channels, channels)
        self.trunk = nn.Sequential(*_residual_units(channels, 2))
        self.mask = SoftMask(channels, poolings)
        self.after = ResidualUnit(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the trunk's features, those that the mask chooses up to twice as large."""
        x = self.before(x)
        attended: Tensor = self.after((1 + self.mask(x)) * self.trunk(x))
        return attended


class ResidualAttentionNet(nn.Module):
    """Attention-56, with the attribute names of timm's ResNet.

    An image of 224×224 meets the masks at 56×56, 28×28 and 14×14; with 3, 2 and 1 poolings each sees it whole at 7×7.

    Args:
        num_classes: Classes of the classifier; 0: no classifier, and the output is the pooled map.
    """

    pretrained_cfg: ClassVar[dict[str, Any]] = {  # what timm's networks have
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "classifier": "fc",
    }

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(ResidualUnit(64, 256), AttentionModule(256, poolings=3))
        self.layer2 = nn.Sequential(ResidualUnit(256, 512, stride=2), AttentionModule(512, poolings=2))
        self.layer3 = nn.Sequential(ResidualUnit(512, 1024, stride=2), AttentionModule(1024, poolings=1))
        self.layer4 = nn.Sequential(ResidualUnit(1024, 2048, stride=2), *_residual_units(2048, 2))
        self.norm = nn.BatchNorm2d(2048)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(2048, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, images: Tensor) -> Tensor:
        """B×3×H×W → B×2048×H/32×W/32."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        features: Tensor = self.act(self.norm(x))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """B×3×H×W → B×num_classes."""
        scores: Tensor = self.fc(self.forward_features(images).mean((2, 3)))
        return scores


def _residual_units(channels: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualUnit(channels, channels) for _ in range(count))


def _conv1x1(channels: int) -> tuple[nn.Module, ...]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1, bias=False)
