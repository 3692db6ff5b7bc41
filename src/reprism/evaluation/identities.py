"""Identities as integer codes: the true matches of each query, and the rows that its own camera saw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from torch import Tensor

Labels: TypeAlias = Sequence[Any] | np.ndarray | Tensor


class Pairs(NamedTuple):
    """Gallery rows (columns of the distances) of some queries' identities; each array lists pairs."""

    rows: np.ndarray  # true matches: the query's index in its block,
    slots: np.ndarray  # how many matches of that query come earlier in the gallery,
    columns: np.ndarray  # and the gallery row
    ignored_rows: np.ndarray  # seen by the query's own camera
    ignored_columns: np.ndarray


@dataclass(frozen=True)
class Identities:
    """Identities as integer codes: gallery rows grouped by identity, and where each query's group lies."""

    members: np.ndarray  # M gallery rows grouped by identity, ascending inside a group
    group_start: np.ndarray  # N
    group_size: np.ndarray  # N
    num_matches: np.ndarray  # N, after the camera rule
    most: int  # largest group_size
    cameras: tuple[np.ndarray, np.ndarray] | None  # N and M

    @classmethod
    def of(
        cls,
        query: tuple[Labels, Labels | None],
        gallery: tuple[Labels, Labels | None],
        num_queries: int,
        gallery_size: int,
    ) -> Identities:
        """Number the labels of both sides (pids, camids); camids None on both sides: cameras unknown.

        Raises:
            ValueError: Labels of another length, missing ones, or no query with a true match.
            TypeError: Labels that cannot be hashed.
        """
        qp = _label_list(query[0], "query_pids", num_queries)
        gp = _label_list(gallery[0], "gallery_pids", gallery_size)
        if (query[1] is None) != (gallery[1] is None):
            given, missing = ("gallery", "query") if query[1] is None else ("query", "gallery")
            raise ValueError(f"{given}_camids were given but not {missing}_camids: give both, or None for both")
        q, g = _codes(qp, gp)
        members = np.argsort(g, kind="stable")
        grouped = g[members]
        start = np.searchsorted(grouped, q)
        size = np.searchsorted(grouped, q, side="right") - start
        num_matches, cameras = size, None
        if query[1] is not None and gallery[1] is not None:
            cameras = _codes(
                _label_list(query[1], "query_camids", num_queries),
                _label_list(gallery[1], "gallery_camids", gallery_size),
            )
            span = int(max(c.max() for c in cameras)) + 1
            seen, same = np.sort(g * span + cameras[1]), q * span + cameras[0]
            num_matches = size - (np.searchsorted(seen, same, side="right") - np.searchsorted(seen, same))
        if not num_matches.any():
            raise ValueError(
                f"no valid query: none of the {num_queries} queries has a gallery row of its identity"
                f"{' under another camera' if cameras else ''}; check that both sides label alike "
                f"(the first query is {qp[0]!r}, the first gallery row {gp[0]!r})"
            )
        return cls(members, start, size, num_matches, int(size.max()), cameras)

    def query_order(self) -> np.ndarray:
        """Valid queries by where their identity lies in the gallery: neighbours' matches lie close by."""
        valid = np.flatnonzero(self.num_matches)
        return valid[np.argsort(self.members[self.group_start[valid]], kind="stable")]

    def pairs(self, queries: np.ndarray) -> Pairs:
        """Matches and ignored rows of some queries (B indices)."""
        size = self.group_size[queries]
        rows = np.repeat(np.arange(len(queries)), size)
        offset = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
        columns = self.members[self.group_start[queries][rows] + offset]
        if self.cameras is None:
            none = rows[:0]
            return Pairs(rows, offset, columns, none, none)
        ignored = self.cameras[0][queries][rows] == self.cameras[1][columns]
        r, c = rows[~ignored], columns[~ignored]
        n = self.num_matches[queries]
        slots = np.arange(len(r)) - np.repeat(np.cumsum(n) - n, n)
        return Pairs(r, slots, c, rows[ignored], columns[ignored])


def _codes(query: list[Any], gallery: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    code: dict[Any, int] = {}
    both = np.fromiter((code.setdefault(x, len(code)) for x in (*query, *gallery)), dtype=np.int64)
    return both[: len(query)], both[len(query) :]


def _label_list(labels: Labels, name: str, expected: int) -> list[Any]:
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if not isinstance(values, list) or len(values) != expected:
        given = len(values) if isinstance(values, list) else f"the single value {values!r}"
        raise ValueError(f"{name} has {given} labels for {expected} rows: give one per row, in the same order")
    # Tensors hash by identity, so equal ones would count as different labels.
    values = [x.item() if isinstance(x, Tensor) else x for x in values]
    try:
        distinct = set(values)
    except TypeError:
        raise TypeError(
            f"{name} holds labels that cannot be hashed (the first label is {values[0]!r}): "
            "expected a flat sequence of integers, strings or other hashables"
        ) from None
    if any(x is None or (isinstance(x, float) and math.isnan(x)) for x in distinct):
        raise ValueError(f"{name} holds None or NaN: every row needs a label; drop or label those without")
    return values
