"""Detectors by their names, as commands take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reprism.cameras.box_files import boxes_detector
from reprism.cameras.boxes import Detector
from reprism.cameras.motion import motion_detector
from reprism.cameras.records import DetectorError
from reprism.imports import import_object, is_import_path
from reprism.terminal import did_you_mean

FORMS = ("motion", "onnx:FILE", "rfdetr:NAME", "torchvision:NAME", "torchvision:NAME:FILE", "boxes:FILE")
"""Names of detectors, as :func:`open_detector` takes them."""


def open_detector(detector: str | Detector, *, score: float = 0.3, device: str = "cpu") -> Detector:
    """Open a detector of people for one source: some keep the background, so that each camera needs its own.

    Args:
        detector: ``motion`` (what moves before a fixed camera; needs no weights), ``onnx:FILE`` (YOLOX, RT-DETR,
            RF-DETR or SSD), ``rfdetr:NAME`` and ``torchvision:NAME`` (downloaded; or ``torchvision:NAME:FILE``),
            ``boxes:FILE`` (your own: MOT text, CVAT XML, COCO JSON, CSV), or ``package.module:name``, a function of
            your own or a class of such, whose module :func:`reprism.trust` knows. A function is returned as it is.
        score: Minimum score of a box of ``onnx``, ``rfdetr`` and ``torchvision``, 0 … 1. The other two give all.
        device: Device to run on, for those that are networks.

    Returns:
        A function from a frame to boxes; call it by :func:`reprism.cameras.detect`, which checks what it returns.

    Raises:
        DetectorError: The name is unknown, or the detector cannot be opened; says why and what to do.
        CheckpointError: An ONNX file cannot be opened, or is no detector that is known.
        ValueError: ``score`` is out of range, or code is not trusted.
    """
    if callable(detector):
        return detector
    if not 0 <= score <= 1:
        raise ValueError(f"score={score}: expected 0 … 1")
    kind, _, rest = detector.partition(":")
    if kind == "motion" and not rest:
        return motion_detector()
    if kind in ("onnx", "rfdetr", "torchvision", "boxes"):
        if not rest:
            forms = " or ".join(form for form in FORMS if form.startswith(kind))
            raise DetectorError(f"expected {forms}, got {detector!r}")
        return _opened(kind, rest, score, device)
    if is_import_path(detector):
        own: Any = import_object(detector, "the detector")
        made: Callable[..., Any] = own() if isinstance(own, type) else own
        if not callable(made):
            raise DetectorError(f"expected a function of a frame at {detector}, got {type(made).__name__}")
        return made
    hint = did_you_mean(kind, [form.partition(":")[0] for form in FORMS])
    raise DetectorError(
        f"unknown detector {detector!r}.{hint} Known: {', '.join(FORMS)}, or package.module:name of your own"
    )


def _opened(kind: str, rest: str, score: float, device: str) -> Detector:
    if kind == "boxes":
        return boxes_detector(rest)
    # These import torch.
    if kind == "onnx":
        from reprism.cameras.onnx_files import onnx_detector

        return onnx_detector(rest, score=score, device=device)
    from reprism.cameras.downloads import rfdetr_detector, torchvision_detector

    if kind == "rfdetr":
        return rfdetr_detector(rest, score=score, device=device)
    name, _, weights = rest.partition(":")
    return torchvision_detector(name, weights or None, score=score, device=device)
