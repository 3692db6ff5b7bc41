"""Search a gallery by looks, cameras and times together, and say of each match why.

A row is ranked by the logarithm of the odds that it is of the query's person: that of its looks, plus what the network
of cameras says of the time between the two sightings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reprism.data.records import Sample
from reprism.evaluation.camera_statistics import MadeBy
from reprism.gallery.calibrating import check_calibration
from reprism.gallery.filters import NO_FILTER, Filter
from reprism.gallery.permission import require_linking
from reprism.gallery.rows import DESCRIPTOR, as_matrix, normalized, rows_of
from reprism.gallery.search import EXACT_ROWS, Match, Split, search, split_by_part
from reprism.gallery.strangers import scale_of_matches
from reprism.linking.looks import LearnedLooks, Looks, log_odds
from reprism.linking.ratios import View
from reprism.linking.reasons import Reason, Site, explain_pair
from reprism.linking.transit import CameraNetwork
from reprism.notation import Partition

if TYPE_CHECKING:
    from reprism.gallery.store import Store
    from reprism.gallery.table import Gallery

PROPOSED = 1_000
"""Nearest rows, wherever they were seen, that the index proposes; ten for each wanted, if more."""

PROPOSED_BY_CAMERA = 100
"""Nearest rows that it proposes of each camera at times that speak for one person; ten for each wanted, if more."""

MOST_TIME = 10.0
"""Most that times count for or against, as a natural logarithm."""

_NOWHERE = Path()


@dataclass(frozen=True)
class Seen:
    """Where and when the person who is searched for was seen.

    Attributes:
        camera: The camera; None if unknown.
        time: The time, with a time zone; None if unknown.
    """

    camera: str | None = None
    time: datetime | None = None

    def as_item(self) -> Sample:
        """Return it as an image of an unknown person, with seconds since 1970, UTC."""
        return _item(self.camera, self.time)


@dataclass(frozen=True, kw_only=True)
class TimedMatch(Match):
    """A row that a search by looks and times found.

    Attributes:
        distance: Euclidean distance of descriptors of length 1, normalized by camera if looks were learned.
        probability: Probability of the same person, by looks and times together.
        by_looks: The same by looks alone.
        reason: Why; ``reason.log_ratio`` is what times say, and ``reason.verdict`` is ``unusual`` where only the floor
            for unusual routes keeps the match possible.
    """

    by_looks: float
    reason: Reason

    def to_json(self) -> dict[str, Any]:
        """Return all fields, ready for JSON, the rank first."""
        return super().to_json() | {"reason": self.reason.as_dict()}


class _Scored(NamedTuple):
    """A row that may become a match; sorts by rank. (Ids differ, so that later fields are never compared.)"""

    against: float  # odds that it is another person, as a logarithm
    distance: float
    id: str
    by_looks: float


def search_by_network(
    gallery: Gallery,
    descriptors: np.ndarray,
    seen: Sequence[Seen],
    site: Site,
    looks: Looks,
    top: int = 20,
    where: Filter = NO_FILTER,
    *,
    exact: bool | None = None,
) -> list[list[TimedMatch]]:
    """Return the rows that are likeliest of the same person as queries, by looks, cameras and times together.

    A gallery of up to ``reprism.gallery.search.EXACT_ROWS`` rows, or without an index, is read whole: the result is
    exact. In a larger one the index proposes the rows: the nearest by looks (``PROPOSED``), and of each camera that the
    network knows, the nearest at times that speak for one person (``PROPOSED_BY_CAMERA``). A row that is not among them
    is not found; it looks less alike than all of these, or its times speak against it.

    Args:
        gallery: The gallery.
        descriptors: N×D, of the model that made the gallery's, not compressed; or D for a single one.
        seen: The N cameras and times of the queries. Where one is unknown, times say nothing.
        site: The network of cameras (``Site.of(network)``).
        looks: A calibration of this gallery's distances, or what
            :func:`reprism.linking.looks.learn_looks` learned from it.
        top: Maximum number of matches.
        where: Filter; other rows are left out before the search.
        exact: True reads every row, False uses the index (default: as said above).

    Returns:
        For each query its matches, likeliest first; of equals the nearer, then the lesser id.

    Raises:
        ValueError: ``top`` is below 1, descriptors have another width or are not finite, ``seen`` are not as many,
            or ``exact=False`` without an index.
        CalibrationError, CameraStatisticsError: ``looks`` are of other descriptors.
    """
    store = gallery.store
    given = np.atleast_2d(np.asarray(descriptors))
    asked = normalized(given, store.descriptor_dim, "query")
    if store.projection is not None:
        asked = store.projection.apply(asked)
    if top < 1:
        raise ValueError(f"expected top of at least 1, got {top}")
    if len(seen) != len(given):
        raise ValueError(f"expected where and when each of {len(given)} queries was seen, got {len(seen)}")
    _check(store, looks)
    queries = [_Query(row, one.as_item()) for row, one in zip(asked, seen, strict=True)]
    if exact or (exact is None and (len(store) <= EXACT_ROWS or not store.has_index())):
        columns = ["id", "camid", "time", DESCRIPTOR]
        best = _best(store.read(columns, where.sql()), queries, site.network, looks, top)
    else:
        best = []
        for row, query in zip(given, queries, strict=True):
            proposed = _proposed(store, row, query.item, site.network, top, where, exact)
            best += _best([proposed], [query], site.network, looks, top)
    return _matches(store, queries, best, site, looks)


def search_like(
    gallery: Gallery,
    id: str,  # noqa: A002 - what it is called in the table
    site: Site,
    looks: Looks,
    top: int = 20,
    where: Filter = NO_FILTER,
) -> list[TimedMatch]:
    """Return the rows that are likeliest of the same person as one of the gallery's rows, which itself is left out.

    The gallery is read whole.

    Args:
        gallery: The gallery.
        id: Id of the row; its own camera and time count.
        site, looks, top, where: As for :func:`search_by_network`.

    Raises:
        KeyError: There is no such row.
        ValueError, CalibrationError, CameraStatisticsError: As of :func:`search_by_network`.
    """
    if top < 1:
        raise ValueError(f"expected top of at least 1, got {top}")
    _check(gallery.store, looks)
    row = gallery.get(id)
    query = _Query(gallery.descriptors([id])[0], _item(row.camid, row.time))
    batches = gallery.store.read(["id", "camid", "time", DESCRIPTOR], where.sql())
    (best,) = _best(batches, [query], site.network, looks, top + 1)
    others = [one for one in best if one.id != id][:top]
    return _matches(gallery.store, [query], [others], site, looks)[0]


def _check(store: Store, looks: Looks) -> None:
    """Refuse looks that are of other descriptors than the gallery's."""
    if isinstance(looks, LearnedLooks):
        kind, projection = store.info.kind, store.projection
        made_by = MadeBy(kind.fingerprint, kind.flip, None if projection is None else projection.digest)
        looks.statistics.check(made_by)
    else:
        check_calibration(store, looks)


def kept_rows(gallery: Gallery, where: Filter = NO_FILTER, now: datetime | None = None) -> Filter:
    """Return a filter of the rows that linking keeps: a search by the times kept with a gallery finds no other.

    Args:
        gallery: The gallery.
        where: What rows must pass besides.
        now: Moment from which rows' age counts, with a time zone (default: the present one).

    Raises:
        LinkingError: Linking is off.
    """
    cutoff = require_linking(gallery.store).cutoff(now)
    return replace(where, after=cutoff if where.after is None else max(cutoff, where.after))


class _Query(NamedTuple):
    """A query as rows are stored: projected in a compressed gallery, of length 1."""

    vector: np.ndarray
    item: Sample


# ---- scoring ---------------------------------------------------------------------------------------------


def _best(
    batches: Iterable[Any], queries: Sequence[_Query], network: CameraNetwork, looks: Looks, top: int
) -> list[list[_Scored]]:
    """Return the likeliest rows of each query, block by block."""
    items = [query.item for query in queries]
    asked = _as_compared(np.stack([query.vector for query in queries]), [item.camid for item in items], looks)
    best: list[list[_Scored]] = [[] for _ in queries]
    for batch in batches:
        ids, cameras = batch["id"].to_pylist(), batch["camid"].to_pylist()
        if not ids:
            continue
        rows = _as_compared(as_matrix(batch[DESCRIPTOR]), cameras, looks)
        squared = np.square(asked).sum(1)[:, None] + np.square(rows).sum(1) - 2 * asked @ rows.T
        distances = np.sqrt(np.maximum(squared, 0))
        by_looks = log_odds(looks, distances)
        sightings = list(map(_item, cameras, batch["time"].to_pylist()))
        said = np.clip(network.log_ratio(items, sightings), -MOST_TIME, MOST_TIME)
        against = -(by_looks + said)
        for index, row in enumerate(against):
            bound = np.inf if len(row) <= top else np.partition(row, top - 1)[top - 1]
            best[index] += [
                _Scored(float(row[at]), float(distances[index, at]), ids[at], float(by_looks[index, at]))
                for at in np.flatnonzero(row <= bound)
            ]
            best[index] = sorted(best[index])[:top]
    return best


def _as_compared(rows: np.ndarray, cameras: Sequence[Any], looks: Looks) -> np.ndarray:
    """Return rows as looks compare them, in float64: alike rows then have a distance of 0 to seven digits."""
    if isinstance(looks, LearnedLooks):
        rows = looks.statistics.apply(rows, cameras)
    return np.asarray(rows, np.float64)


def _item(camera: str | None, time: datetime | None) -> Sample:
    return Sample(_NOWHERE, 0, camera, None if time is None else time.timestamp())


def _matches(
    store: Store, queries: Sequence[_Query], best: Sequence[Sequence[_Scored]], site: Site, looks: Looks
) -> list[list[TimedMatch]]:
    """Return the chosen rows with all that is told of them. Rows that were erased meanwhile are left out."""
    ids = sorted({one.id for some in best for one in some})
    table = store.fetch(ids, [*store.row_columns, DESCRIPTOR])
    rows = {row.id: (row, vector) for row, vector in zip(rows_of(table), as_matrix(table[DESCRIPTOR]), strict=True)}
    partition = Partition.parse(store.partition) if rows and store.projection is None else None
    scale = None
    if partition is not None:
        scale = scale_of_matches(store, None if isinstance(looks, LearnedLooks) else looks)
    results = []
    for query, some in zip(queries, best, strict=True):
        there = [one for one in some if one.id in rows]
        split: Sequence[Split] = [Split()] * len(there)
        if partition is not None and there:
            split = split_by_part(query.vector, np.stack([rows[one.id][1] for one in there]), partition, scale)
        matches = []
        for rank, (one, by_part) in enumerate(zip(there, split, strict=True), 1):
            row = rows[one.id][0]
            reason = explain_pair(query.item, _item(row.camid, row.time), site, by_part.parts)
            matches.append(
                TimedMatch(
                    **vars(row),
                    rank=rank,
                    distance=one.distance,
                    probability=_probability(-one.against),
                    by_looks=_probability(one.by_looks),
                    shares=by_part.shares,
                    parts=by_part.parts,
                    reason=reason,
                )
            )
        results.append(matches)
    return results


def _probability(logarithm: float) -> float:
    return float(1 / (1 + np.exp(-logarithm)))


# ---- proposing -------------------------------------------------------------------------------------------


def _proposed(
    store: Store, given: np.ndarray, item: Sample, network: CameraNetwork, top: int, where: Filter, exact: bool | None
) -> Any:
    """Return rows that the index proposes, for their odds to decide."""
    ids = {match.id for match in search(store, given, max(PROPOSED, 10 * top), where, shares=False, exact=exact)[0]}
    for window in favoured(item, network, where):
        found = search(store, given, max(PROPOSED_BY_CAMERA, 10 * top), window, shares=False, exact=exact)
        ids |= {match.id for match in found[0]}
    return store.fetch(sorted(ids), ["id", "camid", "time", DESCRIPTOR])


def favoured(item: Sample, network: CameraNetwork, where: Filter = NO_FILTER) -> list[Filter]:
    """Return a filter for each camera: the times at which the network speaks for the person of a sighting.

    Args:
        item: The sighting.
        network: The network.
        where: What rows must pass besides.

    Returns:
        One for each camera that has such times; they reach from the first to the last of them.
    """
    if item.camid is None or item.time is None:
        return []
    own, width, reach = (
        View(str(item.camid), item.recording or ""),
        network.settings.bin_seconds,
        network.settings.reach,
    )
    filters = []
    for camera in sorted({view.camera for view in network.sightings} - {own.camera} - {*where.not_cameras}):
        other = View(camera, own.recording)
        table = network.ratio_by_gap(min(own, other), max(own, other))
        if table is None or not (table > 0).any() or (where.cameras and camera not in where.cameras):
            continue
        gaps = np.flatnonzero(table > 0)[[0, -1]] - reach - 1
        low, high = gaps.tolist() if own < other else (-gaps[::-1]).tolist()
        start = width * np.floor(item.time / width)
        # Gaps beyond the horizon, which are one bin, reach to the end of all times.
        after = None if low < -reach else _moment(start + low * width)
        before = None if high > reach else _moment(start + (high + 1) * width)
        filters.append(
            replace(
                where,
                cameras=(camera,),
                not_cameras=(),
                after=max(filter(None, (after, where.after)), default=None),
                before=min(filter(None, (before, where.before)), default=None),
            )
        )
    return filters


def _moment(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(seconds))
