"""Layers of an OpenVINO model, quantized or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reprism.engines.openvino import OpenVinoSession
from reprism.engines.quantize import GraphFormat
from reprism.engines.session import EngineNetwork

if TYPE_CHECKING:
    import openvino

_MULTIPLY = ("Convolution", "GroupConvolution", "MatMul")


def _copied(model: openvino.Model) -> openvino.Model:
    return model.clone()


def _network(model: openvino.Model) -> EngineNetwork:
    return EngineNetwork(OpenVinoSession(model, "fp32"), "the quantized network")


def _layers(model: openvino.Model) -> dict[str, bool]:
    layers = [op for op in model.get_ordered_ops() if op.get_type_name() in _MULTIPLY]
    return {op.get_friendly_name(): op.input_value(0).get_node().get_type_name() != "FakeQuantize" for op in layers}


def _widen(quantized: openvino.Model, model: openvino.Model, name: str) -> None:
    from openvino import opset13

    def named(some: openvino.Model) -> Any:
        return next(op for op in some.get_ordered_ops() if op.get_friendly_name() == name)

    layer, original = named(quantized), named(model)
    rounded = layer.input_value(0).get_node()
    if rounded.get_type_name() == "FakeQuantize":
        layer.input(0).replace_source_output(rounded.input_value(0))
    weights = original.input_value(1).get_node()
    if weights.get_type_name() == "Constant":
        layer.input(1).replace_source_output(opset13.constant(weights.data).output(0))


def _sample(image: np.ndarray) -> np.ndarray:
    return image


OPENVINO = GraphFormat(_copied, _network, _layers, _widen, _sample)
"""OpenVINO's models in memory."""
