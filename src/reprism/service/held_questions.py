"""Questions that were handed to somebody, so that two who decide at once are not asked the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from reprism.gallery.doubts import Doubt


class HeldQuestions:
    """Questions that were handed to somebody, by their two leading rows. They are in no file: a restart forgets them.

    Args:
        seconds: Time that a question is kept for its holder.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._held: dict[frozenset[str], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def take(self, waiting: Sequence[Doubt], most: int, who: str) -> tuple[list[Doubt], int]:
        """Choose questions that nobody else holds, the first come first, and keep them for somebody.

        Args:
            waiting: All questions.
            most: Most questions to choose.
            who: Whom they are for.

        Returns:
            The questions, and how many more nobody else holds.
        """
        now = self._clock()
        with self._lock:
            self._held = {pair: held for pair, held in self._held.items() if held[1] > now}
            free = [doubt for doubt in waiting if self._held.get(_leading(doubt), (who, 0.0))[0] == who]
            chosen = free[:most]
            self._held |= {_leading(doubt): (who, now + self._seconds) for doubt in chosen}
        return chosen, len(free) - len(chosen)


def _leading(doubt: Doubt) -> frozenset[str]:
    return frozenset((doubt.one[0], doubt.other[0]))
