"""A network that an engine runs: images in, descriptors out, whatever batch size and numbers its file asks for."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from reprism.models.checkpoint import CheckpointError
from reprism.precision import NumberFormat

Engine = Literal["auto", "torch", "onnxruntime", "openvino"]
"""Programs that run networks; ``auto`` is the fastest that is installed and describes as PyTorch does."""


class UnsuitableError(ValueError):
    """An engine or a precision that does not suit the model or this machine; the message gives what does."""


class Session(Protocol):
    """A network loaded into an engine.

    Attributes:
        engine: The engine's name.
        inputs: What its inputs are called, with their shapes, for messages.
        outputs: Names of its outputs, in their order.
        shape: Batch size, channels, height and width of its input; None for those that are open.
        dtype: Number format of its input.
        precision: Number format that it computes in.
        device: Device that it runs on.
    """

    engine: Engine
    inputs: str
    outputs: tuple[str, ...]
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    precision: NumberFormat
    device: torch.device

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Return the first output for a batch. Threads may call it at the same time."""
        ...

    def run_all(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return every output for a batch, in the order of ``outputs``. Threads may call it at the same time."""
        ...


class EngineNetwork:
    """A session called as a network is: with a B×3×H×W batch, for B×D descriptors.

    The network may fix its batch size: longer batches are cut, and shorter ones filled up. It may have further outputs:
    the first one counts.

    Args:
        session: The loaded network.
        name: Its file, for messages.
        digest: 64 hexadecimal digits that tell it from other networks, if it has any.
        bgr: The network takes the channels in the order blue, green, red.
        precision: Number format of its file, where the session does not know it (default: the session's).

    Attributes:
        engine, device: Of the session.
        size: Height and width that the network fixes; None for those that it leaves open.

    Raises:
        CheckpointError: Its input is no B×3×H×W floating-point numbers.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        digest: str | None = None,
        bgr: bool = False,
        precision: NumberFormat | None = None,
    ) -> None:
        shape = session.shape
        if len(shape) != 4 or shape[1] not in (3, None) or session.dtype not in (np.float32, np.float16):
            raise CheckpointError(f"{name} takes {session.inputs}; expected one input, B×3×H×W floating-point numbers")
        self.session, self.name, self.digest, self.bgr = session, name, digest, bgr
        self.engine, self.precision, self.device = session.engine, precision or session.precision, session.device
        self._batch = shape[0]
        self.size: tuple[int | None, int | None] = (shape[2], shape[3])

    def __repr__(self) -> str:
        return f"EngineNetwork({self.name}, {self.engine}, {self.precision}, {self.device})"

    def __deepcopy__(self, memo: dict[int, Any]) -> EngineNetwork:
        return self  # nothing in it changes, and a session cannot be copied

    def __call__(self, images: Tensor) -> Tensor:
        """Describe a batch.

        Args:
            images: B×3×H×W, normalised.

        Returns:
            B×D float32, on the images' device.

        Raises:
            CheckpointError: The network does not run on them, or returns something else than B×D numbers.
        """
        pixels = images.detach().to("cpu", torch.float32).contiguous().numpy()
        if self.bgr:
            pixels = pixels[:, ::-1]
        pixels = pixels.astype(self.session.dtype, order="C", copy=False)
        size = self._batch or max(1, len(pixels))
        rows = [self._run(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        return torch.from_numpy(np.concatenate(rows)).to(images.device)

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        count = len(pixels)
        if self._batch and count < self._batch:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], self._batch - count, axis=0)])
        try:
            rows = np.asarray(self.session.run(pixels))
        except Exception as error:  # engines raise many kinds, of their own and of Python's
            raise CheckpointError(
                f"{self.name} does not run on a batch of {'×'.join(map(str, pixels.shape))}: {one_line(error)}"
            ) from error
        if rows.ndim < 2 or len(rows) != len(pixels) or rows[0].size != rows.shape[1]:
            raise CheckpointError(
                f"{self.name} returns {'×'.join(map(str, rows.shape))} for {len(pixels)} images; expected B×D, a "
                "descriptor for each: export the layer before the classifier as the first output"
            )
        return rows.reshape(len(rows), -1)[:count].astype(np.float32)


def one_line(error: Exception) -> str:
    """Return an engine's reason for a message of one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
