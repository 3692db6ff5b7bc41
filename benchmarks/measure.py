"""What the benchmarks share: descriptors with identity structure, and the time and memory that something takes."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.io import loadmat

# Queries, gallery (distractors included, junk not), people, cameras, distractors.
SHAPES = {
    "market1501": (3_368, 15_913, 750, 6, 2_798),
    "msmt17": (11_659, 82_161, 3_060, 15, 0),
    "market1501-500k": (3_368, 515_913, 750, 6, 502_798),
}


# SCR's backbones that are timed, with the height and width of their images.
NETWORKS = {"resnet50": ("resnet50", (384, 192)), "lite0": ("tf_efficientnet_lite0", (192, 96))}


class Labels(NamedTuple):
    """Who and where, in the order that ``reprism.evaluate`` takes them."""

    query_pids: np.ndarray
    gallery_pids: np.ndarray
    query_camids: np.ndarray
    gallery_camids: np.ndarray


class Cost(NamedTuple):
    """What a call took."""

    seconds: float  # the median of its turns
    megabytes: float  # the most beyond what was there before


@contextmanager
def from_extra() -> Iterator[None]:
    """End in one line if a library that is imported inside is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error.name} is missing: pip install '.[bench]'")


def drawn_labels(shape: str) -> Labels:
    """Identities and cameras in the numbers of a data set."""
    queries, gallery, people, cameras, distractors = SHAPES[shape]
    rng = np.random.default_rng(0)
    gallery_pids = np.concatenate([np.zeros(distractors, int), 1 + np.arange(gallery - distractors) % people])
    query_pids = 1 + np.arange(queries) % people
    return Labels(
        query_pids, np.sort(gallery_pids), rng.integers(0, cameras, queries), rng.integers(0, cameras, gallery)
    )


def market_labels(folder: Path) -> Labels:
    """Market-1501's own, from queryID.mat, testID.mat, queryCam.mat and testCam.mat; junk is dropped."""
    names = {path.stem.lower(): path for path in folder.glob("*.mat")}
    found = []
    for name in ("queryid", "testid", "querycam", "testcam"):
        table = loadmat(names[name])
        found.append(next(value for key, value in table.items() if not key.startswith("__")).ravel().astype(int))
    wanted = found[1] != -1
    return Labels(found[0], found[1][wanted], found[2], found[3][wanted])


def descriptors(labels: Labels, dim: int, noise: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of length 1 around a centre for each person; distractors (0) around nothing."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(int(max(labels.query_pids.max(), labels.gallery_pids.max())) + 1, dim, generator=generator)
    centers[0] = 0
    sides = []
    for pids in (labels.query_pids, labels.gallery_pids):
        rows = torch.randn(len(pids), dim, generator=generator).mul_(noise)
        for some in torch.arange(len(pids)).split(10_000):
            rows[some] += centers[torch.from_numpy(pids)[some]]
        sides.append(torch.nn.functional.normalize(rows, dim=1, out=rows))
    return sides[0], sides[1]


def measure(ways: dict[str, Callable[[], object]], turns: int) -> dict[str, Cost]:
    """Every way ``turns`` times, turn about, after one that does not count (where there are several turns)."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    megabytes: dict[str, float] = {}
    for turn in range(turns + (turns > 1)):
        for name, run in ways.items():
            reset_peak()
            before, started = memory("VmRSS"), time.perf_counter()
            run()
            if turn or turns == 1:
                seconds[name].append(time.perf_counter() - started)
            megabytes[name] = memory("VmHWM") - before
    return {name: Cost(statistics.median(values), megabytes[name]) for name, values in seconds.items()}


def memory(field: str) -> float:
    """Megabytes of this process (Linux): VmRSS now, VmHWM at most since the reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def reset_peak() -> None:
    """Forget the peak so far (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
