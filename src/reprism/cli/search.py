"""``reprism search``."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from reprism.cli.embedding import Device, Precision
from reprism.cli.galleries import open_gallery, parse_moment
from reprism.cli.output import figures_table

if TYPE_CHECKING:
    from reprism.gallery.search import Match


@dataclass
class Arguments:
    """Find the people of some pictures in a gallery: a table for each picture, or JSON, or a page with pictures."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures of one person each, cropped as a detector does."""
    gallery: str
    """What reprism index made."""
    model: Path | None = None
    """The model it was made with; by custom the file that it noted."""
    top: int = 20
    """How many matches of each, at most."""
    camera: tuple[str, ...] = ()
    """Only in these cameras."""
    not_camera: tuple[str, ...] = ()
    """Not in these cameras."""
    pid: tuple[str, ...] = ()
    """Only these identities."""
    source: str | None = None
    """Only from this source."""
    after: str | None = None
    """Taken then or later (ISO 8601; without a zone, UTC)."""
    before: str | None = None
    """Taken earlier than that."""
    threshold: float | None = None
    """The largest distance of a match, 0 … 2; reprism calibrate finds one for a wanted false match rate."""
    calibration: Path | None = None
    """calibration.json of this gallery's distances (reprism calibrate). Each match then has the probability that it is
    right, and its parts are measured among pictures of the same person too."""
    group_by: Literal["pid", "tracklet"] | None = None
    """Show the best match of each identity or track only."""
    rerank: bool = False
    """Order the nearest hundred by k-reciprocal re-ranking."""
    exact: bool = False
    """Compare with every row, however many there are."""
    json: bool = False
    """Print JSON: a list of {"query": path, "matches": [{"rank", "distance", "path", "camid", "pid", …}]}."""
    html: Path | None = None
    """Write a page with the pictures, which needs no other file."""
    batch_size: int = 64
    """Pictures at a time."""
    precision: Precision = "auto"
    device: Device = None


def run(argv: Sequence[str]) -> int:
    """Run ``reprism search``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism search")
    if not arguments.images:
        raise ValueError("give one or more pictures to search for")

    from reprism.evaluation.calibration import Calibration
    from reprism.evaluation.part_scale import NO_SCALE
    from reprism.figures.search_page import write_search_page
    from reprism.gallery.search import Filter

    where = Filter(
        cameras=arguments.camera,
        not_cameras=arguments.not_camera,
        after=None if arguments.after is None else parse_moment(arguments.after, "--after"),
        before=None if arguments.before is None else parse_moment(arguments.before, "--before"),
        pids=arguments.pid,
        source=arguments.source,
    )
    calibration = None if arguments.calibration is None else Calibration.read(arguments.calibration)
    gallery, embedder = open_gallery(
        arguments.gallery,
        arguments.model,
        batch_size=arguments.batch_size,
        precision=arguments.precision,
        device=arguments.device,
    )
    if calibration is not None:
        gallery.check_calibration(calibration)  # before pictures are embedded
    found = gallery.search(
        embedder.embed(arguments.images),
        arguments.top,
        where,
        threshold=arguments.threshold,
        calibration=calibration,
        group_by=arguments.group_by,
        rerank=arguments.rerank,
        exact=arguments.exact or None,
    )
    queries = [str(path) for path in arguments.images]
    if arguments.html is not None:
        write_search_page(arguments.html, gallery, list(zip(queries, found, strict=True)))
    if arguments.json:
        answers = [
            {"query": query, "matches": [match.to_json() for match in matches]}
            for query, matches in zip(queries, found, strict=True)
        ]
        print(json.dumps(answers, indent=2))
        return 0
    for query, matches in zip(queries, found, strict=True):
        _show(query, matches)
    if any(match.shares and match.parts is None for matches in found for match in matches):
        print(NO_SCALE, file=sys.stderr)
    if arguments.html is not None:
        print(arguments.html)
    return 0


def _show(query: str, matches: "Sequence[Match]") -> None:
    from rich.console import Console
    from rich.markup import escape

    from reprism.evaluation.part_scale import summary

    # A line for each match, so that it can be cut up: off a terminal nothing is to be fitted to a width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 400)
    if not matches:
        console.print(f"{query}: no match", markup=False)
        return
    columns: dict[str, list[str]] = {
        "rank": [str(match.rank) for match in matches],
        "distance": [f"{match.distance:.4f}" for match in matches],
        "probability": ["" if match.probability is None else f"{match.probability:.0%}" for match in matches],
        "identity": [match.pid or "" for match in matches],
        "camera": [match.camid or "" for match in matches],
        "time": ["" if match.time is None else match.time.isoformat(" ", "seconds") for match in matches],
        "parts": [summary(match.parts) if match.parts else "" for match in matches],
        "image": [match.path for match in matches],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    table = figures_table(escape(query), list(shown))
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*map(escape, cells))
    console.print(table)
