"""The people of a gallery, kept up to date while rows come in, whoever puts them in."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import NamedTuple

from fastapi import HTTPException

from reprism.gallery.answers import read_answers
from reprism.gallery.people import read_kept
from reprism.gallery.permission import linking_of, sighted
from reprism.gallery.table import Gallery
from reprism.linking.gallery_people import update_people
from reprism.service.audit import AuditError, Change
from reprism.service.operations import Operations, UnavailableError
from reprism.service.people import linking_errors

WHO = "service"
"""Name of the service in the audit log, for what it does by itself."""

_FAILED = "people were not kept up to date: %s"

_log = logging.getLogger(__name__)


class Due(NamedTuple):
    """What came since the people of a gallery were found, or last kept up to date.

    Attributes:
        new: Ids of rows that are of nobody yet.
        expired: Ids of rows that people still have, and that are older than linking keeps them.
        answers: Whether something was said, or taken back, that people do not follow yet.
    """

    new: list[str]
    expired: list[str]
    answers: bool


def what_is_due(gallery: Gallery, now: datetime | None = None) -> Due | None:
    """Return what came since people were found; None if nothing did, linking is off, or nobody was ever found.

    Args:
        gallery: The gallery.
        now: Moment from which rows' age counts, with a time zone (default: the present one).
    """
    linking, kept = linking_of(gallery.store), read_kept(gallery.store)
    # Without a first run nobody asked for people.
    if linking is None or kept.state.least is None:
        return None
    cutoff, rows = linking.cutoff(now), sighted(gallery.store)
    there = {row for row, (_, taken) in rows.items() if taken >= cutoff}
    new, expired = sorted(there - set(kept.person)), sorted(set(kept.person) - there)
    answers = read_answers(gallery.store)[1] > kept.state.answers
    return Due(new, expired, answers) if new or expired or answers else None


async def keep_up(work: Operations, seconds: float) -> None:
    """Take rows that come in into the people, until cancelled; what fails is logged, and tried again ever later.

    Args:
        work: The gallery, and the threads that it is read and changed in.
        seconds: Seconds between two looks at whether the gallery has changed.
    """
    loop = asyncio.get_running_loop()
    pause, seen, again = seconds, -1, loop.time()
    while True:
        await asyncio.sleep(pause)
        try:
            version = await work.read(lambda: int(work.gallery.store.table.version))
            # Rows grow too old though the gallery stays as it is.
            if version != seen or loop.time() >= again:
                await _update(work)
                seen, again = version, loop.time() + work.settings.upkeep_seconds
            pause = seconds
            continue
        except (AuditError, UnavailableError) as error:
            _log.error(_FAILED, error)
        except HTTPException as error:  # such as that too little is known to link by
            _log.error(_FAILED, error.detail)
        except Exception:
            _log.exception(_FAILED, "an unexpected error")
        pause = max(seconds, min(2 * pause, work.settings.upkeep_seconds))


async def _update(work: Operations) -> None:
    due = await work.read(lambda: what_is_due(work.gallery))
    if due is None:
        return

    def update(change: Change) -> None:
        with linking_errors(work.gallery):
            found = update_people(work.gallery)
        change.outcome |= {"people": len(found.people), "changes": [each.number for each in found.changes]}

    facts = {"new": len(due.new), "expired": len(due.expired)}
    await work.change(lambda: Change(WHO, "link update", [*due.new, *due.expired], facts), update)
