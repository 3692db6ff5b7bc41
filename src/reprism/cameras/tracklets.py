"""From the frames of one camera to tracklets: each is one person from coming into view to leaving it, with crops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

import numpy as np

from reprism.cameras.boxes import Boxes, Detector, detect
from reprism.cameras.crops import BestOverTime, covered, crop_score, cut, edges_cut, sharpness, usual_height
from reprism.cameras.records import Frame
from reprism.cameras.tracks import UNTRACKED, Tracker, track

T = TypeVar("T")
U = TypeVar("U")

_TAIL = 32  # sights at the end of a tracklet that are kept: a second of most cameras, in which people hardly turn


@dataclass(frozen=True, eq=False)
class Sight:
    """A person's box in a frame, with the frame's time.

    Attributes:
        index, seconds, time: Of the frame, as of :class:`reprism.cameras.Frame`.
        box: Left, top, right and bottom in pixels, 4 float32.
        size: Height and width of the frame in pixels.
    """

    index: int
    seconds: float
    time: datetime | None
    box: np.ndarray
    size: tuple[int, int]

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """The box in shares of the frame's width and height, 0 … 1."""
        height, width = self.size
        left, top, right, bottom = (float(value) for value in self.box)
        return left / width, top / height, right / width, bottom / height


@dataclass(frozen=True, eq=False)
class Crop(Generic[T]):
    """A crop that was chosen.

    Attributes:
        sight: Where and when it was seen.
        score: How much it is worth describing (:func:`reprism.cameras.crops.crop_score`).
        picture: What was kept of its pixels.
    """

    sight: Sight
    score: float
    picture: T


@dataclass(eq=False)
class Tracklet(Generic[T]):
    """One person, from coming into view to leaving it.

    Attributes:
        number: Number of the track, as the tracker has it.
        rank: Number among the tracklets that begin in the same frame, from 0, in the order of the boxes. With the index
            of that frame it names a tracklet, whatever numbers the tracker gives.
        first, last: First and last sight.
        boxes: Number of frames in which the person was seen.
        height: Usual height of the last boxes in pixels (:func:`reprism.cameras.crops.usual_height`).
        best: The crops.
        is_open: The frames ended while the person was in view.
        tail: Last sights, at most 32.
    """

    number: int
    rank: int
    first: Sight
    last: Sight
    boxes: int
    height: float
    best: BestOverTime[Crop[T]] = field(repr=False)
    is_open: bool = False
    tail: deque[Sight] = field(default_factory=lambda: deque(maxlen=_TAIL), repr=False)

    @property
    def crops(self) -> list[Crop[T]]:
        """The chosen crops, in the order of time; at least one."""
        return self.best.kept()

    @property
    def seconds(self) -> float:
        """Seconds from the first to the last sight."""
        return self.last.seconds - self.first.seconds

    def with_pictures(self, change: Callable[[T], U]) -> Tracklet[U]:
        """Return the tracklet with something else in place of each crop's picture, called in the order of time."""
        best = self.best.changed(lambda crop: Crop(crop.sight, crop.score, change(crop.picture)))
        given = (self.number, self.rank, self.first, self.last, self.boxes, self.height)
        return Tracklet(*given, best, self.is_open, self.tail)


@dataclass
class Counts:
    """Counts of frames, boxes and tracklets so far, for a display of progress.

    Attributes:
        frames: Number of frames.
        boxes: Number of boxes of people in them.
        open: Number of people in view.
        tracklets: Number of tracklets that have ended.
        index: Index of the last frame.
        seconds: Seconds from the source's first frame to the last one.
    """

    frames: int = 0
    boxes: int = 0
    open: int = 0
    tracklets: int = 0
    index: int = -1
    seconds: float = 0.0


def find_tracklets(
    frames: Iterable[Frame | None],
    detector: Detector,
    tracker: Tracker,
    keep: Callable[[np.ndarray], T],
    *,
    crops: int = 15,
    lost_seconds: float = 1.0,
    longest_seconds: float = 120.0,
    counts: Counts | None = None,
    seen: Callable[[Frame, Boxes, np.ndarray], object] | None = None,
    begun: Callable[[Tracklet[T]], object] | None = None,
) -> Iterator[Tracklet[T]]:
    """Yield the tracklets of one camera as they end. Memory holds the people in view alone, some crops of each.

    A tracklet ends when its track has had no box for ``lost_seconds``, or with the last frame. Somebody who stays for
    longer than ``longest_seconds`` has several, one after the other.

    Args:
        frames: Frames of one camera, in order. None ends all tracklets, where a stream has stalled.
        detector: Finds people (:func:`reprism.cameras.open_detector`).
        tracker: Numbers them (:func:`reprism.cameras.open_tracker`).
        keep: Makes what is kept of the pixels of a crop (H×W×3 uint8 RGB, a view of the frame): a copy, of a size that
            is fixed, bounds the memory.
        crops: Maximum number of crops of a tracklet: the best ones, and none that is much worse than the best.
        lost_seconds: Seconds without a box, after which a tracklet has ended.
        longest_seconds: Maximum length of a tracklet in seconds, so that those who stay are in the gallery soon.
        counts: Kept up to date.
        seen: Called with each frame, the boxes in it and the number of each box's track
            (:data:`reprism.cameras.tracks.UNTRACKED` for none).
        begun: Called with each tracklet when it begins.

    Raises:
        ValueError: The detector or the tracker returned something else than they should.
    """

    def is_over(one: Tracklet[T], frame: Frame) -> bool:
        return frame.seconds - one.last.seconds > lost_seconds or frame.seconds - one.first.seconds > longest_seconds

    counts = counts if counts is not None else Counts()
    in_view: dict[int, Tracklet[T]] = {}
    for frame in frames:
        for number in [key for key, one in in_view.items() if frame is None or is_over(one, frame)]:
            counts.tracklets += 1
            yield in_view.pop(number)
        counts.open = len(in_view)
        if frame is None:
            continue
        boxes = detect(detector, frame)
        numbers = track(tracker, frame, boxes)
        if seen is not None:
            seen(frame, boxes, numbers)
        for number in _see(frame, boxes, numbers, in_view, keep, crops):
            if begun is not None:
                begun(in_view[number])
        counts.frames, counts.boxes, counts.open = counts.frames + 1, counts.boxes + len(boxes), len(in_view)
        counts.index, counts.seconds = frame.index, frame.seconds
    counts.open = 0
    for one in in_view.values():
        counts.tracklets += 1
        one.is_open = True
        yield one


def _see(
    frame: Frame,
    boxes: Boxes,
    numbers: np.ndarray,
    in_view: dict[int, Tracklet[T]],
    keep: Callable[[np.ndarray], T],
    crops: int,
) -> list[int]:
    """Add a frame's boxes to the tracklets in view; new numbers begin new ones, and are returned."""
    height, width = frame.image.shape[:2]
    edges, shares = edges_cut(boxes.xyxy, height, width), covered(boxes.xyxy)
    new: list[int] = []
    for row in np.flatnonzero(numbers != UNTRACKED):
        number, box = int(numbers[row]), boxes.xyxy[row].copy()
        sight = Sight(frame.index, frame.seconds, frame.time, box, (height, width))
        tall = float(box[3] - box[1])
        if number not in in_view:
            in_view[number] = Tracklet(number, len(new), sight, sight, 0, tall, BestOverTime(crops))
            new.append(number)
        one = in_view[number]
        one.last, one.boxes = sight, one.boxes + 1
        one.tail.append(sight)
        pixels = cut(frame.image, box)
        score = crop_score(
            height=tall,
            usual=one.height,
            sharp=sharpness(pixels),
            edges=int(edges[row]),
            share=float(shares[row]),
            sure=float(boxes.scores[row]),
        )
        one.height = usual_height(one.height, tall)
        moment = frame.index - one.first.index
        one.best.offer(moment, score, _maker(sight, score, pixels, keep))
    return new


def _maker(sight: Sight, score: float, pixels: np.ndarray, keep: Callable[[np.ndarray], T]) -> Callable[[], Crop[T]]:
    return lambda: Crop(sight, score, keep(pixels))
