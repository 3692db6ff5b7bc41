"""The truth about a drawn recording, as tables: who is where in each frame, and when each person crosses a view."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from reprism.drawn.footage import Sight
from reprism.drawn.sites import SiteCamera

TRUTH = (
    *("camera", "file", "frame", "time", "clock", "pid", "visit", "track"),
    *("left", "top", "right", "bottom", "visibility", "x", "y"),
)
"""Columns of truth.csv."""

TRACKS = (
    *("camera", "file", "track", "pid", "visit"),
    *("first_frame", "last_frame", "first_time", "last_time", "visibility"),
)
"""Columns of tracks.csv."""

Row = tuple[str | int, ...]


@dataclass(frozen=True)
class Recording:
    """One video file of a camera.

    Attributes:
        name: The file's name without its suffix, such as "cam3-1".
        camera: The camera.
        first: Number of its first frame, counted from the site's start and from 0.
        frames: Number of its frames.
        start: True time of the first frame.
        clock: Time that the camera's clock shows then.
    """

    name: str
    camera: SiteCamera
    first: int
    frames: int
    start: datetime
    clock: datetime


def number_tracks(seen: Sequence[Sequence[Sight]], fps: int, first: int = 1) -> list[list[int]]:
    """Number the tracks of a file.

    As in MOT-challenge, who leaves the picture and comes back is a new track: here after a second and more outside. Who
    is only hidden stays the same.

    Args:
        seen: The people in each frame.
        fps: Frames per second.
        first: Number of the first track.

    Returns:
        A number for each of ``seen``, in the same order.
    """
    current: dict[int, tuple[int, int]] = {}  # pid: track, last frame
    numbers: list[list[int]] = []
    for frame, sights in enumerate(seen):
        numbers.append([])
        for sight in sights:
            track, last = current.get(sight.pid, (0, frame - fps - 1))
            if frame - last > fps:
                track, first = first, first + 1
            current[sight.pid] = (track, frame)
            numbers[-1].append(track)
    return numbers


def write_mot(
    folder: Path,
    recording: Recording,
    seen: Sequence[Sequence[Sight]],
    numbers: Sequence[Sequence[int]],
    fps: int,
    size: tuple[int, int],
) -> None:
    """Write gt/gt.txt and seqinfo.ini of MOT-challenge 2D; frames, left and top count from 1, as there."""
    (folder / "gt").mkdir(parents=True)
    with (folder / "gt" / "gt.txt").open("w", encoding="utf-8", newline="") as file:
        for frame, (sights, tracks) in enumerate(zip(seen, numbers, strict=True), start=1):
            for sight, track in zip(sights, tracks, strict=True):
                wide, tall = sight.right - sight.left, sight.bottom - sight.top
                box = f"{sight.left + 1},{sight.top + 1},{wide},{tall}"
                file.write(f"{frame},{track},{box},1,1,{sight.visibility:.4f}\n")
    lines = {
        "name": recording.name,
        "imDir": "img1",
        "frameRate": fps,
        "seqLength": recording.frames,
        "imWidth": size[1],
        "imHeight": size[0],
        "imExt": ".jpg",
    }
    text = "[Sequence]\n" + "".join(f"{name}={value}\n" for name, value in lines.items())
    (folder / "seqinfo.ini").write_text(text, encoding="utf-8")


def truth_rows(
    recording: Recording, seen: Sequence[Sequence[Sight]], numbers: Sequence[Sequence[int]], fps: int
) -> Iterator[Row]:
    """Yield the rows of truth.csv for a file."""
    for frame, (sights, tracks) in enumerate(zip(seen, numbers, strict=True), start=1):
        times = (_time(recording.start, frame, fps), _time(recording.clock, frame, fps))
        for sight, track in zip(sights, tracks, strict=True):
            yield (
                *(recording.camera.name, f"{recording.name}.mp4", frame, *times, sight.pid, sight.visit, track),
                *(sight.left, sight.top, sight.right, sight.bottom),
                *(f"{sight.visibility:.4f}", f"{sight.x:.3f}", f"{sight.y:.3f}"),
            )


def track_rows(
    recording: Recording, seen: Sequence[Sequence[Sight]], numbers: Sequence[Sequence[int]], fps: int
) -> list[Row]:
    """Return the rows of tracks.csv for a file; times are true, visibility is the mean."""
    frames: dict[int, list[tuple[int, Sight]]] = {}
    for frame, (sights, tracks) in enumerate(zip(seen, numbers, strict=True), start=1):
        for sight, track in zip(sights, tracks, strict=True):
            frames.setdefault(track, []).append((frame, sight))
    rows: list[Row] = []
    for track, sightings in sorted(frames.items()):
        (first, sight), (last, _) = sightings[0], sightings[-1]
        visibility = sum(each.visibility for _, each in sightings) / len(sightings)
        rows.append(
            (
                *(recording.camera.name, f"{recording.name}.mp4", track, sight.pid, sight.visit, first, last),
                *(_time(recording.start, first, fps), _time(recording.start, last, fps), f"{visibility:.4f}"),
            )
        )
    return rows


def _time(start: datetime, frame: int, fps: int) -> str:
    return (start + timedelta(seconds=(frame - 1) / fps)).isoformat(timespec="milliseconds")
