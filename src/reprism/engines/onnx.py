"""Somebody's network in an ONNX file, with the preprocessing that it was trained with.

A small YAML file of the same name beside it has the preprocessing that it was trained with::

    size: [256, 128]               # height and width in pixels; may be left out if the file fixes them
    mean: [0.485, 0.456, 0.406]    # of red, green and blue, of pixels scaled to 0 … 1
    std: [0.229, 0.224, 0.225]
    interpolation: bicubic         # or bilinear (default: bicubic)
    bgr: false                     # true for a network that takes blue, green, red (default: false)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from reprism.data.transforms import Preprocessing
from reprism.engines.files import open_file
from reprism.engines.session import Engine, one_line
from reprism.models.checkpoint import CheckpointError
from reprism.models.foreign import ForeignNet
from reprism.precision import Precision

_FIELDS = ("size", "mean", "std", "interpolation", "bgr")


def load_onnx(
    path: str | Path,
    size: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    interpolation: str | None = None,
    bgr: bool | None = None,
    device: str | torch.device = "cpu",
    precision: Precision = "auto",
    engine: Engine = "auto",
) -> ForeignNet:
    """Load an ONNX file as a network of one part.

    Args:
        path: The ONNX file.
        size, mean, std, interpolation, bgr: Preprocessing of its images. Those not given are read from the YAML file
            beside it (``model.yaml`` for ``model.onnx``).
        device, precision, engine: As in :func:`reprism.engines.files.open_file`.

    Raises:
        CheckpointError: The file is missing, damaged or no network of images; its preprocessing is not known, out of
            range, or at odds with the size that the file fixes; or no engine is installed.
        UnsuitableError: The engine does not run it in this precision.
    """
    path = Path(path)
    given = {"size": size, "mean": mean, "std": std, "interpolation": interpolation, "bgr": bgr}
    values = settings_beside(path) | {name: value for name, value in given.items() if value is not None}
    bgr = values.pop("bgr", False)
    network = open_file(path, bgr=bgr, device=device, precision=precision, engine=engine)
    if "size" not in values and None not in network.size:
        values["size"] = network.size
    missing = [name for name in ("size", "mean", "std") if name not in values]
    if missing:
        raise CheckpointError(
            f"{path}: the images' {' and '.join(missing)} in training are not known. Write {path.with_suffix('.yaml')} "
            "with, for example, size: [256, 128], mean: [0.485, 0.456, 0.406] and std: [0.229, 0.224, 0.225], a line "
            "each; or in Python give them to Embedder.from_onnx"
        )
    try:
        preprocessing = Preprocessing(**values)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if any(fixed not in (None, side) for fixed, side in zip(network.size, preprocessing.size, strict=True)):
        fixed_size = "×".join(str(side or "any") for side in network.size)
        raise CheckpointError(
            f"{path} takes images of {fixed_size} pixels (height×width), and its preprocessing says "
            f"{'×'.join(map(str, preprocessing.size))}"
        )
    return ForeignNet(network, preprocessing)


def read_preprocessing(given: str | Path) -> dict[str, Any]:
    """Read the preprocessing of an ONNX file, as the arguments of :func:`load_onnx`.

    Args:
        given: A YAML file, or ``imagenet``: the mean and deviation of ImageNet, the size being the ONNX file's.

    Raises:
        CheckpointError: There is no such file, or it is no YAML, or has other fields.
    """
    if str(given) == "imagenet":
        return {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD}
    path = Path(given)
    if not path.is_file():
        raise CheckpointError(f"no preprocessing at {path}: expected a YAML file, or imagenet")
    return _read(path, _FIELDS)


def settings_beside(path: Path, known: Sequence[str] = _FIELDS) -> dict[str, Any]:
    """Return the fields of the YAML file beside a model; none if there is no such file.

    Args:
        path: The model's file.
        known: Fields that may be in it.

    Raises:
        CheckpointError: It is no YAML, or has other fields.
    """
    found = next((file for suffix in (".yaml", ".yml") if (file := path.with_suffix(suffix)).is_file()), None)
    return {} if found is None else _read(found, known)


def _read(file: Path, known: Sequence[str]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CheckpointError(f"{file} is no YAML: {one_line(error)}") from error
    if not isinstance(values, dict) or not set(values) <= set(known):
        names = sorted(map(str, set(values) - set(known))) if isinstance(values, dict) else [type(values).__name__]
        raise CheckpointError(f"{file}: expected the fields {', '.join(known)}, got {', '.join(names)}")
    if not isinstance(values.get("bgr", False), bool):
        raise CheckpointError(f"{file}: expected bgr: true or bgr: false, got {values['bgr']!r}")
    return values
