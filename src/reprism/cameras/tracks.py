"""Trackers: which boxes of one frame and the next are of the same person."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from reprism.cameras.boxes import Boxes
from reprism.cameras.records import Frame, TrackerError
from reprism.imports import import_object, is_import_path
from reprism.terminal import did_you_mean

TRACKERS: Mapping[str, str] = {
    "bytetrack": "ByteTrackTracker",
    "ocsort": "OCSORTTracker",
    "sort": "SORTTracker",
    "botsort": "BoTSORTTracker",
    "cbiou": "CBIoUTracker",
}
"""Trackers of the package ``trackers``: the class of each name."""

UNTRACKED = -1
"""Number of a box that is of no track, such as the first one of somebody who may be a mistake of the detector."""

_BUFFER_RATE = 30.0  # frames a second, in which the package counts how long a track may be lost
_MOMENT = 1e-3  # seconds by which a frame with the time of the one before is moved on: the package wants times to rise

Tracker: TypeAlias = Callable[[Frame, Boxes], Any]
"""Gives each box of a frame the number of its track, in the order of the boxes: N whole numbers, :data:`UNTRACKED` for
none. It remembers what it has seen, so that it serves one camera."""


def open_tracker(
    tracker: str | Tracker | type | Any = "bytetrack",
    *,
    fps: float = 25.0,
    lost_seconds: float = 1.0,
    sure: float = 0.5,
) -> Tracker:
    """Open a tracker for one source.

    Args:
        tracker: A key of :data:`TRACKERS`; ``package.module:name`` of your own, whose module :func:`reprism.trust`
            knows; a :data:`Tracker`, which is returned as it is; or an object as the package ``trackers`` has them,
            whose ``update`` takes and returns ``supervision.Detections``. A class is called without arguments.
        fps: Frames per second that the tracker will see, about: how far people move from one to the next. What counts
            are the frames' own times.
        lost_seconds: How long somebody may be out of sight and be known again.
        sure: Minimum score of a box that begins a track, 0 … 1. ByteTrack follows people through lower ones.

    Returns:
        A function from a frame and its boxes to the number of each box's track; call it by :func:`track`.

    Raises:
        TrackerError: The name is unknown, or the package ``trackers`` is not installed.
        ValueError: A number is out of range, or code is not trusted.
    """
    for name, value in (("fps", fps), ("lost_seconds", lost_seconds)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}={value}: expected a number greater than 0")
    if not 0 <= sure <= 1:
        raise ValueError(f"sure={sure}: expected 0 … 1")
    if isinstance(tracker, str) and is_import_path(tracker):
        tracker = import_object(tracker, "the tracker")
    if isinstance(tracker, str):
        return _by_update(_of_package(tracker, fps, lost_seconds, sure), takes_time=True)
    made: Any = tracker() if isinstance(tracker, type) else tracker
    if callable(made):
        return made
    if not callable(getattr(made, "update", None)):
        raise TrackerError(
            f"expected a tracker as a function of a frame and its boxes, or an object with update(detections), got "
            f"{type(made).__name__}"
        )
    return _by_update(made, takes_time=False)


def track(tracker: Tracker, frame: Frame, boxes: Boxes) -> np.ndarray:
    """Number the tracks of a frame's boxes, and make sure that these are numbers.

    Args:
        tracker: As :func:`open_tracker` returns it.
        frame: The frame.
        boxes: Boxes in it.

    Returns:
        N int64, in the boxes' order; :data:`UNTRACKED` for a box of no track.

    Raises:
        ValueError: The tracker returned something else, or one number for two boxes; names it.
    """
    numbers = np.asarray(tracker(frame, boxes))
    name = getattr(tracker, "__name__", type(tracker).__name__)
    if numbers.size == 0:
        numbers = numbers.astype(np.int64)
    if numbers.shape != (len(boxes),) or numbers.dtype.kind not in "iu":
        raise ValueError(
            f"the tracker {name} returned {numbers.dtype} of shape {numbers.shape} for frame {frame.index}; expected a "
            f"whole number for each of {len(boxes)} boxes"
        )
    numbers = np.maximum(numbers.astype(np.int64), UNTRACKED)
    tracked = numbers[numbers != UNTRACKED]
    if len(np.unique(tracked)) < len(tracked):
        raise ValueError(f"the tracker {name} gave two boxes of frame {frame.index} the same number")
    return numbers


def _of_package(name: str, fps: float, lost_seconds: float, sure: float) -> Any:
    if name not in TRACKERS:
        raise TrackerError(
            f"unknown tracker {name!r}.{did_you_mean(name, TRACKERS)} Known: {', '.join(TRACKERS)}, or "
            "package.module:name of your own"
        )
    try:
        import trackers
    except ImportError as error:
        raise TrackerError(
            f"the tracker {name} needs the package {error.name}: pip install 'reprism[track]'"
        ) from error
    options: dict[str, Any] = {"lost_track_buffer": max(1, round(_BUFFER_RATE * lost_seconds)), "frame_rate": fps}
    if name != "ocsort":
        options["track_activation_threshold"] = sure
    if name != "sort":
        options["high_conf_det_threshold"] = sure
    if name == "botsort":
        options["enable_cmc"] = False  # the camera is fixed
    return getattr(trackers, TRACKERS[name])(**options)


def _by_update(tracker: Any, *, takes_time: bool) -> Tracker:
    """Return a tracker of the package's kind as a function."""
    try:
        import supervision
    except ImportError as error:
        raise TrackerError(f"trackers need the package {error.name}: pip install 'reprism[track]'") from error
    last = -math.inf

    def track_boxes(frame: Frame, boxes: Boxes) -> np.ndarray:
        nonlocal last
        numbers = np.full(len(boxes), UNTRACKED, np.int64)
        # It may change the order, and leave boxes out: each says where it was.
        given = supervision.Detections(
            boxes.xyxy.reshape(-1, 4),
            confidence=boxes.scores,
            class_id=np.zeros(len(boxes), int),
            data={"row": np.arange(len(boxes))},
        )
        last = max(frame.seconds, last + _MOMENT)
        found = tracker.update(given, timestamp=last) if takes_time else tracker.update(given)
        if len(found):
            numbers[np.asarray(found.data["row"], int)] = found.tracker_id
        return numbers

    track_boxes.__name__ = type(tracker).__name__
    return track_boxes
