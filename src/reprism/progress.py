"""Progress of long work, told by calling a function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

Count: TypeAlias = Callable[[int, int], object]
"""Called as ``progress(done, total)``."""

Progress: TypeAlias = Callable[[str, int, int], object]
"""Called as ``progress(what, done, total)``, by work of several steps."""


def step(progress: Progress | None, what: str) -> Count | None:
    """Return what one step of the work calls, if anybody wants to know."""
    return None if progress is None else partial(progress, what)
