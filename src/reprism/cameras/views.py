"""The sources that are watched, checked before the first frame is read, and the state of each meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path

from reprism.cameras.boxes import Detector
from reprism.cameras.frames import Source, describe_source, kind_of, shown, start_time
from reprism.cameras.opening import open_detector
from reprism.cameras.records import SourceError, SourceFacts
from reprism.cameras.regions import leave_out, read_regions
from reprism.cameras.tracklets import Counts


@dataclass(frozen=True)
class View:
    """A source to watch.

    Attributes:
        source: A video file, a folder of frames, a stream or a device (:data:`reprism.cameras.Source`).
        camera: Name of the camera, ``camid`` of its rows.
        start: Time of the first frame, with a time zone (default: the file's metadata; for what is live the clock).
        detector: As :func:`reprism.cameras.open_detector` takes it.
        fps: Frames per second of a folder of images.
        clock_ahead: Seconds by which the camera's clock, and so the start, is ahead of the true time (default: as the
            gallery has it, :meth:`reprism.Gallery.set_camera`).
        ignore: Picture whose white parts of the view are left out, a file or its bytes
            (:func:`reprism.cameras.read_regions`; default: as the gallery has it).
    """

    source: Source
    camera: str
    start: datetime | None = None
    detector: str | Detector = "motion"
    fps: float | None = None
    clock_ahead: float | None = None
    ignore: str | PathLike[str] | bytes | None = None

    @property
    def name(self) -> str:
        """Name of the source, for messages and rows: without passwords."""
        return shown(self.source)


@dataclass(eq=False)
class Watched:
    """Outcome of a source, kept up to date while it is watched.

    Attributes:
        view: The source.
        facts: What was known of it before.
        counts: Frames, boxes and tracklets so far.
        dropped: Number of frames of a live source that were dropped, for the machine was behind.
        joined: Number of tracklets that go on with an earlier one, and were joined with it.
        short: Number of tracklets that were too short to keep.
        added: Number of tracklets that were described.
        already: Number of tracklets that were in the gallery.
        is_done: Nothing more comes of it.
        error: Why it ended early, if it did.
    """

    view: View
    facts: SourceFacts
    counts: Counts = field(default_factory=Counts)
    dropped: int = 0
    joined: int = 0
    short: int = 0
    added: int = 0
    already: int = 0
    is_done: bool = False
    error: str | None = None


def check_view(view: View) -> Watched:
    """Look at a source before it is read, and set its start time right.

    Raises:
        ValueError: The camera has no name, the start no time zone, or a live source was given ``clock_ahead``.
        SourceError: The source is not there, or its start time or rate is not known.
    """
    if not view.camera:
        raise ValueError(f"{view.name}: expected a camera's name, got an empty one")
    if view.start is not None and view.start.tzinfo is None:
        raise ValueError(f"start={view.start} of {view.name} has no time zone: give one, such as {view.start}+00:00")
    facts = describe_source(view.source, fps=view.fps)
    if facts.kind == "folder" and view.fps is None:
        raise SourceError(
            f"{view.name} is a folder of images, whose rate is not known: give fps=10, on the command line --fps 10"
        )
    if facts.is_live and view.clock_ahead:
        raise ValueError(f"{view.name} is live, and has this machine's clock: clock_ahead is for recordings")
    start = start_time(view.source, view.start)
    if start is not None:
        start -= timedelta(seconds=view.clock_ahead or 0.0)
    return Watched(replace(view, start=start), facts)


def open_view_detector(view: View, *, score: float, device: str) -> Detector:
    """Open a source's detector, without the parts of the view that are left out.

    Args:
        view: The source.
        score, device: As in :func:`reprism.cameras.open_detector`.

    Raises:
        DetectorError, CheckpointError: The detector or the picture of what is left out cannot be opened.
    """
    detector = open_detector(view.detector, score=score, device=device)
    return detector if view.ignore is None else leave_out(detector, read_regions(view.ignore))


def refuse_twins(views: Sequence[View]) -> None:
    """Refuse sources of which one is given twice.

    Raises:
        ValueError: One is.
    """
    origins = [origin_of(view) for view in views]
    if twice := [view.name for view, each in zip(views, origins, strict=True) if origins.count(each) > 1]:
        raise ValueError(f"{twice[0]} is given twice: name each source once")


def origin_of(view: View) -> str:
    """Return what tells a source from others in keys: the absolute path of what lies on this machine."""
    is_live = kind_of(view.source) in ("stream", "device")
    return view.name if is_live else str(Path(str(view.source)).absolute())
