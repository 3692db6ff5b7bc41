"""Share among commands that embed: their options, and the embedder that these make."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from reprism.data.video import VideoSettings

if TYPE_CHECKING:
    from reprism.embedding import Embedder

_FEW = 8  # pictures that PyTorch describes in less time than a conversion takes

# Options that other commands have as well.
Workers = Annotated[int, tyro.conf.arg(help="Processes that decode images while the network computes.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    tyro.conf.arg(help="Number format of the network; auto takes the fastest that the hardware has."),
]
Device = Annotated[str | None, tyro.conf.arg(help="Device, such as cuda or cpu (default: a GPU if there is one).")]


Engine = Annotated[
    Literal["auto", "torch", "onnxruntime", "openvino"],
    tyro.conf.arg(
        help="Program that runs the network; auto takes the fastest that is installed and describes as PyTorch does."
    ),
]


@dataclass(frozen=True)
class NetworkSettings:
    """Engine, number format, device and preprocessing of a network."""

    engine: Engine = "auto"
    precision: Precision = "auto"
    device: Device = None
    preprocess: str | None = None
    """Preprocessing of an ONNX file: a YAML file, or imagenet for ImageNet's mean and deviation (default: the YAML file
    beside it)."""


NetworkOptions = Annotated[NetworkSettings, tyro.conf.arg(name="")]
"""These settings as a field of a command's arguments, without a prefix."""


@dataclass(frozen=True)
class EmbeddingSettings:
    """Settings by which pictures and tracklets become descriptors."""

    flip: bool = True
    """Add the mirrored image's descriptor, as the field's test protocol does (twice the work)."""
    batch_size: int = 64
    """Images per batch."""
    workers: Workers = 1
    network: NetworkOptions = field(default_factory=NetworkSettings)
    video: VideoSettings = field(default_factory=VideoSettings)
    """Frames of a tracklet, and how their descriptors become one."""

    def embedder_of(self, model: Path) -> "Embedder":
        """Make the embedder of a model with these settings (:func:`load_embedder`)."""
        return load_embedder(model, self.network, batch_size=self.batch_size, flip=self.flip)


EmbeddingOptions = Annotated[EmbeddingSettings, tyro.conf.arg(name="")]
"""These settings as a field of a command's arguments: their flags stand beside the command's own, without a prefix."""


def load_embedder(
    model: Path, network: NetworkSettings, *, batch_size: int = 64, flip: bool = True, pictures: int | None = None
) -> "Embedder":
    """Make the embedder of a model, and print what runs it.

    Args:
        model: A file or a folder, as the user gave it.
        network: What is to run it.
        batch_size, flip: As for :class:`reprism.Embedder`.
        pictures: Number of pictures to describe, where it is known: for a few, a network is not converted.

    Raises:
        CheckpointError: The model cannot be loaded.
        ValueError: The settings do not suit it.
    """
    from reprism.embedding import Embedder
    from reprism.engines.onnx import load_onnx, read_preprocessing
    from reprism.precision import usable_device

    engine, device = network.engine, usable_device(network.device)
    is_onnx = model.suffix.lower() == ".onnx"
    if network.preprocess is not None and not is_onnx:
        raise ValueError(f"--preprocess is for ONNX files; {model} has its own preprocessing")
    if engine == "auto" and pictures is not None and pictures <= _FEW and model.is_file() and not is_onnx:
        engine = "torch"
    given: Any = model
    if network.preprocess is not None:
        values = read_preprocessing(network.preprocess)
        given = load_onnx(model, **values, device=device, precision=network.precision, engine=engine)
    embedder = Embedder(given, batch_size, flip, network.precision, device, engine=engine)
    print(f"{model}: {embedder.precision} by {embedder.engine} on {embedder.device}", file=sys.stderr)
    return embedder
