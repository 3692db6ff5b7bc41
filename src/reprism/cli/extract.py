"""``reprism extract``."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reprism.cli.arguments import parse
from reprism.cli.filling import Filling, fill
from reprism.cli.output import progress_bars


@dataclass(kw_only=True)
class Arguments(Filling):
    """Describe images and tracks, and write their descriptors to a Parquet table.

    The table has a row per image or track, in the order of the inputs, with its path, what is known of it, and its
    descriptor, a list of fixed length. If the command is interrupted, the same command continues: until the table is
    whole, what was described lies in a folder beside it.
    """

    out: str
    """Parquet file to write (.parquet); an existing one is replaced."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism extract``; returns the exit status: 1 if nothing could be read."""
    arguments = parse(
        Arguments,
        argv,
        "reprism extract",
        example="reprism extract photos/ --model runs/scr-market1501/model.safetensors --out descriptors.parquet",
        main=("model", "out", "naming", "tracks", "source"),
    )
    out = Path(arguments.out)
    if out.suffix.lower() != ".parquet" or "://" in arguments.out:
        raise ValueError(f"expected --out FILE.parquet on a disk, got {arguments.out}; for a gallery use reprism index")
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder: name a file")

    from reprism.gallery.database import GalleryError
    from reprism.gallery.extraction import write_descriptors

    aside = out.with_name(f".{out.name}.unfinished")
    begun = aside.exists()
    try:
        filled = fill(arguments, str(aside), what="describing", thumbnails=False)
    except GalleryError as error:
        if not begun:
            raise
        raise GalleryError(
            f"{error} ({aside} holds what an interrupted reprism extract described: remove it to begin again.)"
        ) from error
    outcome = filled.outcome
    if not outcome.added and not outcome.already:
        shutil.rmtree(aside)
        return 1
    with progress_bars() as bars:
        keys = [item.key for item in filled.items]
        rows = write_descriptors(filled.gallery, keys, out, partial(bars, "writing"))
    columns = filled.gallery.dim
    shutil.rmtree(aside)
    print(
        f"{out}: {rows:,} rows of {columns:,} columns; {outcome.already:,} had been described before, "
        f"{len(outcome.unreadable):,} images unreadable"
    )
    return 0
