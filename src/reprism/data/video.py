"""Choose the frames of a tracklet, and how their descriptors are joined (paper section 4.2, Table 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from reprism.deprecation import renamed_fields

Sampling = Literal["even", "random", "all"]


@renamed_fields(runs="segments")
@dataclass(frozen=True)
class VideoSettings:
    """Settings by which a tracklet becomes one descriptor.

    Attributes:
        frames: Number of frames to use of a tracklet.
        sampling: Choice of these frames: ``even``, ``random`` (in order) or ``all``.
        segments: Number of segments of consecutive frames, each with a descriptor of its own. 3 is the paper's temporal
            partition pooling, 1 is plain temporal pooling.
        pooling: Join the descriptors of a segment's frames by their ``mean``, or by their ``max`` column by column.
        seed: Random seed of ``random``.

    Raises:
        ValueError: A number is out of range, or a name unknown.
    """

    frames: int = 15
    sampling: Sampling = "even"
    segments: int = 3
    pooling: Literal["mean", "max"] = "mean"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("sampling", get_args(Sampling)), ("pooling", ("mean", "max"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected {' or '.join(allowed)}")
        if not 1 <= self.segments <= self.frames:
            raise ValueError(
                f"segments={self.segments} and frames={self.frames}: expected 1 or more segments with a frame each"
            )
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: it must not be negative")


def choose_frames(
    length: int, frames: int = 15, sampling: Sampling = "even", rng: np.random.Generator | None = None
) -> list[int]:
    """Choose the frames of a tracklet to describe, in order.

    Args:
        length: Number of frames that it has.
        frames: Number of frames, 15 in the paper. A tracklet that has fewer gives all, and its last one again and
            again, whatever the sampling.
        sampling: ``even``: the first of each of ``frames`` stretches of equal length; ``random``: so many different
            ones by chance, in order; ``all``: every frame, ``frames`` being the least.
        rng: For ``random``.

    Returns:
        Indices 0 … length-1, ascending: ``frames`` of them, or more with ``all``.

    Raises:
        ValueError: A number below 1, an unknown sampling, or ``random`` without a generator.
    """
    if length < 1 or frames < 1:
        raise ValueError(f"a tracklet of {length} frames, {frames} of them wanted: both must be 1 or more")
    if sampling not in get_args(Sampling):
        raise ValueError(f"sampling={sampling!r}: expected {', '.join(get_args(Sampling))}")
    if length <= frames or sampling == "all":
        return [*range(length), *[length - 1] * (frames - length)]
    if sampling == "even":
        return [index * length // frames for index in range(frames)]
    if rng is None:
        raise ValueError("random sampling of frames needs a generator: rng")
    return sorted(rng.choice(length, frames, replace=False).tolist())
