"""Values that pass between the steps from video to people: frames, and the boxes found in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import numpy as np

Report: TypeAlias = Callable[[str], object]
"""Called with a line of text about something that the user should know of."""

SourceKind = Literal["file", "folder", "stream", "device"]


class SourceError(ValueError):
    """A source of frames cannot be read; the message names it, the reason and the remedy."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture that a camera took.

    Attributes:
        image: H×W×3 uint8 RGB, upright.
        index: Number of the frame in its source, from 0; frames that could not be decoded are counted too.
        seconds: Seconds since the source's first frame, never less than those of the frame before.
        time: When it was taken, with a time zone; None if the source's start is not known.
    """

    image: np.ndarray
    index: int
    seconds: float = 0.0
    time: datetime | None = None


@dataclass(frozen=True)
class SourceFacts:
    """Facts about a source, read without decoding it.

    Attributes:
        name: Its name for messages, without passwords.
        kind: ``file``, ``folder``, ``stream`` or ``device``.
        frames: Number of frames, where it is written in the file or can be counted.
        seconds: Length, where known.
        fps: Mean frames per second, where known.
        size: Height and width in pixels of the upright frame, where known.
        start: Time of the first frame, where the file says it.
    """

    name: str
    kind: SourceKind
    frames: int | None
    seconds: float | None
    fps: float | None
    size: tuple[int, int] | None
    start: datetime | None

    @property
    def is_live(self) -> bool:
        """Whether it has no end: a stream or a device."""
        return self.kind in ("stream", "device")


@dataclass(frozen=True)
class Timeouts:
    """Waits and limits of streams and devices, in seconds.

    Attributes:
        opening: Maximum wait for a connection.
        reading: Maximum wait for the next frame, after which the connection is made anew.
        first_wait: Wait before the first attempt to reconnect; it doubles with every failure.
        longest_wait: Longest wait between two attempts.
        give_up: Time without a frame after which the stream is given up (default: never).

    Raises:
        ValueError: A number is not positive.
    """

    opening: float = 10.0
    reading: float = 10.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    give_up: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value}: expected a number of seconds greater than 0")


def time_at(start: datetime | None, seconds: float) -> datetime | None:
    """Return the time so many seconds after the start, if that is known."""
    return None if start is None else start + timedelta(seconds=seconds)


class DetectorError(ValueError):
    """A detector cannot be opened; the message names it, the reason and the remedy."""


class TrackerError(ValueError):
    """A tracker cannot be opened; the message names it, the reason and the remedy."""
