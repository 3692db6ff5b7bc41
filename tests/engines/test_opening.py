"""Engines: which one runs what, what they are refused, and that they describe as PyTorch does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reprism
from reprism.cli import main
from reprism.data.transforms import normalize
from reprism.engines import opening
from reprism.engines.convert import ConversionError
from reprism.engines.export import export_model
from reprism.engines.opening import open_model
from reprism.engines.session import EngineNetwork, UnsuitableError
from reprism.gallery.rows import Entry
from reprism.gallery.table import GalleryError
from reprism.models.network import PartNet

SIZE = (64, 32)


class Shift(nn.Module):
    """A head that is converted wrongly: it depends on the batch size while it is traced."""

    def __init__(self, in_dim: int, part_dim: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(in_dim, part_dim)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.reduce(pooled) + (1.0 if len(pooled) == 2 else 0.0)


def build(**changes: Any) -> PartNet:
    torch.manual_seed(0)
    made = reprism.build_model("p1+p2(s2c2)", "test_resnet", **{"part_dim": 8, "size": SIZE} | changes)
    made.train()(torch.randn(8, 3, *SIZE))  # batch statistics of their own
    return made.eval()


@pytest.fixture(scope="module")
def model() -> PartNet:
    return build()


@pytest.fixture(scope="module")
def crops() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, *SIZE), dtype=np.uint8))


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_openvino_describes_as_pytorch_does(model: PartNet, crops: Tensor, count: int, flip: bool) -> None:
    ours = reprism.Embedder(model, flip=flip, precision="fp32", device="cpu", engine="torch", batch_size=16)
    theirs = reprism.Embedder(model, flip=flip, precision="fp32", device="cpu", engine="openvino", batch_size=16)
    assert (ours.engine, theirs.engine, theirs.precision) == ("torch", "openvino", "fp32")
    np.testing.assert_allclose(theirs.embed(crops[:count]), ours.embed(crops[:count]), atol=1e-5)
    # The weights are the same, so that galleries and calibrations are.
    assert theirs.kind == ours.kind


def test_every_part_by_openvino(model: PartNet, crops: Tensor) -> None:
    images = normalize(model.preprocessing)(crops[:5])
    runs = open_model(model, engine="openvino", precision="fp32").runs
    with torch.inference_mode():
        expected, found = model(images).features, runs(images).features
    assert list(found) == list(expected)
    for part, rows in expected.items():
        torch.testing.assert_close(found[part], rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{"pool": "gem"}, {"pool": "avg", "head": "bnneck"}, {"backbone": "convnext_atto"}])
def test_other_networks_by_openvino(changes: dict[str, Any], crops: Tensor) -> None:
    backbone = changes.get("backbone", "resnet10t")
    rest = {name: value for name, value in changes.items() if name != "backbone"}
    net = reprism.build_model("p1+p2(s2c2)", backbone, part_dim=8, size=SIZE, **rest).eval()
    ours = reprism.Embedder(net, precision="fp32", device="cpu", engine="torch")
    theirs = reprism.Embedder(net, precision="fp32", device="cpu", engine="openvino")
    np.testing.assert_allclose(theirs.embed(crops[:3]), ours.embed(crops[:3]), atol=1e-4)


def test_auto_takes_openvino_on_a_cpu_only_where_it_describes_alike(
    model: PartNet, crops: Tensor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert reprism.Embedder(model, device="cpu").engine == "openvino"
    assert reprism.Embedder(model, device="cpu", engine="torch").engine == "torch"
    monkeypatch.setattr(opening, "installed", lambda engine: False)
    assert reprism.Embedder(model, device="cpu").engine == "torch"
    monkeypatch.undo()

    wrong = build(head=Shift)
    embedder = reprism.Embedder(wrong, device="cpu", precision="fp32")
    assert embedder.engine == "torch"
    assert "OpenVINO is installed and cannot run this network, so PyTorch does: " in caplog.text
    reference = reprism.Embedder(wrong, device="cpu", precision="fp32", engine="torch")
    np.testing.assert_array_equal(embedder.embed(crops[:4]), reference.embed(crops[:4]))

    caplog.clear()
    run = EngineNetwork._run
    monkeypatch.setattr(EngineNetwork, "_run", lambda self, pixels: run(self, pixels) + 1)
    assert reprism.Embedder(model, device="cpu").engine == "torch"
    assert "its descriptors differ (cosine below 0.99" in caplog.text


def test_engines_that_do_not_suit(model: PartNet, tmp_path: Path, crops: Tensor) -> None:
    with pytest.raises(
        UnsuitableError, match=r"ONNX Runtime runs exports: reprism export MODEL --out FOLDER, then giv"
    ):
        reprism.Embedder(model, engine="onnxruntime", device="cpu")
    with pytest.raises(UnsuitableError, match=r"OpenVINO computes on the CPU in fp32 or bf16, not in fp16 on cpu"):
        reprism.Embedder(model, engine="openvino", precision="fp16", device="cpu")
    export_model(model, tmp_path / "ov", crops, engine="openvino")
    with pytest.raises(
        UnsuitableError, match=r"the engine onnxruntime does not run network\.xml: give auto or openvino"
    ):
        reprism.Embedder(tmp_path / "ov", engine="onnxruntime")
    with pytest.raises(UnsuitableError, match=r"the engine torch does not run network\.xml: give auto or openvino"):
        reprism.Embedder(tmp_path / "ov", engine="torch")
    export_model(model, tmp_path / "onnx", crops)
    assert reprism.Embedder(tmp_path / "onnx", precision="fp32").engine == "openvino"
    assert reprism.Embedder(tmp_path / "onnx", engine="onnxruntime").engine == "onnxruntime"
    with pytest.raises(
        UnsuitableError, match=r"is a network of fp32 numbers, so precision must be auto or fp32, not b"
    ):
        reprism.Embedder(tmp_path / "onnx", engine="onnxruntime", precision="bf16")
    function = reprism.Preprocessing(SIZE)
    with pytest.raises(UnsuitableError, match=r"is run by torch, so engine must be auto or torch, not openvino"):
        reprism.Embedder(lambda images: images.mean((2, 3)), preprocessing=function, engine="openvino")


def test_bf16_by_openvino_or_an_error(model: PartNet, crops: Tensor) -> None:
    """Processors differ: bf16 describes within its rounding, or is refused."""
    try:
        embedder = reprism.Embedder(model, engine="openvino", precision="bf16", device="cpu")
    except UnsuitableError as error:
        assert "this processor does not compute in bf16: give precision fp32" in str(error)  # noqa: PT017
        return
    ours = reprism.Embedder(model, engine="torch", precision="fp32", device="cpu").embed(crops)
    assert (embedder.embed(crops) * ours).sum(1).min() > 0.99


def test_a_network_that_openvino_cannot_convert(crops: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("an operation\n  that it lacks")

    monkeypatch.setattr(torch.jit, "trace", fail)
    net = build()
    with pytest.raises(ConversionError, match="OpenVINO cannot convert test_resnet: an operation that it lacks"):
        reprism.Embedder(net, engine="openvino", device="cpu")
    assert reprism.Embedder(net, device="cpu").engine == "torch"


def test_threads_may_describe_at_the_same_time(model: PartNet, crops: Tensor) -> None:
    embedder = reprism.Embedder(model, engine="openvino", precision="fp32", device="cpu")
    expected = embedder.embed(crops)
    found: dict[int, np.ndarray] = {}

    def describe(start: int) -> None:
        found[start] = np.concatenate([embedder.embed(crops[start : start + 10]) for _ in range(20)])

    threads = [threading.Thread(target=describe, args=(start,)) for start in range(0, 40, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for start, rows in found.items():
        np.testing.assert_allclose(rows, np.tile(expected[start : start + 10], (20, 1)), atol=1e-6)


def test_an_export_searches_its_originals_gallery_and_adds_nothing(
    model: PartNet, crops: Tensor, tmp_path: Path
) -> None:
    export_model(model, tmp_path / "twin", crops, engine="openvino")
    original = reprism.Embedder(model, engine="torch", precision="fp32", device="cpu")
    twin = reprism.Embedder(tmp_path / "twin", precision="fp32")
    assert twin.original_kind == original.kind != twin.kind
    assert original.original_kind is None
    gallery = reprism.Gallery.create(tmp_path / "gallery", original)
    items = [Entry(str(number), row, str(number)) for number, row in enumerate(original.embed(crops))]
    gallery.add(items)
    opened = reprism.Gallery.open(tmp_path / "gallery", twin, searching=True)
    found = opened.search(twin.embed(crops[:5]), 1)
    assert [matches[0].path for matches in found] == [str(number) for number in range(5)]
    message = "an export may search it, and only the original may add to it"
    with pytest.raises(GalleryError, match=message):
        reprism.Gallery.open(tmp_path / "gallery", twin)
    with pytest.raises(GalleryError, match=message):
        gallery.check(twin)
    # Another network's export, or the same with other settings, is no twin.
    export_model(build(part_dim=4), tmp_path / "other", crops, engine="openvino")
    with pytest.raises(GalleryError, match="Their distances mean nothing"):
        gallery.check(reprism.Embedder(tmp_path / "other"), searching=True)
    with pytest.raises(GalleryError, match="Their distances mean nothing"):
        gallery.check(reprism.Embedder(tmp_path / "twin", flip=False), searching=True)
    # An export's own gallery belongs to it alone.
    own = reprism.Gallery.create(tmp_path / "own", twin)
    own.check(twin)
    with pytest.raises(GalleryError, match="Their distances mean nothing"):
        own.check(original, searching=True)


@pytest.mark.slow
def test_commands_print_and_record_the_engine(
    people: Path, model: PartNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, data = reprism.save(model, tmp_path / "model.safetensors"), f"market1501:{people}"
    scores = {}
    for engine in ("torch", "openvino"):
        out = tmp_path / f"{engine}.json"
        command = ["evaluate", str(file), "--data", data, "--out", str(out), "--engine", engine, "--precision", "fp32"]
        assert main([*command, "--device", "cpu", "--workers", "0"]) == 0
        assert f"model.safetensors: fp32 by {engine} on cpu" in capsys.readouterr().err
        scores[engine] = json.loads(out.read_text())
        assert scores[engine]["engine"] == engine
    assert "fp32 by openvino" in scores["openvino"]["protocol"]
    assert "by torch" not in scores["torch"]["protocol"]
    assert scores["openvino"]["mAP"] == pytest.approx(scores["torch"]["mAP"], abs=1e-3)

    calibration = tmp_path / "calibration.json"
    assert main(["calibrate", str(file), "--data", data, "--out", str(calibration), "--workers", "0"]) == 0
    assert json.loads(calibration.read_text())["fitted_on"]["engine"] == "openvino"
    gallery, pictures = str(tmp_path / "gallery"), str(people / "bounding_box_test")
    assert main(["index", pictures, "--model", str(file), "--gallery", gallery]) == 0
    assert "by openvino on cpu" in capsys.readouterr().err
    # A few pictures are described before a conversion would be done.
    query = [str(path) for path in sorted((people / "query").iterdir())]
    search = ["search", "--gallery", gallery, "--calibration", str(calibration), "--json"]
    for some, engine in ((query[:1], "torch"), (query[:9], "openvino")):
        assert main([*search[:1], *some, *search[1:]]) == 0
        said = capsys.readouterr()
        assert f"by {engine} on cpu" in said.err
        assert len(json.loads(said.out)) == len(some)

    export = ["export", str(file), "--out", str(tmp_path / "twin"), "--engine", "openvino", "--crops", pictures]
    assert main(export) == 0
    twin = str(tmp_path / "twin")
    assert main(["search", *query[:1], "--gallery", gallery, "--model", twin, "--json"]) == 0
    assert main(["index", str(people / "query"), "--model", twin, "--gallery", gallery]) == 1
    assert "an export may search it, and only the original may add to it" in capsys.readouterr().err


# Converts, quantizes and describes; tells of every process that is started meanwhile.
QUIET = """
import os, subprocess, sys
import torch
started = []
fork, popen = os.fork, subprocess.Popen.__init__
os.fork = lambda: started.append("fork") or fork()
subprocess.Popen.__init__ = lambda self, *a, **k: started.append(str(a)) or popen(self, *a, **k)
import reprism
from reprism.engines.convert import to_openvino
from reprism.engines.openvino_graph import OPENVINO
from reprism.engines.quantize import quantize
model = reprism.build_model("p1", "test_resnet", part_dim=8, size=(32, 16)).eval()
assert reprism.Embedder(model, device="cpu").engine == "openvino"
scores = {"mAP": 1.0}
quantize(OPENVINO, to_openvino(model), torch.randn(4, 3, 32, 16), lambda net: scores, scores, scores)
print(started, sys.modules["openvino_telemetry"])
"""


@pytest.mark.slow
def test_nobody_is_told_of_it(tmp_path: Path) -> None:
    """OpenVINO and NNCF would report their use to their makers, and keep a number for this machine."""
    home = {**os.environ, "HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, env=home)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[] None"
    assert not (tmp_path / "intel").exists()
