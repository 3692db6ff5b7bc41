"""``reprism data``."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from reprism.cli.datasets import open_named
from reprism.cli.output import figures_table, progress_bars
from reprism.terminal import did_you_mean


@dataclass
class Check:
    """Count images, identities, cameras and tracklets of a data set's parts beside the published counts.

    Missing images are listed, and with --decode unreadable ones; people seen by one camera only or in few images;
    and the queries that will be lost, with the reason. Ends with status 1 if a count differs, an image is missing or
    unreadable, or the data cannot be used: no valid query, no gallery, fewer identities than a batch holds.
    """

    name: tyro.conf.Positional[str]
    """The data set: market1501, dukemtmc, cuhk03, mars, csv or folder; options of its loader after commas, such as
    cuhk03,boxes=detected."""
    root: tyro.conf.Positional[str]
    """Its folder; of csv, the table."""
    decode: bool = False
    """Decode every image: minutes for the known data sets, where listing them takes seconds."""
    ids_per_batch: int = 8
    """P: identities in a training batch, at most as many as there are to train on."""
    images_per_id: int = 4
    """K: list the people to train on with fewer images than a batch shows of each."""
    split_by_identity: float | None = None
    """Data of your own without a split: the share of the identities to train with."""
    seed: int = 0
    """Of that division."""
    json: bool = False
    """Print JSON."""


@dataclass
class Render:
    """Draw a data set of rendered people: no photograph of anyone is needed to try everything."""

    layout: tyro.conf.Positional[Literal["market1501", "cuhk03", "cuhk03-np", "mars"]]
    """The layout it is written in; cuhk03 is the file cuhk-03.mat, cuhk03-np the folders made from it."""
    folder: tyro.conf.Positional[Path]
    """Where to; must not exist or be empty."""
    train_identities: int | None = None
    """People to train on; by custom 32, of mars 8."""
    test_identities: int | None = None
    """Other people, to look for; by custom 32, of mars 8."""
    height: int = 128
    """Of the images, in pixels; they are half as wide."""
    seed: int = 0
    """The same seed draws the same people."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism data ACTION``; returns the exit status."""
    actions = {"check": _check, "render": _render}
    if not argv or argv[0] not in actions:
        lines = (f"  {name:<8} {(action.__doc__ or '').splitlines()[0]}" for name, action in actions.items())
        text = "usage: reprism data ACTION [OPTIONS]\n\nactions:\n" + "\n".join(lines)
        asked = bool(argv) and argv[0] in ("-h", "--help")
        if argv and not asked:
            text = f"reprism data: no action {argv[0]!r}.{did_you_mean(argv[0], actions)}\n\n{text}"
        print(text, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    return actions[argv[0]](argv[1:])


def _check(argv: Sequence[str]) -> int:
    """Count what a data set holds, beside what was published, and say what will go wrong with it."""
    arguments = tyro.cli(Check, args=list(argv), prog="reprism data check")

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


def _render(argv: Sequence[str]) -> int:
    """Draw a data set of rendered people, in the layout of a real one."""
    arguments = tyro.cli(Render, args=list(argv), prog="reprism data render")

    from reprism.data.rendered_cuhk03 import render_cuhk03, render_cuhk03_np
    from reprism.data.rendered_layouts import render_market1501, render_mars

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
            progress=lambda done, total: progress("drawing", done, total),
        )
    print(root)
    return 0
