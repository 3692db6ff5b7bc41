"""``reprism explain``."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from reprism.cli.output import progress_bars


@dataclass
class Arguments:
    """Show where in a picture each part of a network looked (Grad-CAM): one picture per part, and a grid of all."""

    checkpoint: tyro.conf.Positional[Path]
    """A model; with classifiers unless --against is given."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures of people, cropped as a detector does."""
    parts: tuple[str, ...] = ()
    """Such as p1 p2s1 p2c2; by custom all."""
    identity: int | None = None
    """Class to ask the classifiers about, counted from 0; by custom the one that each holds likeliest."""
    against: Path | None = None
    """A second picture: show what makes the two alike, part by part. Works for people never trained on."""
    out: Path = Path("explain")
    """Folder for the pictures: grid.png, and NUMBER-IMAGE-PART.png."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism explain``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism explain")

    import torch
    from PIL import Image

    from reprism.data.images import read_image
    from reprism.data.transforms import eval_transform
    from reprism.figures.saliency import draw_saliency, overlay, saliency
    from reprism.files import write_whole
    from reprism.models.checkpoint import load

    def write(picture: Image.Image, name: str) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, format="png")
        write_whole(arguments.out / name, buffer.getvalue())

    if not arguments.images:
        raise ValueError("give a picture to explain")
    model = load(arguments.checkpoint).eval()
    transform = eval_transform(model.preprocessing)
    images = [read_image(path) for path in arguments.images]
    batch = torch.stack([transform(image) for image in images])
    names = arguments.parts or tuple(part.name for part in model.partition.parts)
    asked: dict[str, Any] = {}
    if arguments.against is not None:
        asked["against"] = transform(read_image(arguments.against))[None]
    if arguments.identity is not None:
        asked["identities"] = torch.full((len(batch),), arguments.identity)
    heats = []
    with progress_bars() as progress:
        for done, name in enumerate(names, 1):
            heats.append(saliency(model, batch, name, **asked))
            progress("looking at parts", done, len(names))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    for place, (path, picture) in enumerate(zip(arguments.images, pictures, strict=True)):
        for name, heat in zip(names, heats, strict=True):
            # Numbered: two pictures may have one name.
            write(overlay(picture, heat[place]), f"{place + 1:03d}-{path.stem}-{name}.png")
    write(draw_saliency(pictures, [[heat[place] for heat in heats] for place in range(len(images))], names), "grid.png")
    print(arguments.out / "grid.png")
    return 0
