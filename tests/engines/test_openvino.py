"""Sessions of OpenVINO: what is asked of the engine, beside what comes out."""

import numpy as np
import pytest
import torch

from reprism.engines.convert import to_openvino
from reprism.engines.openvino import OpenVinoSession
from reprism.models.network import build_model


@pytest.fixture(scope="module")
def session():
    torch.manual_seed(0)
    net = build_model("p1(s1)", "mobilenetv3_small_050", part_dim=16, size=(64, 32)).eval()
    return OpenVinoSession(to_openvino(net), "fp32")


class Recorder:
    """Stands before a request, and remembers the sizes of batches."""

    def __init__(self, request):
        self.request, self.sizes = request, []

    def infer(self, inputs, **options):
        self.sizes.append(len(inputs[0]))
        return self.request.infer(inputs, **options)


def test_batches_of_any_size_give_each_image_its_row_and_are_of_few_sizes(session, monkeypatch):
    images = np.random.default_rng(0).normal(size=(64, 3, 64, 32)).astype(np.float32)
    want = np.concatenate([session.run(images[n : n + 1]) for n in range(64)])
    recorder = Recorder(session._request)
    monkeypatch.setattr(session, "_request", recorder)
    for count in range(1, 65):
        np.testing.assert_allclose(session.run(images[:count]), want[:count], rtol=1e-3, atol=1e-4)
    assert set(recorder.sizes) == {*range(1, 9), *range(16, 65, 8)}
