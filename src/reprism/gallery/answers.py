"""Answers about rows: that they are of one person, or of two. Nothing is overwritten; answers are taken back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import pyarrow as pa

from reprism.gallery.database import ANSWERS
from reprism.gallery.link_tables import MOMENT, read_table, replace_table
from reprism.gallery.permission import LinkingError, require_linking, sighted
from reprism.gallery.store import Store

Kind = Literal["same", "different", "unsure"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_IDS = pa.list_(pa.string())
_ANSWERS = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("one", _IDS, nullable=False),
        pa.field("other", _IDS, nullable=False),
        pa.field("by", pa.string(), nullable=False),
        pa.field("at", MOMENT, nullable=False),
        pa.field("undoes", pa.int64()),
    ]
)
_LAST = b"last"  # key of the last number


class AnswerError(LinkingError):
    """An answer cannot be given or taken back; the message says why."""


@dataclass(frozen=True)
class Answer:
    """An answer about rows, or that one was taken back.

    Attributes:
        number: Number of the answer, from 1 on; never given twice.
        kind: ``"same"``: all of the rows are of one person. ``"different"``: nobody is in both ``one`` and ``other``.
            ``"unsure"``: it cannot be told, and need not be asked again. ``"undo"``: an answer is taken back.
        one, other: Ids of rows; none of an undoing.
        by: Who said so, as the audit log calls them.
        at: When, in UTC.
        undoes: Number of the answer that is taken back; None of an answer.
    """

    number: int
    kind: Kind | Literal["undo"]
    one: tuple[str, ...]
    other: tuple[str, ...]
    by: str
    at: datetime
    undoes: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it; times in ISO 8601."""
        return asdict(self) | {"at": self.at.isoformat()}


def all_answers(store: Store) -> list[Answer]:
    """Return all answers in order, those taken back and the undoings included."""
    return read_answers(store)[0]


def read_answers(store: Store) -> tuple[list[Answer], int]:
    """Return all answers as :func:`all_answers`, and the number of the last that ever was, 0 before the first."""
    found = read_table(store, ANSWERS)
    if found is None:
        return [], 0
    return [_answer(row) for row in found.to_pylist()], int((found.schema.metadata or {}).get(_LAST, b"0"))


def standing(answers: Sequence[Answer]) -> list[Answer]:
    """Return the answers that hold: those that were not taken back."""
    undone = {answer.undoes for answer in answers}
    return [answer for answer in answers if answer.kind != "undo" and answer.number not in undone]


def answers_of(store: Store, now: datetime | None = None) -> list[Answer]:
    """Return the answers that hold; rows that are too old are in none.

    Raises:
        LinkingError: Linking is off.
    """
    cutoff = require_linking(store).cutoff(now)
    kept = {row for row, (_, time) in sighted(store).items() if time >= cutoff}
    return _without(standing(all_answers(store)), kept)


def add_answer(
    store: Store,
    kind: Kind,
    one: Sequence[str],
    other: Sequence[str],
    by: str,
    *,
    check: Callable[[Sequence[Answer], Answer], None] | None = None,
) -> Answer:
    """Keep an answer; one writer at a time, so that of two who contradict each other the second is told.

    Args:
        store: The gallery's.
        kind: What is said.
        one, other: Ids of rows that may be linked. Of ``"different"`` and ``"unsure"`` both have some.
        by: Who says so.
        check: Called with the answers that hold and the new one; whatever it raises, nothing is kept.

    Raises:
        LinkingError: Linking is off.
        AnswerError: A row is not there, or too old, or named twice; or there are too few.
    """
    one, other = tuple(dict.fromkeys(one)), tuple(dict.fromkeys(other))
    if kind not in KINDS:
        raise AnswerError(f"answer: expected one of {', '.join(KINDS)}, got {kind!r}")
    if both := set(one) & set(other):
        raise AnswerError(f"row {min(both)} is on both sides of the answer: expected each row once")
    if len(one) + len(other) < 2 or (kind != "same" and not (one and other)):
        raise AnswerError("an answer is about two rows or more, on two sides: one of them is empty")
    with store.disk.writing():
        cutoff, there = require_linking(store).cutoff(), sighted(store)
        for row in (*one, *other):
            if row not in there or there[row][1] < cutoff:
                raise AnswerError(
                    f"no row {row!r} may be linked: it is not in {store.uri}, has no camera or time, or is too old"
                )
        return _append(store, lambda number: Answer(number, kind, one, other, by, datetime.now(UTC)), check)


def undo_answer(store: Store, number: int, by: str) -> Answer:
    """Take an answer back; it stays in the list, with the undoing behind it.

    Args:
        store: The gallery's.
        number: The answer's number.
        by: Who takes it back.

    Returns:
        The answer that was taken back.

    Raises:
        LinkingError: Linking is off.
        AnswerError: There is no such answer, or it was taken back already.
    """
    with store.disk.writing():
        require_linking(store)
        found = next((each for each in standing(all_answers(store)) if each.number == number), None)
        if found is None:
            raise AnswerError(f"there is no answer {number} that could be taken back: see reprism link answers")
        _append(store, lambda new: Answer(new, "undo", (), (), by, datetime.now(UTC), number), None)
    return found


def forget_answers(store: Store, kept: Collection[str]) -> None:
    """While writing: take all rows out of the answers but some; an answer about fewer than two rows goes."""
    before, last = read_answers(store)
    after = _without(before, kept)
    if after != before:
        gone = {answer.number for answer in before} - {answer.number for answer in after}
        _write(store, [answer for answer in after if answer.undoes not in gone], last)


def _without(answers: Sequence[Answer], kept: Collection[str]) -> list[Answer]:
    found = []
    for answer in answers:
        one, other = (tuple(row for row in some if row in kept) for some in (answer.one, answer.other))
        enough = len(one) + len(other) > 1 if answer.kind == "same" else bool(one and other)
        if enough or answer.kind == "undo":
            found.append(replace(answer, one=one, other=other))
    return found


def _append(
    store: Store, make: Callable[[int], Answer], check: Callable[[Sequence[Answer], Answer], None] | None
) -> Answer:
    before, last = read_answers(store)
    answer = make(last + 1)
    if check is not None:
        check(standing(before), answer)
    _write(store, [*before, answer], answer.number)
    return answer


def _write(store: Store, answers: Sequence[Answer], last: int) -> None:
    # The last number is kept though its answer may be forgotten: no number is given twice.
    schema = _ANSWERS.with_metadata({_LAST: str(last).encode()})
    replace_table(store, ANSWERS, pa.Table.from_pylist([asdict(answer) for answer in answers], schema=schema))


def _answer(row: dict[str, Any]) -> Answer:
    return Answer(**row | {name: tuple(row[name]) for name in ("one", "other")})
