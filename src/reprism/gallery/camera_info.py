"""Summaries of a gallery by camera: rows, tracklets, rates, gaps, hours of the day, and how pictures look.

The table is read through twice, a batch at a time, without its descriptors: once to count, and once to find the longest
gap between times that lie in no order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reprism.gallery.rows import THUMBNAIL
from reprism.gallery.store import Store
from reprism.progress import Count

_BATCH = 2**16
_BUCKETS = 2**16  # of a camera's times: a gap shorter than one of them may be missed
_UNMERGED = 2**20  # names of tracklets that are collected before equal ones are dropped
_LUMA = np.array([0.299, 0.587, 0.114])  # of ITU-R BT.601
_PICTURE_PIXELS = 2**22
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class CameraInfo:
    """Summary of a gallery's rows of one camera.

    Attributes:
        camid: The camera; None for rows of unknown camera.
        rows: Number of rows.
        tracklets: Number of tracklets among them, or that they belong to.
        timed: Number of rows whose time is known; what follows up to ``hours`` is of these.
        first, last: Earliest and latest time taken, in UTC.
        per_hour: Rows per hour from the first to the last, nights included; None if they are of one moment.
        longest_gap: Start and end of the longest time without a row, in UTC; None of fewer than two rows.
            Of more than 65,536 rows it is found if it is longer than a 65,536th of the time from first to last (eight
            minutes of a year); otherwise it is one about as long.
        hours: Rows in each of the 24 hours of the day.
        pictures: Number of thumbnails that were looked at, drawn at random.
        brightness: Their mean brightness, 0 (black) … 1 (white); None without thumbnails.
        picture_size: Their median height and width in pixels; None without thumbnails.
    """

    camid: str | None
    rows: int
    tracklets: int
    timed: int
    first: datetime | None
    last: datetime | None
    per_hour: float | None
    longest_gap: tuple[datetime, datetime] | None
    hours: tuple[int, ...]
    pictures: int
    brightness: float | None
    picture_size: tuple[int, int] | None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; times in ISO 8601."""
        gap = self.longest_gap
        return asdict(self) | {
            "first": self.first and self.first.isoformat(),
            "last": self.last and self.last.isoformat(),
            "longest_gap": gap and [moment.isoformat() for moment in gap],
            "gap_hours": gap and (gap[1] - gap[0]).total_seconds() / 3600,
        }


@dataclass(eq=False)
class _Tally:
    """Counts of a camera while the table is read. Times are microseconds since 1970."""

    rows: int = 0
    timed: int = 0
    first: int = np.iinfo(np.int64).max
    last: int = np.iinfo(np.int64).min
    hours: np.ndarray = field(default_factory=lambda: np.zeros(24, np.int64))
    tracklets: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    unmerged: list[np.ndarray] = field(default_factory=list)
    drawn: list[tuple[float, str]] = field(default_factory=list)  # a random number and the row's id, ascending

    def merge(self) -> None:
        """Drop equal names of tracklets."""
        self.tracklets = np.unique(np.concatenate([self.tracklets, *self.unmerged]))
        self.unmerged.clear()


def camera_infos(
    store: Store, zone: str = "UTC", *, pictures: int = 64, progress: Count | None = None
) -> list[CameraInfo]:
    """Return what a gallery holds of each camera; see :meth:`reprism.Gallery.cameras`.

    Memory does not grow with the rows, but for 8 bytes a tracklet.
    """
    _check_zone(zone)
    total = len(store)
    tallies: dict[str | None, _Tally] = {}
    rng = np.random.default_rng(0)
    done = 0
    for batch in _read(store, ["id", "camid", "time", "tracklet", "source"]):
        for camid, rows in _by_camera(batch):
            _count(tallies.setdefault(camid, _Tally()), batch.take(pa.array(rows)), zone, rng, pictures)
        done += len(batch)
        if progress:
            progress(min(done, total) // 2, total)
    gaps = _longest_gaps(store, tallies, total, progress)
    looks = _looks(store, tallies)
    order = sorted(tallies, key=lambda camid: (camid is None, camid))
    return [_info(camid, tallies[camid], gaps.get(camid), looks[camid]) for camid in order]


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"expected a time zone, such as UTC or Europe/Berlin, got {zone!r}") from error


def _read(store: Store, columns: list[str]) -> Iterator[pa.RecordBatch]:
    yield from store.table.search().select(columns).to_batches(_BATCH)


def _by_camera(batch: pa.RecordBatch) -> Iterator[tuple[str | None, np.ndarray]]:
    """Yield each camera of a batch with its rows in it, ascending."""
    coded = batch["camid"].dictionary_encode(null_encoding="encode")
    codes = coded.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    names = coded.dictionary.to_pylist()
    edges = np.searchsorted(codes[order], np.arange(1, len(names)))
    yield from zip(names, np.split(order, edges), strict=True)


def _count(tally: _Tally, rows: pa.RecordBatch, zone: str, rng: np.random.Generator, pictures: int) -> None:
    tally.rows += len(rows)
    known = rows["time"].drop_null()
    if len(known):
        times = _microseconds(known)
        tally.timed += len(times)
        tally.first, tally.last = min(tally.first, int(times.min())), max(tally.last, int(times.max()))
        hours = pc.hour(known.cast(pa.timestamp("us", tz=zone))).to_numpy()
        tally.hours += np.bincount(hours, minlength=24)
    named = rows.filter(pc.is_valid(rows["tracklet"]))
    if len(named):
        pairs = zip(named["source"].to_pylist(), named["tracklet"].to_pylist(), strict=True)
        tally.unmerged.append(np.unique(np.fromiter(map(hash, pairs), np.int64, len(named))))
        if sum(map(len, tally.unmerged)) > max(_UNMERGED, len(tally.tracklets)):
            tally.merge()
    numbers = rng.random(len(rows))
    if len(tally.drawn) >= pictures:
        chosen = np.flatnonzero(numbers < tally.drawn[-1][0])
    else:
        chosen = np.argsort(numbers)[:pictures]
    ids = rows["id"].take(pa.array(chosen)).to_pylist()
    tally.drawn = sorted([*tally.drawn, *zip(numbers[chosen].tolist(), ids, strict=True)])[:pictures]


def _microseconds(times: pa.Array) -> np.ndarray:
    return times.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _longest_gaps(
    store: Store, tallies: dict[str | None, _Tally], total: int, progress: Count | None
) -> dict[str | None, tuple[int, int]]:
    """Return the start and end of the longest gap between each camera's times.

    They fall into buckets of equal width. A gap longer than a bucket lies between the last time in one and the first in
    the next that has any; of no more times than buckets the longest is never shorter than one.
    """
    buckets: dict[str | None, tuple[int, np.ndarray, np.ndarray]] = {}
    for camid, tally in tallies.items():
        if tally.timed > 1:
            number, most = min(tally.timed, _BUCKETS), np.iinfo(np.int64)
            width = (tally.last - tally.first) // number + 1
            buckets[camid] = width, np.full(number, most.max), np.full(number, most.min)
    done = 0
    for batch in _read(store, ["camid", "time"]):
        for camid, rows in _by_camera(batch):
            if camid in buckets:
                width, earliest, latest = buckets[camid]
                times = _microseconds(batch["time"].take(pa.array(rows)).drop_null())
                bucket = np.clip((times - tallies[camid].first) // width, 0, len(latest) - 1)
                np.minimum.at(earliest, bucket, times)
                np.maximum.at(latest, bucket, times)
        done += len(batch)
        if progress:
            progress(min((total + done) // 2, total), total)
    return {camid: _widest(earliest, latest) for camid, (_, earliest, latest) in buckets.items()}


def _widest(earliest: np.ndarray, latest: np.ndarray) -> tuple[int, int]:
    filled = latest >= earliest
    if np.count_nonzero(filled) == 1:
        return int(earliest[filled][0]), int(latest[filled][0])
    starts, ends = latest[filled][:-1], earliest[filled][1:]
    widest = int(np.argmax(ends - starts))
    return int(starts[widest]), int(ends[widest])


def _looks(store: Store, tallies: dict[str | None, _Tally]) -> dict[str | None, list[tuple[float, int, int]]]:
    """Return brightness, height and width of the thumbnails that were drawn, by camera."""
    from reprism.data.images import ImageError, decode_image

    looks: dict[str | None, list[tuple[float, int, int]]] = {}
    for camid, tally in tallies.items():
        looks[camid] = []
        for content in store.fetch([row for _, row in tally.drawn], [THUMBNAIL])[THUMBNAIL].drop_null().to_pylist():
            try:
                pixels = decode_image(content, max_pixels=_PICTURE_PIXELS)
            except ImageError:
                continue  # a picture that cannot be shown either
            mean = pixels.numpy().mean(axis=(1, 2)) @ _LUMA / 255
            looks[camid].append((float(mean), pixels.shape[1], pixels.shape[2]))
    return looks


def _info(
    camid: str | None, tally: _Tally, gap: tuple[int, int] | None, looks: list[tuple[float, int, int]]
) -> CameraInfo:
    tally.merge()
    hours = (tally.last - tally.first) / 3.6e9 if tally.timed > 1 else 0
    brightness, heights, widths = zip(*looks, strict=True) if looks else ((), (), ())
    return CameraInfo(
        camid=camid,
        rows=tally.rows,
        tracklets=len(tally.tracklets),
        timed=tally.timed,
        first=_moment(tally.first) if tally.timed else None,
        last=_moment(tally.last) if tally.timed else None,
        per_hour=tally.timed / hours if hours else None,
        longest_gap=None if gap is None else (_moment(gap[0]), _moment(gap[1])),
        hours=tuple(tally.hours.tolist()),
        pictures=len(looks),
        brightness=float(np.mean(brightness)) if looks else None,
        picture_size=(round(np.median(heights)), round(np.median(widths))) if looks else None,
    )


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
