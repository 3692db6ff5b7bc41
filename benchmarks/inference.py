"""Time the description of images: every engine beside plain PyTorch, in one run.

    python benchmarks/inference.py                      both networks, batches of 1 and 32; ten minutes on two cores
    python benchmarks/inference.py --network lite0 --batch 32

The same network, random weights and images, without the mirrored image, decoded and normalised before:

- plain: eager float32, NCHW: the reference;
- shipped: ``reprism.Embedder``'s network, memory layout and precision;
- onnxruntime: ``reprism export``'s float32 network.

They take turns, and the median counts, so that other load hits all alike. Beside each: its speed as a multiple of
plain's, its cosine with plain (the least of the batch), and the share of the machine's float32 matrix product that it
reaches. Lower precisions can pass 1.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from measure import NETWORKS, measure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reprism import build_model
from reprism.engines.export import export_onnx, load_exported
from reprism.precision import autocast, fastest_precision
from reprism.training.recipes import SCR


@dataclass
class Arguments:
    """Time the description of images: every engine beside plain PyTorch, in one run."""

    network: tuple[Literal["resnet50", "lite0"], ...] = ("lite0", "resnet50")
    """SCR on these backbones: tf_efficientnet_lite0 at 192x96, resnet50 at 384x192."""
    batch: tuple[int, ...] = (1, 32)
    """Batch sizes."""
    turns: int = 5
    """Turns of each way, after one that does not count."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    ceiling = product_rate()
    print(f"{torch.get_num_threads()} threads, shipped precision {fastest_precision('cpu')}, float32 product "
          f"{ceiling / 1e9:,.0f} GFLOP/s")  # fmt: skip
    for name in arguments.network:
        describe_by_all(name, arguments, ceiling)


def product_rate() -> float:
    """Floating-point operations per second of the machine's float32 matrix product."""
    one = torch.randn(2048, 2048)
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        one @ one
        seconds.append(time.perf_counter() - started)
    return float(2 * 2048**3 / min(seconds))


def describe_by_all(name: str, arguments: Arguments, ceiling: float) -> None:
    """Print one network's figures."""
    backbone, size = NETWORKS[name]
    torch.manual_seed(0)
    plain = build_model(SCR, backbone, size=size)
    plain.train()(torch.randn(8, 3, *size))  # batch statistics that are not the first guess
    plain.eval()
    shipped = build_model(SCR, backbone, size=size)
    shipped.load_state_dict(plain.state_dict())
    shipped.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(torch.zeros(1, 3, *size))
    work = counter.get_total_flops()
    with tempfile.TemporaryDirectory() as folder:
        crops = torch.randint(0, 256, (17, 3, *size), dtype=torch.uint8)
        export_onnx(plain, Path(folder) / "net", crops)
        exported = load_exported(Path(folder) / "net")
    for batch in arguments.batch:
        images = torch.randn(batch, 3, *size)
        laid_out = images.to(memory_format=torch.channels_last)
        ways: dict[str, Callable[[], Tensor]] = {
            "plain": running(plain, images, nullcontext),
            "shipped": running(shipped, laid_out, lambda: autocast("cpu", "auto")),
            "onnxruntime": running(exported, laid_out, nullcontext),
        }
        reference = F.normalize(ways["plain"]().float(), dim=1)
        costs = measure(dict(ways), arguments.turns)
        print(f"\n{SCR} on {backbone} at {size[0]}x{size[1]}, {work / 1e9:.1f} GFLOP, batches of {batch}")
        for way, cost in costs.items():
            least = (F.normalize(ways[way]().float(), dim=1) * reference).sum(1).min()
            rate = batch / cost.seconds
            times = costs["plain"].seconds / cost.seconds
            print(f"  {way:<12} {1000 * cost.seconds:9.1f} ms {rate:8.1f} images/s  {times:5.2f} x plain, "
                  f"{rate * work / ceiling:.2f} of the product, cosine {least:.6f}")  # fmt: skip


def running(model: torch.nn.Module, images: Tensor, precision: Callable[[], object]) -> Callable[[], Tensor]:
    """Return a function that describes the images once."""

    def run() -> Tensor:
        with torch.inference_mode(), precision():  # type: ignore[attr-defined]
            return model(images).descriptor  # type: ignore[no-any-return]

    return run


if __name__ == "__main__":
    main()
