"""Quantized models, layer by layer: the same of OpenVINO's and of ONNX's."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F

import reprism
from reprism.engines.convert import to_onnx, to_openvino
from reprism.engines.onnx_graph import ONNX
from reprism.engines.openvino_graph import OPENVINO
from reprism.engines.quantize import GraphFormat, quantize

SIZE = (64, 32)


@pytest.mark.slow
@pytest.mark.parametrize("form", [OPENVINO, ONNX], ids=["openvino", "onnx"])
def test_layers_made_wide_one_by_one_end_at_the_original(form: GraphFormat[Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = reprism.build_model("p1", "test_resnet", part_dim=8, size=SIZE)
    net.train()(torch.randn(8, 3, *SIZE))
    net.eval()
    if form is ONNX:
        to_onnx(net, tmp_path / "network.onnx")
        model = onnx.load(tmp_path / "network.onnx")
    else:
        model = to_openvino(net)
    images = torch.randn(20, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    quantized: Any = quantize(form, model, images, lambda _: {}, {}, {})
    with torch.inference_mode():
        exact = F.normalize(net(images).descriptor, dim=1)

    def least_cosine(some: Any) -> float:
        return float((F.normalize(form.network(some)(images), dim=1) * exact).sum(1).min())

    torch.testing.assert_close(least_cosine(model), 1.0, rtol=0, atol=1e-5)
    layers = form.layers(quantized)
    assert layers.keys() == form.layers(model).keys()
    assert len(layers) == 16  # 15 convolutions (BatchNorm folded into them), and the head's product
    assert all(form.layers(model).values())
    before = form.copied(quantized)
    integers = [name for name, wide in layers.items() if not wide]
    assert len(integers) >= 14
    for count, name in enumerate(integers, 1):
        form.widen(quantized, model, name)
        assert sum(form.layers(quantized).values()) == len(layers) - len(integers) + count
    for name in layers:
        form.widen(quantized, model, name)
    assert least_cosine(before) < 0.9995
    assert least_cosine(quantized) > least_cosine(before)  # not 1: sums are still of integers, and biases are corrected
    assert form.layers(before) == layers
