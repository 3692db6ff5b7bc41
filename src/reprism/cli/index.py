"""``reprism index``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro

from reprism.cli.embedding import Device, EmbeddingSettings, Precision, load_embedder
from reprism.cli.output import progress_bars


@dataclass
class Arguments:
    """Put images and tracks into a gallery; what is in it already is passed over, so that it can be run again.

    Interrupted at any moment, by a power cut too, it goes on from there: no image is in twice.
    """

    inputs: tyro.conf.Positional[tuple[Path, ...]]
    """Images; folders, searched with all that lies in them; and tables (.csv, .parquet) with a column path and any of
    pid, camid, time (ISO 8601; without a zone, UTC), tracklet, frame. A tracklet becomes one row."""
    model: Path
    """A model that reprism train wrote, or a state dict of the released SCR code."""
    gallery: str
    """A folder, or an address in object storage (s3://…); made if there is none."""
    naming: Literal["market1501", "dukemtmc"] | None = None
    """How images are named, if their names say who and which camera."""
    tracks: bool = False
    """Whether each folder of images is one track, and becomes one row."""
    source: str | None = None
    """Where all of this comes from, in a word; reprism search --source finds it again."""
    thumbnails: bool = True
    """Whether to keep a small picture of each."""
    storage: Literal["float32", "float16"] = "float32"
    """How a new gallery stores descriptors; float16 takes half the disk."""
    flip: bool = True
    """Whether a new gallery's descriptors count the mirrored image too (an existing one keeps its own)."""
    frames: int = 15
    """How many images of a track are looked at."""
    batch_size: int = 64
    """Images at a time."""
    threads: int = 2
    """Threads that decode images beside the network."""
    precision: Precision = "auto"
    device: Device = None


def run(argv: Sequence[str]) -> int:
    """Run ``reprism index``; returns the exit status: 1 if nothing could be read."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism index")

    from reprism.gallery.indexing import index_images
    from reprism.gallery.sightings import find_sightings
    from reprism.gallery.table import Gallery

    sightings = find_sightings(
        arguments.inputs, naming=arguments.naming, tracks=arguments.tracks, source=arguments.source
    )
    exists = Gallery.exists(arguments.gallery)
    flip = Gallery.open(arguments.gallery).flip if exists else arguments.flip
    settings = EmbeddingSettings(flip, arguments.batch_size, precision=arguments.precision, device=arguments.device)
    embedder = load_embedder(arguments.model, settings)
    if exists:
        gallery = Gallery.open(arguments.gallery, embedder)
    else:
        gallery = Gallery.create(arguments.gallery, embedder, arguments.storage, arguments.model)
    with progress_bars() as progress:
        outcome = index_images(
            gallery,
            embedder,
            sightings,
            threads=arguments.threads,
            thumbnails=arguments.thumbnails,
            frames=arguments.frames,
            progress=partial(progress, "indexing"),
        )
    for path, reason in outcome.unreadable:
        print(f"unreadable: {path}: {reason}", file=sys.stderr)
    rate = outcome.added / outcome.seconds if outcome.seconds else 0.0
    print(
        f"{arguments.gallery}: {outcome.added:,} added in {outcome.seconds:.1f} s ({rate:.1f}/s), "
        f"{outcome.already:,} were there, {len(outcome.unreadable):,} images unreadable; {len(gallery):,} rows"
    )
    return 0 if outcome.added or outcome.already else 1
