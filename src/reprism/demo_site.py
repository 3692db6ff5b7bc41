"""The demo's second part: draw a site of some cameras, watch their videos, and look for each person elsewhere."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from reprism.drawn.cameras import render_cameras
from reprism.embedding import Embedder
from reprism.gallery.filters import Filter
from reprism.gallery.rows import Box, Row
from reprism.gallery.table import Gallery
from reprism.progress import Progress, step
from reprism.report.site_section import Answer, Sighting, answerable

_SAME = 0.2  # intersection over union, at least, of a box and the person's true one: what moves is not all of them


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """Size of the site.

    Attributes:
        cameras: Number of cameras.
        people: Number of people who walk there.
        seconds: Length of each video.
        fps: Frames per second.
        size: Height and width of the frames.
    """

    cameras: int = 4
    people: int = 12
    seconds: float = 120.0
    fps: int = 10
    size: tuple[int, int] = (360, 640)


def can_watch() -> bool:
    """Return whether the packages are installed that drawing, watching and searching need."""
    return all(find_spec(name) is not None for name in ("av", "cv2", "lancedb", "supervision", "trackers"))


def watch_site(
    out: Path, model: Path, settings: SiteSettings, seed: int, progress: Progress
) -> tuple[list[Sighting], list[Answer]]:
    """Draw a site, watch its cameras, and look for each tracklet in the other cameras.

    Args:
        out: Folder that gets ``cameras/`` (videos and truth) and ``tracklets/`` (the gallery).
        model: Model file.
        settings: Size of the site.
        seed: Random seed of the site.
        progress: Called with the frames drawn and watched.

    Returns:
        The tracklets, in the order of time; and of each, the nearest one of every other camera.
    """
    from reprism.cameras.watching import View, watch

    render_cameras(
        out / "cameras",
        cameras=settings.cameras,
        people=settings.people,
        seconds=settings.seconds,
        fps=settings.fps,
        size=settings.size,
        seed=seed,
        progress=step(progress, "drawing cameras"),
    )
    embedder = Embedder(model, precision="fp32")
    gallery = Gallery.create(out / "tracklets", embedder, model=model)
    videos = sorted((out / "cameras").glob("*.mp4"))
    frames = round(settings.seconds * settings.fps) * len(videos)
    watch(
        gallery,
        embedder,
        [View(str(video), video.stem) for video in videos],
        progress=lambda watched: progress("watching cameras", sum(one.counts.frames for one in watched), frames),
    )
    progress("watching cameras", frames, frames)
    rows = sorted(gallery.rows(), key=lambda row: (row.time, row.camid))
    truth = read_truth(out / "cameras" / "truth.csv")
    sightings = [sighting_of(gallery, row, truth, settings.size) for row in rows]
    return sightings, _search(gallery, rows, sightings)


def site_metrics(sightings: Sequence[Sighting], answers: Sequence[Answer]) -> dict[str, Any]:
    """Return counts, and how often the nearest tracklet of another camera is of the same person.

    Returns:
        ``tracklets``; ``people`` (those that at least one tracklet is of); ``mixed`` (tracklets that are of nobody, or
        begin with one person and end with another); ``asked`` (tracklets of a person whom another camera saw too),
        ``right`` (of these, those whose nearest one elsewhere is of the person) and ``chance`` (the share that would be
        right in a random order).
    """
    asked = answerable(answers)
    chances = []
    for answer in asked:
        others = [one for one in sightings if one.camera != answer.sighting.camera]
        chances.append(np.mean([one.person == answer.sighting.person for one in others]))
    return {
        "tracklets": len(sightings),
        "people": len({one.person for one in sightings} - {None}),
        "mixed": sum(one.person is None for one in sightings),
        "asked": len(asked),
        "right": sum(answer.is_right for answer in asked),
        "chance": float(np.mean(chances)) if chances else 0.0,
    }


# ---- the truth -----------------------------------------------------------------------------------------------


Truth: TypeAlias = defaultdict[tuple[str, datetime], list[tuple[int, np.ndarray]]]
"""People and their boxes (left, top, right, bottom, in pixels), by camera and the time that its clock showed."""


def read_truth(path: Path) -> Truth:
    """Read who is where from the ``truth.csv`` of a drawn site."""
    truth: Truth = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            box = np.array([float(row[side]) for side in ("left", "top", "right", "bottom")])
            truth[row["camera"], datetime.fromisoformat(row["clock"])].append((int(row["pid"]), box))
    return truth


def sighting_of(gallery: Gallery, row: Row, truth: Truth, size: tuple[int, int]) -> Sighting:
    """Return a watched row with the person whose true boxes its first and its last box cover best.

    Args:
        gallery: The gallery.
        row: One of its rows.
        truth: Who is where.
        size: Height and width of the frames.

    Raises:
        ValueError: The row is not of a watched video.
    """
    if row.camid is None or row.time is None or row.until is None or row.first_box is None or row.last_box is None:
        raise ValueError(f"expected a row of reprism watch, got {row}")
    first = _person_at(truth[row.camid, row.time], row.first_box, size)
    last = _person_at(truth[row.camid, row.until], row.last_box, size)
    return Sighting(row.camid, row.time, row.until, first if first == last else None, gallery.strip(row.id))


def _person_at(people: Sequence[tuple[int, np.ndarray]], shares: Box, size: tuple[int, int]) -> int | None:
    """Return the person whose true box a box covers best, if it covers it somewhat."""
    height, width = size
    box = np.array(shares) * (width, height, width, height)
    covered = {pid: _overlap(box, true) for pid, true in people}
    best = max(covered, key=covered.__getitem__, default=None)
    return best if best is not None and covered[best] >= _SAME else None


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection of two boxes over their union."""
    shared = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


# ---- searching -----------------------------------------------------------------------------------------------


def _search(gallery: Gallery, rows: Sequence[Row], sightings: Sequence[Sighting]) -> list[Answer]:
    """Return each tracklet with the nearest one of every other camera."""
    descriptors = gallery.descriptors([row.id for row in rows])
    by_id = {row.id: one for row, one in zip(rows, sightings, strict=True)}
    answers = [Answer(one, []) for one in sightings]
    for camera in sorted({one.camera for one in sightings}):
        others = [index for index, one in enumerate(sightings) if one.camera != camera]
        if not others:
            continue
        found = gallery.search(descriptors[others], 1, Filter(cameras=(camera,)), shares=False)
        for index, matches in zip(others, found, strict=True):
            answers[index].elsewhere.extend((by_id[match.id], match.distance) for match in matches)
    return answers
