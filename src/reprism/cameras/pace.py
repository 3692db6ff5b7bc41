"""Keep up with a live stream: drop frames while the machine is behind, and notice when none come."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from reprism.cameras.records import Frame

_SHARE = 0.8  # of the stream's time, which may be spent on its frames: decoding them needs the rest
_SAVED = 1.0  # seconds of work at most, which a stream may have saved up for a frame that takes long
_BEHIND = 10.0  # seconds behind the stream, from which on frames are dropped however little work they are
_TICK = 0.2  # seconds between two looks at whether the caller has left
_PATIENCE = 1.0  # seconds that a caller who leaves waits for the thread that reads
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


def note_silence(frames: Iterable[Frame], seconds: float) -> Iterator[Frame | None]:
    """Yield frames, and None once when none has come for so many seconds: a stream may stall for an hour.

    A thread reads the frames, one ahead. It ends with them, or with the next one after the caller has left.

    Args:
        frames: Frames of a live stream.
        seconds: Seconds of silence.
    """
    came: queue.Queue[Frame | BaseException | None] = queue.Queue(1)
    left = threading.Event()

    def hand_over(one: Frame | BaseException | None) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                came.put(one, timeout=_TICK)
                return

    def read() -> None:
        try:
            for frame in frames:
                hand_over(frame)
                if left.is_set():
                    return
        except BaseException as error:  # raised where the frames are taken
            hand_over(error)
        else:
            hand_over(None)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    is_silent = False
    try:
        while True:
            try:
                one = came.get(timeout=None if is_silent else seconds)
            except queue.Empty:
                is_silent = True
                yield None
                continue
            if one is None:
                return
            if isinstance(one, BaseException):
                raise one
            is_silent = False
            yield one
    finally:
        left.set()
        reading.join(_PATIENCE)


def keep_up(
    frames: Iterable[Frame], dropped: Callable[[int], object], clock: Callable[[], float] = time.monotonic
) -> Iterator[Frame]:
    """Yield so many of a live stream's frames, evenly, as the caller has time for; the others are dropped.

    What counts is the time that the caller takes for a frame, not when frames arrive: streams that come in bursts are
    seen whole. A caller that is ten seconds behind all the same, such as where decoding takes long, is caught up.

    Args:
        frames: Frames of a stream.
        dropped: Called with the number of frames that were dropped just now, before the next one is yielded.
        clock: Seconds by a clock that is never set.
    """
    delay, before, is_behind, count = Delay(), 0.0, False, 0
    saved, last = _SAVED, None
    for frame in frames:
        saved = min(_SAVED, saved + _SHARE * (frame.seconds - (frame.seconds if last is None else last)))
        last = frame.seconds
        late = delay.at(frame.seconds, clock())
        # Frames that were waiting come faster than they were taken. Once they do not, none is waiting any more.
        is_behind = late < before if is_behind else late > _BEHIND
        before = late
        if is_behind or saved < 0:
            count += 1
            continue
        if count:
            dropped(count)
            count = 0
        begun = clock()
        yield frame
        saved -= clock() - begun
    if count:
        dropped(count)
