"""``reprism optimize``."""

from collections.abc import Sequence
from dataclasses import dataclass

import tyro


@dataclass
class Arguments:
    """Gather a gallery's small files, and build or refresh its search index.

    The index is built once a gallery is large (more than 50,000 rows): below, a search reads every row. Rows added
    later are found without it; run this again now and then to take them in. Finishes an erasure that was interrupted.
    """

    gallery: tyro.conf.Positional[str]
    """What reprism index made."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism optimize``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism optimize")

    from reprism.gallery.table import Gallery

    gallery = Gallery.open(arguments.gallery)
    gallery.optimize()
    index = gallery.index()
    said = "no index: searches read every row" if index is None else f"{index['kind']} over {index['indexed']:,} rows"
    print(f"{arguments.gallery}: {len(gallery):,} rows, {said}")
    return 0
