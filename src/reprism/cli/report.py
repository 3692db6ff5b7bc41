"""``reprism report``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from reprism.cli.arguments import parse
from reprism.cli.embedding import Device, Workers
from reprism.cli.output import progress_bars


@dataclass
class Arguments:
    """Write a report of each finished run: one HTML file that needs no other, and its figures as Markdown."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    data_root: Path | None = None
    """Folder of the data set (default: where the run found it)."""
    shown: int = 5
    """Number of hardest queries to show."""
    device: Device = None
    workers: Workers = 1
    out: Path | None = None
    """HTML file for the report of a single run (default: report.html in the run folder)."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism report``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism report",
        example="reprism report runs/scr-market1501",
        main=("out", "data_root", "shown", "device", "workers"),
    )

    if not arguments.runs:
        raise ValueError("no run given: name one or more run folders")
    if arguments.out is not None and len(arguments.runs) > 1:
        raise ValueError("--out names the report of one run; without it each lies in its run's folder")

    from reprism.report.run_report import write_report

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
