"""Frames from a stream or a device: opened again whenever it stalls or ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from reprism.cameras.records import Frame, Report, SourceError, Timeouts, time_at
from reprism.cameras.videos import Decoder, one_line, opened, upright, video_stream

_PROTOCOLS = "http,https,httpproxy,tcp,tls,crypto,rtsp,rtsps,rtp,srtp,udp"
"""Protocols that an address may lead to: never ``file``, or a camera's playlist could name files of this machine."""

_JUMP = 10.0  # seconds between two frames' own times, beyond which the camera's clock has been set
_USUAL_RATE = 25  # frames per second
_SLICE = 0.2  # seconds that a wait takes at a time, so that Ctrl+C is heard


def read(
    url: str,
    name: str,
    is_device: bool,
    start: datetime | None,
    every: int,
    max_pixels: int,
    timeouts: Timeouts,
    report: Report,
) -> Iterator[Frame]:
    """Yield a stream's frames, across reconnections (:func:`reprism.cameras.read_frames`)."""
    progress = _Progress(start)
    wait = timeouts.first_wait
    while True:
        before, problem = progress.count, ""
        try:
            yield from _connection(url, name, is_device, every, max_pixels, timeouts, progress)
        except SourceError as error:
            if not progress.count:
                raise  # it never worked: a mistake in the address, more likely than a fault of the network
            problem = str(error)
        if progress.finished:
            return
        problem = problem or progress.problem
        if timeouts.give_up is not None and time.monotonic() - progress.heard >= timeouts.give_up:
            raise SourceError(f"{name} was given up after {timeouts.give_up:g} s without a frame: {problem}")
        if not progress.count:
            raise SourceError(f"{name} gave no frame: {problem}")
        if progress.count > before:
            wait = timeouts.first_wait
        report(f"{name}: {problem} after frame {progress.count - 1}; reconnecting in {wait:g} s")
        _sleep(wait)
        wait = min(2 * wait, timeouts.longest_wait)


@dataclass
class _Progress:
    """State that is kept across connections.

    Attributes:
        start: Time that the user gave the first frame.
        count: Number of frames so far.
        first: When the first one was taken, by this machine's clock.
        last: Seconds from the first to the last one.
        recorded: Seconds into a recording, up to which its frames have been read.
        finished: A recording was read to its end.
        problem: Why the last connection ended.
        heard: When a frame last came, by the clock that is never set.
    """

    start: datetime | None
    count: int = 0
    first: datetime | None = None
    last: float = 0.0
    recorded: float = -1.0
    finished: bool = False
    problem: str = ""
    heard: float = field(default_factory=time.monotonic)

    def add(self, taken: datetime) -> None:
        """Count a frame that was taken at a time of this machine's clock. Times never go back."""
        self.first = self.first or taken
        self.last = max(self.last, (taken - self.first).total_seconds())
        self.count += 1
        self.heard = time.monotonic()


def _connection(
    url: str, name: str, is_device: bool, every: int, max_pixels: int, timeouts: Timeouts, progress: _Progress
) -> Iterator[Frame]:
    """Yield the frames of one connection, until it ends, stalls or breaks."""
    import av

    address, form = _device(url) if is_device else (url, None)
    options = {} if is_device else {"protocol_whitelist": _PROTOCOLS, "rtsp_transport": "tcp"}
    limits = None if is_device else (timeouts.opening, timeouts.reading)
    with opened(address, name, local=False, form=form, timeout=limits, options=options) as container:
        stream = video_stream(container, name, max_pixels, live=True)
        length = 0.0 if is_device or not container.duration else container.duration / 1e6
        decoder = Decoder(stream)
        base, origin, previous = datetime.now(UTC), 0.0, None
        interval = 1 / float(stream.average_rate or _USUAL_RATE)
        for decoded in decoder.frames(container):
            clock = None if decoded.pts is None else float(decoded.pts * Fraction(stream.time_base or 0))
            is_jump = clock is None or previous is None or not 0 <= clock - previous < _JUMP
            if is_jump and not (length and previous is not None):
                base, origin = datetime.now(UTC), clock or 0.0
                if progress.first is not None:  # frames that were held up on their way come in a rush
                    base = max(base, progress.first + timedelta(seconds=progress.last + interval))
            elapsed = 0.0 if clock is None else clock - origin
            previous = clock
            if length:  # a recording, which a new connection begins anew
                if elapsed <= progress.recorded:
                    continue
                progress.recorded = elapsed
                base = progress.first or base
            progress.add(base + timedelta(seconds=elapsed))
            index, moment = progress.count - 1, time_at(progress.start or progress.first, progress.last)
            if index % every == 0:
                yield Frame(upright(decoded), index, progress.last, moment)
                progress.heard = time.monotonic()  # again: while its caller works, a generator stands still
        if length and stream.average_rate and not decoder.ended:
            progress.finished = progress.recorded + 2 / float(stream.average_rate) >= length
        if isinstance(decoder.ended, av.error.ExitError):  # how PyAV ends what takes longer than its limit
            progress.problem = f"no data for {timeouts.reading:g} s"
        else:
            progress.problem = "it ended" if decoder.ended is None else one_line(decoder.ended, address, name)


def _device(url: str) -> tuple[str, str]:
    """Return the name and the format by which FFmpeg opens a camera device."""
    if sys.platform == "darwin":
        return url.removeprefix("/dev/video"), "avfoundation"
    if sys.platform != "linux":
        raise SourceError(f"device {url}: cameras are opened on Linux and macOS only; give the address of a stream")
    return (f"/dev/video{url}" if url.isdigit() else url), "v4l2"


def _sleep(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _SLICE))
