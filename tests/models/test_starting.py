"""Starting from an earlier model: what is taken, what is left, what does not fit."""

from pathlib import Path

import pytest
import torch

import reprism
from reprism.models.checkpoint import CheckpointError
from reprism.models.starting import is_model_file, start_from


def build(partition: str, seed: int, backbone: str = "resnet10t", classes: int = 5, width: int = 8) -> reprism.PartNet:
    torch.manual_seed(seed)
    return reprism.build_model(partition, backbone, num_classes=classes, part_dim=width, size=(64, 32))


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_units_in_common_are_taken_and_classifiers_never(tmp_path: Path) -> None:
    earlier = build("p1+p2(s2)", 1)
    earlier.train()(torch.randn(4, 3, 64, 32))  # batch statistics of its own
    path = reprism.save(earlier, tmp_path / "earlier.safetensors")
    model, untouched = build("p2(s2c2)+p3", 2), build("p2(s2c2)+p3", 2)
    started = start_from(model, path)
    assert started.taken == (
        "trunk",
        "branches.p2",
        "branches.p3 (from branches.p1)",
        "heads.p2",
        "heads.p2s1",
        "heads.p2s2",
    )
    assert started.left == ("heads.p2c1", "heads.p2c2", "heads.p3")
    assert equal(model.trunk, earlier.trunk)
    assert equal(model.branches["p2"], earlier.branches["p2"])
    assert equal(model.branches["p3"], earlier.branches["p1"])
    assert equal(model.heads["p2s2"], earlier.heads["p2s2"])
    assert equal(model.heads["p3"], untouched.heads["p3"])
    assert equal(model.classifiers, untouched.classifiers)
    assert "not in the file, or of another shape: heads.p2c1" in str(started)


def test_heads_of_another_width_are_left(tmp_path: Path) -> None:
    path = reprism.save(build("p1", 1, width=4), tmp_path / "narrow.safetensors")
    assert start_from(build("p1", 2), path).left == ("heads.p1",)


def test_another_backbone_and_other_files_are_refused(tmp_path: Path) -> None:
    path = reprism.save(build("p1", 1, "mobilenetv3_small_050"), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="cut from mobilenetv3_small_050, whose trunk does not fit resnet10t"):
        start_from(build("p1", 2), path)
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "bare.pth")
    assert is_model_file(path)
    assert not is_model_file(tmp_path / "bare.pth")
    with pytest.raises(CheckpointError):
        start_from(build("p1", 2), tmp_path / "bare.pth")
