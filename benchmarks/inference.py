"""Time the description of images: every engine beside plain PyTorch, in one run.

    python benchmarks/inference.py                      both networks, batches of 1 and 32; ten minutes on two cores
    python benchmarks/inference.py --network lite0 --batch 32

The same network, random weights and images, without the mirrored image, decoded and normalised before:

- plain: eager float32, NCHW: the reference;
- torch: ``reprism.Embedder(engine="torch")``: its memory layout and its precision;
- onnxruntime: ``reprism export``'s float32 network;
- openvino fp32, bf16 (where the processor has it), int8 (all layers, quantized on noise: for speed alone);
- auto: whichever of these ``reprism.Embedder`` takes.

They take turns, and the median counts, so that other load hits all alike. Beside each: its speed as a multiple of
plain's, its cosine with plain (the least of the batch), and the share that it reaches of the machine's own matrix
product: of float32, and for int8 of int8, whose rate is given as a multiple of float32's.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
import tyro
from measure import NETWORKS, from_extra, measure
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reprism import PartNet, build_model
from reprism.engines.convert import to_openvino
from reprism.engines.export import export_model, load_exported
from reprism.engines.opening import open_model
from reprism.engines.openvino import OpenVinoSession
from reprism.engines.session import EngineNetwork, UnsuitableError
from reprism.precision import autocast, fastest_precision
from reprism.training.recipes import SCR

with from_extra():
    import nncf
    import openvino
    from openvino import opset13


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
    products = {"fp32": product_rate(integers=False), "int8": product_rate(integers=True)}
    print(f"{torch.get_num_threads()} threads, {'with' if fastest_precision('cpu') == 'bf16' else 'without'} bf16; "
          f"products: float32 {products['fp32'] / 1e9:,.0f} GFLOP/s, int8 "
          f"{products['int8'] / products['fp32']:.2f} times that")  # fmt: skip
    for name in arguments.network:
        describe_by_all(name, arguments, products)


def product_rate(*, integers: bool) -> float:
    """Operations per second of a 1×1 convolution by OpenVINO, which is a product of two 2048×2048 matrices."""
    shape = [1, 2048, 32, 64]
    given = opset13.parameter(shape, openvino.Type.f32)
    weights = opset13.constant(torch.randn(2048, 2048, 1, 1).numpy())
    model = openvino.Model([opset13.convolution(given, weights, [1, 1], [0, 0], [0, 0], [1, 1])], [given])
    if integers:
        model = quantized(model, [torch.randn(shape).numpy()])
    run = openvino.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads(),
                                                "INFERENCE_PRECISION_HINT": "f32"})  # fmt: skip
    one, seconds = torch.randn(shape).numpy(), []
    for _ in range(8):
        started = time.perf_counter()
        run(one)
        seconds.append(time.perf_counter() - started)
    return float(2 * 2048**3 / statistics.median(seconds[1:]))


def quantized(model: openvino.Model, samples: list[object]) -> openvino.Model:
    """Return a model all of whose layers multiply integers."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with redirect_stdout(sys.stderr):
        return nncf.quantize(model, nncf.Dataset(samples), subset_size=len(samples))


def describe_by_all(name: str, arguments: Arguments, products: dict[str, float]) -> None:
    """Print one network's figures."""
    backbone, size = NETWORKS[name]
    torch.manual_seed(0)
    plain = build_model(SCR, backbone, size=size)
    with torch.no_grad():
        for parameter in plain.parameters():
            # Branches begin as copies of one another, which an engine would compute once.
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    plain.train()(torch.randn(8, 3, *size))  # batch statistics that are not the first guess
    plain.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(torch.zeros(1, 3, *size))
    work = counter.get_total_flops()
    networks = engines(plain, size)
    chosen, shipped = open_model(plain), open_model(plain, engine="torch")
    print(f"\n{SCR} on {backbone} at {size[0]}x{size[1]}, {work / 1e9:.1f} GFLOP; auto is {chosen.engine} in "
          f"{chosen.precision}")  # fmt: skip
    for batch in arguments.batch:
        images = torch.randn(batch, 3, *size)
        ways: dict[str, Callable[[], Tensor]] = {
            "plain": describing(lambda some: plain(some).descriptor, images, nullcontext),
            f"torch {shipped.precision}": describing(
                lambda some: shipped.runs(some).descriptor,
                images.to(memory_format=torch.channels_last),
                lambda: autocast("cpu", shipped.precision),
            ),
            **{way: describing(network, images, nullcontext) for way, network in networks.items()},
        }
        reference = F.normalize(ways["plain"]().float(), dim=1)
        costs = measure(dict(ways), arguments.turns)
        print(f" batches of {batch}")
        for way, cost in costs.items():
            least = (F.normalize(ways[way]().float(), dim=1) * reference).sum(1).min()
            rate = batch / cost.seconds
            times = costs["plain"].seconds / cost.seconds
            kind = "int8" if way.endswith("int8") else "fp32"
            print(f"  {way:<14} {1000 * cost.seconds:9.1f} ms {rate:8.1f} images/s  {times:6.2f} x plain, "
                  f"{rate * work / products[kind]:.2f} of the {kind} product, cosine {least:.6f}")  # fmt: skip


def engines(plain: PartNet, size: tuple[int, int]) -> dict[str, EngineNetwork]:
    """Return the network in every engine and precision that there is here."""
    with tempfile.TemporaryDirectory() as folder:
        crops = torch.randint(0, 256, (17, 3, *size), dtype=torch.uint8)
        export_model(plain, Path(folder) / "net", crops)
        found = {"onnxruntime": load_exported(Path(folder) / "net", engine="onnxruntime").network}
    converted = to_openvino(plain)
    for precision in ("fp32", "bf16"):
        try:
            found[f"openvino {precision}"] = EngineNetwork(OpenVinoSession(converted, precision), precision)
        except UnsuitableError:
            continue  # this processor has no bf16
    integers = quantized(converted.clone(), [torch.randn(1, 3, *size).numpy() for _ in range(32)])
    found["openvino int8"] = EngineNetwork(OpenVinoSession(integers), "int8")
    return found


def describing(
    network: Callable[[Tensor], Tensor], images: Tensor, precision: Callable[[], object]
) -> Callable[[], Tensor]:
    """Return a function that describes the images once."""

    def run() -> Tensor:
        with torch.inference_mode(), precision():  # type: ignore[attr-defined]
            return network(images)

    return run


if __name__ == "__main__":
    main()
