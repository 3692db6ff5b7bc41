"""``reprism index``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reprism.cli.arguments import parse
from reprism.cli.filling import Filling, fill


@dataclass(kw_only=True)
class Arguments(Filling):
    """Put images and tracks into a gallery.

    Images that are already in it are skipped, so the command is safe to run again. If it is interrupted at any moment,
    even by a power cut, the next run continues from there and no image is in twice.
    """

    gallery: str
    """Gallery folder, or an address in object storage (s3://…). Created if it does not exist."""
    thumbnails: bool = True
    """Keep a small picture of each image."""
    storage: Literal["float32", "float16"] = "float32"
    """Number format of descriptors in a new gallery; float16 takes half the disk space."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism index``; returns the exit status: 1 if nothing could be read."""
    arguments = parse(
        Arguments,
        argv,
        "reprism index",
        example="reprism index photos/ --model runs/scr-market1501/model.safetensors --gallery gallery",
        main=("model", "gallery", "naming", "tracks", "source"),
    )
    filled = fill(
        arguments,
        arguments.gallery,
        what="indexing",
        storage=arguments.storage,
        thumbnails=arguments.thumbnails,
        model=arguments.model,
    )
    outcome = filled.outcome
    rate = outcome.added / outcome.seconds if outcome.seconds else 0.0
    print(
        f"{arguments.gallery}: {outcome.added:,} added in {outcome.seconds:.1f} s ({rate:.1f}/s), "
        f"{outcome.already:,} were there, {len(outcome.unreadable):,} images unreadable; {len(filled.gallery):,} rows"
    )
    return 0 if outcome.added or outcome.already else 1
