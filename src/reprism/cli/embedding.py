"""Share among commands that embed: their options, and the embedder that these make."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from reprism.data.video import VideoSettings

if TYPE_CHECKING:
    from reprism.embedding import Embedder

# Options that other commands have as well.
Workers = Annotated[int, tyro.conf.arg(help="Processes that decode images while the network computes.")]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    tyro.conf.arg(help="Number format of the network; auto takes the fastest that the hardware has."),
]
Device = Annotated[str | None, tyro.conf.arg(help="Device, such as cuda or cpu (default: a GPU if there is one).")]


@dataclass(frozen=True)
class EmbeddingSettings:
    """Settings by which pictures and tracklets become descriptors."""

    flip: bool = True
    """Add the mirrored image's descriptor, as the field's test protocol does (twice the work)."""
    batch_size: int = 64
    """Images per batch."""
    workers: Workers = 1
    precision: Precision = "auto"
    device: Device = None
    video: VideoSettings = field(default_factory=VideoSettings)
    """Frames of a tracklet, and how their descriptors become one."""


EmbeddingOptions = Annotated[EmbeddingSettings, tyro.conf.arg(name="")]
"""These settings as a field of a command's arguments: their flags stand beside the command's own, without a prefix."""


def load_embedder(checkpoint: Path, options: EmbeddingSettings) -> "Embedder":
    """Make the embedder of a model file.

    Raises:
        CheckpointError: The file cannot be loaded.
    """
    from reprism.embedding import Embedder

    return Embedder(checkpoint, options.batch_size, options.flip, options.precision, options.device)
