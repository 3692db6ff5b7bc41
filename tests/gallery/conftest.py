"""A small network for the tests of galleries."""

from pathlib import Path

import pytest
import torch

import reprism


@pytest.fixture(scope="module")
def model_file(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(64, 32))
    model.train()(torch.randn(8, 3, 64, 32))
    return reprism.save(model.eval(), tmp_path_factory.mktemp("model") / "m.safetensors")
