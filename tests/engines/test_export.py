"""Exports: equal to their network part by part, proved before they appear, refused when damaged."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import reprism
from reprism.cli import main
from reprism.data.transforms import Preprocessing, normalize
from reprism.engines import export
from reprism.engines.export import ExportError, Score, export_model, load_exported
from reprism.engines.session import EngineNetwork
from reprism.models.checkpoint import CheckpointError, fingerprint
from reprism.models.foreign import ForeignNet
from reprism.models.network import PartNet
from reprism.precision import Precision

SIZE = (64, 32)


@pytest.fixture(scope="module")
def model() -> PartNet:
    torch.manual_seed(0)
    made = reprism.build_model("p1+p2(s2c2)", "test_resnet", part_dim=8, size=SIZE)
    made.train()(torch.randn(8, 3, *SIZE))  # batch statistics of their own
    return made.eval()


@pytest.fixture(scope="module")
def crops() -> Tensor:
    """Patches of color with noise: no two alike, none far from another."""
    rng = np.random.default_rng(0)
    bands = rng.integers(0, 256, (40, 3, 8, 1)).repeat(8, 2) + rng.integers(-20, 20, (40, 3, *SIZE))
    return torch.from_numpy(bands.clip(0, 255).astype(np.uint8))


KINDS = [("onnx", "fp32"), ("onnx", "fp16"), ("openvino", "fp32"), ("openvino", "fp16")]
ROUNDING = {"fp32": 1e-4, "fp16": 1e-2}


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def exported(
    request: pytest.FixtureRequest, model: PartNet, crops: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    engine, precision = request.param
    folder = tmp_path_factory.mktemp("export") / "net"
    export_model(model, folder, crops, engine=engine, precision=precision)
    return folder


@pytest.fixture(scope="module")
def onnx_folder(model: PartNet, crops: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "net"
    export_model(model, folder, crops)
    return folder


def rounding(folder: Path) -> float:
    return ROUNDING[json.loads((folder / "export.json").read_text())["precision"]]


def widest(folder: Path) -> Precision:
    # Where the processor has bf16, OpenVINO would compute in it; ONNX Runtime takes the file's own numbers.
    about = json.loads((folder / "export.json").read_text())
    return "auto" if (about["engine"], about["precision"]) == ("onnx", "fp16") else "fp32"


@pytest.mark.parametrize("batch", [1, 2, 17, 40])
def test_every_part_is_described_as_before(exported: Path, model: PartNet, crops: Tensor, batch: int) -> None:
    images = normalize(model.preprocessing)(crops[:batch])
    net = load_exported(exported, precision=widest(exported))
    with torch.inference_mode():
        expected, found = model(images).features, net(images).features
    assert list(found) == list(expected) == ["p1", "p2", "p2s1", "p2s2", "p2c1", "p2c2"]
    for part, rows in expected.items():
        torch.testing.assert_close(found[part], rows, rtol=rounding(exported), atol=rounding(exported))
    assert (net.partition, net.preprocessing, net.backbone) == (model.partition, model.preprocessing, model.backbone)
    assert (net.part_dim, net.descriptor_dim) == (8, 48)


@pytest.mark.parametrize("flip", [True, False])
def test_an_embedder_takes_the_folder(exported: Path, model: PartNet, crops: Tensor, flip: bool) -> None:
    ours = reprism.Embedder(model, flip=flip, precision="fp32", device="cpu", engine="torch")
    theirs = reprism.Embedder(exported, flip=flip, precision=widest(exported))
    np.testing.assert_allclose(theirs.embed(crops), ours.embed(crops), atol=rounding(exported) / 10)
    about = json.loads((exported / "export.json").read_text())
    assert about["exported_from"] == ours.kind.fingerprint == fingerprint(model)
    assert theirs.kind.fingerprint != ours.kind.fingerprint
    assert (theirs.kind.partition, theirs.kind.dim) == (ours.kind.partition, ours.kind.dim)


def test_the_proof_is_by_definition(crops: Tensor) -> None:
    """Ranked lists of a network and of one that adds noise, by loops over all pairs."""
    rng = torch.Generator().manual_seed(3)
    table = torch.randn(len(crops), 6, generator=rng)
    noisy = table + 0.05 * torch.randn(len(crops), 6, generator=rng)
    first = normalize(Preprocessing(SIZE))(crops)[:, :, 0, 0]

    def looked_up(rows: Tensor) -> Any:
        def describe(images: Tensor) -> Tensor:
            which = torch.cdist(images[:, :, 0, 0], first).argmin(1)
            return rows[which] if images.any() else rows[: len(images)]

        return ForeignNet(describe, Preprocessing(SIZE))

    found = export._compare(looked_up(table), looked_up(noisy), crops)
    unit = [torch.nn.functional.normalize(rows.double(), dim=1).numpy() for rows in (table, noisy)]
    before, after = (np.linalg.norm(rows[:, None] - rows[None], axis=2) for rows in unit)
    swap, same = 0.0, 0
    for query in range(len(crops)):
        others = [other for other in range(len(crops)) if other != query]
        same += min(others, key=before[query].__getitem__) == min(others, key=after[query].__getitem__)
        for one in others:
            for other in others:
                if after[query, one] < after[query, other]:
                    swap = max(swap, before[query, one] - before[query, other])
    assert swap > 0.01
    assert found.largest_swap == pytest.approx(swap, rel=1e-6)
    assert found.same_nearest == pytest.approx(same / len(crops))
    assert found.least_cosine == pytest.approx((unit[0] * unit[1]).sum(1).min(), rel=1e-9)


def test_a_failed_proof_leaves_nothing(
    model: PartNet, crops: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(net: PartNet | ForeignNet) -> dict[str, float]:
        return {"mAP": 0.5 if net is model else 0.49, "rank1": 0.9}

    with pytest.raises(ExportError, match=r"has mAP 49\.00%, its original 50\.00%: more than 0\.1 points less"):
        export_model(model, tmp_path / "net", crops, engine="openvino", score=worse)
    monkeypatch.setattr(export, "LARGEST_SWAP", {"fp32": -1})
    with pytest.raises(ExportError, match=r"apart changed places \(at most -1 is allowed\)"):
        export_model(model, tmp_path / "net", crops, engine="openvino")
    monkeypatch.undo()
    run = EngineNetwork._run

    def wrong_for_two(self: EngineNetwork, pixels: np.ndarray) -> np.ndarray:
        """Fail as exporters of the field are known to: one batch size is right, another is not."""
        rows = run(self, pixels)
        return rows[::-1].copy() if len(rows) == 2 else rows

    monkeypatch.setattr(EngineNetwork, "_run", lambda self, pixels: run(self, pixels) + 0.5)
    with pytest.raises(ExportError, match=r"does not describe as its original does: the least cosine of 40 crops is "):
        export_model(model, tmp_path / "net", crops, engine="openvino")
    monkeypatch.setattr(EngineNetwork, "_run", wrong_for_two)
    with pytest.raises(ExportError, match=r"describes a crop differently in batches of \(1, 2, 17\)"):
        export_model(model, tmp_path / "net", crops, engine="openvino")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(
    model: PartNet, crops: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match="expected at least 17 crops to prove an export on, got 16"):
        export_model(model, tmp_path / "net", crops[:16])
    with pytest.raises(ExportError, match="expected a network in eval mode"):
        export_model(reprism.build_model("p1", "test_resnet", part_dim=8, size=SIZE).train(), tmp_path / "net", crops)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        export_model(model, tmp_path / "full", crops)
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxscript":
            raise ImportError(name, name=name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExportError, match=r"needs the package onnxscript: pip install 'reprism\[export\]'"):
        export_model(model, tmp_path / "net", crops)


def test_damaged_exports_are_refused(onnx_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no exported network: it holds no export\.json$"):
        reprism.Embedder(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"it holds no export\.json; give .*model\.safetensors"):
        reprism.Embedder(tmp_path)
    about = json.loads((onnx_folder / "export.json").read_text())
    for number, (changes, message) in enumerate(
        (
            ({"format": 2, "version": "9"}, r"exported in format 2 by Reprism 9; .* Update Reprism"),
            ({"engine": "other"}, r"export\.json is damaged"),
            ({"partition": "p0x"}, r"export\.json is damaged"),
            ({"preprocessing": {"size": [1, 2]}}, r"export\.json is damaged"),
            ({"partition": "p1+p2(s4)"}, r"export\.json has changed\. Export again"),
            ({"backbone": "other"}, r"export\.json has changed\. Export again"),
            ({"partition": "p1(s6)"}, r"export\.json is damaged .*48 columns cannot be divided equally"),
        )
    ):
        folder = tmp_path / str(number)
        shutil.copytree(onnx_folder, folder)
        (folder / "export.json").write_text(json.dumps(about | changes))
        with pytest.raises(CheckpointError, match=message):
            reprism.Embedder(folder)
    (folder / "export.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"export\.json is damaged"):
        reprism.Embedder(folder)
    (tmp_path / "0" / "export.json").write_text(json.dumps(about))
    (tmp_path / "0" / "network.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"no model at .*network\.onnx"):
        reprism.Embedder(tmp_path / "0")
    other = onnx.load(onnx_folder / "network.onnx")
    other.doc_string = "changed"
    onnx.save(other, tmp_path / "0" / "network.onnx")
    with pytest.raises(CheckpointError, match=r"network\.onnx or export\.json has changed\. Export again"):
        reprism.Embedder(tmp_path / "0")


@pytest.mark.parametrize("damage", ["remove", "truncate", "empty"])
@pytest.mark.parametrize("file", ["network.xml", "network.bin"])
def test_damaged_files_of_openvino_are_refused(
    model: PartNet, crops: Tensor, tmp_path: Path, file: str, damage: str
) -> None:
    export_model(model, tmp_path / "net", crops, engine="openvino")
    path = tmp_path / "net" / file
    content = path.read_bytes()
    path.unlink() if damage == "remove" else path.write_bytes(content[: len(content) // 2 * (damage == "truncate")])
    with pytest.raises(CheckpointError, match=r"no model at|weights in network\.bin, which is not|OpenVINO can run"):
        reprism.Embedder(tmp_path / "net")


def test_the_mirrored_image_may_be_inside(model: PartNet, crops: Tensor, tmp_path: Path) -> None:
    for engine in ("onnx", "openvino"):
        export_model(model, tmp_path / engine, crops, engine=engine, mirrored=True)
        ours = reprism.Embedder(model, precision="fp32", device="cpu", engine="torch")
        theirs = reprism.Embedder(tmp_path / engine, precision="fp32")
        np.testing.assert_allclose(theirs.embed(crops), ours.embed(crops), atol=1e-5)
        # Another program gets the sum without any work of its own.
        images = normalize(model.preprocessing)(crops[:3])
        with torch.inference_mode():
            both = model(images).descriptor + model(images.flip(-1)).descriptor
        torch.testing.assert_close(theirs.model(images).descriptor, both, rtol=1e-4, atol=1e-4)
        with pytest.raises(ValueError, match=r"the mirrored image is part of this exported network"):
            reprism.Embedder(tmp_path / engine, flip=False)


RUN_BY = {"openvino": "openvino", "onnx": "onnxruntime"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_integers_lose_no_more_than_allowed(engine: str, crops: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = reprism.build_model("p1+p2", "test_resnet", part_dim=8, size=SIZE)  # few layers
    model.train()(torch.randn(8, 3, *SIZE))
    model.eval()
    quantized: dict[str, Any] = {"engine": engine, "precision": "int8", "calibration": crops}
    export_model(model, tmp_path / "all", crops, **quantized, score=lambda net: {"mAP": 0.5, "rank1": 0.5})
    whole = json.loads((tmp_path / "all" / "export.json").read_text())
    net = load_exported(tmp_path / "all")
    assert (net.precision, net.engine, whole["calibrated_on"]) == ("int8", RUN_BY[engine], 40)
    assert whole["parity"]["least_cosine"] < 0.9999 < whole["parity"]["batches_cosine"]

    scored: list[object] = []

    def wants_one_wide(net: PartNet | ForeignNet) -> dict[str, float]:
        scored.append(net)  # the original, then all layers in integers, then fewer
        return {"mAP": 0.49 if len(scored) == 2 else 0.5, "rank1": 0.5}

    score: Score = wants_one_wide
    export_model(model, tmp_path / "fewer", crops, **quantized, score=score)
    fewer = json.loads((tmp_path / "fewer" / "export.json").read_text())
    assert fewer["exported"] == {"mAP": 0.5, "rank1": 0.5}
    assert whole["layers"] == fewer["layers"] > len(fewer["wide_layers"]) > len(whole["wide_layers"])

    def hopeless(net: PartNet | ForeignNet) -> dict[str, float]:
        return {"mAP": 0.9 if net is model else 0.1, "rank1": 0.9}

    with pytest.raises(ExportError, match=r"no layer can be quantized without losing more than is allowed"):
        export_model(model, tmp_path / "none", crops, **quantized, score=hopeless)
    for missing in ({"calibration": None}, {}):
        with pytest.raises(
            ExportError, match="int8 is made of calibration images and of scores on labelled data: give"
        ):
            export_model(model, tmp_path / "none", crops, **quantized | missing, score=score if missing else None)
    with pytest.raises(ValueError, match="is a network of int8 numbers, so precision must be auto or int8, not fp32"):
        reprism.Embedder(tmp_path / "fewer", precision="fp32")


@pytest.mark.slow
def test_commands(people: Path, model: PartNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder, data = reprism.save(model, tmp_path / "model.safetensors"), tmp_path / "net", f"market1501:{people}"
    assert main(["export", str(file), "--out", str(folder)]) == 1
    assert "expected crops of people to prove the export on: give --crops FOLDER" in capsys.readouterr().err
    assert main(["export", str(file), "--out", str(folder), "--data", data]) == 0
    assert "proved on" in capsys.readouterr().out
    about = json.loads((folder / "export.json").read_text())
    dataset = reprism.open_dataset("market1501", people)
    metrics = reprism.evaluate_model(file, dataset, precision="fp32", device="cpu").metrics
    assert about["original"] == {"mAP": metrics.mAP, "rank1": metrics.rank(1)}
    assert about["exported"]["mAP"] == pytest.approx(metrics.mAP, abs=1e-3)
    scores = tmp_path / "scores.json"
    assert main(["evaluate", str(folder), "--data", data, "--out", str(scores), "--precision", "fp32"]) == 0
    assert json.loads(scores.read_text())["mAP"] == pytest.approx(about["exported"]["mAP"])

    assert main(["export", str(file), "--out", str(tmp_path / "other"), "--crops", str(people / "query")]) == 0
    assert "original" not in json.loads((tmp_path / "other" / "export.json").read_text())

    gallery, query = tmp_path / "gallery", str(min((people / "query").iterdir()))
    assert main(["index", str(people / "bounding_box_test"), "--model", str(folder), "--gallery", str(gallery)]) == 0
    capsys.readouterr()
    assert main(["search", query, "--gallery", str(gallery), "--top", "2", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert len(answer["matches"]) == 2
    # Its descriptors are not yet taken for those of another network, be it the one that it was made of.
    assert main(["search", query, "--gallery", str(gallery), "--model", str(file)]) == 1
