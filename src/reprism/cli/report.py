"""``reprism report``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from reprism.cli.embedding import Device, Workers
from reprism.cli.output import progress_bars


@dataclass
class Arguments:
    """Write a report of a finished run: one HTML file that loads nothing, and its figures as Markdown."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    data_root: Path | None = None
    """Folder of the data set, if it is no longer where the run found it."""
    shown: int = 5
    """How many of the hardest queries are shown."""
    device: Device = None
    workers: Workers = 1
    out: Path | None = None
    """The HTML file; by custom report.html in the run folder."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism report``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism report")

    from reprism.figures.run_report import write_report

    with progress_bars() as progress:
        page = write_report(
            arguments.run,
            arguments.out,
            root=arguments.data_root,
            shown=arguments.shown,
            device=arguments.device,
            workers=arguments.workers,
            progress=progress,
        )
    print(page)
    return 0
