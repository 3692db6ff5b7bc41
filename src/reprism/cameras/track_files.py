"""Tracks of one or several cameras, read from a file, or from a folder as MOT-challenge lays them out."""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from reprism.cameras.box_files import BoxTable, read_boxes

_SUFFIXES = (".txt", ".csv", ".json", ".xml")


class TracksError(ValueError):
    """Tracks cannot be read or compared; the message names where, the reason and the remedy."""


def read_tracks(path: str | PathLike[str], *, ignored: bool = False) -> dict[str, BoxTable]:
    """Read the tracks of each camera.

    Args:
        path: A file, as :func:`reprism.cameras.read_boxes` reads it, or a folder. Of a folder are read the files
            ``CAMERA/gt/gt.txt``, and if it has none, ``CAMERA.txt`` (or .csv, .json, .xml). An empty file is a camera
            in which nobody was seen.
        ignored: As in :func:`reprism.cameras.read_boxes`.

    Returns:
        Boxes by the camera's name, sorted by it.

    Raises:
        TracksError: There is nothing at ``path``, or two files for a camera.
        DetectorError: As of :func:`reprism.cameras.read_boxes`.
    """
    return {camera: _read(file, ignored) for camera, file in _files(Path(path)).items()}


def read_lengths(path: str | PathLike[str]) -> dict[str, int | None]:
    """Return the number of frames of each camera, where a ``seqinfo.ini`` says it, as MOT-challenge has it; or None.

    Args:
        path: As in :func:`read_tracks`.

    Raises:
        TracksError: A ``seqinfo.ini`` is damaged.
    """
    return {camera: _length(file) for camera, file in _files(Path(path)).items()}


def check_tracks(
    true: Mapping[str, BoxTable], given: Mapping[str, BoxTable], lengths: Mapping[str, int | None]
) -> None:
    """Refuse tracks that cannot be compared with a truth. Messages count frames from 0, as tables do.

    Args:
        true: Truth by camera.
        given: Tracks by camera.
        lengths: Number of frames by camera, None where it is not known: then truth and tracks must be of the same time.
            A camera that is not in it is not checked for that.

    Raises:
        TracksError: See :func:`reprism.cameras.evaluate_tracks`.
    """
    _check_cameras(set(true), set(given))
    for camera, table in true.items():
        _check(table, f"truth of {camera}", lengths.get(camera))
        _check(given[camera], f"tracks of {camera}", lengths.get(camera))
        if camera in lengths and lengths[camera] is None:
            _check_overlap(camera, table, given[camera])


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        truth = path.parent.name == "gt"
        return {path.absolute().parent.parent.name if truth else path.stem: path}
    if not path.is_dir():
        raise TracksError(
            f"no tracks at {path}: expected a file of boxes with ids, or a folder with one for each camera"
        )
    found = {file.parent.parent.name: file for file in sorted(path.glob("*/gt/gt.txt"))}
    if found:
        return found
    for file in sorted(path.iterdir()):
        if file.suffix.lower() not in _SUFFIXES or file.name.startswith(".") or not file.is_file():
            continue
        if file.stem in found:
            raise TracksError(
                f"{path} has two files for the camera {file.stem}: {found[file.stem].name} and {file.name}"
            )
        found[file.stem] = file
    if not found:
        raise TracksError(
            f"{path} holds no tracks: expected CAMERA/gt/gt.txt, or CAMERA.txt (or {', '.join(_SUFFIXES[1:])}), "
            "for each camera"
        )
    return found


def _read(file: Path, ignored: bool) -> BoxTable:
    if file.stat().st_size == 0:
        nothing = np.empty(0, np.float32)
        return BoxTable(np.empty(0, np.int64), nothing.reshape(0, 4), nothing, ())
    return read_boxes(file, ignored=ignored)


def _length(file: Path) -> int | None:
    info = file.absolute().parent.parent / "seqinfo.ini"
    if file.parent.name != "gt" or not info.is_file():
        return None
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(info.read_text(encoding="utf-8-sig"))
        return parser.getint("Sequence", "seqLength")
    except (configparser.Error, ValueError) as error:
        raise TracksError(f"{info}: expected seqLength=NUMBER under [Sequence]: {error}") from error


def _check_cameras(true: set[str], given: set[str]) -> None:
    if true != given:
        sides = (("truth but not in the tracks", true - given), ("tracks but not in the truth", given - true))
        told = "; ".join(f"in the {side}: {', '.join(sorted(names)[:20])}" for side, names in sides if names)
        raise TracksError(
            f"the cameras differ: {told}. Name the files of both alike; an empty file says that nobody was tracked"
        )


def _check(table: BoxTable, what: str, length: int | None) -> None:
    """Refuse boxes that cannot be compared."""
    if not np.isfinite(table.xyxy).all():
        first = table.frames[~np.isfinite(table.xyxy).all(axis=1)][0]
        raise TracksError(f"{what}: expected finite numbers, got a box with others in frame {first} (from 0)")
    anonymous = np.array([not name for name in table.ids], bool)
    if anonymous.any():
        raise TracksError(
            f"{what}: {np.count_nonzero(anonymous):,} of {len(anonymous):,} boxes have no id, the first in frame "
            f"{table.frames[anonymous][0]} (from 0): tracks are needed, not detections"
        )
    if length is not None and len(table.frames) and table.frames[-1] >= length:
        raise TracksError(
            f"{what}: expected frames 0 to {length - 1}, as seqinfo.ini says, got frame {table.frames[-1]} (from 0; "
            "MOT's text counts from 1)"
        )
    seen: set[tuple[int, str]] = set()
    for each in zip(table.frames.tolist(), table.ids, strict=True):
        if each in seen:
            raise TracksError(
                f"{what}: the id {each[1]} is twice in frame {each[0]} (from 0): expected one box of each"
            )
        seen.add(each)


def _check_overlap(camera: str, true: BoxTable, given: BoxTable) -> None:
    """Refuse tracks of another time than the truth: not one frame in common is a mistake in the numbering."""
    if len(true.frames) and len(given.frames):
        (start, end), (first, last) = ((table.frames[0], table.frames[-1]) for table in (true, given))
        if first > end or last < start:
            raise TracksError(
                f"tracks of {camera}: expected frames {start} to {end} (from 0), as in the truth, got {first} to "
                f"{last}: are they of another recording? If not, CAMERA/seqinfo.ini can say how many frames there are"
            )
