"""Keep up with a live stream: drop frames while the machine is behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from reprism.cameras.records import Frame

_BEHIND = 1.0  # seconds behind the stream, from which on frames are dropped
_CAUGHT_UP = 0.2  # seconds behind the stream, at which they are taken again
_REMEMBERED = 60.0  # seconds, over which the least delay counts as none: clocks of cameras drift by less meanwhile


class Delay:
    """Measures how far behind its camera a stream is seen, whatever the two clocks show.

    The least difference between them, in the last minute or two, counts as no delay.
    """

    def __init__(self) -> None:
        self._since = float("-inf")
        self._least = [float("inf"), float("inf")]  # in the minute before, and in this one

    def at(self, seconds: float, now: float) -> float:
        """Return the delay of a frame in seconds, 0 or more.

        Args:
            seconds: Time of the frame by the camera's clock.
            now: Time by this machine's, which is never set.
        """
        if now - self._since > _REMEMBERED:
            self._since, self._least = now, [self._least[1], float("inf")]
        difference = now - seconds
        self._least[1] = min(self._least[1], difference)
        return difference - min(self._least)


def keep_up(
    frames: Iterable[Frame], dropped: Callable[[int], object], clock: Callable[[], float] = time.monotonic
) -> Iterator[Frame]:
    """Yield a live stream's frames; those that come while the caller is more than a second behind are dropped.

    Args:
        frames: Frames of a stream.
        dropped: Called with the number of frames that were dropped just now, each time that it has caught up.
        clock: Seconds by a clock that is never set.
    """
    delay, is_behind, count = Delay(), False, 0
    for frame in frames:
        late = delay.at(frame.seconds, clock())
        is_behind = late > (_CAUGHT_UP if is_behind else _BEHIND)
        if is_behind:
            count += 1
            continue
        if count:
            dropped(count)
            count = 0
        yield frame
    if count:
        dropped(count)
