"""Link the rows of a gallery to people, and keep with the gallery who was found and what was learned for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from reprism.gallery.links import Person, forget_expired, keep_network, keep_people, require_linking
from reprism.linking.gallery_sightings import Sightings, known_pairs, read_sightings
from reprism.linking.people import find_people
from reprism.linking.transit import CameraNetwork
from reprism.progress import Progress

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery


@dataclass(frozen=True, eq=False)
class Linked:
    """What linking the rows of a gallery came to.

    Attributes:
        people: The people, those seen most first.
        rows: Number of rows that they have together.
        expired: Number of rows that are older than linking keeps them.
        unplaced: Number of rows without a camera or a time.
        network: The transit times that were used; None where no row was left to link.
    """

    people: list[Person]
    rows: int
    expired: int
    unplaced: int
    network: CameraNetwork | None


def link_gallery(
    gallery: Gallery,
    *,
    least: float = 0.2,
    relearn: bool = False,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> Linked:
    """Find out which rows of a gallery are of one person, and keep it with the gallery in place of what was there.

    Linking must be switched on (:meth:`reprism.Gallery.enable_linking`). Rows with a camera and a time that it keeps
    are compared, each with each (:func:`reprism.linking.people.find_people`), after they were normalized by camera.
    Rows of one camera, source and tracklet are one person, and two tracklets in view of one camera at once are two. A
    person keeps the number of the earlier person with whom they share most rows. No identity is looked at.

    Transit times between cameras are those that were kept, if there are any: erasing removes them. Otherwise they are
    learned first. Rows that have become too old leave the people in any case, even if linking fails.

    Args:
        gallery: The gallery.
        least: Least mean probability between two groups of rows that become one person, 0 … 1.
        relearn: Learn the transit times anew, such as from rows that came since.
        now: Moment from which rows' age counts, with a time zone (default: the present one).
        progress: Called as ``progress(what, done, total)``.

    Raises:
        LinkingError: Linking is off, there are more than 100,000 such rows, or the gallery was changed meanwhile.
        CameraNetworkError, OddsError: There are too few rows by two cameras to learn from.
        ValueError: ``least`` is out of range.
    """
    forget_expired(gallery.store, now)
    found = read_sightings(gallery, now)
    if not found.rows:
        keep_people(gallery.store, found.linking, [], np.zeros(0, np.int64), np.zeros(0))
        return Linked([], 0, found.expired, found.unplaced, None)
    network = None if relearn else kept_network(gallery)
    if network is None:
        network = _learn(gallery, found, rounds=3, progress=progress)
    together, apart = known_pairs(found.rows)
    people = find_people(
        found.descriptors, found.items, network, least=least, together=together, apart=apart, progress=progress
    )
    ids = [row.id for row in found.rows]
    keep_people(gallery.store, found.linking, ids, people.labels, people.confidence)
    kept = gallery.people(now)
    return Linked(kept, sum(len(person.rows) for person in kept), found.expired, found.unplaced, network)


def learn_gallery(
    gallery: Gallery, *, rounds: int = 3, now: datetime | None = None, progress: Progress | None = None
) -> CameraNetwork:
    """Learn the transit times between a gallery's cameras (:meth:`CameraNetwork.of_gallery`), and keep them with it.

    Args:
        gallery: The gallery.
        rounds, progress: As for :meth:`CameraNetwork.learn`.
        now: Moment from which rows' age counts, with a time zone (default: the present one).

    Raises:
        LinkingError: Linking is off, there are more than 100,000 such rows, or the gallery was changed meanwhile.
        CameraNetworkError: No two cameras have rows with times.
    """
    return _learn(gallery, read_sightings(gallery, now), rounds=rounds, progress=progress)


def kept_network(gallery: Gallery) -> CameraNetwork | None:
    """Return the transit times kept with a gallery; None if there are none, as after rows were erased.

    Raises:
        LinkingError: Linking is off.
        CameraNetworkError: A newer Reprism wrote them.
    """
    text = require_linking(gallery.store).network
    return None if text is None else CameraNetwork.from_json(text, f"what is kept with {gallery.uri}")


def _learn(gallery: Gallery, found: Sightings, *, rounds: int, progress: Progress | None) -> CameraNetwork:
    network = CameraNetwork.learn(found.descriptors, found.items, rounds=rounds, progress=progress)
    learned_from = {row.id: (str(row.camid), row.time) for row in found.rows if row.time is not None}
    keep_network(gallery.store, found.linking, json.dumps(network.as_dict()), learned_from)
    return network
