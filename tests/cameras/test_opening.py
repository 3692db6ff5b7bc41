"""Detectors by their names, and those of other packages, which are stood in for: their weights are downloads."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import get_model, get_model_weights

import reprism
from reprism.cameras import DetectorError, Frame, detect, open_detector
from reprism.cameras.downloads import RFDETR

FRAME = Frame(np.zeros((64, 96, 3), np.uint8), 3)
SMALL = "ssdlite320_mobilenet_v3_large"


def test_a_function_is_a_detector():
    def mine(frame):
        return np.array([[0, 0, frame.index, 9]])

    assert open_detector(mine) is mine
    assert detect(open_detector(mine), FRAME).xyxy.tolist() == [[0, 0, 3, 9]]


def test_a_detector_of_a_module_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_detectors.py").write_text(
        "def corner(frame):\n    return [[0, 0, 5, 5]]\n"
        "class Growing:\n    side = 0\n    def __call__(self, frame):\n"
        "        self.side += 1\n        return [[0, 0, self.side, 5]]\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reprism.imports._trusted", set())
    with pytest.raises(ValueError, match="only if you trust it"):
        open_detector("own_detectors:corner")
    reprism.trust("own_detectors")
    try:
        assert detect(open_detector("own_detectors:corner"), FRAME).xyxy.tolist() == [[0, 0, 5, 5]]
        first, second = open_detector("own_detectors:Growing"), open_detector("own_detectors:Growing")
        assert [detect(each, FRAME).xyxy[0, 2] for each in (first, first, second)] == [1, 2, 1]
        with pytest.raises(DetectorError, match="expected a function of a frame at own_detectors:number, got int"):
            open_detector("own_detectors:number")
    finally:
        sys.modules.pop("own_detectors", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("motoin", "unknown detector 'motoin'. Did you mean 'motion'?"),
        ("", "unknown detector ''"),
        ("yolo:a.pt", "only if you trust it|unknown detector"),
        ("motion:5", "unknown detector 'motion:5'|expected"),
        ("onnx:", "expected onnx:FILE, got 'onnx:'"),
        ("torchvision:", "expected torchvision:NAME or torchvision:NAME:FILE"),
        ("rfdetr:nan", "unknown detector rfdetr:nan. Did you mean 'nano'?"),
        ("torchvision:ssdlite", "unknown detector torchvision:ssdlite. Did you mean 'ssdlite320_mobilenet_v3_large'?"),
    ],
)
def test_names_that_are_not_known(text, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        open_detector(text)


def test_motion_is_made_anew_for_each_source():
    assert open_detector("motion") is not open_detector("motion")


def rfdetr_with(model):
    return SimpleNamespace(**dict.fromkeys(RFDETR.values(), model))


def test_rfdetr(monkeypatch):
    class Model:
        def __init__(self, device):
            self.device = device

        def predict(self, image, threshold):
            assert image is FRAME.image
            xyxy = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 20, 20]], np.float32)
            names = np.array(["person", "bicycle", "person"], dtype=object)
            return SimpleNamespace(
                xyxy=xyxy,
                confidence=np.array([0.9, 0.8, 0.7]) * (threshold == 0.4),
                class_id=np.array([1, 2, 1]),
                data={"class_name": names},
            )

    monkeypatch.setitem(sys.modules, "rfdetr", rfdetr_with(Model))
    found = detect(open_detector("rfdetr:nano", score=0.4), FRAME)
    assert found.xyxy.tolist() == [[1, 2, 3, 4], [9, 9, 20, 20]]
    assert found.scores == pytest.approx([0.9, 0.7])


def test_rfdetr_without_its_package_or_a_connection(monkeypatch):
    monkeypatch.setitem(sys.modules, "rfdetr", None)
    with pytest.raises(DetectorError, match="rfdetr:nano needs the package rfdetr: pip install"):
        open_detector("rfdetr:nano")

    def offline(device):
        raise OSError("Failed to resolve 'storage.googleapis.com'")

    monkeypatch.setitem(sys.modules, "rfdetr", rfdetr_with(offline))
    with pytest.raises(DetectorError, match=r"rfdetr:small: Failed to resolve .*copy ~/.roboflow/models.*onnx:FILE"):
        open_detector("rfdetr:small")


def test_torchvision_from_a_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    classes = len(get_model_weights(SMALL).DEFAULT.meta["categories"])
    model = get_model(SMALL, weights=None, weights_backbone=None, num_classes=classes).eval()
    torch.save(model.state_dict(), tmp_path / "a.pth")
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    found = open_detector(f"torchvision:{SMALL}:{tmp_path / 'a.pth'}", score=0.0)(Frame(image, 0))
    with torch.inference_mode():
        expected = model([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    people = expected["labels"] == 1  # COCO's first class, after the background
    assert found.xyxy == pytest.approx(expected["boxes"][people].numpy())
    assert found.scores == pytest.approx(expected["scores"][people].numpy())


class Harmful:
    """What would end the tests if it were unpickled."""

    def __reduce__(self):
        return os._exit, (3,)


def test_torchvision_without_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_, **__):
        raise OSError("<urlopen error Temporary failure in name resolution>")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    place = rf"name resolution>. They are downloaded once, from https://.*save them as {tmp_path}/checkpoints/ssdlite"
    with pytest.raises(DetectorError, match=place):
        open_detector(f"torchvision:{SMALL}")
    (tmp_path / "a.pth").write_bytes(b"no weights")
    torch.save({"a": Harmful()}, tmp_path / "harmful.pth")
    for name in ("a.pth", "none.pth", "harmful.pth"):
        with pytest.raises(DetectorError, match="its weights cannot be loaded"):
            open_detector(f"torchvision:{SMALL}:{tmp_path / name}")


@pytest.mark.parametrize("score", [-0.1, 1.5])
def test_a_score_out_of_range(score):
    with pytest.raises(ValueError, match=f"score={score}: expected 0 … 1"):
        open_detector("motion", score=score)
