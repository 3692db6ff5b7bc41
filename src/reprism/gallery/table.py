"""A gallery: descriptors of images and tracklets in a Lance table; putting them in and looking them up.

The table lies in a folder, or in object storage (``s3://…``). It says by which model its descriptors were made, and
takes none of another. What changes it appears whole or not at all, whenever the process or the machine stops
(:mod:`reprism.gallery.durability`). On a local disk processes that write wait for each other; readers never wait, and
see what was there when they began. In object storage let one process write at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reprism.embedding import DescriptorKind, Embedder
from reprism.files import make_folder
from reprism.gallery import calibrating, search, upkeep
from reprism.gallery.compression import Projection
from reprism.gallery.durability import LOCK, Disk, recover
from reprism.gallery.facts import (
    ASKED_AT_ONCE,
    ERASING,
    PROJECTIONS,
    ROWS,
    VECTOR_INDEX,
    Facts,
    GalleryError,
    connect,
    has_table,
    local,
)
from reprism.gallery.filters import Filter, one_of
from reprism.gallery.rows import (
    DESCRIPTOR,
    ROW_COLUMNS,
    THUMBNAIL,
    Entry,
    Row,
    Storage,
    as_matrix,
    counts,
    normalised,
    row_id,
    rows_of,
    to_arrow,
)
from reprism.gallery.search import NO_FILTER

if TYPE_CHECKING:
    from lancedb.table import LanceTable

    from reprism.evaluation.part_scale import PartScale

__all__ = ["Gallery", "GalleryError"]


class Gallery:
    """People seen by cameras, searchable by descriptor. Made by :meth:`create` and :meth:`open`."""

    def __init__(self, uri: str, connection: Any, table: LanceTable) -> None:
        self.uri = uri
        self._connection = connection
        self._table = table
        self.disk = Disk(local(uri))
        self._projections: dict[str, Projection] = {}
        self._part_scale: tuple[int, PartScale | None] | None = None  # of a version of the table

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
        folder = local(uri)
        # Of these, an attempt that was cut off may have left the beginnings.
        ours = {f"{ROWS}.lance", LOCK}
        if folder and folder.exists() and (not folder.is_dir() or {f.name for f in folder.iterdir()} - ours):
            raise GalleryError(f"{uri} exists and holds something else: choose a place of the gallery's own")
        connection = connect(uri)
        note = None if model is None else str(Path(model).absolute())
        facts = Facts(kind, storage, kind.dim, model=note)
        if folder is not None:
            make_folder(folder)
        with Disk(folder).writing():
            if folder is not None and not cls.exists(uri):
                shutil.rmtree(folder / f"{ROWS}.lance", ignore_errors=True)
            try:
                table = connection.create_table(ROWS, schema=facts.schema)
            except ValueError as error:  # made by another process meanwhile
                raise GalleryError(f"{uri} is a gallery already: open it, or choose another place") from error
        return cls(str(uri), connection, table)

    @classmethod
    def exists(cls, uri: str | PathLike[str]) -> bool:
        """Whether there is a gallery."""
        folder = local(uri)
        if folder is not None:
            # An empty one is what a power cut leaves of a creation.
            manifests = (folder / f"{ROWS}.lance" / "_versions").glob("*.manifest")
            return any(path.stat().st_size for path in manifests)
        return has_table(connect(uri), ROWS)

    @classmethod
    def open(cls, uri: str | PathLike[str], embedder: Embedder | DescriptorKind | None = None) -> Gallery:
        """Open a gallery that exists.

        If the machine stopped while it was written, the last version that is whole on the disk is opened, and a warning
        says so: all that a call confirmed by returning is in it.

        Args:
            uri: Where it is.
            embedder: What will make descriptors for it. Without it nothing is checked but widths.

        Raises:
            GalleryError: there is none, it is of a newer format, none of its versions can be read, or its descriptors
                are of another model or of other settings; both are named.
        """
        if not cls.exists(uri):
            raise GalleryError(f"no gallery at {uri}: make one with Gallery.create or `reprism index`")
        if (folder := local(uri)) is not None:
            recover(folder)
        connection = connect(uri)
        gallery = cls(str(uri), connection, connection.open_table(ROWS))
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

    def _facts(self) -> Facts:
        return Facts.of(self.uri, self._table.schema)

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
            found = self._connection.open_table(PROJECTIONS).search().where(one_of("digest", [digest])).to_arrow()
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
        with self.disk.writing():
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
        if len(ids) <= ASKED_AT_ONCE:
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
            self._table.search().where(one_of("id", ids[start : start + ASKED_AT_ONCE])).select(columns).to_arrow()
            for start in range(0, len(ids), ASKED_AT_ONCE)
        ]
        names = self._table.schema
        return pa.concat_tables(tables) if tables else pa.schema([names.field(name) for name in columns]).empty_table()

    def stats(self) -> dict[str, Any]:
        """What is in it.

        Returns:
            ``rows``, ``identities`` (known ones), ``cameras`` (camera: rows), ``first`` and ``last`` (times taken, UTC,
            or None), ``bytes`` (on disk; None in object storage), ``index`` (``kind``, ``indexed`` and ``unindexed``
            rows; None without one), ``fingerprint``, ``partition``, ``flip``, ``storage``, ``dim``,
            ``descriptor_dim``, and ``erasing`` (whether an erasure or another rewrite was interrupted before the bytes
            that it removes were gone).
        """
        facts = self._facts()
        columns = self._table.search().select(["pid", "camid", "time"]).to_arrow()
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
            "fingerprint": facts.kind.fingerprint,
            "partition": facts.kind.partition,
            "flip": facts.kind.flip,
            "storage": facts.storage,
            "dim": facts.dim,
            "descriptor_dim": facts.kind.dim,
            "erasing": has_table(self._connection, ERASING),
        }

    def index(self) -> dict[str, Any] | None:
        """The index over descriptors: ``kind``, ``indexed`` and ``unindexed`` rows; None if there is none."""
        if not self.has_index():
            return None
        found = self._table.index_stats(VECTOR_INDEX)
        if found is None:
            return None
        return {
            "kind": found.index_type,
            "indexed": found.num_indexed_rows,
            "unindexed": found.num_unindexed_rows,
        }

    def has_index(self) -> bool:
        """Whether there is an index over descriptors."""
        return any(found.name == VECTOR_INDEX for found in self._table.list_indices())

    # ---- searching, taking out, keeping it fast and small ------------------------------------------------

    search = search.search
    calibrate = calibrating.calibrate_gallery
    check_calibration = calibrating.check_calibration
    erasable = upkeep.erasable
    erase = upkeep.erase
    compact = upkeep.compact
    optimize = upkeep.optimize
    compress = upkeep.compress
    fit = upkeep.fit
