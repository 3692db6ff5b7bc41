"""Find how far apart strangers in a gallery are in each part, by which the parts of its matches are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reprism.evaluation.part_scale import PartScale, draw, pair_distances
from reprism.gallery.rows import DESCRIPTOR, as_matrix
from reprism.notation import Partition

if TYPE_CHECKING:
    from reprism.evaluation.calibration import Calibration
    from reprism.gallery.store import Store

SAMPLED_ROWS = 1000
"""Rows drawn at random, whose pairs stand for all."""

_PAIRS = 20_000
_NEIGHBOURS = 10  # of a row in the sample; fewer in a small one


def scale_of_matches(store: Store, calibration: Calibration | None = None) -> PartScale | None:
    """Return what the parts of a gallery's matches are measured by.

    Returns:
        The calibration's scale; without one :func:`part_scale`.

    Raises:
        ValueError: The calibration is of a network with other parts.
    """
    given = None if calibration is None else calibration.parts
    if given is None:
        return part_scale(store)
    names = [part.name for part in Partition.parse(store.partition).parts]
    if list(given.strangers) != names:
        raise ValueError(
            f"the calibration is of a network with the parts {', '.join(given.strangers)}, but the gallery's network "
            f"{store.partition} has {', '.join(names)}: calibrate the gallery's network (reprism calibrate)"
        )
    return given


def part_scale(store: Store) -> PartScale | None:
    """Return how far apart strangers in the gallery are in every part.

    Pairs of up to 1,000 rows are drawn at random. A pair of one identity or of one tracklet is no pair of strangers.
    Where an identity is unknown, a pair does not count either if one row is among the other's ten nearest in the
    sample (or the nearest tenth, if that is fewer). Pairs of the same person are not claimed.

    Kept in memory until the gallery changes: nothing of an erased row is left in it.

    Returns:
        The scale; None in a compressed gallery, whose columns belong to no part, and in one with too few pairs.
    """
    version = store.table.version
    kept = store.part_scale
    if kept is None or kept[0] != version:
        kept = store.part_scale = (version, _fit(store))
    return kept[1]


def _fit(store: Store) -> PartScale | None:
    if store.projection is not None:
        return None
    rng = np.random.default_rng(0)
    offsets = np.sort(draw(len(store), SAMPLED_ROWS, rng)).tolist()
    columns = ["pid", "tracklet", "camid", "source", DESCRIPTOR]
    table = store.table.take_offsets(offsets).select(columns).to_arrow()
    if not len(table):
        return None
    rows = as_matrix(table[DESCRIPTOR])
    first, second = np.nonzero(np.triu(_strangers(table, rows), 1))
    chosen = draw(len(first), _PAIRS, rng)
    partition = Partition.parse(store.partition)
    return PartScale.of_distances(partition, pair_distances(rows, rows, (first[chosen], second[chosen]), partition))


def _strangers(table: Any, rows: np.ndarray) -> np.ndarray:
    """Return which pairs of rows count as strangers, N×N."""
    pids = _codes(table["pid"].to_pylist())
    tracklets = [table[name].to_pylist() for name in ("tracklet", "camid", "source")]
    tracks = _codes([None if key[0] is None else key for key in zip(*tracklets, strict=True)])
    same = np.zeros((len(rows), len(rows)), dtype=bool)
    for codes in (pids, tracks):
        same |= (codes[:, None] == codes) & (codes >= 0)
    known = pids >= 0
    near = np.zeros_like(same)
    likeness = rows @ rows.T  # of rows of length 1: the nearest are the most alike
    np.fill_diagonal(likeness, -np.inf)
    count = min(_NEIGHBOURS, len(rows) // 10)
    if count:
        nearest = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        np.put_along_axis(near, nearest, True, axis=1)
    return ~same & ((known[:, None] & known) | ~(near | near.T))


def _codes(names: list[Any]) -> np.ndarray:
    """Return numbers for names, alike for alike ones; -1 for None."""
    numbers: dict[Any, int] = {}
    return np.array([-1 if name is None else numbers.setdefault(name, len(numbers)) for name in names])
