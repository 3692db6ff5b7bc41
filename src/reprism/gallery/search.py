"""Finding people in a gallery: the nearest rows of a descriptor, exactly or through the index.

The data flow one way: candidates (id, distance) -> groups -> rows with all that is known of them -> matches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reprism.evaluation.distances import part_distances
from reprism.evaluation.reranking import rerank as reranked_distances
from reprism.gallery.calibrating import Queries, check_calibration
from reprism.gallery.filters import Filter
from reprism.gallery.rows import DESCRIPTOR, ROW_COLUMNS, Row, as_matrix, normalised, rows_of
from reprism.gallery.strangers import scale_of_matches
from reprism.notation import Partition

if TYPE_CHECKING:
    from reprism.evaluation.calibration import Calibration
    from reprism.evaluation.part_scale import PartAgreement, PartScale
    from reprism.gallery.table import Gallery

__all__ = ["EXACT_ROWS", "FEW_ROWS", "GROUPS", "NO_FILTER", "PARTITION", "RERANKED", "Filter", "Match", "search"]

EXACT_ROWS = 50_000
"""In a gallery of so many rows, or fewer, a search is exact. In a larger one it goes by the index, if there is one, but
for ``FEW_ROWS`` or fewer that pass the filter."""

FEW_ROWS = 1_000
"""So many rows are read one by one faster than they are looked for in the index."""

RERANKED = 100
"""How many of the nearest rows re-ranking looks at, if ``top`` is less."""

GROUPS = ("pid", "tracklet")
"""What matches can be grouped by."""

PARTITION = 8192
"""Rows in a cell of the index. A search looks into all of them: people who look alike lie in many, and a row's code is
so short that reading every one costs less than missing some."""

NO_FILTER = Filter()

# By the index come so many times the rows wanted, and so many at least; their true distances decide.
_REFINED, _FEWEST_REFINED = 4, 64
_BLOCK = 2**25  # bytes of descriptors at a time
_QUERIES = 1024  # at a time
_FEW_QUERIES = 4  # each scans the table in less time than reading it takes once
_MORE = 16  # rows asked for beyond those wanted: the next distance then shows that none as near was left out
# Squared distances from a float32 matrix product, of rows of length 1, are wrong by less.
_ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Match(Row):
    """A row that was found, and how well it fits.

    Attributes:
        rank: From 1.
        distance: Euclidean, between descriptors of length 1: 0 … 2, as calibrations count it.
        probability: That it is the same person, if a calibration was given.
        shares: By part, its share of the squared distance: they sum to it. None in a compressed gallery, whose columns
            belong to no part any more, or if they were not wanted.
        parts: By part, how well it agrees, on a scale that is the same for all matches: the calibration's, or else that
            of the gallery's own strangers. None where there are no shares, or too few rows for such a scale.
        reranked: The distance after re-ranking, 0 … 1, which the ranks then go by.
    """

    rank: int
    distance: float
    probability: float | None = None
    shares: dict[str, float] | None = None
    parts: dict[str, PartAgreement] | None = None
    reranked: float | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it, the rank first."""
        values = asdict(self)
        first = ("rank", "distance", "path", "camid", "pid", "time", "probability")
        ordered = {name: values[name] for name in first} | values
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in ordered.items()}


class _Seen(NamedTuple):
    """What is known of a row that was read."""

    row: Row
    vector: np.ndarray


class _Split(NamedTuple):
    """A match part by part, as :class:`Match` has it."""

    shares: dict[str, float] | None = None
    parts: dict[str, PartAgreement] | None = None


class _Candidate(NamedTuple):
    """A row that may become a match; in the order of ranks. (Ids differ, so that no more than these are compared.)"""

    distance: float
    id: str
    group: str
    seen: _Seen | None = None  # if finding it has read the row anyway


def search(
    gallery: Gallery,
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
    """The rows nearest to some descriptors, by Euclidean distance between descriptors of length 1.

    Equal distances rank in the order of ids. Distances are exact to rounding also where the index found the rows.

    Args:
        gallery: Where to look.
        descriptors: N×D, of the model that made the gallery's, not compressed; or D: one.
        top: How many matches to give, at most; with ``group_by`` how many groups.
        where: Which rows count; the others are left out before the search.
        threshold: The largest distance of a match.
        calibration: Gives each match its probability, and measures its parts. It must be of this gallery's distances
            (:func:`reprism.gallery.calibrating.check_calibration`).
        queries: What the descriptors are of, images or pooled tracklets: the calibration must be of such queries.
        group_by: ``pid`` or ``tracklet``: of each group its nearest row stands for it. A row that has none is a group
            of its own.
        rerank: Whether to order the nearest rows by k-reciprocal re-ranking among the query and them.
        shares: Whether to compare part by part (default: yes).
        exact: True reads every row, however many; False goes by the index, however few. By custom it depends on how
            many there are (``EXACT_ROWS``), and how many pass the filter (``FEW_ROWS``).

    Returns:
        For each descriptor its matches, best first.

    Raises:
        ValueError: an option out of range, descriptors of another width or not finite, ``exact=False`` without an
            index, or a calibration of a network with other parts.
        CalibrationError: The calibration was fitted on other distances.
    """
    if calibration is not None:
        check_calibration(gallery, calibration, queries)
    if top < 1:
        raise ValueError(f"top is {top}; wanted is at least 1")
    if group_by is not None and group_by not in GROUPS:
        raise ValueError(f"group_by is {group_by!r}; wanted is one of {', '.join(GROUPS)}")
    if threshold is not None and not threshold >= 0:
        raise ValueError(f"threshold is {threshold}; distances are 0 … 2")
    given = np.atleast_2d(np.asarray(descriptors))
    asked, projection = normalised(given, gallery.descriptor_dim, "query"), gallery.projection
    if projection is not None:
        asked = projection.apply(asked)
    condition = where.sql()
    passing = int(gallery._table.count_rows(condition))
    by_index = _goes_by_index(gallery, passing, exact)
    found = _nearest(
        gallery, asked, max(top, RERANKED) if rerank else top, condition, passing, group_by, by_index=by_index
    )
    if threshold is not None:
        found = [[candidate for candidate in some if candidate.distance <= threshold] for some in found]
    rows = {candidate.id: candidate.seen for some in found for candidate in some if candidate.seen is not None}
    rows |= _look_up(gallery, {candidate.id for some in found for candidate in some}.difference(rows))
    partition = Partition.parse(gallery.partition) if shares and rows and projection is None else None
    scale = None if partition is None else scale_of_matches(gallery, calibration)
    results = []
    for query, candidates in zip(asked, found, strict=True):
        # Rows that were erased while the search went on are none any more.
        chosen = [candidate for candidate in candidates if candidate.id in rows]
        order, new = list(range(len(chosen))), None
        if rerank and chosen:
            new = reranked_distances(query[None], np.stack([rows[candidate.id].vector for candidate in chosen]))[0]
            order = np.argsort(new, kind="stable").tolist()
        order = order[:top]
        split: Sequence[_Split] = [_Split()] * len(order)
        if partition is not None and order:
            split = _split(query, np.stack([rows[chosen[at].id].vector for at in order]), partition, scale)
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


def _split(query: np.ndarray, best: np.ndarray, partition: Partition, scale: PartScale | None) -> list[_Split]:
    """Split the distances of a query to its matches by part."""
    distances = part_distances(query[None], best, partition)
    names = [part.name for part in partition.parts]
    shares = [dict(zip(names, row.tolist(), strict=True)) for row in distances]
    return list(map(_Split, shares, [None] * len(shares) if scale is None else scale.agreement(distances)))


def _goes_by_index(gallery: Gallery, passing: int, exact: bool | None) -> bool:
    if exact or (exact is None and (passing <= FEW_ROWS or len(gallery) <= EXACT_ROWS)):
        return False
    if gallery.has_index():
        return True
    if exact is False:
        raise ValueError(f"the gallery {gallery.uri} has no index: build it with Gallery.optimize() (reprism optimize)")
    return False


# ---- candidates ------------------------------------------------------------------------------------------


def _nearest(
    gallery: Gallery,
    queries: np.ndarray,
    top: int,
    condition: str | None,
    passing: int,
    group_by: str | None,
    *,
    by_index: bool,
) -> list[list[_Candidate]]:
    """The first ``top`` candidates of every query, or those that stand for the first ``top`` groups."""
    one_by_one = len(queries) <= _FEW_QUERIES and gallery.storage == "float32"
    find = _by_index if by_index else _by_scanning if one_by_one else _by_reading
    found: list[list[_Candidate]] = [[] for _ in queries]
    open_queries, wanted = list(range(len(queries))), top
    # The first so many groups are those among the first so many rows, if these are of enough groups.
    while open_queries:
        batch = find(gallery, queries[open_queries], min(wanted, passing), condition, group_by)
        short = [at for at, some in zip(open_queries, batch, strict=True) if len(some) < min(wanted, passing)]
        if by_index and short:
            # A filter may leave the index too few of the rows that it looks at.
            exact = dict(
                zip(short, _by_reading(gallery, queries[short], min(wanted, passing), condition, group_by), strict=True)
            )
            batch = [exact.get(at, some) for at, some in zip(open_queries, batch, strict=True)]
        for at, some in zip(open_queries, batch, strict=True):
            found[at] = _first_of_groups(some)[:top] if group_by else some
        open_queries = [at for at in open_queries if len(found[at]) < top] if wanted < passing and group_by else []
        wanted *= 8
    return found


def _first_of_groups(candidates: list[_Candidate]) -> list[_Candidate]:
    first: dict[str, _Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.group, candidate)
    return list(first.values())


def _groups(batch: Any, group_by: str | None) -> list[str]:
    """The group of each row; of none, its own id, which no name of a group is like."""
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
    gallery: Gallery, queries: np.ndarray, count: int, condition: str | None, group_by: str | None
) -> list[list[_Candidate]]:
    """The nearest rows by reading all that pass: one matrix product for each block and all queries."""
    found: list[list[_Candidate]] = []
    for start in range(0, len(queries), _QUERIES):
        some = queries[start : start + _QUERIES]
        best: list[list[_Candidate]] = [[] for _ in some]
        bounds = np.full(len(some), np.inf)
        for batch in _read(gallery, condition, group_by) if count else ():
            rows = as_matrix(batch[DESCRIPTOR])
            squared = np.square(some).sum(1)[:, None] + np.square(rows).sum(1) - 2 * (some @ rows.T)
            if count < len(rows):
                bounds = np.minimum(bounds, np.partition(squared, count - 1, axis=1)[:, count - 1])
            ids, groups = batch["id"].to_pylist(), _groups(batch, group_by)
            for place, query in enumerate(some):
                near = np.flatnonzero(squared[place] <= bounds[place] + 2 * _ROUNDING)
                if not len(near):
                    continue
                new = zip(_distances(query, rows[near]), near.tolist(), strict=True)
                best[place] += [_Candidate(distance, ids[at], groups[at]) for distance, at in new]
                best[place] = sorted(best[place])[:count]
                if len(best[place]) == count:
                    bounds[place] = min(bounds[place], best[place][-1].distance ** 2)
        found += best
    return found


def _by_scanning(
    gallery: Gallery, queries: np.ndarray, count: int, condition: str | None, group_by: str | None
) -> list[list[_Candidate]]:
    """The nearest rows by LanceDB's own pass over all that pass the filter, whose sums are float32's."""
    found = []
    for query in queries:
        limit, candidates, complete = count + _MORE, [], count == 0
        while not complete:
            asked = (
                gallery._table.search(query, vector_column_name=DESCRIPTOR)
                .distance_type("l2")
                .bypass_vector_index()
                .select([*ROW_COLUMNS, DESCRIPTOR, "_distance"])
                .limit(limit)
            )
            if condition is not None:
                asked = asked.where(condition, prefilter=True)
            table = asked.to_arrow()
            candidates = _candidates(query, table, group_by)
            farthest = max(table["_distance"].to_pylist(), default=0.0)
            # As near as the last one wanted may be, to rounding, some that this pass has put behind the limit.
            complete = len(table) < limit or farthest > candidates[count - 1].distance ** 2 + 2 * _ROUNDING
            limit *= 4
        found.append(candidates[:count])
    return found


def _candidates(query: np.ndarray, table: Any, group_by: str | None) -> list[_Candidate]:
    """Rows with their true distances, in the order of ranks."""
    seen = _seen(table)
    distances = _distances(query, np.stack([one.vector for one in seen])) if seen else []
    return sorted(map(_Candidate, distances, table["id"].to_pylist(), _groups(table, group_by), seen))


def _seen(table: Any) -> list[_Seen]:
    return list(map(_Seen, rows_of(table), as_matrix(table[DESCRIPTOR]))) if len(table) else []


def _look_up(gallery: Gallery, ids: set[str]) -> dict[str, _Seen]:
    """Rows by their ids; those that are gone are left out."""
    return {one.row.id: one for one in _seen(gallery._fetch(sorted(ids), [*ROW_COLUMNS, DESCRIPTOR]))}


def _read(gallery: Gallery, condition: str | None, group_by: str | None) -> Iterator[Any]:
    query = gallery._table.search().select(["id", DESCRIPTOR, *_group_columns(group_by)])
    if condition is not None:
        query = query.where(condition)
    return query.to_batches(max(1, _BLOCK // (4 * gallery.dim)))


def _by_index(
    gallery: Gallery, queries: np.ndarray, count: int, condition: str | None, group_by: str | None
) -> list[list[_Candidate]]:
    """The nearest rows among those that the index proposes, and all that it does not know yet."""
    found = []
    refined = max(_REFINED, -(-_FEWEST_REFINED // max(1, count)))
    for query in queries:
        asked = (
            gallery._table.search(query, vector_column_name=DESCRIPTOR)
            .select([*ROW_COLUMNS, DESCRIPTOR, "_distance"])
            .nprobes(len(gallery) // PARTITION + 1)
            .refine_factor(refined)
            .limit(count)
        )
        if condition is not None:
            asked = asked.where(condition, prefilter=True)
        table = asked.to_arrow()
        found.append(_candidates(query, table, group_by))
    return found


def _distances(query: np.ndarray, rows: np.ndarray) -> list[float]:
    """Euclidean distances by their definition: of equal rows equal, and of the same row 0."""
    difference = rows.astype(np.float64) - query
    out: list[float] = np.sqrt(np.einsum("nd,nd->n", difference, difference)).tolist()
    return out
