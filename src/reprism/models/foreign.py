"""Somebody else's network as a part network of one part, so that it can be evaluated, indexed and compared like one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reprism.data.transforms import Preprocessing
from reprism.models.network import PartOutput
from reprism.notation import Partition


class ForeignNet(nn.Module):
    """A network that Reprism did not build, with the interface of a :class:`PartNet` of the partition ``p1``.

    Args:
        network: Takes a B×3×H×W float32 batch, normalised as ``preprocessing`` says; returns B×D descriptors. A module
            is put into eval mode.
        preprocessing: Size, mean and deviation of its images.

    Attributes:
        descriptor_dim: D, found by describing one black image.

    Raises:
        TypeError: It returns something else than B×D floating-point numbers.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.partition = Partition.parse("p1")
        kind = type(network) if isinstance(network, nn.Module) else network
        self.backbone = getattr(kind, "__qualname__", type(network).__qualname__)
        self.num_classes = 0
        tensors = [*self.parameters(), *self.buffers()]
        black = torch.zeros(1, 3, *preprocessing.size, device=tensors[0].device if tensors else None)
        with torch.inference_mode():
            self.part_dim = self.eval()(black).descriptor.shape[1]

    def __repr__(self) -> str:
        return f"ForeignNet({self.backbone}, {self.descriptor_dim:,} columns)"

    @property
    def descriptor_dim(self) -> int:
        """Columns of a descriptor."""
        return self.part_dim

    @property
    def digest(self) -> str | None:
        """Digest that a network without weights in PyTorch is told from others by, if it has one."""
        return getattr(self.network, "digest", None)

    @property
    def has_identity(self) -> bool:
        """True if there are weights, or a digest, to tell the network from others by."""
        weights = isinstance(self.network, nn.Module) and len(self.network.state_dict()) > 0
        return weights or self.digest is not None

    def forward(self, images: Tensor) -> PartOutput:
        """B×3×H×W, normalised -> the one part's features; no logits."""
        rows = self.network(images)
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(images) or not rows.is_floating_point():
            got = f"{tuple(rows.shape)} {rows.dtype}" if isinstance(rows, Tensor) else type(rows).__name__
            raise TypeError(f"expected {len(images)}×D floating-point descriptors from {self.backbone}, got {got}")
        return PartOutput(self.partition.parts, {"p1": rows.float()}, {})
