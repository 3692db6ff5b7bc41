"""What a gallery is linked by: its cameras' statistics, transit times and odds, kept until rows are erased."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from reprism.evaluation.camera_statistics import CameraStatistics
from reprism.gallery.answers import all_answers, standing
from reprism.gallery.permission import Linking, keep_learned, require_linking
from reprism.linking.constraints import said_pairs
from reprism.linking.gallery_sightings import Rows, Sightings
from reprism.linking.held_out import hold_out
from reprism.linking.looks import LearnedLooks
from reprism.linking.odds import OddsError, PairOdds
from reprism.linking.people import learn_odds, times_of
from reprism.linking.transit import CameraNetwork
from reprism.progress import Progress

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery

LASTS = 0.1
"""Share of the days that rows are kept, for which what was learned from them can be used at least. Rows that become too
old earlier take no part, unless they are more than half of all."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned from the rows of a gallery.

    Attributes:
        network: Transit times between cameras.
        statistics: Statistics of the cameras, by which descriptors are normalized.
        odds: Odds of pairs of rows.
    """

    network: CameraNetwork
    statistics: CameraStatistics
    odds: PairOdds

    @property
    def looks(self) -> LearnedLooks:
        """What tells the probability of one person by looks alone."""
        return LearnedLooks(self.odds, self.statistics)

    def probability(self, some: Rows, others: Rows) -> np.ndarray:
        """Return N×M probabilities that rows are of the same person as others, 0 … 1."""
        looks = some.normalized(self.statistics) @ others.normalized(self.statistics).T
        times = self.network.log_ratio(some.items, others.items)
        return self.odds.probability(np.sqrt(np.clip(2 - 2 * looks, 0, 4)), times)


def learn_and_keep(
    gallery: Gallery,
    found: Sightings,
    *,
    rounds: int = 3,
    held_out: bool = True,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> tuple[CameraNetwork, OddsError | None]:
    """Learn from rows and from what somebody said of them, and keep it with their gallery.

    Args:
        gallery: The gallery.
        found: Its rows.
        rounds: Most times that matches are found.
        held_out: Predict matches that were held out too, and leave out cameras whose times are doubtful
            (:func:`reprism.linking.held_out.hold_out`).
        now: Moment from which rows' age counts, with a time zone (default: the present one).
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The transit times; and why no odds could be learned, if so.

    Raises:
        LinkingError: The gallery was changed meanwhile.
        CameraNetworkError: No two cameras have rows with times.
    """
    rows = _lasting(found, now)
    statistics = rows.statistics()
    descriptors, items = rows.normalized(statistics), rows.items
    together, apart, _ = said_pairs(rows.rows, standing(all_answers(gallery.store)))
    network = CameraNetwork.learn(descriptors, items, rounds=rounds, together=together, apart=apart, progress=progress)
    if held_out:
        known = hold_out(descriptors, items, rounds=rounds, together=together, apart=apart, progress=progress)
        network = replace(network, held_out=known)
    odds, error = None, None
    try:
        odds = learn_odds(descriptors, items, times_of(network, items), progress=progress)
    except OddsError as caught:
        error = caught
    learned_from = {row.id: (str(row.camid), row.time) for row in rows.rows if row.time is not None}
    keep_learned(
        gallery.store,
        found.linking,
        learned_from,
        network=json.dumps(network.as_dict()),
        odds=None if odds is None else json.dumps(odds.as_dict()),
        statistics=statistics.as_bytes(),
    )
    return network, error


def kept_network(gallery: Gallery) -> CameraNetwork | None:
    """Return the transit times kept with a gallery; None if there are none, as after rows were erased.

    Raises:
        LinkingError: Linking is off.
        CameraNetworkError: A newer Reprism wrote them.
    """
    return _network(gallery, require_linking(gallery.store))


def kept_learned(gallery: Gallery) -> Learned | None:
    """Return what was learned from a gallery's rows; None if nothing, or too little, is kept with it.

    Raises:
        LinkingError: Linking is off.
        CameraNetworkError: A newer Reprism wrote it.
    """
    linking = require_linking(gallery.store)
    network = _network(gallery, linking)
    if network is None or linking.odds is None or linking.statistics is None:
        return None
    return Learned(
        network, CameraStatistics.from_bytes(linking.statistics), PairOdds.from_dict(json.loads(linking.odds))
    )


def _network(gallery: Gallery, linking: Linking) -> CameraNetwork | None:
    text = linking.network
    return None if text is None else CameraNetwork.from_json(text, f"what is kept with {gallery.uri}")


def _lasting(found: Sightings, now: datetime | None) -> Rows:
    lasting = found.since(found.linking.cutoff(now) + timedelta(days=LASTS * found.linking.keep_days))
    return lasting if 2 * len(lasting.rows) > len(found.rows) else found
