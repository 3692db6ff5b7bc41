"""``reprism demo``."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from reprism.cli.output import progress_bars


@dataclass
class Arguments:
    """Draw a data set, train a small part network on it, evaluate before and after, and write a report."""

    out: Path = Path("reprism-demo")
    """Folder for the report, the figures, the data and the run; an earlier demo there is replaced."""
    seed: int = 0
    """Of the people drawn, and of the training."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism demo``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism demo")

    from reprism.demo import run_demo

    with progress_bars() as progress:
        metrics = run_demo(arguments.out, seed=arguments.seed, progress=progress)
    for when in ("before", "after"):
        print(f"{when:>6} training: rank-1 {metrics[when]['rank1']:.1%}, mAP {metrics[when]['mAP']:.1%}")
    print(f"{metrics['seconds']:.0f} seconds; open {arguments.out / 'report.html'} in a browser")
    return 0
