"""Open a network in a file with the engine that suits it."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reprism.engines.onnxruntime import OnnxRuntimeSession
from reprism.engines.openvino import OpenVinoSession
from reprism.engines.session import Engine, EngineNetwork, Session, UnsuitableError
from reprism.models.checkpoint import CheckpointError
from reprism.precision import NumberFormat, Precision

SAME: Mapping[NumberFormat, float] = {"fp32": 0.9999, "bf16": 0.998, "fp16": 0.999, "int8": 0.9}
"""Cosine of the descriptors of noise by two engines, below which they do not describe alike, by precision."""


def installed(engine: Engine) -> bool:
    """Return whether an engine's package is there."""
    return importlib.util.find_spec(engine) is not None


def open_file(
    path: Path,
    *,
    bgr: bool = False,
    device: torch.device | str = "cpu",
    precision: Precision = "auto",
    engine: Engine = "auto",
    numbers: NumberFormat | None = None,
) -> EngineNetwork:
    """Open a network that is no PyTorch network.

    Args:
        path: An ONNX file, or OpenVINO's ``.xml`` with its ``.bin`` beside it.
        bgr: The network takes the channels in the order blue, green, red.
        device: Device to run on, if the engine has been installed for it; otherwise the CPU.
        precision: Number format to compute in. ONNX Runtime takes the file's own.
        engine: ``auto`` runs an ONNX file on a CPU by OpenVINO if that is installed and describes images of noise
            as ONNX Runtime does, as far as both are installed; else by ONNX Runtime.
        numbers: Number format of the file, where the engine does not know it.

    Raises:
        CheckpointError: The file is missing or damaged, its input is of another form, or the engine is not installed.
        UnsuitableError: The engine does not run such files, or not in this precision.
    """
    if not path.is_file():
        raise CheckpointError(f"no model at {path}: there is no such file")
    is_onnx = path.suffix.lower() == ".onnx"
    if engine == "torch" or (engine == "onnxruntime" and not is_onnx):
        others = "onnxruntime or openvino" if is_onnx else "openvino"
        raise UnsuitableError(f"the engine {engine} does not run {path.name}: give auto or {others}")
    device = torch.device(device)
    digest = file_digest(path, bgr)

    def opened(session: Session) -> EngineNetwork:
        return EngineNetwork(session, str(path), digest, bgr, numbers)

    if engine == "openvino" or not is_onnx:
        return opened(OpenVinoSession(path, precision))
    if engine == "onnxruntime" or device.type != "cpu" or not installed("openvino"):
        return opened(OnnxRuntimeSession(path, device))
    if not installed("onnxruntime"):
        return opened(OpenVinoSession(path, precision))
    reference = opened(OnnxRuntimeSession(path, device))
    if reference.precision != "fp32":
        return reference  # whose numbers OpenVINO would widen
    try:
        fast = opened(OpenVinoSession(path, precision))
        if describes_alike(fast, reference, noise(reference.size)):
            return fast
    except CheckpointError:
        pass  # an operation that OpenVINO does not have, such as one of ONNX Runtime's own
    return reference


def open_session(
    path: Path,
    size: tuple[int, int],
    *,
    device: torch.device | str = "cpu",
    precision: Precision = "fp32",
    engine: Engine = "auto",
) -> Session:
    """Open an ONNX file whose outputs are no descriptors, such as a detector's.

    Args:
        path: An ONNX file.
        size: Height and width of the images to try it on, where the file leaves them open.
        device, precision, engine: As in :func:`open_file`; ``auto`` compares all outputs.

    Raises:
        CheckpointError: The file is missing or damaged, has weights outside its folder, or takes something else than
            one batch of floating-point numbers; or no engine is installed.
        UnsuitableError: The engine does not run such files, or not in this precision.
    """
    if not path.is_file():
        raise CheckpointError(f"no model at {path}: there is no such file")
    if engine == "torch":
        raise UnsuitableError(f"the engine torch does not run {path.name}: give auto, onnxruntime or openvino")
    _weight_files(path)
    device = torch.device(device)
    if engine == "openvino" or (engine == "auto" and installed("openvino") and not installed("onnxruntime")):
        return OpenVinoSession(path, precision)
    reference = OnnxRuntimeSession(path, device)
    if engine == "onnxruntime" or device.type != "cpu" or not installed("openvino") or reference.precision != "fp32":
        return reference
    images = noise(size if reference.shape[2:] == (None, None) else reference.shape[2:4], 1).numpy()  # type: ignore[arg-type]
    try:
        fast = OpenVinoSession(path, precision)
        pairs = list(zip(fast.run_all(images), reference.run_all(images), strict=True))
    except Exception:  # of either engine; the reference's comes again when it is used
        return reference
    return fast if all(_outputs_alike(one, other, SAME[fast.precision]) for one, other in pairs) else reference


def _outputs_alike(one: np.ndarray, other: np.ndarray, least: float) -> bool:
    if one.shape != other.shape or not np.isfinite(one).all():
        return False
    rows, expected = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    lengths = np.linalg.norm(rows) * np.linalg.norm(expected)
    return bool(np.array_equal(rows, expected) or rows @ expected >= least * lengths > 0)


def describes_alike(one: EngineNetwork, other: Any, images: Tensor) -> bool:
    """Return whether an engine describes images as another network does, within its precision."""
    with torch.inference_mode():
        rows, expected = one(images).double(), other(images).double()
    same = rows.shape == expected.shape and bool(torch.isfinite(rows).all())
    return same and bool(F.cosine_similarity(rows, expected).min() >= SAME[one.precision])


def noise(size: tuple[int | None, int | None], count: int = 3) -> Tensor:
    """Return images of noise; sides that a network leaves open are 256×128."""
    height, width = size[0] or 256, size[1] or 128
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def file_digest(path: Path, bgr: bool = False) -> str:
    """Return 64 hexadecimal digits of a network's file, of weights in files beside it, and of its order of channels.

    Raises:
        CheckpointError: An ONNX file is damaged, or the package that reads them is not installed.
    """
    digest = hashlib.sha256(b"bgr" if bgr else b"rgb")
    weights = _weight_files(path) if path.suffix.lower() == ".onnx" else [path.with_suffix(".bin")]
    for file in (path, *weights):
        if not file.is_file():
            raise CheckpointError(f"{path} has its weights in {file.name}, which is not there")
        with file.open("rb") as opened:
            for block in iter(lambda: opened.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def model_files(path: Path) -> list[Path]:
    """Return all files of a model: of a folder those in it; of an ONNX file its weights and its YAML file too.

    Raises:
        CheckpointError: There is no such model, or a file of its weights is missing.
    """
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if not path.is_file():
        raise CheckpointError(f"no model at {path}: there is no such file")
    if path.suffix.lower() != ".onnx":
        return [path]
    settings = [file for suffix in (".yaml", ".yml") if (file := path.with_suffix(suffix)).is_file()]
    files = [path, *_weight_files(path), *settings]
    if gone := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(f"{path} has its weights in {gone[0]}, which is not there")
    return files


def _weight_files(path: Path) -> list[Path]:
    """Return the files beside an ONNX file that hold weights of it, sorted.

    Raises:
        CheckpointError: It is damaged, or has weights outside its folder.
    """
    try:
        import onnx
    except ImportError as error:
        raise CheckpointError(f"{path} needs the package {error.name}: pip install 'reprism[onnx]'") from error

    def locations(message: Any) -> Iterator[str]:
        if isinstance(message, onnx.TensorProto):
            yield from (entry.value for entry in message.external_data if entry.key == "location")
            return
        # Tensors lie in graphs, and in attributes of nodes, which may hold graphs again.
        for field, value in message.ListFields():
            if field.message_type is not None:
                for each in [value] if isinstance(value, field.message_type._concrete_class) else value:
                    yield from locations(each)

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, which onnx does not name
        raise CheckpointError(f"{path} is no ONNX model: {type(error).__name__}") from error
    files = sorted({path.parent / name for name in locations(model)})
    folder = path.parent.resolve()
    for file in files:
        if not file.resolve().is_relative_to(folder):
            raise CheckpointError(f"{path} has weights outside its folder, in {file}: they are not read")
    return files
