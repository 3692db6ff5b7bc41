"""``reprism optimize``."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from reprism.cli.arguments import parse


@dataclass
class Arguments:
    """Merge a gallery's small files, and build or refresh its search index.

    The index is built for galleries of more than 50,000 rows; in smaller ones a search reads every row. Rows added
    later are found too, but more slowly until this command is run again. It also finishes an interrupted erasure.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery that reprism index created."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism optimize``; returns the exit status."""
    arguments = parse(Arguments, argv, "reprism optimize", example="reprism optimize gallery")

    from reprism.gallery.table import Gallery

    gallery = Gallery.open(arguments.gallery)
    gallery.optimize()
    index = gallery.index()
    said = "no index: searches read every row" if index is None else f"{index['kind']} over {index['indexed']:,} rows"
    print(f"{arguments.gallery}: {len(gallery):,} rows, {said}")
    return 0
