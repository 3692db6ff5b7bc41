"""Detectors of other packages, which download their own weights: RF-DETR and torchvision's."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from reprism.cameras.boxes import Boxes, Detector
from reprism.cameras.records import DetectorError, Frame
from reprism.terminal import did_you_mean

RFDETR: Mapping[str, str] = {
    "nano": "RFDETRNano",
    "small": "RFDETRSmall",
    "medium": "RFDETRMedium",
    "large": "RFDETRLarge",
}
"""Classes of the package ``rfdetr``, by the name of their size: those under the Apache licence."""

_COCO_PERSON = 1


def rfdetr_detector(name: str, *, score: float = 0.3, device: str = "cpu") -> Detector:
    """Open RF-DETR of the package ``rfdetr``, which downloads its weights the first time.

    Args:
        name: A key of :data:`RFDETR`.
        score: Minimum score of a box, 0 … 1.
        device: Device to run on.

    Raises:
        DetectorError: The name is unknown, the package is not installed, or the weights cannot be loaded, such as
            without a connection.
    """
    if name not in RFDETR:
        raise DetectorError(f"unknown detector rfdetr:{name}.{did_you_mean(name, RFDETR)} Known: {', '.join(RFDETR)}")
    try:
        import rfdetr
    except ImportError as error:
        raise DetectorError(f"rfdetr:{name} needs the package {error.name}: pip install rfdetr") from error
    try:
        model = getattr(rfdetr, RFDETR[name])(device=device)
    except Exception as error:  # of its download, of torch, of its own
        raise DetectorError(
            f"rfdetr:{name}: {_reason(error)}. Its weights are downloaded once: run it where there is a connection and "
            "copy ~/.roboflow/models here; or export it there to ONNX and give onnx:FILE"
        ) from error

    def detect_people(frame: Frame) -> Boxes:
        found = model.predict(frame.image, threshold=score)
        names = found.data.get("class_name") if hasattr(found, "data") else None
        people = found.class_id == _COCO_PERSON if names is None else np.asarray(names) == "person"
        return Boxes(found.xyxy[people], found.confidence[people])

    return detect_people


def torchvision_detector(
    name: str, weights: str | PathLike[str] | None = None, *, score: float = 0.3, device: str = "cpu"
) -> Detector:
    """Open a detector of torchvision, such as ``ssdlite320_mobilenet_v3_large`` or ``fasterrcnn_resnet50_fpn_v2``.

    Args:
        name: Its name in torchvision.
        weights: A file of its weights for COCO (``.pth``, read without unpickling code; or ``.safetensors``), as
            torchvision offers them (default: downloaded the first time).
        score: Minimum score of a box, 0 … 1.
        device: Device to run on.

    Raises:
        DetectorError: The name is unknown, or the weights cannot be loaded, such as without a connection.
    """
    import torch
    from torchvision.models import detection, get_model, get_model_weights, list_models

    known = list_models(module=detection)
    if name not in known:
        hint = did_you_mean(name, known)
        raise DetectorError(f"unknown detector torchvision:{name}.{hint} Known: {', '.join(known)}")
    offered = get_model_weights(name).DEFAULT
    try:
        # Built empty: given a name of weights, torchvision would look for them on the network.
        model = get_model(name, weights=None, weights_backbone=None, num_classes=len(offered.meta["categories"]))
        model.load_state_dict(offered.get_state_dict(check_hash=True) if weights is None else _state(Path(weights)))
    except Exception as error:  # of the network, of torch, of the file
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(offered.url).name
        where = f"They are downloaded once, from {offered.url}: save them as {file}, or give torchvision:{name}:FILE"
        raise DetectorError(f"torchvision:{name}: its weights cannot be loaded: {_reason(error)}. {where}") from error
    model.eval().to(device)
    person = offered.meta["categories"].index("person")

    def detect_people(frame: Frame) -> Boxes:
        pixels = torch.from_numpy(frame.image).to(device).permute(2, 0, 1).float() / 255
        with torch.inference_mode():
            found = model([pixels])[0]
        kept = (found["labels"] == person) & (found["scores"] >= score)
        return Boxes(found["boxes"][kept].cpu().numpy(), found["scores"][kept].cpu().numpy())

    return detect_people


def _state(path: Path) -> dict[str, Any]:
    import torch

    if not path.is_file():
        raise DetectorError(f"there is no file {path}")
    if path.suffix.lower() == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
