"""Upkeep of a gallery: erase rows for good, gather files, build indices, make descriptors narrower."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reprism.gallery.compression import Projection
from reprism.gallery.database import (
    ASKED_AT_ONCE,
    ERASING,
    LINKING,
    PROJECTIONS,
    ROWS,
    VECTOR_INDEX,
    GalleryError,
    GalleryInfo,
    has_table,
)
from reprism.gallery.filters import moment, one_of
from reprism.gallery.forgetting import forget
from reprism.gallery.link_tables import remove_old_versions
from reprism.gallery.rows import DESCRIPTOR, as_matrix, counts, vectors
from reprism.gallery.search import EXACT_ROWS, PARTITION

if TYPE_CHECKING:
    from reprism.gallery.store import Store

_VERSIONS_KEPT = timedelta(hours=1)  # readers that began within it still find their files
_ALL_KEPT = timedelta(days=36_500)
_INDICES = b"indices"
_FOUR_BITS_FROM = 256  # columns


# ---- taking out ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Erasable:
    """Rows that an erasure would remove.

    Attributes:
        ids: Ids of the rows, in order, each once.
        paths: Paths of the rows, in the same order.
        identities: Number of rows of each known identity.
        cameras: Number of rows of each known camera.
        first, last: Times of the earliest and the latest row (UTC); None if no time is known.
    """

    ids: list[str]
    paths: list[str]
    identities: dict[str, int]
    cameras: dict[str, int]
    first: datetime | None
    last: datetime | None

    def __len__(self) -> int:
        return len(self.ids)


def erasable(
    store: Store, ids: Iterable[str] = (), pids: Iterable[str] = (), older_than: datetime | None = None
) -> Erasable:
    """Return the rows that :func:`erase` would remove with the same arguments; changes nothing."""
    columns = pa.schema([store.table.schema.field(name) for name in ("id", "path", "pid", "camid", "time")])
    found = [
        store.table.search().where(condition).select(columns.names).to_arrow()
        for condition in _conditions(ids, pids, older_than)
    ]
    rows = pa.concat_tables([columns.empty_table(), *found])
    # A row may meet several conditions.
    _, once = np.unique(rows["id"].to_numpy(), return_index=True)
    rows = rows.take(once)
    span = pc.min_max(rows["time"])
    return Erasable(
        rows["id"].to_pylist(),
        rows["path"].to_pylist(),
        counts(rows["pid"]),
        counts(rows["camid"]),
        span["min"].as_py(),
        span["max"].as_py(),
    )


def erase(
    store: Store,
    ids: Iterable[str] = (),
    pids: Iterable[str] = (),
    older_than: datetime | None = None,
    compact: bool = True,
) -> int:
    """Erase rows; see :meth:`reprism.Gallery.erase`."""
    conditions = _conditions(ids, pids, older_than)
    erased = 0
    with store.disk.writing():
        if any(store.table.count_rows(condition) for condition in conditions):
            _begin_rewrite(store)
            # First from the people, so that at no moment these hold a row that is erased.
            forget(store, _ids(store, conditions) if has_table(store.connection, LINKING) else ())
        for condition in conditions:
            if count := store.table.count_rows(condition):
                store.table.delete(condition)
                erased += count
        store.disk.confirm()
        if compact and has_table(store.connection, ERASING):
            _compact(store)
    return erased


def _conditions(ids: Iterable[str], pids: Iterable[str], older_than: datetime | None) -> list[str]:
    """Return SQL conditions; a row to be erased meets one of them."""
    ids, pids = list(ids), list(pids)
    conditions = [one_of("id", ids[at : at + ASKED_AT_ONCE]) for at in range(0, len(ids), ASKED_AT_ONCE)]
    conditions += [one_of("pid", pids)] if pids else []
    conditions += [] if older_than is None else [f"coalesce(time, added) < {moment(older_than)}"]
    return conditions


def _ids(store: Store, conditions: Iterable[str]) -> set[str]:
    found = (store.table.search().where(condition).select(["id"]).to_arrow() for condition in conditions)
    return {row for table in found for row in table["id"].to_pylist()}


def compact(store: Store) -> None:
    """Rewrite the gallery; see :meth:`reprism.Gallery.compact`."""
    with store.disk.writing():
        _compact(store)


def _compact(store: Store) -> None:
    # LanceDB's own compaction leaves a file alone of which less than a tenth is deleted, and never cleans an index.
    _begin_rewrite(store)
    _rewrite(store, store.info)
    remove_old_versions(store)
    _end_rewrite(store)


def _begin_rewrite(store: Store) -> None:
    """Note that bytes are to be removed, and which indices exist; a process that finds the note finishes the rewrite.

    The note is a table. It stays until the bytes are gone and the indices are rebuilt, however often the process is
    killed meanwhile.
    """
    noted, there = _noted_indices(store), {found.name for found in store.table.list_indices()}
    if noted is None:  # there is none; or, of a creation that was cut off, one that cannot be read
        store.connection.drop_table(ERASING, ignore_missing=True)
    if noted is None or not there <= noted:
        note = json.dumps(sorted(there | (noted or set()))).encode()
        schema = pa.schema([("nothing", pa.null())], metadata={_INDICES: note})
        store.connection.create_table(ERASING, schema=schema, mode="create" if noted is None else "overwrite")


def _end_rewrite(store: Store) -> None:
    """Rebuild the indices that existed when the rewrite began, and remove the note."""
    indices = _noted_indices(store) or set()
    _index(store, vector=VECTOR_INDEX in indices, scalar=bool(indices))
    store.disk.confirm()
    store.connection.drop_table(ERASING, ignore_missing=True)


def _noted_indices(store: Store) -> set[str] | None:
    if not has_table(store.connection, ERASING):
        return None
    try:
        metadata = store.connection.open_table(ERASING).schema.metadata or {}
    except (RuntimeError, ValueError):
        return None
    return set(json.loads(metadata.get(_INDICES, b"[]")))


def _rewrite(store: Store, facts: GalleryInfo, change: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
    """Write every row anew, its descriptor changed, and remove all earlier files."""
    store.complete()
    old = store.read(facts.schema.names)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in old:
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            if change is not None:
                kind = facts.schema.field(DESCRIPTOR).type
                columns[DESCRIPTOR] = vectors(change(as_matrix(columns[DESCRIPTOR])), kind)
            yield pa.RecordBatch.from_arrays([columns[name] for name in facts.schema.names], schema=facts.schema)

    reader = pa.RecordBatchReader.from_batches(facts.schema, batches())
    store.table = store.connection.create_table(ROWS, data=reader, schema=facts.schema, mode="overwrite")
    _clean(store, timedelta(0), sure=True)


def _clean(store: Store, kept: timedelta, *, sure: bool) -> None:
    """Gather small files, index new rows and, once that is on the disk, remove versions older than ``kept``."""
    store.table.optimize(cleanup_older_than=_ALL_KEPT)
    store.disk.confirm()
    with warnings.catch_warnings():
        # It warns of readers of older versions, as the docstrings of the callers do.
        warnings.filterwarnings("ignore", message="optimize.cleanup_older_than=0")
        store.table.optimize(cleanup_older_than=kept, delete_unverified=sure)


# ---- keeping it fast and small ---------------------------------------------------------------------------


def optimize(store: Store, *, build: bool = True) -> None:
    """Gather files and build indices; see :meth:`reprism.Gallery.optimize`."""
    with store.disk.writing():
        if has_table(store.connection, ERASING):
            _compact(store)
        _clean(store, _VERSIONS_KEPT, sure=False)
        _index(store, vector=build and len(store) > EXACT_ROWS, scalar=build)


def _index(store: Store, *, vector: bool, scalar: bool) -> None:
    """Build missing indices. (LanceDB refreshes existing ones when it cleans.)"""
    from lancedb.index import Bitmap, BTree, IvfRq, IvfSq

    there = {found.name for found in store.table.list_indices()}
    if not len(store):
        return
    if scalar:
        for column, config in (("id", BTree()), ("pid", BTree()), ("time", BTree()), ("camid", Bitmap())):
            if f"{column}_idx" not in there:
                store.table.create_index(column, config=config)
    if vector and VECTOR_INDEX not in there:
        # Either is built within a minute for a million rows on two cores (benchmarks/search.py), a graph is not.
        # RaBitQ's 4 bits a column rank strangers well too, whom one bit confuses; of few its error is large.
        wide = store.dim % 8 == 0 and store.dim >= _FOUR_BITS_FROM
        cells = (
            IvfRq(distance_type="l2", target_partition_size=PARTITION, num_bits=4)
            if wide
            else IvfSq(distance_type="l2", target_partition_size=PARTITION)
        )
        store.table.create_index(DESCRIPTOR, config=cells)


def compress(
    store: Store, dim: int | None = None, projection: Projection | None = None, whitening: float = 0.0
) -> Projection:
    """Project every descriptor; see :meth:`reprism.Gallery.compress`."""
    if (dim is None) == (projection is None):
        raise ValueError("give either the columns to keep (dim) or a projection fitted elsewhere")
    with store.disk.writing():
        facts = store.info
        if facts.projection is not None:
            raise GalleryError(f"{store.uri} is compressed already, to {facts.dim} columns: index anew for others")
        if dim is not None:
            projection = fit(store, dim, whitening)
        assert projection is not None  # noqa: S101 - the check above
        if projection.source_dim != facts.dim:
            raise ValueError(f"expected a projection of {facts.dim} columns, got one of {projection.source_dim}")
        _begin_rewrite(store)
        _store(store, projection)
        narrow = replace(facts, dim=projection.dim, projection=projection.digest)
        _rewrite(store, narrow, projection.apply)
        _end_rewrite(store)
    return projection


def fit(store: Store, dim: int, whitening: float = 0.0) -> Projection:
    """Fit principal components; see :meth:`reprism.Gallery.fit`."""
    return Projection.fit(partial(_blocks, store), store.dim, dim, whitening)


def _store(store: Store, projection: Projection) -> None:
    columns = pa.schema([("digest", pa.string()), ("content", pa.binary())])
    table = store.connection.create_table(PROJECTIONS, schema=columns, exist_ok=True)
    row = pa.table({"digest": [projection.digest], "content": [projection.to_bytes()]}, schema=columns)
    table.merge_insert("digest").when_not_matched_insert_all().execute(row)


def _blocks(store: Store) -> Iterator[np.ndarray]:
    for batch in store.read([DESCRIPTOR]):
        yield as_matrix(batch[DESCRIPTOR])
