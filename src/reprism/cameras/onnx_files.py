"""Detectors in ONNX files: YOLOX, RT-DETR, RF-DETR and plain SSD, known by the shapes of their outputs.

A YAML file of the same name beside it (``model.yaml`` for ``model.onnx``) may say what the shapes do not::

    size: [640, 640]               # height and width in pixels, if the file leaves them open (default: 640, 640)
    person: 0                      # number of the class person
    mean: [0.485, 0.456, 0.406]    # of red, green and blue, of pixels scaled to 0 … 1
    std: [0.229, 0.224, 0.225]
    bgr: false                     # true for a network that takes blue, green, red
"""

from __future__ import annotations

import dataclasses
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from reprism.cameras.boxes import Boxes, Detector
from reprism.cameras.heads import Head, recognize
from reprism.cameras.records import DetectorError, Frame
from reprism.engines.session import Engine, Session, one_line
from reprism.models.checkpoint import CheckpointError
from reprism.precision import Precision

_FIELDS = ("size", "person", "mean", "std", "bgr")
_GREY = 114  # what YOLOX was trained with around its images
_OVERLAP = 0.45  # YOLOX's own, above which the less sure of two boxes is dropped
_OPEN_SIZE = (640, 640)


def onnx_detector(
    path: str | PathLike[str],
    *,
    score: float = 0.3,
    person: int | None = None,
    device: str = "cpu",
    engine: Engine = "auto",
    precision: Precision = "fp32",
) -> Detector:
    """Open a detector in an ONNX file.

    Args:
        path: The file. A YAML file beside it is read, see :mod:`reprism.cameras.onnx_files`.
        score: Minimum score of a box, 0 … 1.
        person: Number of the class person (default: the family's own; COCO's for 80 and 91 classes).
        device: Device to run on, if ONNX Runtime was installed for it; otherwise the CPU.
        engine, precision: As in :func:`reprism.engines.files.open_session`.

    Returns:
        A detector that keeps nothing between frames.

    Raises:
        CheckpointError: The file is missing, damaged, has weights outside its folder, is of no family that is known
            (the message lists its shapes), or an engine is not installed.
        DetectorError: OpenCV is not installed.
        ValueError: ``score`` is out of range.
    """
    from reprism.engines.files import open_session
    from reprism.engines.onnx import settings_beside

    if not 0 <= score <= 1:
        raise ValueError(f"score={score}: expected 0 … 1")
    path = Path(path)
    settings = settings_beside(path, _FIELDS)
    size = _pair_of_sides(path, settings.pop("size", _OPEN_SIZE))
    session = open_session(path, size, device=device, engine=engine, precision=precision)
    size = (session.shape[2] or size[0], session.shape[3] or size[1]) if len(session.shape) == 4 else size
    if len(session.shape) != 4 or session.shape[0] not in (1, None) or session.shape[1] not in (3, None):
        raise CheckpointError(f"{path} takes {session.inputs}; expected one image, 1×3×H×W floating-point numbers")
    grey = np.full((1, 3, *size), 0.5, session.dtype)
    head = recognize(str(path), session.outputs, _run(session, grey, path), size)
    head = _with_settings(path, head, settings, person)
    if head.person is None:
        raise CheckpointError(
            f"{path} has {head.classes} classes, and which one is a person is not known: write person: NUMBER into "
            f"{path.with_suffix('.yaml')}, in Python give person=NUMBER"
        )
    found_person = head.person

    def detect_people(frame: Frame) -> Boxes:
        pixels, scale = prepare(frame.image, size, head)
        outputs = _run(session, pixels.astype(session.dtype, copy=False), path)
        boxes, scores = head.decode(outputs, size, found_person)
        with np.errstate(invalid="ignore"):
            sure = scores >= score
        boxes, scores = boxes[sure], scores[sure]
        if head.overlapping:
            kept = suppress(boxes, scores, _OVERLAP)
            boxes, scores = boxes[kept], scores[kept]
        return Boxes(boxes / np.array([*scale, *scale], np.float32), scores)

    return detect_people


def prepare(image: np.ndarray, size: tuple[int, int], head: Head) -> tuple[np.ndarray, tuple[float, float]]:
    """Turn a frame into a network's input.

    Args:
        image: H×W×3 uint8 RGB.
        size: Height and width of the input.
        head: Family of the network, which says how.

    Returns:
        1×3×height×width float32, and the factors by which the frame's columns and rows were scaled.

    Raises:
        DetectorError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DetectorError(
            f"the detector onnx needs the package {error.name}: pip install 'reprism[video]'"
        ) from error
    height, width = image.shape[:2]
    scale = (size[1] / width, size[0] / height)
    if head.letterbox:
        scale = (min(scale), min(scale))
    # Rounded down as YOLOX does it: the frame has never more pixels than the input.
    inner = (max(1, int(width * scale[0] + 1e-6)), max(1, int(height * scale[1] + 1e-6)))
    resized = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
    canvas = np.full((*size, 3), _GREY, np.uint8)
    canvas[: inner[1], : inner[0]] = resized
    pixels = (canvas.astype(np.float32) / 255 - np.array(head.mean, np.float32)) / np.array(head.std, np.float32)
    if head.bgr:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), scale


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Return the indices of the boxes that no surer one overlaps by more, the surest first.

    Args:
        boxes: N×4 float32, xyxy.
        scores: N float32.
        overlap: Intersection over union, 0 … 1.
    """
    import torch
    from torchvision.ops import nms

    whole = np.flatnonzero(np.isfinite(boxes).all(axis=1))
    tensors = (torch.from_numpy(np.ascontiguousarray(part[whole], np.float32)) for part in (boxes, scores))
    kept: np.ndarray = whole[nms(*tensors, overlap).numpy()]
    return kept


def _run(session: Session, pixels: np.ndarray, path: Path) -> list[np.ndarray]:
    try:
        return session.run_all(pixels)
    except Exception as error:  # engines raise many kinds, of their own and of Python's
        shape = "×".join(map(str, pixels.shape))
        raise CheckpointError(f"{path} does not run on an image of {shape}: {one_line(error)}") from error


def _with_settings(path: Path, head: Head, settings: dict[str, Any], person: int | None) -> Head:
    """Return the family with what the YAML file and the caller say of it."""
    if person is not None:
        settings["person"] = person
    for name in ("mean", "std"):
        if name in settings:
            values = settings[name]
            if not isinstance(values, list | tuple) or len(values) != 3 or not all(_is_number(one) for one in values):
                raise CheckpointError(f"{path}: expected {name} as three numbers, got {values!r}")
            settings[name] = tuple(float(one) for one in values)
    number = settings.get("person", 0)
    if not isinstance(number, int) or isinstance(number, bool) or number < 0 or number >= (head.classes or number + 1):
        raise CheckpointError(f"{path}: expected person as the number of a class, got {number!r}")
    return dataclasses.replace(head, **settings)


def _pair_of_sides(path: Path, given: Any) -> tuple[int, int]:
    sides = list(given) if isinstance(given, list | tuple) else []
    if len(sides) != 2 or not all(isinstance(side, int) and 32 <= side <= 8192 for side in sides):
        raise CheckpointError(f"{path}: expected size as height and width, 32 … 8192 pixels, got {given!r}")
    return (sides[0], sides[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
