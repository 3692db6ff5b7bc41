"""The rows of a gallery as sightings that may be linked: where and when, and how they look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from reprism.data.records import Sample
from reprism.evaluation.camera_statistics import CameraStatistics, MadeBy
from reprism.gallery.filters import moment
from reprism.gallery.permission import Linking, LinkingError, require_linking
from reprism.gallery.rows import DESCRIPTOR, Row, as_matrix, rows_of

if TYPE_CHECKING:
    from reprism.gallery.store import Store
    from reprism.gallery.table import Gallery

MOST_ROWS = 100_000
"""Rows that may be linked at once: each is compared with each."""

_PLACED = "camid IS NOT NULL AND time IS NOT NULL"


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a gallery that may be linked.

    Attributes:
        rows: N rows.
        descriptors: N×dim float32, as they are in the gallery.
        made_by: What made them.
    """

    rows: list[Row]
    descriptors: np.ndarray
    made_by: MadeBy

    @property
    def items(self) -> list[Sample]:
        """The rows as images of unknown people; times in seconds since 1970, UTC."""
        return [Sample(Path(row.path), row.id, row.camid, _seconds(row)) for row in self.rows]

    def normalized(self, statistics: CameraStatistics) -> np.ndarray:
        """Return N×dim float32 descriptors of length 1, normalized by camera."""
        return statistics.apply(self.descriptors, [row.camid for row in self.rows])

    def statistics(self) -> CameraStatistics:
        """Return the statistics of their cameras, of these rows alone: what follows from them depends on no others."""
        return CameraStatistics.fit(self.descriptors, [row.camid for row in self.rows], made_by=self.made_by)

    def since(self, time: datetime) -> Rows:
        """Return the rows that were taken at a time or later."""
        chosen = [index for index, row in enumerate(self.rows) if row.time is not None and row.time >= time]
        return Rows([self.rows[index] for index in chosen], self.descriptors[chosen], self.made_by)


@dataclass(frozen=True, eq=False)
class Sightings(Rows):
    """All rows of a gallery that may be linked, in order of their ids.

    Attributes:
        expired: Number of further rows that are older than linking keeps them.
        unplaced: Number of further rows without a camera or a time.
        linking: What linking was switched on for when they were read.
    """

    expired: int
    unplaced: int
    linking: Linking


def read_sightings(gallery: Gallery, now: datetime | None = None) -> Sightings:
    """Read the rows that may be linked: those with a camera and a time that linking keeps.

    Args:
        gallery: The gallery.
        now: Moment from which rows' age counts, with a time zone (default: the present one).

    Raises:
        LinkingError: Linking is off, or there are more than ``MOST_ROWS`` such rows.
    """
    linking, store = require_linking(gallery.store), gallery.store
    placed, kept = store.table.count_rows(_PLACED), _kept(linking, now)
    count = store.table.count_rows(kept)
    if count > MOST_ROWS:
        raise LinkingError(
            f"{gallery.uri} has {count:,} rows with a camera and a time of the last {linking.keep_days} days: expected "
            f"at most {MOST_ROWS:,}, for each is compared with each. Keep them for fewer days: "
            f"reprism link enable {gallery.uri} --purpose … --keep-days …"
        )
    found = _rows(store, store.read([*store.row_columns, DESCRIPTOR], kept))
    return Sightings(**vars(found), expired=placed - count, unplaced=len(gallery) - placed, linking=linking)


def read_some(gallery: Gallery, ids: Sequence[str]) -> Rows:
    """Read rows by their ids; those that are not there are left out. They come in order of their ids."""
    store = gallery.store
    return _rows(store, store.fetch(ids, [*store.row_columns, DESCRIPTOR]).to_batches())


def sightings_in_blocks(gallery: Gallery, now: datetime | None = None) -> Iterator[Rows]:
    """Yield all rows that may be linked, however many, a block at a time.

    Raises:
        LinkingError: Linking is off.
    """
    store = gallery.store
    for batch in store.read([*store.row_columns, DESCRIPTOR], _kept(require_linking(store), now)):
        yield _rows(store, [batch])


def _kept(linking: Linking, now: datetime | None) -> str:
    return f"{_PLACED} AND time >= {moment(linking.cutoff(now))}"


def _rows(store: Store, batches: Iterable[pa.RecordBatch]) -> Rows:
    schema = pa.schema([store.table.schema.field(name) for name in (*store.row_columns, DESCRIPTOR)])
    table = pa.Table.from_batches(list(batches), schema).sort_by("id")
    kind, projection = store.info.kind, store.projection
    made_by = MadeBy(kind.fingerprint, kind.flip, None if projection is None else projection.digest)
    return Rows(rows_of(table), as_matrix(table[DESCRIPTOR]), made_by)


def _seconds(row: Row) -> float:
    assert row.time is not None  # noqa: S101 - none without one is read
    return row.time.timestamp()
