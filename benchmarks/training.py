"""Time a training step: the shipped trainer beside a plain loop, in one run.

    python benchmarks/training.py                      both networks; a quarter of an hour on two cores
    python benchmarks/training.py --network lite0 --steps 20

Three ways to train the same network with the same optimiser on batches of 32:

- plain: float32, NCHW, torch's Adam as it comes, images in memory: the loop of a tutorial;
- bare: the shipped precision, memory layout and optimiser, still a loop of five lines, images in memory;
- trainer: ``reprism train``, as shipped: data loading, augmentation, logging, progress bar and all.

They take turns, and the median step counts, so that other load on the machine hits all alike. The shipped default is
faster than plain by plain / trainer; the trainer's own overhead is trainer / bare - 1; waiting is the share of a step
in which the network had no batch to work on.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from measure import NETWORKS

from reprism import build_model
from reprism.drawn.layouts import render_market1501
from reprism.losses import TotalLoss
from reprism.models.depthwise import speed_up_depthwise
from reprism.precision import autocast, fastest_precision, usable_device
from reprism.training.recipes import RECIPES, SCR, Recipe
from reprism.training.run import train

IDENTITIES = 501  # of classifiers, as in the training half of the development split
BATCH = 32
WARM_UP = 3  # steps that are not measured: memory is new, and loader processes fill their queue


@dataclass
class Arguments:
    """Time a training step: the shipped trainer beside a plain loop, in one run."""

    network: tuple[Literal["resnet50", "lite0"], ...] = ("resnet50", "lite0")
    """SCR on these backbones: resnet50 at 384x192, tf_efficientnet_lite0 at 192x96."""
    steps: int = 4
    """Steps measured per turn, after three that are not."""
    turns: int = 2
    """Turns of each way."""
    device: Literal["cpu", "cuda"] | None = None
    """Where to train (default: a GPU if there is one)."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    device = usable_device(arguments.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{where}, shipped precision there: {fastest_precision(device)}")
    with tempfile.TemporaryDirectory() as folder:
        # One epoch is a turn: eight new identities a step.
        root = render_market1501(
            Path(folder) / "people",
            train_identities=8 * (arguments.steps + WARM_UP),
            test_identities=2,
            junk=0,
            distractors=0,
        )
        for name in arguments.network:
            measure(name, root, Path(folder), arguments.steps, arguments.turns, device)


def measure(name: str, root: Path, folder: Path, steps: int, turns: int, device: torch.device) -> None:
    """Print one network's figures."""
    backbone, size = NETWORKS[name]
    times: dict[str, list[float]] = {"plain": [], "bare": [], "trainer": []}
    waits: list[float] = []
    for turn in range(turns):
        times["plain"] += loop(backbone, size, steps, device, shipped=False)
        times["bare"] += loop(backbone, size, steps, device, shipped=True)
        recipe = RECIPES["scr-market1501"].model_dump()
        recipe["data"] |= {"root": root, "size": size}
        recipe["model"] |= {"backbone": backbone, "pretrained": False}
        recipe["optimizer"] |= {"epochs": 1}
        recipe["trainer"] |= {
            "accelerator": "gpu" if device.type == "cuda" else "cpu",
            "evaluate_every": 0,
            "log_every": 1,  # which has the trainer wait for the GPU at each step, as the loops do
        }
        run = train(Recipe.model_validate(recipe), folder / f"{name}-{turn}").folder
        with (run / "csv" / "version_0" / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("images/s")]
        times["trainer"] += [BATCH / float(row["images/s"]) for row in rows[WARM_UP:]]
        waits += [float(row["wait_seconds"]) for row in rows[WARM_UP:]]
    plain, bare, trainer = (statistics.median(times[way]) for way in ("plain", "bare", "trainer"))
    print(f"\n{SCR} on {backbone} at {size[0]}x{size[1]}, batches of {BATCH}, {len(times['plain'])} steps each")
    for way, seconds in (("plain", plain), ("bare", bare), ("trainer", trainer)):
        print(f"  {way:<8} {seconds:7.3f} s a step  {BATCH / seconds:6.1f} images/s")
    print(f"  plain / trainer     {plain / trainer:.2f}")
    print(f"  trainer / bare - 1  {trainer / bare - 1:+.1%}")
    print(f"  waiting for data    {statistics.median(waits) / trainer:.2%} of a step")


def loop(backbone: str, size: tuple[int, int], steps: int, device: torch.device, shipped: bool) -> list[float]:
    """Seconds of each of ``steps`` steps, after those that warm up."""
    torch.manual_seed(0)
    model = build_model(SCR, backbone, num_classes=IDENTITIES, size=size).train().to(device)
    images = torch.randn(BATCH, 3, *size, device=device)
    if shipped:
        # The fast gradients are part of what is compared.
        speed_up_depthwise(model)
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=2e-4, weight_decay=5e-4, amsgrad=True, fused=True if shipped else None
    )
    labels = torch.arange(BATCH // 4, device=device).repeat_interleave(4)
    loss = TotalLoss()

    def step() -> None:
        with autocast(device, "auto" if shipped else "fp32"):
            total = loss(model(images), labels).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return [seconds(step) for _ in range(steps + WARM_UP)][WARM_UP:]


def seconds(action: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
