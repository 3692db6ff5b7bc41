"""``reprism compress``."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Literal

import tyro

from reprism.cli.arguments import parse
from reprism.cli.datasets import open_named
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings
from reprism.cli.galleries import open_gallery
from reprism.cli.output import progress_bars

if TYPE_CHECKING:
    from reprism.gallery.compression import Projection
    from reprism.gallery.table import Gallery


@dataclass
class Arguments:
    """Make a gallery's descriptors narrower, by principal components. There is no way back.

    Later searches use the same components. Distances change: calibrations and thresholds made before no longer hold,
    and reprism calibrate --gallery makes new ones. Parts can no longer be compared. With --data, prints the cost.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery that reprism index created."""
    dim: int = 512
    """Columns to keep."""
    whitening: float = 0.0
    """Divide components by this power of their standard deviation, 0 (off) to 1. See its cost by --dry-run first."""
    data: str | None = None
    """Labelled data set as NAME:DIR, to measure the cost in mAP (default: not measured)."""
    fit: Literal["gallery", "train"] = "gallery"
    """Fit the components to the gallery's own rows, or to the train split of --data."""
    dry_run: bool = False
    """Print the cost, and change nothing."""
    model: Path | None = None
    """Model that the gallery was made with, a file or a folder, for --data (default: the one noted in the gallery)."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)


def run(argv: Sequence[str]) -> int:
    """Run ``reprism compress``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism compress",
        example="reprism compress gallery --dim 256 --data market1501:people --dry-run",
        main=("dim", "data", "fit", "dry_run", "whitening"),
    )
    if arguments.fit == "train" and arguments.data is None:
        raise ValueError("--fit train wants --data NAME:DIR: the training part of it")

    from reprism.gallery.table import Gallery

    gallery = Gallery.open(arguments.gallery)
    projection = (
        gallery.fit(arguments.dim, arguments.whitening) if arguments.data is None else _judged(gallery, arguments)
    )
    if not arguments.dry_run:
        before = gallery.stats()["bytes"]
        gallery.compress(projection=projection)
        after = gallery.stats()["bytes"]
        size = "" if after is None else f", {before / 1e6:,.1f} MB are {after / 1e6:,.1f}"
        print(f"{arguments.gallery}: {projection.source_dim} columns are {gallery.dim}{size}")
        print(
            "Distances changed: calibrations and thresholds made before no longer hold. "
            f"Make new ones: reprism calibrate --gallery {quote(arguments.gallery)}"
        )
    return 0


def _judged(gallery: "Gallery", arguments: Arguments) -> "Projection":
    """Fit a projection, and print what it costs on labelled data."""
    from reprism.data.records import as_images
    from reprism.evaluator import evaluate_model
    from reprism.gallery.compression import Projection

    # No processes that decode: LanceDB's threads do not survive a fork.
    options = replace(arguments.embedding, workers=0)
    _, embedder = open_gallery(arguments.gallery, arguments.model, options.network, batch_size=options.batch_size)
    with progress_bars() as progress:
        dataset = open_named(arguments.data or "", progress)
        if dataset.is_video:
            raise ValueError(f"{dataset.name} is of tracklets; what compressing costs is told on images")
        if arguments.fit == "train":
            rows = embedder.embed_samples(as_images(dataset.train), workers=options.workers)
            projection = Projection.fit(lambda: [rows], rows.shape[1], arguments.dim, arguments.whitening)
        else:
            projection = gallery.fit(arguments.dim, arguments.whitening)
        wide = evaluate_model(embedder, dataset, workers=options.workers, progress=progress)
        narrow = wide.rescored(projection.apply(wide.query), projection.apply(wide.gallery), progress)
    for name, metrics in ((projection.source_dim, wide.metrics), (projection.dim, narrow.metrics)):
        print(f"{name:>6} columns: mAP {metrics.mAP:.1%}, rank-1 {metrics.rank(1):.1%}")
    print(f"cost: {100 * (wide.metrics.mAP - narrow.metrics.mAP):+.1f} points of mAP on {dataset.name}")
    return projection
