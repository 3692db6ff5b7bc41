"""``reprism search``."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from reprism.cli.arguments import parse
from reprism.cli.embedding import NetworkOptions, NetworkSettings
from reprism.cli.galleries import open_audit, open_gallery, parse_moment, system_user
from reprism.cli.output import figures_table, progress_bars
from reprism.cli.pictures import find_pictures
from reprism.cli.timed_search import plan_search
from reprism.progress import step
from reprism.terminal import did_you_mean

if TYPE_CHECKING:
    from reprism.evaluation.calibration import Calibration
    from reprism.evaluation.camera_statistics import CameraStatistics
    from reprism.gallery.filters import Filter
    from reprism.gallery.search import Match
    from reprism.gallery.table import Gallery


@dataclass
class Arguments:
    """Find the people of some pictures in a gallery.

    Prints a table for each picture, or JSON, and writes a page with pictures if asked to (--html).

    With --network the time between cameras counts beside looks. Say where and when the pictures were taken
    (--query-camera, --query-time), or search for a row of the gallery (--like). Each match then has its probability by
    looks and times, that by looks alone, and why: the parts that agree, and the time between the cameras beside the
    usual one.
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures of one person each, cropped as a detector crops them, or folders of such (with subfolders)."""
    gallery: str
    """Gallery that reprism index created."""
    model: Path | None = None
    """Model that the gallery was made with, a file or a folder (default: the one noted in the gallery)."""
    top: int = 20
    """Maximum matches for each picture."""
    camera: tuple[str, ...] = ()
    """Search only these cameras (default: all)."""
    not_camera: tuple[str, ...] = ()
    """Leave out these cameras (default: none)."""
    pid: tuple[str, ...] = ()
    """Search only these identities (default: all)."""
    source: str | None = None
    """Search only this source, as named by reprism index --source (default: all)."""
    after: str | None = None
    """Search only what was taken at this time or later (ISO 8601, UTC unless it names a zone)."""
    before: str | None = None
    """Search only what was taken before this time."""
    threshold: float | None = None
    """Maximum distance of a match, 0 to 2 (default: no limit). reprism calibrate finds one for a false match rate."""
    calibration: Path | None = None
    """calibration.json of this gallery's distances (reprism calibrate). Each match then has the probability that it is
    right, and its parts are measured among pictures of the same person too."""
    group_by: Literal["pid", "tracklet"] | None = None
    """Show only the best match of each identity or tracklet (default: every match)."""
    rerank: bool = False
    """Order the nearest 100 by k-reciprocal re-ranking."""
    camera_normalize: bool = False
    """Normalize descriptors by the mean and deviation of each camera's rows, which are read for it. A gallery of more
    than 50,000 rows with an index then orders the nearest 1,000 anew (10 times --top, if more)."""
    network: str | None = None
    """Rank by the time between cameras too: a file of reprism link learn; or kept, for the transit times that are kept
    with the gallery (reprism link run), which finds no rows but those that linking keeps. Probabilities by looks come
    from --calibration; without one they are learned from the gallery, for which linking must be on."""
    query_camera: str | None = None
    """Camera that took the pictures, for --network, and for --camera-normalize (there by default unknown: statistics
    of all cameras)."""
    query_time: str | None = None
    """Time when the pictures were taken, for --network (ISO 8601, UTC unless it names a zone)."""
    like: str | None = None
    """With --network: search for the person of this row in place of pictures, by its own camera and time. Its id, as
    --json shows it."""
    exact: bool = False
    """Compare with every row instead of using the index."""
    json: bool = False
    """Print JSON: a list of {"query": path, "matches": [{"rank", "distance", "path", "camid", "pid", …}]}. With
    --network a match has "by_looks", and "reason" with its "text"."""
    html: Path | None = None
    """HTML file to write: a page with the pictures, which needs no other file (default: none written)."""
    audit: Path | None = None
    """Audit log, which notes who searched and which rows matched (default: GALLERY.audit.jsonl, beside the gallery)."""
    batch_size: int = 64
    """Pictures per batch."""
    running: NetworkOptions = field(default_factory=NetworkSettings)


def run(argv: Sequence[str]) -> int:
    """Run ``reprism search``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism search",
        example="reprism search people/query/*.jpg --gallery gallery --top 5 --html matches.html\n"
        "reprism search first.jpg --gallery gallery --network kept --query-camera gate --query-time 2026-05-01T09:30",
        main=("gallery", "top", "html", "camera", "calibration", "network", "query_camera", "query_time", "like"),
    )
    _check_options(arguments)
    pictures = find_pictures(arguments.images) if arguments.images else []

    from reprism.evaluation.calibration import Calibration
    from reprism.evaluation.part_scale import NO_SCALE
    from reprism.gallery.search import Filter
    from reprism.report.search_page import write_search_page

    where = Filter(
        cameras=arguments.camera,
        not_cameras=arguments.not_camera,
        after=None if arguments.after is None else parse_moment(arguments.after, "--after"),
        before=None if arguments.before is None else parse_moment(arguments.before, "--before"),
        pids=arguments.pid,
        source=arguments.source,
    )
    calibration = None if arguments.calibration is None else Calibration.read(arguments.calibration)
    gallery, found = _found(arguments, pictures, where, calibration)
    with open_audit(arguments.gallery, arguments.audit) as audit:  # nothing is shown that is not in the log
        used = {} if arguments.network is None else {"times": True}
        for matches in found:
            ids = [match.id for match in matches]
            audit.write(system_user(), "search", ids, via="reprism search", matches=len(matches), **used)
    queries = [str(path) for path in pictures] or [str(arguments.like)]
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


def _found(
    arguments: Arguments, pictures: "Sequence[Path]", where: "Filter", calibration: "Calibration | None"
) -> "tuple[Gallery, Sequence[Sequence[Match]]]":
    """Search; returns the gallery, and the matches of each picture, or of the row that is given in place of them."""
    from reprism.gallery.table import Gallery

    if arguments.like is not None:
        gallery = Gallery.open(arguments.gallery)
        _check_filters(gallery, arguments)
        plan = plan_search(gallery, str(arguments.network), where, calibration)
        return gallery, [plan.like(arguments.like, arguments.top)]
    gallery, embedder = open_gallery(
        arguments.gallery,
        arguments.model,
        arguments.running,
        batch_size=arguments.batch_size,
        pictures=len(pictures),
    )
    _check_filters(gallery, arguments)
    if calibration is not None:
        gallery.check_calibration(calibration)  # before pictures are embedded
    exact = arguments.exact or None
    if arguments.network is not None:
        plan = plan_search(gallery, arguments.network, where, calibration)
        seen = plan.seen(arguments.query_camera, arguments.query_time)  # before pictures are embedded
        return gallery, plan.search(embedder.embed(pictures), seen, arguments.top, exact=exact)
    if arguments.camera_normalize:
        return gallery, gallery.search_by_camera(
            embedder.embed(pictures),
            [arguments.query_camera] * len(pictures),
            _camera_statistics(gallery, arguments.query_camera),
            arguments.top,
            where,
            exact=exact,
        )
    return gallery, gallery.search(
        embedder.embed(pictures),
        arguments.top,
        where,
        threshold=arguments.threshold,
        calibration=calibration,
        group_by=arguments.group_by,
        rerank=arguments.rerank,
        exact=exact,
    )


def _check_options(arguments: Arguments) -> None:
    """Refuse options that do not go together.

    Raises:
        ValueError: Two of them do not, or there is nothing to search for.
    """
    if arguments.like is not None and arguments.network is None:
        raise ValueError("--like is for --network, the time between cameras: give both or neither")
    given: Iterable[tuple[str, object]]
    if arguments.like is not None:
        given = (
            ("pictures", arguments.images or None),
            ("--query-camera", arguments.query_camera),
            ("--query-time", arguments.query_time),
            ("--html", arguments.html),
        )
        _refuse(given, "--like takes a row of the gallery with its camera and time: leave {} out")
    elif not arguments.images:
        raise ValueError("give one or more pictures, or folders of pictures, to search for")
    if arguments.network is None:
        if arguments.query_time is not None:
            raise ValueError("--query-time is for --network, the time between cameras: give both or neither")
        if arguments.query_camera is not None and not arguments.camera_normalize:
            raise ValueError("--query-camera is for --camera-normalize or --network: give one of them, or leave it out")
    elif arguments.like is None and (arguments.query_camera is None or arguments.query_time is None):
        raise ValueError(
            "--network needs where and when the pictures were taken: give --query-camera and --query-time, or --like ID"
        )
    given = (
        ("--threshold", arguments.threshold),
        ("--group-by", arguments.group_by),
        ("--rerank", arguments.rerank or None),
    )
    if arguments.network is not None:
        given = (*given, ("--camera-normalize", arguments.camera_normalize or None))
        _refuse(given, "{} is for a search by looks alone: leave it or --network out")
    if arguments.camera_normalize:
        given = (*given, ("--calibration", arguments.calibration))
        _refuse(given, "{} is for descriptors as they are: leave it or --camera-normalize out")


def _refuse(options: Iterable[tuple[str, object]], text: str) -> None:
    for option, value in options:
        if value is not None:
            raise ValueError(text.format(option))


def _camera_statistics(gallery: "Gallery", query_camera: str | None) -> "CameraStatistics":
    """Fit to the gallery's rows; warn of a query's camera that no row has."""
    from reprism.evaluation.camera_statistics import CameraStatistics

    if not gallery.stats()["cameras"]:
        raise ValueError(f"no row of {gallery.uri} has a camera: search without --camera-normalize")
    with progress_bars() as progress:
        statistics = CameraStatistics.of_gallery(gallery, step(progress, "statistics of cameras"))
    if query_camera is not None and query_camera not in statistics.cameras:
        there = ", ".join(statistics.cameras)
        print(
            f"reprism search: {gallery.uri} has no camera {query_camera!r}, so that the statistics of all are used; "
            f"there are {there}.{did_you_mean(query_camera, statistics.cameras)}",
            file=sys.stderr,
        )
    return statistics


def _check_filters(gallery: "Gallery", arguments: Arguments) -> None:
    """Refuse a filter that no row can pass, because of a name that the gallery does not have.

    Raises:
        ValueError: No row is of such a camera, identity or source.
    """
    from reprism.gallery.filters import Filter

    if named := {*arguments.camera, *arguments.not_camera}:
        cameras = gallery.stats()["cameras"]
        there = f"there are {', '.join(cameras)}" if cameras else "no row has a camera"
        for camera in sorted(named - cameras.keys()):
            text = f"{gallery.uri} has no camera {camera!r}; {there}.{did_you_mean(camera, cameras)}"
            if camera in arguments.camera:
                raise ValueError(text)
            # The query's own camera need not be in the gallery: nothing is wrong, unless it was misspelt.
            print(f"reprism search: --not-camera leaves nothing out: {text}", file=sys.stderr)
    for pid in arguments.pid:
        if not gallery.rows(Filter(pids=(pid,)), limit=1):
            raise ValueError(f"{gallery.uri} has no identity {pid!r}")
    if arguments.source is not None and not gallery.rows(Filter(source=arguments.source), limit=1):
        raise ValueError(f"{gallery.uri} has nothing from the source {arguments.source!r}")


def _show(query: str, matches: "Sequence[Match]") -> None:
    from rich.console import Console
    from rich.markup import escape

    from reprism.evaluation.part_scale import summary
    from reprism.linking.network_search import TimedMatch

    # A line for each match, so that it can be cut up: off a terminal nothing is to be fitted to a width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 400)
    if not matches:
        console.print(f"{query}: no match", markup=False)
        return
    columns: dict[str, list[str]] = {
        "rank": [str(match.rank) for match in matches],
        "distance": [f"{match.distance:.4f}" for match in matches],
        "probability": ["" if match.probability is None else f"{match.probability:.0%}" for match in matches],
        "by looks": [f"{match.by_looks:.0%}" if isinstance(match, TimedMatch) else "" for match in matches],
        "identity": [match.pid or "" for match in matches],
        "camera": [match.camid or "" for match in matches],
        "time": ["" if match.time is None else match.time.isoformat(" ", "seconds") for match in matches],
        "parts": [
            summary(match.parts) if match.parts and not isinstance(match, TimedMatch) else "" for match in matches
        ],
        "why": [match.reason.text if isinstance(match, TimedMatch) else "" for match in matches],
        "image": [match.path for match in matches],
    }
    shown = {title: cells for title, cells in columns.items() if any(cells)}
    *figures, path = shown
    table = figures_table(escape(query), figures)
    table.add_column(path, overflow="fold", min_width=16)
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*map(escape, cells))
    console.print(table)
