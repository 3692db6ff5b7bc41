"""Quantize a network to 8-bit integers, as far as its scores allow."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from reprism.engines.convert import ConversionError
from reprism.engines.session import EngineNetwork, one_line

_COMPARED_ON = 16
"""Images on which layers are put in the order of what 8 bits cost them."""

M = TypeVar("M")


@dataclass(frozen=True)
class GraphFormat(Generic[M]):
    """Functions of models in one format, such as OpenVINO's.

    Attributes:
        copied: Returns a copy of a model.
        network: Loads a model into the engine that runs it.
        layers: Names of a model's layers that multiply, and whether each multiplies in floating point.
        widen: Called with a quantized model, the float32 one and a layer's name: gives that layer, in the quantized
            model, its input in floating point and its weights in float32.
        sample: What NNCF feeds to a model, of one image 1×3×H×W.
    """

    copied: Callable[[M], M]
    network: Callable[[M], EngineNetwork]
    layers: Callable[[M], dict[str, bool]]
    widen: Callable[[M, M, str], None]
    sample: Callable[[np.ndarray], Any]


def quantize(
    form: GraphFormat[M],
    model: M,
    images: Tensor,
    score: Callable[[EngineNetwork], Mapping[str, float]],
    expected: Mapping[str, float],
    allowed: Mapping[str, float],
) -> M:
    """Quantize by NNCF: all layers if the scores hold, else all but the fewest that must stay wide.

    Layers are left out in the order of what each adds to the error of descriptors; how many is found by bisection, so
    that n layers take log n scorings.

    Args:
        form: Format of the model.
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

    def without(layers: list[str]) -> M:
        scope = nncf.IgnoredScope(names=layers) if layers else None
        samples = nncf.Dataset([form.sample(image) for image in images.numpy()[:, None]])
        try:
            with redirect_stdout(sys.stderr):  # NNCF's progress
                made: M = nncf.quantize(form.copied(model), samples, subset_size=len(images), ignored_scope=scope)
        except Exception as error:  # NNCF raises many kinds
            raise ConversionError(f"NNCF cannot quantize the network: {one_line(error)}") from error
        return made

    def holds(candidate: M) -> bool:
        found = score(form.network(candidate))
        return all(expected[name] - found[name] <= allowed[name] for name in allowed)

    quantized = without([])
    if holds(quantized):
        return quantized
    order = _costliest_first(form, model, quantized, images[:_COMPARED_ON])
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


def _costliest_first(form: GraphFormat[M], model: M, quantized: M, images: Tensor) -> list[str]:
    """Return the names of the layers; the first is the one that, if it alone is wide, brings descriptors nearest."""
    exact = form.network(model)(images)
    errors = {}
    for name in form.layers(quantized):
        one_wide = form.copied(quantized)
        form.widen(one_wide, model, name)
        errors[name] = float(torch.linalg.norm(form.network(one_wide)(images) - exact))
    return sorted(errors, key=errors.__getitem__)
