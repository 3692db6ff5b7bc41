"""Layers of an ONNX model, quantized or not: 8 bits are written as pairs of QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from reprism.engines.onnxruntime import OnnxRuntimeSession
from reprism.engines.quantize import GraphFormat
from reprism.engines.session import EngineNetwork

if TYPE_CHECKING:
    import onnx

_MULTIPLY = ("Conv", "Gemm", "MatMul")
_INPUT = "images"  # as to_onnx calls it


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy


def _network(model: onnx.ModelProto) -> EngineNetwork:
    session = OnnxRuntimeSession(model.SerializeToString(), torch.device("cpu"))
    return EngineNetwork(session, "the quantized network")


def _layers(model: onnx.ModelProto) -> dict[str, bool]:
    # ONNX Runtime multiplies integers where the pair stands right before the layer, and nowhere else.
    rounded = _rounded(model)
    return {node.name: node.input[0] not in rounded for node in model.graph.node if node.op_type in _MULTIPLY}


def _rounded(model: onnx.ModelProto) -> dict[str, str]:
    """Return the values that come out of a pair, each with the value that goes into it."""
    before = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    pairs = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in before]
    return {node.output[0]: before[node.input[0]] for node in pairs}


def _widen(quantized: onnx.ModelProto, model: onnx.ModelProto, name: str) -> None:
    def named(some: onnx.ModelProto) -> onnx.NodeProto:
        return next(node for node in some.graph.node if node.name == name)

    layer, original = named(quantized), named(model)
    layer.input[0] = _rounded(quantized).get(layer.input[0], layer.input[0])
    weights = next((each for each in model.graph.initializer if each.name == original.input[1]), None)
    if weights is not None:
        added = quantized.graph.initializer.add()
        added.CopyFrom(weights)
        added.name = layer.input[1] = f"{weights.name} of {name}, wide"


def _sample(image: np.ndarray) -> dict[str, np.ndarray]:
    return {_INPUT: image}


ONNX = GraphFormat(_copied, _network, _layers, _widen, _sample)
"""ONNX models in memory, run by ONNX Runtime."""
