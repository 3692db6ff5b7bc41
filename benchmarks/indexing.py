"""How much of the network's own rate is left when images are decoded, described and written into a gallery.

    python benchmarks/indexing.py MODEL FOLDER

The network alone describes pictures that are decoded already; `reprism index` does all of it. They take turns.
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
    images: int = 512
    """How many of them."""
    turns: int = 8
    """Turns of each way."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    embedder = reprism.Embedder(arguments.model)
    sightings = find_items([arguments.folder])[: arguments.images]
    ready = torch.stack([embedder.resize(read_image(one.paths[0])) for one in sightings])
    rates: dict[str, list[float]] = {"network alone": [], "index": []}
    embedder.embed_ready(ready[: embedder.batch_size])
    for _ in range(arguments.turns):
        began = time.perf_counter()
        for some in ready.split(embedder.batch_size):
            embedder.embed_ready(some)
        rates["network alone"].append(len(ready) / (time.perf_counter() - began))
        with tempfile.TemporaryDirectory() as folder:
            gallery = Gallery.create(Path(folder) / "gallery", embedder)
            outcome = index_images(gallery, embedder, sightings)
            rates["index"].append(outcome.added / outcome.seconds)
    alone, index = (statistics.median(some) for some in rates.values())
    print(f"{len(sightings)} images: network alone {alone:.1f}/s, index {index:.1f}/s, {index / alone:.1%}")


if __name__ == "__main__":
    main()
