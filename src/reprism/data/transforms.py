"""Turn a decoded image into a network's input: size, augmentation, normalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torchvision.transforms import v2

from reprism.deprecation import renamed

MAX_SIDE = 2048
"""Longest side of a network's images, in pixels: more would take gigabytes a batch, because of a number in a file."""

_INTERPOLATIONS = {
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
}

__getattr__ = renamed(__name__, normalise="reprism.data.transforms:normalize")


@dataclass(frozen=True)
class Preprocessing:
    """Size and normalisation of a network's input. It travels with the weights.

    Attributes:
        size: Height and width in pixels, at most ``MAX_SIDE``. The paper's: 384×192.
        mean: Mean of red, green and blue over pixels scaled to 0 … 1; subtracted. ImageNet's by default.
        std: Their standard deviation, by which the difference is divided; above 0. ImageNet's by default.
        interpolation: ``bicubic`` or ``bilinear``; both smooth an image that shrinks.

    Raises:
        ValueError: A field is out of its range; the message names it.
    """

    size: tuple[int, int] = (384, 192)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        for name, length in (("size", 2), ("mean", 3), ("std", 3)):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or len(value) != length or not all(map(_is_number, value)):
                raise ValueError(f"Preprocessing.{name} is {value!r}; it must be {length} finite numbers.")
            # JSON has lists only; equality and hash want one form.
            object.__setattr__(self, name, tuple(value))
        if not all(isinstance(side, int) and side > 0 for side in self.size):
            raise ValueError(
                f"Preprocessing.size is {self.size}; it must be height and width in whole pixels, 1 or more."
            )
        if max(self.size) > MAX_SIDE:
            raise ValueError(f"Preprocessing.size is {self.size}; it must be at most {MAX_SIDE} pixels either way.")
        if min(self.std) <= 0:
            raise ValueError(f"Preprocessing.std is {self.std}; each value must be above 0.")
        if self.interpolation not in _INTERPOLATIONS:
            raise ValueError(
                f"Preprocessing.interpolation is {self.interpolation!r}; "
                f"it must be one of {', '.join(_INTERPOLATIONS)}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON; ``from_dict`` reads them back."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what ``to_dict`` wrote.

        Raises:
            ValueError: A field is missing, unknown or out of range. Nothing is filled in: a network fed by a
                guess gives wrong descriptors without a sign.
        """
        expected = {field.name for field in fields(cls)}
        if values.keys() != expected:
            raise ValueError(
                f"Preprocessing needs the fields {sorted(expected)}; "
                f"missing {sorted(expected - values.keys())}, unknown {sorted(values.keys() - expected)}."
            )
        return cls(**values)


def train_transform(
    preprocessing: Preprocessing,
    flip: float = 0.5,
    erasing: float = 0.0,
    pad_crop: int = 0,
    color_jitter: float = 0.0,
) -> v2.Compose:
    """Augment and normalise a training image: uint8 3×H×W -> float32 3×height×width.

    The order is flip, resize, crop, jitter, normalise, erase. Each step that is switched off is left out. Randomness
    comes from torch's global CPU generator.

    Args:
        preprocessing: Size, normalisation, interpolation.
        flip: Probability of a horizontal mirror, 0 … 1 (the paper's one augmentation).
        erasing: Probability, 0 … 1, of erasing a rectangle, 2 … 40 % of the area and 0.3 … 3.3 times as high
            as wide, to the mean colour (Zhong et al., Random Erasing Data Augmentation, AAAI 2020; the
            numbers are the released code's).
        pad_crop: Pixels of black added to every side after resizing, before a random crop back to the size.
        color_jitter: Brightness, contrast and saturation are each scaled by 1 ± at most this, 0 … 1.

    Raises:
        ValueError: An argument is out of its range.
    """
    for name, value in (("flip", flip), ("erasing", erasing), ("color_jitter", color_jitter)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it must lie in 0 … 1.")
    if pad_crop < 0:
        raise ValueError(f"pad_crop is {pad_crop}; it must be 0 pixels or more.")
    steps: list[torch.nn.Module] = []
    if flip:
        # Before resizing: the same picture, and usually a smaller one to move.
        steps.append(v2.RandomHorizontalFlip(flip))
    steps.append(resize(preprocessing))
    if pad_crop:
        steps.append(v2.RandomCrop(preprocessing.size, padding=pad_crop))
    if color_jitter:
        steps.append(v2.ColorJitter(brightness=color_jitter, contrast=color_jitter, saturation=color_jitter))
    steps += normalize(preprocessing).transforms
    if erasing:
        steps.append(v2.RandomErasing(erasing, scale=(0.02, 0.4), ratio=(0.3, 3.3), value=0, inplace=True))
    return v2.Compose(steps)


def eval_transform(preprocessing: Preprocessing) -> v2.Compose:
    """Resize and normalise, nothing random: uint8 3×H×W (or B×3×H×W) -> float32 3×height×width (B×…)."""
    return v2.Compose([resize(preprocessing), *normalize(preprocessing).transforms])


def resize(preprocessing: Preprocessing) -> v2.Resize:
    """Make the first half of :func:`eval_transform`, image by image: uint8 3×H×W -> uint8 3×height×width."""
    # Of the uint8 image: torch's own bicubic for bytes takes a third of the time of the one for floats.
    return v2.Resize(preprocessing.size, interpolation=_INTERPOLATIONS[preprocessing.interpolation], antialias=True)


def normalize(preprocessing: Preprocessing) -> v2.Compose:
    """Make the second half, for whole batches on any device: uint8 …×3×H×W -> float32."""
    # In place is safe: ToDtype has just made a tensor of its own.
    return v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(preprocessing.mean), list(preprocessing.std), inplace=True),
        ]
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
