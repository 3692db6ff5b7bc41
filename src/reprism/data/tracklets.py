"""The frames of tracklets as a torch data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from reprism.data.images import read_image
from reprism.data.records import Tracklet
from reprism.data.video import VideoSettings, choose_frames


class TrackletSet(Dataset[tuple[torch.Tensor, int]]):
    """Tracklets as a torch data set: item ``i`` is ``(frames, i)``, frames T×3×height×width, the chosen ones.

    Which frames are drawn at random depends on ``video.seed`` and ``i`` alone. A frame that is shown twice is decoded
    once.

    Args:
        samples: The tracklets.
        transform: Function from uint8 3×H×W to tensors of one size, 3×height×width.
        video: Choice of frames.

    Raises:
        ImageError: A frame cannot be read, when its tracklet is asked for; names it.
    """

    def __init__(
        self,
        samples: Sequence[Tracklet],
        transform: Callable[[torch.Tensor], torch.Tensor],
        video: VideoSettings,
    ) -> None:
        self.samples = list(samples)
        self.transform = transform
        self.video = video

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        tracklet = self.samples[index]
        rng = np.random.default_rng((self.video.seed, index))
        chosen = choose_frames(len(tracklet), self.video.frames, self.video.sampling, rng)
        ready = {frame: self.transform(read_image(tracklet.frame(frame).path)) for frame in dict.fromkeys(chosen)}
        return torch.stack([ready[frame] for frame in chosen]), index
