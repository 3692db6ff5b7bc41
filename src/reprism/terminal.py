"""Near misses of names, durations, and whether a terminal can draw bars."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'market1501'?``, to end a message about an unknown name; empty if nothing is like it."""
    folded = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(given.casefold(), folded, n=1)
    begun = [name for name in folded if given and name.startswith(given.casefold())]
    return next((f" Did you mean {folded[name]!r}?" for name in (*close, *begun)), "")


def clock(seconds: float) -> str:
    """Write a duration as M:SS or H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def is_animated(console: Console) -> bool:
    """Return whether bars that move can be drawn: on a terminal with a cursor, and not under continuous integration.

    Elsewhere (a file, a pipe, ``TERM=dumb``, ``CI`` set) progress is told in lines.
    """
    return console.is_interactive and not os.environ.get("CI")
