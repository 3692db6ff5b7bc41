"""``reprism data``."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from reprism.cli.arguments import parse
from reprism.cli.clean import clean
from reprism.cli.datasets import open_named
from reprism.cli.output import figures_table, progress_bars
from reprism.progress import step
from reprism.terminal import clock, did_you_mean


@dataclass
class Check:
    """Check a data set: count its splits beside the published counts, and list what will go wrong.

    Lists missing images (and unreadable ones with --decode), people seen by one camera only or in few images, and
    queries that will be lost, with the reason. Ends with status 1 if a count differs, an image is missing or
    unreadable, or the data cannot be used: no valid query, no gallery, fewer identities than a batch holds.
    """

    name: tyro.conf.Positional[str]
    """Data set: market1501, dukemtmc, cuhk03, mars, csv or folder. Options of its loader follow after commas:
    cuhk03,boxes=detected."""
    root: tyro.conf.Positional[str]
    """Folder of the data set; for csv, the table."""
    decode: bool = False
    """Decode every image. It takes minutes for the known data sets; listing them takes seconds."""
    ids_per_batch: int = 8
    """Identities in a training batch (P), to check that there are enough."""
    images_per_id: int = 4
    """Images of each identity in a training batch (K), to list people with fewer."""
    split_by_identity: float | None = None
    """Share of the identities to train with, in your own data without a split (default: none)."""
    seed: int = 0
    """Random seed of --split-by-identity."""
    json: bool = False
    """Print JSON."""


@dataclass
class Render:
    """Draw a data set of people, to try everything without a photograph of anyone.

    Video of a site of several cameras is drawn by reprism data render cameras, which has options of its own (--help).
    """

    layout: tyro.conf.Positional[Literal["market1501", "cuhk03", "cuhk03-np", "mars"]]
    """Layout to write: cuhk03 is the file cuhk-03.mat, cuhk03-np the folders made from it."""
    folder: tyro.conf.Positional[Path]
    """Folder to write. It must not exist yet, or be empty."""
    train_identities: int | None = None
    """Number of people to train on (default: 32; mars: 8)."""
    test_identities: int | None = None
    """Number of other people, to search for (default: 32; mars: 8)."""
    height: int = 128
    """Height of the images in pixels; they are half as wide."""
    seed: int = 0
    """Random seed: the same seed draws the same people."""


@dataclass
class RenderCameras:
    """Draw video of people on a site of several cameras, with the exact truth about everybody in it.

    Writes an MP4 file for each camera, MOT-challenge's gt.txt beside it, the tables truth.csv and tracks.csv, and
    site.json. Cameras 1 and 2 see the same place from opposite sides, cameras 3 and 4 each a place of their own.
    """

    folder: tyro.conf.Positional[Path]
    """Folder to write. It must not exist yet, or be empty."""
    cameras: int = 4
    """Number of cameras, 1 to 12."""
    people: int = 12
    """Number of people; each visits the site once or twice."""
    seconds: float = 120.0
    """Length of the recording."""
    fps: int = 10
    """Frames per second."""
    size: tuple[int, int] = (360, 640)
    """Height and width of the frames in pixels."""
    returning: float = 0.25
    """Share of the people who come back, some soon and some late."""
    crowd: float = 0.0
    """Share of the people who walk in groups, and hide each other."""
    uniforms: int = 0
    """Number of people in the same clothes."""
    clock_offsets: tuple[str, ...] = ()
    """Cameras whose clock is wrong, as CAMERA=SECONDS: 2=45 is ahead, 2=-45 behind."""
    dropouts: tuple[str, ...] = ()
    """Gap in a camera's recording, as CAMERA=FROM-TO in seconds: 3=40-70. It leaves two files, cam3-1 and cam3-2."""
    noise: float = 1.0
    """Factor of the cameras' noise; 0 for none."""
    start: str = "2026-01-05T09:00:00+00:00"
    """True time of the first frame, on day 1."""
    day: int = 1
    """Day to draw: 2 draws who comes back the next day, the same people and cameras, on other ways."""
    seed: int = 0
    """Random seed: the same seed draws the same people, walks and frames."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism data ACTION``; returns the exit status."""
    actions = {"check": _check, "clean": clean, "render": _render, "render cameras": _render_cameras}
    if " ".join(argv[:2]) in actions:
        return actions[" ".join(argv[:2])](argv[2:])
    if not argv or argv[0] not in actions:
        lines = (f"  {name:<15} {(action.__doc__ or '').splitlines()[0]}" for name, action in actions.items())
        text = "usage: reprism data ACTION [OPTIONS]\n\nactions:\n" + "\n".join(lines)
        asked = bool(argv) and argv[0] in ("-h", "--help")
        if argv and not asked:
            text = f"reprism data: no action {argv[0]!r}.{did_you_mean(argv[0], actions)}\n\n{text}"
        print(text, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    return actions[argv[0]](argv[1:])


def _check(argv: Sequence[str]) -> int:
    """Count what a data set holds, beside what was published, and say what will go wrong with it."""
    arguments = parse(
        Check,
        argv,
        "reprism data check",
        example="reprism data check market1501 /data/Market-1501",
        main=("decode", "json", "split_by_identity", "ids_per_batch", "images_per_id"),
    )

    from reprism.data.check import check_dataset

    named = f"{arguments.name}:{arguments.root}"
    with progress_bars() as progress:
        dataset = open_named(named, progress, split_by_identity=arguments.split_by_identity, seed=arguments.seed)
        found = check_dataset(
            dataset,
            decode=arguments.decode,
            ids_per_batch=arguments.ids_per_batch,
            images_per_id=arguments.images_per_id,
            progress=progress,
        )
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        _print_check(found)
    return 0 if found["ok"] else 1


def _print_check(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    kinds = [kind for kind in ("images", "tracklets", "identities", "cameras") if kind in found["parts"]["train"]]
    title = f"{found['data']} in {found['root']}" + (f" ({found['protocol']})" if found["protocol"] else "")
    table = figures_table(title, kinds, label="part")
    for part, counts in found["parts"].items():
        cells = []
        for kind in kinds:
            here, published = counts.get(kind, 0), counts.get("published", {}).get(kind)
            differs = published is not None and published != here
            cells.append(f"[red]{here:,} (published: {published:,})[/red]" if differs else f"{here:,}")
        table.add_row(part.replace("_", "-"), *cells)
    console.print(table)
    if found["drawn"]:
        console.print("Drawn people: published counts do not apply.")
    elif not any("published" in counts for counts in found["parts"].values()):
        console.print("No counts were published to compare with.")
    if found["times"]["known"]:
        console.print(_times_line(found["times"]), markup=False)
    listed = {
        "reasons why it cannot be used": found["unusable"],
        "differences from the published counts": found["differences"],
        "missing images": found["missing"],
        "unreadable images": [f"{fault['path']}: {fault['reason']}" for fault in found["unreadable"]],
        "identities to train on seen by one camera only": list(map(str, found["one_camera"])),
        "identities to train on with fewer images than a batch shows": [
            f"{pid}: {images}" for pid, images in found["few_images"].items()
        ],
        "identities to test with seen by one camera only": list(map(str, found["unmatchable"])),
        "queries that will be lost": [f"{lost['path']}: {lost['reason']}" for lost in found["lost_queries"]],
    }
    for title, lines in listed.items():
        if lines:
            console.print(f"[bold]{len(lines)} {title}[/bold]")
            for line in lines[:10]:
                console.print(f"  {line}", markup=False)
            if len(lines) > 10:
                console.print(f"  and {len(lines) - 10} more (all of them: --json)")
    many = found["problems"]
    console.print(f"[red]FAILED: {many:,} problem{'s' if many > 1 else ''}.[/red]" if many else "OK: no problems.")


def _times_line(times: dict[str, Any]) -> str:
    """Return how many items have a time, and how long each recording is."""
    spans = [
        f"{name or 'one recording'} of {clock(last - first)}" for name, (first, last) in times["recordings"].items()
    ]
    more = f" and {len(spans) - 5} more" if len(spans) > 5 else ""
    missing = f"; {times['unknown']:,} have none" if times["unknown"] else ""
    return f"{times['known']:,} times on the clocks of: {', '.join(spans[:5])}{more}{missing}."


def _render(argv: Sequence[str]) -> int:
    """Draw a data set of drawn people, in the layout of a real one."""
    arguments = parse(
        Render,
        argv,
        "reprism data render",
        example="reprism data render market1501 people",
        main=("train_identities", "test_identities", "height", "seed"),
    )

    from reprism.drawn.cuhk03 import render_cuhk03, render_cuhk03_np
    from reprism.drawn.layouts import render_market1501, render_mars

    layouts: dict[str, Callable[..., Path]] = {
        "market1501": partial(render_market1501, gt_bbox=True),
        "cuhk03": render_cuhk03,
        "cuhk03-np": render_cuhk03_np,
        "mars": render_mars,
    }
    people = {"train_identities": arguments.train_identities, "test_identities": arguments.test_identities}
    with progress_bars() as progress:
        root = layouts[arguments.layout](
            arguments.folder,
            **{name: many for name, many in people.items() if many is not None},
            size=(arguments.height, arguments.height // 2),
            seed=arguments.seed,
            progress=step(progress, "drawing"),
        )
    print(root)
    return 0


def _render_cameras(argv: Sequence[str]) -> int:
    """Draw video of people on a site of several cameras, with the truth about everybody in it."""
    arguments = parse(
        RenderCameras,
        argv,
        "reprism data render cameras",
        example="reprism data render cameras site --people 20 --uniforms 4 --clock-offsets 2=45 --dropouts 3=40-70",
        main=("cameras", "people", "seconds", "crowd", "uniforms", "seed"),
    )

    from reprism.drawn.cameras import render_cameras

    offsets = [_numbers("--clock-offsets", "2=45", r"(\d+)=([+-]?\d+)", text) for text in arguments.clock_offsets]
    dropouts = [_numbers("--dropouts", "3=40-70", r"(\d+)=(\d+)-(\d+)", text) for text in arguments.dropouts]
    try:
        start = datetime.fromisoformat(arguments.start)
    except ValueError as error:
        raise ValueError(f"expected --start as a time such as 2026-01-05T09:00:00Z, got {arguments.start!r}") from error
    with progress_bars() as progress:
        root = render_cameras(
            arguments.folder,
            cameras=arguments.cameras,
            people=arguments.people,
            seconds=arguments.seconds,
            fps=arguments.fps,
            size=arguments.size,
            returning=arguments.returning,
            crowd=arguments.crowd,
            uniforms=arguments.uniforms,
            clock_offsets={numbers[0]: numbers[1] for numbers in offsets},
            dropouts=[(numbers[0], numbers[1], numbers[2]) for numbers in dropouts],
            noise=arguments.noise,
            start=start,
            day=arguments.day,
            seed=arguments.seed,
            progress=step(progress, "drawing"),
        )
    print(root)
    return 0


def _numbers(option: str, example: str, pattern: str, text: str) -> tuple[int, ...]:
    match = re.fullmatch(pattern, text)
    if match is None:
        raise ValueError(f"expected {option} in the form {example}, got {text!r}")
    return tuple(map(int, match.groups()))
