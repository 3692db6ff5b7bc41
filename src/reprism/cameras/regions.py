"""Parts of a camera's view in which nobody is to be found: a street behind a fence, a screen, a mirror."""

from __future__ import annotations

from io import BytesIO
from os import PathLike

import numpy as np
from PIL import Image

from reprism.cameras.boxes import Boxes, Detector, detect
from reprism.cameras.records import DetectorError, Frame

_WHITE = 128  # of 255, from which on a pixel counts as marked


def read_regions(picture: str | PathLike[str] | bytes) -> np.ndarray:
    """Read which parts of a view are marked white in a picture.

    Args:
        picture: File, or its bytes: the camera's view, painted over, white what is to be left out, all else black or
            dark.

    Returns:
        H×W bool.

    Raises:
        DetectorError: It is no picture, or all of it is white.
    """
    name = "the picture of what to leave out" if isinstance(picture, bytes) else picture
    try:
        with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            marked = np.asarray(image.convert("L")) >= _WHITE
    except (OSError, Image.DecompressionBombError) as error:
        raise DetectorError(f"{name}: expected a picture whose white parts are to be left out ({error})") from error
    if marked.all():
        raise DetectorError(f"{name} is white all over, so that nobody would be found: paint black what is to be seen")
    return marked


def leave_out(detector: Detector, regions: np.ndarray) -> Detector:
    """Return a detector without the people who stand in some parts of the view.

    Args:
        detector: Any detector.
        regions: H×W bool, true where nobody is to be found; of any size, stretched over the frame. A box stands where
            the middle of its lower edge is.

    Raises:
        ValueError: The regions are no H×W array.
    """
    regions = np.asarray(regions, bool)
    if regions.ndim != 2 or not regions.size:
        raise ValueError(f"expected regions H×W, got {'×'.join(map(str, regions.shape)) or 'a number'}")

    def detect_elsewhere(frame: Frame) -> Boxes:
        boxes = detect(detector, frame)
        sides = np.array(frame.image.shape[:2]) / regions.shape
        # The lower edge is the end of the last row of pixels.
        rows = np.ceil(boxes.xyxy[:, 3] / sides[0]).astype(int) - 1
        columns = ((boxes.xyxy[:, 0] + boxes.xyxy[:, 2]) / 2 / sides[1]).astype(int)
        kept = ~regions[rows.clip(0, regions.shape[0] - 1), columns.clip(0, regions.shape[1] - 1)]
        return Boxes(boxes.xyxy[kept], boxes.scores[kept], boxes.dropped)

    return detect_elsewhere
