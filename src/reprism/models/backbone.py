"""The cut: a network split into a shared trunk and the layers that every branch has its own copy of.

One rule for every family (paper section 3.1, and its reading for "any CNN"): the trunk is everything through the
first block of the stage that ResNet calls conv4 (output stride 16); a branch is all that follows, with whatever goes
from stride 16 to 32 set to stride 1. A 384×192 image gives 24×12 maps.
"""

from __future__ import annotations

import difflib
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from timm.models.convnext import ConvNeXt, ConvNeXtStage
from timm.models.efficientnet import EfficientNet
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.regnet import RegNet, RegStage
from timm.models.resnet import ResNet
from timm.models.senet import SENet
from timm.models.vgg import VGG
from torch import Tensor, nn

from reprism.models.residual_attention import RESIDUAL_ATTENTION56, ResidualAttentionNet

OUTPUT_STRIDE = 16

_TORCHVISION_RESNETS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
PREFERRED_TAGS = dict.fromkeys(_TORCHVISION_RESNETS, "tv_in1k")
"""timm's tag of the weights that a bare name stands for, where it is not timm's own default.

timm's default for ``resnet50`` is ``a1_in1k``, of 2021. The recipes start from torchvision's first weights, as the
paper's ResNet-50 did, so ``resnet50`` means ``resnet50.tv_in1k`` here. A name with a tag is taken as it is.
"""


class BackboneError(ValueError):
    """A network that cannot be built or cut, or weights that do not fit it; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Family:
    """A class of networks, and how it computes its last map.

    Attributes:
        network: The class, as timm builds it.
        path: The attributes it applies to an image one after the other, up to its last map.
        cut_stride: Stride at which the stage starts in whose first block the cut lies. (VGG pools after its stages, so
            its conv4_1 works at 8.)
    """

    network: type[nn.Module]
    path: tuple[str, ...]
    cut_stride: int = OUTPUT_STRIDE


FAMILIES = [
    Family(ResNet, ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")),
    Family(SENet, ("layer0", "pool0", "layer1", "layer2", "layer3", "layer4")),
    Family(EfficientNet, ("conv_stem", "bn1", "blocks", "conv_head", "bn2")),
    Family(MobileNetV3, ("conv_stem", "bn1", "blocks")),
    Family(ConvNeXt, ("stem", "stages", "norm_pre")),
    Family(RegNet, ("stem", "s1", "s2", "s3", "s4", "final_conv")),
    Family(VGG, ("features",), cut_stride=8),
    Family(
        ResidualAttentionNet,
        ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4", "norm", "act"),
    ),
]
"""The families that can be cut. To cut another: ``FAMILIES.append(Family(timm.models.ghostnet.GhostNet, ("conv_stem",
"bn1", "act1", "blocks")))``. That the path computes the network's own map is checked each time."""

_KNOWN = "ResNet (ResNeXt, SE-ResNet), EfficientNet (MobileNetV2), MobileNetV3/V4, ConvNeXt, RegNet and VGG"


@dataclass(frozen=True, slots=True)
class CutBackbone:
    """A backbone in two pieces.

    Attributes:
        trunk: Images B×3×H×W → B×C'×H/16×W/16 (VGG: H/8×W/8), shared by all branches.
        branch: The trunk's output → B×channels×H/16×W/16; to be copied for every branch.
        channels: Channels of the branch's map.
        mean, std: Normalisation that the weights were trained with, RGB in 0…1.
    """

    trunk: nn.Sequential
    branch: nn.Sequential
    channels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def cut_backbone(name: str, pretrained: bool | str | Path = False) -> CutBackbone:
    """Build the network ``name`` and cut it.

    Args:
        name: A timm model name, such as ``resnet50`` or ``tf_efficientnet_lite0``; or ``residual_attention56``, which
            is ours and has no weights to download. A bare name stands for timm's default weights, except for those in
            :data:`PREFERRED_TAGS`.
        pretrained: ``False`` for random weights, ``True`` for timm's own download, or a file of weights in timm's
            layout (torch or safetensors, with or without a classifier).

    Raises:
        BackboneError: The name is unknown, the network cannot be cut, or the weights cannot be had or read.
    """
    network = _build(name, pretrained)
    family = next((family for family in FAMILIES if isinstance(network, family.network)), None)
    if family is None:
        raise BackboneError(
            f"backbone {name!r} cannot be cut into trunk and branches: timm builds it as {type(network).__name__}, "
            f"and the rule (split in the stage at stride 16) is written for {_KNOWN}. Choose one of those, "
            "or append its family to reprism.models.backbone.FAMILIES."
        )
    units = [unit for attribute in family.path for unit in _units(attribute, getattr(network, attribute))]
    if family.network is VGG:
        units = _pool_with_what_follows(units)
    trunk, branch = _split(name, units, family.cut_stride)
    _check_same_map(name, network, nn.Sequential(*(module for _, module in units)))
    channels = _run_at_stride_one(name, trunk, branch)
    config = network.pretrained_cfg
    return CutBackbone(trunk, branch, channels, tuple(config["mean"]), tuple(config["std"]))


def _build(name: str, pretrained: bool | str | Path) -> Any:  # timm's classes have attributes of their own
    if name == RESIDUAL_ATTENTION56:
        return _build_residual_attention(pretrained)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, [RESIDUAL_ATTENTION56, *timm.list_models()], n=3)
        hint = f" Did you mean {', '.join(near)}?" if near else " timm.list_models() lists the known ones."
        raise BackboneError(f"timm knows no backbone {name!r}.{hint}")
    architecture, _, tag = name.partition(".")
    if tag and name not in (known := timm.list_pretrained(f"{architecture}.*")):
        raise BackboneError(f"timm has no weights {tag!r} for {architecture!r}; it has {', '.join(known) or 'none'}.")
    tagged = f"{name}.{PREFERRED_TAGS[name]}" if name in PREFERRED_TAGS else name
    if isinstance(pretrained, bool):
        try:
            return timm.create_model(tagged, pretrained=pretrained, num_classes=0)
        except Exception as error:
            if not pretrained:
                raise
            # Whatever the hub client raises (no network, no such weights, a proxy): the remedy is the same.
            raise BackboneError(
                f"timm's pretrained weights for {tagged!r} could not be had ({type(error).__name__}: {error}). "
                "Without a network, give a local file instead: pretrained='weights.safetensors' (or .pth, in timm's "
                "layout), on the command line --model.pretrained FILE; or pretrained=False for random weights."
            ) from error
    network = timm.create_model(tagged, pretrained=False, num_classes=0)
    _load_weights(network, name, Path(pretrained))
    return network


def _build_residual_attention(pretrained: bool | str | Path) -> ResidualAttentionNet:
    if pretrained is True:
        raise BackboneError(
            f"there are no pretrained weights for {RESIDUAL_ATTENTION56!r}: its authors published none that timm has. "
            "Give pretrained=False, on the command line --model.pretrained False, for random weights; or a local file "
            "of weights in this network's layout."
        )
    network = ResidualAttentionNet(num_classes=0)
    if not isinstance(pretrained, bool):
        _load_weights(network, RESIDUAL_ATTENTION56, Path(pretrained))
    return network


def is_safetensors(path: Path) -> bool:
    """Return whether a file is of the safetensors format, whatever it is called: 8 bytes of length, then JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a torch or safetensors file, never unpickling anything but tensors.

    Raises:
        BackboneError: No such file, or not a file of tensors.
    """
    if not path.is_file():
        raise BackboneError(f"no weights at {path}: there is no such file")
    try:
        if path.suffix == ".safetensors" or is_safetensors(path):
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to unpickle it nevertheless, which runs whatever code the file brings.
        named = re.search(r"GLOBAL (\S+)", str(error))
        holds = f"holds more than tensors ({named[1]})" if named else "is damaged or no file of torch's"
        raise BackboneError(
            f"{path} cannot be read as weights: it {holds}. Give a file of plain tensors: a state dict saved by "
            "torch.save(model.state_dict(), ...), or safetensors."
        ) from error
    except (safetensors.SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        reason = str(error).split(". ")[0].splitlines()  # torch goes on about its own internals
        raise BackboneError(
            f"{path} cannot be read as weights: it is damaged, or of another kind "
            f"({reason[0] if reason else type(error).__name__}). Give a file of plain tensors: a torch state dict or "
            "safetensors."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        raise BackboneError(f"{path} holds no state dict: expected a mapping of names to tensors")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _load_weights(network: Any, name: str, path: Path) -> None:
    found, wanted = read_state_dict(path), network.state_dict()
    # Files may come with a classifier, or (made from a network without one) lack the layers behind the last map.
    classifiers = network.pretrained_cfg.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    optional = tuple(f"{prefix}." for prefix in (*classifiers, "head", "pre_logits", "fc", "classifier"))
    unknown = sorted(key for key in found.keys() - wanted.keys() if not key.startswith(optional))
    missing = sorted(
        key
        for key in wanted.keys() - found.keys()
        if not key.startswith(optional) and not key.endswith("num_batches_tracked")
    )
    misfit = sorted(key for key in wanted.keys() & found.keys() if wanted[key].shape != found[key].shape)
    if unknown or missing or misfit:
        parts = [
            f"{len(keys)} {what} (such as {keys[0]})"
            for keys, what in ((missing, "missing"), (unknown, "unknown"), (misfit, "of another shape"))
            if keys
        ]
        raise BackboneError(
            f"{path} does not hold weights of the network {name!r}: tensors {'; '.join(parts)}. "
            "Give weights in this network's own layout, which for timm's networks is timm's."
        )
    network.load_state_dict({key: value for key, value in found.items() if key in wanted}, strict=False)


def _units(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Return the blocks of a stage in forward order, with names such as ``layer3_0``."""
    if isinstance(module, ConvNeXtStage):
        # A stage of ConvNeXt opens with its down-sampling; other families have it inside their first block.
        first, *rest = module.blocks
        yield f"{name}_0", nn.Sequential(module.downsample, first)
        yield from ((f"{name}_{index}", block) for index, block in enumerate(rest, start=1))
    elif isinstance(module, nn.Sequential | RegStage):
        for child_name, child in module.named_children():
            yield from _units(f"{name}_{child_name}", child)
    elif not isinstance(module, nn.Identity):
        yield name, module


def _pool_with_what_follows(units: list[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """VGG's units as conv + norm + ReLU, the pooling before a stage joined to its first; the last pooling dropped."""
    grouped: list[tuple[str, list[nn.Module]]] = []
    pending: list[nn.Module] = []
    for name, module in units:
        if isinstance(module, nn.MaxPool2d):
            pending.append(module)
        elif isinstance(module, nn.Conv2d):
            grouped.append((name, [*pending, module]))
            pending = []
        else:
            grouped[-1][1].append(module)
    return [(name, nn.Sequential(*modules)) for name, modules in grouped]


def _probe(module: nn.Module, images: Tensor) -> Tensor:
    was_training = module.training
    module.eval()  # a probe must not move the running statistics
    with torch.no_grad():
        output = module(images)
    module.train(was_training)
    return output


def _split(name: str, units: list[tuple[str, nn.Module]], cut_stride: int) -> tuple[nn.Sequential, nn.Sequential]:
    x = torch.zeros(1, 3, 64, 64)
    trunk, branch = nn.Sequential(), nn.Sequential()
    for unit_name, module in units:
        (branch if _stride(x) >= cut_stride and len(trunk) else trunk).add_module(unit_name, module)
        x = _probe(module, x)
    if not len(branch):
        raise BackboneError(
            f"backbone {name!r} cannot be cut: it has no layers after the first block at stride {cut_stride} "
            f"(its last map has stride {_stride(x)})"
        )
    return trunk, branch


def _stride(output_of_64: Tensor) -> int:
    return 64 // output_of_64.shape[-1]


def _check_same_map(name: str, network: Any, chain: nn.Sequential) -> None:
    """Check that the blocks in a row compute what timm's own forward pass does; a variant may have other layers."""
    images = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    if isinstance(network, VGG):
        expected = _probe(network.features[:-1], images)  # without the last pooling
    else:
        was_training = network.training
        network.eval()
        with torch.no_grad():
            expected = network.forward_features(images)
        network.train(was_training)
    if not torch.allclose(_probe(chain, images), expected, rtol=1e-4, atol=1e-5):
        raise BackboneError(
            f"backbone {name!r} cannot be cut: this variant of {type(network).__name__} computes its map by more "
            f"than its stages in a row. Choose a plain one of {_KNOWN}."
        )


def _run_at_stride_one(name: str, trunk: nn.Sequential, branch: nn.Sequential) -> int:
    """Set whatever in the branch goes beyond stride 16 to stride 1; returns the channels of its map."""
    x = _probe(trunk, torch.zeros(1, 3, 64, 64))
    for unit in branch:
        y = _probe(unit, x)
        if _stride(y) > OUTPUT_STRIDE:
            _remove_stride(unit)
            y = _probe(unit, x)
        x = y
    if _stride(x) != OUTPUT_STRIDE or 64 % x.shape[-1]:
        raise BackboneError(
            f"backbone {name!r} cannot be cut: its last stage does not run at stride 1 (a 64×64 image gives a map of "
            f"{x.shape[-2]}×{x.shape[-1]}, not 4×4)"
        )
    return x.shape[1]


def _remove_stride(unit: nn.Module) -> None:
    for parent in list(unit.modules()):
        for child_name, child in list(parent.named_children()):
            if isinstance(child, nn.AvgPool2d | nn.MaxPool2d) and child.stride in (2, (2, 2)):
                # ResNet-D averages 2×2 before a 1×1 shortcut: at stride 1 nothing is left to average.
                setattr(parent, child_name, nn.Identity())
            elif isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                child.stride = (1, 1)
                if child.kernel_size[0] % 2 == 0:
                    child.padding = "same"  # ConvNeXt's 2×2: one more row and column
