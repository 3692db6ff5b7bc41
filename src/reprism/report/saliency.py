"""Saliency: where in a picture a part of the network looked (paper Figure 2).

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
    """What is asked about is not there; or captum is not installed."""


def saliency(
    model: PartNet,
    images: Tensor,
    part: str,
    *,
    identities: Tensor | None = None,
    against: Tensor | None = None,
    masked: bool = True,
) -> np.ndarray:
    """Grad-CAM of one part.

    Args:
        model: A network, in eval mode.
        images: B×3×H×W, normalised as the model's preprocessing says.
        part: Name of the part, such as ``p2s1``.
        identities: B classes of the part's classifier to ask about; None: those that it holds likeliest itself.
        against: B×3×H×W (or 1×3×H×W for all), normalised: ask for the similarity (cosine) of the part's feature to that
            of these pictures instead.
        masked: Whether a stripe's map is set to 0 outside that stripe, which its pooling does not see. Grad-CAM itself
            marks a channel's response wherever it lies: ``False`` leaves that as it is. No other part is masked.

    Returns:
        B×h×w float32 of the branch's map, 0 … 1, each divided by its largest value; all 0 where nothing speaks for it.

    Raises:
        ExplainError: No such part, no classifiers and nothing to compare with, an identity out of range, both asked
            for, or captum missing.
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
    """1 for rows of the map that the part is pooled from, as adaptive pooling cuts them."""
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
    """A grid as in the paper's Figure 2: a row for each picture, itself first, then under each heat.

    Args:
        pictures: As they are, of any size.
        heats: Of each picture, a map h×w of 0 … 1 for each title; networks may have maps of different sizes.
        titles: Of the columns after the first.
        width: Of a cell in pixels; it is twice as high.
        networks: Headings above the titles, each with the number of columns that it stands over, left to right.
        caption: Text below the grid, broken to its width.

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
        for place, text in enumerate(lines):
            draw.text((left + (columns * step - gap) / 2, (place + 0.5) * line), text, ink, font, anchor="mm")
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
    """What a network is, above its columns: backbone, partition, height × width of its input in pixels."""
    height, width = model.preprocessing.size
    # An x: Pillow's own font has no ×.
    return f"{model.backbone} {model.partition} {height}x{width}"


def _wrapped(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines no wider than that many pixels, if need be broken behind the signs that names of networks are joined by."""
    lines = [""]
    for word in re.findall(r"[^ _.+]*[ _.+]|[^ _.+]+", text):
        if lines[-1] and font.getlength((lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def overlay(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    """A picture, grey, under the colours of a map of 0 … 1: blue where it is cold, red where it is hot."""
    from matplotlib import colormaps

    smooth = Image.fromarray((np.clip(heat, 0, 1) * 255).astype(np.uint8)).resize(
        picture.size, Image.Resampling.BILINEAR
    )
    values = np.asarray(smooth, float)[..., None] / 255
    colours = colormaps["turbo"](values[..., 0])[..., :3] * 255
    grey = np.asarray(picture.convert("L").convert("RGB"), float)
    strength = 0.25 + 0.4 * values
    return Image.fromarray((grey * (1 - strength) + colours * strength).round().astype(np.uint8))
