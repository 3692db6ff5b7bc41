"""Choose the crops of a tracklet that are worth describing: whole, free, steady, sharp, large, and spread over time.

All of it is done while frames come in, and memory holds a few crops of a person, however long they stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")
U = TypeVar("U")

_WORKING_HEIGHT = 128  # pixels, to which crops are brought before their sharpness is measured
_LARGE = 64.0  # pixels of height, beyond which more of them show in the sharpness alone
_EDGE = 1.5  # pixels from the frame's edge, within which a box counts as cut by it
_CUT = 0.5  # share of its score that a box keeps for each edge that cuts it
_CHANGE = 0.1  # change of a box's height against the usual one, at which half of its score is left
_FOLLOWING = 0.2  # share of a new height in the usual one: some five boxes count
_LEAST_SURE = 0.01  # score of a detector, below which its boxes are not told apart: files have zeros
_CANDIDATES = 2  # stretches of time for each crop that may be chosen
_WORSE = 0.6  # share of the best crop's score, below which a crop takes more from the mean than it gives
_NOISE = 20.0  # variance of the Laplacian of noise whose own variance is 1: the squares of its weights, 4·1 + 16


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the pixels of a box, as a view of the image; whole pixels, at least one.

    Args:
        image: H×W×3.
        box: Left, top, right and bottom in pixels, within the image.
    """
    height, width = image.shape[:2]
    left, top = (int(np.floor(value)) for value in box[:2])
    right, bottom = (int(np.ceil(value)) for value in box[2:])
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return image[top : max(min(bottom, height), top + 1), left : max(min(right, width), left + 1)]


def sharpness(crop: np.ndarray) -> float:
    """Measure how sharp a crop is: the variance of its Laplacian, as a share of that of noise of the same contrast.

    Neither brightness, nor contrast, nor size counts: crops are brought to one height before.

    Args:
        crop: H×W×3 uint8 RGB.

    Returns:
        0 (blurred, or of one colour) … 1.
    """
    import cv2

    height, width = crop.shape[:2]
    size = (max(3, round(width * _WORKING_HEIGHT / height)), _WORKING_HEIGHT)
    gray = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
    shape = cv2.INTER_AREA if height > _WORKING_HEIGHT else cv2.INTER_LINEAR
    small = cv2.resize(gray, size, interpolation=shape).astype(np.float32)
    contrast = float(small.var())
    if contrast < 1.0:
        return 0.0
    return min(1.0, float(cv2.Laplacian(small, cv2.CV_32F).var()) / (_NOISE * contrast))


def edges_cut(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Count the edges of the frame at which each box ends: there the person may go on.

    Args:
        boxes: N×4, left, top, right and bottom in pixels.
        height, width: Of the frame.

    Returns:
        N int64, 0 … 4.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    near = [boxes[:, 0], boxes[:, 1], width - boxes[:, 2], height - boxes[:, 3]]
    return (np.stack(near, axis=1) < _EDGE).sum(axis=1)


def covered(boxes: np.ndarray) -> np.ndarray:
    """Return the share of each box that the one other box covers that covers most of it.

    Args:
        boxes: N×4, left, top, right and bottom.

    Returns:
        N float64, 0 (free) … 1.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if len(boxes) < 2:
        return np.zeros(len(boxes))
    starts = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    ends = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.clip(ends - starts, 0, None).prod(axis=2)
    np.fill_diagonal(shared, 0)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return shared.max(axis=1) / np.maximum(areas, np.finfo(float).tiny)


def usual_height(usual: float, height: float) -> float:
    """Return the usual height of a person's boxes after one more: a geometric mean in which some five count.

    Args:
        usual: The usual height so far, in pixels; of the first box its own.
        height: Height of the next box in pixels.
    """
    return float(usual ** (1 - _FOLLOWING) * height**_FOLLOWING)


def crop_score(*, height: float, usual: float, sharp: float, edges: int, share: float, sure: float) -> float:
    """Say how much a crop is worth describing, to compare crops of one person in one camera.

    A product, so that a crop that is bad in one way is not chosen for being good in another:

    - a half for each edge of the frame that cuts it, and the share that no other box covers;
    - a half where its height differs by a tenth from the usual one, and less beyond: such a box has taken in a shadow
      or a neighbour, or lost the legs;
    - the detector's own score;
    - the root of its height up to 64 pixels, and the fourth root of its sharpness. Both differ much among crops that
      are equally good, so that they count for less.

    Args:
        height: Height of the box in pixels.
        usual: Usual height of the person's boxes before it in pixels (:func:`usual_height`).
        sharp: Sharpness of the crop, 0 … 1 (:func:`sharpness`).
        edges: Number of the frame's edges that cut it (:func:`edges_cut`).
        share: Share of it that another box covers, 0 … 1 (:func:`covered`).
        sure: The detector's score, 0 … 1.

    Returns:
        0 … 1, larger is better.
    """
    whole = _CUT**edges * (1.0 - min(1.0, share))
    steady = 1.0 / (1.0 + abs(math.log(height / usual)) / _CHANGE)
    fine = math.sqrt(min(1.0, height / _LARGE) * math.sqrt(sharp))
    return whole * steady * fine * min(1.0, max(_LEAST_SURE, sure))


@dataclass
class BestOverTime(Generic[T]):
    """Keeps the best of what comes in, spread over time.

    While it comes in, the best of each stretch of time is held: of ``2 · most`` stretches of equal length at most. They
    begin with the first moment and are one unit long. When there would be more of them, each two neighbours become one,
    so that there are between ``most`` and twice as many for anything longer. Of these the best are kept, but none that
    is much worse than the best of all: a bad crop spoils a mean. The choice depends on what came in alone; of equals it
    is the earlier.

    Attributes:
        most: Maximum number to keep.
        length: Length of a stretch at present, in units.
    """

    most: int
    length: int = 1
    _best: dict[int, tuple[float, int, T]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most={self.most}: expected 1 or more")

    def offer(self, moment: int, score: float, make: Callable[[], T]) -> bool:
        """Hold what ``make`` makes if it is the best of its stretch of time; else it is not called.

        Args:
            moment: Units of time since the first one, 0 or more; never less than before.
            score: Larger is better.
            make: Makes what is held.

        Returns:
            Whether it is held.
        """
        while moment // self.length >= _CANDIDATES * self.most:
            self._halve()
        stretch = moment // self.length
        if stretch in self._best and self._best[stretch][0] >= score:
            return False
        self._best[stretch] = (score, moment, make())
        return True

    def kept(self) -> list[T]:
        """Return the best, ``most`` of them at most, in the order of time; at least one of what came in."""
        return [item for _, (_, _, item) in self._chosen()]

    def changed(self, change: Callable[[T], U]) -> BestOverTime[U]:
        """Return what is kept, with something else in place of each, in the order of time."""
        chosen = {stretch: (score, moment, change(item)) for stretch, (score, moment, item) in self._chosen()}
        return BestOverTime(self.most, self.length, chosen)

    def _chosen(self) -> list[tuple[int, tuple[float, int, T]]]:
        """Return the stretches whose best are kept, in the order of time."""
        held = sorted(self._best.items(), key=lambda one: (-one[1][0], one[1][1]))[: self.most]
        good = [one for one in held if one[1][0] >= _WORSE * held[0][1][0]]
        return sorted(good, key=lambda one: one[1][1])

    def _halve(self) -> None:
        self.length *= 2
        merged: dict[int, tuple[float, int, T]] = {}
        for stretch in sorted(self._best):
            one = self._best[stretch]
            if stretch // 2 not in merged or one[0] > merged[stretch // 2][0]:
                merged[stretch // 2] = one
        self._best = merged
