"""``reprism explain``."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from reprism.cli.arguments import parse
from reprism.cli.output import progress_bars

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from reprism.models.network import PartNet


@dataclass
class Arguments:
    """Show where in a picture each part of a network looked (Grad-CAM): one picture per part, and a grid of all.

    A stripe has two: masked to the rows that it is pooled from, and unmasked, as Grad-CAM draws it. With --beside the
    grid compares networks, as the paper's Figure 2 does.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Model file. It needs its classifiers, unless --against is given."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures of one person each, cropped as a detector crops them."""
    beside: tuple[Path, ...] = ()
    """Other models, whose columns follow the first one's. Each sees the pictures at its own size."""
    parts: tuple[str, ...] = ()
    """Parts to show, such as p1 p2s1 p2c2, of every model that has them (default: all)."""
    identity: int | None = None
    """Class to ask the classifiers about, counted from 0 (default: the likeliest of each classifier)."""
    against: Path | None = None
    """Second picture: show what makes the two alike, part by part. Works for people not trained on too."""
    out: Path = Path("explain")
    """Folder for the pictures: grid.png, and NUMBER-IMAGE-PART.png for each part. A stripe has
    NUMBER-IMAGE-PART-unmasked.png too; the models of --beside have NUMBER-IMAGE-2-PART.png and so on."""


_CAPTION = (
    "Each cell is scaled to its own largest value. A stripe's map is set to 0 outside the rows that the stripe is "
    "pooled from; unmasked: the same map before that, as Grad-CAM draws it."
)


def run(argv: Sequence[str]) -> int:
    """Run ``reprism explain``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism explain",
        example="reprism explain runs/scr-market1501/model.safetensors first.jpg --against second.jpg",
        main=("against", "beside", "parts", "identity", "out"),
    )

    from PIL import Image

    from reprism.data.images import read_image
    from reprism.files import write_whole
    from reprism.models.checkpoint import load
    from reprism.report.saliency import draw_saliency, network_heading, overlay

    def write(picture: Image.Image, name: str) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, format="png")
        write_whole(arguments.out / name, buffer.getvalue())

    if not arguments.images:
        raise ValueError("give a picture to explain")
    models = [load(path).eval() for path in (arguments.checkpoint, *arguments.beside)]
    shown = _parts_shown(models, arguments.parts)
    columns = [
        (index, name, masked)
        for index, names in enumerate(shown)
        for name in names
        for masked in ((True, False) if _is_stripe(models[index], name) else (True,))
    ]
    images = [read_image(path) for path in arguments.images]
    other = None if arguments.against is None else read_image(arguments.against)
    heats = []
    with progress_bars() as progress:
        for done, (index, name, masked) in enumerate(columns, 1):
            heats.append(_heat(models[index], images, name, arguments.identity, other, masked))
            progress("looking at parts", done, len(columns))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    for number, (path, picture) in enumerate(zip(arguments.images, pictures, strict=True)):
        for (index, name, masked), heat in zip(columns, heats, strict=True):
            # Numbered: two pictures may have one name, and two models one part.
            label = (f"{index + 1}-{name}" if index else name) + ("" if masked else "-unmasked")
            write(overlay(picture, heat[number]), f"{number + 1:03d}-{path.stem}-{label}.png")
    grid = draw_saliency(
        pictures,
        [[heat[number] for heat in heats] for number in range(len(images))],
        [name if masked else f"{name} unmasked" for _, name, masked in columns],
        networks=[
            (network_heading(model), sum(column[0] == index for column in columns))
            for index, model in enumerate(models)
        ],
        caption=_CAPTION,
    )
    write(grid, "grid.png")
    print(arguments.out / "grid.png")
    return 0


def _parts_shown(models: Sequence["PartNet"], wanted: Sequence[str]) -> list[list[str]]:
    """Return the requested parts of each model, in that order; all of them if none are named."""
    parts = [[part.name for part in model.partition.parts] for model in models]
    shown = [[name for name in wanted if name in names] for names in parts] if wanted else parts
    for name in wanted:
        if not any(name in names for names in parts):
            raise ValueError(f"--parts {name}: there is no such part; {_parts_held(models)}")
    if not all(shown):
        raise ValueError(f"--parts {' '.join(wanted)} leaves a model without a column; {_parts_held(models)}")
    return shown


def _parts_held(models: Sequence["PartNet"]) -> str:
    return "; ".join(
        f"{model.partition} on {model.backbone} has {', '.join(part.name for part in model.partition.parts)}"
        for model in models
    )


def _is_stripe(model: "PartNet", name: str) -> bool:
    return any(part.name == name and part.kind == "stripe" for part in model.partition.parts)


def _heat(
    model: "PartNet",
    images: Sequence["Tensor"],
    part: str,
    identity: int | None,
    other: "Tensor | None",
    masked: bool,
) -> "np.ndarray":
    import torch

    from reprism.data.transforms import eval_transform
    from reprism.report.saliency import saliency

    transform = eval_transform(model.preprocessing)
    return saliency(
        model,
        torch.stack([transform(image) for image in images]),
        part,
        identities=None if identity is None else torch.full((len(images),), identity),
        against=None if other is None else transform(other)[None],
        masked=masked,
    )
