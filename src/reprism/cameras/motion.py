"""Detect what moves before a fixed camera, by background subtraction: needs no weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reprism.cameras.boxes import Boxes
from reprism.cameras.records import DetectorError, Frame

_WORKING_HEIGHT = 360  # pixels, to which larger frames are reduced: people are found as well, in a fraction of the time
_SHADOW = 127  # OpenCV's mark of a shadow
_EVERYTHING = 0.6  # share of the frame, beyond which not people move but the light or the camera has changed
_BACKGROUND = 0.7  # share of the time that a pixel is seen without people, at least
_USUAL_WIDTH = 0.42  # of a walking person, in heights
_WITHIN = 0.3  # height of a shadow with something that moves above and below, as a share of the frame's
_GAP = 0.3  # between the pieces of a person, in heights of the larger
_SPECK = 0.02  # area of a piece, in squares of the least height, below which it is noise
_MOST_PIECES = 500

Box = tuple[int, int, int, int]


def motion_detector(
    *,
    min_height: float = 0.1,
    aspect: tuple[float, float] = (1.4, 6.0),
    history: int = 500,
    threshold: float = 16.0,
    warm_up: int = 10,
) -> Callable[[Frame], Boxes]:
    """Make a detector of moving people, for the frames of one fixed camera in their order.

    Every pixel has a background of several colours (OpenCV's MOG2), which follows slow changes of the light. What
    differs from it, shadows aside, is joined to blobs; those of a person's height and shape are kept, and wide ones are
    cut into people who walk side by side.

    It does not know what a person is: a car or a dog is cut into boxes as well, if it has the size. Who stands
    still disappears into the background after a third of ``history`` frames; where somebody leaves who was there from
    the start, an empty box stays for as long. People in a crowd share boxes.

    Args:
        min_height: Minimum height of a person as a share of the frame's height, 0 … 1.
        aspect: Minimum and maximum height of a box in its widths; wider blobs are cut.
        history: Number of frames by which the background is learned.
        threshold: Square of the distance between a pixel and its background, in standard deviations, beyond which it
            moves.
        warm_up: Number of frames at the start, and after a change of the whole frame, that only teach the background.

    Returns:
        A detector with a memory. A score is the share of its box that moves. A frame of another size than the last one
        begins anew.

    Raises:
        ValueError: An argument is out of range.
        DetectorError: OpenCV is not installed.
    """
    low, high = aspect
    if not 0 < min_height <= 1 or not 0 < low < high:
        raise ValueError(f"expected 0 < min_height ≤ 1 and aspect ascending, got {min_height} and {aspect}")
    if history < 1 or threshold <= 0 or warm_up < 0:
        raise ValueError(f"expected history ≥ 1, threshold > 0, warm_up ≥ 0, got {history}, {threshold}, {warm_up}")
    try:
        import cv2
    except ImportError as error:
        raise DetectorError(
            f"the detector motion needs the package {error.name}: pip install 'reprism[video]'"
        ) from error

    background, size, seen = None, (0, 0), 0

    def detect_motion(frame: Frame) -> Boxes:
        nonlocal background, size, seen
        height, width = frame.image.shape[:2]
        if size != (height, width):
            size, seen = (height, width), 0
        if seen == 0:
            background = cv2.createBackgroundSubtractorMOG2(history, threshold, detectShadows=True)
            background.setBackgroundRatio(_BACKGROUND)
        scale = min(1.0, _WORKING_HEIGHT / height)
        small = frame.image
        if scale < 1:
            small = cv2.resize(small, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        # OpenCV's own rate would take somebody for background after three frames, early on.
        rate = -1 if seen < warm_up else 1 / history
        marks = background.apply(small, learningRate=rate)  # type: ignore[union-attr]
        seen += 1
        if seen <= max(1, warm_up):
            return Boxes(np.empty((0, 4)))
        if (marks > _SHADOW).mean() > _EVERYTHING:
            seen = 0
            return Boxes(np.empty((0, 4)))
        found, scores = find_people(marks > _SHADOW, marks == _SHADOW, min_height, aspect)
        sides = np.array([width / marks.shape[1], height / marks.shape[0]] * 2, np.float32)
        return Boxes(found * sides, scores)

    return detect_motion


def find_people(
    moving: np.ndarray, shadow: np.ndarray, min_height: float, aspect: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Find boxes of a person's shape in a mask of what moves.

    Args:
        moving: H×W bool.
        shadow: H×W bool, what moves and has its background's colour, only darker.
        min_height, aspect: As in :func:`motion_detector`.

    Returns:
        Boxes N×4 float32 (left, top, right, bottom in pixels of the mask), and the share of each that moves.
    """
    import cv2

    height = moving.shape[0]
    least = min_height * height
    mask = cv2.medianBlur(moving.astype(np.uint8), 3)  # single pixels are noise
    # A grey coat before a grey wall passes for a shadow; but a shadow lies on the ground, not between head and legs.
    reach = max(3, round(_WITHIN * height)) | 1
    within = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((reach, 3), np.uint8))
    above = cv2.dilate(mask, np.ones((max(2, round(least / 2)), 1), np.uint8), anchor=(0, 0))
    mask = np.bitwise_or(mask, cv2.medianBlur(shadow.astype(np.uint8), 3) & np.bitwise_or(within, above))
    joined = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((5, 3), np.uint8))
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    specks = stats[:, cv2.CC_STAT_AREA] < _SPECK * least * least
    pieces = [(left, top, left + wide, top + high) for left, top, wide, high, _ in stats[1:][~specks[1:]].tolist()]
    boxes = [
        part
        for whole in _joined(pieces, aspect)
        for part in _cut(mask, whole, aspect[0])
        if part[3] - part[1] >= least and part[3] - part[1] <= aspect[1] * (part[2] - part[0])
    ]
    scores = [mask[top:bottom, left:right].mean() for left, top, right, bottom in boxes]
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)


def _joined(pieces: list[Box], aspect: tuple[float, float]) -> list[Box]:
    """Join the pieces of a person, of whom a part has the colour of the wall: the highest one takes the others in."""
    rest, whole = sorted(pieces, key=lambda box: box[1] - box[3])[:_MOST_PIECES], []
    while rest:
        box = rest.pop(0)
        while other := next((each for each in rest if _belong(box, each, aspect)), None):
            rest.remove(other)
            box = _around(box, other)
        whole.append(box)
    return whole


def _belong(box: Box, other: Box, aspect: tuple[float, float]) -> bool:
    """Return whether two pieces are of one person: one above the other, or a foot beside a body."""
    left, top, right, bottom = _around(box, other)
    if not aspect[0] * (right - left) <= bottom - top <= aspect[1] * (right - left):
        return False
    high = box[3] - box[1]
    shared = min(box[2], other[2]) - max(box[0], other[0])
    gap = max(box[1], other[1]) - min(box[3], other[3])
    if shared >= min(box[2] - box[0], other[2] - other[0]) / 2:
        return gap <= _GAP * high
    return other[3] - other[1] <= high / 2 and gap < 0 and -shared <= _GAP / 2 * high


def _around(box: Box, other: Box) -> Box:
    return (min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3]))


def _cut(mask: np.ndarray, box: Box, least: float) -> list[Box]:
    """Cut what is too wide for one person into people side by side, each as tight as what moves in it."""
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    count = 1 if high >= least * wide else max(2, round(wide / (_USUAL_WIDTH * high)))
    parts = []
    for number in range(count):
        start, end = left + wide * number // count, left + wide * (number + 1) // count
        rows, columns = np.nonzero(mask[top:bottom, start:end])
        if len(rows):
            tight = (start + columns.min(), top + rows.min(), start + columns.max() + 1, top + rows.max() + 1)
            parts.append((int(tight[0]), int(tight[1]), int(tight[2]), int(tight[3])))
    return [part for part in parts if part[3] - part[1] >= least * (part[2] - part[0])]
