"""The people of a gallery as labels: a table of rows and persons, which the data set ``csv`` reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from reprism.data.remote import is_address
from reprism.files import whole_folder, write_whole
from reprism.gallery.rows import THUMBNAIL, rows_of
from reprism.progress import Progress, step

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery

COLUMNS = ("path", "pid", "camid", "time", "until", "track", "confidence", "answered", "id")
"""Columns of a table of labels. A column ``tracklet`` would make the data set join rows to tracklets by their names,
which two cameras may share."""

_AT_ONCE = 256  # pictures in memory


@dataclass(frozen=True)
class Labels:
    """What a table of labels holds.

    Attributes:
        rows, people: Number of its rows, and of their people.
        answered: Number of rows of which somebody said that they are of one person with others, or not.
        without_file: Number of rows whose ``path`` is no file, such as a place in a video, and which no data set reads;
            with ``pictures`` of rows that were left out.
    """

    rows: int
    people: int
    answered: int
    without_file: int


def write_labels(
    gallery: Gallery,
    path: str | PathLike[str],
    *,
    pictures: str | PathLike[str] | None = None,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Labels:
    """Write the rows of all people as CSV, a person's rows one after the other in order of time.

    Columns: ``path`` of the picture, as in the gallery; ``pid``, the person's number; ``camid``; ``time`` and ``until``
    in ISO 8601; ``track``, the tracklet's name; ``confidence`` in the person, 0 … 1, empty where it is not known;
    ``answered``, ``yes`` where somebody said of the row that it is of one person with others, or not; and ``id`` of the
    row. ``reprism.open_dataset("csv", path, split_by_identity=0.5)`` reads it.

    Nothing erases from it what is erased from the gallery.

    Args:
        gallery: The gallery.
        path: CSV file to write; it appears whole.
        pictures: Folder to write the small pictures that the gallery keeps to, one for each row, which is then what
            ``path`` names; absent or empty. For rows of videos, which have no picture elsewhere. A row without one
            keeps its ``path`` if that is a file, and is left out otherwise.
        now: Moment from which rows' age counts, with a time zone (default: the present one).
        progress: Called as ``progress(what, done, total)``.

    Raises:
        LinkingError: Linking is off.
        FileExistsError: ``pictures`` is not an empty folder.
    """
    people = gallery.people(now)
    person = {row: each for each in sorted(people, key=lambda each: each.id) for row in each.rows}
    told = [each for each in gallery.link_answers(now) if each.kind != "unsure"]
    answered = {row for each in told for row in (*each.one, *each.other)}
    there = {row.id: row for row in rows_of(gallery.store.fetch([*person], gallery.store.row_columns))}
    kept = {} if pictures is None else _write_pictures(gallery, [*person], Path(pictures), progress)
    beside = Path(path).absolute().parent
    lines, without_file = [], 0
    for id_, each in person.items():
        if id_ not in there:  # erased meanwhile
            continue
        row, file = there[id_], kept.get(id_, there[id_].path)
        if is_address(file) or not Path(file).is_file():
            without_file += 1
            if pictures is not None:
                continue
        lines.append({
            "path": _as_seen_from(beside, file),
            "pid": str(each.id),
            "camid": row.camid,
            "time": "" if row.time is None else row.time.isoformat(),
            "until": "" if row.until is None else row.until.isoformat(),
            "track": row.tracklet or "",
            "confidence": "" if each.confidence is None else f"{each.confidence:.4f}",
            "answered": "yes" if id_ in answered else "no",
            "id": id_,
        })  # fmt: skip
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(path, text.getvalue())
    return Labels(
        len(lines),
        len({line["pid"] for line in lines}),
        sum(line["answered"] == "yes" for line in lines),
        without_file,
    )


def _as_seen_from(folder: Path, path: str) -> str:
    """Return a path relative to a folder if it lies in it, so that both can be moved together."""
    if is_address(path) or not Path(path).is_relative_to(folder):
        return path
    return Path(path).relative_to(folder).as_posix()


def _write_pictures(gallery: Gallery, ids: Sequence[str], folder: Path, progress: Progress | None) -> dict[str, str]:
    """Write the rows' small pictures to a folder; return the paths by id, without rows that have none."""
    folder, count = folder.absolute(), step(progress, "writing pictures")
    found = {}
    with whole_folder(folder) as aside:
        for start in range(0, len(ids), _AT_ONCE):
            some = gallery.store.fetch(ids[start : start + _AT_ONCE], ["id", THUMBNAIL])
            for id_, picture in zip(some["id"].to_pylist(), some[THUMBNAIL].to_pylist(), strict=True):
                if picture is not None:
                    (aside / f"{id_}.jpg").write_bytes(picture)
                    found[id_] = str(folder / f"{id_}.jpg")
            if count is not None:
                count(min(start + _AT_ONCE, len(ids)), len(ids))
    return found
