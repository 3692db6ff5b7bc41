"""How much of the network's own rate is left when images are decoded, described and written into a gallery.

    python benchmarks/indexing.py MODEL FOLDER
    python benchmarks/indexing.py MODEL FOLDER --also EXPORTED-INT8

The network alone describes pictures that are decoded already; `reprism index` does all of it. The model is run by every
engine that is installed here, and beside it exports of it; all take turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from measure import from_extra

import reprism
from reprism.data.images import read_image
from reprism.engines.files import installed

with from_extra():
    from reprism.gallery.indexing import index_images
    from reprism.gallery.inputs import find_items
    from reprism.gallery.table import Gallery


@dataclass
class Arguments:
    """How much of the network's own rate is left in indexing."""

    model: tyro.conf.Positional[Path]
    """A model file."""
    folder: tyro.conf.Positional[Path]
    """Images."""
    also: tuple[Path, ...] = ()
    """Exported folders."""
    images: int = 512
    """How many of them."""
    turns: int = 8
    """Turns of each way."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    embedders = {"torch": reprism.Embedder(arguments.model, engine="torch")}
    if installed("openvino"):
        embedders["openvino"] = reprism.Embedder(arguments.model, engine="openvino")
    embedders |= {path.name: reprism.Embedder(path) for path in arguments.also}
    items = find_items([arguments.folder])[: arguments.images]
    resize = embedders["torch"].resize
    ready = torch.stack([resize(read_image(one.paths[0])) for one in items])
    alone: dict[str, list[float]] = {name: [] for name in embedders}
    index: dict[str, list[float]] = {name: [] for name in embedders}
    for turn in range(arguments.turns + 1):
        for name, embedder in embedders.items():
            began = time.perf_counter()
            for some in ready.split(embedder.batch_size):
                embedder.embed_ready(some)
            rate = len(ready) / (time.perf_counter() - began)
            with tempfile.TemporaryDirectory() as folder:
                gallery = Gallery.create(Path(folder) / "gallery", embedder)
                outcome = index_images(gallery, embedder, items)
            if turn:  # the first does not count
                alone[name].append(rate)
                index[name].append(outcome.added / outcome.seconds)
    print(f"{len(items)} images, medians of {arguments.turns} turns")
    reference = statistics.median(index["torch"])
    for name, embedder in embedders.items():
        network, whole = statistics.median(alone[name]), statistics.median(index[name])
        print(f"  {name} ({embedder.precision}): network alone {network:.1f}/s, index {whole:.1f}/s, "
              f"{whole / network:.1%} of it, {whole / reference:.2f} x index by torch")  # fmt: skip


if __name__ == "__main__":
    main()
