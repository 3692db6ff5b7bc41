"""Rows of a gallery: what it holds of an image or a tracklet, and how that lies in a Lance table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

Storage = Literal["float32", "float16"]

DESCRIPTOR, THUMBNAIL, STRIP = "descriptor", "thumbnail", "strip"
"""The heavy columns, read only when needed."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of the frame's width and height, 0 … 1."""

_MOMENT = pa.timestamp("us", tz="UTC")
_TIMES = ("time", "until")
_NUMBERS = {"float32": pa.float32(), "float16": pa.float16()}


@dataclass(frozen=True, eq=False)
class Entry:
    """An image or a tracklet on its way into a gallery.

    Attributes:
        key: Unique name in the gallery: an image's absolute path; of a tracklet its source, camera and
            name. An entry whose key is there already is left out.
        descriptor: Vector of the model's width; stored with length 1.
        path: Path of the picture; for a tracklet, of its first frame.
        pid: Identity, where known.
        camid: The camera, where known.
        time: When it was taken, where known, with a time zone.
        tracklet: Name of the tracklet, or of the one an image belongs to.
        frames: Number of pictures that the descriptor is made of.
        source: Origin, in the user's words: a site, a video, a batch.
        thumbnail: A small JPEG picture, or none.
        until: Time of a tracklet's last sight, where known, with a time zone.
        first_box, last_box: Boxes in which a tracklet was first and last seen, where known.
        strip: Small JPEG pictures of a tracklet, in the order of time.
        clock_ahead: Seconds by which the camera's clock was ahead, which the times were set right by.
    """

    key: str
    descriptor: np.ndarray
    path: str
    pid: str | None = None
    camid: str | None = None
    time: datetime | None = None
    tracklet: str | None = None
    frames: int = 1
    source: str | None = None
    thumbnail: bytes | None = None
    until: datetime | None = None
    first_box: Box | None = None
    last_box: Box | None = None
    strip: tuple[bytes, ...] = ()
    clock_ahead: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """A stored entry, without its descriptor and pictures.

    Attributes:
        id: 32 hexadecimal digits made from the key: safe in a URL.
        key, path, pid, camid, tracklet, frames, source, first_box, last_box: As in :class:`Entry`.
        time: When it was taken, in UTC; of a tracklet, its first sight.
        until: Time of a tracklet's last sight, in UTC.
        added: When it came into the gallery, in UTC.
    """

    id: str
    key: str
    path: str
    pid: str | None
    camid: str | None
    time: datetime | None
    tracklet: str | None
    frames: int
    source: str | None
    added: datetime
    until: datetime | None = None
    first_box: Box | None = None
    last_box: Box | None = None


_BOX = pa.list_(pa.float32(), 4)
LATER_COLUMNS = (
    pa.field("until", _MOMENT),
    pa.field("first_box", _BOX),
    pa.field("last_box", _BOX),
    pa.field(STRIP, pa.list_(pa.binary())),
    pa.field("clock_ahead", pa.float64()),
)
"""Columns that galleries of older versions lack. All may be null."""

ROW_COLUMNS = tuple(Row.__dataclass_fields__)


def row_id(key: str) -> str:
    """Return the id of the row of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def schema(dim: int, storage: Storage, metadata: Mapping[bytes, bytes]) -> pa.Schema:
    """Return the table's columns, with the gallery's information beside them."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("key", pa.string(), nullable=False),
            pa.field(DESCRIPTOR, pa.list_(_NUMBERS[storage], dim), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("pid", pa.string()),
            pa.field("camid", pa.string()),
            pa.field("time", _MOMENT),
            pa.field("tracklet", pa.string()),
            pa.field("frames", pa.int32(), nullable=False),
            pa.field("source", pa.string()),
            pa.field("added", _MOMENT, nullable=False),
            pa.field(THUMBNAIL, pa.binary()),
            *LATER_COLUMNS,
        ],
        metadata=dict(metadata),
    )


def to_arrow(entries: Sequence[Entry], descriptors: np.ndarray, columns: pa.Schema) -> pa.Table:
    """Entries as a table; ``descriptors`` (N×dim) replace their own."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        name: [getattr(entry, name) for entry in entries]
        for name in columns.names
        if name not in ("id", DESCRIPTOR, "added", *_TIMES)
    }
    values["id"] = [row_id(entry.key) for entry in entries]
    for name in _TIMES:
        moments = [getattr(entry, name) for entry in entries]
        values[name] = [None if moment is None else as_utc(moment) for moment in moments]
    values["added"] = [now] * len(entries)
    arrays = [
        vectors(descriptors, field.type) if field.name == DESCRIPTOR else pa.array(values[field.name], field.type)
        for field in columns
    ]
    return pa.Table.from_arrays(arrays, schema=columns)


def vectors(rows: np.ndarray, kind: pa.FixedSizeListType) -> pa.FixedSizeListArray:
    """N×dim numbers as a column of the table."""
    flat = np.ascontiguousarray(rows, dtype=kind.value_type.to_pandas_dtype()).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind.value_type), kind.list_size)


def as_matrix(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Reverse :func:`vectors`, as float32; without a copy where it is float32 already."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(array), column.type.list_size).astype(np.float32, copy=False)


def rows_of(table: pa.Table) -> list[Row]:
    """Return the rows of an Arrow table that has a row's columns; those of ``LATER_COLUMNS`` may be absent."""
    names = [name for name in ROW_COLUMNS if name in table.column_names]
    return [_row(values) for values in table.select(names).to_pylist()]


def _row(values: dict[str, Any]) -> Row:
    boxes = {name: tuple(values[name]) for name in ("first_box", "last_box") if values.get(name) is not None}
    return Row(**(values | boxes))


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Count the rows of each value of a column, in the order of the values; nulls are not counted."""
    found = column.drop_null().value_counts()
    return dict(sorted((pair["values"].as_py(), pair["counts"].as_py()) for pair in found))


def as_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC.

    Raises:
        ValueError: It has no time zone, so that it might be any of 38 moments.
    """
    if moment.tzinfo is None:
        raise ValueError(f"the time {moment} has no time zone: give one, such as {moment}+00:00")
    return moment.astimezone(UTC)


def normalized(rows: Iterable[np.ndarray] | np.ndarray, dim: int, name: str) -> np.ndarray:
    """Return descriptors as N×dim float32 of length 1.

    Raises:
        ValueError: Another width, values that are not finite, or a row of zeros; names the row.
    """
    given = [np.asarray(row) for row in rows]
    for index, row in enumerate(given):
        if row.shape != (dim,) or row.dtype.kind != "f":
            raise ValueError(
                f"{name} {index} is of shape {row.shape} and type {row.dtype}; the gallery's model makes {dim} "
                "floating-point columns"
            )
    matrix = np.stack(given).astype(np.float32) if given else np.zeros((0, dim), np.float32)
    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise ValueError(f"{name} {bad[0]} is all zeros or has values that are not finite: it has no direction")
    return (matrix / lengths).astype(np.float32)
