"""``reprism evaluate-tracks``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reprism.cli.arguments import parse
from reprism.cli.output import figures_table, progress_bars

if TYPE_CHECKING:
    from reprism.cameras.box_files import BoxTable
    from reprism.cameras.track_metrics import IdentityFigures, TrackFigures, TrackMetrics

_PERCENT = {"hota": "HOTA", "deta": "DetA", "assa": "AssA", "idf1": "IDF1", "mota": "MOTA"}
_COUNTS = ("id_switches", "missed", "false", "boxes", "people", "tracks")
_WIDE = 96  # columns of a terminal, from which on everything fits


@dataclass
class Arguments:
    """Compare tracks of people in video with the truth, camera by camera and over all.

    HOTA says how well people are found (DetA) and kept apart (AssA). IDF1 is the share of boxes with the right
    identity. MOTA counts what is missed, false, or goes on under another id (switches).

    TRUTH and TRACKS are each a file, or a folder with one for each camera: CAMERA/gt/gt.txt, or CAMERA.txt. Files are
    MOT-challenge text (frame,id,left,top,width,height,score, frames from 1), or CSV with the header
    frame,id,left,top,right,bottom (frames from 0), or CVAT's XML, or COCO's JSON with track_id. An empty file is a
    camera in which nobody was seen.

    What the truth says not to count (marked 0 in gt.txt, distractors, static people) is ignored, and so are the tracks'
    boxes on it. A seqinfo.ini beside gt says how many frames there are.

    With --across an id stands for the same person in all cameras, as it does with --people, by which tracks have the
    people that reprism link run found. IDF1 then says how well people are followed from camera to camera.
    """

    truth: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TRUTH")]
    """File or folder with the true boxes and identities."""
    tracks: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="TRACKS")]
    """File or folder with the tracks, of the same cameras."""
    iou: float = 0.5
    """Minimum intersection over union of a track's box and a true box. HOTA takes all from 0.05 to 0.95."""
    min_visibility: float = 0.0
    """Ignore people of whom a smaller share shows, 0 to 1, where the truth says it."""
    across: bool = False
    """Score identities across all cameras too: an id is the same person in each. Those of a drawn site's
    truth are its people."""
    people: str | None = None
    """Gallery of reprism watch whose people (reprism link run) the tracks are of, across all cameras; with --lines."""
    lines: Path | None = None
    """With --people: file that reprism watch --lines wrote in the run that wrote TRACKS (--boxes)."""
    json: Path | None = None
    """JSON file for the figures, as fractions (default: none written)."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism evaluate-tracks``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism evaluate-tracks",
        example="reprism evaluate-tracks truth/gt.txt tracks.txt\n"
        "reprism evaluate-tracks MOT17/train tracks --min-visibility 0.25 --json tracks.json\n"
        "reprism evaluate-tracks site tracks --people gallery --lines tracklets.jsonl",
        main=("iou", "min_visibility", "across", "people", "json"),
    )
    if (arguments.people is None) != (arguments.lines is None):
        raise ValueError("expected --people GALLERY and --lines FILE together: lines say which track is which row")

    from reprism.cameras.track_metrics import evaluate_identities, evaluate_tracks
    from reprism.files import write_json

    identities = None
    with progress_bars() as progress:
        found = evaluate_tracks(
            arguments.truth,
            arguments.tracks,
            arguments.iou,
            min_visibility=arguments.min_visibility,
            progress=partial(progress, "comparing tracks"),
        )
        if arguments.across or arguments.people is not None:
            identities = evaluate_identities(
                arguments.truth,
                arguments.tracks if arguments.people is None else _people_in(arguments),
                arguments.iou,
                min_visibility=arguments.min_visibility,
                progress=partial(progress, "comparing people"),
            )
    console = Console(highlight=False)
    console.print(tracks_table(found, console.width))
    console.print(found.describe(), markup=False)
    if identities is not None:
        console.print(identities_line(identities))
    if arguments.json is not None:
        across = {} if identities is None else {"across": identities.as_dict()}
        write_json(arguments.json, found.as_dict() | across)
        console.print(f"figures in {arguments.json}", markup=False, soft_wrap=True)
    return 0


def _people_in(arguments: Arguments) -> "dict[str, BoxTable]":
    """Return the tracks, with the ids of a gallery's people."""
    from reprism.cameras.track_files import read_tracks
    from reprism.cameras.track_people import name_people
    from reprism.gallery.table import Gallery

    assert arguments.people is not None and arguments.lines is not None  # noqa: PT018, S101 - checked by run
    people = Gallery.open(arguments.people).people()
    if not people:
        raise ValueError(
            f"expected people in {arguments.people}, got none that linking keeps: reprism link run {arguments.people}"
        )
    named = {row: f"person {person.id}" for person in people for row in person.rows}
    return name_people(read_tracks(arguments.tracks), arguments.lines, named)


def identities_line(found: "IdentityFigures") -> str:
    """Return how well people are followed from camera to camera, in a line."""
    rates = [
        "–" if math.isnan(value) else f"{100 * value:.1f}" for value in (found.idf1, found.precision, found.recall)
    ]
    return (
        f"across all cameras, of {found.boxes:,} boxes of {found.people:,} people: IDF1 {rates[0]}, "
        f"precision {rates[1]}, recall {rates[2]} percent; {found.found:,} people in the tracks"
    )


def tracks_table(found: "TrackMetrics", width: int) -> Table:
    """Return a row for each camera, and one for all if there are several.

    On a narrow terminal the counts of true boxes, people and tracks are left out; the JSON file has them.
    """
    counts = _COUNTS if width >= _WIDE else _COUNTS[:3]
    titles = [name.removeprefix("id_") for name in counts]
    table = figures_table("percent, and counts", (*_PERCENT.values(), *titles), label="camera")

    def add(name: str, figures: "TrackFigures") -> None:
        percents = (getattr(figures, key) for key in _PERCENT)
        shown = ["–" if math.isnan(value) else f"{100 * value:.1f}" for value in percents]
        table.add_row(name, *shown, *(f"{getattr(figures, key):,}" for key in counts))

    for camera, figures in found.cameras.items():
        add(escape(camera), figures)
    if len(found.cameras) > 1:
        table.add_section()
        add(f"all {len(found.cameras)}", found.overall)
    return table
