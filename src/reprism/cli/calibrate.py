"""``reprism calibrate``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console

from reprism.cli.arguments import parse
from reprism.cli.datasets import open_named
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings
from reprism.cli.output import figures_table, progress_bars

if TYPE_CHECKING:
    from reprism.evaluation.calibration import Calibration

_PAIRS = "no same-camera pairs, no junk"


@dataclass
class Arguments:
    """Find what a distance means: error rates of thresholds, and the probability that a match is right.

    Give a model and labelled data whose people it was not trained on; or a gallery, whose rows of known identity and
    camera are used. A calibration is refused for other distances than it was fitted on: a gallery that is compressed,
    or holds tracklets, needs one of its own. Writes a file that reprism search and reprism serve read, and a picture.
    """

    checkpoint: tyro.conf.Positional[Path | None] = None
    """Model: a file of reprism train, a folder of reprism export, an ONNX file with a YAML file beside it, or a state
    dict of the released SCR code."""
    data: str | None = None
    """Labelled data, NAME:DIR, with the options of its loader as in reprism evaluate."""
    gallery: str | None = None
    """Gallery to calibrate on its own rows, in place of a model and data."""
    queries: Literal["images", "tracklets"] = "images"
    """Kind of the queries to calibrate a gallery for. Commands search for images."""
    max_queries: int = 10_000
    """Maximum rows of a gallery to search for; of more, people are drawn at random."""
    fmr: tuple[float, ...] = (1e-2, 1e-3, 1e-4, 1e-5)
    """False match rates to find thresholds for."""
    seed: int = 0
    """Random seed for drawing the people that the probability is checked on."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)
    out: Path = Path("calibration.json")
    """Calibration file. Its picture is written beside it, as .png."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism calibrate``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism calibrate",
        example="reprism calibrate model.safetensors --data market1501:/data/Market-1501\n"
        "reprism calibrate --gallery gallery --out gallery.json",
        main=("data", "gallery", "queries", "fmr", "out"),
    )
    given = (arguments.checkpoint is not None, arguments.data is not None, arguments.gallery is not None)
    if given not in ((True, True, False), (False, False, True)):
        raise ValueError(
            "expected a model and its data, or a gallery: reprism calibrate MODEL --data NAME:DIR, "
            "or reprism calibrate --gallery GALLERY"
        )

    from reprism.report.calibration import draw_calibration

    found = _of_dataset(arguments) if arguments.gallery is None else _of_gallery(arguments.gallery, arguments)
    found.write(arguments.out)
    draw_calibration(found, arguments.out.with_suffix(".png"))
    _show(found)
    print(f"{arguments.out} and {arguments.out.with_suffix('.png')}")
    return 0


def _of_dataset(arguments: Arguments) -> "Calibration":
    from reprism.evaluation.calibration import calibrate
    from reprism.evaluation.fitted_on import FittedOn
    from reprism.evaluation.protocol import DISTANCE
    from reprism.evaluator import describe_dataset

    assert arguments.checkpoint is not None and arguments.data is not None  # noqa: PT018, S101 - checked by run
    with progress_bars() as progress:
        dataset = open_named(arguments.data, progress)
        embedder = arguments.embedding.embedder_of(arguments.checkpoint)
        options = arguments.embedding
        query, gallery = describe_dataset(embedder, dataset, options.video, workers=options.workers, progress=progress)
        video = options.video if dataset.is_video else None
        return calibrate(
            query,
            gallery,
            dataset.query,
            dataset.gallery,
            fitted_on=FittedOn.of_dataset(embedder.kind.fingerprint, embedder.flip, video, embedder.engine),
            fmrs=arguments.fmr,
            seed=arguments.seed,
            about={
                "data": dataset.name,
                "root": str(dataset.root),
                "variant": dataset.protocol,
                "checkpoint": str(arguments.checkpoint),
                "precision": embedder.precision,
                "protocol": f"{DISTANCE}, {_PAIRS}",
            },
            partition=embedder.model.partition,
            segments=options.video.segments if dataset.is_video else 1,
            progress=partial(progress, "counting pairs"),
        )


def _of_gallery(uri: str, arguments: Arguments) -> "Calibration":
    from reprism.evaluation.protocol import DISTANCE
    from reprism.gallery.table import Gallery

    gallery = Gallery.open(uri)
    with progress_bars() as progress:
        return gallery.calibrate(
            arguments.queries,
            max_queries=arguments.max_queries,
            fmrs=arguments.fmr,
            seed=arguments.seed,
            about={"gallery": uri, "protocol": f"{DISTANCE}, {_PAIRS}"},
            progress=partial(progress, "counting pairs"),
        )


def _show(found: "Calibration") -> None:
    pairs = (
        f"{found.counts['same_pairs']:,} pairs of the same person, "
        f"{found.counts['different_pairs']:,} of different people; 95 % intervals"
    )
    table = figures_table(pairs, ("false match rate asked for", "threshold", "false match rate", "true positive rate"))
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
