"""A gallery: descriptors of images and tracklets in a Lance table, and all that is done to them but searching.

The table lies in a folder, or in object storage (``s3://…``). It says by which model its descriptors were made, and
takes none of another. What changes it appears whole or not at all, whenever the process ends. On a local disk processes
that write wait for each other; readers never wait, and see what was there when they began. In object storage let one
process write at a time.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reprism.embedding import DescriptorKind, Embedder
from reprism.files import one_at_a_time
from reprism.gallery.compression import Projection
from reprism.gallery.filters import Filter, moment, one_of
from reprism.gallery.rows import (
    DESCRIPTOR,
    ROW_COLUMNS,
    THUMBNAIL,
    Entry,
    Row,
    Storage,
    as_matrix,
    normalised,
    row_id,
    rows_of,
    schema,
    to_arrow,
    vectors,
)
from reprism.gallery.search import EXACT_ROWS, NO_FILTER, PARTITION
from reprism.gallery.search import search as search_rows

if TYPE_CHECKING:
    from lancedb.table import LanceTable


_TABLE, _PROJECTIONS, _ERASING = "rows", "projections", "erasing"
_LOCK = ".writing"
_FACTS = b"reprism"
_FORMAT = 1
_BLOCK = 2**25  # bytes of descriptors at a time when the table is read through
_ASKED_AT_ONCE = 1000  # ids in one condition
_VERSIONS_KEPT = timedelta(hours=1)  # readers that began within it still find their files
_VECTOR_INDEX = f"{DESCRIPTOR}_idx"
_FOUR_BITS_FROM = 256  # columns


class GalleryError(ValueError):
    """There is no such gallery, or it is not one for this; the message names it and the remedy."""


@dataclass(frozen=True)
class _Facts:
    """What is true of every row, kept in the table's own schema: it changes together with them, or not at all."""

    format: int
    kind: DescriptorKind
    storage: Storage
    dim: int
    projection: str | None = None  # the digest of a row of the table of projections
    model: str | None = None

    def metadata(self) -> dict[bytes, bytes]:
        return {_FACTS: json.dumps(asdict(self)).encode()}

    @property
    def schema(self) -> pa.Schema:
        return schema(self.dim, self.storage, self.metadata())


class Gallery:
    """People seen by cameras, searchable by descriptor. Made by :meth:`create` and :meth:`open`."""

    def __init__(self, uri: str, connection: Any, table: LanceTable) -> None:
        self.uri = uri
        self._connection = connection
        self._table = table
        self._projections: dict[str, Projection] = {}

    # ---- opening -----------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        uri: str | PathLike[str],
        made_by: Embedder | DescriptorKind,
        storage: Storage = "float32",
        model: str | PathLike[str] | None = None,
    ) -> Gallery:
        """An empty gallery.

        Args:
            uri: A folder that does not exist or is empty, or an address in object storage that LanceDB knows.
            made_by: The embedder whose descriptors it will hold, or what it says of itself (its ``kind``).
            storage: ``float32``; or ``float16``: half the disk, distances within 0.001. (LanceDB 0.40 searches no
                int8 and no bfloat16 column; its index holds 4 or 8 bits a column either way.)
            model: Where the model's file lies: a note for those who come without it.

        Raises:
            GalleryError: there is a gallery already, or the folder holds something else.
        """
        kind = made_by.kind if isinstance(made_by, Embedder) else made_by
        if storage not in get_args(Storage):
            raise GalleryError(
                f"storage is {storage!r}; a gallery stores {' or '.join(get_args(Storage))} (LanceDB searches no other)"
            )
        if cls.exists(uri):
            raise GalleryError(f"{uri} is a gallery already: open it, or choose another place")
        folder = _local(uri)
        # Of these, an attempt that was killed may have left the beginnings.
        ours = {f"{_TABLE}.lance", _LOCK}
        if (
            folder is not None
            and folder.exists()
            and (not folder.is_dir() or {f.name for f in folder.iterdir()} - ours)
        ):
            raise GalleryError(f"{uri} exists and holds something else: choose a place of the gallery's own")
        connection = _connect(uri)
        note = None if model is None else str(Path(model).absolute())
        facts = _Facts(_FORMAT, kind, storage, kind.dim, model=note)
        try:
            table = connection.create_table(_TABLE, schema=facts.schema)
        except ValueError as error:  # made by another process meanwhile
            raise GalleryError(f"{uri} is a gallery already: open it, or choose another place") from error
        return cls(str(uri), connection, table)

    @classmethod
    def exists(cls, uri: str | PathLike[str]) -> bool:
        """Whether there is a gallery."""
        folder = _local(uri)
        if folder is not None:
            return any((folder / f"{_TABLE}.lance" / "_versions").glob("*.manifest"))
        return _has_table(_connect(uri), _TABLE)

    @classmethod
    def open(cls, uri: str | PathLike[str], embedder: Embedder | DescriptorKind | None = None) -> Gallery:
        """A gallery that exists.

        Args:
            uri: Where it is.
            embedder: What will make descriptors for it. Without it nothing is checked but widths.

        Raises:
            GalleryError: there is none, it is of a newer format, or its descriptors are of another model or of other
                settings; both are named.
        """
        if not cls.exists(uri):
            raise GalleryError(f"no gallery at {uri}: make one with Gallery.create or `reprism index`")
        connection = _connect(uri)
        gallery = cls(str(uri), connection, connection.open_table(_TABLE))
        gallery._facts()
        if embedder is not None:
            gallery.check(embedder)
        return gallery

    def check(self, embedder: Embedder | DescriptorKind) -> None:
        """Refuse an embedder whose descriptors do not compare with those in the gallery.

        Raises:
            GalleryError: they are of another model or of other settings; both are named.
        """
        held, given = self.kind, embedder.kind if isinstance(embedder, Embedder) else embedder
        if held.fingerprint != given.fingerprint:
            raise GalleryError(
                f"the gallery {self.uri} holds descriptors of another model: its fingerprint is "
                f"{held.fingerprint[:12]} ({held.partition}, {held.dim} columns), the given model's "
                f"{given.fingerprint[:12]} ({given.partition}, {given.dim} columns). Their distances mean nothing: "
                "take the gallery's model, or index anew."
            )
        if held != given:
            raise GalleryError(
                f"the gallery {self.uri} was made with flip={held.flip}, the embedder has flip={given.flip}: such "
                "descriptors do not compare. Make the embedder like the gallery, or index anew."
            )

    def _facts(self) -> _Facts:
        metadata = self._table.schema.metadata or {}
        try:
            values = json.loads(metadata[_FACTS])
            if values["format"] > _FORMAT:
                raise GalleryError(
                    f"the gallery {self.uri} has format {values['format']}; this Reprism reads {_FORMAT}: update it"
                )
            return _Facts(**values | {"kind": DescriptorKind(**values["kind"])})
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise GalleryError(f"{self.uri} is a LanceDB database, but not a gallery of Reprism's") from error

    # ---- what it is --------------------------------------------------------------------------------------

    @property
    def kind(self) -> DescriptorKind:
        """What its descriptors were made by."""
        return self._facts().kind

    @property
    def fingerprint(self) -> str:
        """Of the network that made its descriptors."""
        return self.kind.fingerprint

    @property
    def partition(self) -> str:
        """That network's notation."""
        return self.kind.partition

    @property
    def descriptor_dim(self) -> int:
        """Columns of the descriptors that are handed in."""
        return self.kind.dim

    @property
    def flip(self) -> bool:
        """Whether they count the mirrored picture too."""
        return self.kind.flip

    @property
    def model(self) -> Path | None:
        """Where that network's file lay when the gallery was made, if that was noted."""
        note = self._facts().model
        return None if note is None else Path(note)

    @property
    def dim(self) -> int:
        """Columns that are stored: fewer once the gallery is compressed."""
        return self._facts().dim

    @property
    def storage(self) -> Storage:
        """As what they are stored."""
        return self._facts().storage

    @property
    def projection(self) -> Projection | None:
        """What every descriptor passes on its way in or to a search; None unless the gallery is compressed."""
        digest = self._facts().projection
        if digest is None:
            return None
        if digest not in self._projections:
            found = self._connection.open_table(_PROJECTIONS).search().where(one_of("digest", [digest])).to_arrow()
            self._projections[digest] = Projection.from_bytes(found["content"][0].as_py())
        return self._projections[digest]

    def __len__(self) -> int:
        return int(self._table.count_rows())

    def __repr__(self) -> str:
        return f"Gallery({self.uri!r}, {len(self):,} rows)"

    # ---- putting in --------------------------------------------------------------------------------------

    def add(self, entries: Iterable[Entry]) -> int:
        """Put entries in; those whose key is there already are left out. All of them come in, or none.

        The more at a time, the faster: each call is one transaction.

        Returns:
            How many came in.

        Raises:
            ValueError: a descriptor of another width or not finite, or a time without a time zone; nothing came in.
        """
        given: dict[str, Entry] = {}
        for entry in entries:
            given.setdefault(entry.key, entry)
        chosen = list(given.values())
        rows = normalised((entry.descriptor for entry in chosen), self.descriptor_dim, "the descriptor of entry")
        if not chosen:
            return 0
        with self._writing():
            facts, projection = self._facts(), self.projection
            table = to_arrow(chosen, projection.apply(rows) if projection else rows, facts.schema)
            result = self._table.merge_insert("id").when_not_matched_insert_all().execute(table)
        return int(result.num_inserted_rows)

    def keys(self) -> Iterator[str]:
        """Every key, in no particular order."""
        for batch in self._table.search().select(["key"]).to_batches():
            yield from batch["key"].to_pylist()

    def has(self, keys: Iterable[str]) -> set[str]:
        """Those of some keys that are there already."""
        wanted = {row_id(key): key for key in keys}
        return {wanted[row] for row in self._present(list(wanted))}

    def _present(self, ids: Sequence[str]) -> set[str]:
        if len(ids) <= _ASKED_AT_ONCE:
            found = self._fetch(ids, ["id"])
            return set(found["id"].to_pylist())
        asked, present = set(ids), set()
        for batch in self._table.search().select(["id"]).to_batches():
            present.update(asked.intersection(batch["id"].to_pylist()))
        return present

    # ---- looking up --------------------------------------------------------------------------------------

    def get(self, id: str) -> Row:  # noqa: A002 - what it is called in the table
        """A row by its id.

        Raises:
            KeyError: there is none.
        """
        rows = rows_of(self._fetch([id], list(ROW_COLUMNS)))
        if not rows:
            raise KeyError(id)
        return rows[0]

    def thumbnail(self, id: str) -> bytes | None:  # noqa: A002
        """A row's JPEG picture, or None if it has none.

        Raises:
            KeyError: there is no such row.
        """
        found = self._fetch([id], ["id", THUMBNAIL])
        if not len(found):
            raise KeyError(id)
        return found[THUMBNAIL][0].as_py()

    def with_thumbnail(self, ids: Sequence[str]) -> set[str]:
        """Those of some rows that have a picture."""
        if not ids:
            return set()
        condition = f"{one_of('id', ids)} AND {THUMBNAIL} IS NOT NULL"
        return set(self._table.search().where(condition).select(["id"]).to_arrow()["id"].to_pylist())

    def descriptors(self, ids: Sequence[str]) -> np.ndarray:
        """The stored descriptors of some rows, N×dim float32, in the order of ``ids``.

        Raises:
            KeyError: one of them is not there.
        """
        found = self._fetch(ids, ["id", DESCRIPTOR])
        place = {row: number for number, row in enumerate(found["id"].to_pylist())}
        return as_matrix(found[DESCRIPTOR])[[place[row] for row in ids]]

    def rows(self, where: Filter = NO_FILTER, limit: int | None = None) -> list[Row]:
        """The rows that pass a filter, at most ``limit`` of them, in no particular order."""
        query = self._table.search().select(list(ROW_COLUMNS))
        if (condition := where.sql()) is not None:
            query = query.where(condition)
        return rows_of(query.limit(limit).to_arrow() if limit is not None else query.to_arrow())

    def _fetch(self, ids: Sequence[str], columns: list[str]) -> pa.Table:
        tables = [
            self._table.search().where(one_of("id", ids[start : start + _ASKED_AT_ONCE])).select(columns).to_arrow()
            for start in range(0, len(ids), _ASKED_AT_ONCE)
        ]
        names = self._table.schema
        return pa.concat_tables(tables) if tables else pa.schema([names.field(name) for name in columns]).empty_table()

    def stats(self) -> dict[str, Any]:
        """What is in it.

        Returns:
            ``rows``, ``identities`` (known ones), ``cameras`` (camera: rows), ``first`` and ``last`` (times taken, UTC,
            or None), ``bytes`` (on disk; None in object storage), ``index`` (``kind``, ``indexed`` and ``unindexed``
            rows; None without one), ``fingerprint``, ``partition``, ``flip``, ``storage``, ``dim``,
            ``descriptor_dim``, and ``erasing`` (whether an erasure was interrupted before its bytes were gone).
        """
        facts = self._facts()
        columns = self._table.search().select(["pid", "camid", "time"]).to_arrow()
        cameras = columns["camid"].drop_null().value_counts()
        span = pc.min_max(columns["time"])
        folder = _local(self.uri)
        return {
            "rows": len(columns),
            "identities": pc.count_distinct(columns["pid"], mode="only_valid").as_py(),
            "cameras": dict(sorted((pair["values"].as_py(), pair["counts"].as_py()) for pair in cameras)),
            "first": span["min"].as_py(),
            "last": span["max"].as_py(),
            "bytes": None if folder is None else sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
            "index": self.index(),
            "fingerprint": facts.kind.fingerprint,
            "partition": facts.kind.partition,
            "flip": facts.kind.flip,
            "storage": facts.storage,
            "dim": facts.dim,
            "descriptor_dim": facts.kind.dim,
            "erasing": _has_table(self._connection, _ERASING),
        }

    def index(self) -> dict[str, Any] | None:
        """The index over descriptors: ``kind``, ``indexed`` and ``unindexed`` rows; None if there is none."""
        if not self.has_index():
            return None
        found = self._table.index_stats(_VECTOR_INDEX)
        if found is None:
            return None
        return {
            "kind": found.index_type,
            "indexed": found.num_indexed_rows,
            "unindexed": found.num_unindexed_rows,
        }

    def has_index(self) -> bool:
        """Whether there is an index over descriptors."""
        return any(found.name == _VECTOR_INDEX for found in self._table.list_indices())

    # ---- searching ---------------------------------------------------------------------------------------

    search = search_rows

    # ---- taking out --------------------------------------------------------------------------------------

    def erase(
        self,
        ids: Iterable[str] = (),
        pids: Iterable[str] = (),
        older_than: datetime | None = None,
        compact: bool = True,
    ) -> int:
        """Take out the rows with one of these ids, or of one of these identities, or older than a moment.

        Args:
            ids: Of rows.
            pids: Identities.
            older_than: Rows taken before it; those of unknown time by when they came into the gallery.
            compact: Whether to remove their bytes from the disk too, which rewrites the gallery (:meth:`compact`).
                Otherwise the rows can be found no more, but their bytes stay until that is called.

        Returns:
            How many rows went.
        """
        ids, pids = list(ids), list(pids)
        conditions = [one_of("id", ids[at : at + _ASKED_AT_ONCE]) for at in range(0, len(ids), _ASKED_AT_ONCE)]
        conditions += [one_of("pid", pids)] if pids else []
        conditions += [] if older_than is None else [f"coalesce(time, added) < {moment(older_than)}"]
        erased = 0
        with self._writing():
            for condition in conditions:
                if count := self._table.count_rows(condition):
                    # Stays until the bytes are gone, so that an erasure that was interrupted is finished later.
                    self._connection.create_table(_ERASING, schema=pa.schema([("nothing", pa.null())]), exist_ok=True)
                    self._table.delete(condition)
                    erased += count
            if compact and _has_table(self._connection, _ERASING):
                self._compact()
        return erased

    def compact(self) -> None:
        """Rewrite the gallery with nothing but its rows: what was erased is then in no file any more.

        The table is written anew beside the old one, and takes its place in one step; the indices that there were are
        built again. A search that another process began before may fail.
        """
        with self._writing():
            self._compact()

    def _compact(self) -> None:
        # LanceDB's own compaction leaves a file alone of which less than a tenth is deleted, and never cleans an index.
        indexed = [found.name for found in self._table.list_indices()]
        self._rewrite(self._facts())
        self._index(vector=_VECTOR_INDEX in indexed, scalar=bool(indexed))
        self._connection.drop_table(_ERASING, ignore_missing=True)

    def _rewrite(self, facts: _Facts, change: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        """Every row anew, its descriptor changed; then no file is left of what was there before."""
        old = self._table.search().select(facts.schema.names).to_batches(self._block())

        def batches() -> Iterator[pa.RecordBatch]:
            for batch in old:
                columns = dict(zip(batch.schema.names, batch.columns, strict=True))
                if change is not None:
                    kind = facts.schema.field(DESCRIPTOR).type
                    columns[DESCRIPTOR] = vectors(change(as_matrix(columns[DESCRIPTOR])), kind)
                yield pa.RecordBatch.from_arrays([columns[name] for name in facts.schema.names], schema=facts.schema)

        reader = pa.RecordBatchReader.from_batches(facts.schema, batches())
        self._table = self._connection.create_table(_TABLE, data=reader, schema=facts.schema, mode="overwrite")
        self._clean(timedelta(0), sure=True)

    def _clean(self, kept: timedelta, *, sure: bool) -> None:
        with warnings.catch_warnings():
            # Of readers of older versions: said in the docstrings of who calls this.
            warnings.filterwarnings("ignore", message="optimize.cleanup_older_than=0")
            self._table.optimize(cleanup_older_than=kept, delete_unverified=sure)

    def _block(self) -> int:
        """Rows at a time, by the memory that their descriptors take."""
        return max(1, _BLOCK // (4 * self.dim))

    # ---- keeping it fast and small -----------------------------------------------------------------------

    def optimize(self, *, build: bool = True) -> None:
        """Gather small files, and build or refresh the indices; finish an erasure that was interrupted.

        The index over descriptors is built once there are more than ``reprism.gallery.search.EXACT_ROWS`` rows: below,
        a search reads them all. Rows added since are found without it; the next call takes them in.

        Args:
            build: Whether to build indices that are not there; those that are, are refreshed either way.
        """
        with self._writing():
            if _has_table(self._connection, _ERASING):
                self._compact()
            self._clean(_VERSIONS_KEPT, sure=False)
            self._index(vector=build and len(self) > EXACT_ROWS, scalar=build)

    def _index(self, *, vector: bool, scalar: bool) -> None:
        """Build the indices that are wanted and not there. (Those that are there LanceDB refreshes when it cleans.)"""
        from lancedb.index import Bitmap, BTree, IvfRq, IvfSq

        there = {found.name for found in self._table.list_indices()}
        if not len(self):
            return
        if scalar:
            for column, config in (("id", BTree()), ("pid", BTree()), ("time", BTree()), ("camid", Bitmap())):
                if f"{column}_idx" not in there:
                    self._table.create_index(column, config=config)
        if vector and _VECTOR_INDEX not in there:
            # Either is built within a minute for a million rows on two cores (benchmarks/search.py), a graph is not.
            # RaBitQ's 4 bits a column rank strangers well too, whom one bit confuses; of few its error is large.
            wide = self.dim % 8 == 0 and self.dim >= _FOUR_BITS_FROM
            cells = (
                IvfRq(distance_type="l2", target_partition_size=PARTITION, num_bits=4)
                if wide
                else IvfSq(distance_type="l2", target_partition_size=PARTITION)
            )
            self._table.create_index(DESCRIPTOR, config=cells)

    def compress(self, dim: int | None = None, projection: Projection | None = None) -> Projection:
        """Make every descriptor narrower: principal components, whitened. There is no way back.

        Args:
            dim: Columns to keep; the components are those of the gallery's own rows.
            projection: Fitted elsewhere instead (:meth:`Projection.fit`), such as on a training set.

        Returns:
            The projection, which what is added and searched for later passes too.

        Raises:
            GalleryError: the gallery is compressed already, or has too few rows to fit to.
            ValueError: neither or both are given, or the projection is of another width.
        """
        if (dim is None) == (projection is None):
            raise ValueError("give either the columns to keep (dim) or a projection fitted elsewhere")
        with self._writing():
            facts = self._facts()
            if facts.projection is not None:
                raise GalleryError(f"{self.uri} is compressed already, to {facts.dim} columns: index anew for others")
            if dim is not None:
                projection = self.fit(dim)
            assert projection is not None  # noqa: S101 - the check above
            if projection.source_dim != facts.dim:
                raise ValueError(f"the projection is of {projection.source_dim} columns, the gallery of {facts.dim}")
            indexed = [found.name for found in self._table.list_indices()]
            self._store(projection)
            narrow = replace(facts, dim=projection.dim, projection=projection.digest)
            self._rewrite(narrow, projection.apply)
            self._index(vector=_VECTOR_INDEX in indexed, scalar=bool(indexed))
        return projection

    def fit(self, dim: int) -> Projection:
        """The first ``dim`` principal components of the gallery's rows, whitened; changes nothing.

        Raises:
            ValueError: there are too few rows for so many.
        """
        return Projection.fit(self._blocks, self.dim, dim)

    def _store(self, projection: Projection) -> None:
        columns = pa.schema([("digest", pa.string()), ("content", pa.binary())])
        table = self._connection.create_table(_PROJECTIONS, schema=columns, exist_ok=True)
        row = pa.table({"digest": [projection.digest], "content": [projection.to_bytes()]}, schema=columns)
        table.merge_insert("digest").when_not_matched_insert_all().execute(row)

    def _blocks(self) -> Iterator[np.ndarray]:
        for batch in self._table.search().select([DESCRIPTOR]).to_batches(self._block()):
            yield as_matrix(batch[DESCRIPTOR])

    def _writing(self) -> AbstractContextManager[None]:
        folder = _local(self.uri)
        return nullcontext() if folder is None else one_at_a_time(folder / _LOCK)


def _local(uri: str | PathLike[str]) -> Path | None:
    """The folder that a gallery on a local disk lies in; None for object storage."""
    return None if "://" in str(uri) else Path(uri)


def _connect(uri: str | PathLike[str]) -> Any:
    try:
        import lancedb
    except ImportError as error:
        raise GalleryError("galleries need LanceDB. Install it: pip install 'reprism[search]'.") from error
    # Every look at the table is at its newest version, which another process may have written.
    return lancedb.connect(str(uri), read_consistency_interval=timedelta(0))


def _has_table(connection: Any, name: str) -> bool:
    return name in connection.list_tables().tables
