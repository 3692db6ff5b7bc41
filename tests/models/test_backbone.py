"""The cut, on a tiny member of every family."""

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from reprism.models import backbone as families
from reprism.models.backbone import PREFERRED_TAGS, BackboneError, cut_backbone
from reprism.models.checkpoint import fingerprint, load, save
from reprism.models.network import build_model
from reprism.paper.tables import RESNET50
from reprism.training.recipes import ModelSettings

# Backbone → (first unit behind the cut, channels of the map).
FAMILIES = {
    "resnet10t": ("layer4_0", 512),  # one block a stage: the branch starts with layer4
    "resnet18": ("layer3_1", 512),
    "resnet26d": ("layer3_1", 2048),
    "resnext50_32x4d": ("layer3_1", 2048),
    "seresnet50": ("layer3_1", 2048),
    "legacy_seresnet18": ("layer3_1", 512),
    "tf_efficientnet_lite0": ("blocks_3_1", 1280),
    "mobilenetv2_050": ("blocks_3_1", 1280),
    "mobilenetv3_small_050": ("blocks_2_1", 288),
    "mobilenetv4_conv_small_050": ("blocks_2_1", 480),
    "convnext_atto": ("stages_2_1", 320),
    "regnety_002": ("s3_b2", 368),
    "vgg11": ("features_13", 512),
    "vgg11_bn": ("features_18", 512),
    "residual_attention56": ("layer3_1", 2048),
}


@pytest.mark.parametrize("backbone", FAMILIES)
def test_families(backbone: str) -> None:
    torch.manual_seed(0)
    model = build_model("p1+p2(s2c2)", backbone, num_classes=5, part_dim=8, size=(64, 32))
    first, channels = FAMILIES[backbone]
    assert next(iter(dict(model.branches["p1"].named_children()))) == first
    images = torch.randn(2, 3, 64, 32)
    model.eval()
    maps = model.maps(images)
    assert {tuple(feature_map.shape) for feature_map in maps.values()} == {(2, channels, 4, 2)}
    assert torch.equal(maps["p1"], maps["p2"]), "the branches must start from equal weights"
    shared = {id(p) for p in model.branches["p1"].parameters()} & {id(p) for p in model.branches["p2"].parameters()}
    assert not shared, "the branches must not share weights"
    model.train()
    output = model(images)
    sum(logits.square().sum() for logits in output.logits.values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


def test_another_family_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackboneError, match=r"timm builds it as GhostNet.*FAMILIES"):
        cut_backbone("ghostnet_050")
    monkeypatch.setattr(families, "FAMILIES", list(families.FAMILIES))
    families.FAMILIES.append(families.Family(timm.models.ghostnet.GhostNet, ("conv_stem", "bn1", "act1", "blocks")))
    torch.manual_seed(0)
    cut = cut_backbone("ghostnet_050")
    torch.manual_seed(0)
    reference = timm.create_model("ghostnet_050", num_classes=0).eval()
    images = torch.randn(1, 3, 64, 32)
    maps = cut.branch.eval()(cut.trunk.eval()(images))
    assert maps.shape == (1, cut.channels, 4, 2)
    # Through the first block at stride 16 it is the network's own.
    found = reference.act1(reference.bn1(reference.conv_stem(images)))
    for block in reference.blocks:
        for layer in block:
            found = layer(found)
            if found.shape[2] == 4:
                torch.testing.assert_close(cut.trunk(images), found)
                return


@pytest.mark.parametrize(
    "backbone", ["resnet18", "legacy_seresnet18", "mobilenetv2_050", "convnext_atto", "regnety_002"]
)
def test_only_the_last_stage_differs_from_timm(backbone: str) -> None:
    """Up to where strides change, the cut network computes timm's own feature maps."""
    torch.manual_seed(0)
    cut = cut_backbone(backbone)
    torch.manual_seed(0)
    reference = timm.create_model(backbone, num_classes=0).eval()
    images = torch.randn(1, 3, 64, 64)
    maps = reference.forward_intermediates(images, intermediates_only=True)
    at_stride_16 = [feature_map for feature_map in maps if feature_map.shape[-1] == 4]
    assert at_stride_16
    seen = [cut.trunk.eval()(images)]
    for unit in cut.branch.eval():
        seen.append(unit(seen[-1]))
    for expected in at_stride_16:
        assert any(y.shape == expected.shape and torch.allclose(y, expected, atol=1e-5) for y in seen)


def test_resnet_at_stride_one_is_timms_output_stride_16_without_dilation() -> None:
    """timm's own output_stride=16 dilates layer4 after its first block; without that it is the paper's conv5."""
    torch.manual_seed(0)
    cut = cut_backbone("resnet18")
    torch.manual_seed(0)
    reference = timm.create_model("resnet18", num_classes=0, output_stride=16).eval()
    for module in reference.layer4.modules():
        if isinstance(module, nn.Conv2d) and module.dilation != (1, 1):
            module.dilation, module.padding = (1, 1), (1, 1)
    images = torch.randn(1, 3, 64, 32)
    ours = cut.branch.eval()(cut.trunk.eval()(images))
    assert torch.allclose(ours, reference.forward_features(images), atol=1e-5)


def test_vgg_is_cut_at_its_own_conv4_1() -> None:
    cut = cut_backbone("vgg16")
    convolutions = [m for m in cut.trunk.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128, 256, 256, 256, 512]
    assert sum(isinstance(m, nn.MaxPool2d) for m in cut.trunk.modules()) == 3
    assert sum(isinstance(m, nn.MaxPool2d) for m in cut.branch.modules()) == 1


@pytest.mark.parametrize(
    ("backbone", "says"),
    [("vit_tiny_patch16_224", "VisionTransformer"), ("densenet121", "DenseNet"), ("ghostnet_100", "GhostNet"),
     ("resnett50", "Did you mean resnet50")],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_by_name(backbone: str, says: str) -> None:
    with pytest.raises(BackboneError, match=says) as error:
        cut_backbone(backbone)
    assert backbone in str(error.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("classes", [0, 7])
def test_local_weights(tmp_path: Path, suffix: str, classes: int) -> None:
    torch.manual_seed(1)
    source = timm.create_model("resnet18", num_classes=classes)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(source.state_dict(), path)
    else:
        safetensors.torch.save_file(source.state_dict(), path)
    model = build_model("p1+p2", "resnet18", pretrained=path)
    assert torch.equal(model.trunk.conv1.weight, source.conv1.weight)
    for branch in model.branches.values():
        assert torch.equal(branch.layer4_1.conv2.weight, source.layer4[1].conv2.weight)


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("resnet10t", num_classes=0).state_dict(), path)
    with pytest.raises(BackboneError, match="does not hold weights of the network 'resnet18'"):
        build_model("p1", "resnet18", pretrained=path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(BackboneError, match="cannot be read as weights"):
        build_model("p1", "resnet18", pretrained=path)
    with pytest.raises(BackboneError, match="no such file"):
        build_model("p1", "resnet18", pretrained=tmp_path / "absent.pth")


class _Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": _Malicious()}, tmp_path / "weights.pth")
    with pytest.raises(BackboneError, match="cannot be read"):
        build_model("p1", "resnet18", pretrained=tmp_path / "weights.pth")
    assert not (tmp_path / "pwned").exists()


def test_download_without_network_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, pretrained: bool = False, **kwargs: object) -> None:
        assert pretrained
        raise OSError("Name or service not known")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(BackboneError, match=r"Name or service not known.*local file instead: pretrained="):
        build_model("p1", "resnet18", pretrained=True)


class _Asked(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize(
    ("backbone", "downloaded"),
    [("resnet50", "resnet50.tv_in1k"), ("resnet101", "resnet101.tv_in1k"), ("resnet50.a1_in1k", "resnet50.a1_in1k"),
     ("seresnet50", "seresnet50"), ("mobilenetv2_100", "mobilenetv2_100")],
)  # fmt: skip
def test_a_bare_resnet_starts_from_torchvisions_weights(
    backbone: str, downloaded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(name: str, **_: object) -> None:
        raise _Asked(name)

    monkeypatch.setattr(timm, "create_model", asked)
    with pytest.raises(BackboneError, match=rf"weights for '{downloaded}' could not be had .*_Asked: {downloaded}\)"):
        build_model("p1", backbone, pretrained=True)


def test_the_recipes_backbone_is_the_preferred_one() -> None:
    for backbone in (ModelSettings().backbone, RESNET50):
        name, tag = backbone.split(".")
        assert PREFERRED_TAGS[name] == tag
    for name, tag in PREFERRED_TAGS.items():
        assert timm.models.is_model_pretrained(f"{name}.{tag}")


def test_a_model_keeps_the_name_and_fingerprint_it_was_made_with(tmp_path: Path) -> None:
    """Files that name a bare ResNet load as before, and their galleries still know them."""
    torch.manual_seed(0)
    bare = build_model("p1", "resnet18", part_dim=8, size=(64, 32)).eval()
    torch.manual_seed(0)
    tagged = build_model("p1", "resnet18.tv_in1k", part_dim=8, size=(64, 32)).eval()
    again = load(save(bare, tmp_path / "model.safetensors"))
    assert (bare.backbone, again.backbone) == ("resnet18", "resnet18")
    assert fingerprint(again) == fingerprint(bare)
    images = torch.randn(2, 3, 64, 32)
    assert torch.equal(bare(images).descriptor, tagged(images).descriptor)
