"""One's own images and tracklets: a table (CSV or Parquet), or a folder for each identity.

A table has the columns ``path`` (from the table's folder), ``pid``, and, where known, ``camid`` and ``split``
(``train``, ``query`` or ``gallery``). Video adds ``tracklet`` and ``frame``. Identities and cameras are strings,
compared as they are written. A column ``role`` marks what is no person to find: ``junk``, ``distractor``. A column
``time`` says when an image was taken (seconds, or ISO 8601), ``recording`` on which clock.

Without a split, identities are divided at random into training and test identities. Of every test identity, one item of
each camera becomes a query. The division is written down, as a table that can be opened in its turn.
"""

from __future__ import annotations

import csv
import io
import stat
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reprism.data.division import queries_of
from reprism.data.folders import image_names
from reprism.data.records import DataError, Item, Label, ReIDDataset, Sample, Tracklet
from reprism.data.tables import ROLES, frame_order, read_table, role_of, seconds_of
from reprism.files import write_whole

PARTS = ("train", "query", "gallery")
_COLUMNS = ("path", "pid", "camid", "split", "role", "tracklet", "frame", "time", "recording")
_NEEDED = ("path", "pid")


class _Row(NamedTuple):
    """An image as a table has it; ``where`` is its name in errors."""

    where: str
    path: str
    pid: str
    camid: str
    split: str
    role: str
    tracklet: str
    frame: str
    time: str = ""
    recording: str = ""

    @property
    def label(self) -> Label:
        """The identity as a data set has it."""
        return ROLES.get(self.role, self.pid)


def load_table(
    root: str | PathLike[str],
    split_by_identity: float | str | None = None,
    seed: int | str = 0,
    split_file: str | PathLike[str] | None = None,
    market_labels: bool | str | None = None,
) -> ReIDDataset:
    """Read a CSV or Parquet table of images, or of the frames of tracklets.

    Args:
        root: The ``.csv`` (UTF-8, with a header; commas or semicolons) or ``.parquet`` file. Its paths count from its
            folder, unless they are absolute.
        split_by_identity: For a table without a ``split``: the share of the identities, between 0 and 1, to train with.
        seed: Random seed of that division.
        split_file: File for the division (default: beside the table, ``NAME.split-SHARE-SEED.csv``).
        market_labels: Read the identity -1 as junk and 0 as a distractor, as in Market-1501. By default, they do
            where the file's name is of Market-1501's form and says the same. A column ``role`` overrides it.

    Raises:
        DataError: The table cannot be read, lacks a column, or has a row that cannot be right; names the row.
        ValueError: An option is out of range.
    """
    table = Path(root).expanduser().absolute()
    values, columns = read_table(table, _COLUMNS, _NEEDED, filled=("path",))
    rows = _with_roles(table, [_Row(where, **row) for where, row in values], columns, market_labels)
    return _dataset("csv", table, table.parent, rows, columns, split_by_identity, seed, split_file)


def load_folder(
    root: str | PathLike[str],
    split_by_identity: float | str | None = None,
    seed: int | str = 0,
    split_file: str | PathLike[str] | None = None,
    market_labels: bool | str | None = None,
) -> ReIDDataset:
    """Read a folder of images with one folder for each identity: ``ROOT/PID/IMAGE`` or ``ROOT/PID/CAMERA/IMAGE``.

    Args:
        root: The folder. If it holds ``train``, ``query`` and ``gallery``, the identities' folders are looked for in
            these, and nothing is divided.
        split_by_identity: Otherwise: the share of the identities, between 0 and 1, to train with.
        seed: Random seed of that division.
        split_file: File for the division (default: in the folder, ``split-SHARE-SEED.csv``).
        market_labels: As of :func:`load_table`.

    Raises:
        DataError: There is no such folder, or no image where one belongs.
        ValueError: An option is out of range.
    """
    folder = Path(root).expanduser().absolute()
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Give the folder that holds a folder for each identity.")
    divided = all((folder / part).is_dir() for part in PARTS)
    rows = [
        row
        for part in (PARTS if divided else ("",))
        for identity in _folders(folder / part)
        for row in _rows_of_identity(folder, part, identity)
    ]
    if not rows:
        raise DataError(f"{folder} holds no image in a folder of an identity; expected {folder}/PID/IMAGE.")
    columns = {"path", "pid"} | ({"split"} if divided else set()) | ({"camid"} if any(r.camid for r in rows) else set())
    rows = _with_roles(folder, rows, columns, market_labels)
    return _dataset("folder", folder, folder, rows, columns, split_by_identity, seed, split_file)


# ---- reading ---------------------------------------------------------------------------------------------


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _rows_of_identity(root: Path, part: str, identity: Path) -> Iterator[_Row]:
    for camera in (None, *_folders(identity)):
        folder = identity if camera is None else camera
        for name in image_names(folder):
            path = (folder / name).relative_to(root).as_posix()
            yield _Row(path, path, identity.name, "" if camera is None else camera.name, part, "", "", "")


def _with_roles(source: Path, rows: list[_Row], columns: set[str], market_labels: bool | str | None) -> list[_Row]:
    """Return the rows with a role each, and the columns, with the role among them if it is used."""
    options = {None: None, True: True, False: False, "true": True, "false": False}
    if market_labels not in options:
        raise ValueError(f"market_labels={market_labels!r}: expected true or false")
    asked = options[market_labels]
    rows = [
        row._replace(role=role_of(row.path, row.pid, row.role, asked, f"{source}, {row.where}") or "person")
        for row in rows
    ]
    roles = Counter(row.role for row in rows)
    if "role" not in columns and asked is None:
        if roles["junk"] or roles["distractor"]:
            warnings.warn(
                f"{source}: {roles['junk']} images of the identity -1 are junk and {roles['distractor']} of 0 are "
                "distractors, by their names, which are Market-1501's. market_labels=false makes people of them.",
                stacklevel=4,
            )
        elif any(row.pid == "-1" for row in rows):
            warnings.warn(
                f"{source}: the identity -1 is taken for a person. If it means junk, open the data with "
                "market_labels=true, or add a column role.",
                stacklevel=4,
            )
    if asked is not None or roles["person"] < len(rows):
        columns.add("role")
    return rows


# ---- from rows to a data set -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """An image or tracklet with the rows that it was made of."""

    item: Item
    rows: tuple[_Row, ...]

    @property
    def split(self) -> str:
        return self.rows[0].split

    @property
    def is_person(self) -> bool:
        return self.rows[0].role == "person"


def _dataset(
    name: str,
    source: Path,
    folder: Path,
    rows: list[_Row],
    columns: set[str],
    share: float | str | None,
    seed: float | str,
    split_file: str | PathLike[str] | None,
) -> ReIDDataset:
    _check_rows(source, folder, rows, columns)
    entries = _entries(source, folder, rows, columns)
    if "split" in columns:
        if share is not None:
            raise ValueError(f"{source} is divided already; split_by_identity is for data that are not.")
        # Junk and distractors have a place in the gallery alone.
        parts = {
            part: [entry for entry in entries if entry.split == part and (part == "gallery" or entry.is_person)]
            for part in PARTS
        }
        protocol = ""
    else:
        share, seed = _checked_share(source, share, seed)
        parts = _divide(source, entries, share, seed)
        beside = source.with_name(f"{source.stem}.split-{share:g}-{seed}.csv")
        default = folder / f"split-{share:g}-{seed}.csv" if source == folder else beside
        path = default if split_file is None else Path(split_file).expanduser().absolute()
        _write_split(path, folder, parts, columns)
        protocol = f"{share:g} of the identities to train with, divided by seed {seed}, in {path}"
    items = {part: tuple(entry.item for entry in parts[part]) for part in PARTS}
    if both := {item.pid for item in items["train"]} & {item.pid for item in (*items["query"], *items["gallery"])}:
        raise DataError(
            f"{source}: {len(both)} identities are both to train and to test with, such as {min(map(str, both))!r}. "
            "Figures on people seen in training mean nothing: divide by identity."
        )
    return ReIDDataset(name, source, items["train"], items["query"], items["gallery"], protocol=protocol)


def _check_rows(source: Path, folder: Path, rows: list[_Row], columns: set[str]) -> None:
    seen: dict[tuple[int, int], _Row] = {}
    with_camera = next((row for row in rows if row.camid), None)
    for row in rows:
        place = f"{source}, {row.where}"
        if "\0" in row.path:
            raise DataError(f"{place}: the path {row.path!r} holds a null character.")
        if not row.pid and row.role == "person":
            raise DataError(f"{place}: no pid.")
        if "split" in columns and row.split not in PARTS:
            raise DataError(f"{place}: the split {row.split!r} is none of {', '.join(PARTS)}.")
        if "tracklet" in columns and not row.tracklet:
            raise DataError(f"{place}: no tracklet; in a table with that column every image belongs to one.")
        if with_camera is not None and not row.camid:
            raise DataError(
                f"{place}: no camera, but {with_camera.where} has one ({with_camera.camid}). Give all of them or none."
            )
    for row in rows:
        place, path = f"{source}, {row.where}", folder / row.path
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"{place}: the image {path} does not exist.") from error
        except OSError as error:  # a name longer than the file system allows, a folder that may not be entered
            raise DataError(f"{place}: the image {path}: {error.strerror}.") from error
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "no file"
            raise DataError(f"{place}: the image {path} is {what}.")
        # However a path is spelt, and whatever links to it: the file itself.
        other = seen.setdefault((found.st_dev, found.st_ino), row)
        if other is not row:
            known = f", as {other.path}" if other.path != row.path else ""
            raise DataError(f"{place}: the image {row.path} is in {other.where} already{known}.")


def _entries(source: Path, folder: Path, rows: list[_Row], columns: set[str]) -> list[_Entry]:
    times = seconds_of([row.time for row in rows], [f"{source}, {row.where}" for row in rows])
    if "tracklet" not in columns:
        return [
            _Entry(
                Sample(folder / row.path, row.label, row.camid or None, time, sys.intern(row.recording) or None), (row,)
            )
            for row, time in zip(rows, times, strict=True)
        ]
    time_of = dict(zip(rows, times, strict=True))
    groups: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        groups[row.tracklet].append(row)
    entries = []
    for tracklet, members in groups.items():
        head = members[0]
        for row in members:
            for field in ("pid", "camid", "split", "role", "recording"):
                if getattr(row, field) != getattr(head, field):
                    raise DataError(
                        f"{source}, {row.where}: the tracklet {tracklet} has {field} {getattr(row, field)!r} here and "
                        f"{getattr(head, field)!r} in {head.where}. A tracklet is of one person in one camera."
                    )
        order = frame_order([row.frame for row in members], f"{source}, the tracklet {tracklet}")
        ordered = [members[row] for row in order]
        names = tuple(row.path for row in ordered)
        began = min((time for row in members if (time := time_of[row]) is not None), default=None)
        item = Tracklet(folder, names, head.label, head.camid or None, began, sys.intern(head.recording) or None)
        entries.append(_Entry(item, tuple(ordered)))
    return entries


# ---- dividing by identity --------------------------------------------------------------------------------


def _checked_share(source: Path, share: float | str | None, seed: float | str) -> tuple[float, int]:
    if share is None:
        raise DataError(
            f"{source} does not say what is to train with and what to test with. Give it a column split (or folders "
            "train, query and gallery), or let it be divided: split_by_identity=0.5 (--split-by-identity 0.5)."
        )
    try:
        share, seed = float(share), int(seed)
    except ValueError as error:
        raise ValueError(f"split_by_identity={share!r}, seed={seed!r}: expected a number and an integer") from error
    if not 0 < share < 1:
        raise ValueError(f"split_by_identity={share:g}: expected a share of the identities between 0 and 1")
    if seed < 0:
        raise ValueError(f"seed={seed}: it must not be negative")
    return share, seed


def _divide(source: Path, entries: list[_Entry], share: float, seed: int) -> dict[str, list[_Entry]]:
    """Identities at random to one side or the other; of the test side's, one item of each camera to the queries."""
    people = [entry for entry in entries if entry.is_person]
    identities = sorted({entry.item.pid for entry in people}, key=str)
    if len(identities) < 1:
        raise DataError(f"{source} holds junk and distractors alone; dividing by identity needs two people.")
    if len(identities) < 2:
        raise DataError(f"{source} has a single identity ({identities[0]}); dividing by identity needs two.")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(identities))
    cut = min(len(identities) - 1, max(1, round(share * len(identities))))
    train = {identities[row] for row in order[:cut]}
    parts: dict[str, list[_Entry]] = {part: [] for part in PARTS}
    tested: dict[Any, dict[Any, list[_Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in people:
        if entry.item.pid in train:
            parts["train"].append(entry)
        else:
            tested[entry.item.pid][entry.item.camid].append(entry)
    for pid in sorted(tested, key=str):
        queries, rest = queries_of(tested[pid], rng)
        parts["query"] += queries
        parts["gallery"] += rest
    if not parts["query"]:
        raise DataError(
            f"{source}: none of the {len(tested)} identities to test with has a second image"
            f"{' in another camera' if entries[0].item.camid is not None else ''} to be found by. Choose another "
            "share or seed, or give the split yourself."
        )
    parts["gallery"] += [entry for entry in entries if not entry.is_person]
    return parts


def _write_split(path: Path, folder: Path, parts: Mapping[str, list[_Entry]], columns: set[str]) -> None:
    """Write the division as a table of its own; one that is there already must be the same."""
    header = [name for name in _COLUMNS if name in columns or name == "split"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for part in PARTS:
        for entry in parts[part]:
            for row in entry.rows:
                values = row._replace(split=part, path=_as_seen_from(path.parent, folder / row.path))
                writer.writerow([getattr(values, name) for name in header])
    if path.is_file():
        if path.read_text(encoding="utf-8") != text.getvalue():
            raise DataError(
                f"{path} holds another division: the data have changed since it was written. Open it as the data set "
                "csv to go on with it, or remove it to divide anew."
            )
        return
    try:
        write_whole(path, text.getvalue())
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}). Give another file: split_file=FILE.") from error


def _as_seen_from(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
