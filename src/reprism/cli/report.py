"""``reprism report``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from reprism.cli.embedding import Device, Workers
from reprism.cli.output import progress_bars


@dataclass
class Arguments:
    """Write a report of each finished run: one HTML file that loads nothing, and its figures as Markdown."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    data_root: Path | None = None
    """Folder of the data set, if it is no longer where the run found it."""
    shown: int = 5
    """How many of the hardest queries are shown."""
    device: Device = None
    workers: Workers = 1
    out: Path | None = None
    """The HTML file, of one run; by custom report.html in the run folder."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism report``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism report")

    if not arguments.runs:
        raise ValueError("no run given: name one or more run folders")
    if arguments.out is not None and len(arguments.runs) > 1:
        raise ValueError("--out names the report of one run; without it each lies in its run's folder")

    from reprism.figures.run_report import write_report

    for folder in arguments.runs:
        with progress_bars() as progress:
            page = write_report(
                folder,
                arguments.out,
                root=arguments.data_root,
                shown=arguments.shown,
                device=arguments.device,
                workers=arguments.workers,
                progress=progress,
            )
        print(page)
    return 0
