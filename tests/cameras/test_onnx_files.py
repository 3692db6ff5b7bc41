"""Detectors in ONNX files: tiny graphs with constant heads, whose boxes are worked out by hand."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from reprism.cameras import Frame, detect, open_detector
from reprism.cameras.heads import Head, decode_yolox, recognize
from reprism.cameras.onnx_files import onnx_detector, prepare, suppress
from reprism.engines.files import open_session
from reprism.engines.openvino import OpenVinoSession
from reprism.engines.session import UnsuitableError
from reprism.models.checkpoint import CheckpointError

SHARED = Path(__file__).parents[2].parent / "shared"
ENGINES = ["onnxruntime", "openvino"]


def write(path, size=(64, 64), **outputs):
    """Write a network that returns constants, whatever the image."""
    nodes, infos = [], []
    for name, values in outputs.items():
        values = np.asarray(values)
        values = values if values.dtype.kind in "iu" else values.astype(np.float32)
        nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values)))
        kind = TensorProto.INT64 if values.dtype == np.int64 else TensorProto.FLOAT
        infos.append(helper.make_tensor_value_info(name, kind, values.shape))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, *size])
    graph = helper.make_graph(nodes, "g", [images], infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def frame(height=64, width=64):
    return Frame(np.zeros((height, width, 3), np.uint8), 0)


def yolox(size=(64, 64), classes=80):
    """Return an empty YOLOX output: no cell is sure of anything."""
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in (8, 16, 32))
    return np.zeros((1, cells, 5 + classes), np.float32)


@pytest.mark.parametrize("engine", ENGINES)
def test_yolox(tmp_path, engine):
    output = yolox()
    # The grid of stride 8 has 8×8 cells, so that cell 19 is row 2, column 3; that of stride 16 begins at 64.
    output[0, 19, :6] = [0.5, 0.25, np.log(2), np.log(3), 0.9, 0.8]
    output[0, 64 + 5, :6] = [0.0, 0.0, np.log(1), np.log(2), 0.5, 1.0]  # row 1, column 1
    output[0, 30, :7] = [0, 0, 1, 1, 0.9, 0.1, 0.9]  # surely a bicycle
    path = write(tmp_path / "a.onnx", output=output)
    # The frame is 64×48 of the input, at half its size.
    boxes = detect(onnx_detector(path, engine=engine), frame(128, 96))
    first = np.array([(3.5 * 8 - 8), (2.25 * 8 - 12), (3.5 * 8 + 8), (2.25 * 8 + 12)]) * 2
    second = np.array([16 - 8, 16 - 16, 16 + 8, 16 + 16]) * 2
    assert boxes.xyxy == pytest.approx(np.stack([first, second]), abs=1e-3)
    assert boxes.scores == pytest.approx([0.72, 0.5], abs=1e-6)


def test_yolox_that_is_decoded_already_is_known_by_its_sizes(tmp_path):
    output = yolox()
    output[0, :, 2:4] = 10
    output[0, 7, :6] = [32, 30, 16, 20, 1, 0.75]
    boxes = detect(onnx_detector(write(tmp_path / "a.onnx", output=output)), frame())
    assert boxes.xyxy.tolist() == [[24, 20, 40, 40]]
    assert boxes.scores.tolist() == [0.75]


def test_yolox_is_decoded_as_by_a_loop_over_its_cells():
    size = (96, 64)
    raw = np.random.default_rng(0).normal(0, 1, yolox(size).shape).astype(np.float32)
    boxes, scores = decode_yolox([raw], size, 0)
    number = 0
    for stride in (8, 16, 32):
        for row in range(size[0] // stride):
            for column in range(size[1] // stride):
                x, y, w, h, objectness, person = raw[0, number, :6].astype(float)
                cx, cy, w, h = (column + x) * stride, (row + y) * stride, np.exp(w) * stride, np.exp(h) * stride
                assert boxes[number] == pytest.approx(
                    [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], rel=1e-4, abs=1e-3
                )
                assert scores[number] == pytest.approx(objectness * person, rel=1e-5)
                number += 1
    assert number == len(boxes)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("names", "classes", "person"), [(("dets", "labels"), 91, 1), (("logits", "pred_boxes"), 80, 0)]
)
def test_detr(tmp_path, engine, names, classes, person):
    boxes = np.array([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.1, 0.1], [0.5, 0.5, 0.2, 0.4]]])
    logits = np.full((1, 3, classes), -8.0)
    logits[0, 0, person], logits[0, 1, person], logits[0, 2, 17] = 2, 0, 5
    given = {"dets": boxes, "labels": logits, "logits": logits, "pred_boxes": boxes}
    path = write(tmp_path / "a.onnx", **{name: given[name] for name in names})
    found = detect(onnx_detector(path, engine=engine), frame(100, 200))
    assert found.xyxy == pytest.approx(np.array([[80, 30, 120, 70], [40, 70, 60, 80]]), abs=1e-3)
    assert found.scores == pytest.approx([1 / (1 + np.exp(-2)), 0.5], abs=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_ssd_rows(tmp_path, engine):
    rows = np.zeros((1, 1, 5, 7))
    rows[0, 0, 0] = [0, 1, 0.9, 0.1, 0.2, 0.3, 0.8]
    rows[0, 0, 1] = [0, 2, 0.9, 0.1, 0.2, 0.3, 0.8]  # another class
    rows[0, 0, 2] = [0, 1, 0.2, 0.1, 0.2, 0.3, 0.8]  # not sure
    rows[0, 0, 3] = [-1, 1, 0.9, 0.1, 0.2, 0.3, 0.8]  # after the last one
    found = detect(onnx_detector(write(tmp_path / "a.onnx", detection_out=rows), engine=engine), frame(100, 200))
    assert found.xyxy == pytest.approx(np.array([[20, 20, 60, 80]]), abs=1e-3)
    assert found.scores == pytest.approx([0.9])


@pytest.mark.parametrize("in_pixels", [False, True])
@pytest.mark.parametrize(("classes", "person"), [(21, 15), (2, 1), (81, 1)])
def test_ssd_boxes_and_scores(tmp_path, in_pixels, classes, person):
    boxes = np.array([[[0.1, 0.2, 0.3, 0.8], [0.11, 0.2, 0.31, 0.8], [0.5, 0.5, 0.9, 0.9]]])
    scores = np.zeros((1, 3, classes))
    scores[0, :, person], scores[0, :, 0] = [0.6, 0.9, 0.1], [0.4, 0.1, 0.9]
    path = write(tmp_path / "a.onnx", scores=scores, boxes=boxes * (64 if in_pixels else 1))
    found = detect(onnx_detector(path), frame(100, 200))
    assert found.xyxy == pytest.approx(np.array([[22, 20, 62, 80]]), abs=1e-3)  # the surer of two that overlap
    assert found.scores == pytest.approx([0.9])


@pytest.mark.parametrize("engine", ENGINES)
def test_ssd_as_torchvision_exports_it(tmp_path, engine):
    given = {
        "boxes": np.array([[8, 16, 32, 64], [0, 0, 9, 9]], np.float32),
        "scores": np.array([0.7, 0.8], np.float32),
        "labels": np.array([1, 3], np.int64),
    }
    found = detect(onnx_detector(write(tmp_path / "a.onnx", **given), engine=engine), frame(128, 64))
    assert found.xyxy.tolist() == [[8, 32, 32, 128]]
    assert found.scores == pytest.approx([0.7])


def test_outputs_of_no_known_detector_are_listed(tmp_path):
    path = write(tmp_path / "a.onnx", first=np.zeros((1, 100, 85)), second=np.zeros((3, 2)))
    with pytest.raises(CheckpointError, match=r"a.onnx.*returns first 1×100×85, second 3×2 for an image of 64×64"):
        onnx_detector(path)


def test_a_class_that_is_not_known_is_asked_for_and_may_stand_beside_the_file(tmp_path):
    output = yolox(classes=7)
    output[0, 0, [4, 5 + 6]] = 1
    path = write(tmp_path / "a.onnx", output=output)
    with pytest.raises(CheckpointError, match=r"has 7 classes, and which one is a person is not known: write person"):
        onnx_detector(path)
    assert len(detect(onnx_detector(path, person=6), frame())) == 1
    assert len(detect(onnx_detector(path, person=5), frame())) == 0
    (tmp_path / "a.yaml").write_text("person: 6\n")
    assert len(detect(open_detector(f"onnx:{path}"), frame())) == 1
    for text, message in (
        ("person: 7", "number of a class, got 7"),
        ("mean: [1, 2]", "three numbers"),
        ("a: 1", "fields"),
    ):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            onnx_detector(path)


def test_a_frame_reaches_the_network_in_its_own_channels_and_range(tmp_path):
    """A network of one SSD row, whose score is the mean of its first channel, divided by 255."""
    row = np.array([0, 1, 0, 0, 0, 1, 1], np.float32).reshape(1, 1, 1, 7)
    slot = np.array([0, 0, 1 / 255, 0, 0, 0, 0], np.float32)
    nodes = [
        helper.make_node("Slice", ["images", "zero", "one", "axis"], ["channel"]),
        helper.make_node("ReduceMean", ["channel"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "slot"], ["placed"]),
        helper.make_node("Add", ["placed", "row"], ["rows"]),
    ]
    constants = {"zero": np.array([0]), "one": np.array([1]), "axis": np.array([1]), "slot": slot, "row": row}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, 1, 1, 7])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    image = np.empty((50, 80, 3), np.uint8)
    image[:] = (200, 20, 100)
    given = Frame(image, 0)
    assert detect(onnx_detector(path, score=0.1), given).scores == pytest.approx([100 / 255], abs=1e-5)  # blue
    (tmp_path / "a.yaml").write_text("bgr: false")
    assert detect(onnx_detector(path, score=0.1), given).scores == pytest.approx([200 / 255], abs=1e-5)  # red


@given(st.integers(20, 300), st.integers(20, 300), st.data())
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("letterbox", [True, False])
def test_boxes_in_the_input_come_back_to_where_they_were(letterbox, height, width, data):
    left, top = data.draw(st.integers(0, width - 10)), data.draw(st.integers(0, height - 10))
    right, bottom = data.draw(st.integers(left + 8, width)), data.draw(st.integers(top + 8, height))
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = (0, 255, 0)
    head = Head("any", decode_yolox, 0, 1, letterbox=letterbox)
    pixels, scale = prepare(image, (160, 128), head)
    assert pixels.shape == (1, 3, 160, 128)
    rows, columns = np.nonzero(pixels[0, 1] > 0.5)  # grey, which fills up, is 114 of 255
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / np.array([*scale, *scale])
    slack = 1 + 1.5 / min(scale)
    assert np.abs(seen - [left, top, right, bottom]).max() <= slack
    if letterbox:
        assert scale[0] == scale[1]
        assert (pixels[0, :, int(height * scale[1]) + 1 :] == np.float32(114) / 255).all()


def test_the_letterbox_is_yoloxs_own():
    """YOLOX's preprocessing, as its authors' repository has it."""
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    head = recognize("a", ["output"], [yolox((416, 416))], (416, 416))
    bgr = image[:, :, ::-1]
    padded = np.full((416, 416, 3), 114, np.uint8)
    ratio = min(416 / 90, 416 / 160)
    resized = cv2.resize(bgr, (int(160 * ratio), int(90 * ratio)), interpolation=cv2.INTER_LINEAR)
    padded[: int(90 * ratio), : int(160 * ratio)] = resized
    pixels, scale = prepare(image, (416, 416), head)
    assert np.abs(pixels[0] - padded.transpose(2, 0, 1)).max() < 1e-3
    assert scale == (ratio, ratio)


@given(st.integers(0, 2**32 - 1), st.integers(0, 25), st.sampled_from([0.3, 0.45, 0.7]))
def test_suppression_is_that_of_its_definition(seed, count, overlap):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 20, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 20, (count, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(count).astype(np.float32)
    kept = []
    for index in np.argsort(-scores):
        x1, y1, x2, y2 = boxes[index].astype(float)
        for other in kept:
            a1, b1, a2, b2 = boxes[other].astype(float)
            both = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            if both / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - both) > overlap:
                break
        else:
            kept.append(index)
    assert suppress(boxes, scores, overlap).tolist() == kept


def test_boxes_that_are_no_numbers_do_no_harm(tmp_path):
    output = yolox()
    output[0, :, 4:6] = 1
    output[0, :, :4] = np.nan
    output[0, 1, :4] = [0, 0, 1e9, 0]  # whose width would be infinite
    output[0, 2, :4] = 0
    found = detect(onnx_detector(write(tmp_path / "a.onnx", output=output), engine="onnxruntime"), frame())
    assert np.isfinite(found.xyxy).all()
    assert len(found) >= 1


def test_openvino_runs_a_file_only_if_all_its_outputs_are_those_of_onnx_runtime(tmp_path, monkeypatch):
    path = write(tmp_path / "a.onnx", dets=np.full((1, 3, 4), 0.5), labels=np.full((1, 3, 91), -3.0))
    assert open_session(path, (64, 64)).engine == "openvino"
    assert open_session(path, (64, 64), engine="onnxruntime").outputs == ("dets", "labels")
    assert open_session(path, (64, 64), engine="openvino").outputs == ("dets", "labels")
    right = OpenVinoSession.run_all
    for wrong in (lambda one, other: [one, -other], lambda one, other: [one, other * np.nan], lambda one, _: [one]):
        monkeypatch.setattr(OpenVinoSession, "run_all", lambda self, pixels, wrong=wrong: wrong(*right(self, pixels)))
        assert open_session(path, (64, 64)).engine == "onnxruntime"
    with pytest.raises(UnsuitableError, match="the engine torch does not run"):
        open_session(path, (64, 64), engine="torch")


def test_files_that_are_no_detectors(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such file"):
        onnx_detector(tmp_path / "none.onnx")
    (tmp_path / "a.onnx").write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="is no ONNX model"):
        onnx_detector(tmp_path / "a.onnx")
    path = write(tmp_path / "b.onnx", output=yolox())
    model = onnx.load(path)
    tensor = next(node for node in model.graph.node).attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../elsewhere"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="weights outside its folder"):
        onnx_detector(path)
    with pytest.raises(ValueError, match="score=2"):
        onnx_detector(path, score=2)


@pytest.mark.skipif(not (SHARED / "weights/yolox_nano.onnx").is_file(), reason="no development data in ../shared")
@pytest.mark.parametrize("engine", ENGINES)
def test_yolox_nano_finds_the_people_of_a_real_frame(engine, overlap):
    image = np.asarray(Image.open(SHARED / "data/frames/c1s1_014901.jpg").convert("RGB"))
    found = detect(onnx_detector(SHARED / "weights/yolox_nano.onnx", engine=engine), Frame(image, 0))
    by_eye = [(631, 404, 849, 909), (837, 355, 1085, 940), (1083, 433, 1233, 829)]
    assert all(max(overlap(np.array(box), other) for other in found.xyxy) > 0.7 for box in by_eye)
    assert len(found) <= 6
