"""Frames from a folder of images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np

from reprism.cameras.records import Frame, Report, SourceError, SourceFacts, time_at

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def read(
    folder: Path,
    start: datetime | None,
    fps: float | None,
    every: int,
    start_at: int,
    max_pixels: int,
    report: Report,
) -> Iterator[Frame]:
    """Yield a folder's images as frames, in natural order (:func:`reprism.cameras.read_frames`)."""
    from reprism.data.images import ImageError, read_image

    if fps is None:
        raise SourceError(
            f"{folder} is a folder of images, whose rate is not known: give fps=10, on the command line --fps 10"
        )
    first, failed, reason = -1, 0, ""
    for index, path in enumerate(images_in(folder)):
        if index < start_at or index % every:
            continue
        try:
            pixels = read_image(path)
            if pixels[0].numel() > max_pixels:
                raise ImageError(f"it has more than the {max_pixels:,} pixels allowed")
        except ImageError as error:
            if not failed:
                first, reason = index, str(error)
            failed += 1
            continue
        image = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        yield Frame(image, index, index / fps, time_at(start, index / fps))
    if failed:
        report(f"{folder}: {failed} of its images could not be read, the first at frame {first}: {reason}")


def describe(folder: Path, fps: float | None) -> SourceFacts:
    """Count a folder's images.

    Raises:
        SourceError: It holds none.
    """
    count = len(images_in(folder))
    return SourceFacts(str(folder), "folder", count, count / fps if fps else None, fps, None, None)


def images_in(folder: Path) -> list[Path]:
    """Return a folder's images in natural order: ``frame9.jpg`` before ``frame10.jpg``.

    Raises:
        SourceError: It holds none.
    """
    paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    if not paths:
        raise SourceError(f"{folder} holds no images: expected files of {', '.join(SUFFIXES)}, or give a video file")
    return sorted(paths, key=lambda path: natural_order(path.name))


def natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return a key that orders names by the numbers in them, and equal ones (``1``, ``01``) as texts."""
    pieces = re.split(r"([0-9]+)", name)
    return [(int(piece), "") if number % 2 else (0, piece) for number, piece in enumerate(pieces)], name
