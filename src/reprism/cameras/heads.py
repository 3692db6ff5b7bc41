"""Outputs of detectors in ONNX files: which family they are of, and the boxes of people in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reprism.models.checkpoint import CheckpointError

Outputs = Sequence[np.ndarray]
Decode = Callable[[Outputs, tuple[int, int], int], tuple[np.ndarray, np.ndarray]]

_STRIDES = (8, 16, 32)
_DETR_NAMES = {"dets", "labels", "logits", "pred_boxes", "pred_logits"}
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_ZERO_TO_ONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_ZERO_TO_255 = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
_VOC = 21  # classes, background included, of which 15 is a person


@dataclass(frozen=True)
class Head:
    """A family of detectors.

    Attributes:
        family: Its name.
        decode: From all outputs for one image, the height and width of the network's input, and the number of the
            class person, to N×4 boxes in pixels of that input and N scores.
        person: Number of the class person; None if it is not known.
        classes: Number of classes.
        letterbox: Fit the frame into the top left of the input and fill the rest with grey; else stretch it.
        overlapping: It gives several boxes for a person, of which the surest is to be kept.
        bgr: It takes the channels in the order blue, green, red.
        mean, std: Of its images, of pixels scaled to 0 … 1.
    """

    family: str
    decode: Decode
    person: int | None
    classes: int
    letterbox: bool = False
    overlapping: bool = True
    bgr: bool = False
    mean: tuple[float, float, float] = _ZERO_TO_ONE[0]
    std: tuple[float, float, float] = _ZERO_TO_ONE[1]


def recognize(name: str, names: Sequence[str], outputs: Outputs, size: tuple[int, int]) -> Head:
    """Tell the family of a detector from what it returns for an empty image.

    Args:
        name: Its file, for messages.
        names: Names of its outputs.
        outputs: Its outputs for one image.
        size: Height and width of its input.

    Raises:
        CheckpointError: They are of no family that is known; lists the shapes.
    """
    shapes = [output.shape for output in outputs]
    match shapes:
        case [(1, cells, columns)] if columns >= 6 and cells == len(_cells(size)[0]):
            mean, std = _ZERO_TO_255
            person = {80: 0, 1: 0}.get(columns - 5)
            decode = decode_yolox
            # An export may have decoded them already; sizes that are logarithms are never so large.
            if outputs[0][..., 2:4].min() >= 0 and outputs[0][..., 2:4].max() > _STRIDES[0]:
                decode = read_yolox
            return Head("YOLOX", decode, person, columns - 5, letterbox=True, bgr=True, mean=mean, std=std)
        case [(*_, 7)] if len(shapes[0]) in (2, 3, 4):
            mean, std = _ZERO_TO_255
            return Head("SSD", decode_rows, 1, 0, overlapping=False, bgr=True, mean=mean, std=std)
        case [(1, queries, one), (1, same, other)] if queries == same and 4 in (one, other):
            return _pair(names, outputs)
        case [first, second, third] if sum(shape[-1:] == (4,) for shape in shapes) == 1:
            counts = {int(np.prod(shape[:-1] if shape[-1:] == (4,) else shape)) for shape in (first, second, third)}
            if len(counts) == 1 and sum(output.dtype.kind in "iu" for output in outputs) == 1:
                return Head("SSD", decode_labelled, 1, 0, overlapping=False)
    listed = ", ".join(f"{one or 'unnamed'} {_text(shape)}" for one, shape in zip(names, shapes, strict=True))
    raise CheckpointError(
        f"{name}: its outputs are of no detector that is known. It returns {listed} for an image of "
        f"{size[0]}×{size[1]}. Expected YOLOX (1×cells×(5+classes)), RT-DETR or RF-DETR (1×queries×4 and "
        "1×queries×classes), or SSD (N×7, boxes and scores, or boxes, labels and scores)"
    )


def decode_yolox(outputs: Outputs, size: tuple[int, int], person: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode YOLOX: of each cell of three grids, the shift from it and the logarithm of the size, both in strides."""
    (cells,) = outputs
    corners, strides = _cells(size)
    raw = cells[0].astype(np.float32)
    centers = (raw[:, :2] + corners) * strides
    sides = np.exp(np.minimum(raw[:, 2:4], 20)) * strides
    return _corners(centers, sides), raw[:, 4] * raw[:, 5 + person]


def read_yolox(outputs: Outputs, size: tuple[int, int], person: int) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """Read YOLOX that its export has decoded: centers and sizes in pixels."""
    raw = outputs[0][0].astype(np.float32)
    return _corners(raw[:, :2], raw[:, 2:4]), raw[:, 4] * raw[:, 5 + person]


def decode_detr(outputs: Outputs, size: tuple[int, int], person: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode RT-DETR and RF-DETR: centers and sizes as shares of the image, and a logit for each class."""
    boxes, logits = _boxes_first(outputs)
    shares = boxes[0].astype(np.float32) * np.array([size[1], size[0]] * 2, np.float32)
    scores = 1 / (1 + np.exp(-np.clip(logits[0, :, person].astype(np.float32), -60, 60)))
    return _corners(shares[:, :2], shares[:, 2:]), scores


def decode_ssd(outputs: Outputs, size: tuple[int, int], person: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode SSD before its suppression: corners as shares of the image, and the probability of each class."""
    boxes, scores = _boxes_first(outputs)
    return boxes[0] * np.array([size[1], size[0]] * 2, np.float32), scores[0, :, person]


def decode_ssd_pixels(outputs: Outputs, size: tuple[int, int], person: int) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """Decode SSD before its suppression, with corners in pixels."""
    boxes, scores = _boxes_first(outputs)
    return boxes[0].astype(np.float32), scores[0, :, person]


def decode_rows(outputs: Outputs, size: tuple[int, int], person: int) -> tuple[np.ndarray, np.ndarray]:
    """Decode rows of image, label, score, and corners as shares; an image of -1 is after the last one."""
    rows = outputs[0].reshape(-1, 7).astype(np.float32)
    rows = rows[(rows[:, 0] == 0) & (rows[:, 1] == person)]
    return rows[:, 3:] * np.array([size[1], size[0]] * 2, np.float32), rows[:, 2]


def decode_labelled(outputs: Outputs, size: tuple[int, int], person: int) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG001
    """Decode corners in pixels, with a label and a score each, as torchvision exports them."""
    boxes = next(output for output in outputs if output.shape[-1:] == (4,)).reshape(-1, 4)
    labels = next(output for output in outputs if output.dtype.kind in "iu").ravel()
    scores = next(output for output in outputs if output.shape[-1:] != (4,) and output.dtype.kind == "f").ravel()
    return boxes[labels == person].astype(np.float32), scores[labels == person].astype(np.float32)


def _pair(names: Sequence[str], outputs: Outputs) -> Head:
    boxes, classes = _boxes_first(outputs)
    count = classes.shape[-1]
    if classes.min() >= 0 and classes.max() <= 1 and not _DETR_NAMES & set(names):
        decode = decode_ssd if not boxes.size or np.abs(boxes).max() <= 2 else decode_ssd_pixels
        return Head("SSD", decode, 15 if count == _VOC else 1, count)
    is_rf = "dets" in names or count == 91
    mean, std = _IMAGENET if is_rf else _ZERO_TO_ONE
    person = {91: 1, 80: 0, 2: 0, 1: 0}.get(count)
    family = "RF-DETR" if is_rf else "RT-DETR"
    return Head(family, decode_detr, person, count, overlapping=False, mean=mean, std=std)


def _boxes_first(outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    one, other = outputs
    return (one, other) if one.shape[-1] == 4 else (other, one)


def _cells(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the left top of each cell in its grid, N×2, and its stride, N×1: row by row, the finest grid first."""
    corners, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        corners.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _corners(centers: np.ndarray, sides: np.ndarray) -> np.ndarray:
    return np.concatenate([centers - sides / 2, centers + sides / 2], axis=1)


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"
