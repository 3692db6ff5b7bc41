"""``reprism backbones``."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from reprism.cli.arguments import parse
from reprism.cli.embedding import Device, Precision
from reprism.cli.output import figures_table, progress_bars


def run(argv: Sequence[str]) -> int:
    """Run ``reprism backbones``; returns the exit status."""
    from reprism.models.survey import BACKBONES
    from reprism.training.recipes import SCR

    @dataclass
    class Arguments:
        """Measure the cost of part networks on different backbones: parameters, GFLOP, descriptor width, images/s."""

        names: tyro.conf.Positional[tuple[str, ...]] = BACKBONES
        """timm networks, or residual_attention56."""
        partition: str = SCR
        """Partition of every network."""
        size: tuple[int, int] = (384, 192)
        """Height and width of the images, in pixels."""
        batch: int = 8
        """Images per batch."""
        precision: Precision = "auto"
        device: Device = None
        out: Path | None = None
        """JSON file for the figures (default: only printed)."""

    arguments = parse(
        Arguments,
        argv,
        "reprism backbones",
        example="reprism backbones resnet50 mobilenetv3_small_050 --size 256 128",
        main=("partition", "size", "batch", "device", "out"),
    )

    from rich.console import Console

    from reprism.files import write_json
    from reprism.models.survey import measure
    from reprism.precision import DTYPES, fastest_precision, usable_device

    device = str(usable_device(arguments.device))
    precision = fastest_precision(device) if arguments.precision == "auto" else arguments.precision
    title = f"{arguments.partition} at {arguments.size[0]}x{arguments.size[1]}, {precision}, {device}"
    table = figures_table(title, ("parameters", "GFLOP", "descriptor", "images/s"), label="backbone")
    found = []
    with progress_bars() as progress:
        for done, name in enumerate(arguments.names, 1):
            cost = measure(
                name, arguments.partition, arguments.size, batch=arguments.batch, dtype=DTYPES[precision], device=device
            )
            found.append(asdict(cost))
            width, rate = str(cost.descriptor_dim), f"{cost.images_per_second:.1f}"
            table.add_row(name, f"{cost.parameters:,}", f"{cost.gflop:.1f}", width, rate)
            progress("measuring", done, len(arguments.names))
    Console().print(table)
    if arguments.out is not None:
        write_json(arguments.out, found)
    return 0
