"""Progress of ``reprism watch``: a line for each source."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Console
from rich.live import Live
from rich.text import Text

from reprism.cli.output import LINE_SECONDS
from reprism.terminal import clock, is_animated

if TYPE_CHECKING:
    from reprism.cameras.watching import Watched
    from reprism.linking.live import LivePeople

Show: TypeAlias = "Callable[[Sequence[Watched]], None]"

_RECENT = 5.0  # seconds, over which the rate is counted


@contextmanager
def watch_display(
    *, shown: bool = True, live: "LivePeople | None" = None
) -> "Iterator[tuple[Show | None, Callable[[str], None]]]":
    """Give what shows the progress, a line for each source and one for linked people, and what prints a line above it.

    On a terminal the lines change in their places (:func:`reprism.terminal.is_animated`); elsewhere they are printed
    every minute.
    """
    console = Console(stderr=True)

    def report(line: str) -> None:
        console.print(f"warning: {line}", markup=False, highlight=False, soft_wrap=True)

    if not shown:
        yield None, report
        return
    rates = Rates()

    def lines(watched: "Sequence[Watched]") -> list[str]:
        return lines_of(watched, rates, None if live is None else live.people)

    if is_animated(console):
        with Live(console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as drawn:
            yield lambda watched: drawn.update(Text("\n".join(lines(watched)), overflow="ellipsis")), report
        return
    said = time.monotonic()

    def write(watched: "Sequence[Watched]") -> None:
        nonlocal said
        now = lines(watched)
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            for line in now:
                console.print(line, markup=False, highlight=False, soft_wrap=True)

    yield write, report


def lines_of(watched: "Sequence[Watched]", rates: "Rates", people: int | None = None) -> list[str]:
    """Return a line for each source that is being watched, one for those that are done, and one for linked people."""
    lines = []
    for number, one in enumerate(watched):
        counts = one.counts
        rate = rates.of(number, counts.frames)
        if one.is_done or not counts.frames:
            continue
        where = clock(counts.seconds)
        if one.facts.seconds:
            where += f" of {clock(one.facts.seconds)}"
        dropped = f" · {one.dropped:,} dropped" if one.dropped else ""
        lines.append(
            f"{one.view.camera}: {where} · {rate:.1f} frames/s · {counts.open} in view · "
            f"{counts.tracklets:,} tracklets · {one.added:,} rows{dropped}"
        )
    done = [one for one in watched if one.is_done]
    if done:
        tracklets, rows = sum(one.counts.tracklets for one in done), sum(one.added for one in done)
        lines.append(f"{len(done):,} of {len(watched):,} sources done · {tracklets:,} tracklets · {rows:,} rows")
    if people is not None:
        lines.append(f"{people:,} people")
    return lines


class Rates:
    """Frames per second of several sources over the last seconds.

    Args:
        now: Seconds by a clock that is never set.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._marks: dict[int, tuple[tuple[float, int], tuple[float, int]]] = {}

    def of(self, number: int, frames: int) -> float:
        """Note that a source has come to so many frames, and return its rate."""
        here = (self._now(), frames)
        before, later = self._marks.setdefault(number, (here, here))
        if here[0] - later[0] >= _RECENT:
            before, later = later, here
            self._marks[number] = (before, later)
        elapsed = here[0] - before[0]
        return (frames - before[1]) / elapsed if elapsed > 0 else 0.0
