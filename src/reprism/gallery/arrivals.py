"""Rows in the order in which they came in, so that whoever has seen some can ask for those after."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from reprism.gallery.filters import moment
from reprism.gallery.rows import Row, rows_of
from reprism.gallery.store import Store

_START = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LATEST = 253_402_300_799_999_999  # the end of the year 9999

MARK = r"([0-9]{1,18})-(-?[0-9]{1,18})-([0-9a-f]{32})?"
"""A :class:`Mark` as text, as a regular expression."""


class Mark(NamedTuple):
    """A place in the order of arrival. Rows that came in together are in the order of their time.

    Attributes:
        added: When the row at it came in, in microseconds since 1970.
        time: When it was taken, likewise; 0 if that is not known.
        id: Its id; empty at the beginning of all.
    """

    added: int
    time: int
    id: str

    def __str__(self) -> str:
        return f"{self.added}-{self.time}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Mark:
        """Reverse ``str``.

        Raises:
            ValueError: The text is no mark.
        """
        found = re.fullmatch(MARK, text)
        if found is None:
            raise ValueError(f"expected a mark as the service writes it, got {text[:80]!r}")
        return cls(min(int(found[1]), _LATEST), int(found[2]), found[3] or "")


def mark_of(row: Row) -> Mark:
    """Return a row's place in the order of arrival."""
    return Mark(_microseconds(row.added), 0 if row.time is None else _microseconds(row.time), row.id)


def newest_mark(store: Store) -> Mark:
    """Return the place of the row that came in last; before all others if there is none."""
    newest = max((pc.max(batch["added"]).as_py() for batch in store.read(["added"]) if len(batch)), default=None)
    return Mark(0, 0, "") if newest is None else max(_marks(store, _microseconds(newest)), default=Mark(0, 0, ""))


def rows_after(store: Store, mark: Mark, most: int) -> tuple[list[Row], int]:
    """Return the rows that came in after a mark, oldest first, and how many were left out.

    Args:
        store: The gallery's.
        mark: The place.
        most: Number of rows, at most: the newest.
    """
    found = sorted(one for one in _marks(store, mark.added) if one > mark)
    left_out = max(0, len(found) - most)
    rows = rows_of(store.fetch([one.id for one in found[left_out:]], store.row_columns))
    return sorted(rows, key=mark_of), left_out


def _marks(store: Store, added: int) -> list[Mark]:
    """Return the places of the rows that came in at a moment or later."""
    condition = f"added >= {moment(_START + added * _MICROSECOND)}"
    marks: list[Mark] = []
    for batch in store.read(["id", "added", "time"], condition):
        times = (pc.fill_null(pc.cast(batch[name], pa.int64()), 0).to_pylist() for name in ("added", "time"))
        marks += map(Mark, *times, batch["id"].to_pylist())
    return marks


def _microseconds(value: datetime) -> int:
    return (value - _START) // _MICROSECOND
