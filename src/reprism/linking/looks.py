"""The odds that two sightings are of one person by how alike they look: calibrated, or learned without labels."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from reprism.evaluation.calibration import Calibration
from reprism.evaluation.camera_statistics import CameraStatistics
from reprism.evaluation.part_scale import draw
from reprism.linking.gallery_sightings import read_sightings
from reprism.linking.odds import OddsError, PairOdds
from reprism.linking.people import learn_odds, times_of
from reprism.linking.transit import CameraNetwork
from reprism.progress import Progress

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery

MOST_COMPARED = 5_000
"""Rows that odds are learned from, each compared with each; of more rows so many are drawn."""


@dataclass(frozen=True, eq=False)
class LearnedLooks:
    """Odds by distance that were learned from a gallery's rows and the times between its cameras.

    Attributes:
        odds: The odds, of descriptors normalized by camera.
        statistics: By which descriptors are normalized.
    """

    odds: PairOdds
    statistics: CameraStatistics


Looks = Calibration | LearnedLooks
"""What tells the probability of one person from how alike two sightings look."""


def learn_looks(
    gallery: Gallery,
    network: CameraNetwork,
    *,
    seed: int = 0,
    now: datetime | None = None,
    progress: Progress | None = None,
) -> LearnedLooks:
    """Learn from a gallery how likely one person is by distance; no identity is looked at, and nothing is kept.

    Linking must be switched on. Rows with a camera and a time that it keeps take part, up to ``MOST_COMPARED`` of them,
    drawn at random: time and memory are then bounded but for reading the rows.

    Args:
        gallery: The gallery.
        network: Transit times between its cameras.
        seed: Random seed of the draw.
        now: Moment from which rows' age counts, with a time zone (default: the present one).
        progress: Called as ``progress(what, done, total)``.

    Raises:
        LinkingError: Linking is off, or more than 100,000 rows would take part.
        OddsError: Times tell too little of who is who; names the remedy.
    """
    found = read_sightings(gallery, now)
    chosen = np.sort(draw(len(found.rows), MOST_COMPARED, np.random.default_rng(seed)))
    every = found.items
    items = [every[row] for row in chosen]
    try:
        if not items:
            raise OddsError("expected sightings by two cameras or more, got no pair of two cameras")
        statistics = found.statistics()
        descriptors = found.normalized(statistics)[chosen]
        odds = learn_odds(descriptors, items, times_of(network, items), progress=progress)
    except OddsError as error:
        raise OddsError(
            f"how likely one person is by looks cannot be learned from {gallery.uri}: {error}. Give a calibration "
            f"instead: reprism calibrate --gallery {gallery.uri} makes one from rows of known people"
        ) from error
    return LearnedLooks(odds, statistics)


def log_odds(looks: Looks, distances: np.ndarray) -> np.ndarray:
    """Return the logarithm of the odds that sightings are of one person, by their distances alone.

    Args:
        looks: What tells it.
        distances: Euclidean distances of descriptors of length 1, 0 … 2; normalized by camera for learned looks.
    """
    if isinstance(looks, LearnedLooks):
        return looks.odds.log_odds(distances)
    return looks.slope * np.asarray(distances, float) + looks.intercept
