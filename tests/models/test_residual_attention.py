"""The Residual Attention Network against its paper's figures and equations."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import reprism
from reprism.models.backbone import BackboneError, cut_backbone
from reprism.models.residual_attention import AttentionModule, ResidualAttentionNet, ResidualUnit, SoftMask
from reprism.models.survey import measure


@pytest.fixture(scope="module")
def network() -> ResidualAttentionNet:
    torch.manual_seed(0)
    return ResidualAttentionNet().eval()


@pytest.fixture
def module() -> AttentionModule:
    torch.manual_seed(0)
    module = AttentionModule(16, poolings=2)
    module.train()(torch.randn(8, 16, 12, 6))  # normalised by more than initial statistics
    return module.eval()


def test_it_has_the_published_parameters_and_operations(network: ResidualAttentionNet) -> None:
    """Wang et al., table 2: 31.9 million and 6.2e9; a multiplication and an addition are one, and statistics count."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    statistics = sum(buffer.numel() for name, buffer in network.named_buffers() if "running" in name)
    assert (parameters + statistics) / 1e6 == pytest.approx(31.9, abs=0.05)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert counter.get_total_flops() / 2e9 == pytest.approx(6.2, abs=0.1)


def test_its_trunk_is_56_layers_deep(network: ResidualAttentionNet) -> None:
    """What the 56 in its name counts: layers with weights in a row, masks and shortcuts apart."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len([name for name in names if "mask" not in name and "shortcut" not in name]) == 56


def test_every_mask_sees_the_whole_picture_at_7x7(network: ResidualAttentionNet) -> None:
    sizes: dict[str, list[torch.Size]] = {}
    hooks = [
        module.pool.register_forward_hook(
            lambda _, __, output, name=name: sizes.setdefault(name, []).append(output.shape[2:])
        )
        for name, module in network.named_modules()
        if isinstance(module, SoftMask)
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    assert {name: len(found) for name, found in sizes.items()} == {
        "layer1.1.mask": 3,
        "layer2.1.mask": 2,
        "layer3.1.mask": 1,
    }
    assert {found[-1] for found in sizes.values()} == {(7, 7)}


def test_a_unit_normalizes_before_it_convolves() -> None:
    """He et al., ECCV 2016: with all weights 0 the identity, whatever the sign; a new shape is projected."""
    unit = ResidualUnit(8, 8).eval()
    nn.init.zeros_(unit.conv3.weight)
    x = torch.randn(2, 8, 5, 3)
    assert torch.equal(unit(x), x)
    unit = ResidualUnit(8, 16, stride=2).eval()
    nn.init.zeros_(unit.conv3.weight)
    expected = F.conv2d(F.relu(x / (1 + unit.norm1.eps) ** 0.5), unit.shortcut.weight, stride=2)
    assert torch.allclose(unit(x), expected, atol=1e-6)


def test_attention_residual_learning(module: AttentionModule) -> None:
    """H = (1 + M) F: with M forced to 0 the trunk branch alone, with M forced to 1 twice its features."""
    x = torch.randn(2, 16, 12, 6)
    before = module.before(x)
    alone = module.trunk(before)
    weights = module.mask(before)
    assert torch.allclose(module(x), module.after(alone + weights * alone), atol=1e-5)
    for value in (0.0, 1.0):
        module.mask.forward = lambda y, value=value: torch.full_like(y, value)  # type: ignore[method-assign]
        assert torch.allclose(module(x), module.after((1 + value) * alone), atol=1e-5)


@pytest.mark.parametrize("size", [(12, 6), (13, 7), (5, 1), (1, 1)])
def test_masks_are_weights_of_any_size_of_map(module: AttentionModule, size: tuple[int, int]) -> None:
    x = 3 * torch.randn(2, 16, *size)
    weights = module.mask(x)
    assert weights.shape == x.shape
    assert 0 < weights.min() <= weights.max() < 1
    assert weights.std() > 0.01, "a mask that chooses nothing"


def test_gradients_reach_everything(module: AttentionModule) -> None:
    module.train()
    module(torch.randn(4, 16, 12, 6)).square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_it_is_cut_like_every_backbone() -> None:
    cut = cut_backbone("residual_attention56")
    assert cut.channels == 2048
    assert list(dict(cut.trunk.named_children()))[-1] == "layer3_0"
    assert list(dict(cut.branch.named_children())) == ["layer3_1", "layer4_0", "layer4_1", "layer4_2", "norm", "act"]
    with torch.no_grad():
        assert cut.branch.eval()(cut.trunk.eval()(torch.zeros(1, 3, 384, 192))).shape == (1, 2048, 24, 12)


def test_it_is_saved_loaded_and_measured(tmp_path: Path, network: ResidualAttentionNet) -> None:
    torch.manual_seed(0)
    model = reprism.build_model("p2(s2c3)", "residual_attention56", 3, part_dim=8, size=(80, 48)).eval()
    loaded = reprism.load(reprism.save(model, tmp_path / "model.safetensors"))
    images = torch.randn(1, 3, 80, 48)
    with torch.no_grad():
        assert torch.equal(loaded(images).descriptor, model(images).descriptor)
    cost = measure("residual_attention56", "p1", (64, 32), batch=1, batches=1)
    without_classifier = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("fc."))
    assert cost.parameters == without_classifier + 2048 * 256 + 2 * 256


def test_weights(tmp_path: Path, network: ResidualAttentionNet) -> None:
    with pytest.raises(BackboneError, match=r"no pretrained weights for 'residual_attention56'.*pretrained=False"):
        reprism.build_model("p1", "residual_attention56", pretrained=True)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "imagenet.safetensors")
    model = reprism.build_model("p1+p2", "residual_attention56", pretrained=tmp_path / "imagenet.safetensors")
    for branch in model.branches.values():
        assert torch.equal(branch.layer4_2.conv3.weight, network.layer4[2].conv3.weight)
    with pytest.raises(BackboneError, match="Did you mean residual_attention56"):
        reprism.build_model("p1", "residual_attention_56")
