"""What commands show: progress bars, and tables of figures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_METRICS = {
    "mAP": "mAP",
    "mINP": "mINP",
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "rank20": "rank-20",
}


def figures_table(title: str, figures: Sequence[str], label: str | None = None) -> Table:
    """A table without rows: columns of figures, aligned on the right, after one of labels, if its title is given."""
    table = Table(title=title)
    if label is not None:
        table.add_column(label)
    for each in figures:
        table.add_column(each, justify="right")
    return table


def metrics_table(results: Sequence[dict[str, Any]]) -> Table:
    """Metrics in percent, a row for each result: ``RankingMetrics.as_dict()`` and the ``data`` they are of."""
    table = figures_table("percent", (*_METRICS.values(), "queries", "lost"), label="data set")
    for result in results:
        figures = [f"{100 * result[key]:.1f}" for key in _METRICS]
        table.add_row(result["data"], *figures, str(result["num_queries"]), str(result["num_lost_queries"]))
    return table


class _Rate(ProgressColumn):
    """How many a second, lately."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.1f}/s", style="progress.data.speed")


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars by name: ``progress(what, done, total)`` moves one; off a terminal, it writes a line at its end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    # Shown only while something is under way, and nothing redirected: training draws a bar of its own meanwhile.
    bars = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    tasks: dict[str, Any] = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in tasks:
            if not tasks:
                bars.start()
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)
        if done >= total:
            bars.remove_task(tasks.pop(what))
            if not tasks:
                bars.stop()
            if not console.is_terminal:
                console.print(f"{what}: {total}", highlight=False)

    try:
        yield progress
    finally:
        bars.stop()
