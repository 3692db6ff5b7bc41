"""Quantize a network to 8-bit integers, as far as its scores allow."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reprism.engines.convert import ConversionError
from reprism.engines.openvino import OpenVinoSession
from reprism.engines.session import EngineNetwork, one_line

if TYPE_CHECKING:
    import openvino

_COMPARED_ON = 16
"""Images on which layers are put in the order of what 8 bits cost them."""

_MULTIPLY = ("Convolution", "GroupConvolution", "MatMul")


def quantize(
    model: openvino.Model,
    images: Tensor,
    score: Callable[[EngineNetwork], Mapping[str, float]],
    expected: Mapping[str, float],
    allowed: Mapping[str, float],
) -> openvino.Model:
    """Quantize by NNCF: all layers if the scores hold, else all but the fewest that must stay wide.

    Layers are left out in the order of what each adds to the error of descriptors; how many is found by bisection, so
    that n layers take log n scorings.

    Args:
        model: From B×3×H×W to B×D, in float32. It is not changed.
        images: N×3×H×W, normalised: of the training set; ranges of activations are found on them.
        score: Scores of a network on labelled data, by name; larger is better.
        expected: Scores of the network in float32.
        allowed: Loss of each score that is allowed.

    Raises:
        ConversionError: NNCF is not installed or cannot quantize the network, or no layer can be quantized without
            losing more.
    """
    try:
        import nncf
    except ImportError as error:
        raise ConversionError(f"int8 needs the package {error.name}: pip install 'reprism[int8]'") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)

    def without(layers: list[str]) -> openvino.Model:
        scope = nncf.IgnoredScope(names=layers) if layers else None
        samples = nncf.Dataset(list(images.numpy()[:, None]))
        try:
            with redirect_stdout(sys.stderr):  # NNCF's progress
                return nncf.quantize(model.clone(), samples, subset_size=len(images), ignored_scope=scope)
        except Exception as error:  # NNCF raises many kinds
            raise ConversionError(f"NNCF cannot quantize the network: {one_line(error)}") from error

    def holds(candidate: openvino.Model) -> bool:
        found = score(_network(candidate))
        return all(expected[name] - found[name] <= allowed[name] for name in allowed)

    quantized = without([])
    if holds(quantized):
        return quantized
    order = _costliest_first(model, quantized, images[:_COMPARED_ON])
    too_few, enough, best = 0, len(order), None
    while enough - too_few > 1:
        count = (too_few + enough) // 2
        candidate = without(order[:count])
        if holds(candidate):
            enough, best = count, candidate
        else:
            too_few = count
    if best is None:
        raise ConversionError("no layer can be quantized without losing more than is allowed: export fp32")
    return best


def wide_layers(model: openvino.Model) -> tuple[list[str], int]:
    """Return the layers of a quantized model that multiply in floating point, and how many layers multiply."""
    layers = _layers(model)
    wide = [op for op in layers if op.input_value(0).get_node().get_type_name() != "FakeQuantize"]
    return [op.get_friendly_name() for op in wide], len(layers)


def _layers(model: openvino.Model) -> list[Any]:
    return [op for op in model.get_ordered_ops() if op.get_type_name() in _MULTIPLY]


def _network(model: openvino.Model) -> EngineNetwork:
    return EngineNetwork(OpenVinoSession(model, "fp32"), "the quantized network")


def _costliest_first(model: openvino.Model, quantized: openvino.Model, images: Tensor) -> list[str]:
    """Return the names of the layers; the first is the one that, if it alone is wide, brings descriptors nearest."""
    exact = _network(model)(images)
    errors = {}
    for layer in _layers(quantized):
        name = layer.get_friendly_name()
        one_wide = quantized.clone()
        _widen(one_wide, model, name)
        errors[name] = float(torch.linalg.norm(_network(one_wide)(images) - exact))
    return sorted(errors, key=errors.__getitem__)


def _widen(quantized: openvino.Model, model: openvino.Model, name: str) -> None:
    """Give a layer its input in floating point, and its weights of ``model``."""
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
