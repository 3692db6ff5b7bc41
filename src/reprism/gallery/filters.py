"""Filters of a gallery's rows, as conditions that the table understands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from reprism.gallery.rows import as_utc

FILTERED = ("camid", "time", "pid", "source")
"""Columns that a filter looks at."""


@dataclass(frozen=True)
class Filter:
    """Conditions that a row must meet to be found. All must hold; an empty one always does.

    Attributes:
        cameras: Cameras to search. A row of unknown camera passes only if this is empty.
        not_cameras: Cameras to leave out. A row of unknown camera passes.
        after: Earliest time, with a time zone. A row of unknown time does not pass.
        before: End of the time range, itself excluded. A row of unknown time does not pass.
        pids: Identities to search.
        source: Source to search; None: all.
    """

    cameras: tuple[str, ...] = ()
    not_cameras: tuple[str, ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    pids: tuple[str, ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        for name in ("cameras", "not_cameras", "pids"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name} is the text {getattr(self, name)!r}; expected a tuple of texts")

    def sql(self) -> str | None:
        """Return the condition in SQL, or None if every row passes.

        Raises:
            ValueError: A time without a time zone, or a text that no row can have.
        """
        conditions = []
        if self.cameras:
            conditions.append(one_of("camid", self.cameras))
        if self.not_cameras:
            conditions.append(f"(camid IS NULL OR NOT {one_of('camid', self.not_cameras)})")
        if self.after is not None:
            conditions.append(f"time >= {moment(self.after)}")
        if self.before is not None:
            conditions.append(f"time < {moment(self.before)}")
        if self.pids:
            conditions.append(one_of("pid", self.pids))
        if self.source is not None:
            conditions.append(f"source = {text(self.source)}")
        return " AND ".join(conditions) or None

    def share_of(self, rows: pa.Table) -> float:
        """Return the share of rows that pass, 0 … 1 (of no rows: 0); they have the columns ``FILTERED``."""
        passes = pa.array([True] * len(rows), pa.bool_())
        for wanted, found in (
            (self.cameras, lambda: pc.is_in(rows["camid"], pa.array(self.cameras))),
            (self.not_cameras, lambda: pc.invert(pc.is_in(rows["camid"], pa.array(self.not_cameras)))),
            (self.after, lambda: pc.greater_equal(rows["time"], self.after)),
            (self.before, lambda: pc.less(rows["time"], self.before)),
            (self.pids, lambda: pc.is_in(rows["pid"], pa.array(self.pids))),
            (self.source, lambda: pc.equal(rows["source"], self.source)),
        ):
            if wanted not in ((), None):
                passes = pc.and_(passes, pc.fill_null(found(), False))
        return (pc.sum(passes).as_py() or 0) / max(1, len(rows))


def one_of(column: str, values: Iterable[str]) -> str:
    """Return the condition that a column has one of some values."""
    return f"{column} IN ({', '.join(map(text, values))})"


def text(value: str) -> str:
    """Return a string literal. Values come from users: a quote is the one character that could end the literal.

    Raises:
        ValueError: The value cannot be written in UTF-8, so no row has it.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{value!r} is no text that can be written in UTF-8") from error
    return "'" + value.replace("'", "''") + "'"


def moment(value: datetime) -> str:
    """Return a literal of a moment, to the microsecond."""
    return f"timestamp '{as_utc(value).isoformat(' ', 'microseconds')}'"


NO_FILTER = Filter()
