"""Checks of an image before it is decoded: few bytes can claim much memory, or hours of a decoder's time."""

from __future__ import annotations

import os
import stat
from os import PathLike

from PIL import Image

MAX_SIDE = 2**15
"""Longest side decoded, in pixels: four times the longest side of an 8K video frame."""

MAX_RATIO = 100
"""Maximum ratio of an image's sides. A person's crop is three times as high as wide."""

MAX_SCANS = 100
"""Maximum scans of a JPEG that is decoded. Each costs a pass over all its pixels, however few bytes it has; progressive
encoders make about ten."""

_START_OF_SCAN = b"\xff\xda"
_READ_AT_ONCE = 2**20


class RefusedError(Exception):
    """A whole image that is not decoded; its text is the reason."""


class TooLargeError(RefusedError):
    """One that has too many pixels, or too long a side."""


def check_is_file(path: str | PathLike[str]) -> None:
    """Refuse what is neither a file nor a folder (that cannot be opened anyhow): a pipe is waited on for ever.

    Raises:
        RefusedError: It is a pipe, a socket or a device.
        OSError: It cannot be looked at.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - the path may be text
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise RefusedError("it is no file, but a pipe, a socket or a device")


def check_image(image: Image.Image, max_pixels: int) -> None:
    """Refuse an open image by its header, before any of it is decoded.

    Raises:
        TooLargeError: It has more than ``max_pixels``, or a side longer than ``MAX_SIDE``.
        RefusedError: It is empty, or too thin (``MAX_RATIO``); its channels have more than 8 bits; or it is a JPEG of
            more than ``MAX_SCANS``.
    """
    width, height = image.size
    if width * height > max_pixels:
        raise TooLargeError(f"{width}×{height} pixels are more than the {max_pixels:,} allowed")
    if max(width, height) > MAX_SIDE:
        raise TooLargeError(f"{width}×{height}: a side has more than the {MAX_SIDE:,} pixels allowed")
    if width * height == 0:
        raise RefusedError(f"it has {width}×{height} pixels")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise RefusedError(f"{width}×{height}: one side is more than {MAX_RATIO} times as long as the other")
    if deep := _deep(image):
        # Pillow would clip grey ones at 255, and take the upper half of each channel of colour ones. How to map a
        # thermal camera's values to bytes is its owner's choice.
        raise RefusedError(f"its pixels are of mode {deep}, more than 8 bits per channel; convert it to 8 bits")
    scans = _scans(image)
    if scans > MAX_SCANS:
        raise RefusedError(f"it is a JPEG of {scans:,} scans, and {MAX_SCANS} are allowed; encode it anew")


def _deep(image: Image.Image) -> str | None:
    """Return the mode of a gray image with more than 8 bits per channel; None for others, whose decoder knows it."""
    if image.mode.startswith(("I", "F")):
        return image.mode
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(one, str) and ";16" in one for one in arguments[:1]):
            return str(arguments[0])
        if tile[0].startswith("ppm") and arguments[-1] > 255:
            return f"{arguments[0]}, up to {arguments[-1]}"
    return None


def _scans(image: Image.Image) -> int:
    """Count the scans that a JPEG file begins; 0 for other images, and for one that is decoded already."""
    file = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or file is None:
        return 0
    place = file.tell()
    try:
        file.seek(0)
        count, last = 0, b""
        # Within a scan the decoder's own 0xFF is followed by 0: the pair is found nowhere but where one begins.
        while block := file.read(_READ_AT_ONCE):
            count += (last + block).count(_START_OF_SCAN)
            last = block[-1:]
        return count
    finally:
        file.seek(place)
