"""``reprism erase``."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from reprism.cli.galleries import parse_age


@dataclass
class Arguments:
    """Remove rows from a gallery, their thumbnails and descriptors too, and their bytes from the disk.

    The pictures that were indexed stay where they are: they are yours to remove.
    """

    gallery: tyro.conf.Positional[str]
    """What reprism index made."""
    pid: tuple[str, ...] = ()
    """All rows of these identities."""
    id: tuple[str, ...] = ()
    """These rows, by id (reprism search --json shows it)."""
    older_than: str | None = None
    """All rows taken before this; of unknown time, added before. An age, such as 30d (or h, w), or a moment."""
    compact: bool = True
    """Whether to rewrite the gallery without their bytes; if not, reprism optimize does so."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism erase``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism erase")
    if not (arguments.pid or arguments.id or arguments.older_than):
        raise ValueError("say what to erase: --pid, --id or --older-than")

    from reprism.gallery.table import Gallery

    older_than = None if arguments.older_than is None else parse_age(arguments.older_than, "--older-than")
    gallery = Gallery.open(arguments.gallery)
    erased = gallery.erase(arguments.id, arguments.pid, older_than, arguments.compact)
    print(f"{arguments.gallery}: {erased:,} rows erased, {len(gallery):,} left")
    return 0
