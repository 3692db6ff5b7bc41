"""Time a training step: the shipped trainer beside a plain loop, in one run.

    python benchmarks/training.py                      both networks; a quarter of an hour on two cores
    python benchmarks/training.py --network lite0 --steps 20
    python benchmarks/training.py --compile default    torch.compile beside them: minutes more
    python benchmarks/training.py --profile            what the network spends a step on

Three ways to train the same network with the same optimiser on batches of 32:

- plain: float32, NCHW, torch's Adam as it comes, images in memory: the loop of a tutorial;
- bare: the shipped precision, memory layout and optimiser, still a loop of five lines, images in memory;
- trainer: ``reprism train``, as shipped: data loading, augmentation, logging, progress bar and all.

Each runs in a process of its own. They take turns, and the median step counts, so that other load on the machine hits
all alike. The shipped default is faster than plain by plain / trainer; the trainer's own overhead is
trainer / bare - 1; waiting is the share of a step in which the network had no batch to work on.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import tyro
from measure import NETWORKS
from torch.profiler import ProfilerActivity

from reprism import build_model
from reprism.drawn.layouts import render_market1501
from reprism.losses import TotalLoss
from reprism.models.depthwise import speed_up_depthwise
from reprism.precision import autocast, fastest_precision, usable_device
from reprism.training.memory import keep_freed_memory
from reprism.training.recipes import RECIPES, SCR, Recipe
from reprism.training.run import train

IDENTITIES = 501  # of classifiers, as in the training half of the development split
BATCH = 32
T = TypeVar("T")
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
    compile: Literal["no", "default", "reduce-overhead", "max-autotune"] = "no"
    """Mode of torch.compile, for one more way: the bare loop with the network compiled."""
    profile: bool = False
    """Instead of timing: shares of a step, bare, by what is computed."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the shipped ways."""
    device: Literal["cpu", "cuda"] | None = None
    """Where to train (default: a GPU if there is one)."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    device = usable_device(arguments.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{where}, shipped precision there: {fastest_precision(device)}")
    if arguments.profile:
        for name in arguments.network:
            profile(name, device, arguments.precision)
        return
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
            measure(name, root, Path(folder), arguments, device)


def measure(name: str, root: Path, folder: Path, arguments: Arguments, device: torch.device) -> None:
    """Print one network's figures."""
    backbone, size = NETWORKS[name]
    precision, steps = arguments.precision, arguments.steps
    times: dict[str, list[float]] = {"plain": [], "bare": [], "trainer": []}
    waits: list[float] = []
    for turn in range(arguments.turns):
        times["plain"] += alone(loop, backbone, size, device, None, "no", steps)
        times["bare"] += alone(loop, backbone, size, device, precision, "no", steps)
        recipe = RECIPES["scr-market1501"].model_dump()
        recipe["data"] |= {"root": root, "size": size}
        recipe["model"] |= {"backbone": backbone, "pretrained": False}
        recipe["optimizer"] |= {"epochs": 1}
        recipe["trainer"] |= {
            "accelerator": "gpu" if device.type == "cuda" else "cpu",
            "precision": precision,
            "evaluate_every": 0,
            "log_every": 1,  # which has the trainer wait for the GPU at each step, as the loops do
        }
        run = alone(trained, Recipe.model_validate(recipe), folder / f"{name}-{turn}")
        with (run / "csv" / "version_0" / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("images/s")]
        times["trainer"] += [BATCH / float(row["images/s"]) for row in rows[WARM_UP:]]
        waits += [float(row["wait_seconds"]) for row in rows[WARM_UP:]]
        if arguments.compile != "no":
            compiled = alone(loop, backbone, size, device, precision, arguments.compile, steps)
            times.setdefault("compiled", []).extend(compiled)
    medians = {way: statistics.median(values) for way, values in times.items()}
    plain, bare, trainer = (medians[way] for way in ("plain", "bare", "trainer"))
    print(f"\n{SCR} on {backbone} at {size[0]}x{size[1]}, batches of {BATCH}, {len(times['plain'])} steps each")
    for way, seconds in medians.items():
        print(f"  {way:<8} {seconds:7.3f} s a step  {BATCH / seconds:6.1f} images/s")
    print(f"  plain / trainer     {plain / trainer:.2f}")
    print(f"  trainer / bare - 1  {trainer / bare - 1:+.1%}")
    if "compiled" in medians:
        print(f"  bare / compiled     {bare / medians['compiled']:.2f}")
    print(f"  waiting for data    {statistics.median(waits) / trainer:.2%} of a step")


def alone(run: Callable[..., T], *arguments: Any) -> T:
    """A call in a process of its own, whose memory no other has used."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, *arguments).result()


def trained(recipe: Recipe, folder: Path) -> Path:
    """The folder of a run."""
    return train(recipe, folder).folder


def loop(
    backbone: str, size: tuple[int, int], device: torch.device, precision: str | None, mode: str, steps: int
) -> list[float]:
    """Seconds of each step of :func:`training_step`."""
    return timed(training_step(backbone, size, device, precision, mode), steps)


def training_step(
    backbone: str, size: tuple[int, int], device: torch.device, precision: str | None, mode: str = "no"
) -> Callable[[], None]:
    """A step of the plain loop (without a precision), or of the bare one, its network compiled by ``mode``."""
    torch.manual_seed(0)
    model = build_model(SCR, backbone, num_classes=IDENTITIES, size=size).train().to(device)
    images = torch.randn(BATCH, 3, *size, device=device)
    if precision is not None:
        # The fast gradients are part of what is compared, and so is memory that stays.
        keep_freed_memory()
        speed_up_depthwise(model)
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=2e-4, weight_decay=5e-4, amsgrad=True, fused=None if precision is None else True
    )
    labels = torch.arange(BATCH // 4, device=device).repeat_interleave(4)
    loss = TotalLoss()
    network = model if mode == "no" else torch.compile(model.__call__, mode=mode, dynamic=False)

    def step() -> None:
        with autocast(device, precision or "fp32"):
            total = loss(network(images), labels).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def timed(step: Callable[[], None], steps: int) -> list[float]:
    """Seconds of each of ``steps`` steps, after those that warm up."""
    return [seconds(step) for _ in range(steps + WARM_UP)][WARM_UP:]


# Operations of torch's profiler by what they are for; the first whose text is in the name counts.
KINDS = {
    "convolutions, gradients": ("convolution_backward", "_DepthwiseConv2dBackward"),
    "convolutions": ("convolution", "_DepthwiseConv2d", "conv2d"),
    "batch normalisation, gradients": ("batch_norm_backward",),
    "batch normalisation": ("batch_norm",),
    "activations": ("hardtanh", "clamp", "relu", "threshold", "silu"),
    "copies and changes of format": ("copy_", "_to_copy", "contiguous", "aten::to"),
    "optimiser": ("_fused_adam", "Optimizer.step"),
}


def profile(name: str, device: torch.device, precision: str) -> None:
    """Print the shares of a step."""
    backbone, size = NETWORKS[name]
    step = training_step(backbone, size, device, precision)
    timed(step, 0)
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        step()
    shares: Counter[str] = Counter()
    for event in profiler.key_averages():
        own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        kind = next((kind for kind, names in KINDS.items() if any(each in event.key for each in names)), "all else")
        shares[kind] += own
    print(f"\n{SCR} on {backbone} at {size[0]}x{size[1]}, {precision}: a step of {shares.total() / 1e6:.3f} s")
    for kind, own in shares.most_common():
        print(f"  {kind:<32} {own / shares.total():6.1%}")


def seconds(action: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
