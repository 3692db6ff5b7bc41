"""Tracks whose ids say who it is in all cameras: the truth of a drawn site, and a gallery's people."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from reprism.cameras.box_files import BoxTable
from reprism.cameras.track_files import TracksError, read_tracks

_CLOSE = 0.02  # pixels: both files round a box, and boxes of frames and pixels from 1 are written as such


def read_people(path: str | PathLike[str]) -> dict[str, BoxTable]:
    """Read a truth whose ids say who it is in all cameras.

    Args:
        path: As of :func:`reprism.cameras.read_tracks`. Of a folder that ``reprism data render cameras`` wrote, a
            track's id becomes its person's, as ``tracks.csv`` has it.

    Returns:
        Boxes by the camera's name, with those that do not count.

    Raises:
        TracksError: ``tracks.csv`` lacks a track; and what ``read_tracks`` raises.
    """
    found = read_tracks(path, ignored=True)
    table = Path(path) / "tracks.csv"
    if not table.is_file():
        return found
    try:
        with table.open(newline="", encoding="utf-8") as file:
            people = {(Path(row["file"]).stem, row["track"]): row["pid"] for row in csv.DictReader(file)}
        return {
            camera: replace(boxes, ids=tuple(people[camera, track] for track in boxes.ids))
            for camera, boxes in found.items()
        }
    except KeyError as error:
        raise TracksError(
            f"{table} does not say whose {error} is: expected the table of the same drawing, with file, track and pid"
        ) from error


def name_people(
    tracks: Mapping[str, BoxTable], lines: str | PathLike[str], people: Mapping[str, str]
) -> dict[str, BoxTable]:
    """Give the tracks of watched videos the ids of the people that their rows were linked to.

    Args:
        tracks: What ``reprism watch --boxes`` wrote, read by :func:`reprism.cameras.read_tracks`.
        lines: File that ``reprism watch --lines`` wrote in the same run.
        people: Person by the id of a gallery's row.

    Returns:
        The same boxes. A track without a row, such as a short one, stands for itself, and so does a row that is in no
        person.

    Raises:
        TracksError: A line cannot be read, or no box is where it says.
    """
    names = {camera: np.array([f"{camera} {track}" for track in boxes.ids], object) for camera, boxes in tracks.items()}
    for number, line in _lines(Path(lines)):
        try:
            row, camera = str(line["id"]), Path(line["source"]).stem
            first, last, box = int(line["first"]["frame"]), int(line["last"]["frame"]), line["first"]["box"]
            boxes = tracks[camera]
            start, end = np.searchsorted(boxes.frames, [first, first + 1])
            (at,) = np.flatnonzero((np.abs(boxes.xyxy[start:end] - np.array(box, float)) <= _CLOSE).all(axis=1))
        except (ValueError, LookupError, TypeError) as error:
            raise TracksError(
                f"{lines}:{number}: expected a tracklet of which the tracks have the first box, got none: name the "
                "files that reprism watch --lines and --boxes wrote in one run"
            ) from error
        if row in people:
            begin, stop = np.searchsorted(boxes.frames, [first, last + 1])
            same = [track == boxes.ids[start + at] for track in boxes.ids[begin:stop]]
            names[camera][begin:stop][same] = people[row]
    return {camera: replace(boxes, ids=tuple(names[camera])) for camera, boxes in tracks.items()}


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield number, json.loads(line)
    except (OSError, ValueError) as error:
        raise TracksError(f"{path} holds no lines of reprism watch --lines: {error}") from error
