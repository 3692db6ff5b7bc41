"""Measure what a GPU gives: training, describing and indexing, each beside its own matrix product, in one run.

    python benchmarks/gpu.py                           SCR on ResNet-50 at 384x192, batches of 32 and 256
    python benchmarks/gpu.py --backbone tf_efficientnet_lite0 --size 192 96
    python benchmarks/gpu.py --device cpu --backbone test_resnet --size 64 32 --batch 4 --product 128    a trial

- product: two square matrices, in each number format: the ceiling that the others are shares of;
- training: the shipped step (``benchmarks/training.py``'s bare loop) on images in memory. A step counts three times the
  operations of the forward pass;
- describing: ``reprism.Embedder`` on images in memory, mirrored image included, in each number format;
- indexing: ``reprism index`` on drawn crops, from files to a gallery.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

import reprism
from reprism.cli import main as command
from reprism.drawn.layouts import render_market1501
from reprism.precision import NumberFormat, autocast, fastest_precision, usable_device
from reprism.training.recipes import SCR
from training import BATCH, timed, training_step


@dataclass
class Arguments:
    """Measure training, describing and indexing on one device, in one run."""

    device: Literal["cpu", "cuda"] | None = None
    """Device to measure on (default: a GPU if there is one)."""
    backbone: str = "resnet50"
    """Backbone of SCR."""
    size: tuple[int, int] = (384, 192)
    """Height and width of the images."""
    batch: int = 256
    """Images in a batch that is described."""
    steps: int = 20
    """Steps and batches measured, after three that are not."""
    product: int = 8192
    """Rows and columns of the matrices whose product is the ceiling."""
    identities: int = 200
    """Drawn people whose crops are indexed."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    device = usable_device(arguments.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    fastest = fastest_precision(device)
    precisions: list[NumberFormat] = ["fp32", "bf16"] if device.type == "cuda" else sorted({"fp32", fastest})
    ceilings = {precision: product_rate(arguments, device, precision) for precision in precisions}
    print(f"{where}, torch {torch.__version__}; {SCR} on {arguments.backbone} at {'x'.join(map(str, arguments.size))}")
    for precision, rate in ceilings.items():
        print(f"  product in {precision}: {rate / 1e12:.2f} TFLOP/s")
    model = reprism.build_model(SCR, arguments.backbone, size=arguments.size).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *arguments.size))
    work = counter.get_total_flops()
    for precision in precisions:
        seconds = statistics.median(
            timed(training_step(arguments.backbone, arguments.size, device, precision), arguments.steps)
        )
        print(f"  training in {precision}: {1 / seconds:.2f} steps/s, {BATCH / seconds:.1f} images/s, "
              f"{3 * BATCH * work / seconds / ceilings[precision]:.1%} of the product")  # fmt: skip
    for precision in precisions:
        seconds = describing(model, arguments, device, precision)
        print(f"  describing in {precision}: {arguments.batch / seconds:.1f} images/s with the mirrored image, "
              f"{2 * arguments.batch * work / seconds / ceilings[precision]:.1%} of the product")  # fmt: skip
    count, seconds = indexing(model, arguments, device)
    print(f"  indexing: {count} crops in {seconds:.1f} s, {count / seconds:.1f} crops/s")


def product_rate(arguments: Arguments, device: torch.device, precision: NumberFormat) -> float:
    """Operations per second of a matrix product."""
    one, other = torch.randn(2, arguments.product, arguments.product, device=device)
    with torch.inference_mode(), autocast(device, precision):
        return 2 * arguments.product**3 / seconds_of(lambda: one @ other, arguments.steps, device)


def describing(
    model: reprism.PartNet, arguments: Arguments, device: torch.device, precision: NumberFormat
) -> float:  # fmt: skip
    """Seconds of a batch."""
    embedder = reprism.Embedder(model, precision=precision, device=device, engine="torch")
    images = torch.randint(0, 256, (arguments.batch, 3, *arguments.size), dtype=torch.uint8)
    return seconds_of(lambda: embedder.embed_ready(images), arguments.steps, device)


def indexing(model: reprism.PartNet, arguments: Arguments, device: torch.device) -> tuple[int, float]:
    """Crops put into a gallery, and the seconds that it takes, the model's loading included."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        people = render_market1501(
            folder / "people", train_identities=2, test_identities=arguments.identities, junk=0, distractors=0
        )
        crops = people / "bounding_box_test"
        file = reprism.save(model, folder / "model.safetensors")
        asked = ["index", str(crops), "--model", str(file), "--gallery", str(folder / "gallery")]
        started = time.perf_counter()
        status = command([*asked, "--device", device.type, "--engine", "torch"])
        seconds = time.perf_counter() - started
        if status:
            raise SystemExit(status)
        return len(list(crops.glob("*.jpg"))), seconds


def seconds_of(run: Callable[[], object], steps: int, device: torch.device) -> float:
    """Median seconds of a call, after three that do not count."""

    def whole() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return statistics.median(timed(whole, steps))


if __name__ == "__main__":
    main()
