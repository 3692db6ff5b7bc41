"""Settings of a gallery's cameras: how far a clock is ahead, and where in the view nobody is to be found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa

from reprism.gallery.database import CAMERAS, has_table
from reprism.gallery.filters import text
from reprism.gallery.forgetting import forget
from reprism.gallery.store import Store

_COLUMNS = pa.schema(
    [
        pa.field("camid", pa.string(), nullable=False),
        pa.field("clock_ahead", pa.float64(), nullable=False),
        pa.field("ignore", pa.binary()),
    ]
)


@dataclass(frozen=True)
class CameraSettings:
    """Settings of a camera.

    Attributes:
        clock_ahead: Seconds by which its clock is ahead of the true time; negative if it is behind.
        ignore: Picture of its view, as the bytes of a file, white where nobody is to be found; None: nowhere.
    """

    clock_ahead: float = 0.0
    ignore: bytes | None = None


def camera_settings(store: Store) -> dict[str, CameraSettings]:
    """Return the settings by camera; see :meth:`reprism.Gallery.camera_settings`."""
    if not has_table(store.connection, CAMERAS):
        return {}
    rows = store.connection.open_table(CAMERAS).search().to_arrow().to_pylist()
    return {row["camid"]: CameraSettings(row["clock_ahead"], row["ignore"]) for row in rows}


def set_camera(store: Store, camid: str, settings: CameraSettings) -> int:
    """Set a camera's settings, and its rows' times right; see :meth:`reprism.Gallery.set_camera`."""
    ahead = settings.clock_ahead
    if not camid:
        raise ValueError("expected a camera's name, got an empty one")
    if not math.isfinite(ahead):
        raise ValueError(f"clock_ahead={ahead}: expected seconds")
    row = pa.Table.from_pylist([{"camid": camid, "clock_ahead": ahead, "ignore": settings.ignore}], schema=_COLUMNS)
    with store.disk.writing():
        table = store.connection.create_table(CAMERAS, schema=_COLUMNS, exist_ok=True)
        table.merge_insert("camid").when_matched_update_all().when_not_matched_insert_all().execute(row)
        forget(store, ())  # transit times that were learned by another clock
        return _set_clock(store, camid, ahead)


def _set_clock(store: Store, camid: str, ahead: float) -> int:
    """Set the times of a camera's rows right. Each row keeps what it was set right by: doing it again changes none."""
    store.complete()
    of_camera = f"camid = {text(camid)}"
    found = store.table.search().where(of_camera).select(["clock_ahead"]).to_arrow()["clock_ahead"]
    changed = 0
    for before in found.fill_null(0.0).unique().to_pylist():
        if before == ahead:
            continue
        moved = timedelta(seconds=ahead) - timedelta(seconds=before)
        result = store.table.update(
            where=f"{of_camera} AND coalesce(clock_ahead, 0) = {before!r}",
            values_sql={
                "time": _earlier("time", moved),
                "until": _earlier("until", moved),
                "clock_ahead": repr(ahead),
            },
        )
        changed += int(result.rows_updated)
    return changed


def _earlier(column: str, by: timedelta) -> str:
    # Lance knows no intervals.
    microseconds = by // timedelta(microseconds=1)
    return f"arrow_cast(arrow_cast({column}, 'Int64') - ({microseconds}), 'Timestamp(Microsecond, Some(\"UTC\"))')"
