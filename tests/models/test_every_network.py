"""Tests that every network passes: each family, each pooling with each head, and a foreign pooling and head."""

import copy
import itertools
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reprism
from reprism.losses import TotalLoss
from reprism.models import backbone as families
from reprism.models.checkpoint import fingerprint
from reprism.models.network import PAPERS, PartNet
from reprism.models.parts import HEADS, POOLS

PARTITION, SIZE, CLASSES, PART_DIM = "p1+p2(s2c2)", (64, 32), 4, 8
PARTS = ["p1", "p2", "p2s1", "p2s2", "p2c1", "p2c2"]
BATCHES = [1, 2, 5]

# A small one of each family; a new family needs a line here.
MEMBERS = {
    "ResNet": "resnet10t",
    "SENet": "legacy_seresnet18",
    "EfficientNet": "mobilenetv2_050",
    "MobileNetV3": "mobilenetv3_small_050",
    "ConvNeXt": "convnext_atto",
    "RegNet": "regnety_002",
    "VGG": "vgg11_bn",
    "ResidualAttentionNet": "residual_attention56",
}


class Sum(nn.Module):
    """A pooling of somebody's own."""

    def forward(self, feature_map: Tensor, rows: int) -> Tensor:
        return torch.stack([some.sum((2, 3)) for some in feature_map.float().tensor_split(rows, dim=2)], dim=2)


def bounded(in_dim: int, part_dim: int) -> nn.Module:
    """A head of somebody's own."""
    return nn.Sequential(nn.Linear(in_dim, part_dim), nn.BatchNorm1d(part_dim), nn.Tanh())


OWN: dict[str, Any] = {"pool": Sum(), "head": bounded}

NETWORKS: dict[str, dict[str, Any]] = {
    **{name: {"backbone": name} for name in MEMBERS.values()},
    **{
        f"{pool}-{head}": {"backbone": "resnet10t", "pool": pool, "head": head}
        for pool, head in itertools.product(POOLS, HEADS)
        if (pool, head) != (PAPERS["pool"], PAPERS["head"])  # those are the families'
    },
    "own": {"backbone": "resnet10t", **OWN},
}


def test_every_family_has_a_member() -> None:
    assert [family.network.__name__ for family in families.FAMILIES] == list(MEMBERS)


class Describing(nn.Module):
    """A network that returns the descriptor alone, a tensor, as exported programs do."""

    def __init__(self, model: PartNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).descriptor


def made(backbone: str, **options: Any) -> PartNet:
    """Build a network whose batch norms have seen the pictures; else it would describe all of them alike."""
    torch.manual_seed(0)
    model = reprism.build_model(PARTITION, backbone, num_classes=CLASSES, part_dim=PART_DIM, size=SIZE, **options)
    norms = norms_of(model)
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over all batches seen, of which there is one
    with torch.no_grad():
        model.train()(pictures(16))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return model.eval()


def norms_of(model: PartNet) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]


def pictures(count: int) -> Tensor:
    """Return smooth pictures, each of its own."""
    coarse = torch.randn(count, 3, 4, 2, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, SIZE, mode="bicubic")


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> PartNet:
    return made(**NETWORKS[request.param])


@pytest.fixture(scope="module")
def expected(network: PartNet) -> Tensor:
    with torch.no_grad():
        descriptors: Tensor = network(pictures(5)).descriptor
    return descriptors


@pytest.fixture(scope="module")
def program(network: PartNet) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch", min=1)}
    return torch.export.export(Describing(network).eval(), (pictures(2),), dynamic_shapes=(batch,))


def test_forward(network: PartNet, expected: Tensor) -> None:
    with torch.no_grad():
        output = network(pictures(5))
    assert {name: tuple(each.shape) for name, each in output.features.items()} == dict.fromkeys(PARTS, (5, 8))
    assert {name: tuple(each.shape) for name, each in output.compared.items()} == dict.fromkeys(PARTS, (5, 8))
    assert {name: tuple(each.shape) for name, each in output.logits.items()} == dict.fromkeys(PARTS, (5, 4))
    assert expected.shape == (5, 48) == (5, network.descriptor_dim)
    assert torch.isfinite(expected).all()
    # If pictures looked alike to it, the comparisons below would compare nothing.
    cosines = F.cosine_similarity(expected[:, None], expected[None], dim=2)
    assert cosines[~torch.eye(5, dtype=torch.bool)].max() < 0.95


def test_backward(network: PartNet) -> None:
    model = copy.deepcopy(network).train()
    TotalLoss()(model(pictures(4)), torch.tensor([0, 0, 1, 1])).total.backward()
    trained = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
    assert [name for name, grad in trained.items() if grad is None or not torch.isfinite(grad).all()] == []


def test_save_and_load(network: PartNet, expected: Tensor, tmp_path: Path) -> None:
    own = OWN if isinstance(network.pool, Sum) else {}
    again = reprism.load(reprism.save(network, tmp_path / "network.safetensors"), **own)
    with torch.no_grad():
        assert torch.equal(again(pictures(5)).descriptor, expected)
    assert (again.partition, again.kinds, again.num_classes) == (network.partition, network.kinds, CLASSES)
    assert fingerprint(again) == fingerprint(network)


@pytest.mark.parametrize("size", BATCHES)
def test_a_descriptor_does_not_depend_on_its_batch(network: PartNet, expected: Tensor, size: int) -> None:
    with torch.no_grad():
        apart = torch.cat([network(some).descriptor for some in pictures(5).split(size)])
    torch.testing.assert_close(apart, expected, rtol=1e-3, atol=1e-4)


def test_channels_last(network: PartNet, expected: Tensor) -> None:
    model = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        found = model(pictures(5).contiguous(memory_format=torch.channels_last)).descriptor
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16(network: PartNet) -> None:
    model = copy.deepcopy(network)
    for norm in norms_of(model):
        norm.reset_running_stats()  # division by the statistics of random layers would make much of every rounding
    with torch.no_grad():
        plain = model(pictures(5)).descriptor
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(pictures(5)).descriptor
    assert found.dtype == torch.float32
    assert not torch.equal(found, plain), "autocast changed nothing"
    assert F.cosine_similarity(found, plain).min() > 0.99
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model.train()(pictures(4))
    loss = TotalLoss()(output, torch.tensor([0, 0, 1, 1])).total
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(each.grad).all() for each in model.parameters() if each.grad is not None)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet10t", "mobilenetv3_small_050", "own"], indirect=True)
def test_compiled(network: PartNet) -> None:
    """A few of them: all are traced whole by the export below."""
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        found, plain = compiled(pictures(5)), network(pictures(5))
    for kind in ("features", "logits", "compared"):
        torch.testing.assert_close(getattr(found, kind), getattr(plain, kind), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.descriptor, plain.descriptor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("network", [*MEMBERS.values(), "own"], indirect=True)
def test_exported(program: torch.export.ExportedProgram, expected: Tensor) -> None:
    exported = program.module()
    for size in BATCHES:
        with torch.no_grad():
            found = exported(pictures(5)[:size])
        torch.testing.assert_close(found, expected[:size], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("network", [*MEMBERS.values(), "own"], indirect=True)
def test_onnx(program: torch.export.ExportedProgram, expected: Tensor) -> None:
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    assert written is not None
    session = onnxruntime.InferenceSession(written.model_proto.SerializeToString())
    (images,) = session.get_inputs()
    for size in BATCHES:
        (found,) = session.run(None, {images.name: pictures(5)[:size].numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected[:size], rtol=1e-3, atol=1e-3)
