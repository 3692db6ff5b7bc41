"""Join tracklets of one camera that are one: a track that breaks off, and goes on within seconds.

A tracklet may continue another that ended shortly before if a person can have walked from the one's last box to the
other's first, and if the two look alike. Of all such pairs the best matching is taken: each tracklet continues one at
most, and is continued by one at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from reprism.cameras.crops import BestOverTime, edges_cut
from reprism.cameras.tracklets import Crop, Sight, Tracklet
from reprism.evaluation.calibration import Calibration

T = TypeVar("T")

Name: TypeAlias = tuple[int, int]
"""Index of a tracklet's first frame, and its rank there: the order of names is that of time."""

_LAST = 1.0  # seconds before the last sight, over which its velocity is measured
_FASTEST = 2.0  # body heights per second, which nobody walks faster than
_SLACK = 0.5  # body heights, by which a box may be beside the way: boxes of people who are half hidden are off
_SWERVE = 0.5  # body heights per second of the gap, by which it may be beside the way further
_STEP = 1e-6  # pixels, within which nobody went anywhere
_GROWTH = 2.0  # times that a box may be higher than the other
_MOST = 500  # tracklets that wait to be decided on, at most: some have up to 120 s of others to wait for


@dataclass(frozen=True)
class Limits:
    """Limits within which one tracklet continues another.

    Attributes:
        seconds: Maximum time from the last sight of one to the first of the other.
        distance: Maximum distance of their appearance (:func:`appearance_distance`).
        longest_seconds: Maximum length of a joined tracklet.
        edge_seconds: Maximum time where the one ended at an edge of the frame and the other began at one: after more,
            somebody left and somebody came.

    Raises:
        ValueError: A number is not greater than 0.
    """

    seconds: float
    distance: float
    longest_seconds: float = math.inf
    edge_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value}: expected a number greater than 0")

    @classmethod
    def calibrated(cls, calibration: Calibration, fmr: float, seconds: float, longest_seconds: float) -> Limits:
        """Return limits with the distance within which so small a share of strangers are.

        Args:
            calibration: Calibration of images, by the model that describes the crops.
            fmr: False match rate, between 0 and 1.
            seconds, longest_seconds: As the attributes.

        Raises:
            CalibrationError: It has too few people to show ``fmr``.
            ValueError: A number is out of range.
        """
        if not 0 < fmr < 1:
            raise ValueError(f"fmr={fmr}: expected a rate between 0 and 1")
        return cls(seconds, calibration.threshold(fmr), longest_seconds)


@dataclass(frozen=True, eq=False)
class Piece(Generic[T]):
    """A tracklet that has ended, to be joined with others.

    Attributes:
        tracklet: The tracklet.
        mean: Mean of its crops' descriptors, each of length 1; itself shorter, the less alike they are.
    """

    tracklet: Tracklet[T]
    mean: np.ndarray

    @property
    def name(self) -> Name:
        """Name that is unique within its source."""
        return name_of(self.tracklet)


def name_of(tracklet: Tracklet[T]) -> Name:
    """Return what tells a tracklet from others of its source."""
    return tracklet.first.index, tracklet.rank


# ---- two tracklets ---------------------------------------------------------------------------------------


def appearance_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the root mean square of the distances from each crop of one tracklet to each of another.

    It compares with distances between images, which a calibration is of: for rows of length 1 the mean of their squares
    is 2 - 2·(mean · mean).

    Args:
        one, other: Means of the crops' descriptors, D columns each.

    Returns:
        0 … 2.
    """
    return math.sqrt(max(0.0, 2.0 - 2.0 * float(np.dot(one, other))))


def exit_velocity(tail: Iterable[Sight]) -> np.ndarray:
    """Return the velocity of the middle of the boxes over the last second, by least squares.

    Args:
        tail: Last sights of a tracklet, in the order of time; at least one.

    Returns:
        Pixels per second to the right and down, 2 float64; 0 for a single sight.
    """
    sights = list(tail)
    recent = [sight for sight in sights if sights[-1].seconds - sight.seconds <= _LAST]
    seconds = np.array([sight.seconds for sight in recent])
    seconds -= seconds.mean()
    spread = float(seconds @ seconds)
    if spread <= 0:
        return np.zeros(2)
    velocity: np.ndarray = seconds @ np.array([_middle(sight) for sight in recent]) / spread
    return velocity


def deviation(last: Sight, velocity: np.ndarray, first: Sight) -> float:
    """Return how far a box is from where somebody would be by now: a share of what is allowed.

    They may have gone on, or have stopped on the way, and be half a body height beside it; for each second of the gap
    another half.

    Args:
        last: Last sight of the one who went on.
        velocity: Velocity then (:func:`exit_velocity`).
        first: The later sight.

    Returns:
        0 (went on as before) … 1; infinite if no person gets there, or if one box is more than twice as high as the
        other.
    """
    gap = first.seconds - last.seconds
    heights = sorted(float(sight.box[3] - sight.box[1]) for sight in (last, first))
    if gap <= 0 or heights[0] <= 0 or heights[1] > _GROWTH * heights[0]:
        return math.inf
    speed, height = math.hypot(*velocity), heights[1]
    way = velocity * gap * min(1.0, _FASTEST * height / speed) if speed > 0 else np.zeros(2)
    step, length = _middle(first) - _middle(last), math.hypot(*way)
    stopped = way * min(1.0, max(0.0, float(step @ (way / length)) / length)) if length > _STEP else way
    allowed = (_SLACK + _SWERVE * gap) * height
    if math.hypot(*(step - stopped)) > allowed:
        return math.inf
    return math.hypot(*(step - way)) / (allowed + length)


def gain(earlier: Piece[T], later: Piece[T], limits: Limits) -> float:
    """Return how well one tracklet continues another.

    Returns:
        Above 0 up to 2: 2 less the distance and the deviation, each as a share of what is allowed. 0 if it does not.
    """
    off = deviation_between(earlier, later.tracklet.first, limits)
    distance = appearance_distance(earlier.mean, later.mean)
    if not math.isfinite(off) or distance > limits.distance:
        return 0.0
    return 2.0 - off - distance / limits.distance


def deviation_between(earlier: Piece[T], first: Sight, limits: Limits) -> float:
    """Return the deviation (:func:`deviation`), infinite for a gap that is too long."""
    last = earlier.tracklet.last
    longest = min(limits.seconds, limits.edge_seconds) if _crosses(last, first) else limits.seconds
    if not 0 < first.seconds - last.seconds <= longest:
        return math.inf
    return deviation(last, exit_velocity(earlier.tracklet.tail), first)


def _middle(sight: Sight) -> np.ndarray:
    left, top, right, bottom = (float(value) for value in sight.box)
    return np.array([(left + right) / 2, (top + bottom) / 2])


def _crosses(last: Sight, first: Sight) -> bool:
    """Say whether one ended at an edge of the frame, and the other began at one."""
    return all(edges_cut(sight.box, *sight.size)[0] for sight in (last, first))


# ---- all of them -----------------------------------------------------------------------------------------


def best_matching(gains: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of rows and columns whose gains have the largest sum, each in one pair at most.

    Args:
        gains: N×M, 0 or more; a pair of 0 is none.
    """
    rows, columns = linear_sum_assignment(gains, maximize=True)
    return [(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if gains[row, column] > 0]


def stitch(pieces: Iterable[Piece[T]], limits: Limits) -> list[list[Piece[T]]]:
    """Return which tracklets of one camera are one, whatever their order.

    Args:
        pieces: All tracklets of the camera, of different names.
        limits: Limits within which one continues another.

    Returns:
        Every piece once, those of one person in the order of time, sorted by the first one's name.
    """
    stitcher: Stitcher[T] = Stitcher(limits)
    for piece in sorted(pieces, key=lambda piece: piece.name):
        stitcher.begin(piece.name, piece.tracklet.first)
        stitcher.add(piece)
    return sorted(stitcher.flush(), key=lambda chain: chain[0].name)


def join(chain: Sequence[Piece[T]], crops: int) -> Tracklet[T]:
    """Return several tracklets as one, in the order of time: the best of their crops, from the first to the last sight.

    Args:
        chain: Tracklets of one person; at least one, which is returned as it is.
        crops: Maximum number of crops, as of :func:`reprism.cameras.find_tracklets`.
    """
    tracklets = [piece.tracklet for piece in chain]
    first, last = tracklets[0], tracklets[-1]
    if len(chain) == 1:
        return first
    best: BestOverTime[Crop[T]] = BestOverTime(crops)
    for crop in (crop for one in tracklets for crop in one.crops):
        best.offer(crop.sight.index - first.first.index, crop.score, _give(crop))
    boxes = sum(one.boxes for one in tracklets)
    return Tracklet(first.number, first.rank, first.first, last.last, boxes, last.height, best, last.is_open, last.tail)


def _give(crop: Crop[T]) -> Callable[[], Crop[T]]:
    return lambda: crop


class Stitcher(Generic[T]):
    """Joins the tracklets of one camera while they come in, and gives each out once nothing can continue it any more.

    What it gives out is what :func:`stitch` would of all tracklets together, whenever it is asked; but when more than
    500 wait, they are decided on with what is known.

    Args:
        limits: Limits within which one tracklet continues another.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._firsts: dict[Name, Sight] = {}  # of all that are here, also those that have not ended
        self._pieces: dict[Name, Piece[T]] = {}
        # Pairs that are not decided on: of those that have ended, who may continue each, with the gain where it is
        # known; and of all, whom each may continue.
        self._ahead: dict[Name, dict[Name, float]] = {}
        self._behind: dict[Name, set[Name]] = {}
        # What is decided on.
        self._next: dict[Name, Name | None] = {}
        self._begins: set[Name] = set()  # of those that continue none

    def __len__(self) -> int:
        """Return the number of tracklets that have ended and wait."""
        return len(self._pieces)

    def begin(self, name: Name, first: Sight) -> None:
        """Note a tracklet that begins: it may continue those that ended before."""
        self._firsts[name], self._behind[name] = first, set()
        for earlier in self._ahead:
            self._consider(earlier, name)

    def add(self, piece: Piece[T]) -> None:
        """Take a tracklet that has ended; it was told of by :meth:`begin`."""
        name = piece.name
        self._pieces[name], self._ahead[name] = piece, {}
        for earlier in sorted(self._behind.get(name, ())):
            self._consider(earlier, name)
        for later in self._behind:
            self._consider(name, later)

    def settle(self, seconds: float) -> list[list[Piece[T]]]:
        """Return what is certain by now, as :func:`stitch` does, and forget it.

        Args:
            seconds: Time of a frame, of which everything was told that began or ended until then.
        """
        for tails, heads in self._components():
            if self._are_certain(tails, heads, seconds):
                self._decide(tails, heads)
        if len(self._pieces) > _MOST:
            return self.flush()
        return self._given_out()

    def flush(self) -> list[list[Piece[T]]]:
        """Return everything that has ended, as :func:`stitch` does: nothing that goes on may continue it."""
        for tails, heads in self._components():
            self._decide(tails, [head for head in heads if head in self._pieces])
        for name in list(self._behind):
            self._begins.add(name)
            del self._behind[name]
        return self._given_out()

    def _consider(self, earlier: Name, later: Name) -> None:
        """Note whether one may continue the other, and by what gain, if both have ended."""
        self._ahead[earlier].pop(later, None)
        self._behind[later].discard(earlier)
        if later in self._pieces:
            worth = gain(self._pieces[earlier], self._pieces[later], self.limits)
        else:
            off = deviation_between(self._pieces[earlier], self._firsts[later], self.limits)
            worth = math.nan if math.isfinite(off) else 0.0
        if worth != 0:
            self._ahead[earlier][later] = worth
            self._behind[later].add(earlier)

    def _components(self) -> list[tuple[list[Name], list[Name]]]:
        """Return who competes with whom: ends of tracklets, and beginnings."""
        left = dict.fromkeys(self._behind)
        found = [([tail], list[Name]()) for tail, heads in self._ahead.items() if not heads]
        for start in list(left):
            if start not in left:
                continue
            tails, heads, todo = set[Name](), list[Name](), [start]
            del left[start]
            while todo:
                head = todo.pop()
                heads.append(head)
                for tail in self._behind[head] - tails:
                    tails.add(tail)
                    for other in self._ahead[tail]:
                        if other in left:
                            del left[other]
                            todo.append(other)
            found.append((sorted(tails), sorted(heads)))
        return found

    def _are_certain(self, tails: Iterable[Name], heads: Iterable[Name], seconds: float) -> bool:
        """Say whether nothing that comes later is a candidate, and all that are have ended."""
        before = seconds - self.limits.seconds
        return all(self._pieces[tail].tracklet.last.seconds < before for tail in tails) and all(
            head in self._pieces and self._firsts[head].seconds < before for head in heads
        )

    def _decide(self, tails: Sequence[Name], heads: Sequence[Name]) -> None:
        gains = np.array([[self._ahead[tail].get(head, 0.0) for head in heads] for tail in tails])
        pairs = best_matching(gains) if tails and heads else []
        following = {tails[row]: heads[column] for row, column in pairs}
        for tail in tails:
            self._next[tail] = following.get(tail)
            del self._ahead[tail]
        for head in heads:
            del self._behind[head]
        self._begins.update(set(heads) - set(following.values()))

    def _given_out(self) -> list[list[Piece[T]]]:
        """Give out tracklets from their beginnings on, as far as is decided."""
        given, todo = [], [name for name in sorted(self._begins) if name in self._pieces]
        while todo:
            chain = [todo.pop(0)]
            while (following := self._next.get(chain[-1])) is not None and self._fits(chain[0], following):
                chain.append(following)
            if chain[-1] not in self._next:
                continue  # it may go on
            if following is not None:  # too long together: that one begins anew
                self._begins.add(following)
                todo.append(following)
            given.append([self._pieces.pop(name) for name in chain])
            self._begins.discard(chain[0])
            for name in chain:
                del self._next[name], self._firsts[name]
        return given

    def _fits(self, first: Name, last: Name) -> bool:
        length = self._pieces[last].tracklet.last.seconds - self._firsts[first].seconds
        return length <= self.limits.longest_seconds
