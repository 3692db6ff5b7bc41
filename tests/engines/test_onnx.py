"""Anybody's network in an ONNX file: descriptors against closed forms and PyTorch, and files that cannot be used."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

import reprism
from reprism.cli import main
from reprism.cli.clusters import ship
from reprism.cli.embedding import NetworkSettings, load_embedder
from reprism.engines.files import _weight_files
from reprism.engines.onnx import load_onnx
from reprism.engines.session import EngineNetwork
from reprism.models.checkpoint import CheckpointError, fingerprint

SHARED = Path(__file__).parents[3] / "shared"
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def write_means(
    path: Path,
    batch: int | str = "batch",
    size: tuple[int | str, int | str] = (8, 4),
    kind: int = TensorProto.FLOAT,
    *,
    flat: bool = True,
    channels: int | str = 3,
) -> Path:
    """A network whose descriptor is the mean of every channel, and one constant column."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("Pad", ["means", "pads", "half"], ["padded"]),
    ]
    if flat:
        nodes.append(helper.make_node("Flatten", ["padded"], ["out"]))
    last = "out" if flat else "padded"
    number = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    constants = [
        onnx.numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64), "pads"),
        onnx.numpy_helper.from_array(np.array(0.5, number), "half"),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("images", kind, [batch, channels, *size])],
        [helper.make_tensor_value_info(last, kind, None)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def picture(path: Path, color: tuple[int, int, int]) -> Path:
    Image.new("RGB", (4, 8), color).save(path)
    return path


def expected(color: tuple[int, int, int], order: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """The mean color in 0 … 1 and the constant, to length 1."""
    row = np.array([*(color[channel] / 255 for channel in order), 0.5])
    return row / np.linalg.norm(row)


COLORS = [(250, 10, 30), (0, 0, 255), (120, 130, 140), (9, 200, 60), (77, 1, 2)]


@pytest.mark.parametrize("batch", ["batch", 1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("flat", [True, False], ids=["BxD", "BxDx1x1"])
def test_descriptors_are_the_closed_form_for_every_batch(
    tmp_path: Path, batch: int | str, count: int, flat: bool
) -> None:
    file = write_means(tmp_path / "means.onnx", batch, flat=flat)
    embedder = reprism.Embedder.from_onnx(file, **PLAIN)
    pictures = [picture(tmp_path / f"{n}.png", color) for n, color in enumerate(COLORS[:count])]
    rows = embedder.embed(pictures)
    np.testing.assert_allclose(rows, [expected(color) for color in COLORS[:count]], atol=1e-6)
    assert (embedder.descriptor_dim, str(embedder.model.partition)) == (4, "p1")


def test_blue_may_come_first(tmp_path: Path) -> None:
    file = write_means(tmp_path / "means.onnx")
    one = picture(tmp_path / "one.png", COLORS[0])
    plain = reprism.Embedder.from_onnx(file, **PLAIN)
    swapped = reprism.Embedder.from_onnx(file, **PLAIN, bgr=True)
    np.testing.assert_allclose(swapped.embed([one])[0], expected(COLORS[0], (2, 1, 0)), atol=1e-6)
    assert plain.kind.fingerprint != swapped.kind.fingerprint


def test_mean_and_deviation_are_of_red_green_blue(tmp_path: Path) -> None:
    file = write_means(tmp_path / "means.onnx")
    one = picture(tmp_path / "one.png", (255, 51, 102))
    found = reprism.Embedder.from_onnx(file, mean=(0.5, 0.1, 0.2), std=(0.5, 0.1, 0.4)).embed([one])[0]
    row = np.array([1.0, 1.0, 0.5, 0.5])
    np.testing.assert_allclose(found, row / np.linalg.norm(row), atol=1e-6)


def test_half_precision_files_run_as_they_are(tmp_path: Path) -> None:
    file = write_means(tmp_path / "half.onnx", kind=TensorProto.FLOAT16)
    embedder = reprism.Embedder.from_onnx(file, **PLAIN)
    assert embedder.precision == "fp16"
    rows = embedder.embed([picture(tmp_path / "one.png", COLORS[3])])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows[0], expected(COLORS[3]), atol=2e-3)


def test_it_agrees_with_pytorch_and_its_batches_with_single_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2)
    trunk = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten()).eval()
    program = torch.onnx.export(
        trunk, (torch.zeros(2, 3, 64, 32),), dynamo=True, dynamic_shapes=[{0: torch.export.Dim.DYNAMIC}], verbose=False
    )
    program.save(tmp_path / "trunk.onnx")
    preprocessing = reprism.Preprocessing(size=(64, 32))
    theirs = reprism.Embedder(trunk, preprocessing=preprocessing, precision="fp32", device="cpu")
    ours = reprism.Embedder.from_onnx(
        tmp_path / "trunk.onnx", mean=preprocessing.mean, std=preprocessing.std, precision="fp32", device="cpu"
    )
    assert ours.precision == "fp32"
    images = torch.randint(0, 256, (17, 3, 70, 41), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    rows = ours.embed(images)
    np.testing.assert_allclose(rows, theirs.embed(images), atol=2e-6)
    np.testing.assert_allclose(rows, np.concatenate([ours.embed(images[n : n + 1]) for n in range(17)]), atol=2e-6)


def test_what_is_not_given_is_read_from_the_file_beside_it(tmp_path: Path) -> None:
    file = write_means(tmp_path / "means.onnx", size=("height", "width"))
    (tmp_path / "means.yaml").write_text(
        "size: [16, 8]\nmean: [0, 0, 0]\nstd: [1, 1, 1]\ninterpolation: bilinear\nbgr: true\n"
    )
    net = load_onnx(file)
    assert net.preprocessing == reprism.Preprocessing((16, 8), (0, 0, 0), (1, 1, 1), "bilinear")
    assert isinstance(net.network, EngineNetwork)
    assert net.network.bgr
    given = load_onnx(file, size=(32, 16), bgr=False)
    assert given.preprocessing.size == (32, 16)
    assert isinstance(given.network, EngineNetwork)
    assert not given.network.bgr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size: [16, 8]\n", r"the images' mean and std in training are not known. Write .*means\.yaml"),
        ("mean: [0, 0, 0]\nstd: [1, 1, 1]\n", r"the images' size in training are not known"),
        ("size: [16, 8]\nmean: [0, 0]\nstd: [1, 1, 1]\n", r"Preprocessing\.mean is \[0, 0\]"),
        ("size: [16, 8]\nmean: [0, 0, 0]\nstd: [1, 1, 0]\n", r"Preprocessing\.std"),
        ("size: [16, 8]\nmeans: [0, 0, 0]\n", r"means\.yaml: expected the fields size, mean, .*, got means"),
        ("- 1\n", r"expected the fields size, .*, got list"),
        ("bgr: sometimes\n", r"expected bgr: true or bgr: false, got 'sometimes'"),
        ("size: [16", r"means\.yaml is no YAML"),
        ("!!python/object/apply:os.system ['true']", r"means\.yaml is no YAML"),
    ],
)
def test_preprocessing_that_is_missing_or_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = write_means(tmp_path / "means.onnx", size=("height", "width"))
    (tmp_path / "means.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        reprism.Embedder(file)


def test_files_that_are_no_network_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"no model at .*absent\.onnx"):
        reprism.Embedder.from_onnx(tmp_path / "absent.onnx", **PLAIN)
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(CheckpointError, match=r"text\.onnx is no ONNX model: "):
        reprism.Embedder.from_onnx(tmp_path / "text.onnx", **PLAIN)
    with pytest.raises(CheckpointError, match=r"takes .*1, ?8, ?4.*; expected one input, B×3×H×W"):
        reprism.Embedder.from_onnx(write_means(tmp_path / "gray.onnx", channels=1), **PLAIN)
    with pytest.raises(CheckpointError, match=r"takes images of 8×4 pixels \(height×width\), and its pre.* says 4×8"):
        reprism.Embedder.from_onnx(write_means(tmp_path / "means.onnx"), (4, 8), **PLAIN)
    with pytest.raises(ValueError, match=r"is a network of fp32 numbers, so precision must be auto or fp32, not bf16"):
        reprism.Embedder(load_onnx(tmp_path / "means.onnx", **PLAIN, engine="onnxruntime"), precision="bf16")
    with pytest.raises(ValueError, match=r"is a network of fp32 numbers, so precision must be auto or fp32, not bf16"):
        reprism.Embedder.from_onnx(tmp_path / "means.onnx", **PLAIN, engine="onnxruntime", precision="bf16")
    graph = onnx.load(tmp_path / "means.onnx")
    graph.graph.output[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 4]))
    onnx.save(graph, tmp_path / "map.onnx")
    with pytest.raises(CheckpointError, match=r"map\.onnx returns 1×3×8×4 for 1 images; expected B×D"):
        reprism.Embedder.from_onnx(tmp_path / "map.onnx", **PLAIN)
    with pytest.raises(CheckpointError, match=r"means\.onnx is an ONNX file: .* needs a network of"):
        reprism.load(tmp_path / "means.onnx")
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name, name=name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CheckpointError, match=r"needs the package onnxruntime: pip install 'reprism\[onnx\]'"):
        reprism.Embedder.from_onnx(tmp_path / "means.onnx", **PLAIN, engine="onnxruntime")


def put_outside(tensor: TensorProto, location: str) -> None:
    """Let a tensor's four bytes lie in a file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("length", "4")):
        tensor.external_data.add(key=key, value=value)


def test_weights_outside_the_models_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(np.float32(1).tobytes())
    (tmp_path / "model").mkdir()
    file = write_means(tmp_path / "model" / "means.onnx")
    hostile = onnx.load(file)
    put_outside(hostile.graph.initializer[1], "../secret")
    file.write_bytes(hostile.SerializeToString())
    with pytest.raises(CheckpointError, match=r"has weights outside its folder, in .*secret"):
        reprism.Embedder.from_onnx(file, **PLAIN)


def test_weights_in_files_beside_it_count_as_its_contents(tmp_path: Path) -> None:
    file = write_means(tmp_path / "means.onnx")
    assert _weight_files(file) == []
    model = onnx.load(file)
    half = model.graph.initializer[1]
    put_outside(half, "half.bin")
    file.write_bytes(model.SerializeToString())
    found = []
    for value in (0.5, 0.25):
        (tmp_path / "half.bin").write_bytes(np.float32(value).tobytes())
        found.append(fingerprint(load_onnx(file, **PLAIN)))
    assert found[0] != found[1]
    # A tensor may lie in an attribute of a node, in a graph that is an attribute of another.
    inner = helper.make_node("Constant", [], ["inner"], value=half)
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [])])
    del model.graph.initializer[1]
    model.graph.node.append(helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch))
    file.write_bytes(model.SerializeToString())
    assert _weight_files(file) == [tmp_path / "half.bin"]


def test_a_fingerprint_is_of_contents_and_preprocessing_not_of_the_name(tmp_path: Path) -> None:
    first, other = write_means(tmp_path / "first.onnx"), write_means(tmp_path / "other.onnx")
    same = [fingerprint(load_onnx(path, **PLAIN)) for path in (first, other)]
    assert same[0] == same[1]
    changed = onnx.load(first)
    changed.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.array(0.25, np.float32), "half"))
    onnx.save(changed, other)
    assert fingerprint(load_onnx(other, **PLAIN)) != same[0]
    assert fingerprint(load_onnx(first, mean=(0.1, 0, 0), std=(1, 1, 1))) != same[0]


def test_commands_take_an_onnx_file(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_means(tmp_path / "means.onnx", size=("height", "width"))
    (tmp_path / "means.yaml").write_text("size: [16, 8]\nmean: [0, 0, 0]\nstd: [1, 1, 1]\n")
    assert main(["evaluate", str(file), "--data", f"market1501:{people}", "--out", str(tmp_path / "scores.json")]) == 0
    dataset = reprism.open_dataset("market1501", people)
    # By definition: the mean colors of the picture and of its mirror image are the same.
    shrunk = reprism.Preprocessing((16, 8), (0, 0, 0), (1, 1, 1))
    means = reprism.Embedder(
        lambda images: torch.cat([images.mean((2, 3)), torch.full((len(images), 1), 0.5)], 1),
        preprocessing=shrunk, device="cpu", precision="fp32",
    )  # fmt: skip
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert f"{reprism.evaluate_model(means, dataset).metrics.mAP:.6f}" == f"{scores['mAP']:.6f}"

    gallery = tmp_path / "gallery"
    assert main(["index", str(people / "bounding_box_test"), "--model", str(file), "--gallery", str(gallery)]) == 0
    query = next(iter(sorted((people / "query").iterdir())))
    capsys.readouterr()
    assert main(["search", str(query), "--gallery", str(gallery), "--top", "3", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    rows = reprism.Embedder(file).embed([query, *(match["path"] for match in answer["matches"])])
    found = [match["distance"] for match in answer["matches"]]
    np.testing.assert_allclose(found, np.linalg.norm(rows[1:] - rows[0], axis=1), atol=1e-3)
    # Another preprocessing is another network: its descriptors do not compare.
    (tmp_path / "means.yaml").write_text("size: [16, 8]\nmean: [0.5, 0, 0]\nstd: [1, 1, 1]\n")
    assert main(["search", str(query), "--gallery", str(gallery)]) == 1
    assert "Their distances mean nothing: take the gallery's model" in capsys.readouterr().err


def test_preprocessing_may_lie_elsewhere(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_means(tmp_path / "means.onnx", size=(16, 8))
    (tmp_path / "settings").mkdir()
    elsewhere = tmp_path / "settings" / "theirs.yaml"
    elsewhere.write_text("mean: [0.485, 0.456, 0.406]\nstd: [0.229, 0.224, 0.225]\n")
    command = ["evaluate", str(file), "--data", f"market1501:{people}", "--workers", "0", "--out"]
    scores = []
    for number, given in enumerate((str(elsewhere), "imagenet")):
        out = tmp_path / f"{number}.json"
        assert main([*command, str(out), "--preprocess", given]) == 0
        scores.append(json.loads(out.read_text())["mAP"])
    # ImageNet's are the default of Preprocessing, which this does not rely on.
    embedder = reprism.Embedder.from_onnx(file, (16, 8), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    metrics = reprism.evaluate_model(embedder, reprism.open_dataset("market1501", people)).metrics
    assert scores == [pytest.approx(metrics.mAP)] * 2

    capsys.readouterr()
    out = str(tmp_path / "none.json")
    assert main([*command, out, "--preprocess", str(tmp_path / "absent.yaml")]) == 1
    assert "absent.yaml: expected a YAML file, or imagenet" in capsys.readouterr().err
    model = reprism.save(reprism.build_model("p1", "test_resnet", part_dim=4, size=(16, 8)), tmp_path / "m.safetensors")
    assert main(["evaluate", str(model), *command[2:], out, "--preprocess", "imagenet"]) == 1
    assert "--preprocess is for ONNX files" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data and weights are not on this machine")
def test_a_published_network_scores_as_it_was_measured_elsewhere() -> None:
    """OSNet x0.25, trained on other data: rank-1 69.0 % and mAP 48.4 % by a program of its own."""
    weights, data = SHARED / "weights" / "osnet_x0_25_msmt17.onnx", SHARED / "data" / "Market-1501-split"
    preprocessing = reprism.Preprocessing((256, 128))
    embedder = reprism.Embedder.from_onnx(
        weights, preprocessing.size, preprocessing.mean, preprocessing.std, interpolation="bilinear"
    )
    metrics = reprism.evaluate_model(embedder, reprism.open_dataset("market1501", data)).metrics
    assert (metrics.rank(1), metrics.mAP) == pytest.approx((0.690, 0.484), abs=0.001)


def test_a_network_travels_with_its_weights_and_its_preprocessing(tmp_path: Path) -> None:
    """To workers of a cluster, which have none of its files."""
    file, elsewhere = tmp_path / "net.onnx", tmp_path / "theirs.yaml"
    model = onnx.load(write_means(tmp_path / "means.onnx", size=(16, 8)))
    # One more matrix behind it, which lies in a file of its own; the small constants stay.
    model.graph.node.append(helper.make_node("MatMul", ["out", "matrix"], ["turned"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(4, 400, dtype=np.float32), "matrix"))
    model.graph.output[0].name = "turned"
    onnx.save(model, file, save_as_external_data=True, location="net.weights", size_threshold=1024)
    (tmp_path / "net.yaml").write_text("mean: [0, 0, 0]\nstd: [1, 1, 1]\n")
    elsewhere.write_text("mean: [0.485, 0.456, 0.406]\nstd: [0.229, 0.224, 0.225]\n")
    settings = [NetworkSettings(), NetworkSettings(preprocess=str(elsewhere)), NetworkSettings(preprocess="imagenet")]
    here = [load_embedder(file, network).kind for network in settings]
    shipped = [ship(file, network, batch_size=64, flip=True) for network in settings]
    assert here[0] != here[1] == here[2]
    assert shipped[0].files.keys() == {"net.onnx", "net.weights", "net.yaml"}
    for path in tmp_path.iterdir():
        path.unlink()
    assert [make().kind for make in shipped] == here
