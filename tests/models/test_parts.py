"""Poolings and heads other than the paper's: against loops, through files, and in training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import reprism
from reprism.losses import BatchHardTriplet, PartCrossEntropy, TotalLoss
from reprism.models.checkpoint import CheckpointError, fingerprint
from reprism.models.parts import AveragePool, GeMPool, MaxPool

SIZE = (64, 32)


def build(partition: str = "p1+p2(s2c2)", **options: Any) -> reprism.PartNet:
    torch.manual_seed(0)
    return reprism.build_model(partition, "mobilenetv3_small_050", num_classes=4, part_dim=6, size=SIZE, **options)


@settings(max_examples=25)
@given(height=st.integers(1, 9), width=st.integers(1, 4), rows=st.integers(1, 4), seed=st.integers(0, 99))
def test_stripes_are_pooled_as_a_loop_pools_them(height: int, width: int, rows: int, seed: int) -> None:
    values = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed)) + 0.1
    by_name = {
        MaxPool(): np.max,
        AveragePool(): np.mean,
        GeMPool(2.5): lambda block, axis: np.mean(block**2.5, axis=axis) ** (1 / 2.5),
    }
    for pool, pooled in by_name.items():
        found = pool(values, rows)
        assert found.shape == (2, 3, rows)
        for row in range(rows):
            block = values.double().numpy()[:, :, row * height // rows : -(-(row + 1) * height // rows)]
            np.testing.assert_allclose(found[:, :, row].detach(), pooled(block, axis=(2, 3)), rtol=1e-5)


def test_the_exponent_of_the_generalised_mean_goes_from_mean_to_maximum_and_learns() -> None:
    values = torch.rand(2, 5, 8, 4) + 0.1
    torch.testing.assert_close(GeMPool(1.0)(values, 2).detach(), AveragePool()(values, 2))
    torch.testing.assert_close(GeMPool(80.0)(values, 2).detach(), MaxPool()(values, 2), rtol=0.05, atol=0)
    pool = GeMPool()
    pool(values, 1).sum().backward()
    assert pool.exponent.grad is not None
    assert pool.exponent.grad.abs() > 0
    # Halves would lose what is added up.
    assert GeMPool()(values.bfloat16(), 2).dtype == torch.float32


def test_the_neck_stands_between_triplet_and_classifier() -> None:
    model = build(head="bnneck").train()
    output = model(torch.randn(8, 3, *SIZE))
    labels = torch.arange(4).repeat_interleave(2)
    assert not model.heads["p1"].norm.bias.requires_grad  # type: ignore[union-attr]
    for name, before in output.compared.items():
        spread = (before - before.mean(0)) / (before.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(output.features[name], spread, rtol=1e-3, atol=1e-3)
        classifier = model.classifiers[name]
        assert classifier.bias is None
        torch.testing.assert_close(output.logits[name], output.features[name] @ classifier.weight.T)  # type: ignore[operator]
    terms = TotalLoss()(output, labels)
    triplet = torch.stack([BatchHardTriplet()(output.compared[name], labels) for name in ("p1", "p2")]).mean()
    torch.testing.assert_close(terms.total, 2 * PartCrossEntropy()(output, labels) + triplet)
    paper = build().train()(torch.randn(8, 3, *SIZE))
    assert all(paper.compared[name] is paper.features[name] for name in paper.features)


@pytest.mark.parametrize(
    "options", [{"pool": "avg"}, {"pool": "gem"}, {"head": "bnneck"}, {"pool": "gem", "head": "bnneck"}]
)
def test_they_go_through_a_file(options: dict[str, str], tmp_path: Path) -> None:
    model = build(**options).eval()
    if "pool" in options and options["pool"] == "gem":
        model.pool.exponent.data.fill_(2.0)  # type: ignore[union-attr, operator]
    images = torch.randn(2, 3, *SIZE)
    again = reprism.load(reprism.save(model, tmp_path / "net.safetensors"))
    assert again.kinds == options
    torch.testing.assert_close(again(images).descriptor, model(images).descriptor)
    assert fingerprint(again) == fingerprint(model)
    assert fingerprint(build(pool="avg")) != fingerprint(build())


def header_of(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["reprism"])
    return found


def test_a_file_of_the_papers_network_is_as_before_and_others_are_refused_by_what_does_not_know_them(
    tmp_path: Path,
) -> None:
    paper = header_of(reprism.save(build(), tmp_path / "paper.safetensors"))
    assert paper["format"] == 1
    assert not {"pool", "head"} & set(paper)
    assert header_of(reprism.save(build(pool="avg"), tmp_path / "other.safetensors"))["format"] == 2


class Sum(nn.Module):
    """A pooling of somebody's own."""

    def forward(self, feature_map: Tensor, rows: int) -> Tensor:
        return torch.stack([some.sum((2, 3)) for some in feature_map.float().tensor_split(rows, dim=2)], dim=2)


def narrow(in_dim: int, part_dim: int) -> nn.Module:
    """A head of somebody's own."""
    return nn.Linear(in_dim, part_dim)


def test_parts_of_ones_own_are_named_in_the_file_and_wanted_back(tmp_path: Path) -> None:
    model = build(pool=Sum(), head=narrow).eval()
    path = reprism.save(model, tmp_path / "own.safetensors")
    assert model.kinds == {"pool": f"{__name__}:Sum", "head": f"{__name__}:narrow"}
    with pytest.raises(
        CheckpointError, match=rf"own.safetensors cannot .* its pool is the code '{__name__}:Sum'.*pool=…"
    ):
        reprism.load(path)
    with pytest.raises(CheckpointError, match=rf"its head is the code '{__name__}:narrow'"):
        reprism.load(path, pool=Sum())
    with pytest.raises(CheckpointError, match=r"not 'reprism\.models\.parts:AveragePool'"):
        reprism.load(path, pool=AveragePool(), head=narrow)
    images = torch.randn(2, 3, *SIZE)
    again = reprism.load(path, pool=Sum(), head=narrow)
    torch.testing.assert_close(again(images).descriptor, model(images).descriptor)


def test_a_network_of_built_modules(tmp_path: Path) -> None:
    made = build("p1")
    pieces = {
        "trunk": nn.Conv2d(3, 8, 16, stride=16),
        "branches": {"p1": nn.Conv2d(8, 10, 1)},
        "heads": {"p1": narrow(10, 6)},
        "classifiers": {"p1": nn.Linear(6, 3)},
    }
    about = {"part_dim": 6, "preprocessing": made.preprocessing, "backbone": "mine"}
    model = reprism.PartNet(made.partition, **pieces, **about)
    output = model.train()(torch.randn(2, 3, *SIZE))
    assert (model.num_classes, output.descriptor.shape, output.logits["p1"].shape) == (3, (2, 6), (2, 3))
    with pytest.raises(ValueError, match="expected heads p1 for p1, got p2"):
        reprism.PartNet(made.partition, **{**pieces, "heads": {"p2": narrow(10, 6)}}, **about)
    for wrong in ({"pool": "sum"}, {"head": "none"}):
        with pytest.raises(ValueError, match=r"expected (pool max, avg, gem|head paper, bnneck)"):
            build(**wrong)
