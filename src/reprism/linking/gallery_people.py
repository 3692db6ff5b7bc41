"""Link the rows of a gallery to people, all at once or as they come, and keep with the gallery who was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from reprism.gallery.answers import Answer, read_answers, standing
from reprism.gallery.doubts import Doubt, read_doubts, write_doubts
from reprism.gallery.forgetting import forget_expired
from reprism.gallery.people import Change, Kept, PeopleChangedError, Person, changes_of, keep_people, read_kept
from reprism.gallery.permission import Linking, require_linking, sighted
from reprism.linking.constraints import Known, known_pairs
from reprism.linking.gallery_sightings import MOST_ROWS, Rows, read_sightings, read_some, sightings_in_blocks
from reprism.linking.learned import Learned, kept_learned, learn_and_keep
from reprism.linking.people import People, find_people
from reprism.linking.review import questions_about
from reprism.linking.transit import CameraNetwork
from reprism.progress import Count, Progress, step

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery

LEAST = 0.2
"""Least mean probability between two groups of rows that become one person."""

_NEAR = 0.5  # a row comes near to a person from this share of the least probability on
_AT_ONCE = 512  # new rows compared with all others at a time
_TRIES = 5


@dataclass(frozen=True, eq=False)
class Linked:
    """What linking the rows of a gallery came to.

    Attributes:
        people: The people, those seen most first.
        rows: Number of rows that they have together.
        expired: Number of rows that are older than linking keeps them; 0 from :func:`update_people`.
        unplaced: Number of rows without a camera or a time; 0 from :func:`update_people`.
        network: The transit times that were used; None where no row was left to link.
        changes: How people changed who were there before.
        contradicted: Numbers of answers that contradict what the cameras saw, or answers before, and were left out.
    """

    people: list[Person]
    rows: int
    expired: int
    unplaced: int
    network: CameraNetwork | None
    changes: list[Change]
    contradicted: tuple[int, ...]


def link_gallery(
    gallery: Gallery,
    *,
    least: float = LEAST,
    relearn: bool = False,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Linked:
    """Find out which rows of a gallery are of one person, and keep it with the gallery in place of what was there.

    Linking must be switched on (:meth:`reprism.Gallery.enable_linking`). Rows with a camera and a time that it keeps
    are compared, each with each (:func:`reprism.linking.people.find_people`), after they were normalized by camera.
    Rows of one camera, source and tracklet are one person, two tracklets in view of one camera at once are two, and
    what somebody said holds (:func:`reprism.answer_link`). A person keeps the number of the earlier person with whom
    they share most rows. No identity is looked at.

    Transit times, odds and statistics of cameras are those that were kept, if there are any: erasing removes them.
    Otherwise they are learned first. Rows that have become too old leave the people in any case, even if linking fails.

    Args:
        gallery: The gallery.
        least: Least mean probability between two groups of rows that become one person, 0 … 1.
        relearn: Learn all of these anew, such as from rows that came since.
        now: Moment from which rows' age counts, with a time zone (default: the present one).
        progress: Called as ``progress(what, done, total)``.

    Raises:
        LinkingError: Linking is off, there are more than 100,000 such rows, or the gallery was changed meanwhile.
        CameraNetworkError, OddsError: There are too few rows by two cameras to learn from.
        ValueError: ``least`` is out of range.
    """
    forget_expired(gallery.store, now)
    seen, everything, last = _present(gallery)
    said = standing(everything)
    found = read_sightings(gallery, now)
    if not found.rows:
        keep_people(gallery.store, found.linking, [], np.zeros(0, np.int64), np.zeros(0), seen=seen, answers=last)
        return Linked([], 0, found.expired, found.unplaced, None, [], ())
    learned = None if relearn else kept_learned(gallery)
    if learned is None:
        _, error = learn_and_keep(gallery, found, now=now, progress=progress)
        learned = kept_learned(gallery)
        if learned is None:
            raise error or PeopleChangedError(f"what was learned of {gallery.uri} was removed meanwhile. Run it again")
    known = known_pairs(found.rows, said)
    people = _found(learned, found, known, least, progress)
    changes = _keep(gallery, found.linking, found, people, known, seen, said, last, least=least, some=False)
    kept = gallery.people(now)
    rows = sum(len(person.rows) for person in kept)
    return Linked(kept, rows, found.expired, found.unplaced, learned.network, changes, known.contradicted)


def update_people(
    gallery: Gallery, *, now: datetime | None = None, progress: Progress | None = None, answer: int | None = None
) -> Linked:
    """Take into the people of a gallery the rows that came since they were found, and what somebody said since.

    New rows are compared with all others, a block at a time, so that memory stays the same however many there are. The
    people to whom one of them comes near are found anew, with all of their rows; all others stay as they are. Nothing
    is learned anew, unless nothing is kept, as after an erasure: then all rows are linked as by :func:`link_gallery`.

    People so found are those of :func:`link_gallery` but for rows whose person depends on others that were not near: of
    drawn cameras, whose rows came three at a time, 0.02 % of all pairs of rows were decided otherwise, of photographs
    fewer (docs/explanation/benchmarks.md).

    Args:
        gallery: The gallery.
        now: Moment from which rows' age counts, with a time zone (default: the present one).
        progress: Called as ``progress(what, done, total)``.
        answer: The answer that leads to it, for the list of changes.

    Raises:
        LinkingError: Linking is off, or the gallery is being changed all the time.
        CameraNetworkError, OddsError: Nothing is kept, and there are too few rows by two cameras to learn from.
    """
    for attempt in range(_TRIES):
        try:
            return _update(gallery, now, progress, answer)
        except PeopleChangedError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("not reached")


def _update(gallery: Gallery, now: datetime | None, progress: Progress | None, answer: int | None) -> Linked:
    forget_expired(gallery.store, now)
    linking, learned = require_linking(gallery.store), kept_learned(gallery)
    seen, everything, last = _present(gallery)
    said = standing(everything)
    least = seen.state.least or LEAST
    cutoff = linking.cutoff(now)
    there = {row for row, (_, time) in sighted(gallery.store).items() if time >= cutoff}
    new = there - set(seen.person)
    since = [each for each in everything if each.number > seen.state.answers]
    # What was said, or taken back, since people were found.
    matters = {each.number for each in since} | {each.undoes for each in since if each.undoes is not None}
    spoken_of = {row for each in everything if each.number in matters for row in _rows_of(each)}
    # With an answer that was taken back, all that followed from it.
    followed = [each for each in changes_of(gallery.store, now) if each.answer in matters] if since else []
    spoken_of |= {row for each in followed for row in (*each.rows, *each.left, *each.met)}
    if learned is None or not seen.person or 4 * len(new) > len(there) <= MOST_ROWS:
        return link_gallery(gallery, least=least, now=now, progress=progress) if there else _as_kept(gallery, now)
    if not new and not since:
        return _as_kept(gallery, now, learned.network)
    near = _near(gallery, learned, sorted(new), least, now, step(progress, "comparing sightings"))
    touched = {seen.person[row] for row in (near | spoken_of) if row in seen.person}
    chosen = (new | {row for row, number in seen.person.items() if number in touched}) & there
    some = read_some(gallery, sorted(chosen))
    known = known_pairs(some.rows, said)
    people = _found(learned, some, known, least, progress)
    changes = _keep(gallery, linking, some, people, known, seen, said, last, least=least, some=True, answer=answer)
    return _as_kept(gallery, now, learned.network, changes, known.contradicted)


def _present(gallery: Gallery) -> tuple[Kept, list[Answer], int]:
    """Return the people as they are kept, all answers, and the number of the last."""
    # The people first: an answer that comes between is taken into account, and counted as such.
    return read_kept(gallery.store), *read_answers(gallery.store)


def _as_kept(
    gallery: Gallery,
    now: datetime | None,
    network: CameraNetwork | None = None,
    changes: list[Change] | None = None,
    contradicted: tuple[int, ...] = (),
) -> Linked:
    """Return the people as they are kept by now."""
    people = gallery.people(now)
    return Linked(people, sum(len(one.rows) for one in people), 0, 0, network, changes or [], contradicted)


def _found(learned: Learned, rows: Rows, known: Known, least: float, progress: Progress | None) -> People:
    return find_people(
        rows.normalized(learned.statistics),
        rows.items,
        learned.network,
        odds=learned.odds,
        least=least,
        together=known.together,
        apart=known.apart,
        progress=progress,
    )


def _near(
    gallery: Gallery, learned: Learned, new: list[str], least: float, now: datetime | None, progress: Count | None
) -> set[str]:
    """Return the ids of rows to which one of the new rows comes near."""
    found: set[str] = set()
    for start in range(0, len(new), _AT_ONCE):
        some = read_some(gallery, new[start : start + _AT_ONCE])
        for block in sightings_in_blocks(gallery, now):
            close = (learned.probability(some, block) > _NEAR * least).any(axis=0)
            found |= {block.rows[index].id for index in np.flatnonzero(close).tolist()}
        if progress is not None:
            progress(min(start + _AT_ONCE, len(new)), len(new))
    return found


def _rows_of(answer: Answer) -> tuple[str, ...]:
    return (*answer.one, *answer.other)


def _keep(
    gallery: Gallery,
    linking: Linking,
    rows: Rows,
    people: People,
    known: Known,
    seen: Kept,
    said: list[Answer],
    last: int,
    *,
    least: float,
    some: bool,
    answer: int | None = None,
) -> list[Change]:
    """Keep people, and what is doubtful about them."""
    ids = [row.id for row in rows.rows]
    changes = keep_people(
        gallery.store,
        linking,
        ids,
        people.labels,
        people.confidence,
        seen=seen,
        some=some,
        answers=last,
        least=least,
        answer=answer,
    )
    found = list(_doubts(ids, people, known, said, least))
    with gallery.store.disk.writing():
        require_linking(gallery.store)
        kept = read_kept(gallery.store)
        if some:
            inside = set(ids)
            before = read_doubts(gallery.store, kept.person)
            found += [doubt for doubt in before if not inside & {*doubt.one, *doubt.other}]
        # Whoever was erased meanwhile is in no doubt.
        write_doubts(gallery.store, (doubt for doubt in found if {*doubt.one, *doubt.other} <= set(kept.person)))
    return changes


def _doubts(ids: list[str], people: People, known: Known, said: list[Answer], least: float) -> Iterator[Doubt]:
    unsure = [(set(each.one), set(each.other)) for each in said if each.kind == "unsure"]
    for question in questions_about(
        people.labels, people.halves, people.pairs, people.probabilities, least=least, apart=known.apart
    ):
        one, other = (tuple(ids[index] for index in group.tolist()) for group in (question.one, question.other))
        if not any(
            (one[0] in first and other[0] in second) or (one[0] in second and other[0] in first)
            for first, second in unsure
        ):
            yield Doubt(one, other, question.probability, question.doubt)
