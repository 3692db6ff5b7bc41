"""Questions worth asking: groups of rows of which it is doubtful whether they are one person."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from reprism.gallery.database import DOUBTS
from reprism.gallery.link_tables import read_table, replace_table
from reprism.gallery.store import Store

MOST_DOUBTS = 1_000
"""Doubts that are kept, the greatest of all."""

_IDS = pa.list_(pa.string())
_DOUBTS = pa.schema(
    [
        pa.field("one", _IDS, nullable=False),
        pa.field("other", _IDS, nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
        pa.field("doubt", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Doubt:
    """Two groups of rows that are either two people but might be one, or one person but might be two.

    Attributes:
        one, other: Ids of the rows of either; the first of each are the two that look most alike.
        probability: That both are one person, 0 … 1.
        doubt: Probability that things are not as they are now, 0 … 1.
    """

    one: tuple[str, ...]
    other: tuple[str, ...]
    probability: float
    doubt: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


def read_doubts(store: Store, person: Mapping[str, int]) -> list[Doubt]:
    """Return the doubts that still hold, the greatest first.

    Args:
        store: The gallery's.
        person: Each row's person: a doubt holds while the rows of either group have one.
    """
    found = read_table(store, DOUBTS)
    doubts = [] if found is None else [_doubt(row) for row in found.to_pylist()]
    return [
        doubt
        for doubt in doubts
        if all(
            len({person.get(row) for row in group}) == 1 and group[0] in person for group in (doubt.one, doubt.other)
        )
    ]


def write_doubts(store: Store, doubts: Iterable[Doubt]) -> None:
    """While writing: keep the greatest doubts, instead of those before."""
    most = sorted(doubts, key=lambda doubt: (-doubt.doubt, doubt.one, doubt.other))[:MOST_DOUBTS]
    replace_table(store, DOUBTS, pa.Table.from_pylist([asdict(doubt) for doubt in most], schema=_DOUBTS))


def forget_doubts(store: Store, kept: Collection[str]) -> None:
    """While writing: remove the doubts about rows other than some."""
    found = read_table(store, DOUBTS)
    if found is not None:
        before = [_doubt(row) for row in found.to_pylist()]
        after = [doubt for doubt in before if all(row in kept for row in (*doubt.one, *doubt.other))]
        if len(after) < len(before):
            write_doubts(store, after)


def _doubt(row: dict[str, Any]) -> Doubt:
    return Doubt(**row | {name: tuple(row[name]) for name in ("one", "other")})
