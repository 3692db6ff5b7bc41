"""Drawn people who walk past a fixed camera, and videos of them: the fixtures are functions."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from reprism.drawn.people import draw_figure, person
from reprism.drawn.scenes import scene
from reprism.drawn.solids import NEUTRAL, Stage

FPS = 10


def _walks(
    frames: int, people: int = 1, size: tuple[int, int] = (180, 320), seed: int = 0, first: int = 0, noise: float = 3.0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield H×W×3 uint8 RGB frames, and the boxes (N×4, xyxy) around the pixels that each person covers.

    Nobody is there before the frame ``first``. People walk one after the other, to the right, at 60 % of the height.
    """
    height, width = size
    empty = scene("corridor", 7, height, width).crop((0, 0, width, height))
    rng = np.random.default_rng(seed)
    for number in range(frames):
        picture, boxes = empty.copy(), []
        for who in range(people if number >= first else 0):
            before, zoom = np.asarray(picture, np.int16), 1 / 0.6
            x = (number - first) / 25 - 0.9 + 0.75 * who  # body heights from the middle
            shade = Image.new("L", picture.size, NEUTRAL)
            stage = Stage(
                picture, shade, yaw=90, zoom=zoom, shift=(x, 0.2), stretch=1, light=1
            )  # feet near the bottom, seen from the side
            draw_figure(stage, person(seed + 3, who), 0.5 * number, np.zeros((6, 3)))
            rows, columns = np.nonzero(np.abs(np.asarray(picture, np.int16) - before).max(axis=2) > 8)
            if len(rows):
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        seen = np.asarray(picture, np.float32) + rng.normal(0, noise, (height, width, 1))
        yield np.clip(seen, 0, 255).astype(np.uint8), np.array(boxes, np.float32).reshape(-1, 4)


def _write_video(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    milliseconds: Sequence[int] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    rotation: int | None = None,
) -> Path:
    """Write frames as a video, each shown at its milliseconds (default: ten a second)."""
    with av.open(str(path), "w", options=container or {}) as file:
        file.metadata.update(metadata or {})
        stream = file.add_stream(codec, rate=FPS, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = Fraction(1, 1000)
            frame.pts = milliseconds[number] if milliseconds else 1000 * number // FPS
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def _counted(frames: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """Return frames that tell their number: a bright column that steps to the right, and a red corner."""
    images = []
    for number in range(frames):
        image = np.full((*size, 3), 40, np.uint8)
        image[16:, (2 * number) % size[1] : (2 * number) % size[1] + 8] = 220
        image[:12, :12] = (230, 20, 20)
        images.append(image)
    return images


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two boxes, by counting."""
    left, top = np.maximum(one[:2], other[:2])
    right, bottom = np.minimum(one[2:], other[2:])
    both = max(0.0, right - left) * max(0.0, bottom - top)
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(both / (sum(area) - both))


@pytest.fixture
def walks() -> Callable[..., Iterator[tuple[np.ndarray, np.ndarray]]]:
    return _walks


@pytest.fixture
def write_video() -> Callable[..., Path]:
    return _write_video


@pytest.fixture
def counted() -> Callable[..., list[np.ndarray]]:
    return _counted


@pytest.fixture
def overlap() -> Callable[[np.ndarray, np.ndarray], float]:
    return _overlap
