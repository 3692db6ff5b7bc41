"""Keeping a gallery: taking rows out for good, gathering files, building indices, making descriptors narrower."""

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
from reprism.gallery.facts import (
    ASKED_AT_ONCE,
    ERASING,
    PROJECTIONS,
    ROWS,
    VECTOR_INDEX,
    Facts,
    GalleryError,
    has_table,
)
from reprism.gallery.filters import moment, one_of
from reprism.gallery.rows import DESCRIPTOR, as_matrix, counts, vectors
from reprism.gallery.search import EXACT_ROWS, PARTITION

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery

_BLOCK = 2**25  # bytes of descriptors at a time when the table is read through
_VERSIONS_KEPT = timedelta(hours=1)  # readers that began within it still find their files
_ALL_KEPT = timedelta(days=36_500)
_INDICES = b"indices"
_FOUR_BITS_FROM = 256  # columns


# ---- taking out ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Erasable:
    """The rows that an erasure would take out.

    Attributes:
        ids: Their ids, in order, each once.
        paths: Their paths, in the same order.
        identities: Rows of each known identity.
        cameras: Rows of each known camera.
        first, last: When the earliest and the latest was taken (UTC); None if no time is known.
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
    gallery: Gallery, ids: Iterable[str] = (), pids: Iterable[str] = (), older_than: datetime | None = None
) -> Erasable:
    """Return what :func:`erase` would take out with the same arguments; changes nothing."""
    columns = pa.schema([gallery._table.schema.field(name) for name in ("id", "path", "pid", "camid", "time")])
    found = [
        gallery._table.search().where(condition).select(columns.names).to_arrow()
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
    gallery: Gallery,
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
    conditions = _conditions(ids, pids, older_than)
    erased = 0
    with gallery.disk.writing():
        for condition in conditions:
            if count := gallery._table.count_rows(condition):
                if not erased:
                    _begin_rewrite(gallery)
                gallery._table.delete(condition)
                erased += count
        gallery.disk.confirm()
        if compact and has_table(gallery._connection, ERASING):
            _compact(gallery)
    return erased


def _conditions(ids: Iterable[str], pids: Iterable[str], older_than: datetime | None) -> list[str]:
    """Return SQL conditions; a row to be erased meets one of them."""
    ids, pids = list(ids), list(pids)
    conditions = [one_of("id", ids[at : at + ASKED_AT_ONCE]) for at in range(0, len(ids), ASKED_AT_ONCE)]
    conditions += [one_of("pid", pids)] if pids else []
    conditions += [] if older_than is None else [f"coalesce(time, added) < {moment(older_than)}"]
    return conditions


def compact(gallery: Gallery) -> None:
    """Rewrite the gallery with nothing but its rows: what was erased is then in no file any more.

    The table is written anew beside the old one, and takes its place in one step; the indices that there were are
    built again. A search that another process began before may fail.
    """
    with gallery.disk.writing():
        _compact(gallery)


def _compact(gallery: Gallery) -> None:
    # LanceDB's own compaction leaves a file alone of which less than a tenth is deleted, and never cleans an index.
    _begin_rewrite(gallery)
    _rewrite(gallery, gallery._facts())
    _end_rewrite(gallery)


def _begin_rewrite(gallery: Gallery) -> None:
    """Note that bytes are to be removed, and which indices there are; whoever finds the note finishes the rewrite.

    The table that is the note stays until the bytes are gone and the indices are there again, however often the process
    is killed meanwhile.
    """
    noted, there = _noted_indices(gallery), {found.name for found in gallery._table.list_indices()}
    if noted is None:  # there is none; or, of a creation that was cut off, one that cannot be read
        gallery._connection.drop_table(ERASING, ignore_missing=True)
    if noted is None or not there <= noted:
        note = json.dumps(sorted(there | (noted or set()))).encode()
        schema = pa.schema([("nothing", pa.null())], metadata={_INDICES: note})
        gallery._connection.create_table(ERASING, schema=schema, mode="create" if noted is None else "overwrite")


def _end_rewrite(gallery: Gallery) -> None:
    """Build the indices that there were when the rewrite began, and remove the note of it."""
    indices = _noted_indices(gallery) or set()
    _index(gallery, vector=VECTOR_INDEX in indices, scalar=bool(indices))
    gallery.disk.confirm()
    gallery._connection.drop_table(ERASING, ignore_missing=True)


def _noted_indices(gallery: Gallery) -> set[str] | None:
    if not has_table(gallery._connection, ERASING):
        return None
    try:
        metadata = gallery._connection.open_table(ERASING).schema.metadata or {}
    except (RuntimeError, ValueError):
        return None
    return set(json.loads(metadata.get(_INDICES, b"[]")))


def _rewrite(gallery: Gallery, facts: Facts, change: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
    """Every row anew, its descriptor changed; then no file is left of what was there before."""
    old = gallery._table.search().select(facts.schema.names).to_batches(_block(gallery))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in old:
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            if change is not None:
                kind = facts.schema.field(DESCRIPTOR).type
                columns[DESCRIPTOR] = vectors(change(as_matrix(columns[DESCRIPTOR])), kind)
            yield pa.RecordBatch.from_arrays([columns[name] for name in facts.schema.names], schema=facts.schema)

    reader = pa.RecordBatchReader.from_batches(facts.schema, batches())
    gallery._table = gallery._connection.create_table(ROWS, data=reader, schema=facts.schema, mode="overwrite")
    _clean(gallery, timedelta(0), sure=True)


def _clean(gallery: Gallery, kept: timedelta, *, sure: bool) -> None:
    """Gather small files and take rows into indices; once that is on the disk, remove versions older than ``kept``."""
    gallery._table.optimize(cleanup_older_than=_ALL_KEPT)
    gallery.disk.confirm()
    with warnings.catch_warnings():
        # Of readers of older versions: said in the docstrings of who calls this.
        warnings.filterwarnings("ignore", message="optimize.cleanup_older_than=0")
        gallery._table.optimize(cleanup_older_than=kept, delete_unverified=sure)


def _block(gallery: Gallery) -> int:
    """Rows at a time, by the memory that their descriptors take."""
    return max(1, _BLOCK // (4 * gallery.dim))


# ---- keeping it fast and small ---------------------------------------------------------------------------


def optimize(gallery: Gallery, *, build: bool = True) -> None:
    """Gather small files, and build or refresh the indices; finish an erasure that was interrupted.

    The index over descriptors is built once there are more than ``reprism.gallery.search.EXACT_ROWS`` rows: below,
    a search reads them all. Rows added since are found without it; the next call takes them in.

    Args:
        build: Whether to build indices that are not there; those that are, are refreshed either way.
    """
    with gallery.disk.writing():
        if has_table(gallery._connection, ERASING):
            _compact(gallery)
        _clean(gallery, _VERSIONS_KEPT, sure=False)
        _index(gallery, vector=build and len(gallery) > EXACT_ROWS, scalar=build)


def _index(gallery: Gallery, *, vector: bool, scalar: bool) -> None:
    """Build the indices that are wanted and not there. (Those that are there LanceDB refreshes when it cleans.)"""
    from lancedb.index import Bitmap, BTree, IvfRq, IvfSq

    there = {found.name for found in gallery._table.list_indices()}
    if not len(gallery):
        return
    if scalar:
        for column, config in (("id", BTree()), ("pid", BTree()), ("time", BTree()), ("camid", Bitmap())):
            if f"{column}_idx" not in there:
                gallery._table.create_index(column, config=config)
    if vector and VECTOR_INDEX not in there:
        # Either is built within a minute for a million rows on two cores (benchmarks/search.py), a graph is not.
        # RaBitQ's 4 bits a column rank strangers well too, whom one bit confuses; of few its error is large.
        wide = gallery.dim % 8 == 0 and gallery.dim >= _FOUR_BITS_FROM
        cells = (
            IvfRq(distance_type="l2", target_partition_size=PARTITION, num_bits=4)
            if wide
            else IvfSq(distance_type="l2", target_partition_size=PARTITION)
        )
        gallery._table.create_index(DESCRIPTOR, config=cells)


def compress(
    gallery: Gallery, dim: int | None = None, projection: Projection | None = None, whitening: float = 0.0
) -> Projection:
    """Make every descriptor narrower: principal components. There is no way back.

    Distances change, so no calibration or threshold made before holds: those are refused, and
    :meth:`Gallery.calibrate` makes new ones.

    Args:
        dim: Columns to keep; the components are those of the gallery's own rows.
        projection: Fitted elsewhere instead (:meth:`Projection.fit`), such as on a training set.
        whitening: With ``dim``: how far to whiten them, 0 … 1 (see :class:`Projection`).

    Returns:
        The projection, which what is added and searched for later passes too.

    Raises:
        GalleryError: the gallery is compressed already, or has too few rows to fit to.
        ValueError: neither or both are given, or the projection is of another width.
    """
    if (dim is None) == (projection is None):
        raise ValueError("give either the columns to keep (dim) or a projection fitted elsewhere")
    with gallery.disk.writing():
        facts = gallery._facts()
        if facts.projection is not None:
            raise GalleryError(f"{gallery.uri} is compressed already, to {facts.dim} columns: index anew for others")
        if dim is not None:
            projection = fit(gallery, dim, whitening)
        assert projection is not None  # noqa: S101 - the check above
        if projection.source_dim != facts.dim:
            raise ValueError(f"the projection is of {projection.source_dim} columns, the gallery of {facts.dim}")
        _begin_rewrite(gallery)
        _store(gallery, projection)
        narrow = replace(facts, dim=projection.dim, projection=projection.digest)
        _rewrite(gallery, narrow, projection.apply)
        _end_rewrite(gallery)
    return projection


def fit(gallery: Gallery, dim: int, whitening: float = 0.0) -> Projection:
    """The first ``dim`` principal components of the gallery's rows (:meth:`Projection.fit`); changes nothing.

    Raises:
        ValueError: there are too few rows for so many.
    """
    return Projection.fit(partial(_blocks, gallery), gallery.dim, dim, whitening)


def _store(gallery: Gallery, projection: Projection) -> None:
    columns = pa.schema([("digest", pa.string()), ("content", pa.binary())])
    table = gallery._connection.create_table(PROJECTIONS, schema=columns, exist_ok=True)
    row = pa.table({"digest": [projection.digest], "content": [projection.to_bytes()]}, schema=columns)
    table.merge_insert("digest").when_not_matched_insert_all().execute(row)


def _blocks(gallery: Gallery) -> Iterator[np.ndarray]:
    for batch in gallery._table.search().select([DESCRIPTOR]).to_batches(_block(gallery)):
        yield as_matrix(batch[DESCRIPTOR])
