"""Boxes that the user has already: MOT-challenge text, CVAT XML, COCO JSON or a CSV, told apart by their content.

Frames count from 0, as :attr:`reprism.cameras.Frame.index` does:

- MOT-challenge text (``det.txt``, ``gt.txt``): frame, id, left, top, width, height, score and more, without a header.
  Its frames and pixels count from 1: its frame 1 is index 0, and its left 1 the frame's edge. Of ``gt.txt`` only
  pedestrians that count are read, unless those that do not are asked for.
- CVAT XML, for video or for images: ``frame`` of a box, or ``id`` of an image.
- COCO JSON: the ``frame_id`` or ``frame_index`` of an image, else its rank among the file names in natural order, as in
  a folder of frames; in a bare list of results the ``image_id``.
- CSV with a header: ``frame,left,top,right,bottom`` and, if wanted, ``score``, ``id`` and ``visibility``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from reprism.cameras.boxes import Boxes
from reprism.cameras.folders import natural_order
from reprism.cameras.records import DetectorError, Frame

_PEOPLE = frozenset({"person", "people", "pedestrian", "human", "man", "woman", "child"})
_COCO_PERSON = 1
_MOST_BYTES = 2**30
_LAST_FRAME = 2**40
# MOT's gt.txt: whether a box counts is its 7th column, its class the 8th (from 1), its visibility the 9th. Tracks that
# fill up to as many columns have -1 in the 8th.
_GT_COLUMNS = 9
_GT_PEDESTRIAN = 1
_GT_IGNORED = frozenset({2, 7, 8, 12})  # person on a vehicle, static person, distractor, reflection

Row = tuple[int, float, float, float, float, float, str, float, bool]
"""Frame, left, top, right, bottom, score, identity, visibility, and whether it does not count."""


@dataclass(frozen=True, eq=False)
class BoxTable:
    """Boxes of a video.

    Attributes:
        frames: M int64, ascending: index of each box's frame, from 0.
        xyxy: M×4 float32: left, top, right and bottom in pixels, as they are in the file.
        scores: M float32; 1 where the file has none.
        ids: Identity or track of each box; empty where the file has none.
        visibility: M float32, 0 … 1: share of the person that shows; 1 where the file does not say.
        ignored: M bool: boxes that evaluation counts neither as missed nor as false; all False unless
            :func:`read_boxes` was asked for them.
    """

    frames: np.ndarray
    xyxy: np.ndarray
    scores: np.ndarray
    ids: tuple[str, ...]
    visibility: np.ndarray = None  # type: ignore[assignment]
    ignored: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.visibility is None:
            object.__setattr__(self, "visibility", np.ones(len(self.frames), np.float32))
        if self.ignored is None:
            object.__setattr__(self, "ignored", np.zeros(len(self.frames), bool))

    def at(self, index: int) -> Boxes:
        """Return the boxes of a frame."""
        start, end = np.searchsorted(self.frames, [index, index + 1])
        return Boxes(self.xyxy[start:end], self.scores[start:end])


def boxes_detector(path: str | PathLike[str], *, score: float = 0.0) -> Callable[[Frame], Boxes]:
    """Make a detector that returns the boxes of a file for a frame's index.

    Args:
        path: See :mod:`reprism.cameras.box_files`.
        score: Minimum score of a box.

    Raises:
        DetectorError: As of :func:`read_boxes`.
    """
    table = read_boxes(path)
    sure = table.scores >= score

    def boxes_of(frame: Frame) -> Boxes:
        start, end = np.searchsorted(table.frames, [frame.index, frame.index + 1])
        kept = np.flatnonzero(sure[start:end]) + start
        return Boxes(table.xyxy[kept], table.scores[kept])

    return boxes_of


def read_boxes(path: str | PathLike[str], *, ignored: bool = False) -> BoxTable:
    """Read a file of boxes.

    Args:
        path: See :mod:`reprism.cameras.box_files`.
        ignored: Also read what a truth says not to count, as :attr:`BoxTable.ignored`: in MOT's ``gt.txt`` pedestrians
            marked 0, and people on vehicles, static people, distractors and reflections.

    Raises:
        DetectorError: There is no such file, it is empty, of no format that is known, damaged, or has no people in it.
    """
    path = Path(path)
    if not path.is_file():
        raise DetectorError(f"no boxes at {path}: there is no such file")
    if path.stat().st_size > _MOST_BYTES:
        raise DetectorError(f"{path} is larger than {_MOST_BYTES >> 30} GiB: give a file for each camera")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            start = file.read(4096).lstrip()
            file.seek(0)
            rows = [row for row in _reader(path, start)(path, file) if ignored or not row[-1]]
    except UnicodeDecodeError as error:
        raise DetectorError(f"{path} is no text: expected MOT text, CVAT XML, COCO JSON or a CSV of boxes") from error
    rows.sort(key=lambda row: row[0])
    if rows and not 0 <= rows[0][0] <= rows[-1][0] < _LAST_FRAME:
        raise DetectorError(f"{path}: expected frames from 0 on, got {rows[0][0]} … {rows[-1][0]}")
    numbers = np.array([row[1:6] for row in rows], np.float32).reshape(-1, 5)
    return BoxTable(
        frames=np.array([row[0] for row in rows], np.int64),
        xyxy=numbers[:, :4],
        scores=numbers[:, 4],
        ids=tuple(row[6] for row in rows),
        visibility=np.array([row[7] for row in rows], np.float32),
        ignored=np.array([row[8] for row in rows], bool),
    )


def _reader(path: Path, start: str) -> Callable[[Path, TextIO], Iterable[Row]]:
    if not start:
        raise DetectorError(f"{path} is empty: expected MOT text, CVAT XML, COCO JSON or a CSV of boxes")
    if start[0] == "<":
        return _read_cvat
    if start[0] in "{[":
        return _read_coco
    return _read_csv if any(letter.isalpha() for letter in start.splitlines()[0]) else _read_mot


def _read_mot(path: Path, file: TextIO) -> Iterator[Row]:
    for number, line in enumerate(file, start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        if len(words) < 6:
            raise DetectorError(
                f"{path}:{number}: expected frame, id, left, top, width, height and a score, got {line.strip()[:80]!r}"
            )
        values = _floats(path, number, words)
        is_truth = len(values) == _GT_COLUMNS and values[7] > 0
        if is_truth and values[7] != _GT_PEDESTRIAN and values[7] not in _GT_IGNORED:
            continue
        counts = not is_truth or (values[7] == _GT_PEDESTRIAN and values[6] != 0)
        frame = _whole(path, number, values[0]) - 1
        if frame < 0:
            raise DetectorError(f"{path}:{number}: MOT's frames count from 1, got {values[0]:g}")
        left, top, wide, high = values[2] - 1, values[3] - 1, *values[4:6]  # its pixels count from 1
        score = values[6] if len(values) > 6 and not is_truth else 1.0
        identity = "" if values[1] < 0 else words[1]
        visibility = values[8] if is_truth else 1.0
        yield frame, left, top, left + wide, top + high, score, identity, visibility, not counts


def _read_csv(path: Path, file: TextIO) -> Iterator[Row]:
    reader = csv.reader(file)
    names = [name.strip().lower() for name in next(reader)]
    wanted = ["frame", "left", "top", "right", "bottom"]
    if missing := [name for name in wanted if name not in names]:
        raise DetectorError(
            f"{path}: expected the columns frame,left,top,right,bottom and, if wanted, score, id and visibility, got "
            f"{','.join(names)[:200]}: {', '.join(missing)} not among them"
        )
    places = [names.index(name) for name in wanted]
    places += [names.index(name) for name in ("score", "visibility") if name in names]
    identity = names.index("id") if "id" in names else None
    try:
        for words in reader:
            if not any(words):
                continue
            if len(words) != len(names):
                raise DetectorError(f"{path}:{reader.line_num}: expected {len(names)} values, got {len(words)}")
            frame, *box = _floats(path, reader.line_num, [words[place] for place in places])
            left, top, right, bottom = box[:4]
            score = box[4] if "score" in names else 1.0
            visibility = box[-1] if "visibility" in names else 1.0
            who = "" if identity is None else words[identity].strip()
            yield _whole(path, reader.line_num, frame), left, top, right, bottom, score, who, visibility, False
    except csv.Error as error:
        raise DetectorError(f"{path}:{reader.line_num}: {error}") from error


def _read_cvat(path: Path, file: TextIO) -> Iterator[Row]:
    try:
        from defusedxml.common import DefusedXmlException
        from defusedxml.ElementTree import ParseError, iterparse
    except ImportError as error:
        raise DetectorError(f"{path} needs the package {error.name}: pip install 'reprism[video]'") from error
    found: list[tuple[str, Row]] = []
    label, identity, frame = "", "", ""
    try:
        for event, element in iterparse(file, ("start", "end"), forbid_dtd=True):
            values = element.attrib
            if event == "start" and element.tag == "track":
                label, identity = values.get("label", ""), values.get("id", "")
            elif event == "start" and element.tag == "image":
                frame, identity = values.get("id", ""), ""
            elif event == "end" and element.tag == "box":
                if values.get("outside", "0") == "0":
                    sides = [values.get(side, "") for side in ("xtl", "ytl", "xbr", "ybr")]
                    index, *corners = _floats(path, 0, [values.get("frame", frame), *sides])
                    row = (_whole(path, 0, index), *corners, 1.0, identity, 1.0, False)
                    found.append((values.get("label", label), row))  # type: ignore[arg-type]
            elif event == "end" and element.tag in ("track", "image"):
                element.clear()
                label, identity, frame = "", "", ""
    except DefusedXmlException as error:
        raise DetectorError(f"{path}: document types and entities are not read: {type(error).__name__}") from error
    except ParseError as error:
        raise DetectorError(f"{path} is no XML: {error}") from error
    if not found:
        raise DetectorError(f"{path} holds no boxes: expected CVAT's XML, exported as CVAT for video or for images")
    people = _people(path, {name for name, _ in found})
    return (row for name, row in found if name in people)


def _read_coco(path: Path, file: TextIO) -> Iterator[Row]:
    try:
        data = json.load(file)
    except (ValueError, RecursionError) as error:
        raise DetectorError(f"{path} is no JSON: {type(error).__name__}: {error}") from error
    try:
        if isinstance(data, list):
            people, frames, annotations = {_COCO_PERSON}, None, data
        else:
            names = {category["id"]: str(category["name"]) for category in data["categories"]}
            kept = _people(path, set(names.values()))
            people = {number for number, name in names.items() if name in kept}
            frames, annotations = _coco_frames(data["images"]), data["annotations"]
        return iter([_coco_row(each, frames) for each in annotations if _counts(each, people)])
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, DetectorError):
            raise
        raise DetectorError(
            f"{path}: expected COCO JSON with images, annotations and categories, or a list of results, got another "
            f"structure ({error!r})"
        ) from error


def _counts(annotation: dict[str, Any], people: set[Any]) -> bool:
    return annotation["category_id"] in people and not annotation.get("iscrowd")


def _coco_row(annotation: dict[str, Any], frames: dict[Any, int] | None) -> Row:
    left, top, wide, high = map(float, annotation["bbox"])
    image = annotation["image_id"]
    index = int(image) if frames is None else frames[image]
    identity = str(annotation.get("track_id", annotation.get("attributes", {}).get("track_id", "")))
    return index, left, top, left + wide, top + high, float(annotation.get("score", 1.0)), identity, 1.0, False


def _coco_frames(images: list[dict[str, Any]]) -> dict[Any, int]:
    """Return the frame's index of each image, by its number in the file."""
    for name in ("frame_id", "frame_index"):
        if images and all(name in image for image in images):
            return {image["id"]: int(image[name]) for image in images}
    ranked = sorted(images, key=lambda image: natural_order(str(image["file_name"])))
    return {image["id"]: index for index, image in enumerate(ranked)}


def _people(path: Path, labels: set[str]) -> set[str]:
    """Return the labels that mean people: those called so, or the only one that there is."""
    people = {label for label in labels if label.strip().casefold() in _PEOPLE}
    if not people and len(labels) != 1:
        listed = ", ".join(sorted(labels)[:20]) or "none"
        raise DetectorError(f"{path}: expected a label person or pedestrian, got {listed}: rename the one of people")
    return people or labels


def _floats(path: Path, line: int, words: list[str]) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        where = f"{path}:{line}" if line else str(path)
        raise DetectorError(f"{where}: expected numbers, got {', '.join(words)[:80]!r}") from error


def _whole(path: Path, line: int, value: float) -> int:
    if not value.is_integer():
        where = f"{path}:{line}" if line else str(path)
        raise DetectorError(f"{where}: expected a frame's number, got {value:g}")
    return int(value)
