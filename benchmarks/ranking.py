"""What evaluation costs beside the bare matrix product of the same size, in one run.

    python benchmarks/ranking.py                                      Market-1501's shape
    python benchmarks/ranking.py --labels Market-1501-labels          its real identities and cameras
    python benchmarks/ranking.py --shape msmt17 --dim 256
    python benchmarks/ranking.py --shape market1501-500k --dim 256    with 500,000 distractors
    python benchmarks/ranking.py --rerank --dim 256                   k-reciprocal re-ranking

Descriptors are random, with identity structure: a centre for each person, and noise. The product is float32, written
block by block into memory that is there, which is the least that any exact ranking computes. Ranking and product take
turns, and the median counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from scipy.io import loadmat

import reprism

# Queries, gallery (distractors included, junk not), people, cameras, distractors.
SHAPES = {
    "market1501": (3_368, 15_913, 750, 6, 2_798),
    "msmt17": (11_659, 82_161, 3_060, 15, 0),
    "market1501-500k": (3_368, 515_913, 750, 6, 502_798),
}


@dataclass
class Arguments:
    """What evaluation costs beside the bare matrix product of the same size, in one run."""

    shape: Literal["market1501", "msmt17", "market1501-500k"] = "market1501"
    """How many queries and gallery rows."""
    dim: int = 3328
    """Columns of a descriptor."""
    labels: Path | None = None
    """Folder with Market-1501's own identities and cameras: queryID.mat, queryCam.mat, testID.mat, testCam.mat."""
    turns: int = 3
    """Turns of each way."""
    rerank: bool = False
    """Time re-ranking instead: seconds and memory, of queries and gallery together."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    query_pids, gallery_pids, query_camids, gallery_camids = labels(arguments)
    query, gallery = descriptors(query_pids, gallery_pids, arguments.dim)
    print(f"{len(query)} x {len(gallery)}, {arguments.dim} columns, {torch.get_num_threads()} threads")
    if arguments.rerank:
        reset_peak()
        before, started = memory("VmRSS"), time.perf_counter()
        reprism.rerank(query, gallery)
        seconds = time.perf_counter() - started
        print(f"re-ranking: {seconds:.2f} s, {memory('VmHWM') - before:.0f} MB beyond the descriptors")
        return
    ways: dict[str, Callable[[], object]] = {
        "product": lambda: product(query, gallery),
        "ranking": lambda: reprism.evaluate(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids),
    }
    for run in ways.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.turns):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    middle = {name: statistics.median(values) for name, values in times.items()}
    reset_peak()
    before = memory("VmRSS")
    metrics = reprism.evaluate(query, gallery, query_pids, gallery_pids, query_camids, gallery_camids)
    extra = memory("VmHWM") - before
    print(f"product {middle['product']:.3f} s, ranking {middle['ranking']:.3f} s, extra memory {extra:.0f} MB")
    print(f"ranking / product {middle['ranking'] / middle['product']:.3f}    (mAP {metrics.mAP:.4f})")


def labels(arguments: Arguments) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Identities of both sides, then cameras of both."""
    if arguments.labels is not None:
        names = {path.stem.lower(): path for path in arguments.labels.glob("*.mat")}
        found = []
        for name in ("queryid", "testid", "querycam", "testcam"):
            table = loadmat(names[name])
            found.append(next(value for key, value in table.items() if not key.startswith("__")).ravel().astype(int))
        wanted = found[1] != -1
        return found[0], found[1][wanted], found[2], found[3][wanted]
    queries, gallery, people, cameras, distractors = SHAPES[arguments.shape]
    rng = np.random.default_rng(0)
    gallery_pids = np.concatenate([np.zeros(distractors, int), 1 + np.arange(gallery - distractors) % people])
    query_pids = 1 + np.arange(queries) % people
    return query_pids, np.sort(gallery_pids), rng.integers(0, cameras, queries), rng.integers(0, cameras, gallery)


def descriptors(query_pids: np.ndarray, gallery_pids: np.ndarray, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of length 1 around a centre for each person; distractors around nothing."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(int(max(query_pids.max(), gallery_pids.max())) + 1, dim, generator=generator)
    centres[0] = 0
    sides = []
    for pids in (query_pids, gallery_pids):
        rows = torch.randn(len(pids), dim, generator=generator).mul_(1.5)
        for some in torch.arange(len(pids)).split(10_000):
            rows[some] += centres[torch.from_numpy(pids)[some]]
        sides.append(torch.nn.functional.normalize(rows, dim=1, out=rows))
    return sides[0], sides[1]


def product(query: torch.Tensor, gallery: torch.Tensor) -> None:
    """Every query with every gallery row, a block of 64 MB at a time."""
    rows = max(32, 2**24 // len(gallery))
    block = torch.empty(rows, len(gallery))
    for some in query.split(rows):
        torch.mm(some, gallery.T, out=block[: len(some)])


def memory(field: str) -> float:
    """Megabytes of this process: VmRSS now, VmHWM at most since the reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def reset_peak() -> None:
    """Forget the peak so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
