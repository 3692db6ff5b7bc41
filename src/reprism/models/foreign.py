"""A network run by something else than Reprism's modules, with a part network's interface."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reprism.data.transforms import Preprocessing
from reprism.models.network import PartOutput
from reprism.notation import Partition
from reprism.precision import NumberFormat


class ForeignNet(nn.Module):
    """A network that Reprism's modules do not run, with the interface of a :class:`PartNet`.

    Somebody else's network has one part, the whole descriptor. An exported network has its parts.

    Args:
        network: Takes a B×3×H×W float32 batch, normalised as ``preprocessing`` says; returns B×D descriptors. A module
            is put into eval mode.
        preprocessing: Size, mean and deviation of its images.
        partition: Parts of its descriptor, equally wide, side by side (default: one part).
        backbone: Name of the network (default: its class or function).
        original: Fingerprint of the network that this one was exported from, if it was.
        mirrored: The network itself adds the mirrored image's descriptor.

    Attributes:
        descriptor_dim: D, found by describing one black image.

    Raises:
        TypeError: It returns something else than B×D floating-point numbers.
        ValueError: D is no multiple of the number of parts.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing,
        partition: Partition | None = None,
        backbone: str | None = None,
        *,
        original: str | None = None,
        mirrored: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.partition = partition or Partition.parse("p1")
        kind = type(network) if isinstance(network, nn.Module) else network
        self.backbone = backbone or getattr(kind, "__qualname__", type(network).__qualname__)
        self.original, self.mirrored = original, mirrored
        self.num_classes = 0
        tensors = [*self.parameters(), *self.buffers()]
        black = torch.zeros(1, 3, *preprocessing.size, device=tensors[0].device if tensors else None)
        with torch.inference_mode():
            width = self.eval()._rows(black).shape[1]
        self.part_dim, rest = divmod(width, len(self.partition.parts))
        if rest or not width:
            raise ValueError(f"{width} columns cannot be divided equally among the parts of {self.partition}")

    def __repr__(self) -> str:
        return f"ForeignNet({self.backbone}, {self.descriptor_dim:,} columns)"

    @property
    def descriptor_dim(self) -> int:
        """Columns of a descriptor."""
        return self.part_dim * len(self.partition.parts)

    @property
    def device(self) -> torch.device | None:
        """Device that an engine other than PyTorch runs the network on."""
        return getattr(self.network, "device", None)

    @property
    def engine(self) -> str:
        """Name of the program that runs the network."""
        return getattr(self.network, "engine", "torch")

    @property
    def precision(self) -> NumberFormat | None:
        """Number format of a network that has one of its own."""
        return getattr(self.network, "precision", None)

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
        """B×3×H×W, normalised -> the parts' features; no logits."""
        rows = self._rows(images)
        names = [part.name for part in self.partition.parts]
        return PartOutput(self.partition.parts, dict(zip(names, rows.split(self.part_dim, 1), strict=True)), {})

    def _rows(self, images: Tensor) -> Tensor:
        rows = self.network(images)
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != len(images) or not rows.is_floating_point():
            got = f"{tuple(rows.shape)} {rows.dtype}" if isinstance(rows, Tensor) else type(rows).__name__
            raise TypeError(f"expected {len(images)}×D floating-point descriptors from {self.backbone}, got {got}")
        return rows.float()
