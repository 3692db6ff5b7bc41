"""Open whatever a user gives as a model: a file, an export folder, a network or a function."""

from __future__ import annotations

import copy
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reprism.data.transforms import Preprocessing
from reprism.engines.export import load_exported
from reprism.engines.onnx import load_onnx
from reprism.models.checkpoint import load
from reprism.models.foreign import ForeignNet
from reprism.models.network import PartNet
from reprism.precision import Precision, fastest_precision


def open_network(model: Any, preprocessing: Preprocessing | None, device: torch.device) -> PartNet | ForeignNet:
    """Return a network of the caller's own: loaded, copied, or wrapped.

    Args:
        model: As :class:`reprism.Embedder` takes it.
        preprocessing: Size, mean and deviation of the images; for a function, somebody else's module or an ONNX file.
        device: Device that an engine is to run on. A PyTorch network stays where it is.

    Raises:
        CheckpointError: A file or folder cannot be loaded.
        TypeError: ``model`` is nothing that describes images.
        ValueError: A function or module comes without its ``preprocessing``, or a Reprism network with one.
    """
    if isinstance(model, str | PathLike) and Path(model).suffix.lower() == ".onnx":
        return load_onnx(Path(model), **(asdict(preprocessing) if preprocessing is not None else {}), device=device)
    if isinstance(model, str | PathLike):
        path = Path(model)
        net: PartNet | ForeignNet = load_exported(path, device) if path.is_dir() else load(path, classifiers=False)
    elif isinstance(model, PartNet | ForeignNet):
        net = copy.deepcopy(model)
    elif not callable(model):
        raise TypeError(f"expected a model file, a network or a function, got {type(model).__name__}")
    elif preprocessing is None:
        raise ValueError(
            "somebody else's network needs preprocessing=Preprocessing(size=(256, 128), mean=…, std=…): the "
            "preprocessing of its training"
        )
    else:
        return ForeignNet(copy.deepcopy(model) if isinstance(model, nn.Module) else model, preprocessing)
    if preprocessing is not None:
        raise ValueError("a Reprism network has its own preprocessing: leave preprocessing out")
    return net


def precision_of(net: PartNet | ForeignNet, asked: Precision, device: torch.device) -> Precision:
    """Return the precision to use: the network's own if it has one, else the one asked for, or the fastest.

    Raises:
        ValueError: The network has another one than the one asked for.
    """
    own = net.precision if isinstance(net, ForeignNet) else None
    if own is None:
        return fastest_precision(device) if asked == "auto" else asked
    if asked not in ("auto", own):
        raise ValueError(f"{net.backbone} is a file of {own} numbers, so precision must be auto or {own}, not {asked}")
    return own
