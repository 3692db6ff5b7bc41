"""Rows of the gallery as the service tells of them: their facts, and where their pictures are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reprism.gallery.rows import Row
from reprism.gallery.table import Gallery
from reprism.service.clips import Sighting, find_sighting, is_playable

_FACTS = (
    "id", "path", "pid", "camid", "time", "until", "tracklet", "frames", "source", "first_box", "last_box",
)  # fmt: skip


class Pictures(NamedTuple):
    """What can be seen of a row.

    Attributes:
        thumbnail: Whether a small picture was kept.
        strip: Number of small pictures in the order of time.
        sighting: The seconds of a video that can be played.
    """

    thumbnail: bool
    strip: int
    sighting: Sighting | None


def pictures_of(gallery: Gallery, rows: Sequence[Row], videos: Sequence[Path]) -> dict[str, Pictures]:
    """Return what can be seen of some rows, by id; two queries, however many they are.

    Args:
        gallery: Their gallery.
        rows: The rows.
        videos: Folders, without symbolic links, of the videos that may be shown.
    """
    ids = [row.id for row in rows]
    thumbnails, strips = gallery.with_thumbnail(ids), gallery.strip_lengths(ids)
    return {row.id: Pictures(row.id in thumbnails, strips.get(row.id, 0), _played(row, videos)) for row in rows}


def _played(row: Row, videos: Sequence[Path]) -> Sighting | None:
    sighting = find_sighting(row.path, videos)
    return sighting if sighting is not None and is_playable(sighting.video) else None


def facts_of(row: Row, pictures: Pictures) -> dict[str, Any]:
    """Return what an answer says of a row: the fields of :class:`reprism.service.schemas.Image`."""
    address, sighting = f"/images/{row.id}", pictures.sighting
    return {name: getattr(row, name) for name in _FACTS} | {
        "thumbnail": f"{address}/thumbnail" if pictures.thumbnail else None,
        "strip": [f"{address}/strip/{number}" for number in range(pictures.strip)],
        "clip": None
        if sighting is None
        else {
            "address": f"{address}/clip",
            "first": sighting.first - sighting.begin,
            "last": sighting.last - sighting.begin,
        },
    }
