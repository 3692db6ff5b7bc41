"""Open whatever a user gives as a model, with the engine that runs it."""

from __future__ import annotations

import copy
import logging
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reprism.data.transforms import Preprocessing
from reprism.engines.convert import ConversionError, to_openvino
from reprism.engines.export import load_exported
from reprism.engines.files import SAME, describes_alike, installed, noise
from reprism.engines.onnx import load_onnx
from reprism.engines.openvino import OpenVinoSession
from reprism.engines.session import Engine, EngineNetwork, UnsuitableError
from reprism.models.checkpoint import CheckpointError, load
from reprism.models.foreign import ForeignNet
from reprism.models.network import PartNet
from reprism.precision import NumberFormat, Precision, autocast, fastest_precision

_log = logging.getLogger("reprism")


@dataclass(frozen=True)
class OpenedModel:
    """A model, and what runs it.

    Attributes:
        net: The model: its parts, preprocessing and identity.
        runs: What describes a batch: ``net`` itself, or the same network in another engine.
        engine: Name of the engine.
        precision: Number format that it computes in.
        device: Device that it runs on.
    """

    net: PartNet | ForeignNet
    runs: PartNet | ForeignNet
    engine: str
    precision: NumberFormat
    device: torch.device


def open_model(
    model: Any,
    preprocessing: Preprocessing | None = None,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    engine: Engine = "auto",
) -> OpenedModel:
    """Open a model, the caller's own: loaded, copied, or wrapped.

    A Reprism network on a CPU is converted to OpenVINO where that is installed: ``auto`` does so if the outcome
    describes noise as PyTorch does.

    Args:
        model: As :class:`reprism.Embedder` takes it.
        preprocessing: Size, mean and deviation of the images; for a function, somebody else's module or an ONNX file.
        device: Device to run on. An engine that is not installed for it runs on the CPU.
        precision: Number format to compute in; ``auto`` is the fastest that the device has. A file of half-precision
            or 8-bit numbers has its own.
        engine: Program that is to run it.

    Raises:
        CheckpointError: A file or folder cannot be loaded.
        ConversionError: The engine asked for cannot run a Reprism network.
        TypeError: ``model`` is nothing that describes images.
        UnsuitableError: The engine or the precision does not suit the model.
        ValueError: A function or module comes without its ``preprocessing``, or a Reprism network with one.
    """
    device = torch.device(device)
    is_path = isinstance(model, str | PathLike)
    if is_path and Path(model).suffix.lower() == ".onnx":
        given = asdict(preprocessing) if preprocessing is not None else {}
        theirs = load_onnx(Path(model), **given, device=device, precision=precision, engine=engine)
        return _foreign(theirs, precision, device, engine)
    if not is_path and not isinstance(model, PartNet | ForeignNet):
        if not callable(model):
            raise TypeError(f"expected a model file, a network or a function, got {type(model).__name__}")
        if preprocessing is None:
            raise ValueError(
                "somebody else's network needs preprocessing=Preprocessing(size=(256, 128), mean=…, std=…): the "
                "preprocessing of its training"
            )
        own = copy.deepcopy(model) if isinstance(model, nn.Module) else model
        return _foreign(ForeignNet(own, preprocessing), precision, device, engine)
    if preprocessing is not None:
        raise ValueError("a Reprism network has its own preprocessing: leave preprocessing out")
    if is_path and Path(model).is_dir():
        return _foreign(load_exported(model, device, precision, engine), precision, device, engine)
    loaded = load(Path(model), classifiers=False) if is_path else copy.deepcopy(model)
    if isinstance(loaded, ForeignNet):
        return _foreign(loaded, precision, device, engine)
    return _reprism(loaded.eval(), precision, device, engine)


def converts_to_openvino() -> bool:
    """Return whether ``auto`` converts Reprism networks to OpenVINO on a CPU."""
    return installed("openvino")


def _foreign(net: ForeignNet, precision: Precision, device: torch.device, engine: Engine) -> OpenedModel:
    if engine not in ("auto", net.engine):
        raise UnsuitableError(
            f"{net.backbone} is run by {net.engine}, so engine must be auto or {net.engine}, not {engine}"
        )
    own = net.precision
    if own is not None and precision not in ("auto", own):
        raise UnsuitableError(
            f"{net.backbone} is a network of {own} numbers, so precision must be auto or {own}, not {precision}"
        )
    device = net.device or device  # an engine may not be installed for the device asked for
    net = _placed(net, device)
    return OpenedModel(net, net, net.engine, own or _settled(precision, device), device)


def _reprism(net: PartNet, precision: Precision, device: torch.device, engine: Engine) -> OpenedModel:
    if engine == "onnxruntime":
        raise UnsuitableError("ONNX Runtime runs exports: reprism export MODEL --out FOLDER, then give FOLDER")
    fits = device.type == "cpu" and precision != "fp16"
    if engine == "openvino" and not fits:
        raise UnsuitableError(f"OpenVINO computes on the CPU in fp32 or bf16, not in {precision} on {device}")
    if engine == "openvino" or (engine == "auto" and fits and converts_to_openvino()):
        try:
            # Converted in its usual memory format, and before the weights are laid out for PyTorch.
            network = EngineNetwork(OpenVinoSession(to_openvino(net.float().cpu()), precision), "OpenVINO's network")
            if engine == "openvino" or describes_alike(network, _by_torch(net), noise(net.preprocessing.size)):
                runs = ForeignNet(network, net.preprocessing, net.partition, net.backbone)
                return OpenedModel(net, runs, "openvino", network.precision, device)
            reason = f"its descriptors differ (cosine below {SAME[network.precision]})"
        except (ConversionError, CheckpointError) as error:
            if engine == "openvino":
                raise
            reason = str(error)
        _log.warning("OpenVINO is installed and cannot run this network, so PyTorch does: %s", reason)
    net = _placed(net, device)
    return OpenedModel(net, net, "torch", _settled(precision, device), device)


def _by_torch(net: PartNet) -> Any:
    def describe(images: Tensor) -> Tensor:
        with autocast("cpu", "fp32"):
            descriptor: Tensor = net(images).descriptor
        return descriptor

    return describe


def _settled(precision: Precision, device: torch.device) -> NumberFormat:
    return fastest_precision(device) if precision == "auto" else precision


def _placed(net: PartNet | ForeignNet, device: torch.device) -> Any:
    return net.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
