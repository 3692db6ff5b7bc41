"""What k-reciprocal re-ranking costs: seconds, and memory beyond the descriptors.

    python benchmarks/reranking.py                          3,368 queries and 15,913 gallery rows, 256 columns
    python benchmarks/reranking.py --plain                  beside the usual N x N matrices in numpy
    python benchmarks/reranking.py --rows 25000 50000 100000

Descriptors are random, with identity structure: a centre for each person (of some 20 rows), and noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from measure import Labels, descriptors, drawn_labels, measure

import reprism
from reprism.evaluation.ranking import evaluate_distances
from reprism.evaluation.reranking import RerankedDistances


@dataclass
class Arguments:
    """What k-reciprocal re-ranking costs: seconds, and memory beyond the descriptors."""

    rows: tuple[int, ...] = ()
    """Queries and gallery rows together; a sixth are queries. None: Market-1501's numbers."""
    dim: int = 256
    """Columns of a descriptor."""
    turns: int = 1
    """Turns of each way."""
    plain: bool = False
    """Time the usual N x N matrices in numpy too, as the definition has it."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    for rows in arguments.rows or (None,):
        labels = drawn_labels("market1501") if rows is None else people(rows)
        query, gallery = descriptors(labels, arguments.dim)
        print(f"{len(query)} + {len(gallery)} rows, {arguments.dim} columns, {torch.get_num_threads()} threads")
        results: dict[str, np.ndarray | torch.Tensor] = {}

        def sparse(query: torch.Tensor = query, gallery: torch.Tensor = gallery) -> float:
            """What the command line does: ranked block by block, no matrix kept."""
            reranked = RerankedDistances(query, gallery)
            return evaluate_distances(reranked, *labels).mAP  # noqa: B023  # called at once

        ways: dict[str, Callable[[], object]] = {"reprism": sparse}
        if rows is None:
            ways["to a matrix"] = lambda: results.update(reprism=reprism.rerank(query, gallery))  # noqa: B023
        if arguments.plain:
            ways["plain"] = lambda: results.update(plain=plain(query.numpy(), gallery.numpy()))  # noqa: B023
        for name, cost in measure(ways, arguments.turns).items():
            print(f"  {name:12} {cost.seconds:8.2f} s  {cost.megabytes:6.0f} MB")
        if len(results) == 2:
            difference = np.abs(np.asarray(results["reprism"]) - results["plain"])
            print(f"  of the two matrices' entries {(difference > 1e-5).mean():.2e} differ by more than 1e-5")


def people(rows: int) -> Labels:
    """Labels for so many rows, some 20 for a person, under 6 cameras."""
    rng = np.random.default_rng(0)
    pids, camids = 1 + rng.integers(0, max(1, rows // 20), rows), rng.integers(0, 6, rows)
    queries = rows // 6
    return Labels(pids[:queries], pids[queries:], camids[:queries], camids[queries:])


def plain(query: np.ndarray, gallery: np.ndarray, k1: int = 20, k2: int = 6, weight: float = 0.3) -> np.ndarray:
    """Zhong et al. (CVPR 2017) with N x N arrays: neighbours' vectors, their expansion, the Jaccard distance."""
    rows = np.concatenate([query, gallery])
    norms = (rows**2).sum(1)
    distances = np.maximum(norms[:, None] + norms - 2 * rows @ rows.T, 0)
    distances /= distances.max(1, keepdims=True)
    order = np.argsort(distances, axis=1, kind="stable")
    vectors = np.zeros_like(distances)
    half = round(k1 / 2)

    def reciprocal(row: int, k: int) -> np.ndarray:
        ahead = order[row, : k + 1]
        return ahead[(order[ahead, : k + 1] == row).any(1)]

    for row in range(len(rows)):
        whole = reciprocal(row, k1)
        expanded = whole
        for candidate in whole:
            theirs = reciprocal(candidate, half)
            if len(np.intersect1d(theirs, whole)) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        weights = np.exp(-distances[row, expanded])
        vectors[row, expanded] = weights / weights.sum()
    if k2 > 1:
        vectors = np.stack([vectors[order[row, :k2]].mean(0) for row in range(len(rows))])
    holders = [np.flatnonzero(vectors[:, column]) for column in range(len(rows))]
    out = np.empty((len(query), len(gallery)), np.float32)
    for row in range(len(query)):
        overlap = np.zeros(len(rows), np.float32)
        for column in np.flatnonzero(vectors[row]):
            holder = holders[column]
            overlap[holder] += np.minimum(vectors[row, column], vectors[holder, column])
        out[row] = (1 - overlap / (2 - overlap))[len(query) :] * (1 - weight)
    return out + distances[: len(query), len(query) :] * weight


if __name__ == "__main__":
    main()
