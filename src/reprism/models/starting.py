"""Start a network from the weights of another: of any partition, as far as the two have parts in common."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from reprism.models.checkpoint import CheckpointError, read_header
from reprism.models.network import PartNet


@dataclass(frozen=True)
class Started:
    """Units that a network took from a file: ``trunk``, ``branches.p2``, ``heads.p2s1``, ``pool``.

    Attributes:
        taken: Units whose weights are now the file's; of a branch that the file has not, with the branch they are of.
        left: Units that start as they were: the file has none of that name and shape.
    """

    taken: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        return f"taken: {', '.join(self.taken)}; not in the file, or of another shape: {', '.join(self.left) or 'none'}"


def is_model_file(path: str | Path) -> bool:
    """Return whether :func:`reprism.save` wrote a file."""
    try:
        read_header(path)
    except CheckpointError:
        return False
    return True


def start_from(model: PartNet, path: str | Path) -> Started:
    """Give a network the weights of another one, as far as units of the same name and shape go.

    A branch that the file has not starts as the file's first branch, since all branches are copies of the same layers.
    Classifiers are never taken: they tell the people apart that the other network was trained on.

    Args:
        model: The network; changed in place.
        path: A file that :func:`reprism.save` wrote.

    Raises:
        CheckpointError: The file is none, is damaged, or its trunk does not fit: it was cut from another backbone.
    """
    header = read_header(path)
    try:
        found = _units(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error})") from error
    wanted = _units(model.state_dict())
    first = next((unit for unit in found if unit.startswith("branches.")), "")
    taken, left = [], []
    tensors: dict[str, Tensor] = {}
    for unit, held in wanted.items():
        source = unit if unit in found or not unit.startswith("branches.") else first
        given = found.get(source, {})
        if given.keys() != held.keys() or any(given[key].shape != held[key].shape for key in held):
            left.append(unit)
            continue
        taken.append(unit if source == unit else f"{unit} (from {source})")
        tensors |= {f"{unit}.{key}": value for key, value in given.items()}
    if "trunk" in left:
        raise CheckpointError(
            f"{path} was cut from {header['backbone']}, whose trunk does not fit {model.backbone}: start from a model "
            "of the same backbone"
        )
    model.load_state_dict(tensors, strict=False)
    return Started(tuple(taken), tuple(left))


def _units(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return tensors by unit and by their name in it, without classifiers."""
    units: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in state.items():
        pieces = key.split(".")
        depth = 2 if pieces[0] in ("branches", "heads") else 1
        if pieces[0] != "classifiers":
            units[".".join(pieces[:depth])][".".join(pieces[depth:])] = value
    return dict(units)
