"""Model files: safetensors with a header that says how to build the network again; never pickle.

``load`` also reads the state dicts of the released SCR code, which it knows by their keys.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from reprism._version import __version__
from reprism.data.transforms import Preprocessing
from reprism.files import whole_file
from reprism.imports import UntrustedCodeError, import_object
from reprism.models.backbone import BackboneError, is_safetensors, read_state_dict
from reprism.models.foreign import ForeignNet
from reprism.models.network import PAPERS, PartNet, build_model, kind_of
from reprism.models.parts import HEADS, POOLS
from reprism.notation import Partition

_HEADER_KEY = "reprism"
_FORMAT, _WITH_KINDS = 1, 2
"""Values of a header's ``format``. The second, which earlier versions refuse, names a pooling or a head."""


class CheckpointError(ValueError):
    """A file that is no model of ours nor of a known foreign layout; the message names the file and the reason."""


def save(
    model: PartNet,
    path: str | Path,
    *,
    recipe: Mapping[str, Any] | None = None,
    classifiers: bool = True,
) -> Path:
    """Write a model file. It appears whole or not at all.

    Args:
        model: The network; its weights are written as they are.
        path: Any name, usually ending in ``.safetensors``; an existing file is replaced.
        recipe: The settings it was trained with, JSON-ready; kept in the header for the record.
        classifiers: Keep the training identities' classifiers, which descriptors do not need.

    Returns:
        The path written.
    """
    path = Path(path)
    header = {
        "format": _WITH_KINDS if model.kinds else _FORMAT,
        "version": __version__,
        "partition": str(model.partition),
        "backbone": model.backbone,
        "num_classes": model.num_classes if classifiers else 0,
        "part_dim": model.part_dim,
        "preprocessing": model.preprocessing.to_dict(),
        **model.kinds,
        "recipe": dict(recipe) if recipe is not None else None,
    }
    tensors = {
        key: value.detach().cpu().contiguous()
        for key, value in model.state_dict().items()
        if classifiers or not key.startswith("classifiers.")
    }
    with whole_file(path) as file:
        try:
            safetensors.torch.save_file(tensors, file.name, metadata={_HEADER_KEY: json.dumps(header)})
        except safetensors.SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
    return path


def fingerprint(model: PartNet | ForeignNet) -> str:
    """Return 64 hexadecimal digits that identify the network whose descriptors are compared.

    A digest of all that a descriptor depends on: partition, backbone, preprocessing and weights. The classifiers do
    not count: a model saved without them makes the same descriptors. It is the same before and after saving, and on
    every device.
    """
    digest = hashlib.sha256()
    about: list[Any] = [str(model.partition), model.backbone, model.part_dim, model.preprocessing.to_dict()]
    if isinstance(model, PartNet) and model.kinds:
        about.append(model.kinds)
    if isinstance(model, ForeignNet) and model.digest is not None:
        about.append(model.digest)
    digest.update(json.dumps(about, sort_keys=True).encode())
    for key, value in sorted(model.state_dict().items()):
        # How many batches a norm has seen is unused in eval mode, and absent from files of old torch versions.
        if not key.startswith("classifiers.") and not key.endswith("num_batches_tracked"):
            plain = value.detach().cpu().contiguous()
            digest.update(f"{key} {plain.dtype} {tuple(plain.shape)}".encode())
            digest.update(plain.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_header(path: str | Path) -> dict[str, Any]:
    """Read a model file's header: format, version, partition, backbone, num_classes, part_dim, preprocessing, recipe.

    Raises:
        CheckpointError: The file is missing, damaged, or not one that ``reprism.save`` wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no model at {path}: there is no such file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error})") from error
    if _HEADER_KEY not in metadata:
        raise CheckpointError(
            f"{path} has no Reprism header: it holds bare weights. As starting weights of a backbone give it to "
            "build_model(pretrained=...); a model to load is one that reprism.save wrote."
        )
    try:
        header = json.loads(metadata[_HEADER_KEY])
        found = header["format"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(f"the header of {path} is damaged ({error!r})") from error
    if found not in (_FORMAT, _WITH_KINDS):
        raise CheckpointError(
            f"{path} was written in format {found} by Reprism {header.get('version')}; this is Reprism "
            f"{__version__}, which reads formats {_FORMAT} and {_WITH_KINDS}. Update Reprism."
        )
    return header


def load(
    path: str | Path,
    *,
    classifiers: bool = True,
    pool: nn.Module | None = None,
    head: Callable[[int, int], nn.Module] | None = None,
) -> PartNet:
    """Read a model, in eval mode on the CPU. Needs no recipe and no network.

    Args:
        path: A file that :func:`save` wrote, or a state dict of the released SCR code (``.pth`` or safetensors).
        classifiers: Build the classifiers, where the file has them.
        pool, head: The pooling and head that the model was built with, where they were somebody's own; see
            :func:`build_model`. A file names them. They need not be given if :func:`reprism.trust` knows their module.

    Raises:
        CheckpointError: The file is missing, damaged, of a newer format, of no known layout, or of a pooling or head
            that was not given.
    """
    path = Path(path)
    if path.suffix.lower() == ".onnx":
        raise CheckpointError(
            f"{path} is an ONNX file: reprism.Embedder describes images with it, but this needs a network of PyTorch's"
        )
    if path.suffix != ".safetensors" and path.is_file() and not is_safetensors(path):
        return _load_released(path, classifiers)
    try:
        header = read_header(path)
    except CheckpointError:
        if path.is_file() and _looks_released(path):
            return _load_released(path, classifiers)
        raise
    try:
        preprocessing = Preprocessing.from_dict(header["preprocessing"])
        _check_claims(header, path)
        own = {"pool": _own_part(header, "pool", POOLS, pool), "head": _own_part(header, "head", HEADS, head)}
        model = build_model(
            header["partition"],
            header["backbone"],
            num_classes=header["num_classes"] if classifiers else 0,
            part_dim=header["part_dim"],
            size=preprocessing.size,
            **own,
        )
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error
    except Exception as error:  # whatever timm and torch make of fields that mean nothing
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"the header of {path} describes no network that can be built: {reason}") from error
    model.preprocessing = preprocessing
    _fill(model, safetensors.torch.load_file(path), path)
    return model.eval()


def _own_part(header: Mapping[str, Any], what: str, known: Mapping[str, Any], given: Any) -> Any:
    """Return the pooling or head to build: by its name, or the one that was given, if it is the file's."""
    name = header.get(what, PAPERS[what])
    if given is not None:
        if kind_of(given) != name:
            raise CheckpointError(f"has the {what} {name!r}, not {kind_of(given)!r}")
        return given
    if name in known:
        return name
    try:
        own = import_object(name, f"its {what}")
    except UntrustedCodeError as error:
        raise CheckpointError(f"cannot be loaded: {error}; or give it, as reprism.load(path, {what}=…)") from error
    return own() if what == "pool" else own


def _check_claims(header: dict[str, Any], path: Path) -> None:
    """Refuse numbers that the file's size cannot be behind, before a network is built by them.

    Raises:
        ValueError: A number of the header is none, or larger than the file's tensors; names it.
    """
    most = path.stat().st_size
    parts = len(Partition.parse(header["partition"]).parts)
    for name, factor in (("part_dim", parts), ("num_classes", max(1, parts * header["part_dim"]))):
        value = header[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is {value!r}; it must be a whole number, 0 or more")
        if value * factor > most:
            raise ValueError(f"{name} is {value:,}, for which the file of {most:,} bytes is too small")


def _fill(model: PartNet, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = model.state_dict()
    if not model.num_classes:
        tensors = {key: value for key, value in tensors.items() if not key.startswith("classifiers.")}
    wrong = sorted(wanted.keys() ^ tensors.keys()) or sorted(
        key for key in wanted if wanted[key].shape != tensors[key].shape
    )
    if wrong:
        raise CheckpointError(
            f"{path} does not hold the network that it describes ({model.partition} on {model.backbone}): "
            f"{len(wrong)} tensors are missing, unknown or of another shape, such as {wrong[0]}"
        )
    model.load_state_dict(tensors)


# --- the released code's layout --------------------------------------------------------------------------------------
# backbone = Sequential(conv1, bn1, relu, maxpool, layer1, layer2, layer3[0]); pK = Sequential(rest of layer3, layer4);
# reduction_* = Sequential(1×1 convolution, batch norm); fc_id_* = the classifiers; parts are spelt p2_s1.
_RELEASED_MARK = re.compile(r"reduction_p\d+(_[sc]\d+)?\.0\.weight")
_RELEASED_KEYS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"backbone\.0\.(.+)"), r"trunk.conv1.\1"),
    (re.compile(r"backbone\.1\.(.+)"), r"trunk.bn1.\1"),
    (re.compile(r"backbone\.4\.(\d+)\.(.+)"), r"trunk.layer1_\1.\2"),
    (re.compile(r"backbone\.5\.(\d+)\.(.+)"), r"trunk.layer2_\1.\2"),
    (re.compile(r"backbone\.6\.(.+)"), r"trunk.layer3_0.\1"),
    (re.compile(r"(p\d+)\.1\.(\d+)\.(.+)"), r"branches.\1.layer4_\2.\3"),
    (re.compile(r"reduction_(p\d+)_?([sc]\d+)?\.0\.weight"), r"heads.\1\2.reduce.weight"),
    (re.compile(r"reduction_(p\d+)_?([sc]\d+)?\.1\.(.+)"), r"heads.\1\2.norm.\3"),
    (re.compile(r"fc_id_(p\d+)_?([sc]\d+)?\.(.+)"), r"classifiers.\1\2.\3"),
]
_RELEASED_LAYER3 = re.compile(r"(p\d+)\.0\.(\d+)\.(.+)")


def _looks_released(path: Path) -> bool:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return any(_RELEASED_MARK.fullmatch(key) for key in file.keys())  # noqa: SIM118
    except (safetensors.SafetensorError, OSError):
        return False


def _our_key(key: str) -> str | None:
    # Branches of the released code number layer3's blocks from the one after the cut.
    if match := _RELEASED_LAYER3.fullmatch(key):
        return f"branches.{match[1]}.layer3_{int(match[2]) + 1}.{match[3]}"
    for pattern, ours in _RELEASED_KEYS:
        if match := pattern.fullmatch(key):
            return match.expand(ours)  # a group that took no part expands to nothing
    return None


def _released_partition(keys: set[str]) -> Partition:
    counts: dict[int, dict[str, int]] = {}
    for key in keys:
        if match := re.fullmatch(r"reduction_p(\d+)(?:_([sc])(\d+))?\.0\.weight", key):
            groups = counts.setdefault(int(match[1]), {})
            letter = match[2] or "global"
            groups[letter] = max(groups.get(letter, 0), int(match[3] or 1))
    branches = []
    for number, groups in sorted(counts.items()):
        cuts = "".join(f"{letter}{groups[letter]}" for letter in "sc" if letter in groups)
        brackets = "({})" if "global" in groups else "[{}]"
        branches.append(f"p{number}" + (brackets.format(cuts) if cuts else ""))
    return Partition.parse("+".join(branches))


def _load_released(path: Path, classifiers: bool) -> PartNet:
    try:
        state = read_state_dict(path)
    except BackboneError as error:
        raise CheckpointError(str(error)) from error
    if not any(_RELEASED_MARK.fullmatch(key) for key in state):
        raise CheckpointError(
            f"{path} is neither a model that reprism.save wrote nor a state dict of the released SCR code (its first "
            f"tensor is {next(iter(state))!r}). As starting weights of a backbone give it to "
            "build_model(pretrained=...)."
        )
    try:
        model, tensors = _released_network(state, classifiers)
    except (ValueError, LookupError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} looks like the released SCR code's, but holds no whole network: {' '.join(str(error).split())}"
        ) from error
    _fill(model, tensors, path)
    return model.eval()


def _released_network(state: dict[str, Tensor], classifiers: bool) -> tuple[PartNet, dict[str, Tensor]]:
    """Build the network of a released state dict; returns it, still untrained, with the tensors under our names."""
    partition = _released_partition(set(state))
    tensors = {}
    for key, value in state.items():
        ours = _our_key(key)
        if ours is None:
            raise ValueError(f"unknown tensor {key!r}")
        # Its 1×1 convolutions act on vectors: the same numbers as a linear map.
        tensors[ours] = value.flatten(1) if ours.endswith(".reduce.weight") else value
    first = partition.parts[0].name
    part_dim = tensors[f"heads.{first}.reduce.weight"].shape[0]
    classes = tensors[f"classifiers.{first}.weight"].shape[0] if f"classifiers.{first}.weight" in tensors else 0
    model = build_model(partition, "resnet50", num_classes=classes if classifiers else 0, part_dim=part_dim)
    for key in model.state_dict():
        if key.endswith("num_batches_tracked"):  # absent from files of old torch versions, and unused in eval mode
            tensors.setdefault(key, torch.tensor(0))
    return model, tensors
