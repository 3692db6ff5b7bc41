"""``reprism index``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from reprism.cli.arguments import parse
from reprism.cli.clusters import ClusterOptions, ClusterSettings, ship
from reprism.cli.embedding import NetworkOptions, NetworkSettings, load_embedder
from reprism.cli.output import progress_bars

if TYPE_CHECKING:
    from reprism.embedding import Embedder
    from reprism.gallery.indexing import Indexing
    from reprism.gallery.inputs import IndexItem
    from reprism.gallery.table import Gallery
    from reprism.progress import Count


@dataclass
class Arguments:
    """Put images and tracks into a gallery.

    Images that are already in it are skipped, so the command is safe to run again. If it is interrupted at any moment,
    even by a power cut, the next run continues from there and no image is in twice.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders (searched with their subfolders), or tables (.csv, .parquet); each may be an address, such as
    s3://bucket/photos. A table has a column path, and any of pid, camid, time (ISO 8601, UTC unless it names a zone),
    tracklet and frame. A tracklet becomes one row."""
    model: Path
    """Model: a file of reprism train, a folder of reprism export, an ONNX file with a YAML file beside it, or a state
    dict of the released SCR code."""
    gallery: str
    """Gallery folder, or an address in object storage (s3://…). Created if it does not exist."""
    naming: Literal["market1501", "dukemtmc"] | None = None
    """Read identity and camera from file names of this data set (default: unknown identities and cameras)."""
    tracks: bool = False
    """Treat each folder of images as one track, which becomes one row."""
    source: str | None = None
    """Label for everything added in this run; reprism search --source filters by it (default: none)."""
    thumbnails: bool = True
    """Keep a small picture of each image."""
    storage: Literal["float32", "float16"] = "float32"
    """Number format of descriptors in a new gallery; float16 takes half the disk space."""
    flip: bool = True
    """Add the mirrored image's descriptor, at twice the work. An existing gallery keeps its own setting."""
    frames: int = 15
    """Maximum images used of each track, spread evenly."""
    batch_size: int = 64
    """Images per batch."""
    threads: int = 2
    """Threads that decode images while the network computes."""
    cluster: ClusterOptions = field(default_factory=ClusterSettings)
    network: NetworkOptions = field(default_factory=NetworkSettings)


def run(argv: Sequence[str]) -> int:
    """Run ``reprism index``; returns the exit status: 1 if nothing could be read."""
    arguments = parse(
        Arguments,
        argv,
        "reprism index",
        example="reprism index photos/ --model runs/scr-market1501/model.safetensors --gallery gallery",
        main=("model", "gallery", "naming", "tracks", "source"),
    )

    from reprism.gallery.indexing import index_images
    from reprism.gallery.inputs import find_items
    from reprism.gallery.table import Gallery

    # Ray starts processes, which LanceDB would rather see before it has threads.
    on_cluster = arguments.cluster.connect()
    items = find_items(arguments.inputs, naming=arguments.naming, tracks=arguments.tracks, source=arguments.source)
    exists = Gallery.exists(arguments.gallery)
    flip = Gallery.open(arguments.gallery).flip if exists else arguments.flip
    embedder = load_embedder(
        arguments.model,
        arguments.network,
        batch_size=arguments.batch_size,
        flip=flip,
        pictures=0 if on_cluster else None,  # workers describe
    )
    if exists:
        gallery = Gallery.open(arguments.gallery, embedder)
    else:
        gallery = Gallery.create(arguments.gallery, embedder, arguments.storage, arguments.model)
    with progress_bars() as bars:
        progress = partial(bars, "indexing")
        if not on_cluster:
            outcome = index_images(
                gallery,
                embedder,
                items,
                threads=arguments.threads,
                thumbnails=arguments.thumbnails,
                frames=arguments.frames,
                progress=progress,
            )
        else:
            outcome = _index_on_cluster(arguments, gallery, embedder, items, progress)
    for path, reason in outcome.unreadable:
        print(f"unreadable: {path}: {reason}", file=sys.stderr)
    rate = outcome.added / outcome.seconds if outcome.seconds else 0.0
    print(
        f"{arguments.gallery}: {outcome.added:,} added in {outcome.seconds:.1f} s ({rate:.1f}/s), "
        f"{outcome.already:,} were there, {len(outcome.unreadable):,} images unreadable; {len(gallery):,} rows"
    )
    return 0 if outcome.added or outcome.already else 1


def _index_on_cluster(
    arguments: Arguments, gallery: "Gallery", embedder: "Embedder", items: "Sequence[IndexItem]", progress: "Count"
) -> "Indexing":
    from reprism.gallery.cluster import index_on_cluster

    outcome = index_on_cluster(
        gallery,
        embedder,
        ship(arguments.model, arguments.network, batch_size=arguments.batch_size, flip=gallery.flip),
        items,
        workers=arguments.cluster.workers,
        cpus=arguments.cluster.worker_cpus,
        thumbnails=arguments.thumbnails,
        frames=arguments.frames,
        progress=progress,
    )
    for network, count in sorted(outcome.networks.items()):
        print(f"{network}: {count:,} rows", file=sys.stderr)
    return outcome
