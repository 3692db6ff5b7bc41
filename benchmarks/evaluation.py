"""What evaluation costs beside the bare matrix product of the same size, in one run.

    python benchmarks/evaluation.py                                      Market-1501's shape
    python benchmarks/evaluation.py --labels Market-1501-labels          its real identities and cameras
    python benchmarks/evaluation.py --plain                              beside the whole matrix, sorted, in numpy
    python benchmarks/evaluation.py --shape msmt17
    python benchmarks/evaluation.py --shape market1501-500k --dim 512    with 500,000 distractors
    python benchmarks/evaluation.py --grow 1 2 4 8                       galleries so many times as large

Descriptors are random, with identity structure: a centre for each person, and noise. The product is float32, written
block by block into memory that is there. Ways take turns, and the median counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from measure import Cost, Labels, descriptors, drawn_labels, market_labels, measure

import reprism


@dataclass
class Arguments:
    """What evaluation costs beside the bare matrix product of the same size, in one run."""

    shape: Literal["market1501", "msmt17", "market1501-500k"] = "market1501"
    """How many queries and gallery rows."""
    dim: int = 3328
    """Columns of a descriptor."""
    noise: float = 1.5
    """How far descriptors lie from their person's centre, in its own length."""
    labels: Path | None = None
    """Folder with Market-1501's own identities and cameras: queryID.mat, queryCam.mat, testID.mat, testCam.mat."""
    turns: int = 3
    """Turns of each way."""
    plain: bool = False
    """Time the whole matrix and its argsort in numpy too, as the definition has it."""
    grow: tuple[int, ...] = (1,)
    """Galleries so many times as large: the rest are distractors."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    smallest = market_labels(arguments.labels) if arguments.labels else drawn_labels(arguments.shape)
    for times in arguments.grow:
        extra = np.zeros((times - 1) * len(smallest.gallery_pids), int)
        labels = smallest._replace(
            gallery_pids=np.concatenate([smallest.gallery_pids, extra]),
            gallery_camids=np.concatenate([smallest.gallery_camids, extra]),
        )
        query, gallery = descriptors(labels, arguments.dim, arguments.noise)
        print(f"{len(query)} x {len(gallery)}, {arguments.dim} columns, {torch.get_num_threads()} threads")
        scores: dict[str, float] = {}
        ways: dict[str, Callable[[], object]] = {
            "product": lambda query=query, gallery=gallery: product(query, gallery),
            "evaluate": lambda query=query, gallery=gallery, labels=labels, scores=scores: scores.update(
                evaluate=reprism.evaluate(query, gallery, *labels).mAP
            ),
        }
        if arguments.plain:
            ways["plain"] = lambda query=query, gallery=gallery, labels=labels, scores=scores: scores.update(
                plain=plain(query.numpy(), gallery.numpy(), labels)
            )
        report(measure(ways, arguments.turns), scores)


def report(costs: dict[str, Cost], scores: dict[str, float]) -> None:
    """One line for each way."""
    for name, cost in costs.items():
        ratio = cost.seconds / costs["product"].seconds
        score = f"  mAP {scores[name]:.6f}" if name in scores else ""
        print(f"  {name:9} {cost.seconds:8.3f} s  {ratio:6.3f} x product  {cost.megabytes:6.0f} MB{score}")


def product(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """Every query with every gallery row, into one block of 64 MB: large enough both ways for full speed."""
    block = torch.empty(1024 * 16384)
    for some in query.split(1024):
        for others in gallery.split(16384):
            torch.mm(some, others.T, out=block[: len(some) * len(others)].view(len(some), len(others)))


def plain(query: np.ndarray, gallery: np.ndarray, labels: Labels) -> float:
    """Mean average precision as the definition has it: the whole matrix, sorted row by row."""
    distances = (query**2).sum(1)[:, None] + (gallery**2).sum(1) - 2 * query @ gallery.T
    order = np.argsort(distances, axis=1, kind="stable")
    found = []
    for row, pid, camid in zip(order, labels.query_pids, labels.query_camids, strict=True):
        same = labels.gallery_pids[row] == pid
        matches = same[~(same & (labels.gallery_camids[row] == camid))]
        ranks = 1 + np.flatnonzero(matches)
        if len(ranks):
            found.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
    return float(np.mean(found))


if __name__ == "__main__":
    main()
