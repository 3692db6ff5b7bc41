"""Rows of a gallery linked to people: off until it is switched on, kept no longer than was said, forgotten with rows.

Two tables beside the rows: one that is there while linking is on, with its purpose, its retention and what was learned
of the cameras; and the person of each row. Each is replaced whole, in one step, and its older versions are removed.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from reprism.gallery.database import LINKING, PEOPLE, GalleryError, has_table
from reprism.gallery.store import Store

MOST_DAYS = 180
"""Longest retention: the clock of a camera network does not reach further."""

_MOMENT = pa.timestamp("us", tz="UTC")
_LINKING = pa.schema(
    [
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("keep_days", pa.int64(), nullable=False),
        pa.field("since", _MOMENT, nullable=False),
        pa.field("network", pa.string()),
        pa.field("learned", _MOMENT),
        pa.field("oldest", _MOMENT),
    ]
)
_PEOPLE = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("person", pa.int64(), nullable=False),
        pa.field("confidence", pa.float64()),
    ]
)
_NEXT = b"next"  # the lowest number that no person of this gallery had


class LinkingError(GalleryError):
    """Rows may not be linked to people, or changed while they were; the message says what to do."""


@dataclass(frozen=True)
class Linking:
    """The permission to link, its purpose, and what was learned under it.

    Attributes:
        purpose: What it is for, in the words of whoever switched it on.
        keep_days: Rows that were taken longer ago take no part, and are in no person.
        since: When it was switched on, in UTC.
        network: The transit times between cameras, as JSON; None: not learned yet, or rows that they were learned from
            were erased or set right since.
        learned: When the network was learned, in UTC.
        oldest: Time of the earliest row that it was learned from, in UTC.
    """

    purpose: str
    keep_days: int
    since: datetime
    network: str | None = None
    learned: datetime | None = None
    oldest: datetime | None = None

    def cutoff(self, now: datetime | None = None) -> datetime:
        """Return the time before which rows take no part.

        Args:
            now: Moment from which to count back, with a time zone (default: the present one).
        """
        return (now or datetime.now(UTC)) - timedelta(days=self.keep_days)


@dataclass(frozen=True)
class Person:
    """Somebody whom cameras saw: rows that were linked.

    Attributes:
        id: Number that stays the same from run to run, and is never given to somebody else.
        rows: Ids of the rows, in order of time.
        cameras: The cameras, in the order of their first sights.
        first, last: First and last time seen, in UTC.
        confidence: Mean probability of all pairs of rows, 0 … 1; None after one of the rows was erased or became too
            old, until rows are linked again.
    """

    id: int
    rows: tuple[str, ...]
    cameras: tuple[str, ...]
    first: datetime
    last: datetime
    confidence: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it; times in ISO 8601."""
        return asdict(self) | {"first": self.first.isoformat(), "last": self.last.isoformat()}


# ---- on and off ------------------------------------------------------------------------------------------


def linking_of(store: Store) -> Linking | None:
    """Return what linking was switched on for; None while it is off."""
    found = _read(store, LINKING)
    return None if found is None or not len(found) else Linking(**found.to_pylist()[0])


def require_linking(store: Store) -> Linking:
    """Return what linking was switched on for.

    Raises:
        LinkingError: It is off; says how to switch it on.
    """
    found = linking_of(store)
    if found is None:
        raise LinkingError(
            f"linking is off for the gallery {store.uri}: nobody in it is followed from camera to camera until "
            f"somebody says what for, and for how long. Switch it on: reprism link enable {store.uri} --purpose TEXT "
            "--keep-days DAYS"
        )
    return found


def enable_linking(store: Store, purpose: str, keep_days: int) -> Linking:
    """Switch linking on; see :meth:`reprism.Gallery.enable_linking`."""
    purpose = purpose.strip()
    if not purpose:
        raise ValueError("purpose: expected what the linking is for, in words, got nothing")
    if not 1 <= keep_days <= MOST_DAYS:
        raise ValueError(f"keep_days={keep_days}: expected 1 to {MOST_DAYS} days, and no more than the purpose needs")
    with store.disk.writing():
        present = linking_of(store)
        if present is not None and present.purpose != purpose:
            raise LinkingError(
                f"linking is on for the gallery {store.uri} for another purpose, {present.purpose!r}. What was found "
                f"for that may not serve this: switch it off first, which removes the people: reprism link disable "
                f"{store.uri}"
            )
        linking = replace(present or Linking(purpose, keep_days, datetime.now(UTC)), keep_days=keep_days)
        _write(store, linking)
    return linking


def disable_linking(store: Store) -> bool:
    """Switch linking off; see :meth:`reprism.Gallery.disable_linking`."""
    with store.disk.writing():
        was_on = has_table(store.connection, LINKING)
        # People last what they were found for, not a moment longer.
        for name in (PEOPLE, LINKING):
            store.connection.drop_table(name, ignore_missing=True)
    return was_on


# ---- what was learned, and who was found -----------------------------------------------------------------


Sighted = Mapping[str, tuple[str, datetime]]
"""Camera and time of rows, by id: those that something was learned from."""


def keep_network(store: Store, linking: Linking, network: str, learned_from: Sighted) -> None:
    """Keep transit times that were learned from some rows.

    Args:
        store: The gallery's.
        linking: The permission as it was when they were learned.
        network: The transit times as JSON.
        learned_from: The rows.

    Raises:
        LinkingError: Meanwhile linking was switched off, or a row was erased, or its time set right.
    """
    with store.disk.writing():
        present = _unchanged(store, linking)
        there = _sighted(store)
        if changed := sum(there.get(row) != seen for row, seen in learned_from.items()):
            raise LinkingError(
                f"{changed:,} rows of {store.uri} were erased or set right while transit times were learned from them: "
                "nothing was kept. Run the command again"
            )
        oldest = min((time for _, time in learned_from.values()), default=None)
        _write(store, replace(present, network=network, learned=datetime.now(UTC), oldest=oldest))


def keep_people(store: Store, linking: Linking, ids: Sequence[str], labels: np.ndarray, confidence: np.ndarray) -> None:
    """Replace all people by others, in one step.

    Each takes over the number of the earlier person with whom they share most rows; numbers of people who are no more
    are not given again. Rows that were erased meanwhile are left out.

    Args:
        store: The gallery's.
        linking: The permission as it was when they were found.
        ids: N ids of rows.
        labels: N: the number of each row's person among these, from 0 on.
        confidence: P: the confidence in each person.

    Raises:
        LinkingError: Linking was switched off meanwhile.
    """
    with store.disk.writing():
        _unchanged(store, linking)
        there = _sighted(store)
        before = _read(store, PEOPLE)
        earlier = (
            {} if before is None else dict(zip(*(before[name].to_pylist() for name in ("id", "person")), strict=True))
        )
        numbers, following = same_numbers(ids, labels.tolist(), earlier, _following(before))
        lost = {label for row, label in zip(ids, labels.tolist(), strict=True) if row not in there}
        rows = [
            {"id": row, "person": numbers[label], "confidence": None if label in lost else float(confidence[label])}
            for row, label in zip(ids, labels.tolist(), strict=True)
            if row in there
        ]
        _replace(store, PEOPLE, _people_table(rows, following))


def same_numbers(
    ids: Sequence[str], labels: Sequence[int], earlier: Mapping[str, int], following: int
) -> tuple[dict[int, int], int]:
    """Return the number of each label's person, and the lowest number that none ever had.

    Of all labels and earlier people the two that share most rows are matched, again and again; of equal ones the person
    with the lower number, then the lower label.

    Args:
        ids: N ids of rows.
        labels: N: each row's label.
        earlier: Earlier people's numbers, by id of row.
        following: The lowest number that no earlier person had.
    """
    shared = Counter((label, earlier[row]) for row, label in zip(ids, labels, strict=True) if row in earlier)
    numbers: dict[int, int] = {}
    taken: set[int] = set()
    for (label, number), _ in sorted(shared.items(), key=lambda pair: (-pair[1], pair[0][1], pair[0][0])):
        if label not in numbers and number not in taken:
            numbers[label] = number
            taken.add(number)
    for label in dict.fromkeys(labels):
        if label not in numbers:
            numbers[label], following = following, following + 1
    return numbers, following


def people_of(store: Store, now: datetime | None = None) -> list[Person]:
    """Return the people; see :meth:`reprism.Gallery.people`."""
    cutoff = require_linking(store).cutoff(now)
    found = _read(store, PEOPLE)
    if found is None or not len(found):
        return []
    wanted = {"id", "camid", "time", "until"}
    names = [name for name in store.columns if name in wanted]
    rows = {row["id"]: row for row in store.table.search().select(names).to_arrow().to_pylist()}
    seen: dict[int, list[dict[str, Any]]] = defaultdict(list)
    confidence: dict[int, float | None] = {}
    lost: set[int] = set()
    for each in found.to_pylist():
        row = rows.get(each["id"])
        if row is None or row["time"] is None or row["time"] < cutoff:
            lost.add(each["person"])
            continue
        seen[each["person"]].append(row)
        confidence[each["person"]] = each["confidence"]
    return [
        _person(number, seen[number], None if number in lost else confidence[number])
        for number in sorted(seen, key=lambda number: (-len(seen[number]), number))
    ]


def _person(number: int, rows: list[dict[str, Any]], confidence: float | None) -> Person:
    rows = sorted(rows, key=lambda row: (row["time"], row["id"]))
    return Person(
        number,
        tuple(row["id"] for row in rows),
        tuple(dict.fromkeys(row["camid"] for row in rows)),
        rows[0]["time"],
        max(row.get("until") or row["time"] for row in rows),
        confidence,
    )


# ---- forgetting ------------------------------------------------------------------------------------------


def forget(store: Store, gone: Collection[str]) -> None:
    """While writing: take rows out of the people, and remove what was learned of the cameras.

    The transit times hold counts by time, and cannot be told to forget a row: they are learned anew from those left.
    A table that cannot be read is removed: nobody can tell what it holds.
    """
    _drop_unreadable(store)
    found = _read(store, PEOPLE)
    if found is not None and gone:
        rows = found.to_pylist()
        lost = {row["person"] for row in rows if row["id"] in gone}
        if lost:
            left = [
                row | {"confidence": None if row["person"] in lost else row["confidence"]}
                for row in rows
                if row["id"] not in gone
            ]
            _replace(store, PEOPLE, _people_table(left, _following(found)))
    linking = linking_of(store)
    if linking is not None and linking.network is not None:
        _write(store, replace(linking, network=None, learned=None, oldest=None))


def forget_expired(store: Store, now: datetime | None = None) -> int:
    """Take rows out of the people that are older than linking keeps them; remove transit times learned from such ones.

    Args:
        store: The gallery's.
        now: Moment from which to count back, with a time zone (default: the present one).

    Returns:
        Number of rows taken out.

    Raises:
        LinkingError: Linking is off.
    """
    with store.disk.writing():
        linking = require_linking(store)
        cutoff, found = linking.cutoff(now), _read(store, PEOPLE)
        kept = {row for row, (_, time) in _sighted(store).items() if time >= cutoff}
        gone = set() if found is None else set(found["id"].to_pylist()) - kept
        if gone or (linking.oldest is not None and linking.oldest < cutoff):
            forget(store, gone)
    return len(gone)


def remove_old_versions(store: Store) -> None:
    """While writing, after what is there came to the disk: remove what was there before."""
    for name in (LINKING, PEOPLE):
        if _read(store, name) is not None:
            with warnings.catch_warnings():
                # Whoever reads an older version meanwhile may fail, as with an erasure.
                warnings.filterwarnings("ignore", message="optimize.cleanup_older_than=0")
                store.connection.open_table(name).optimize(cleanup_older_than=timedelta(0), delete_unverified=True)


# ---- the two tables --------------------------------------------------------------------------------------


def _unchanged(store: Store, linking: Linking) -> Linking:
    present = require_linking(store)
    if present.since != linking.since:
        raise LinkingError(f"linking was switched off and on for {store.uri} meanwhile: nothing was kept. Run it again")
    return present


def _sighted(store: Store) -> dict[str, tuple[str, datetime]]:
    columns = store.table.search().where("camid IS NOT NULL AND time IS NOT NULL").select(["id", "camid", "time"])
    found = columns.to_arrow()
    return {
        row: (camera, time)
        for row, camera, time in zip(*(found[name].to_pylist() for name in ("id", "camid", "time")), strict=True)
    }


def _following(people: pa.Table | None) -> int:
    return 1 if people is None else int(json.loads((people.schema.metadata or {}).get(_NEXT, b"1")))


def _people_table(rows: list[dict[str, Any]], following: int) -> pa.Table:
    # Beside the rows, so that both change at once.
    return pa.Table.from_pylist(rows, schema=_PEOPLE.with_metadata({_NEXT: str(following).encode()}))


def _read(store: Store, name: str) -> pa.Table | None:
    """Return a table; None if there is none, or one whose creation or removal was cut off."""
    if not has_table(store.connection, name):
        return None
    try:
        table = store.connection.open_table(name)
        return table.search().to_arrow().replace_schema_metadata(table.schema.metadata)
    except (RuntimeError, ValueError, OSError):
        return None


def _drop_unreadable(store: Store) -> None:
    for name in (LINKING, PEOPLE):
        if has_table(store.connection, name) and _read(store, name) is None:
            store.connection.drop_table(name, ignore_missing=True)


def _write(store: Store, linking: Linking) -> None:
    _replace(store, LINKING, pa.Table.from_pylist([asdict(linking)], schema=_LINKING))


def _replace(store: Store, name: str, rows: pa.Table) -> None:
    _drop_unreadable(store)
    mode = "overwrite" if has_table(store.connection, name) else "create"
    store.connection.create_table(name, data=rows, schema=rows.schema, mode=mode)
    store.disk.confirm()
    remove_old_versions(store)
