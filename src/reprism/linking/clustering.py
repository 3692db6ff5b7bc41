"""Cluster rows into people: by what speaks for and against each pair, under constraints, sparse, and in any order."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def cluster(
    count: int,
    pairs: np.ndarray,
    weights: np.ndarray,
    *,
    missing: float = -3.0,
    together: np.ndarray | None = None,
    apart: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster rows of which some pairs have a weight.

    The two clusters are joined, again and again, for which the mean weight of all pairs between them is largest, as
    long as it is above 0 (average linkage, on a sparse graph). Rows that no chain of pairs above 0 connects are never
    compared: rows that come later change the clusters that such a chain reaches from them, and no other.

    Args:
        count: Number of rows, N.
        pairs: M×2 integers 0 … N-1, each unordered pair at most once, none of a row with itself.
        weights: M: natural logarithm of the odds that both are of one person, finite.
        missing: Weight of every pair that is not among ``pairs``, below 0.
        together: K×2: pairs that are of one person, whatever their weights.
        apart: L×2: pairs that are of two people, whatever their weights.

    Returns:
        N int64: the number of each row's cluster, from 0 on, in the order of their first rows. Rows in another order
        have the same clusters, unless two of the means are equal. And N booleans, by which a cluster would come apart
        first: the same for two rows of one cluster if they were in one before its last join. All are False in a cluster
        that was together from the start.

    Raises:
        ValueError: Shapes or numbers are not as above; or rows that are together are apart too, which is named.
    """
    pairs, weights = check_pairs(count, pairs, "pairs"), np.asarray(weights, float).reshape(-1)
    if len(weights) != len(pairs) or not np.isfinite(weights).all():
        raise ValueError(f"expected a finite weight for each of {len(pairs)} pairs, got {len(weights)}")
    if not missing < 0:
        raise ValueError(f"missing={missing}: expected a number below 0")
    ties, bars = check_pairs(count, together, "together"), check_pairs(count, apart, "apart")
    # What is together is one node from the start.
    nodes, node = connected_components(pair_graph(count, ties), directed=False)
    barred = node[bars]
    if len(same := np.flatnonzero(barred[:, 0] == barred[:, 1])):
        first, second = bars[same[0]]
        raise ValueError(f"rows {first} and {second} are to be together, by themselves or by others, and to be apart")
    sizes = np.bincount(node, minlength=nodes)
    label, second_half = np.arange(nodes), np.zeros(nodes, bool)
    for group in _groups(nodes, node[pairs], weights, barred):
        group.join(sizes, missing, label, second_half)
    _, first_rows, numbers = np.unique(label[node], return_index=True, return_inverse=True)
    rank = np.empty(len(first_rows), np.int64)
    rank[np.argsort(first_rows)] = np.arange(len(first_rows))
    return rank[numbers], second_half[node]


def check_pairs(count: int, pairs: np.ndarray | None, name: str) -> np.ndarray:
    """Return pairs of rows as M×2 int64; None: no pairs.

    Args:
        count: Number of rows.
        pairs: M×2 integers 0 … count - 1, no row with itself.
        name: What to call them in an error.

    Raises:
        ValueError: They are something else.
    """
    found = np.zeros((0, 2), np.int64) if pairs is None else np.asarray(pairs).reshape(-1, 2)
    if len(found) and (found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= count):
        raise ValueError(f"{name}: expected pairs of numbers 0 … {count - 1}")
    if len(same := np.flatnonzero(found[:, 0] == found[:, 1])):
        raise ValueError(f"{name}: row {found[same[0], 0]} makes a pair with itself")
    return found.astype(np.int64)


def pair_graph(count: int, pairs: np.ndarray) -> coo_array:
    """Return a graph of rows with an edge for each pair."""
    return coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))


@dataclass
class _Group:
    """Nodes that pairs above 0 connect; nothing else can become one of their clusters.

    Attributes:
        edges: E×2, nodes, the smaller one first.
        sums, counts: E: sum of the weights between the two, and number of pairs of rows that have one.
        bars: Pairs of nodes that are apart.
    """

    edges: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    bars: np.ndarray

    def join(self, sizes: np.ndarray, missing: float, label: np.ndarray, second_half: np.ndarray) -> None:
        """Join the nodes to clusters; write each node's first one into ``label``, and whether it came with the last."""
        near: dict[int, dict[int, tuple[float, int]]] = defaultdict(dict)
        for (one, other), total, number in zip(
            self.edges.tolist(), self.sums.tolist(), self.counts.tolist(), strict=True
        ):
            near[one][other] = near[other][one] = (total, number)
        apart: dict[int, set[int]] = defaultdict(set)
        for one, other in self.bars.tolist():
            apart[one].add(other)
            apart[other].add(one)
        size = {node: int(sizes[node]) for node in near}
        members = {node: [node] for node in near}
        first_half = dict.fromkeys(near, 1)  # length of the first half of a cluster's members
        heap: list[tuple[float, int, int, float, int]] = []

        def offer(one: int, other: int) -> None:
            total, number = near[one][other]
            whole = size[one] * size[other]
            mean = (total + missing * (whole - number)) / whole
            if mean > 0 and other not in apart[one]:
                heapq.heappush(heap, (-mean, min(one, other), max(one, other), total, whole))

        for one, other in self.edges.tolist():
            offer(one, other)
        while heap:
            _, one, other, total, whole = heapq.heappop(heap)
            # What was offered before one of them grew counts no more.
            if near[one].get(other, (None, 0))[0] != total or size[one] * size[other] != whole or other in apart[one]:
                continue
            first_half[one] = len(members[one])
            members[one] += members.pop(other)
            size[one] += size.pop(other)
            del near[one][other], near[other][one]
            for third, (more, number) in near.pop(other).items():
                total, before = near[one].get(third, (0.0, 0))
                near[one][third] = near[third][one] = (total + more, before + number)
                del near[third][other]
            for third in apart.pop(other, ()):
                apart[third].discard(other)
                apart[third].add(one)
                apart[one].add(third)
            for third in near[one]:
                offer(one, third)
        for first, nodes in members.items():
            label[nodes] = min(nodes)
            second_half[nodes[first_half[first] :]] = True


def _groups(nodes: int, ends: np.ndarray, weights: np.ndarray, bars: np.ndarray) -> Iterator[_Group]:
    """Yield the groups of two nodes and more."""
    ends = np.sort(ends, axis=1)
    between = ends[:, 0] != ends[:, 1]
    ends, weights = ends[between], weights[between]
    _, group = connected_components(pair_graph(nodes, ends[weights > 0]), directed=False)
    ends, weights = (each[group[ends[:, 0]] == group[ends[:, 1]]] for each in (ends, weights))
    bars = bars[group[bars[:, 0]] == group[bars[:, 1]]]
    keys, places = np.unique(ends[:, 0] * nodes + ends[:, 1], return_inverse=True)
    edges = np.stack([keys // max(1, nodes), keys % max(1, nodes)], axis=1)
    sums, counts = np.bincount(places, weights, len(keys)), np.bincount(places, minlength=len(keys))
    of_edge, of_bar = group[edges[:, 0]], group[bars[:, 0]]
    edge_order, bar_order = np.argsort(of_edge, kind="stable"), np.argsort(of_bar, kind="stable")
    numbers, starts = np.unique(of_edge[edge_order], return_index=True)
    for number, some in zip(numbers, np.split(edge_order, starts[1:]) if len(starts) else (), strict=True):
        left, right = np.searchsorted(of_bar[bar_order], [number, number + 1])
        yield _Group(edges[some], sums[some], counts[some], bars[bar_order[left:right]])
