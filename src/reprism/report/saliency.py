"""Show where in a picture a part of the network looked (paper Figure 2).

Grad-CAM (Selvaraju et al., ICCV 2017), by captum, at the last map of the part's branch. Asked about one of the part's
own classifier's identities it shows what speaks for that identity; asked about a second picture, of people the network
was never trained on too, it shows what made the two alike, in that part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from reprism.models.network import PartNet
from reprism.notation import Part


class ExplainError(ValueError):
    """Raised if the part or identity does not exist, or captum is not installed."""


def saliency(
    model: PartNet,
    images: Tensor,
    part: str,
    *,
    identities: Tensor | None = None,
    against: Tensor | None = None,
    masked: bool = True,
) -> np.ndarray:
    """Return the Grad-CAM of one part.

    Args:
        model: Network in eval mode.
        images: B×3×H×W, normalised as the model's preprocessing says.
        part: Name of the part, such as ``p2s1``.
        identities: B classes of the part's classifier to ask about (default: those that it finds likeliest).
        against: B×3×H×W (or 1×3×H×W for all), normalised: explain the cosine similarity of the part's feature to these
            pictures' instead.
        masked: Set a stripe's map to 0 outside the stripe, which its pooling does not see. ``False`` keeps Grad-CAM's
            own map, which marks a channel's response everywhere. No other part is masked.

    Returns:
        B×h×w float32 on the branch's map, 0 … 1, each divided by its largest value; all 0 where no value is positive.

    Raises:
        ExplainError: No such part, no classifiers and nothing to compare with, an identity out of range, both given,
            or captum missing.
    """
    LayerGradCam = _layer_grad_cam()
    found = [one for one in model.partition.parts if one.name == part]
    if not found:
        names = ", ".join(one.name for one in model.partition.parts)
        raise ExplainError(f"{model.partition} has no part {part!r}; it has {names}")
    if identities is not None and against is not None:
        raise ExplainError("give identities to ask about, or pictures to compare with, not both")
    score: Callable[[Tensor], Tensor]
    target: int | Tensor
    if against is not None:
        score, target = _similarity(model, part, against), 0
    else:
        score, target = _classifier(model, part), _identities(model, part, images, identities)
    heat = LayerGradCam(score, model.branches[found[0].branch]).attribute(images, target=target, relu_attributions=True)
    heat = heat.detach().squeeze(1)
    if masked:
        heat = heat * _rows_seen(found[0], heat.shape[1])[:, None]
    return (heat / heat.amax((1, 2), keepdim=True).clamp(min=1e-12)).numpy()


def _similarity(model: PartNet, part: str, against: Tensor) -> Callable[[Tensor], Tensor]:
    with torch.no_grad():
        other = model(against).features[part]

    def score(images: Tensor) -> Tensor:
        return F.cosine_similarity(model(images).features[part], other)[:, None]

    return score


def _classifier(model: PartNet, part: str) -> Callable[[Tensor], Tensor]:
    if not model.num_classes:
        raise ExplainError("this network was loaded without classifiers: give a picture to compare with (--against)")

    def score(images: Tensor) -> Tensor:
        logits: Tensor = model(images).logits[part]
        return logits

    return score


def _identities(model: PartNet, part: str, images: Tensor, asked: Tensor | None) -> Tensor:
    if asked is None:
        with torch.no_grad():
            likeliest: Tensor = model(images).logits[part].argmax(1)
        return likeliest
    if not 0 <= int(asked.min()) <= int(asked.max()) < model.num_classes:
        raise ExplainError(f"the classifiers know identities 0 to {model.num_classes - 1}; {asked.tolist()} asked")
    return asked


def _layer_grad_cam() -> type:
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise ExplainError("saliency needs captum. Install it: pip install 'reprism[explain]'.") from error
    return LayerGradCam


def _rows_seen(part: Part, rows: int) -> Tensor:
    """Return 1 for the rows of the map that the part is pooled from, as adaptive pooling cuts them; 0 for others."""
    seen = torch.ones(rows)
    if part.kind == "stripe":
        first, last = part.index * rows // part.count, -(-(part.index + 1) * rows // part.count)
        seen[:first] = seen[last:] = 0
    return seen


# ---- the drawing -----------------------------------------------------------------------------------------


def draw_saliency(
    pictures: Sequence[Image.Image],
    heats: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    width: int = 96,
    *,
    networks: Sequence[tuple[str, int]] = (),
    caption: str = "",
) -> Image.Image:
    """Return a grid as in the paper's Figure 2: a row for each picture, itself first, then under each heat map.

    Args:
        pictures: Pictures of any size.
        heats: For each picture, a map h×w of 0 … 1 for each title; networks may have maps of different sizes.
        titles: Titles of the columns after the first.
        width: Width of a cell in pixels; its height is twice that.
        networks: Headings above the titles, left to right, each with the number of columns it spans.
        caption: Text below the grid, wrapped to its width (default: none).

    Returns:
        An RGB image, on white.
    """
    gap, line = 4, 16
    font, ink = ImageFont.load_default(12), (30, 41, 59)
    height, step = 2 * width, width + gap
    headings = [(_wrapped(text, columns * step - 2 * gap, font), columns) for text, columns in networks]
    top = line * max((len(lines) for lines, _ in headings), default=0)
    across = (len(titles) + 1) * step + gap
    bottom = top + line + len(pictures) * (height + gap) + gap
    below = _wrapped(caption, across - 2 * gap, font) if caption else []
    canvas = Image.new("RGB", (across, bottom + line * len(below)), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    left = gap + step
    for lines, columns in headings:
        for number, text in enumerate(lines):
            draw.text((left + (columns * step - gap) / 2, (number + 0.5) * line), text, ink, font, anchor="mm")
        draw.line((left, top, left + columns * step - gap - 1, top), ink)
        left += columns * step
    for column, title in enumerate(("picture", *titles)):
        draw.text((gap + column * step + width / 2, top + line / 2), title, ink, font, anchor="mm")
    for row, (picture, maps) in enumerate(zip(pictures, heats, strict=True)):
        shown = picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        for column, cell in enumerate((shown, *(overlay(shown, heat) for heat in maps))):
            canvas.paste(cell, (gap + column * step, top + line + row * (height + gap)))
    for number, text in enumerate(below):
        draw.text((gap, bottom + number * line), text, ink, font)
    return canvas


def network_heading(model: PartNet) -> str:
    """Return a network's heading: backbone, partition, height × width of its input in pixels."""
    height, width = model.preprocessing.size
    # An x: Pillow's own font has no ×.
    return f"{model.backbone} {model.partition} {height}x{width}"


def _wrapped(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Return lines no wider than ``width`` pixels, broken at spaces or at the signs that join names of networks."""
    lines = [""]
    for word in re.findall(r"[^ _.+]*[ _.+]|[^ _.+]+", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def overlay(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """Return a picture in gray under the colors of a map of 0 … 1: blue where it is cold, red where it is hot."""
    from matplotlib import colormaps

    smooth = Image.fromarray((np.clip(heat, 0, 1) * 255).astype(np.uint8)).resize(
        picture.size, Image.Resampling.BILINEAR
    )
    values = np.asarray(smooth, float)[..., None] / 255
    colors = colormaps["turbo"](values[..., 0])[..., :3] * 255
    gray = np.asarray(picture.convert("L").convert("RGB"), float)
    strength = 0.25 + 0.4 * values
    return Image.fromarray((gray * (1 - strength) + colors * strength).round().astype(np.uint8))
