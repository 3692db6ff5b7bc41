"""Frames with their times, one after the other, from a video file, a folder of images, a stream or a camera device."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

from reprism.cameras import folders, streams, videos
from reprism.cameras.records import Frame, Report, SourceError, SourceFacts, SourceKind, Timeouts

Source: TypeAlias = str | PathLike[str] | int
"""A video file, a folder of frames, an address (``rtsp://…``, ``http://…``), or a device (``/dev/video0``, ``0``)."""

MAX_PIXELS = 100_000_000
"""Largest frame that is decoded: twelve 4K frames. A larger one is taken for an attack."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SCHEMES = ("rtsp", "rtsps", "http", "https")
_DEVICE = re.compile(r"\d{1,3}|/dev/video\d{1,3}")

_log = logging.getLogger("reprism")


def read_frames(
    source: Source,
    *,
    start: datetime | None = None,
    fps: float | None = None,
    every: int = 1,
    start_at: int = 0,
    max_pixels: int = MAX_PIXELS,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
    report: Report | None = None,
) -> Iterator[Frame]:
    """Yield a source's frames in order. It is opened when the first one is asked for, and one frame is held at a time.

    A file's frames have the times that are written in it, so that a variable frame rate is kept; they are turned as a
    phone's recording asks. Local files are read by themselves alone: a playlist that names other files is refused.
    A live stream or a device is opened again whenever it stalls or ends, until the caller stops. A recording at an
    address is read once; where the connection breaks, it goes on after the last frame.

    Args:
        source: See :data:`Source`.
        start: Time of the first frame, with a time zone (default: the file's metadata; for live sources the clock).
        fps: Frames per second of a folder of images; other sources know their own times.
        every: Yield each frame whose index is a multiple of this.
        start_at: Index of the first frame to yield, for going on after an interruption. Files and folders only.
        max_pixels: Largest frame that is decoded, width × height.
        timeouts: Waits and limits of streams.
        report: Called with a line of text for each reconnection, and for what could not be decoded (default: a
            warning of the logger ``reprism``).

    Returns:
        An iterator. Close it, or use it up, to close the source.

    Raises:
        ValueError: An argument is out of range.
        SourceError: At once or while iterating: the source cannot be opened, or is no video; names it, the reason and
            the remedy.
    """
    for name, value, least in (("every", every, 1), ("start_at", start_at, 0), ("max_pixels", max_pixels, 1)):
        if value < least:
            raise ValueError(f"{name}={value}: expected {least} or more")
    if start is not None and start.tzinfo is None:
        raise ValueError(f"start={start} has no time zone: give one, such as {start}+00:00")
    if fps is not None and not 0 < fps <= 1000:
        raise ValueError(f"fps={fps}: expected more than 0, and 1000 at most")
    tell = report or _log.warning
    kind, name = kind_of(source), shown(source)
    if kind in ("stream", "device"):
        if start_at:
            raise ValueError(f"start_at={start_at}: {name} is live, and has no frames to go back to")
        return streams.read(str(source), name, kind == "device", start, every, max_pixels, timeouts, tell)
    if kind == "folder":
        return folders.read(Path(str(source)), start, fps, every, start_at, max_pixels, tell)
    return videos.read(Path(str(source)), start, every, start_at, max_pixels, tell)


def describe_source(source: Source, *, fps: float | None = None) -> SourceFacts:
    """Look at a source, of which the first frame is decoded at most.

    A stream or a device is not opened: only its name and kind are known.

    Args:
        source: See :data:`Source`.
        fps: Frames per second of a folder of images.

    Raises:
        SourceError: It cannot be opened, or is no video.
    """
    kind, name = kind_of(source), shown(source)
    if kind in ("stream", "device"):
        return SourceFacts(name, kind, None, None, None, None, None)
    if kind == "folder":
        return folders.describe(Path(str(source)), fps)
    return videos.describe(Path(str(source)), MAX_PIXELS)


def start_time(source: Source, start: datetime | None = None) -> datetime | None:
    """Return the time of a source's first frame: the one given, else the file's own; None for what is live.

    Args:
        source: See :data:`Source`.
        start: The user's own, with a time zone.

    Raises:
        SourceError: It is a file or a folder of which no time is known.
    """
    if start is not None or kind_of(source) in ("stream", "device"):
        return start
    facts = describe_source(source)
    if facts.start is None:
        raise SourceError(
            f"{facts.name}: its start time is not known, for nothing in it says when it was recorded. Give it with its "
            "time zone: start=datetime(2026, 3, 1, 9, 30, tzinfo=UTC), on the command line --start 2026-03-01T09:30Z"
        )
    return facts.start


def kind_of(source: Source) -> SourceKind:
    """Return ``file``, ``folder``, ``stream`` or ``device``.

    Raises:
        SourceError: It is an address of an unknown kind, or there is nothing at the path.
    """
    text = str(source)
    if _ADDRESS.match(text):
        scheme = text.split(":", 1)[0].lower()
        if scheme not in _SCHEMES:
            raise SourceError(f"{shown(source)}: expected an address with {', '.join(_SCHEMES)}, got {scheme}://")
        return "stream"
    if _DEVICE.fullmatch(text):
        return "device"
    path = Path(text)
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise SourceError(
            f"no video at {text}: there is no such file or folder. Expected a file, a folder of images, an address "
            "such as rtsp://…, or a device such as /dev/video0"
        )
    if not path.is_file():
        raise SourceError(f"{text} is no file, but a pipe, a socket or a device: give a video file")
    return "file"


def shown(source: Source) -> str:
    """Return a source's name for messages: an address without the user and the password in it."""
    text = str(source)
    if not _ADDRESS.match(text):
        return f"device {text}" if text.isdigit() else text
    parts = urlsplit(text)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
