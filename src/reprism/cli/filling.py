"""Share between the commands that describe images and tracks: what to describe, by what, and the work itself."""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from reprism.cli.clusters import ClusterOptions, ClusterSettings, ship
from reprism.cli.embedding import NetworkOptions, NetworkSettings, load_embedder
from reprism.cli.output import progress_bars

if TYPE_CHECKING:
    from reprism.gallery.indexing import Indexing
    from reprism.gallery.inputs import IndexItem
    from reprism.gallery.table import Gallery


@dataclass(kw_only=True)
class Filling:
    """Options of the commands that describe images and tracks."""

    inputs: tyro.conf.Positional[tuple[str, ...]]
    """Images, folders (searched with their subfolders), or tables (.csv, .parquet); each may be an address, such as
    s3://bucket/photos. A table has a column path, and any of pid, camid, time (ISO 8601, UTC unless it names a zone),
    tracklet and frame. A tracklet becomes one row."""
    model: Path
    """Model: a file of reprism train, a folder of reprism export, an ONNX file with a YAML file beside it, or a state
    dict of the released SCR code."""
    naming: Literal["market1501", "dukemtmc"] | None = None
    """Read identity and camera from file names of this data set (default: unknown identities and cameras)."""
    tracks: bool = False
    """Treat each folder of images as one track, which becomes one row."""
    source: str | None = None
    """Label for everything added in this run; reprism search --source filters by it (default: none)."""
    flip: bool = True
    """Add the mirrored image's descriptor, at twice the work. An existing gallery keeps its own setting."""
    frames: int = 15
    """Maximum images used of each track, spread evenly."""
    batch_size: int = 64
    """Images per batch."""
    threads: int = 2
    """Threads that decode images while the network computes, without --ray."""
    cluster: ClusterOptions = field(default_factory=ClusterSettings)
    network: NetworkOptions = field(default_factory=NetworkSettings)


@dataclass(frozen=True)
class Filled:
    """A gallery that was filled, the items that were to come in, and what became of them."""

    gallery: "Gallery"
    items: "list[IndexItem]"
    outcome: "Indexing"


def fill(
    given: Filling,
    uri: str,
    *,
    what: str,
    storage: Literal["float32", "float16"] = "float32",
    thumbnails: bool = True,
    model: Path | None = None,
) -> Filled:
    """Put what the options name into a gallery, which is created if it is not there; list what could not be read.

    Args:
        given: The command's options.
        uri: The gallery's folder or address.
        what: Name of the progress bar.
        storage, model: Of a new gallery, as of :meth:`reprism.Gallery.create`.
        thumbnails: Keep a small picture of each image.
    """
    from reprism.gallery.indexing import index_images
    from reprism.gallery.inputs import find_items
    from reprism.gallery.table import Gallery

    # Ray starts processes, which LanceDB would rather see before it has threads.
    on_cluster = given.cluster.connect()
    items = find_items(given.inputs, naming=given.naming, tracks=given.tracks, source=given.source)
    exists = Gallery.exists(uri)
    flip = Gallery.open(uri).flip if exists else given.flip
    embedder = load_embedder(
        given.model,
        given.network,
        batch_size=given.batch_size,
        flip=flip,
        pictures=0 if on_cluster else None,  # workers describe
    )
    gallery = Gallery.open(uri, embedder) if exists else Gallery.create(uri, embedder, storage, model)
    with progress_bars() as bars:
        options: Any = {"thumbnails": thumbnails, "frames": given.frames, "progress": partial(bars, what)}
        outcome: Indexing
        if on_cluster:
            from reprism.gallery.cluster import index_on_cluster

            shipped = ship(given.model, given.network, batch_size=given.batch_size, flip=flip)
            crew: Any = {"workers": given.cluster.workers, "cpus": given.cluster.worker_cpus}
            outcome = by_many = index_on_cluster(gallery, embedder, shipped, items, **crew, **options)
            said = [f"{network}: {count:,} rows" for network, count in sorted(by_many.networks.items())]
        else:
            outcome, said = index_images(gallery, embedder, items, threads=given.threads, **options), []
    said += [f"unreadable: {path}: {reason}" for path, reason in outcome.unreadable]
    print("".join(f"{line}\n" for line in said), end="", file=sys.stderr)
    return Filled(gallery, items, outcome)
