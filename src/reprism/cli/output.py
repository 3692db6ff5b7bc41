"""Output of commands: progress bars, and tables of figures."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

from rich import progress as rich_progress
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from reprism.progress import Progress
from reprism.terminal import is_animated

_METRICS = {
    "mAP": "mAP",
    "mINP": "mINP",
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "rank20": "rank-20",
}


def figures_table(title: str, figures: Sequence[str], label: str | None = None) -> Table:
    """Return a table without rows: columns of figures, aligned on the right, after one of labels, if that has a title.

    A long label is folded, never cut: in a path it is the end that tells.
    """
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title_justify="left")
    if label is not None:
        table.add_column(label, overflow="fold", min_width=12)
    for each in figures:
        table.add_column(each, justify="right", overflow="fold")
    return table


def metrics_table(results: Sequence[dict[str, Any]], names: Sequence[str], width: int) -> Table:
    """Return the metrics of ``RankingMetrics.as_dict()`` in percent, a row for each result and its name.

    On a terminal of fewer than 80 columns rank-10 and rank-20 are left out.
    """
    shown = {key: title for key, title in _METRICS.items() if width >= 80 or key not in ("rank10", "rank20")}
    table = figures_table("percent", (*shown.values(), "queries", "lost"), label="data set")
    for name, result in zip(names, results, strict=True):
        figures = [f"{100 * result[key]:.1f}" for key in shown]
        table.add_row(escape(name), *figures, str(result["num_queries"]), str(result["num_lost_queries"]))
    return table


def unused(path: Path) -> Path:
    """Return the path, or the first of NAME-2, NAME-3 … that does not exist yet."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(free for free in chain([path], numbered) if not free.exists())


class _Rate(rich_progress.ProgressColumn):
    """Recent rate per second."""

    def render(self, task: rich_progress.Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.1f}/s", style="progress.data.speed")


LINE_SECONDS = 60.0
"""Minimum seconds between two lines about the same work, where no bar can be drawn; its end always gets one."""

_FIGURES_WIDTH = 36  # of a bar and its figures, at least


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Show progress by name: ``progress(what, done, total)`` moves a bar on a terminal.

    Elsewhere (:func:`reprism.terminal.is_animated`) it writes a line now and then, and one at the end.
    """
    console = Console(stderr=True)
    animated = is_animated(console)
    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(None),
        rich_progress.MofNCompleteColumn(),
        _Rate(),
        rich_progress.TimeRemainingColumn(),
    )
    # Shown only while something is under way, and nothing redirected: training draws a bar of its own meanwhile.
    bars = rich_progress.Progress(
        *columns, console=console, transient=True, expand=True, redirect_stdout=False, redirect_stderr=False
    )
    tasks: dict[str, Any] = {}
    said: dict[str, float] = {}

    def draw(what: str, done: int, total: int) -> None:
        if what not in tasks:
            if not tasks:
                bars.start()
            tasks[what] = bars.add_task(shortened(what, console.width - _FIGURES_WIDTH), total=total)
        bars.update(tasks[what], completed=done, total=total)
        if done >= total:
            bars.remove_task(tasks.pop(what))
            if not tasks:
                bars.stop()

    def write(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total:
            said.pop(what, None)
            line = f"{what}: {total:,}"
        elif now - said.setdefault(what, now) < LINE_SECONDS:
            return
        else:
            said[what] = now
            line = f"{what}: {done:,} of {total:,}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    try:
        yield draw if animated else write
    finally:
        if bars.live.is_started:
            bars.stop()


def titled(progress: Progress, title: str) -> Progress:
    """Return the same progress, with ``title: `` before what is under way."""
    return lambda what, done, total: progress(f"{title}: {what}", done, total)


def shortened(text: str, width: int) -> str:
    """Cut a text to ``width`` characters, at least 12, and keep its end: what tells paths apart."""
    width = max(12, width)
    return text if len(text) <= width else f"…{text[1 - width :]}"
