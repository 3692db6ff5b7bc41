"""Rows that are erased, or too old, leave the people, what was said of them, and all that was learned from them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from reprism.gallery.answers import forget_answers
from reprism.gallery.doubts import forget_doubts
from reprism.gallery.link_tables import drop_unreadable
from reprism.gallery.people import Kept, forget_changes, read_kept, write_people
from reprism.gallery.permission import forget_learned, linking_of, require_linking, sighted
from reprism.gallery.store import Store


def forget(store: Store, gone: Collection[str]) -> None:
    """While writing: take rows out of all that linking keeps, and remove what was learned of the cameras.

    What was learned holds counts and sums of all rows, and is learned anew from those left. A table that cannot be read
    is removed: nobody can tell what it holds.
    """
    drop_unreadable(store)
    if gone:
        _keep(store, set(sighted(store)) - set(gone), set(gone))
    forget_learned(store)


def forget_expired(store: Store, now: datetime | None = None) -> int:
    """Take rows out of all that linking keeps that are older than it keeps them; remove what was learned from such.

    Args:
        store: The gallery's.
        now: Moment from which to count back, with a time zone (default: the present one).

    Returns:
        Number of rows that were taken out of the people.

    Raises:
        LinkingError: Linking is off.
    """
    with store.disk.writing():
        linking = require_linking(store)
        cutoff, before = linking.cutoff(now), read_kept(store)
        kept = {row for row, (_, time) in sighted(store).items() if time >= cutoff}
        gone = set(before.person) - kept
        drop_unreadable(store)
        _keep(store, kept, gone)
        if linking.oldest is not None and linking.oldest < cutoff:
            forget_learned(store)
    return len(gone)


def _keep(store: Store, kept: Collection[str], gone: Collection[str]) -> None:
    """Take all rows but some out of the people, the answers, the changes and the doubts."""
    if linking_of(store) is None:
        return
    before = read_kept(store)
    if lost := {number for row, number in before.person.items() if row in gone}:
        confidence = {number: None if number in lost else sure for number, sure in before.confidence.items()}
        person = {row: number for row, number in before.person.items() if row not in gone}
        write_people(store, Kept(person, confidence, before.state.after()))
    forget_answers(store, kept)
    forget_changes(store, kept)
    forget_doubts(store, kept)
