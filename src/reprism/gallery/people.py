"""The people whom rows of a gallery were linked to, and how they changed from one time to the next."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from reprism.gallery.database import CHANGES, PEOPLE
from reprism.gallery.link_tables import MOMENT, read_table, replace_table
from reprism.gallery.permission import Linking, LinkingError, require_linking, sighted, unchanged
from reprism.gallery.store import Store

_PEOPLE = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("person", pa.int64(), nullable=False),
        pa.field("confidence", pa.float64()),
    ]
)
_IDS = pa.list_(pa.string())
_CHANGES = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("at", MOMENT, nullable=False),
        pa.field("before", pa.int64(), nullable=False),
        pa.field("after", pa.int64(), nullable=False),
        pa.field("rows", _IDS, nullable=False),
        pa.field("left", _IDS, nullable=False),
        pa.field("met", _IDS, nullable=False),
        pa.field("answer", pa.int64()),
    ]
)
_STATE = b"reprism"  # key of the facts about a table


class PeopleChangedError(LinkingError):
    """People were changed while others were found: what was found is out of date. Nothing was kept."""


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


@dataclass(frozen=True)
class Change:
    """Rows that went from one person to another.

    Two people who became one, one who became two, and rows that were moved are all told so.

    Attributes:
        number: Number of the change, from 1 on.
        at: When it was, in UTC.
        before, after: The persons' numbers.
        rows: Ids of the rows that moved.
        left: Ids of the rows that stayed behind; none: the two became one.
        met: Ids of the rows that were there already; none: the other person is new.
        answer: Number of the answer that led to it; None: the cameras' sights alone.
    """

    number: int
    at: datetime
    before: int
    after: int
    rows: tuple[str, ...]
    left: tuple[str, ...]
    met: tuple[str, ...]
    answer: int | None = None

    @property
    def kind(self) -> str:
        """Kind of change: ``"merge"``, ``"split"`` or ``"move"``."""
        return "merge" if not self.left else "move" if self.met else "split"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it; times in ISO 8601."""
        return asdict(self) | {"at": self.at.isoformat(), "kind": self.kind}


@dataclass(frozen=True)
class State:
    """Facts about the table of people as a whole.

    Attributes:
        following: The lowest number that no person had.
        version: Raised whenever people are found, or forgotten.
        answers: Number of the last answer that was taken into account.
        least: Least mean probability between two groups of rows that became one person; None before a first run.
    """

    following: int = 1
    version: int = 0
    answers: int = 0
    least: float | None = None

    def after(self) -> State:
        """Return the state after people were changed."""
        return replace(self, version=self.version + 1)


@dataclass(frozen=True, eq=False)
class Kept:
    """The people as they are kept.

    Attributes:
        person: Each row's person, by id.
        confidence: The confidence in each person.
        state: Facts about the table.
    """

    person: dict[str, int]
    confidence: dict[int, float | None]
    state: State


def read_kept(store: Store) -> Kept:
    """Return the people as they are kept, rows that became too old included."""
    found = read_table(store, PEOPLE)
    if found is None:
        return Kept({}, {}, State())
    ids, people, confidence = (found[name].to_pylist() for name in ("id", "person", "confidence"))
    return Kept(
        dict(zip(ids, people, strict=True)),
        dict(zip(people, confidence, strict=True)),
        State(**json.loads((found.schema.metadata or {}).get(_STATE, b"{}"))),
    )


def keep_people(
    store: Store,
    linking: Linking,
    ids: Sequence[str],
    labels: np.ndarray,
    confidence: np.ndarray,
    *,
    seen: Kept | None = None,
    some: bool = False,
    answers: int = 0,
    least: float | None = None,
    answer: int | None = None,
) -> list[Change]:
    """Replace people by others, in one step.

    Each takes over the number of the earlier person with whom they share most rows; numbers of people who are no more
    are not given again. Rows that were erased meanwhile are left out. How people changed is noted.

    Args:
        store: The gallery's.
        linking: The permission as it was when they were found.
        ids: N ids of rows.
        labels: N: the number of each row's person among these, from 0 on.
        confidence: P: the confidence in each person.
        seen: The people as they were when others were sought (default: whoever is there).
        some: Other people stay as they are; each whose row is among ``ids`` must have all rows there.
        answers: Number of the last answer that was taken into account.
        least: Least mean probability between two groups that became one.
        answer: The answer that led to it.

    Returns:
        How people changed.

    Raises:
        LinkingError: Linking was switched off meanwhile.
        PeopleChangedError: The people are not those of ``seen`` any more.
    """
    with store.disk.writing():
        unchanged(store, linking)
        before = read_kept(store)
        if seen is not None and before.state.version != seen.state.version:
            raise PeopleChangedError(
                f"the people of {store.uri} were changed meanwhile: nothing was kept. Run it again"
            )
        there = sighted(store)
        numbers, following = same_numbers(ids, labels.tolist(), before.person, before.state.following)
        found = {row: numbers[label] for row, label in zip(ids, labels.tolist(), strict=True)}
        lost = {number for row, number in found.items() if row not in there}
        person = {row: number for row, number in found.items() if row in there}
        sure: dict[int, float | None] = {
            number: None if number in lost else float(confidence[label]) for label, number in numbers.items()
        }
        changes = list(_changes(before.person, person, answer, _last_change(store)))
        if some:
            person = {row: number for row, number in before.person.items() if row not in found} | person
            sure = before.confidence | sure
        _note(store, changes)
        write_people(store, Kept(person, sure, State(following, before.state.version + 1, answers, least)))
    return changes


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
    found = read_table(store, PEOPLE)
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


def write_people(store: Store, kept: Kept) -> None:
    """While writing: replace the table of people."""
    rows = pa.table(
        [list(kept.person), list(kept.person.values()), [kept.confidence[one] for one in kept.person.values()]],
        # Its facts lie beside the rows, so that both change at once.
        schema=_PEOPLE.with_metadata({_STATE: json.dumps(asdict(kept.state)).encode()}),
    )
    replace_table(store, PEOPLE, rows)


# ---- how they changed ------------------------------------------------------------------------------------


def changes_of(store: Store, now: datetime | None = None) -> list[Change]:
    """Return how people changed, in order; rows that were erased, or are too old, are in none.

    Raises:
        LinkingError: Linking is off.
    """
    cutoff, found = require_linking(store).cutoff(now), read_table(store, CHANGES)
    if found is None:
        return []
    kept = {row for row, (_, time) in sighted(store).items() if time >= cutoff}
    return list(_without(map(_change, found.to_pylist()), kept))


def forget_changes(store: Store, kept: Collection[str]) -> None:
    """While writing: take all rows out of the changes but some."""
    found = read_table(store, CHANGES)
    if found is not None:
        before = [_change(row) for row in found.to_pylist()]
        after = list(_without(before, kept))
        if after != before:
            _write_changes(store, after)


def _without(changes: Iterable[Change], kept: Collection[str]) -> Iterator[Change]:
    """Yield changes with no rows but those kept; one whose rows are all gone, or that moved to nobody, is none."""
    for change in changes:
        rows, left, met = (tuple(row for row in some if row in kept) for some in (change.rows, change.left, change.met))
        if rows and (left or met):
            yield replace(change, rows=rows, left=left, met=met)


def _changes(before: Mapping[str, int], after: Mapping[str, int], answer: int | None, last: int) -> Iterator[Change]:
    now = datetime.now(UTC)
    moved: dict[tuple[int, int], list[str]] = defaultdict(list)
    for row, number in after.items():
        if row in before:
            moved[before[row], number].append(row)
    for (old, new), rows in sorted(moved.items()):
        if old != new:
            last += 1
            left, met = (tuple(sorted(moved.get((number, number), ()))) for number in (old, new))
            yield Change(last, now, old, new, tuple(sorted(rows)), left, met, answer)


def _note(store: Store, changes: Sequence[Change]) -> None:
    if changes:
        found = read_table(store, CHANGES)
        _write_changes(store, [*([] if found is None else map(_change, found.to_pylist())), *changes])


def _last_change(store: Store) -> int:
    found = read_table(store, CHANGES)
    return 0 if found is None else int((found.schema.metadata or {}).get(_STATE, b"0"))


def _write_changes(store: Store, changes: Sequence[Change]) -> None:
    # The last number is kept though its change may be forgotten: no number is given twice.
    last = max(_last_change(store), max((change.number for change in changes), default=0))
    schema = _CHANGES.with_metadata({_STATE: str(last).encode()})
    replace_table(store, CHANGES, pa.Table.from_pylist([asdict(change) for change in changes], schema=schema))


def _change(row: dict[str, Any]) -> Change:
    return Change(**row | {name: tuple(row[name]) for name in ("rows", "left", "met")})
