"""``reprism convert``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from reprism.cli.arguments import parse


@dataclass
class Arguments:
    """Convert a state dict of the released SCR code (.pth) to a Reprism model file.

    Only tensors are read from the state dict; nothing in it is executed.
    """

    source: tyro.conf.Positional[Path]
    """State dict to read (.pth)."""
    target: tyro.conf.Positional[Path]
    """Model file to write (.safetensors)."""
    classifiers: bool = True
    """Keep the classifiers. Descriptors do not need them; reprism explain does."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism convert``; returns the exit status."""
    arguments = parse(Arguments, argv, "reprism convert", example="reprism convert scr.pth scr.safetensors")

    from reprism.models.checkpoint import load, save

    model = load(arguments.source, classifiers=arguments.classifiers)
    save(model, arguments.target)
    print(f"{arguments.target}: {model.partition} on {model.backbone}, {model.num_classes} classes")
    return 0
