"""Putting images and tracklets into a gallery: decoding beside the network, writing beside both."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reprism.data.images import ImageError, read_image
from reprism.data.video import VideoSettings, choose_frames
from reprism.embedding import Embedder
from reprism.gallery.rows import Entry
from reprism.gallery.sightings import Sighting
from reprism.gallery.table import Gallery

THUMBNAIL_HEIGHT = 128
"""In pixels; a picture that is less high stays as it is."""

_WRITTEN_AT_ONCE = 1024  # rows
_WRITTEN_AFTER = 20.0  # seconds, if there are not so many
_GATHERED_AFTER = 100  # writes, each of which makes files of its own


@dataclass
class Indexing:
    """What came of putting sightings into a gallery.

    Attributes:
        added: Rows that came in.
        already: Sightings that were there before.
        unreadable: Images that could not be read, each with the reason. Of a tracklet the others count.
        seconds: What it took, from the first image to the last row.
    """

    added: int = 0
    already: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0


def index_images(
    gallery: Gallery,
    embedder: Embedder,
    sightings: Sequence[Sighting],
    *,
    workers: int = 1,
    thumbnails: bool = True,
    frames: int = 15,
    progress: Callable[[int, int], object] | None = None,
) -> Indexing:
    """Put images and tracklets into a gallery; those that are there are not looked at again.

    ``workers`` processes decode while the network computes, and a thread writes. Rows come in as they are made: if the
    process is killed, the next run goes on from there. A tracklet's descriptor is the mean of its frames' descriptors,
    brought to length 1 (plain temporal pooling), so that images and tracklets compare.

    Args:
        gallery: Where to.
        embedder: Of the model and settings that the gallery was made with.
        sightings: What :func:`reprism.gallery.sightings.find_sightings` found.
        workers: Processes that decode; 0 decodes in this one, between batches.
        thumbnails: Whether to keep a small picture of each.
        frames: How many of a tracklet's images are looked at, evenly chosen.
        progress: Called with the sightings done and all of them, those that were there before included.

    Raises:
        GalleryError: the embedder is of another model or of other settings than the gallery.
    """
    gallery.check(embedder)
    present = gallery.has(sighting.key for sighting in sightings)
    todo = [sighting for sighting in sightings if sighting.key not in present]
    outcome = Indexing(already=len(sightings) - len(todo))
    start = time.monotonic()
    video = VideoSettings(frames=frames, runs=1)
    loader = DataLoader(
        _Decoded(todo, embedder.transform, video, thumbnails=thumbnails),
        batch_sampler=_batches(todo, embedder.batch_size, frames),
        num_workers=workers,
        collate_fn=_collate,
    )
    done = outcome.already
    with _Writer(gallery) as writer:
        for batch in loader:
            outcome.unreadable += batch.unreadable
            for entry in _entries(embedder, todo, batch):
                writer.put(entry)
            done += batch.size
            if progress is not None:
                progress(done, len(sightings))
    outcome.added = writer.added
    gallery.optimize(build=False)
    outcome.seconds = time.monotonic() - start
    return outcome


# ---- decoding, in processes of its own -------------------------------------------------------------------


class _One(NamedTuple):
    """A sighting decoded: T×3×H×W frames, none if all are unreadable."""

    place: int
    frames: Tensor | None
    count: int  # frames of the sighting itself: those shown twice count once
    thumbnail: bytes | None
    unreadable: list[tuple[str, str]]


class _Batch(NamedTuple):
    """Several of them, their frames one after another."""

    size: int
    frames: Tensor | None
    places: list[int]
    lengths: list[int]
    thumbnails: list[bytes | None]
    unreadable: list[tuple[str, str]]


class _Decoded(Dataset[_One]):
    def __init__(
        self, sightings: Sequence[Sighting], transform: Callable[[Tensor], Tensor], video: VideoSettings, *, thumbnails: bool
    ) -> None:
        self.sightings = list(sightings)
        self.transform = transform
        self.video = video
        self.thumbnails = thumbnails

    def __len__(self) -> int:
        return len(self.sightings)

    def __getitem__(self, place: int) -> _One:
        paths = self.sightings[place].paths
        ready, thumbnail, unreadable = [], None, []
        # A short tracklet's last frame counts once: there is no rhythm to keep, as there is with several runs.
        for at in dict.fromkeys(choose_frames(len(paths), self.video.frames)):
            try:
                image = read_image(paths[at])
            except ImageError as error:
                unreadable.append((paths[at], error.reason))
                continue
            ready.append(self.transform(image))
            if self.thumbnails and thumbnail is None:
                thumbnail = make_thumbnail(image)
        return _One(place, torch.stack(ready) if ready else None, len(ready), thumbnail, unreadable)


def make_thumbnail(image: Tensor, height: int = THUMBNAIL_HEIGHT) -> bytes:
    """A small JPEG picture of an image (uint8, 3×H×W, RGB), at most ``height`` high and four times as wide."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture.thumbnail((4 * height, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, format="jpeg", quality=85)
    return buffer.getvalue()


def _collate(ones: list[_One]) -> _Batch:
    readable = [one for one in ones if one.frames is not None]
    return _Batch(
        size=len(ones),
        frames=torch.cat([one.frames for one in readable if one.frames is not None]) if readable else None,
        places=[one.place for one in readable],
        lengths=[one.count for one in readable],
        thumbnails=[one.thumbnail for one in readable],
        unreadable=[bad for one in ones for bad in one.unreadable],
    )


def _batches(sightings: Sequence[Sighting], size: int, frames: int) -> Iterator[list[int]]:
    """Places of sightings that have about ``size`` frames together."""
    batch: list[int] = []
    filled = 0
    for place, sighting in enumerate(sightings):
        count = min(len(sighting.paths), frames)
        if batch and filled + count > size:
            yield batch
            batch, filled = [], 0
        batch.append(place)
        filled += count
    if batch:
        yield batch


# ---- the network, in this process ------------------------------------------------------------------------


def _entries(embedder: Embedder, sightings: Sequence[Sighting], batch: _Batch) -> Iterator[Entry]:
    if batch.frames is None:
        return
    rows = torch.cat([embedder.embed_ready(some) for some in batch.frames.split(embedder.batch_size)])
    runs = rows.split(batch.lengths)
    for place, run, thumbnail in zip(batch.places, runs, batch.thumbnails, strict=True):
        sighting = sightings[place]
        yield Entry(
            key=sighting.key,
            descriptor=np.asarray(run.mean(0)),
            path=sighting.paths[0],
            pid=sighting.pid,
            camid=sighting.camid,
            time=sighting.time,
            tracklet=sighting.tracklet,
            frames=len(sighting.paths),
            source=sighting.source,
            thumbnail=thumbnail,
        )


# ---- writing, in a thread of its own ---------------------------------------------------------------------


class _Writer:
    """Adds entries to a gallery, many at a time, while the next are made."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self.added = 0
        self.pool = ThreadPoolExecutor(1)
        self.entries: list[Entry] = []
        self.under_way: Future[int] | None = None
        self.writes = 0
        self.last = time.monotonic()

    def __enter__(self) -> _Writer:
        return self

    def put(self, entry: Entry) -> None:
        """Take an entry; an error of an earlier write is raised here, or on leaving."""
        self.entries.append(entry)
        if len(self.entries) >= _WRITTEN_AT_ONCE or time.monotonic() > self.last + _WRITTEN_AFTER:
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
