"""Boxes of people in a frame: what every detector returns, and the check of what it returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from reprism.cameras.records import Frame

MAX_BOXES = 1000
"""Boxes of a frame that are kept, the surest first: more than any picture has people that can be told apart."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of people in a frame.

    Attributes:
        xyxy: N×4 float32: left, top, right and bottom in pixels of the frame. Pixel 0 reaches from 0 to 1.
        scores: N float32, larger is surer; 0 … 1 (default: all 1).
        dropped: Number of boxes that were left out for being no boxes, outside the frame, or beyond the
            :data:`MAX_BOXES` surest.

    Raises:
        ValueError: The arrays are of other shapes.
    """

    xyxy: np.ndarray
    scores: np.ndarray = None  # type: ignore[assignment]
    dropped: int = 0

    def __post_init__(self) -> None:
        xyxy = _numbers(self.xyxy, "boxes")
        xyxy = xyxy.reshape(0, 4) if not xyxy.size else xyxy
        if xyxy.ndim != 2 or xyxy.shape[1] != 4:
            raise ValueError(f"expected boxes N×4 (left, top, right, bottom), got {_shape(xyxy)}")
        scores = np.ones(len(xyxy), np.float32) if self.scores is None else _numbers(self.scores, "scores")
        if scores.shape != (len(xyxy),):
            raise ValueError(f"expected a score for each of {len(xyxy)} boxes, got {_shape(scores)}")
        object.__setattr__(self, "xyxy", xyxy)
        object.__setattr__(self, "scores", scores)

    def __len__(self) -> int:
        return len(self.xyxy)


Detector: TypeAlias = Callable[[Frame], Boxes]
"""Finds the people in a frame. Any function will do; one that keeps something between frames serves one camera."""


def detect(detector: Detector, frame: Frame) -> Boxes:
    """Find the people in a frame, and make sure that what was found are boxes in it.

    Boxes are clipped to the frame. Dropped and counted are those with a number that is not finite, without width or
    height, outside the frame, and beyond the :data:`MAX_BOXES` surest.

    Args:
        detector: Any function from a frame to :class:`Boxes`; it may also return an N×4 array, or a pair of boxes and
            scores.
        frame: The frame.

    Returns:
        Boxes in the frame, in the detector's order.

    Raises:
        ValueError: The detector returned something else; names it.
    """
    found: Any = detector(frame)
    try:
        if not isinstance(found, Boxes):
            found = Boxes(*found) if isinstance(found, tuple) else Boxes(found)
    except (TypeError, ValueError) as error:
        name = getattr(detector, "__name__", type(detector).__name__)
        raise ValueError(f"the detector {name} returned no boxes for frame {frame.index}: {error}") from error
    return within(found, frame.image.shape[0], frame.image.shape[1])


def within(boxes: Boxes, height: int, width: int) -> Boxes:
    """Clip boxes to a frame, and drop those that :func:`detect` drops.

    Args:
        boxes: Boxes, any numbers.
        height, width: Of the frame, in pixels.
    """
    limits = np.array([width, height, width, height], np.float32)
    whole = np.isfinite(boxes.xyxy).all(axis=1) & np.isfinite(boxes.scores)
    clipped = np.clip(np.where(whole[:, None], boxes.xyxy, 0), 0, limits)
    whole &= (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    kept = np.flatnonzero(whole)
    if len(kept) > MAX_BOXES:
        surest = np.argsort(-boxes.scores[kept], kind="stable")[:MAX_BOXES]
        kept = kept[np.sort(surest)]
    return Boxes(clipped[kept], boxes.scores[kept], boxes.dropped + len(boxes) - len(kept))


def _numbers(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected {what} as numbers, got {type(values).__name__}") from error


def _shape(values: np.ndarray) -> str:
    return "×".join(map(str, values.shape)) or "a number"
