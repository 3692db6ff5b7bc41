"""A gallery's information, and the database that it lies in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa

from reprism.embedding import DescriptorKind
from reprism.gallery.rows import DESCRIPTOR, Storage, schema

ROWS, PROJECTIONS, ERASING, CAMERAS = "rows", "projections", "erasing", "cameras"
LINKING, PEOPLE, ANSWERS, CHANGES, DOUBTS = "linking", "people", "answers", "people_changes", "doubts"
"""The tables: the gallery's own; what its descriptors passed; one that is there while an erasure is unfinished; what
was set for cameras; one that is there while rows may be linked to people; the people that rows were linked to; what
somebody said of them; how they changed; and what is worth asking."""

LINK_TABLES = (DOUBTS, CHANGES, PEOPLE, ANSWERS, LINKING)
"""Those of linking, in the order in which they are removed: the permission last, so that it can be repeated."""

VECTOR_INDEX = f"{DESCRIPTOR}_idx"
"""LanceDB's name of the index over descriptors."""

ASKED_AT_ONCE = 1000
"""Ids in one condition."""

_KEY = b"reprism"
_FORMAT = 2  # 1 had no last sights, boxes and strips of tracklets


class GalleryError(ValueError):
    """There is no such gallery, or it is not one for this; the message names it and the remedy."""


class GalleryBusyError(GalleryError):
    """Another process was writing to the gallery all the time that was to be waited; nothing was changed."""


@dataclass(frozen=True)
class GalleryInfo:
    """Information about all rows, kept in the table's own schema: it changes together with them, or not at all."""

    kind: DescriptorKind
    storage: Storage
    dim: int
    projection: str | None = None  # the digest of a row of the table of projections
    model: str | None = None
    format: int = _FORMAT

    def metadata(self) -> dict[bytes, bytes]:
        """Return the metadata that a schema keeps."""
        return {_KEY: json.dumps(asdict(self)).encode()}

    @property
    def schema(self) -> pa.Schema:
        """The columns of a table of which they are true."""
        return schema(self.dim, self.storage, self.metadata())

    @classmethod
    def of(cls, uri: str, columns: pa.Schema) -> GalleryInfo:
        """Read the information from a table's schema.

        Raises:
            GalleryError: It has none, or those of a newer format.
        """
        try:
            values = json.loads((columns.metadata or {})[_KEY])
            if values["format"] > _FORMAT:
                raise GalleryError(
                    f"the gallery {uri} has format {values['format']}; this Reprism reads {_FORMAT}: update it"
                )
            return cls(**values | {"kind": DescriptorKind(**values["kind"])})
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise GalleryError(f"{uri} is a LanceDB database, but not a gallery of Reprism's") from error


def local(uri: str | PathLike[str]) -> Path | None:
    """Return the folder of a gallery on a local disk; None for object storage."""
    return None if "://" in str(uri) else Path(uri)


def connect(uri: str | PathLike[str]) -> Any:
    """Connect so that changes of other processes are seen.

    Raises:
        GalleryError: LanceDB is not installed.
    """
    try:
        import lancedb
    except ImportError as error:
        raise GalleryError("galleries need LanceDB. Install it: pip install 'reprism[search]'.") from error
    # Every look at the table is at its newest version, which another process may have written.
    return lancedb.connect(str(uri), read_consistency_interval=timedelta(0))


def has_table(connection: Any, name: str) -> bool:
    """Return whether a database has a table."""
    return name in connection.list_tables().tables
