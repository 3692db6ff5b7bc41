"""Find what to index: images, and tracklets of several, as files and tables name them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from reprism.data import dukemtmc, market1501
from reprism.data.folders import IMAGE_SUFFIXES, Naming, image_names
from reprism.data.records import DISTRACTOR, JUNK, DataError
from reprism.data.remote import check_schemes, files_below, is_address
from reprism.data.tables import frame_order, read_table, role_of

NamingScheme = Literal["market1501", "dukemtmc"]

_NAMINGS: dict[str, Naming] = {"market1501": market1501.NAMING, "dukemtmc": dukemtmc.NAMING}
_COLUMNS = ("path", "pid", "camid", "role", "time", "tracklet", "frame")


@dataclass(frozen=True)
class IndexItem:
    """One image of a person, or one tracklet: what becomes a row.

    Attributes:
        key: Unique name: an image's absolute path; of a tracklet where it comes from, its camera and its name.
        paths: Its images, in the order of time; at least one.
        pid, camid, time, tracklet, source: As in :class:`reprism.gallery.rows.Entry`.
    """

    key: str
    paths: tuple[str, ...]
    pid: str | None = None
    camid: str | None = None
    time: datetime | None = None
    tracklet: str | None = None
    source: str | None = None


def find_items(
    inputs: Iterable[str | PathLike[str]],
    *,
    naming: NamingScheme | None = None,
    tracks: bool = False,
    source: str | None = None,
) -> list[IndexItem]:
    """Find all images and tracklets that some inputs name. Nothing is decoded, and images need not exist yet.

    Args:
        inputs: Images; folders, which are searched with all that lie in them; and tables (``.csv``, ``.parquet``) with
            a column ``path`` (from the table's folder, or an address) and any of ``pid``, ``camid``, ``role``, ``time``
            (ISO 8601, without a zone it is taken for UTC), ``tracklet`` and ``frame``. Rows of the same camera and
            tracklet are one. Rows with the role ``junk`` are skipped; rows with the role ``distractor`` have an unknown
            identity. Each may be an address such as ``s3://bucket/photos`` (:mod:`reprism.data.remote`), which is a
            folder if it has no suffix of the others.
        naming: Naming scheme of images in folders and of those given by name, if it says who and where: as in
            Market-1501 or DukeMTMC-reID. Junk is passed over, and distractors are of unknown identity.
        tracks: Take each folder that images lie in as one tracklet.
        source: Origin of all of them, in a word; recorded in every row.

    Returns:
        Items in the order of the inputs; one that is named twice, once.

    Raises:
        DataError: An input is not there or holds no image, a table has a row that cannot be right, or a name is not
            of its scheme; names it.
        ValueError: No input, or an unknown naming.
    """
    if naming is not None and naming not in get_args(NamingScheme):
        raise ValueError(f"naming is {naming!r}; known are {', '.join(get_args(NamingScheme))}")
    found: dict[str, IndexItem] = {}
    empty = True
    for given in inputs:
        empty = False
        address = is_address(given)
        path = str(given).rstrip("/") if address else _absolute(str(Path(given).expanduser()))
        suffix = PurePosixPath(path).suffix.lower() if address else Path(path).suffix.lower()
        if not address and Path(path).is_dir():
            some = _of_folder(path, _walk(path), naming, source, tracks=tracks)
        elif suffix in (".csv", ".parquet"):
            some = _of_table(path, source)
        elif suffix in IMAGE_SUFFIXES:
            some = _images(*_split(path), naming, source)
        elif address:
            some = _of_folder(path, _listed(path), naming, source, tracks=tracks)
        else:
            raise DataError(
                f"{path} is no image ({', '.join(IMAGE_SUFFIXES)}), no table (.csv, .parquet) and no folder"
                + _absence(Path(path))
            )
        for item in some:
            found.setdefault(item.key, item)
    if empty:
        raise ValueError("nothing to put in: give images, folders, or CSV or Parquet tables")
    check_schemes(item.paths[0] for item in found.values())
    return list(found.values())


def _absence(path: Path) -> str:
    if path.exists():
        return "."
    return ": it is a link that leads nowhere." if path.is_symlink() else ": there is no such file."


def _absolute(path: str) -> str:
    # Not resolve(): a link is the name that the user gave, and may point elsewhere tomorrow.
    return os.path.abspath(path)  # noqa: PTH100


def _split(path: str) -> tuple[str, list[str]]:
    folder, _, name = path.rpartition("/") if is_address(path) else (str(Path(path).parent), "", Path(path).name)
    return folder, [name]


def _join(folder: str, name: str) -> str:
    if is_address(name):
        return name
    return f"{folder}/{name}" if is_address(folder) else _absolute(str(Path(folder) / name))


def _images(folder: str, names: Iterable[str], naming: str | None, source: str | None) -> list[IndexItem]:
    items = []
    for name in names:
        path = _join(folder, name)
        pid, camid = (None, None) if naming is None else _parse(path, name, naming)
        if pid != str(JUNK):
            items.append(IndexItem(path, (path,), None if pid == str(DISTRACTOR) else pid, camid, source=source))
    return items


def _parse(path: str, name: str, naming: str) -> tuple[str, str]:
    try:
        pid, camid = _NAMINGS[naming].parse(name)
    except DataError as error:
        raise DataError(f"{error} It is {path}. Without a naming, no name is looked into.") from None
    return str(pid), str(camid)


def _walk(root: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder in and below a folder, with the names of its images."""
    for place, folders, _ in os.walk(root):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        yield place, image_names(Path(place))


def _listed(address: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the same of a folder at an address."""
    images = (name for name in files_below(address) if name.lower().endswith(IMAGE_SUFFIXES))
    for folder, names in groupby((name.rpartition("/") for name in images), key=itemgetter(0)):
        yield folder, [name for _, _, name in names]


def _of_folder(
    root: str, walk: Iterable[tuple[str, list[str]]], naming: str | None, source: str | None, *, tracks: bool
) -> list[IndexItem]:
    items: list[IndexItem] = []
    for folder, names in walk:
        images = _images(folder, names, naming, source)
        if tracks and images:
            items.append(_tracklet(folder, images, source))
        else:
            items += images
    if not items:
        raise DataError(f"{root} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    return items


def _tracklet(folder: str, images: Sequence[IndexItem], source: str | None) -> IndexItem:
    for other in images:
        if (other.pid, other.camid) != (images[0].pid, images[0].camid):
            raise DataError(
                f"{other.key} shows another person or camera than {images[0].key}, by their names. A folder that is "
                "a tracklet holds one person in one camera."
            )
    order = frame_order([Path(image.key).name for image in images], folder)
    paths = tuple(images[index].key for index in order)
    return IndexItem(folder, paths, images[0].pid, images[0].camid, tracklet=Path(folder).name, source=source)


def _of_table(table: str, source: str | None) -> list[IndexItem]:
    folder = table.rpartition("/")[0] if is_address(table) else str(Path(table).parent)
    rows, _ = read_table(table, _COLUMNS, ("path",))
    members: dict[tuple[str, str] | str, list[tuple[str, dict[str, str]]]] = {}
    for where, row in rows:
        if "\0" in row["path"]:
            raise DataError(f"{table}, {where}: the path {row['path']!r} holds a null character.")
        role = role_of(row["path"], row["pid"], row["role"], None, f"{table}, {where}")
        if role == "junk":
            continue
        if role == "distractor":
            row["pid"] = ""
        # As it would be given by name: one image has one key.
        row["path"] = _join(folder, row["path"])
        key = (row["camid"], row["tracklet"]) if row["tracklet"] else row["path"]
        members.setdefault(key, []).append((where, row))
    items = []
    for key, group in members.items():
        head = group[0][1]
        for where, row in group:
            if row["pid"] != head["pid"]:
                raise DataError(
                    f"{table}, {where}: the identity {row['pid']!r}, but {head['pid']!r} in {group[0][0]}, of the same "
                    f"{'tracklet' if row['tracklet'] else 'image'}. It is of one person."
                )
        times = [moment for where, row in group if (moment := _time(row["time"], f"{table}, {where}")) is not None]
        is_tracklet = bool(head["tracklet"])
        frames = [row["frame"] if is_tracklet else "" for _, row in group]
        order = frame_order(frames, f"{table}, the tracklet {head['tracklet']}")
        paths = tuple(dict.fromkeys(group[place][1]["path"] for place in order))
        items.append(
            IndexItem(
                key="/".join((source or folder, *key)) if isinstance(key, tuple) else key,
                paths=paths if is_tracklet else paths[:1],
                pid=head["pid"] or None,
                camid=head["camid"] or None,
                time=min(times, default=None),
                tracklet=head["tracklet"] or None,
                source=source,
            )
        )
    return items


def _time(text: str, where: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise DataError(f"{where}: the time {text!r} is not in ISO 8601, such as 2024-05-01T12:30:00+02:00.") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
