"""Frames to H.264 in an MP4 file, with a sensor's noise."""

from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

_FIELDS = 8  # noise pictures to take from
_MARGIN = 32  # pixels by which they are larger than a frame, so that each is used in many ways


def require_av() -> None:
    """Refuse early where PyAV is not installed.

    Raises:
        ValueError: It is not; the message says how to install it.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ValueError("drawing video needs PyAV. Install it: pip install 'reprism[video]'.") from error


def write_video(
    path: Path, frames: Iterable[np.ndarray], *, fps: int, size: tuple[int, int], start: datetime, noise: "Noise"
) -> None:
    """Encode frames as a camera's recorder does.

    The picture with the number n, from 0 on, has the time n / fps; the file's tag ``creation_time`` says when the
    first was taken. The same frames give the same file under the same PyAV.

    Args:
        path: MP4 file to write.
        frames: H×W×3 uint8 RGB.
        fps: Frames per second.
        size: Height and width in pixels, both even.
        start: Time of the first frame, in whole seconds: the tag holds no parts of them.
        noise: What is added to the brightness of every pixel.
    """
    import av
    from av.video.reformatter import VideoReformatter

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["creation_time"] = start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # Fast rather than small. One thread: how x264 divides a picture among threads shows in the pixels.
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "26", "g": "50"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        reformatter = VideoReformatter()  # one for all frames: it keeps what it prepares
        for number, pixels in enumerate(frames):
            frame = reformatter.reformat(av.VideoFrame.from_ndarray(pixels, format="rgb24"), format="yuv420p")
            plane = frame.planes[0]
            luma = np.frombuffer(memoryview(plane), np.uint8).reshape(size[0], plane.line_size)[:, : size[1]]
            noise.add_to(luma)
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


class Noise:
    """A sensor's noise: sd grey levels of 255, blotchy where the sensor's resolution (per side) is under 1."""

    def __init__(self, sd: float, resolution: float, size: tuple[int, int], rng: np.random.Generator):
        self._rng = rng
        self._fields: list[np.ndarray] = []
        if not sd:
            return
        height, width = (side + _MARGIN for side in size)
        for _ in range(_FIELDS):
            coarse = rng.standard_normal((round(height * resolution), round(width * resolution)), np.float32) * sd
            field = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            self._fields.append(np.rint(np.asarray(field)).astype(np.int16))

    def add_to(self, luma: np.ndarray) -> None:
        """Add the next frame's noise, in place."""
        if not self._fields:
            return
        which, down, right = self._rng.integers((_FIELDS, _MARGIN, _MARGIN)).tolist()
        field = self._fields[which][down : down + luma.shape[0], right : right + luma.shape[1]]
        # 16 to 235 are black and white of video.
        luma[:] = np.clip(luma + field, 16, 235)
