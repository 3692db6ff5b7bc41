"""The Lance table that a gallery lies in: what it holds, read and locked; searching and upkeep work on it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reprism.files import make_folder
from reprism.gallery.compression import Projection
from reprism.gallery.database import (
    ASKED_AT_ONCE,
    ERASING,
    PROJECTIONS,
    ROWS,
    VECTOR_INDEX,
    GalleryError,
    GalleryInfo,
    connect,
    has_table,
    local,
)
from reprism.gallery.durability import LOCK, Disk, recover
from reprism.gallery.filters import FILTERED, one_of
from reprism.gallery.rows import LATER_COLUMNS, ROW_COLUMNS, Storage, counts

if TYPE_CHECKING:
    from lancedb.table import LanceTable

    from reprism.evaluation.part_scale import PartScale

_BLOCK = 2**25  # bytes of descriptors at a time when the table is read through
_SAMPLED, _SAMPLE_SECONDS = 1_000, 60.0


class Store:
    """A gallery's rows and what is true of all of them.

    Args:
        uri: Folder, or address in object storage.
        connection: LanceDB's connection to it.
        table: The table of rows.

    Attributes:
        uri, connection, table: As given; a rewrite replaces the table.
        disk: Brings changes to the disk, and lets one process write at a time.
        part_scale: Distances of strangers by part, with the version of the table that they are of.
        sighted: Camera and time of rows, by id, with the version of the table that they are of.
    """

    def __init__(self, uri: str, connection: Any, table: LanceTable) -> None:
        self.uri = uri
        self.connection = connection
        self.table = table
        self.disk = Disk(local(uri))
        self.part_scale: tuple[int, PartScale | None] | None = None
        self.sighted: tuple[int, Mapping[str, tuple[str, datetime]]] | None = None
        self._projections: dict[str, Projection] = {}
        self._columns: tuple[str, ...] = ()
        self._sample: tuple[float, pa.Table] | None = None

    @classmethod
    def create(cls, uri: str | PathLike[str], info: GalleryInfo) -> Store:
        """Create an empty one; see :meth:`reprism.Gallery.create`."""
        if cls.exists(uri):
            raise GalleryError(f"{uri} is a gallery already: open it, or choose another folder")
        folder = local(uri)
        # An attempt that was cut off may have left these.
        ours = {f"{ROWS}.lance", LOCK}
        if folder and folder.exists() and (not folder.is_dir() or {f.name for f in folder.iterdir()} - ours):
            raise GalleryError(f"{uri} exists and holds something else: choose a folder for the gallery alone")
        connection = connect(uri)
        if folder is not None:
            make_folder(folder)
        with Disk(folder).writing():
            if folder is not None and not cls.exists(uri):
                shutil.rmtree(folder / f"{ROWS}.lance", ignore_errors=True)
            try:
                table = connection.create_table(ROWS, schema=info.schema)
            except ValueError as error:  # made by another process meanwhile
                raise GalleryError(f"{uri} is a gallery already: open it, or choose another folder") from error
        return cls(str(uri), connection, table)

    @staticmethod
    def exists(uri: str | PathLike[str]) -> bool:
        """Return whether there is one at ``uri``."""
        folder = local(uri)
        if folder is not None:
            # A power cut during creation leaves an empty one.
            manifests = (folder / f"{ROWS}.lance" / "_versions").glob("*.manifest")
            return any(path.stat().st_size for path in manifests)
        return has_table(connect(uri), ROWS)

    @classmethod
    def open(cls, uri: str | PathLike[str]) -> Store:
        """Open the one at ``uri``; see :meth:`reprism.Gallery.open`."""
        if not cls.exists(uri):
            raise GalleryError(f"no gallery at {uri}: make one with Gallery.create or `reprism index`")
        if (folder := local(uri)) is not None:
            recover(folder)
        connection = connect(uri)
        store = cls(str(uri), connection, connection.open_table(ROWS))
        store.info  # noqa: B018 - raises where this is no gallery
        return store

    @property
    def info(self) -> GalleryInfo:
        """Information about all rows."""
        return GalleryInfo.of(self.uri, self.table.schema)

    @property
    def partition(self) -> str:
        """Notation of the network that made the descriptors."""
        return self.info.kind.partition

    @property
    def descriptor_dim(self) -> int:
        """Columns of the descriptors that are handed in."""
        return self.info.kind.dim

    @property
    def dim(self) -> int:
        """Columns that are stored: fewer in a compressed gallery."""
        return self.info.dim

    @property
    def storage(self) -> Storage:
        """Number format of the stored descriptors."""
        return self.info.storage

    @property
    def projection(self) -> Projection | None:
        """The projection of every descriptor; None unless the gallery is compressed."""
        digest = self.info.projection
        if digest is None:
            return None
        if digest not in self._projections:
            found = self.connection.open_table(PROJECTIONS).search().where(one_of("digest", [digest])).to_arrow()
            self._projections[digest] = Projection.from_bytes(found["content"][0].as_py())
        return self._projections[digest]

    @property
    def row_columns(self) -> list[str]:
        """Names of the columns of a row that the table has: one of an older version lacks some."""
        there = set(self.columns)
        return [name for name in ROW_COLUMNS if name in there]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        # None is ever removed: a table that has all is not asked again.
        if not {column.name for column in LATER_COLUMNS} <= set(self._columns):
            self._columns = tuple(self.table.schema.names)
        return self._columns

    def complete(self) -> None:
        """Give the table of an older version the columns that it lacks, null everywhere; no row is rewritten."""
        there = set(self.columns)
        if missing := [column for column in LATER_COLUMNS if column.name not in there]:
            self.table.add_columns(missing)

    def __len__(self) -> int:
        return int(self.table.count_rows())

    def __repr__(self) -> str:
        return f"Store({self.uri!r}, {len(self):,} rows)"

    def has_index(self) -> bool:
        """Return whether there is an index over descriptors."""
        return any(found.name == VECTOR_INDEX for found in self.table.list_indices())

    def index(self) -> dict[str, Any] | None:
        """Return the index over descriptors; see :meth:`reprism.Gallery.index`."""
        if not self.has_index():
            return None
        found = self.table.index_stats(VECTOR_INDEX)
        if found is None:
            return None
        return {
            "kind": found.index_type,
            "indexed": found.num_indexed_rows,
            "unindexed": found.num_unindexed_rows,
        }

    def stats(self) -> dict[str, Any]:
        """Return counts, times and settings; see :meth:`reprism.Gallery.stats`."""
        info = self.info
        columns = self.table.search().select(["pid", "camid", "time"]).to_arrow()
        span = pc.min_max(columns["time"])
        folder = local(self.uri)
        return {
            "rows": len(columns),
            "identities": pc.count_distinct(columns["pid"], mode="only_valid").as_py(),
            "cameras": counts(columns["camid"]),
            "first": span["min"].as_py(),
            "last": span["max"].as_py(),
            "bytes": None if folder is None else sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
            "index": self.index(),
            "fingerprint": info.kind.fingerprint,
            "partition": info.kind.partition,
            "flip": info.kind.flip,
            "storage": info.storage,
            "dim": info.dim,
            "descriptor_dim": info.kind.dim,
            "erasing": has_table(self.connection, ERASING),
        }

    def sample(self) -> pa.Table:
        """Return what filters look at, of up to 1,000 rows taken at random. For estimates: it may be a minute old."""
        now = time.monotonic()
        if self._sample is None or now - self._sample[0] > _SAMPLE_SECONDS:
            # Evenly spaced ones might all be of one camera, where cameras take turns.
            rows = np.unique(np.random.default_rng(0).integers(0, max(1, len(self)), _SAMPLED))
            self._sample = now, self.table.take_offsets(rows.tolist()).select(list(FILTERED)).to_arrow()
        return self._sample[1]

    def fetch(self, ids: Sequence[str], columns: list[str]) -> pa.Table:
        """Return some columns of the rows with these ids, in no particular order; absent rows are left out."""
        tables = [
            self.table.search().where(one_of("id", ids[start : start + ASKED_AT_ONCE])).select(columns).to_arrow()
            for start in range(0, len(ids), ASKED_AT_ONCE)
        ]
        names = self.table.schema
        return pa.concat_tables(tables) if tables else pa.schema([names.field(name) for name in columns]).empty_table()

    def read(self, columns: Sequence[str], condition: str | None = None) -> Iterator[pa.RecordBatch]:
        """Return batches of columns of the rows that meet an SQL condition, about 32 MB of descriptors at a time."""
        query = self.table.search().select(list(columns))
        if condition is not None:
            query = query.where(condition)
        return query.to_batches(max(1, _BLOCK // (4 * self.dim)))
