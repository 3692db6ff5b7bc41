"""Frames from a video file, decoded by PyAV."""

from __future__ import annotations

import bisect
import os
import re
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reprism.cameras.records import Frame, Report, SourceError, SourceFacts, time_at

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "mpegvideo", "h264", "hevc", "m4v", "mjpeg",
    "mpjpeg", "flv", "asf", "ogg", "mxf", "ivf", "obu", "nut", "dv", "dhav",
)  # fmt: skip
"""Formats of files that are read, by FFmpeg's names. Playlists (``hls``, ``concat``, ``dash``, ``sdp``) are not among
them: they make FFmpeg open what they name."""

_THREADS = 8
_REORDERED = 64  # packets, by which a decoder puts frames in another order than the file: 16 at most
_SET_BACK = 0.5  # seconds that a frame is before the last one, from which on a file's clock begins anew
_USUAL_RATE = 25  # frames per second, where a file does not say
_LAST_SECONDS = 0.5  # that a container's own length may be wrong by


def read(
    path: Path,
    start: datetime | None,
    every: int,
    start_at: int,
    max_pixels: int,
    report: Report,
) -> Iterator[Frame]:
    """Yield a file's frames (:func:`reprism.cameras.read_frames`)."""
    begin_at = _before(path, start_at, max_pixels) if start_at else (None, 0)
    if begin_at is None:
        report(f"{path}: has no frame {start_at}")
        return
    target, index = begin_at
    with opened(f"file:{path.absolute()}", str(path), local=True) as container:
        stream = video_stream(container, str(path), max_pixels)
        begin = start or _creation_time(container, stream)
        origin = stream.start_time
        if target is not None and origin is not None:
            container.seek(target, stream=stream, backward=True)
        else:
            index = 0
        decoder, last, shift = Decoder(stream, index), 0.0, 0.0
        for frame in decoder.frames(container):
            number = decoder.count - 1
            if origin is None:
                origin = frame.pts
            if frame.pts is not None and origin is not None:
                seconds = float((frame.pts - origin) * Fraction(stream.time_base or 0)) + shift
                if seconds < last - _SET_BACK:  # recordings that were put one behind the other
                    shift += last + 1 / float(stream.average_rate or _USUAL_RATE) - seconds
                    seconds = last + 1 / float(stream.average_rate or _USUAL_RATE)
                last = max(last, seconds)
            elif stream.average_rate:
                last = max(last, float(number / stream.average_rate))
            if number >= start_at and number % every == 0:
                yield Frame(upright(frame), number, last, time_at(begin, last))
        if said := _shortfall(stream, decoder, last):
            report(f"{path}: {said}")


def describe(path: Path, max_pixels: int) -> SourceFacts:
    """Read what a file's header says.

    Raises:
        SourceError: It cannot be opened, or is no video.
    """
    with opened(f"file:{path.absolute()}", str(path), local=True) as container:
        stream = video_stream(container, str(path), max_pixels)
        seconds = _length(stream) or (container.duration / 1e6 if container.duration else None)
        rate = float(stream.average_rate) if stream.average_rate else None
        context = stream.codec_context
        size = (context.height, context.width)
        # Whether the frames are turned is written beside each: the first one is decoded for it.
        first = next(Decoder(stream).frames(container), None)
        if first is not None and first.rotation % 180:
            size = size[::-1]
        return SourceFacts(
            str(path), "file", stream.frames or None, seconds, rate, size, _creation_time(container, stream)
        )


@contextmanager
def opened(
    url: str,
    name: str,
    *,
    local: bool,
    form: str | None = None,
    timeout: tuple[float, float] | None = None,
    options: dict[str, str] | None = None,
) -> Iterator[InputContainer]:
    """Open a container of video, and close it.

    Args:
        url: As FFmpeg takes it.
        name: Its name for messages.
        local: It is a file, of a format of :data:`FORMATS`, which may open no other file and no connection.
        form: FFmpeg's name of the format; devices need it.
        timeout: Seconds to wait for the connection, and for each read.
        options: Further options of FFmpeg.

    Raises:
        SourceError: It cannot be opened; gives the reason and the remedy.
    """
    try:
        import av
    except ImportError as error:
        raise SourceError(f"{name}: video needs the package {error.name}: pip install 'reprism[video]'") from error
    options = dict(options or {})
    if local:
        options |= {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}
        if os.stat(url.removeprefix("file:")).st_size == 0:  # noqa: PTH116 - of a path that FFmpeg takes
            raise SourceError(f"{name} is empty (0 bytes): its recording failed, or its copy was cut off")
    try:
        container = av.open(url, options=options, format=form, timeout=timeout, metadata_errors="replace")
    except av.error.PermissionError as error:
        raise SourceError(f"{name} may not be read: give this user the permission to") from error
    except (av.error.FFmpegError, ValueError) as error:
        if not local:
            raise SourceError(f"{name} cannot be opened: {one_line(error, url, name)}") from error
        raise SourceError(
            f"{name} is no video that is read: it is damaged, cut off, or of another format than MP4, MKV, AVI and the "
            f"like; playlists are refused. Convert it: ffmpeg -i IN out.mp4 ({one_line(error, url, name)})"
        ) from error
    try:
        yield container
    finally:
        container.close()


def video_stream(container: InputContainer, name: str, max_pixels: int, *, live: bool = False) -> VideoStream:
    """Return the container's video, ready to decode.

    Raises:
        SourceError: It has none, none that can be decoded, or its frames are too large.
    """
    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams})
        reason = f"only {', '.join(kinds)}" if kinds else "it was cut off before its index was written, or is damaged"
        raise SourceError(f"{name} holds no video stream ({reason}): give a whole video")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context is None:
        raise SourceError(
            f"{name} is coded in a way that this PyAV has no decoder for. Convert it to H.264: ffmpeg -i IN out.mp4"
        )
    if not 0 < context.width * context.height <= max_pixels:
        raise SourceError(
            f"{name} has frames of {context.width}×{context.height} pixels; expected 1 … {max_pixels:,} pixels. Make "
            "it smaller: ffmpeg -i IN -vf scale=1920:-2 out.mp4"
        )
    # A stream may change its size later; FFmpeg then holds to this.
    context.options = {"max_pixels": str(max_pixels)}
    # Threads by frames hold several frames back, which a live view has no time for.
    context.thread_type = "SLICE" if live else "AUTO"
    context.thread_count = min(_THREADS, os.cpu_count() or 1)
    return stream


class Decoder:
    """Decodes a stream as far as it can be decoded.

    Args:
        stream: Stream of an open container.
        index: Index of the first frame that will be decoded.

    Attributes:
        count: Number of the source's frames so far, with those that could not be decoded.
        lost: Number of frames that could not be decoded.
        first_lost: Index of the first of them.
        discarded: Number of packets that the file says not to show.
        ended: FFmpeg's error, if the packets ended early.
    """

    def __init__(self, stream: VideoStream, index: int = 0) -> None:
        self.stream, self.count = stream, index
        self.lost, self.first_lost, self.discarded = 0, 0, 0
        self.ended: Exception | None = None
        self._errors = 0  # not yet counted as lost frames
        self._due: list[int] = []  # when the frames of the packets so far are to be shown

    def frames(self, container: InputContainer) -> Iterator[VideoFrame]:
        """Yield the frames that can be decoded, in the order in which they are shown."""
        import av

        for packet in self._packets(container):
            if packet is not None and packet.is_discard:
                self.discarded += 1
            elif packet is not None and packet.pts is not None:
                bisect.insort(self._due, packet.pts)
                del self._due[:-_REORDERED]
            try:
                decoded = self.stream.decode(packet)
            except av.error.MemoryError:
                raise
            except av.error.FFmpegError:
                self._errors += 1
                continue
            for frame in decoded:
                self._count(frame.pts)
                yield frame
        self._lose(self._errors)

    def _packets(self, container: InputContainer) -> Iterator[Packet | None]:
        """Yield the packets until the end; None after an error, to make the decoder give what it holds back."""
        import av

        try:
            yield from container.demux(self.stream)
        except av.error.MemoryError:
            raise
        except av.error.FFmpegError as error:
            self.ended = error
            yield None

    def _count(self, pts: int | None) -> None:
        """Count a frame, and those lost before it.

        A decoder of several threads tells of some errors only, and late. So once there was one, the packets that are
        due before the frame have lost theirs.
        """
        place = bisect.bisect_left(self._due, pts) if pts is not None else 0
        is_due = place < len(self._due) and self._due[place] == pts
        if self._errors:
            self._lose(place if is_due else self._errors)
        if is_due:
            del self._due[: place + 1]
        self.count += 1

    def _lose(self, frames: int) -> None:
        if frames:
            self.first_lost = self.first_lost if self.lost else self.count
            self.lost += frames
            self.count += frames
            self._errors = 0


def upright(frame: VideoFrame) -> np.ndarray:
    """Return a decoded frame as H×W×3 uint8 RGB, turned as its recording asks."""
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def one_line(error: Exception, url: str = "", name: str = "") -> str:
    """Return FFmpeg's reason for a message of one line, without its number and with the source's name for its URL."""
    text = " ".join(str(error).split())
    if url:
        text = text.replace(url, name)
    text = re.sub(r"://[^/@\s]*@", "://", text)  # of an address that FFmpeg has changed: user and password
    return re.sub(r"^\[Errno -?\d+\] ", "", text)[:300] or type(error).__name__


def _before(path: Path, start_at: int, max_pixels: int) -> tuple[int | None, int] | None:
    """Find where to begin decoding, to come to the frame of an index.

    Where the frames are is found out by reading, not decoding, the file up to there. The second keyframe before is
    chosen: frames shown just before a keyframe may come after it, and be made of what was before.

    Returns:
        Where to seek, in the stream's own times, and the index of the frame that is decoded first; None and 0 to decode
        from the start, where the file does not say when each of its frames is shown. None if it has no such frame.
    """
    with opened(f"file:{path.absolute()}", str(path), local=True) as container:
        stream = video_stream(container, str(path), max_pixels)
        packets = (packet for packet in container.demux(stream) if packet.size and not packet.is_discard)
        shown, keys, count = array("q"), [], 0  # a day of video has two million frames
        for packet in islice(packets, start_at + _REORDERED):
            count += 1
            if packet.pts is not None:
                shown.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        if count <= start_at:
            return None
        coded = np.array(shown, np.int64)
        times = np.sort(coded)
        # How far the clock goes back: a little where frames are coded in another order, else it was set.
        back = float((np.maximum.accumulate(coded) - coded).max(initial=0) * Fraction(stream.time_base or 0))
        if len(times) < count or (np.diff(times) == 0).any() or back > _SET_BACK:
            return None, 0
        keys = sorted(pts for pts in keys if pts <= times[start_at])
        if len(keys) < 2:
            return None, 0
        container.seek(keys[-2], stream=stream, backward=True)
        # Where that led to, and whether each packet makes a frame: fields do not.
        frames = islice(Decoder(stream).frames(container), 2)
        following = [frame.pts for frame in frames if frame.pts is not None]
        if len(following) < 2:
            return None, 0
        index = int(np.searchsorted(times, following[0]))
        known = index <= start_at and np.array_equal(times[index : index + 2], following)
        return (keys[-2], index) if known else (None, 0)


def _shortfall(stream: VideoStream, decoder: Decoder, last: float) -> str:
    """Say what is missing of a file whose end was reached; empty if nothing is."""
    said = []
    if decoder.lost:
        said.append(f"{decoder.lost} of its frames could not be decoded, the first at frame {decoder.first_lost}")
    # Only MP4 counts frames: AVI counts the gaps between them too.
    is_mp4 = (stream.container.format.name or "").startswith("mov")
    announced, length = stream.frames if is_mp4 else 0, _length(stream)
    if decoder.count + decoder.discarded < announced:
        said.append(f"it ends after {decoder.count} of the {announced} frames that it announces")
    elif not is_mp4 and length is not None and last + _LAST_SECONDS < length:
        said.append(f"it ends after {decoder.count} frames at {last:.1f} s, and announces {length:.1f} s")
    if said:
        said.append("it is damaged or was cut off")
    return "; ".join(said)


def _length(stream: VideoStream) -> float | None:
    """Return the seconds of a stream as its container has them: Matroska writes them as a text."""
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = tag.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    if stream.duration is None or stream.time_base is None:
        return None
    return float(stream.duration * Fraction(stream.time_base))


def _creation_time(container: InputContainer, stream: Any) -> datetime | None:
    """Return when a file was recorded; None for the dates of clocks that nobody had set."""
    names = ("com.apple.quicktime.creationdate", "creation_time")
    for metadata in (container.metadata, stream.metadata):
        for name in names:
            try:
                found = datetime.fromisoformat(metadata.get(name, ""))
            except ValueError:
                continue
            if found.tzinfo is not None and found.year > 1970:
                return found.astimezone(UTC)
    return None
