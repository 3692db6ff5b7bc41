"""The rows of a gallery as sightings that may be linked: where and when, how they look, and what is known of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from reprism.data.records import Sample
from reprism.evaluation.camera_statistics import CameraStatistics, MadeBy
from reprism.gallery.filters import moment
from reprism.gallery.links import Linking, LinkingError, require_linking
from reprism.gallery.rows import DESCRIPTOR, Row, as_matrix, rows_of

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery

MOST_ROWS = 100_000
"""Rows that may be linked: each is compared with each."""

_PLACED = "camid IS NOT NULL AND time IS NOT NULL"


@dataclass(frozen=True, eq=False)
class Sightings:
    """Rows of a gallery that may be linked.

    Attributes:
        rows: The N rows, in order of their ids.
        descriptors: N×dim float32 of length 1, normalized by camera.
        items: The rows as images of unknown people; times in seconds since 1970, UTC.
        expired: Number of further rows that are older than linking keeps them.
        unplaced: Number of further rows without a camera or a time.
        linking: What linking was switched on for when they were read.
        statistics: Mean and deviation of each camera's rows, by which they are normalized; None where there are none.
    """

    rows: list[Row]
    descriptors: np.ndarray
    items: list[Sample]
    expired: int
    unplaced: int
    linking: Linking
    statistics: CameraStatistics | None = None


def read_sightings(gallery: Gallery, now: datetime | None = None) -> Sightings:
    """Read the rows that may be linked: those with a camera and a time that linking keeps.

    Descriptors are normalized by the statistics of these rows alone, so that all that follows from them does not depend
    on rows that are erased, or too old.

    Args:
        gallery: The gallery.
        now: Moment from which rows' age counts, with a time zone (default: the present one).

    Raises:
        LinkingError: Linking is off, or there are more than ``MOST_ROWS`` such rows.
    """
    linking, store = require_linking(gallery.store), gallery.store
    placed, kept = store.table.count_rows(_PLACED), f"{_PLACED} AND time >= {moment(linking.cutoff(now))}"
    count = store.table.count_rows(kept)
    if count > MOST_ROWS:
        raise LinkingError(
            f"{gallery.uri} has {count:,} rows with a camera and a time of the last {linking.keep_days} days: expected "
            f"at most {MOST_ROWS:,}, for each is compared with each. Keep them for fewer days: "
            f"reprism link enable {gallery.uri} --purpose … --keep-days …"
        )
    table = pa.Table.from_batches(
        list(store.read([*store.row_columns, DESCRIPTOR], kept)),
        pa.schema([store.table.schema.field(name) for name in (*store.row_columns, DESCRIPTOR)]),
    ).sort_by("id")
    rows, descriptors = rows_of(table), as_matrix(table[DESCRIPTOR])
    cameras = [row.camid for row in rows]
    statistics = None
    if rows:
        kind, projection = store.info.kind, store.projection
        made_by = MadeBy(kind.fingerprint, kind.flip, None if projection is None else projection.digest)
        statistics = CameraStatistics.fit(descriptors, cameras, made_by=made_by)
        descriptors = statistics.apply(descriptors, cameras)
    items = [Sample(Path(row.path), row.id, row.camid, _seconds(row)) for row in rows]
    return Sightings(rows, descriptors, items, placed - len(rows), len(gallery) - placed, linking, statistics)


def known_pairs(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Return what rows tell of each other without a look at them.

    Rows of one camera and source with one tracklet's name are of one person. Two tracklets of one camera and source
    that were in view at once are of two. (The same walk may be in two sources, such as a video that was read twice.)

    Args:
        rows: N rows with cameras and times.

    Returns:
        K×2 indices of rows that are of one person, enough to join all that are; and L×2 of rows that are of two, one
        for every two such tracklets.
    """
    tracklets: dict[tuple[str | None, str | None, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.tracklet is not None:
            tracklets[row.camid, row.source, row.tracklet].append(index)
    together = [pair for members in tracklets.values() for pair in pairwise(members)]
    spans: dict[tuple[str | None, str | None], list[tuple[datetime, datetime, int]]] = defaultdict(list)
    for (camid, source, _), members in tracklets.items():
        times = [rows[index].time for index in members] + [rows[index].until for index in members]
        known = [time for time in times if time is not None]
        spans[camid, source].append((min(known), max(known), members[0]))
    apart = [pair for view in spans.values() for pair in _overlapping(view)]
    return tuple(np.array(pairs, np.int64).reshape(-1, 2) for pairs in (together, apart))  # type: ignore[return-value]


def _overlapping(spans: list[tuple[datetime, datetime, int]]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of every two spans that share a moment, their ends included."""
    open_spans: list[tuple[datetime, int]] = []
    for first, last, number in sorted(spans):
        open_spans = [(end, other) for end, other in open_spans if end >= first]
        yield from ((other, number) for _, other in open_spans)
        open_spans.append((last, number))


def _seconds(row: Row) -> float:
    assert row.time is not None  # noqa: S101 - none without one is read
    return row.time.timestamp()
