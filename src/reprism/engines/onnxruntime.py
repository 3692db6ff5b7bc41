"""Run a network in an ONNX file by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from reprism.engines.session import Engine, one_line
from reprism.models.checkpoint import CheckpointError
from reprism.precision import NumberFormat

_TYPES: dict[str, tuple[NumberFormat, type[np.floating[Any]]]] = {
    "tensor(float)": ("fp32", np.float32),
    "tensor(float16)": ("fp16", np.float16),
}


class OnnxRuntimeSession:
    """A network in ONNX Runtime (a :class:`reprism.engines.session.Session`).

    Args:
        model: An ONNX file, or the bytes of one.
        device: Device to run on, if ONNX Runtime has been installed for it; otherwise the CPU.

    Raises:
        CheckpointError: The file is damaged, has several inputs, or ONNX Runtime is not installed.
    """

    engine: Engine = "onnxruntime"

    def __init__(self, model: Path | bytes, device: torch.device) -> None:
        name = str(model) if isinstance(model, Path) else "the network"
        try:
            import onnxruntime
        except ImportError as error:
            raise CheckpointError(f"{name} needs the package {error.name}: pip install 'reprism[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; they are raised too
        asked = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        here = onnxruntime.get_available_providers()
        providers = [one for one in asked if one in here] + ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises many kinds, of its own and of Python's
            raise CheckpointError(f"{name} is no ONNX model that ONNX Runtime can run: {one_line(error)}") from error
        given = self._session.get_inputs()
        self.inputs = ", ".join(f"{one.name}: {one.type} of shape {one.shape}" for one in given)
        if len(given) != 1 or given[0].type not in _TYPES:
            raise CheckpointError(f"{name} takes {self.inputs}; expected one input, B×3×H×W floating-point numbers")
        self._input = given[0].name
        self.outputs = tuple(one.name for one in self._session.get_outputs())
        self.shape = tuple(side if isinstance(side, int) and side > 0 else None for side in given[0].shape)
        self.precision, kind = _TYPES[given[0].type]
        self.dtype = np.dtype(kind)
        on_gpu = self._session.get_providers()[0] == "CUDAExecutionProvider"
        self.device = torch.device("cuda" if on_gpu else "cpu")

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Return the first output for a batch."""
        return self.run_all(pixels)[0]

    def run_all(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return every output for a batch."""
        return [np.asarray(output) for output in self._session.run(None, {self._input: pixels})]
