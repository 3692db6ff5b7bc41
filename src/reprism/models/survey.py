"""Measure the cost of networks: parameters, floating-point operations, descriptor width, speed here."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from reprism.models.network import PartNet, build_model
from reprism.notation import Partition

BACKBONES = (
    "resnet50",
    "resnext50_32x4d",
    "seresnet50",
    "vgg16_bn",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "tf_efficientnet_lite0",
    "efficientnetv2_rw_t",
    "convnext_tiny",
    "regnety_032",
)
"""Ten timm networks of different families."""


@dataclass(frozen=True)
class Cost:
    """Cost of a network.

    Attributes:
        backbone: Name of the backbone.
        parameters: Number of parameters without classifiers.
        gflop: 10⁹ floating-point operations (a multiplication and an addition are two) of one image, forward.
        descriptor_dim: Columns of the descriptor.
        images_per_second: Forward, median of the batches timed; the input's mirror image would be a second one.
    """

    backbone: str
    parameters: int
    gflop: float
    descriptor_dim: int
    images_per_second: float


def measure(
    backbone: str,
    partition: Partition | str,
    size: tuple[int, int] = (384, 192),
    *,
    batch: int = 8,
    batches: int = 3,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Cost:
    """Build a part network on a backbone, with random weights, and measure it.

    Args:
        backbone: A timm model name, or ``residual_attention56``.
        partition: Such as ``p1+p2(s2c2)+p3(s3c3)``.
        size: Height and width of the images.
        batch: Images at a time.
        batches: Number of timed batches, after one that is not timed.
        dtype: float32, or the half type of autocast.
        device: Where.

    Raises:
        BackboneError: The backbone is unknown or cannot be cut.
    """
    model = build_model(partition, backbone, size=size).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    flops = _flops(model, images[:1])
    seconds = []
    with torch.inference_mode(), torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        for _ in range(batches + 1):
            started = time.perf_counter()
            # Read back: on a GPU the call alone returns before the work is done.
            model(images).descriptor.sum().item()
            seconds.append(time.perf_counter() - started)
    return Cost(
        backbone,
        sum(parameter.numel() for parameter in model.parameters()),
        flops / 1e9,
        model.descriptor_dim,
        batch / statistics.median(seconds[1:]),
    )


def _flops(model: PartNet, images: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    return int(counter.get_total_flops())
