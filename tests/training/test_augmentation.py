"""What a recipe says of augmentation reaches the images that the network is trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import reprism
from reprism.data.images import read_image
from reprism.training.module import ReIDModule
from reprism.training.recipes import Recipe
from reprism.training.run import train

MEAN, STD = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


class _Seen(Exception):  # noqa: N818
    pass


def first_batch(people: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **data: Any) -> Tensor:
    """Return the first images that a run trains on, B×3×64×32, values scaled back to 0 … 255."""

    def training_step(self: ReIDModule, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        raise _Seen(batch[0])

    monkeypatch.setattr(ReIDModule, "training_step", training_step)
    settings = {"root": str(people), "size": (64, 32), "ids_per_batch": 8, "images_per_id": 2, "workers": 0}
    recipe = Recipe.model_validate(
        {
            "data": {**settings, "flip": 0.0, **data},
            "model": {"backbone": "mobilenetv3_small_050", "pretrained": False, "partition": "p1", "part_dim": 4},
            "trainer": {"accelerator": "cpu", "precision": "fp32", "evaluate_every": 0},
        }
    )
    with pytest.raises(_Seen) as seen:
        train(recipe, folder / "run")
    return (seen.value.args[0] * STD + MEAN) * 255


def unchanged(image: Tensor, original: Tensor) -> bool:
    return bool((image - original).abs().max() < 0.01)


def mirrored(image: Tensor, original: Tensor) -> bool:
    return unchanged(image, original.flip(-1))


def erased(image: Tensor, original: Tensor) -> bool:
    """One rectangle of ImageNet's mean colour, 2 to 40 % of the area, and everything else as it was."""
    at = ((image - MEAN * 255).abs() < 0.01).all(0)
    rows, columns = at.any(1).nonzero().flatten(), at.any(0).nonzero().flatten()
    if not len(rows):
        return False
    rectangle = torch.zeros_like(at)
    rectangle[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    whole = torch.equal(at, rectangle) and 0.015 < at.float().mean() < 0.42
    return bool(whole and ((image - original).abs()[:, ~at] < 0.01).all())


def shifted(image: Tensor, original: Tensor) -> bool:
    """A window of the image with 3 black pixels around it, and another one than the image."""
    padded = F.pad(original, (3, 3, 3, 3))
    windows = [padded[:, top : top + 64, left : left + 32] for top in range(7) for left in range(7)]
    return any(unchanged(image, window) for window in windows) and not unchanged(image, original)


def recolored(image: Tensor, original: Tensor) -> bool:
    """Other colours of the same picture: its lightness goes up and down with the original's."""
    both = torch.stack([image.mean(0).flatten(), original.mean(0).flatten()])
    return bool(torch.corrcoef(both)[0, 1] > 0.98) and not unchanged(image, original)


@pytest.mark.parametrize(
    ("setting", "becomes", "of_16"),
    [
        ({}, unchanged, 16),
        ({"flip": 1.0}, mirrored, 16),
        ({"erasing": 1.0}, erased, 16),
        ({"pad_crop": 3}, shifted, 12),  # the middle one of 49 windows is the image itself
        ({"color_jitter": 0.4}, recolored, 16),
    ],
    ids=["none", "flip", "erasing", "pad_crop", "color_jitter"],
)
def test_the_recipes_augmentation_is_applied(
    people: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: dict[str, Any],
    becomes: Callable[[Tensor, Tensor], bool],
    of_16: int,
) -> None:
    images = first_batch(people, tmp_path, monkeypatch, **setting)
    originals = [read_image(sample.path).float() for sample in reprism.open_dataset("market1501", people).train]
    assert len(images) == 16
    changed = sum(any(becomes(image, original) for original in originals) for image in images)
    assert changed >= of_16
