"""``reprism convert``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Arguments:
    """Rewrite a state dict of the released SCR code (.pth) as a model file of ours; nothing in it is unpickled."""

    source: tyro.conf.Positional[Path]
    """The state dict."""
    target: tyro.conf.Positional[Path]
    """The model file to write (.safetensors)."""
    classifiers: bool = True
    """Whether the classifiers come along; for embedding they are of no use."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism convert``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism convert")

    from reprism.models.checkpoint import load, save

    model = load(arguments.source, classifiers=arguments.classifiers)
    save(model, arguments.target)
    print(f"{arguments.target}: {model.partition} on {model.backbone}, {model.num_classes} classes")
    return 0
