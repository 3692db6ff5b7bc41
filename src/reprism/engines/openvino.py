"""Run a network on the CPU by OpenVINO, out of its own file format, out of an ONNX file, or converted in memory."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from reprism.engines.session import Engine, UnsuitableError, one_line
from reprism.models.checkpoint import CheckpointError
from reprism.precision import NumberFormat, Precision, fastest_precision

if TYPE_CHECKING:
    import openvino

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_SIZES = 8  # batches beyond this are filled up to a multiple of it


class OpenVinoSession:
    """A network in OpenVINO (a :class:`reprism.engines.session.Session`).

    Args:
        network: A file (``.xml`` with its ``.bin``, or ``.onnx``), a model in memory, or one compiled already.
        precision: ``fp32``, ``bf16``, or ``auto``: bf16 where the processor has it.

    Raises:
        CheckpointError: The file is damaged, OpenVINO cannot run it, or is not installed.
        UnsuitableError: This processor does not compute in that precision.
    """

    engine: Engine = "openvino"
    device = torch.device("cpu")

    def __init__(self, network: Path | openvino.Model | openvino.CompiledModel, precision: Precision = "auto") -> None:
        try:
            import openvino
        except ImportError as error:
            raise CheckpointError("the engine openvino needs a package: pip install 'reprism[openvino]'") from error
        name = str(network) if isinstance(network, Path) else "the network"
        asked = fastest_precision("cpu") if precision == "auto" else precision
        if asked not in _HINTS:
            raise UnsuitableError(f"OpenVINO computes on the CPU in fp32 or bf16, not in {asked}")
        compiled = network if isinstance(network, openvino.CompiledModel) else _compile(network, name, _HINTS[asked])
        if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != _HINTS[asked]:
            raise UnsuitableError(f"this processor does not compute in {asked}: give precision fp32")
        self.inputs = ", ".join(
            f"{one.get_element_type().to_string()} of shape {one.get_partial_shape()}" for one in compiled.inputs
        )
        if len(compiled.inputs) != 1 or compiled.inputs[0].get_partial_shape().rank.is_dynamic:
            raise CheckpointError(f"{name} takes {self.inputs}; expected one input, B×3×H×W floating-point numbers")
        (given,) = compiled.inputs
        self.outputs = tuple(one.get_any_name() if one.names else "" for one in compiled.outputs)
        self.shape = tuple(None if side.is_dynamic else side.get_length() for side in given.get_partial_shape())
        self.dtype = np.dtype(given.get_element_type().to_dtype())
        self.precision: NumberFormat = "bf16" if asked == "bf16" else "fp32"
        self._compiled, self._request = compiled, compiled.create_infer_request()
        # A request runs one batch at a time; a batch uses all threads, so that nothing is lost by waiting.
        self._lock = threading.Lock()

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Return the first output for a batch."""
        count = len(pixels)
        if self.shape[0] is None and count > _SIZES and count % _SIZES:
            # OpenVINO keeps what it prepared for each size it has seen: a fifth of a gigabyte for those from 1 to 64.
            rest = np.zeros((_SIZES - count % _SIZES, *pixels.shape[1:]), pixels.dtype)
            pixels = np.concatenate([pixels, rest])
        with self._lock:
            outputs = self._request.infer({0: pixels}, share_inputs=True)
            rows = np.array(outputs[0])
        # What has not a row for each image is for the caller to refuse.
        return rows[:count] if rows.ndim and len(rows) == len(pixels) else rows

    def run_all(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return every output for a batch."""
        with self._lock:
            outputs = self._request.infer({0: pixels}, share_inputs=True)
            return [np.array(outputs[number]) for number in range(len(self.outputs))]


@cache
def _core() -> openvino.Core:
    """Return the process's one core: it holds the plugins that compiled networks run in."""
    import openvino

    return openvino.Core()


def _compile(network: Path | openvino.Model, name: str, hint: str) -> openvino.CompiledModel:
    core = _core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, with all threads
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": hint,
        # Pinned threads of two processes would share some cores and leave others idle.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        return core.compile_model(core.read_model(network) if isinstance(network, Path) else network, "CPU", settings)
    except Exception as error:  # OpenVINO raises RuntimeErrors, and others out of its readers
        raise CheckpointError(f"{name} is no model that OpenVINO can run: {one_line(error)}") from error
