"""Find people in a gallery: the rows nearest to a descriptor, exactly or through the index.

Data flow one way: candidates (id, distance) -> groups -> rows with all their columns -> matches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reprism.evaluation.distances import part_distances
from reprism.evaluation.reranking import rerank as reranked_distances
from reprism.gallery.calibrating import Queries, check_calibration
from reprism.gallery.filters import NO_FILTER, Filter
from reprism.gallery.rows import DESCRIPTOR, Row, as_matrix, normalized, rows_of
from reprism.gallery.strangers import scale_of_matches
from reprism.notation import Partition

if TYPE_CHECKING:
    import pyarrow as pa

    from reprism.evaluation.calibration import Calibration
    from reprism.evaluation.part_scale import PartAgreement, PartScale
    from reprism.gallery.store import Store

__all__ = ["EXACT_ROWS", "FEW_ROWS", "GROUPS", "NO_FILTER", "PARTITION", "RERANKED", "Filter", "Match", "search"]

EXACT_ROWS = 50_000
"""Rows up to which a search is exact. In a larger gallery it uses the index, if there is one and more than ``FEW_ROWS``
rows pass the filter."""

FEW_ROWS = 1_000
"""Rows up to which reading them all is faster than using the index."""

RERANKED = 100
"""Number of nearest rows that re-ranking considers, if ``top`` is less."""

GROUPS = ("pid", "tracklet")
"""Columns that matches can be grouped by."""

PARTITION = 8192
"""Rows in a cell of the index. A search reads all cells: people who look alike lie in many, and reading a row's short
code costs less than missing some."""

# A filter that more than this share of the rows pass is applied to what the index proposes. Looking every row up in the
# set of those that pass, as LanceDB does otherwise, takes up to three times as long as a search without a filter.
_COMMON = 1 / 8
_MOST_PROPOSED = 2_000
_QUERIES = 1024  # at a time
_FEW_QUERIES = 4  # each scans the table in less time than reading it takes once
_MORE = 16  # rows asked for beyond those wanted: the next distance then shows that none as near was left out
ROUNDING = 1e-5
"""Squared distances from a float32 matrix product, of rows of length 1, are wrong by less."""


@dataclass(frozen=True, kw_only=True)
class Match(Row):
    """A row that a search found, and how well it fits.

    Attributes:
        rank: Rank, from 1.
        distance: Euclidean distance of descriptors of length 1, 0 … 2, as in calibrations.
        probability: Probability of the same person, if a calibration was given.
        shares: Share of the squared distance by part; they sum to it. None in a compressed gallery, whose columns
            belong to no part, or with ``shares=False``.
        parts: Agreement by part, on one scale for all matches: the calibration's, or the scale of the gallery's own
            strangers. None without shares, or with too few rows for such a scale.
        reranked: Distance after re-ranking, 0 … 1, by which the matches are ranked.
    """

    rank: int
    distance: float
    probability: float | None = None
    shares: dict[str, float] | None = None
    parts: dict[str, PartAgreement] | None = None
    reranked: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all fields, ready for JSON, the rank first."""
        values = asdict(self)
        first = ("rank", "distance", "path", "camid", "pid", "time", "probability")
        ordered = {name: values[name] for name in first} | values
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in ordered.items()}


class _Seen(NamedTuple):
    """A row that was read, with its descriptor."""

    row: Row
    vector: np.ndarray


class Split(NamedTuple):
    """A match part by part, as in :class:`Match`."""

    shares: dict[str, float] | None = None
    parts: dict[str, PartAgreement] | None = None


class _Candidate(NamedTuple):
    """A row that may become a match; sorts by rank. (Ids differ, so that later fields are never compared.)"""

    distance: float
    id: str
    group: str
    seen: _Seen | None = None  # if finding it has read the row anyway


def search(
    store: Store,
    descriptors: np.ndarray,
    top: int = 20,
    where: Filter = NO_FILTER,
    *,
    threshold: float | None = None,
    calibration: Calibration | None = None,
    queries: Queries = "images",
    group_by: str | None = None,
    rerank: bool = False,
    shares: bool = True,
    exact: bool | None = None,
) -> list[list[Match]]:
    """Find the rows nearest to descriptors; see :meth:`reprism.Gallery.search`."""
    if calibration is not None:
        check_calibration(store, calibration, queries)
    if top < 1:
        raise ValueError(f"expected top of at least 1, got {top}")
    if group_by is not None and group_by not in GROUPS:
        raise ValueError(f"expected group_by {' or '.join(GROUPS)}, got {group_by!r}")
    if threshold is not None and not threshold >= 0:
        raise ValueError(f"expected a threshold of 0 … 2, as distances are, got {threshold}")
    given = np.atleast_2d(np.asarray(descriptors))
    asked, projection = normalized(given, store.descriptor_dim, "query"), store.projection
    if projection is not None:
        asked = projection.apply(asked)
    plan = _plan(store, where, exact)
    found = _nearest(store, asked, max(top, RERANKED) if rerank else top, plan, group_by)
    if threshold is not None:
        found = [[candidate for candidate in some if candidate.distance <= threshold] for some in found]
    rows = {candidate.id: candidate.seen for some in found for candidate in some if candidate.seen is not None}
    rows |= _look_up(store, {candidate.id for some in found for candidate in some}.difference(rows))
    partition = Partition.parse(store.partition) if shares and rows and projection is None else None
    scale = None if partition is None else scale_of_matches(store, calibration)
    results = []
    for query, candidates in zip(asked, found, strict=True):
        # Rows that were erased during the search are left out.
        chosen = [candidate for candidate in candidates if candidate.id in rows]
        order, new = list(range(len(chosen))), None
        if rerank and chosen:
            new = reranked_distances(query[None], np.stack([rows[candidate.id].vector for candidate in chosen]))[0]
            order = np.argsort(new, kind="stable").tolist()
        order = order[:top]
        split: Sequence[Split] = [Split()] * len(order)
        if partition is not None and order:
            split = split_by_part(query, np.stack([rows[chosen[at].id].vector for at in order]), partition, scale)
        results.append(
            [
                Match(
                    rank=rank,
                    distance=chosen[at].distance,
                    probability=None if calibration is None else float(calibration.probability(chosen[at].distance)),
                    reranked=None if new is None else float(new[at]),
                    **vars(rows[chosen[at].id].row),
                    **by_part._asdict(),
                )
                for rank, (at, by_part) in enumerate(zip(order, split, strict=True), 1)
            ]
        )
    return results


def split_by_part(query: np.ndarray, best: np.ndarray, partition: Partition, scale: PartScale | None) -> list[Split]:
    """Split the distances of a query to its matches by part.

    Args:
        query: D, of length 1.
        best: M×D, of length 1.
        partition: Names the parts.
        scale: What agreement is measured by; None: it is not told.
    """
    distances = part_distances(query[None], best, partition)
    names = [part.name for part in partition.parts]
    shares = [dict(zip(names, row.tolist(), strict=True)) for row in distances]
    return list(map(Split, shares, [None] * len(shares) if scale is None else scale.agreement(distances)))


class _Plan(NamedTuple):
    """The rows to search, and the way to."""

    condition: str | None
    most: int  # rows that can be found
    share: float  # of the rows that meet the condition, about
    by_index: bool


def _plan(store: Store, where: Filter, exact: bool | None) -> _Plan:
    condition, rows = where.sql(), len(store)
    by_index = not exact and (exact is False or rows > EXACT_ROWS) and store.has_index()
    if exact is False and not by_index:
        raise ValueError(f"the gallery {store.uri} has no index: build it with Gallery.optimize() (reprism optimize)")
    if by_index:
        # Counting those that pass a common filter would take as long as the search.
        share = 1.0 if condition is None else where.share_of(store.sample())
        if share > _COMMON:
            return _Plan(condition, rows, share, by_index)
    passing = int(store.table.count_rows(condition))
    return _Plan(condition, passing, passing / max(1, rows), by_index and (exact is False or passing > FEW_ROWS))


# ---- candidates ------------------------------------------------------------------------------------------


def _nearest(
    store: Store,
    queries: np.ndarray,
    top: int,
    plan: _Plan,
    group_by: str | None,
) -> list[list[_Candidate]]:
    """Return the first ``top`` candidates of every query, or of the first ``top`` groups."""
    one_by_one = len(queries) <= _FEW_QUERIES and store.storage == "float32"
    find = _by_index if plan.by_index else _by_scanning if one_by_one else _by_reading
    found: list[list[_Candidate]] = [[] for _ in queries]
    open_queries, wanted = list(range(len(queries))), top
    # The first so many groups are those among the first so many rows, if these are of enough groups.
    while open_queries:
        count = min(wanted, plan.most)
        batch = find(store, queries[open_queries], count, plan, group_by)
        short = [at for at, some in zip(open_queries, batch, strict=True) if len(some) < count]
        if plan.by_index and short:
            # A filter may leave the index too few of the rows that it looks at.
            exact = dict(zip(short, _by_reading(store, queries[short], count, plan, group_by), strict=True))
            batch = [exact.get(at, some) for at, some in zip(open_queries, batch, strict=True)]
        more = []
        for at, some in zip(open_queries, batch, strict=True):
            found[at] = _first_of_groups(some)[:top] if group_by else some
            if group_by and len(found[at]) < top and len(some) == count < plan.most:
                more.append(at)
        open_queries = more
        wanted *= 8
    return found


def _first_of_groups(candidates: list[_Candidate]) -> list[_Candidate]:
    first: dict[str, _Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.group, candidate)
    return list(first.values())


def _groups(batch: Any, group_by: str | None) -> list[str]:
    """Return the group of each row; a row without one has its own id, which no group has."""
    ids = batch["id"].to_pylist()
    if group_by is None:
        return ids
    if group_by == "pid":
        names = [None if pid is None else f"pid {pid}" for pid in batch["pid"].to_pylist()]
    else:
        # Names of tracklets are unique within their camera and source.
        keys = zip(*(batch[name].to_pylist() for name in ("tracklet", "camid", "source")), strict=True)
        names = [None if key[0] is None else f"tracklet {key}" for key in keys]
    return [own if name is None else name for own, name in zip(ids, names, strict=True)]


def _group_columns(group_by: str | None) -> list[str]:
    return {None: [], "pid": ["pid"], "tracklet": ["tracklet", "camid", "source"]}[group_by]


def _by_reading(
    store: Store, queries: np.ndarray, count: int, plan: _Plan, group_by: str | None
) -> list[list[_Candidate]]:
    """Find the nearest rows by reading all that pass: one matrix product for each block and all queries."""
    found: list[list[_Candidate]] = []
    for start in range(0, len(queries), _QUERIES):
        some = queries[start : start + _QUERIES]
        best: list[list[_Candidate]] = [[] for _ in some]
        bounds = np.full(len(some), np.inf)
        for batch in _read(store, plan.condition, group_by) if count else ():
            rows = as_matrix(batch[DESCRIPTOR])
            squared = np.square(some).sum(1)[:, None] + np.square(rows).sum(1) - 2 * (some @ rows.T)
            if count < len(rows):
                bounds = np.minimum(bounds, np.partition(squared, count - 1, axis=1)[:, count - 1])
            ids, groups = batch["id"].to_pylist(), _groups(batch, group_by)
            for index, query in enumerate(some):
                near = np.flatnonzero(squared[index] <= bounds[index] + 2 * ROUNDING)
                if not len(near):
                    continue
                new = zip(_distances(query, rows[near]), near.tolist(), strict=True)
                best[index] += [_Candidate(distance, ids[at], groups[at]) for distance, at in new]
                best[index] = sorted(best[index])[:count]
                if len(best[index]) == count:
                    bounds[index] = min(bounds[index], best[index][-1].distance ** 2)
        found += best
    return found


def _by_scanning(
    store: Store, queries: np.ndarray, count: int, plan: _Plan, group_by: str | None
) -> list[list[_Candidate]]:
    """Find the nearest rows by LanceDB's own scan of all that pass the filter, in float32."""
    found = []
    for query in queries:
        limit, candidates, complete = count + _MORE, [], count == 0
        while not complete:
            asked = (
                store.table.search(query, vector_column_name=DESCRIPTOR)
                .distance_type("l2")
                .bypass_vector_index()
                .select([*store.row_columns, DESCRIPTOR, "_distance"])
                .limit(limit)
            )
            if plan.condition is not None:
                asked = asked.where(plan.condition, prefilter=True)
            table = asked.to_arrow()
            candidates = _candidates(query, table, group_by)
            farthest = max(table["_distance"].to_pylist(), default=0.0)
            # Rounding may have put some behind the limit that are as near as the last one asked for.
            complete = len(table) < limit or farthest > candidates[count - 1].distance ** 2 + 2 * ROUNDING
            limit *= 4
        found.append(candidates[:count])
    return found


def _candidates(query: np.ndarray, table: Any, group_by: str | None) -> list[_Candidate]:
    """Return rows with their true distances, sorted by rank."""
    seen = _seen(table)
    distances = _distances(query, np.stack([one.vector for one in seen])) if seen else []
    return sorted(map(_Candidate, distances, table["id"].to_pylist(), _groups(table, group_by), seen))


def _seen(table: Any) -> list[_Seen]:
    return list(map(_Seen, rows_of(table), as_matrix(table[DESCRIPTOR]))) if len(table) else []


def _look_up(store: Store, ids: set[str]) -> dict[str, _Seen]:
    """Return rows by their ids; absent ones are left out."""
    return {one.row.id: one for one in _seen(store.fetch(sorted(ids), [*store.row_columns, DESCRIPTOR]))}


def _read(store: Store, condition: str | None, group_by: str | None) -> Iterator[Any]:
    return store.read(["id", DESCRIPTOR, *_group_columns(group_by)], condition)


def _by_index(
    store: Store, queries: np.ndarray, count: int, plan: _Plan, group_by: str | None
) -> list[list[_Candidate]]:
    """Find the nearest rows among those that the index proposes and those that it lacks."""
    if not count:
        return [[] for _ in queries]
    return [_candidates(query, _proposed(store, query, count, plan), group_by)[:count] for query in queries]


def _proposed(store: Store, query: np.ndarray, count: int, plan: _Plan) -> pa.Table:
    """Return enough of the rows that meet the condition for their true distances to decide.

    Codes of 4 bits a column have 99 % of the nearest rows among the first ``2 * count``, if there are many
    (benchmarks/search.py); of few, a chance order of equals must not decide.
    """
    proposals = 2 * count + 16
    if plan.condition is not None and plan.share > _COMMON:
        most = math.ceil(1.2 * proposals / plan.share)
        if most <= _MOST_PROPOSED:
            found = _ask_index(store, query).where(plan.condition, prefilter=False).limit(most).to_arrow()
            # Fewer pass where people who look alike are those that the filter leaves out.
            if len(found) >= 0.75 * proposals:
                return found
    asked = _ask_index(store, query).limit(count).refine_factor(-(-proposals // count))
    if plan.condition is not None:
        asked = asked.where(plan.condition, prefilter=True)
    return asked.to_arrow()


def _ask_index(store: Store, query: np.ndarray) -> Any:
    return (
        store.table.search(query, vector_column_name=DESCRIPTOR)
        .select([*store.row_columns, DESCRIPTOR, "_distance"])
        .nprobes(len(store) // PARTITION + 1)
    )


def _distances(query: np.ndarray, rows: np.ndarray) -> list[float]:
    """Return Euclidean distances by definition: equal for equal rows, and 0 for the same row."""
    difference = rows.astype(np.float64) - query
    out: list[float] = np.sqrt(np.einsum("nd,nd->n", difference, difference)).tolist()
    return out
