"""Tables of images, CSV or Parquet: rows, order and times of frames, and what is junk or a distractor."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from reprism.data.market1501 import NAMING
from reprism.data.records import DISTRACTOR, JUNK, DataError
from reprism.data.remote import is_address, open_address

ROLES = {"junk": JUNK, "distractor": DISTRACTOR}
"""Values of a column ``role`` beside a person to find, and the identity that each means."""

_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_DIGITS = re.compile(r"(\d+)", re.ASCII)
_MARKET_LABEL = re.compile(r"-1|0+", re.ASCII)


def read_table(
    path: Path | str, known: Sequence[str], needed: Sequence[str], filled: Sequence[str] | None = None
) -> tuple[list[tuple[str, dict[str, str]]], set[str]]:
    """Read the rows of a CSV or Parquet table, and the names of its known columns.

    Args:
        path: The ``.csv`` (UTF-8, with a header; commas or semicolons) or ``.parquet`` file, or its address.
        known: The columns that are read; others are ignored.
        needed: Those of them that must be there.
        filled: Those of them that every row must have a value in (default: ``needed``).

    Returns:
        Rows, each with its line in words and its values by column, empty where there is none; and columns.

    Raises:
        DataError: The table cannot be read, lacks a column, or has a row that cannot be right; names the row.
    """
    content = _content(path)
    records = _parquet_records(path, content) if str(path).endswith(".parquet") else _csv_records(path, content, needed)
    header = next(records)[1]
    columns = [name.strip().lower() for name in header]
    if missing := [name for name in needed if name not in columns]:
        raise DataError(
            f"{path} has no column {' and no column '.join(missing)}; it has {', '.join(header)}. "
            f"Columns are {', '.join(known)}."
        )
    if twice := sorted({name for name in columns if name in known and columns.count(name) > 1}):
        raise DataError(f"{path} has the column {twice[0]} twice.")
    column = {name: columns.index(name) for name in known if name in columns}
    rows = []
    for where, values in records:
        if len(values) != len(columns):
            raise DataError(f"{path}, {where}: {len(values)} fields where the header has {len(columns)}.")
        row = {name: values[column[name]].strip() if name in column else "" for name in known}
        for name in needed if filled is None else filled:
            if not row[name]:
                raise DataError(f"{path}, {where}: no {name}.")
        rows.append((where, row))
    if not rows:
        raise DataError(f"{path} has a header and no row.")
    return rows, set(column)


def _content(path: Path | str) -> bytes:
    if is_address(path):
        try:
            with open_address(str(path)) as file:
                return file.read()
        except OSError as error:
            reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
            raise DataError(f"{path} cannot be read: {reason}.") from error
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder. Give a CSV or Parquet file, or open it as the data set 'folder'.")
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    return path.read_bytes()


def _csv_records(path: Path | str, content: bytes, needed: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the header, then every row that is not empty, each with its line."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 ({error}). Save it as 'CSV UTF-8'.") from error
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if ";" in first and "," not in first else ",")
    try:
        header = next(reader, None)
        if not header:
            raise DataError(f"{path} is empty: expected a header with {' and '.join(needed)}.")
        yield "header", header
        for values in reader:
            if values:
                yield f"line {reader.line_num}", values
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error


def _parquet_records(path: Path | str, content: bytes) -> Iterator[tuple[str, list[str]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{path}: reading Parquet needs pyarrow. Install it: pip install 'reprism[parquet]'."
        ) from error
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as a Parquet file: {error}") from error
    yield "header", list(table.column_names)
    columns = [column.to_pylist() for column in table.columns]
    for number, values in enumerate(zip(*columns, strict=True), 1):
        yield f"row {number}", ["" if value is None else str(value) for value in values]


def frame_order(frames: Sequence[str], name: str) -> list[int]:
    """Return the indices of a tracklet's frames in the order of time; equal frames stay in the order given.

    Numbers (``10``, ``10.5``, ``10,5``, ``1e-3``: counts or seconds) are ordered by value. Names are ordered with every
    run of digits in them by value: ``f9`` before ``f10``. Without any frame, the order is the one given.

    Args:
        frames: The table's entry for each image.
        name: Name of the tracklet in errors.

    Raises:
        DataError: Some have a frame and others none, or some are numbers and others names.
    """
    named = [frame for frame in frames if not _NUMBER.fullmatch(frame)]
    if not any(frames):
        return list(range(len(frames)))
    if not all(frames):
        raise DataError(f"{name}: some images have a frame and others none. Give all of them one, or none.")
    if not named:
        values = [Decimal(frame.replace(",", ".")) for frame in frames]
        return sorted(range(len(frames)), key=values.__getitem__)
    if len(named) < len(frames):
        number = next(frame for frame in frames if _NUMBER.fullmatch(frame))
        raise DataError(
            f"{name}: the frame {number!r} is a number and {named[0]!r} is not. Give numbers to all frames, or names."
        )
    # Split so, text and digits alternate: like is compared with like.
    runs = [[Decimal(run) if n % 2 else run for n, run in enumerate(_DIGITS.split(frame))] for frame in frames]
    return sorted(range(len(frames)), key=runs.__getitem__)


def seconds_of(times: Sequence[str], names: Sequence[str]) -> list[float | None]:
    """Return the times of a table's rows in seconds; None where there is none.

    Numbers (``18.04``, ``18,04``) are seconds already. Moments in ISO 8601 (``2024-05-01T12:30:00+02:00``; without a
    zone they are taken for UTC, as ``reprism index`` takes them) become seconds since 1970.

    Args:
        times: The table's entry for each row, empty where there is none.
        names: Name of each row in errors.

    Raises:
        DataError: A time is of neither form, or some are seconds and others moments.
    """
    seconds: list[float | None] = []
    earlier: dict[bool, str] = {}
    for text, name in zip(times, names, strict=True):
        if not text:
            seconds.append(None)
            continue
        number = bool(_NUMBER.fullmatch(text))
        value = float(text.replace(",", ".")) if number else _moment(text)
        if value is None or not math.isfinite(value):
            raise DataError(
                f"{name}: expected a time in seconds, such as 18.04, or in ISO 8601, such as "
                f"2024-05-01T12:30:00+02:00, got {text!r}. Rename the column if it means something else."
            )
        earlier.setdefault(number, text)
        if len(earlier) > 1:
            raise DataError(
                f"{name}: the time {text!r}, but {earlier[not number]!r} in an earlier row. Give seconds in all rows, "
                "or ISO 8601 in all."
            )
        seconds.append(value)
    return seconds


def _moment(text: str) -> float | None:
    """Return a moment in ISO 8601 as seconds since 1970, or None."""
    try:
        moment = datetime.fromisoformat(text)
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
    except (ValueError, OverflowError):  # a zone may lead out of the years 1 to 9999
        return None


def role_of(path: str, pid: str, role: str, market_labels: bool | None, where: str) -> str:
    """Return whether an image is ``junk``, a ``distractor``, or (the empty text) a person like any other.

    Args:
        path: The image.
        pid: Its identity, as the table has it.
        role: The table's entry: ``junk``, ``distractor``, ``person`` or nothing. Anything but nothing decides.
        market_labels: Read the identity -1 as junk and 0 as a distractor, as in Market-1501. None: where the file's
            name is of Market-1501's form and has that identity too.
        where: Name of the row in errors.

    Raises:
        DataError: There is no such role.
    """
    if role:
        if role not in (*ROLES, "person"):
            raise DataError(
                f"{where}: the role {role!r} is none of person, {', '.join(ROLES)}. Rename the column if it means "
                "something else."
            )
        return "" if role == "person" else role
    if market_labels is False or not _MARKET_LABEL.fullmatch(pid):
        return ""
    if market_labels is None:
        try:
            named, _ = NAMING.parse(Path(path).name)
        except DataError:
            return ""
        if named != int(pid):
            return ""
    return "junk" if int(pid) == JUNK else "distractor"
