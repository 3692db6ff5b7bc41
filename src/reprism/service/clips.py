"""Clips: the seconds of a video in which a tracklet was seen, cut out without coding anything anew.

Nothing of a video leaves this machine but these seconds, and of videos none but those below folders that were named
when the service was started. A row's path is not trusted: whoever fills a gallery writes it.
"""

from __future__ import annotations

import io
import math
import re
import stat
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reprism.cameras.records import SourceError
from reprism.cameras.videos import one_line, opened

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream

MARGIN = 2.0
"""Seconds that a clip shows before the first sight and after the last one."""
LONGEST = 180.0
"""Seconds of a clip, at most; a longer one is cut off at its end."""
LARGEST = 64 * 2**20
"""Bytes of coded pictures in a clip, at most; a larger one is cut off at its end."""

_PLACE = re.compile(r"(?s)(/.*)#t=(\d{1,9}(?:\.\d{1,9})?),(\d{1,9}(?:\.\d{1,9})?)")
"""What :func:`reprism.cameras.watching.watch` calls a tracklet of a file."""

_PLAYED = ("yuv420p", "yuvj420p")  # pixels of H.264 that browsers show
_ROUNDING = 1e-3  # of a stream's unit of time
_HEADER, _HEADER_OF_PICTURE = 16384, 48  # bytes, at most, that an MP4 file tells of itself


class ClipError(Exception):
    """No clip can be made; the message is for clients and names no path."""


class Sighting(NamedTuple):
    """Seconds of a video.

    Attributes:
        video: The file, without symbolic links.
        first, last: First and last sight, in seconds from the video's first frame.
    """

    video: Path
    first: float
    last: float

    @property
    def begin(self) -> float:
        """Begin of the clip, in seconds from the video's first frame."""
        return max(0.0, self.first - MARGIN)

    @property
    def end(self) -> float:
        """End of the clip, in seconds from the video's first frame."""
        return min(self.last + MARGIN, self.begin + LONGEST)


def find_sighting(path: str, folders: Sequence[Path]) -> Sighting | None:
    """Return the seconds of a video that a row's path names, or None if that video may not be shown or is not there.

    Args:
        path: As ``reprism watch`` writes it: ``/site/gate.mp4#t=12.500,17.250``.
        folders: Folders, without symbolic links, below which videos may be shown.
    """
    place = _PLACE.fullmatch(path)
    if place is None:
        return None
    first, last = float(place[2]), float(place[3])
    try:
        video = Path(place[1]).resolve(strict=True)
        is_file = stat.S_ISREG(video.stat().st_mode)
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no file can have
        return None
    allowed = any(video.is_relative_to(folder) for folder in folders)
    return Sighting(video, first, last) if allowed and is_file and first <= last else None


def is_playable(video: Path) -> bool:
    """Return whether browsers play a file as it is coded: H.264 in MP4."""
    try:
        facts = video.stat()
        return _is_playable(video, facts.st_mtime_ns, facts.st_size)
    except OSError:
        return False


@lru_cache(1024)
def _is_playable(video: Path, modified: int, size: int) -> bool:  # noqa: ARG001 - a file that changes is asked again
    try:
        with opened(f"file:{video}", "the video", local=True) as container:
            return _playable_stream(container) is not None
    except (SourceError, OSError):
        return False


def _playable_stream(container: InputContainer) -> VideoStream | None:
    """Return the container's video, if browsers play it."""
    is_mp4 = (container.format.name or "").startswith("mov")
    stream = next(iter(container.streams.video), None)
    if not is_mp4 or stream is None or stream.codec_context is None:
        return None
    context = stream.codec_context
    return stream if context.name == "h264" and context.pix_fmt in _PLAYED and context.width > 0 else None


def cut_clip(sighting: Sighting) -> bytes:
    """Cut the seconds of a sighting out of its video.

    The coded pictures are copied. They begin with the last one before the sighting that needs no other (a key frame);
    the file says to show none before :attr:`Sighting.begin`, and its time 0 is that of the first that is shown.
    Sound is left out.

    Returns:
        An MP4 file that players show from its first bytes on. The same video and seconds give the same bytes.

    Raises:
        ClipError: The video is not H.264 in MP4, cannot be read, or has nothing to show within the limits.
    """
    import av

    try:
        with opened(f"file:{sighting.video}", "the video", local=True) as container:
            stream = _playable_stream(container)
            if stream is None:
                raise ClipError("clips are made of H.264 in MP4 only, and this video is coded in another way")
            return _written(stream, *_packets(container, stream, sighting))
    except (SourceError, OSError, av.error.FFmpegError) as error:
        reason = one_line(error, f"file:{sighting.video}", "the video").replace(str(sighting.video), "the video")
        raise ClipError(f"the video cannot be read: {reason}") from error


def _packets(container: InputContainer, stream: VideoStream, sighting: Sighting) -> tuple[list[Packet], int]:
    """Return the coded pictures of a sighting in their order in the file, and the time of the first to be shown.

    Raises:
        ClipError: There are none, or too many before the first that is to be shown.
    """
    unit, origin = float(stream.time_base or 0), stream.start_time or 0
    begin = origin + math.ceil(sighting.begin / unit - _ROUNDING)
    end = origin + math.floor(sighting.end / unit + _ROUNDING)
    container.seek(begin, stream=stream, backward=True)
    packets: list[Packet] = []
    size = 0
    for packet in container.demux(stream):
        if packet.dts is None or packet.pts is None:
            continue
        if packet.is_keyframe and packet.pts <= begin:
            packets, size = [], 0
        size += packet.size
        if packet.dts > end or size > LARGEST:
            break
        packets.append(packet)
    # Pictures shown later may stand before the last one, which is made of them.
    while packets and (packets[-1].pts or 0) > end:
        packets.pop()
    first = min(
        (packet.pts for packet in packets if packet.pts is not None and begin <= packet.pts <= end), default=None
    )
    if first is None:
        if size > LARGEST:
            raise ClipError(f"the video has no key frame within the {LARGEST // 2**20} MiB before the sighting")
        raise ClipError("the video has no pictures at the time of the sighting: it is another one now, or was cut")
    return packets, first


def _written(stream: VideoStream, packets: Sequence[Packet], first: int) -> bytes:
    import av

    file = io.BytesIO()
    # Room for the header before the pictures, so that a player need not wait for the end.
    room = _HEADER + len(stream.codec_context.extradata or b"") + _HEADER_OF_PICTURE * len(packets)
    with av.open(file, "w", format="mp4", options={"moov_size": str(room), "fflags": "+bitexact"}) as container:
        copy = container.add_stream_from_template(stream)
        for packet in packets:
            # A time before 0 is not shown.
            packet.pts, packet.dts = (packet.pts or 0) - first, (packet.dts or 0) - first
            packet.stream = copy
            container.mux(packet)
    return file.getvalue()
