"""Rows of the gallery as the service tells of them: their facts, and where their pictures are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from reprism.gallery.rows import Row
from reprism.gallery.table import Gallery

_FACTS = (
    "id", "path", "pid", "camid", "time", "until", "tracklet", "frames", "source", "first_box", "last_box",
)  # fmt: skip


class Pictures(NamedTuple):
    """What can be seen of a row.

    Attributes:
        thumbnail: Whether a small picture was kept.
        strip: Number of small pictures in the order of time.
    """

    thumbnail: bool
    strip: int


def pictures_of(gallery: Gallery, rows: Sequence[Row]) -> dict[str, Pictures]:
    """Return what can be seen of some rows, by id; two queries, however many they are."""
    ids = [row.id for row in rows]
    thumbnails, strips = gallery.with_thumbnail(ids), gallery.strip_lengths(ids)
    return {id_: Pictures(id_ in thumbnails, strips.get(id_, 0)) for id_ in ids}


def facts_of(row: Row, pictures: Pictures) -> dict[str, Any]:
    """Return what an answer says of a row: the fields of :class:`reprism.service.schemas.Image`."""
    address = f"/images/{row.id}"
    return {name: getattr(row, name) for name in _FACTS} | {
        "thumbnail": f"{address}/thumbnail" if pictures.thumbnail else None,
        "strip": [f"{address}/strip/{number}" for number in range(pictures.strip)],
    }
