"""The Lance table that a gallery lies in: what it holds, read and locked; searching and upkeep work on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from reprism.gallery.compression import Projection
from reprism.gallery.database import ASKED_AT_ONCE, PROJECTIONS, VECTOR_INDEX, GalleryInfo, local
from reprism.gallery.durability import Disk
from reprism.gallery.filters import one_of
from reprism.gallery.rows import Storage

if TYPE_CHECKING:
    from lancedb.table import LanceTable

    from reprism.evaluation.part_scale import PartScale

_BLOCK = 2**25  # bytes of descriptors at a time when the table is read through


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
    """

    def __init__(self, uri: str, connection: Any, table: LanceTable) -> None:
        self.uri = uri
        self.connection = connection
        self.table = table
        self.disk = Disk(local(uri))
        self.part_scale: tuple[int, PartScale | None] | None = None
        self._projections: dict[str, Projection] = {}

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

    def __len__(self) -> int:
        return int(self.table.count_rows())

    def __repr__(self) -> str:
        return f"Store({self.uri!r}, {len(self):,} rows)"

    def has_index(self) -> bool:
        """Return whether there is an index over descriptors."""
        return any(found.name == VECTOR_INDEX for found in self.table.list_indices())

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
