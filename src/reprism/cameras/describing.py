"""From tracklets to rows of a gallery: their crops are described, and those that are one are joined before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from reprism.cameras.stitching import Limits, Piece, Stitcher, join, name_of
from reprism.cameras.tracklet_lines import TrackletLines
from reprism.cameras.tracklets import Tracklet
from reprism.cameras.views import Watched, origin_of
from reprism.data.video import choose_frames
from reprism.embedding import DescriptorKind, Embedder
from reprism.evaluation.calibration import Calibration
from reprism.evaluation.fitted_on import FittedOn
from reprism.gallery.indexing import Writer, make_thumbnail
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery

T = TypeVar("T")

_STRIP = 8  # pictures of a tracklet, at most, that the gallery keeps


class Kept(NamedTuple):
    """Pixels of a crop: of the network's size (uint8), and a small JPEG."""

    pixels: Tensor
    thumbnail: bytes | None


class Described(NamedTuple):
    """A crop's descriptor, of length 1, and a small JPEG."""

    descriptor: np.ndarray
    thumbnail: bytes | None


Found: TypeAlias = tuple[Watched, Tracklet[Kept]]


def keeper(embedder: Embedder, thumbnails: bool) -> Callable[[np.ndarray], Kept]:
    """Return a function that makes what is kept of the pixels of a crop until it is described."""

    def keep(pixels: np.ndarray) -> Kept:
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
        # A copy even where it has the network's size already: the frame goes.
        return Kept(embedder.resize(image).clone(), make_thumbnail(image) if thumbnails else None)

    return keep


def stitch_limits(
    calibration: Calibration,
    kind: DescriptorKind,
    *,
    stitch_seconds: float,
    stitch_fmr: float,
    lost_seconds: float,
    longest_seconds: float,
) -> Limits:
    """Return the limits within which tracklets are joined.

    Args:
        calibration: Calibration of images, by the gallery's model.
        kind: Model and settings of the gallery's descriptors.
        stitch_seconds, stitch_fmr, lost_seconds, longest_seconds: As of :func:`reprism.cameras.watching.watch`.

    Raises:
        CalibrationError: The calibration is of other distances, or has too few people to show ``stitch_fmr``.
        ValueError: A number is out of range.
    """
    if stitch_seconds <= lost_seconds:
        raise ValueError(f"stitch_seconds={stitch_seconds}: expected more than lost_seconds={lost_seconds}")
    calibration.check(FittedOn(kind.fingerprint, kind.flip))
    return Limits.calibrated(calibration, stitch_fmr, stitch_seconds, longest_seconds)


@dataclass
class Rows:
    """Makes rows of tracklets, and puts those into a gallery that are not in it.

    With ``limits`` the tracklets of a source that are one are joined, and wait until that is certain.

    Attributes:
        gallery, embedder, writer: Gallery, network, and what writes into the gallery.
        log: Told of each row, also of those that are there (default: none).
        crops: Maximum number of crops of a joined tracklet.
        min_seconds: Joined tracklets that are shorter are left out.
        limits: Limits within which one tracklet continues another (default: none are joined).
        joined: Called with a source and tracklets of it that were joined.
    """

    gallery: Gallery
    embedder: Embedder
    writer: Writer
    log: TrackletLines | None = None
    crops: int = 15
    min_seconds: float = 0.0
    limits: Limits | None = None
    joined: Callable[[Watched, Sequence[Tracklet[Described]]], object] | None = None
    _stitchers: dict[Watched, Stitcher[Described]] = field(default_factory=dict)

    def begin(self, one: Watched, tracklet: Tracklet[Kept]) -> None:
        """Note a tracklet that begins, where tracklets are joined: it may continue one that waits."""
        if self.limits is not None:
            self._stitchers.setdefault(one, Stitcher(self.limits)).begin(name_of(tracklet), tracklet.first)

    def add(self, found: Sequence[Found]) -> None:
        """Describe tracklets that have ended, and write those that need not wait."""
        if self.limits is None:
            # What is there is not described again.
            new = self._not_there(found)
            for (one, _), described in zip(new, _described(self.embedder, [each for _, each in new]), strict=True):
                self._write(one, described)
            return
        for (one, _), described in zip(found, _described(self.embedder, [each for _, each in found]), strict=True):
            self._stitchers[one].add(Piece(described, _mean(described)))

    def settle(self, one: Watched, seconds: float, *, is_cut: bool = False) -> None:
        """Write the tracklets of a source that nothing can continue any more.

        Args:
            one: The source.
            seconds: Time of a frame: all that began or ended until then is known, and what has ended was described.
            is_cut: The source has ended or stalled: all that wait are written.
        """
        if one in self._stitchers:
            stitcher = self._stitchers[one]
            self._put(one, stitcher.flush() if is_cut else stitcher.settle(seconds))

    def _put(self, one: Watched, chains: Sequence[Sequence[Piece[Described]]]) -> None:
        whole = []
        for chain in chains:
            if len(chain) > 1:
                one.joined += len(chain) - 1
                if self.joined is not None:
                    self.joined(one, [piece.tracklet for piece in chain])
            tracklet = join(chain, self.crops)
            if tracklet.seconds < self.min_seconds:
                one.short += 1
            else:
                whole.append((one, tracklet))
        for _, tracklet in self._not_there(whole):
            self._write(one, tracklet)

    def _not_there(self, found: Sequence[tuple[Watched, Tracklet[T]]]) -> list[tuple[Watched, Tracklet[T]]]:
        """Return the tracklets that are not in the gallery; the others are counted."""
        if not found:
            return []
        keys = [_key(one, tracklet) for one, tracklet in found]
        present = self.gallery.has(keys)
        new = []
        for (one, tracklet), key in zip(found, keys, strict=True):
            if key in present:
                one.already += 1
                self._note(one, tracklet, key)
            else:
                new.append((one, tracklet))
        return new

    def _write(self, one: Watched, tracklet: Tracklet[Described]) -> None:
        key = _key(one, tracklet)
        self.writer.put(_entry(one, tracklet, key))
        one.added += 1
        self._note(one, tracklet, key)

    def _note(self, one: Watched, tracklet: Tracklet[T], key: str) -> None:
        if self.log is not None:
            self.log.add(row_id(key), one.view.camera, one.view.name, tracklet)


def _described(embedder: Embedder, tracklets: Sequence[Tracklet[Kept]]) -> list[Tracklet[Described]]:
    """Return tracklets with the descriptors of their crops in place of the pixels."""
    if not tracklets:
        return []
    crops = [crop for one in tracklets for crop in one.crops]
    batches = torch.stack([crop.picture.pixels for crop in crops]).split(embedder.batch_size)
    rows = iter(torch.cat([embedder.embed_ready(batch) for batch in batches]).numpy())
    # Copies: one that waits long would keep the whole batch.
    return [one.with_pictures(lambda kept: Described(next(rows).copy(), kept.thumbnail)) for one in tracklets]


def _mean(tracklet: Tracklet[Described]) -> np.ndarray:
    mean: np.ndarray = np.mean([crop.picture.descriptor for crop in tracklet.crops], axis=0)
    return mean


def _key(one: Watched, tracklet: Tracklet[T]) -> str:
    """Return the key of a tracklet's row: the same whenever a file is watched in the same way."""
    return f"{origin_of(one.view)}/{one.view.camera}/{_name(one, tracklet)}"


def _name(one: Watched, tracklet: Tracklet[T]) -> str:
    first = tracklet.first
    # A stream counts its frames anew each time.
    begin = first.time.isoformat() if one.facts.is_live and first.time is not None else str(first.index)
    return f"{begin}.{tracklet.rank}"


def _entry(one: Watched, tracklet: Tracklet[Described], key: str) -> Entry:
    view, crops, first, last = one.view, tracklet.crops, tracklet.first, tracklet.last
    pictures = [crop.picture.thumbnail for crop in crops]
    chosen = [pictures[index] for index in choose_frames(len(pictures), min(_STRIP, len(pictures)))]
    return Entry(
        key=key,
        descriptor=_mean(tracklet),
        path=f"{origin_of(view)}#t={first.seconds:.3f},{last.seconds:.3f}",
        camid=view.camera,
        time=first.time,
        tracklet=_name(one, tracklet),
        frames=len(crops),
        source=view.name,
        thumbnail=max(crops, key=lambda crop: crop.score).picture.thumbnail,
        until=last.time,
        first_box=first.shares,
        last_box=last.shares,
        strip=tuple(picture for picture in chosen if picture is not None),
        clock_ahead=view.clock_ahead or 0.0,
    )
