"""Say of rows of a gallery that they are one person, or two, and take it back; the people follow at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from reprism.gallery.answers import Answer, AnswerError, Kind, add_answer, undo_answer
from reprism.gallery.doubts import Doubt, read_doubts
from reprism.gallery.people import Change, changes_of, read_kept
from reprism.gallery.permission import require_linking
from reprism.gallery.rows import Row, rows_of
from reprism.linking.constraints import known_pairs
from reprism.linking.gallery_people import update_people

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery


@dataclass(frozen=True)
class Answered:
    """What an answer came to.

    Attributes:
        answers: The answers that were given, or taken back.
        changes: How people changed by them.
    """

    answers: tuple[Answer, ...]
    changes: list[Change]


def answer_link(
    gallery: Gallery,
    kind: Kind,
    one: Sequence[str],
    other: Sequence[str] = (),
    *,
    by: str,
    now: datetime | None = None,
) -> Answered:
    """Say of rows whether they are of one person; it holds from now on, and the people follow at once.

    To merge two people, say ``"same"`` of all their rows; to split one, ``"different"`` of those that go and those that
    stay.

    Args:
        gallery: The gallery, with linking switched on.
        kind: ``"same"``: all of the rows are of one person; ``"different"``: nobody is in both ``one`` and ``other``;
            ``"unsure"``: it cannot be told, and is not asked again.
        one, other: Ids of rows.
        by: Who says so.
        now: Moment from which rows' age counts, with a time zone (default: the present one).

    Raises:
        LinkingError: Linking is off.
        AnswerError: A row may not be linked; or the answer contradicts what the cameras saw, or an earlier answer,
            which is named.
        CameraNetworkError, OddsError: The answer is kept, but nothing can be linked: there are too few rows.
    """

    def check(before: Sequence[Answer], answer: Answer) -> None:
        _refuse_contradiction(gallery, before, answer)

    answer = add_answer(gallery.store, kind, one, other, by, check=check)
    return Answered((answer,), _follow(gallery, now, answer.number))


def undo_link_answer(gallery: Gallery, number: int, *, by: str, now: datetime | None = None) -> Answered:
    """Take an answer back; the people follow at once.

    Args:
        gallery: The gallery.
        number: The answer's number.
        by: Who takes it back.
        now: Moment from which rows' age counts, with a time zone (default: the present one).

    Raises:
        LinkingError: Linking is off.
        AnswerError: There is no such answer, or it was taken back already.
    """
    answer = undo_answer(gallery.store, number, by)
    return Answered((answer,), _follow(gallery, now, number))


def undo_change(gallery: Gallery, number: int, *, by: str, now: datetime | None = None) -> Answered:
    """Bring rows back to the people whom they were of before a change.

    A change that an answer led to is undone by taking the answer back. Otherwise it is said of the rows that moved that
    they are the same person as those who stayed behind, and not the one whom they came to.

    Args:
        gallery: The gallery.
        number: The change's number (:meth:`reprism.Gallery.people_changes`).
        by: Who says so.
        now: Moment from which rows' age counts, with a time zone (default: the present one).

    Raises:
        LinkingError: Linking is off.
        AnswerError: There is no such change; or undoing it contradicts an answer since.
    """
    change = next((each for each in changes_of(gallery.store, now) if each.number == number), None)
    if change is None:
        raise AnswerError(f"there is no change {number} of people: see reprism link changes")
    if change.answer is not None:
        return undo_link_answer(gallery, change.answer, by=by, now=now)
    done: list[Answered] = []
    if change.met:
        done.append(answer_link(gallery, "different", change.rows, change.met, by=by, now=now))
    if change.left:
        done.append(answer_link(gallery, "same", change.rows, change.left, by=by, now=now))
    return Answered(
        tuple(answer for each in done for answer in each.answers), [one for each in done for one in each.changes]
    )


def review_queue(gallery: Gallery, most: int = 20) -> list[Doubt]:
    """Return what is most worth a question about the people of a gallery, the greatest doubts first.

    Of each person at most one question is among them, for its answer may settle others. A question holds as long as
    its rows are in the people as they were when it was found; the next run finds new ones.

    Args:
        gallery: The gallery.
        most: Most questions.

    Raises:
        LinkingError: Linking is off.
    """
    require_linking(gallery.store)
    person = read_kept(gallery.store).person
    found: list[Doubt] = []
    taken: set[int] = set()
    for doubt in read_doubts(gallery.store, person):
        people = {person[doubt.one[0]], person[doubt.other[0]]}
        if not people & taken and len(found) < most:
            found.append(doubt)
            taken |= people
    return found


def _follow(gallery: Gallery, now: datetime | None, answer: int) -> list[Change]:
    # Before a first run there is nobody who could change.
    return update_people(gallery, now=now, answer=answer).changes if read_kept(gallery.store).person else []


def _refuse_contradiction(gallery: Gallery, before: Sequence[Answer], answer: Answer) -> None:
    ids = {row for each in (*before, answer) for row in (*each.one, *each.other)}
    rows = _rows(gallery, sorted(ids))
    held = set(known_pairs(rows, before).contradicted)
    if answer.number not in known_pairs(rows, [*before, answer]).contradicted:
        return
    # Of the earlier answers the last without which it would hold.
    for each in reversed([one for one in before if one.number not in held]):
        others = [one for one in before if one != each]
        if answer.number not in known_pairs(rows, [*others, answer]).contradicted:
            raise AnswerError(
                f"that contradicts answer {each.number} ({each.kind}, by {each.by}, {each.at:%Y-%m-%d %H:%M} UTC): "
                f"take it back first: reprism link undo {gallery.uri} --answer {each.number}"
            )
    if answer.number in known_pairs(rows, [answer]).contradicted:
        raise AnswerError(
            "that contradicts what the cameras saw: rows of one tracklet are one person, and two tracklets in view of "
            "one camera at once are two"
        )
    raise AnswerError("that contradicts several answers before: see reprism link answers")


def _rows(gallery: Gallery, ids: Sequence[str]) -> list[Row]:
    return rows_of(gallery.store.fetch(ids, gallery.store.row_columns).sort_by("id"))
