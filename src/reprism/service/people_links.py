"""Why rows of a gallery are linked: what times and looks say of them, and the ways between the cameras."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from reprism.gallery.doubts import Doubt
from reprism.gallery.table import Gallery
from reprism.linking.gallery_sightings import Rows, read_some
from reprism.linking.learned import Learned, kept_learned
from reprism.linking.reasons import Site, explain_pair
from reprism.linking.routes import clock_ahead
from reprism.service.times import NOT_LEARNED

_PAIRS_AT_ONCE = 256


class Link(NamedTuple):
    """Two sights that follow each other, and why they may be of one person.

    Attributes:
        one, other: The rows' ids, the earlier one first.
        sentence: What is said of cameras and times.
        probability: That both are of one person, 0 … 1; None where nothing is learned.
    """

    one: str
    other: str
    sentence: str
    probability: float | None


def in_time_order(rows: Rows) -> Rows:
    """Return rows in the order of time."""
    items = rows.items
    order = sorted(range(len(items)), key=lambda at: (items[at].time, rows.rows[at].id))
    return Rows([rows.rows[at] for at in order], rows.descriptors[order], rows.made_by)


def links_of(gallery: Gallery, rows: Rows, site: Site | None) -> list[Link]:
    """Return why each row and the next may be of one person; ``site`` is None where no times are kept."""
    learned, items = kept_learned(gallery), rows.items
    sure: list[float | None] = [None] * (len(items) - 1) if learned is None else _probabilities(learned, rows)
    found = []
    for at, (one, other) in enumerate(pairwise(rows.rows)):
        sentence = NOT_LEARNED if site is None else explain_pair(items[at], items[at + 1], site).text
        found.append(Link(one.id, other.id, sentence, sure[at]))
    return found


def _probabilities(learned: Learned, rows: Rows) -> list[float | None]:
    """Return the probability that each row and the next are of one person."""
    found: list[float | None] = []
    for start in range(0, len(rows.rows) - 1, _PAIRS_AT_ONCE):
        stop = min(start + _PAIRS_AT_ONCE, len(rows.rows) - 1)
        some, others = (
            Rows(rows.rows[a:b], rows.descriptors[a:b], rows.made_by) for a, b in ((start, stop), (start + 1, stop + 1))
        )
        found += np.diagonal(learned.probability(some, others)).tolist()
    return found


def sentences_of(gallery: Gallery, doubts: Sequence[Doubt], site: Site | None) -> list[str]:
    """Return what cameras and times say of the leading rows of each question; ``site`` as of :func:`links_of`."""
    found = read_some(gallery, [row for doubt in doubts for row in (doubt.one[0], doubt.other[0])])
    items = {row.id: item for row, item in zip(found.rows, found.items, strict=True)}
    said = []
    for doubt in doubts:
        one, other = items.get(doubt.one[0]), items.get(doubt.other[0])
        if site is None or one is None or other is None:
            said.append(NOT_LEARNED)
        else:
            said.append(explain_pair(one, other, site).text)
    return said


def ways_of(site: Site) -> Iterator[dict[str, Any]]:
    """Yield the ways between two cameras, as the fields of an answer; clocks are set right where that is told."""
    for (one, other), route in sorted(site.routes.items()):
        there, back = route.ways(clock_ahead(site.offsets, one, other) or 0.0)
        for start, end, way in ((one, other, there), (other, one, back)):
            if way is not None:
                low, middle, high = way.quartiles
                yield {"start": start, "to": end, "usual": (low, high), "median": middle, "matches": way.pairs}
