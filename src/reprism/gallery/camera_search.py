"""Find people in a gallery by descriptors that are normalized by camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from reprism.evaluation.camera_statistics import CameraStatistics, MadeBy
from reprism.gallery.filters import NO_FILTER, Filter
from reprism.gallery.rows import DESCRIPTOR, ROW_COLUMNS, as_matrix, normalized, rows_of
from reprism.gallery.search import EXACT_ROWS, ROUNDING, Match, search

if TYPE_CHECKING:
    from reprism.gallery.store import Store

PROPOSED = 1_000
"""Nearest rows, by descriptors as they are, that are put in order by normalized ones; ten for each wanted, if more."""


def search_by_camera(
    store: Store,
    descriptors: np.ndarray,
    cameras: Sequence[str | None],
    statistics: CameraStatistics,
    top: int = 20,
    where: Filter = NO_FILTER,
    *,
    exact: bool | None = None,
) -> list[list[Match]]:
    """Find the rows nearest to descriptors, both normalized by camera; see :meth:`reprism.Gallery.search_by_camera`."""
    projection = store.projection
    kind = store.info.kind
    statistics.check(MadeBy(kind.fingerprint, kind.flip, None if projection is None else projection.digest))
    if top < 1:
        raise ValueError(f"expected top of at least 1, got {top}")
    given = np.atleast_2d(np.asarray(descriptors))
    asked = normalized(given, store.descriptor_dim, "query")
    asked = statistics.apply(asked if projection is None else projection.apply(asked), cameras)
    if exact or (exact is None and (len(store) <= EXACT_ROWS or not store.has_index())):
        return _by_reading(store, asked, statistics, top, where)
    proposed = search(store, given, max(PROPOSED, 10 * top), where, shares=False, exact=exact)
    rows = _look_up(store, sorted({match.id for some in proposed for match in some}), statistics)
    results = []
    for query, some in zip(asked, proposed, strict=True):
        # Rows that were erased during the search are left out.
        near = [(_distance(query, rows[match.id]), match.id, match) for match in some if match.id in rows]
        results.append(
            [replace(match, rank=rank, distance=far) for rank, (far, _, match) in enumerate(sorted(near)[:top], 1)]
        )
    return results


def _by_reading(
    store: Store, asked: np.ndarray, statistics: CameraStatistics, top: int, where: Filter
) -> list[list[Match]]:
    """Compare with every row that passes, block by block."""
    best: list[list[tuple[float, str]]] = [[] for _ in asked]
    for batch in store.read(["id", "camid", DESCRIPTOR], where.sql()):
        rows = statistics.apply(as_matrix(batch[DESCRIPTOR]), batch["camid"].to_pylist())
        ids = batch["id"].to_pylist()
        squared = np.square(asked).sum(1)[:, None] + np.square(rows).sum(1) - 2 * asked @ rows.T
        for index, query in enumerate(asked):
            bound = np.inf if len(ids) <= top else float(np.partition(squared[index], top - 1)[top - 1])
            near = np.flatnonzero(squared[index] <= bound + 2 * ROUNDING)
            best[index] += [(_distance(query, rows[at]), ids[at]) for at in near]
            best[index] = sorted(best[index])[:top]
    columns = list(ROW_COLUMNS)
    ids = sorted({name for some in best for _, name in some})
    found = {row.id: row for row in rows_of(store.fetch(ids, columns))}
    results = []
    for some in best:
        left = [(far, name) for far, name in some if name in found]
        results.append(
            [Match(**vars(found[name]), rank=rank, distance=far) for rank, (far, name) in enumerate(left, 1)]
        )
    return results


def _look_up(store: Store, ids: Sequence[str], statistics: CameraStatistics) -> dict[str, np.ndarray]:
    """Return the normalized descriptors of rows by their ids; absent rows are left out."""
    found = store.fetch(ids, ["id", "camid", DESCRIPTOR])
    if not len(found):
        return {}
    rows = statistics.apply(as_matrix(found[DESCRIPTOR]), found["camid"].to_pylist())
    return dict(zip(found["id"].to_pylist(), rows, strict=True))


def _distance(query: np.ndarray, row: np.ndarray) -> float:
    return float(np.linalg.norm(row.astype(np.float64) - query))
