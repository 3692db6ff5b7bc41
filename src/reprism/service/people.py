"""The people of a gallery for its clients: who is seen, what is asked and answered, and who holds which question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from fastapi import HTTPException

from reprism.gallery import people as linked
from reprism.gallery.answers import Answer, AnswerError
from reprism.gallery.doubts import MOST_DOUBTS, Doubt
from reprism.gallery.filters import Filter
from reprism.gallery.people import PeopleChangedError, Person, read_kept
from reprism.gallery.permission import LinkingError, require_linking, sighted
from reprism.gallery.rows import Row
from reprism.gallery.table import Gallery
from reprism.linking.answering import Answered, answer_link, review_queue, undo_change, undo_link_answer
from reprism.linking.gallery_sightings import read_some
from reprism.linking.odds import OddsError
from reprism.linking.transit import CameraNetworkError
from reprism.service.audit import Change
from reprism.service.held_questions import HeldQuestions
from reprism.service.operations import Operations, UnavailableError
from reprism.service.people_links import Link, in_time_order, links_of, sentences_of, ways_of
from reprism.service.people_schemas import PeopleQuery, Said
from reprism.service.rows import Pictures
from reprism.service.times import NOT_LEARNED, OFF

R = TypeVar("R")

_HELD = 120.0  # seconds that a question is kept for whoever was handed it
_FACES = 6


class Sights(NamedTuple):
    """A person with all sights.

    Attributes:
        person: The person.
        rows: The rows, in the order of time.
        pictures: What can be seen of each row, by id.
        links: One for every two rows that follow each other.
    """

    person: Person
    rows: list[Row]
    pictures: dict[str, Pictures]
    links: list[Link]


class Asked(NamedTuple):
    """A question, and what is told with it.

    Attributes:
        doubt: The question.
        people: Number of the person whom the rows of ``one`` are of, then that of ``other``, if it is another.
        sentence: What cameras and times say of the first row of either group.
    """

    doubt: Doubt
    people: list[int]
    sentence: str


class People:
    """The people of a gallery. Who looks at them and who decides is in the audit log.

    Rows that are older than linking keeps are in nothing that is answered.

    Args:
        work: The gallery, and the threads that it is read and changed in.
    """

    def __init__(self, work: Operations) -> None:
        self._work = work
        self._gallery = work.gallery
        self._held = HeldQuestions(_HELD)

    # ---- looking -----------------------------------------------------------------------------------------

    async def found(self, query: PeopleQuery, who: str) -> tuple[int, list[Person]]:
        """Return how many people meet some conditions, and some of them, those with most rows first."""

        def find() -> tuple[int, list[Person]]:
            people = self._gallery.people()
            sql = Filter(tuple(query.camera), (), query.after, query.before).sql()
            if sql is not None:
                batches = self._gallery.store.read(["id"], sql)
                wanted = {id_ for batch in batches for id_ in batch["id"].to_pylist()}
                people = [person for person in people if not wanted.isdisjoint(person.rows)]
            return len(people), people[query.offset : query.offset + query.limit]

        total, people = await self._read(find)
        await self._work.log(who, "link people", [face for one in people for face in faces_of(one)], people=len(people))
        return total, people

    async def sights(self, number: int, who: str) -> Sights:
        """Return a person with all sights.

        Raises:
            HTTPException: 404: there is no such person; or 409: linking is off.
        """

        def find() -> Sights:
            person = next((one for one in self._gallery.people() if one.id == number), None)
            if person is None:
                raise HTTPException(404, f"there is no person {number}")
            found = in_time_order(read_some(self._gallery, person.rows))
            links = links_of(self._gallery, found, self._work.times.site())
            return Sights(person, found.rows, self._work.pictures(found.rows), links)

        found = await self._read(find)
        await self._work.log(who, "link person", found.person.rows, person=number)
        return found

    async def network(self) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """Return the number of rows of each camera, and the ways between cameras."""

        def find() -> tuple[dict[str, int], list[dict[str, Any]]]:
            linking, site = require_linking(self._gallery.store), self._work.times.site()
            if site is None:
                raise HTTPException(409, NOT_LEARNED)
            cutoff = linking.cutoff()
            rows = Counter(camera for camera, taken in sighted(self._gallery.store).values() if taken >= cutoff)
            return dict(sorted(rows.items())), list(ways_of(site))

        return await self._read(find)

    async def questions(self, limit: int, who: str) -> tuple[list[Asked], int]:
        """Return questions for somebody, the greatest doubts first, and how many more there are.

        What is returned is kept for them: others get it after two minutes, unless they ask for it again.
        """

        def find() -> tuple[list[Asked], int]:
            person = {row: one.id for one in self._gallery.people() for row in one.rows}
            waiting = [doubt for doubt in review_queue(self._gallery, MOST_DOUBTS) if _all_in(doubt, person)]
            chosen, left = self._held.take(waiting, limit, who)
            sentences = sentences_of(self._gallery, chosen, self._work.times.site())
            people = [list(dict.fromkeys((person[doubt.one[0]], person[doubt.other[0]]))) for doubt in chosen]
            return list(map(Asked, chosen, people, sentences)), left

        asked, left = await self._read(find)
        rows = [row for each in asked for row in (*each.doubt.one, *each.doubt.other)]
        await self._work.log(who, "link questions", rows, questions=len(asked))
        return asked, left

    async def answers(self, who: str) -> list[Answer]:
        """Return the answers that hold, newest first."""
        found = await self._read(lambda: self._gallery.link_answers()[::-1])
        rows = dict.fromkeys(row for answer in found for row in (*answer.one, *answer.other))
        await self._work.log(who, "link answers", list(rows), answers=len(found))
        return found

    async def changes(self, limit: int, who: str) -> list[linked.Change]:
        """Return how people changed, newest first."""
        found = await self._read(lambda: self._gallery.people_changes()[::-1][:limit])
        rows = dict.fromkeys(row for change in found for row in (*change.rows, *change.left, *change.met))
        await self._work.log(who, "link changes", list(rows), changes=len(found))
        return found

    # ---- deciding ----------------------------------------------------------------------------------------

    async def answer(self, said: Said, who: str) -> Answered:
        """Keep what somebody says of rows; the people follow at once.

        Raises:
            HTTPException: 409: linking is off, a row may not be linked, the answer contradicts what the cameras saw or
                an earlier answer; or it was kept, but too little is known to link by.
            AuditError: It could not be noted; nothing was changed.
            UnavailableError: As of :meth:`Operations.read`.
        """

        def note() -> Change:
            facts = {"kind": said.kind, "sides": [len(said.one), len(said.other)]}
            return self._decision("answer", who, [*said.one, *said.other], facts)

        return await self._decide(note, lambda: answer_link(self._gallery, said.kind, said.one, said.other, by=who))

    async def undo_answer(self, number: int, who: str) -> Answered:
        """Take an answer back; the people follow at once.

        Raises:
            HTTPException: 404: there is no such answer; otherwise as of :meth:`answer`.
            AuditError, UnavailableError: As of :meth:`answer`.
        """

        def note() -> Change:
            found = next((each for each in self._gallery.link_answers() if each.number == number), None)
            if found is None:
                raise HTTPException(404, f"there is no answer {number} that could be taken back")
            return self._decision("undo", who, [*found.one, *found.other], {"answer": number, "kind": found.kind})

        return await self._decide(note, lambda: undo_link_answer(self._gallery, number, by=who))

    async def undo_change(self, number: int, who: str) -> Answered:
        """Bring rows back to the people whom they were of before a change.

        Raises:
            HTTPException: 404: there is no such change; otherwise as of :meth:`answer`.
            AuditError, UnavailableError: As of :meth:`answer`.
        """

        def note() -> Change:
            found = next((each for each in self._gallery.people_changes() if each.number == number), None)
            if found is None:
                raise HTTPException(404, f"there is no change {number} of people")
            return self._decision("undo", who, [*found.rows, *found.left, *found.met], {"change": number})

        return await self._decide(note, lambda: undo_change(self._gallery, number, by=who))

    def _decision(self, what: str, who: str, rows: Sequence[str], facts: dict[str, Any]) -> Change:
        return Change(who, f"link {what}", rows, facts | {"people": self._people_of(rows)})

    def _people_of(self, rows: Collection[str]) -> list[int]:
        person = read_kept(self._gallery.store).person
        return sorted({person[row] for row in rows if row in person})

    async def _decide(self, note: Callable[[], Change], decide: Callable[[], Answered]) -> Answered:
        def noted() -> Change:
            with linking_errors(self._gallery):
                require_linking(self._gallery.store)
                return note()

        def decided(change: Change) -> Answered:
            with linking_errors(self._gallery, "the answer is kept, but people cannot follow it: "):
                done = decide()
                change.outcome |= {
                    "answers": [answer.number for answer in done.answers],
                    "people": self._people_of(change.ids),
                    "changes": [each.number for each in done.changes],
                }
                return Answered(tuple(self._kept(done.answers)), done.changes)

        return await self._work.change(noted, decided)

    def _kept(self, answers: Sequence[Answer]) -> Iterator[Answer]:
        """Yield answers without the rows that linking does not keep."""
        cutoff = require_linking(self._gallery.store).cutoff()
        kept = {row for row, (_, taken) in sighted(self._gallery.store).items() if taken >= cutoff}
        for answer in answers:
            one, other = (tuple(row for row in some if row in kept) for some in (answer.one, answer.other))
            yield replace(answer, one=one, other=other)

    async def _read(self, read: Callable[[], R]) -> R:
        def allowed() -> R:
            with linking_errors(self._gallery):
                require_linking(self._gallery.store)
                return read()

        return await self._work.read(allowed)


def faces_of(person: Person) -> list[str]:
    """Return the ids of up to six rows of a person, spread over the order of time, the first and the last included."""
    places = np.linspace(0, len(person.rows) - 1, min(_FACES, len(person.rows))).round().astype(int)
    return [person.rows[place] for place in places.tolist()]


@contextmanager
def linking_errors(gallery: Gallery, before: str = "") -> Iterator[None]:
    """Turn errors of linking into answers for clients, which name no path.

    Args:
        gallery: The gallery.
        before: What to say first where too little is known to link by.

    Raises:
        HTTPException: 409: linking is off, is refused, or too little is known to link by.
        UnavailableError: People change all the time.
    """
    try:
        yield
    except PeopleChangedError as error:
        raise UnavailableError("the people of the gallery are being changed all the time: try again") from error
    except LinkingError as error:
        is_off = not isinstance(error, AnswerError) and gallery.linking() is None
        raise HTTPException(409, OFF if is_off else str(error).replace(gallery.uri, "GALLERY")) from None
    except (CameraNetworkError, OddsError) as error:
        raise HTTPException(409, before + str(error).replace(gallery.uri, "GALLERY")) from None


def _all_in(doubt: Doubt, person: Collection[str]) -> bool:
    return all(row in person for row in (*doubt.one, *doubt.other))
