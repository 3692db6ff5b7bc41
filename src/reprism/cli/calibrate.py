"""``reprism calibrate``."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from reprism.cli.datasets import open_named
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings, embed_dataset, load_embedder
from reprism.cli.output import figures_table, progress_bars

if TYPE_CHECKING:
    from reprism.evaluation.calibration import Calibration


@dataclass
class Arguments:
    """Find what a distance means: error rates of thresholds, and the probability that a match is right.

    On a labelled data set whose people the network was not trained on, like those it will meet, described as you will
    search: with the mirrored image, or without. Writes calibration.json, which reprism search reads, and a picture.
    """

    checkpoint: tyro.conf.Positional[Path]
    """A model that reprism train wrote, or a state dict of the released SCR code."""
    data: str
    """NAME:DIR, such as market1501:/data/Market-1501; options of its loader as in reprism evaluate."""
    fmr: tuple[float, ...] = (1e-2, 1e-3, 1e-4, 1e-5)
    """False match rates to give the thresholds of."""
    bootstrap: int = 500
    """Samples of the identities, for 95 % intervals."""
    seed: int = 0
    """Of these samples, and of the identities that the probability is checked on."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)
    out: Path = Path("calibration.json")
    """Where the calibration goes; its picture lies beside it, as .png."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism calibrate``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism calibrate")

    from reprism.evaluation.calibration import calibrate
    from reprism.figures.calibration import draw_calibration

    with progress_bars() as progress:
        dataset = open_named(arguments.data, progress)
        embedder = load_embedder(arguments.checkpoint, arguments.embedding)
        query, gallery = embed_dataset(embedder, dataset, arguments.embedding, progress)
        height, width = embedder.model.preprocessing.size
        found = calibrate(
            query,
            gallery,
            dataset.query,
            dataset.gallery,
            fmrs=arguments.fmr,
            bootstrap=arguments.bootstrap,
            seed=arguments.seed,
            about={
                "data": dataset.name,
                "root": str(dataset.root),
                "variant": dataset.protocol,
                "checkpoint": str(arguments.checkpoint),
                "flip": embedder.flip,
                "precision": embedder.precision,
                "size": [height, width],
                "video": asdict(arguments.embedding.video) if dataset.is_video else None,
                "protocol": "Euclidean distances of L2-normalised descriptors, no same-camera pairs, no junk",
            },
            progress=partial(progress, "counting pairs"),
        )
    found.write(arguments.out)
    draw_calibration(found, arguments.out.with_suffix(".png"))
    _show(found)
    print(f"{arguments.out} and {arguments.out.with_suffix('.png')}")
    return 0


def _show(found: "Calibration") -> None:
    pairs = (
        f"{found.counts['same_pairs']:,} pairs of the same person, "
        f"{found.counts['different_pairs']:,} of different people; 95 % intervals"
    )
    table = figures_table(pairs, ("false match rate wanted", "threshold", "false match rate", "true positive rate"))
    for point in found.points:
        rates = [
            f"{rate:.2e} ({low:.2e} to {high:.2e})" if small else f"{rate:.1%} ({low:.1%} to {high:.1%})"
            for rate, (low, high), small in (
                (point.fmr, point.fmr_interval, True),
                (point.tpr, point.tpr_interval, False),
            )
        ]
        note = "" if point.reliable else " *"
        table.add_row(f"{point.wanted_fmr:g}{note}", f"{point.threshold:.4f}", *rates)
    console = Console(highlight=False)
    console.print(table)
    if not all(point.reliable for point in found.points):
        console.print("* fewer than 30 false matches were seen: too few pairs for so small a rate")
    for search in found.open_set:
        console.print(
            f"open set: answers up to a distance of {search.threshold:.4f} alarm falsely at "
            f"{search.false_alarm_rate:.1%} of strangers, "
            f"and identify {search.identification_rate:.1%} of those in the gallery"
        )
    console.print(f"probability of a match: mean gap {found.calibration_error:.3f} on people it was not fitted to")
