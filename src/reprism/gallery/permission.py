"""Linking is off for a gallery until it is switched on for a purpose and a time; what was learned lies with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from reprism.gallery.database import LINKING, GalleryError, has_table
from reprism.gallery.link_tables import MOMENT, drop_tables, read_table, replace_table
from reprism.gallery.store import Store

MOST_DAYS = 180
"""Longest retention: the clock of a camera network does not reach further."""

_LINKING = pa.schema(
    [
        pa.field("purpose", pa.string(), nullable=False),
        pa.field("keep_days", pa.int64(), nullable=False),
        pa.field("since", MOMENT, nullable=False),
        pa.field("network", pa.string()),
        pa.field("odds", pa.string()),
        pa.field("statistics", pa.large_binary()),
        pa.field("learned", MOMENT),
        pa.field("oldest", MOMENT),
    ]
)


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
        odds: The odds of pairs of rows, as JSON; None: as with the network, or too few matches to learn them from.
        statistics: The cameras' statistics (:meth:`reprism.CameraStatistics.as_bytes`); None with the network.
        learned: When these were learned, in UTC.
        oldest: Time of the earliest row that they were learned from, in UTC.
    """

    purpose: str
    keep_days: int
    since: datetime
    network: str | None = None
    odds: str | None = None
    statistics: bytes | None = None
    learned: datetime | None = None
    oldest: datetime | None = None

    def cutoff(self, now: datetime | None = None) -> datetime:
        """Return the time before which rows take no part.

        Args:
            now: Moment from which to count back, with a time zone (default: the present one).
        """
        return (now or datetime.now(UTC)) - timedelta(days=self.keep_days)


# ---- on and off ------------------------------------------------------------------------------------------


def linking_of(store: Store) -> Linking | None:
    """Return what linking was switched on for; None while it is off."""
    found = read_table(store, LINKING)
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
        write_linking(store, linking)
    return linking


def disable_linking(store: Store) -> bool:
    """Switch linking off; see :meth:`reprism.Gallery.disable_linking`."""
    with store.disk.writing():
        was_on = has_table(store.connection, LINKING)
        # People last what they were found for, not a moment longer.
        drop_tables(store)
    return was_on


# ---- what was learned ------------------------------------------------------------------------------------


Sighted = Mapping[str, tuple[str, datetime]]
"""Camera and time of rows, by id: those that something was learned from."""


def keep_learned(
    store: Store,
    linking: Linking,
    learned_from: Sighted,
    *,
    network: str,
    odds: str | None = None,
    statistics: bytes | None = None,
) -> None:
    """Keep what was learned from some rows.

    Args:
        store: The gallery's.
        linking: The permission as it was when it was learned.
        learned_from: The rows.
        network, odds, statistics: As in :class:`Linking`.

    Raises:
        LinkingError: Meanwhile linking was switched off, or a row was erased, or its time set right.
    """
    with store.disk.writing():
        present = unchanged(store, linking)
        there = sighted(store)
        if changed := sum(there.get(row) != seen for row, seen in learned_from.items()):
            raise LinkingError(
                f"{changed:,} rows of {store.uri} were erased or set right while the gallery was learned from: "
                "nothing was kept. Run the command again"
            )
        oldest = min((time for _, time in learned_from.values()), default=None)
        learned = replace(present, network=network, odds=odds, statistics=statistics)
        write_linking(store, replace(learned, learned=datetime.now(UTC), oldest=oldest))


def forget_learned(store: Store) -> None:
    """While writing: remove what was learned, from whatever rows."""
    linking = linking_of(store)
    if linking is not None and linking.network is not None:
        write_linking(store, replace(linking, network=None, odds=None, statistics=None, learned=None, oldest=None))


def unchanged(store: Store, linking: Linking) -> Linking:
    """Return the present permission, if it is still the one that was given.

    Raises:
        LinkingError: Linking was switched off meanwhile, and perhaps on again.
    """
    present = require_linking(store)
    if present.since != linking.since:
        raise LinkingError(f"linking was switched off and on for {store.uri} meanwhile: nothing was kept. Run it again")
    return present


def sighted(store: Store) -> Sighted:
    """Return camera and time of all rows that have both, by id. They are read anew only if the rows have changed."""
    version = store.table.version
    if store.sighted is None or store.sighted[0] != version:
        store.sighted = (version, _sighted(store))
    return store.sighted[1]


def _sighted(store: Store) -> Sighted:
    columns = store.table.search().where("camid IS NOT NULL AND time IS NOT NULL").select(["id", "camid", "time"])
    found = columns.to_arrow()
    return {
        row: (camera, time)
        for row, camera, time in zip(*(found[name].to_pylist() for name in ("id", "camid", "time")), strict=True)
    }


def write_linking(store: Store, linking: Linking) -> None:
    """While writing: replace the permission."""
    replace_table(store, LINKING, pa.Table.from_pylist([asdict(linking)], schema=_LINKING))
