"""Putting images and tracklets into a gallery: decoding beside the network, writing beside both."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from reprism.data.images import ImageError, read_image
from reprism.data.video import choose_frames
from reprism.embedding import Embedder
from reprism.gallery.inputs import IndexItem
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery
from reprism.progress import Count

THUMBNAIL_HEIGHT = 128
"""Height of thumbnails, in pixels; a picture that is less high stays as it is."""

_BATCHES_AHEAD = 3
_WRITTEN_AT_ONCE = 1024  # rows
_WRITTEN_AFTER = 20.0  # seconds, if there are not so many
_GATHERED_AFTER = 100  # writes, each of which makes files of its own


@dataclass
class Indexing:
    """Result of indexing items into a gallery.

    Attributes:
        added: Rows that came in.
        already: Items that were there before.
        unreadable: Images that could not be read, each with the reason. Of a tracklet the others count.
        seconds: Duration, from the first image to the last row.
    """

    added: int = 0
    already: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0


def index_images(
    gallery: Gallery,
    embedder: Embedder,
    items: Sequence[IndexItem],
    *,
    threads: int = 2,
    thumbnails: bool = True,
    frames: int = 15,
    progress: Count | None = None,
) -> Indexing:
    """Put images and tracklets into a gallery; those that are there are not looked at again.

    Threads decode while the network computes, and another one writes. Rows come in as they are made: if the
    process is killed, the next run goes on from there. A tracklet's descriptor is the mean of its frames' descriptors,
    brought to length 1 (plain temporal pooling), so that images and tracklets compare.

    Args:
        gallery: Gallery to add to.
        embedder: Embedder with the gallery's model and settings.
        items: Items that :func:`reprism.gallery.inputs.find_items` found.
        threads: Number of threads that decode; 0 decodes in this one, between batches.
        thumbnails: Keep a small picture of each.
        frames: Number of a tracklet's images to use, evenly chosen.
        progress: Called with the items done and all of them, those that were there before included.

    Raises:
        GalleryError: The embedder is of another model or of other settings than the gallery.
    """
    gallery.check(embedder)
    present = gallery.has(item.key for item in items)
    todo = [item for item in items if item.key not in present]
    outcome = Indexing(already=len(items) - len(todo))
    start = time.monotonic()
    decode = Decoder(embedder.resize, frames, thumbnails)
    done = outcome.already
    with Writer(gallery) as writer:
        for batch in _decoded(batches_of(todo, embedder.batch_size, frames), decode, threads):
            outcome.unreadable += [bad for one in batch for bad in one.unreadable]
            for entry in entries_of(embedder, [one for one in batch if one.frames]):
                writer.put(entry)
            done += len(batch)
            if progress is not None:
                progress(done, len(items))
    outcome.added = writer.added
    gallery.optimize(build=False)
    outcome.seconds = time.monotonic() - start
    return outcome


# ---- decoding, in threads of their own -------------------------------------------------------------------
# Not in processes: LanceDB's threads do not survive a fork. Decoders and resizing let go of the interpreter's lock.


class Decoded(NamedTuple):
    """An item with its frames, each uint8 of the network's size; none if all are unreadable."""

    item: IndexItem
    frames: list[Tensor]
    thumbnail: bytes | None
    unreadable: list[tuple[str, str]]


@dataclass(frozen=True)
class Decoder:
    """Decodes items to frames of the network's size."""

    resize: Callable[[Tensor], Tensor]
    most_frames: int
    thumbnails: bool

    def __call__(self, item: IndexItem) -> Decoded:
        """Decode the chosen frames of an item; those that cannot be read are listed."""
        frames: list[Tensor] = []
        thumbnail, unreadable = None, []
        # A short tracklet's last frame counts once: here are no segments to be filled.
        for index in dict.fromkeys(choose_frames(len(item.paths), self.most_frames)):
            try:
                image = read_image(item.paths[index])
            except ImageError as error:
                unreadable.append((item.paths[index], error.reason))
                continue
            frames.append(self.resize(image))
            if self.thumbnails and thumbnail is None:
                thumbnail = make_thumbnail(image)
        return Decoded(item, frames, thumbnail, unreadable)


def _decoded(
    batches: Iterator[list[IndexItem]], decode: Callable[[IndexItem], Decoded], threads: int
) -> Iterator[list[Decoded]]:
    """Yield the batches decoded, some of them ahead of time."""
    if threads == 0:
        yield from ([decode(item) for item in batch] for batch in batches)
        return
    pool = ThreadPoolExecutor(threads)
    ahead: deque[list[Future[Decoded]]] = deque()
    try:
        while True:
            for batch in islice(batches, _BATCHES_AHEAD - len(ahead)):
                ahead.append([pool.submit(decode, item) for item in batch])
            if not ahead:
                return
            yield [future.result() for future in ahead.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def make_thumbnail(image: Tensor, height: int = THUMBNAIL_HEIGHT) -> bytes:
    """Make a small JPEG of an image (uint8, 3×H×W, RGB), at most ``height`` high and four times as wide."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((4 * height, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, format="jpeg", quality=85)
    return buffer.getvalue()


def batches_of(items: Iterable[IndexItem], size: int, most_frames: int) -> Iterator[list[IndexItem]]:
    """Yield items that have ``size`` frames together, or one that alone has more."""
    batch: list[IndexItem] = []
    filled = 0
    for item in items:
        count = min(len(item.paths), most_frames)
        if batch and filled + count > size:
            yield batch
            batch, filled = [], 0
        batch.append(item)
        filled += count
    if batch:
        yield batch


# ---- the network, in this thread -------------------------------------------------------------------------


def entries_of(embedder: Embedder, batch: Sequence[Decoded]) -> Iterator[Entry]:
    """Yield the entries of decoded items, each of which has a frame."""
    if not batch:
        return
    images = torch.stack([frame for one in batch for frame in one.frames])
    rows = torch.cat([embedder.embed_ready(some) for some in images.split(embedder.batch_size)])
    for one, run in zip(batch, rows.split([len(one.frames) for one in batch]), strict=True):
        item = one.item
        yield Entry(
            key=item.key,
            descriptor=run.mean(0).numpy(),
            path=item.paths[0],
            pid=item.pid,
            camid=item.camid,
            time=item.time,
            tracklet=item.tracklet,
            frames=len(item.paths),
            source=item.source,
            thumbnail=one.thumbnail,
        )


# ---- writing, in a thread of its own ---------------------------------------------------------------------


class Writer:
    """Adds entries to a gallery, many at a time, while the next are made. What was put in is written on leaving.

    Attributes:
        added: Number of rows that came in by now.
    """

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self.added = 0
        self.pool = ThreadPoolExecutor(1)
        self.entries: list[Entry] = []
        self.under_way: Future[int] | None = None
        self.writes = 0
        self.last = time.monotonic()

    def __enter__(self) -> Writer:
        return self

    def put(self, entry: Entry) -> None:
        """Take an entry; an error of an earlier write is raised here, or on leaving."""
        self.entries.append(entry)
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write what was put in, if it is much or has waited long; an error of an earlier write is raised here."""
        is_long_ago = time.monotonic() > self.last + _WRITTEN_AFTER
        if len(self.entries) >= _WRITTEN_AT_ONCE or (self.entries and is_long_ago):
            self._write()

    def __exit__(self, *error: object) -> None:
        # What was made is kept, whatever ended it.
        try:
            self._write()
            self._wait()
        finally:
            self.pool.shutdown()

    def _write(self) -> None:
        self._wait()  # one write at a time bounds the memory
        entries, self.entries, self.last = self.entries, [], time.monotonic()
        self.writes += 1
        gather = self.writes % _GATHERED_AFTER == 0

        def write() -> int:
            added = self.gallery.add(entries)
            if gather:
                self.gallery.optimize(build=False)
            return added

        self.under_way = self.pool.submit(write)

    def _wait(self) -> None:
        if self.under_way is not None:
            under_way, self.under_way = self.under_way, None
            self.added += under_way.result()
