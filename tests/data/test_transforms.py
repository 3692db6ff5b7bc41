import json

import numpy as np
import pytest
import torch
from PIL import Image

from reprism.data.transforms import Preprocessing, eval_transform, train_transform

PLAIN = Preprocessing(size=(40, 20), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def photo(height=64, width=32, seed=0):
    """Something with structure: smooth colours and noise, uint8 3×H×W."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(coarse).astype(int) + rng.integers(-20, 21, (height, width, 3))
    return torch.from_numpy(noisy.clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()


@pytest.mark.parametrize("size", [(40, 20), (192, 96), (384, 192)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_is_that_of_pillow(size, interpolation):
    image = photo(128, 64)
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling[interpolation.upper()])
    ours = eval_transform(Preprocessing(size, (0, 0, 0), (1, 1, 1), interpolation))(image) * 255
    difference = (ours.permute(1, 2, 0) - torch.from_numpy(np.array(pillow))).abs()
    assert difference.max() <= 1.01  # Of 255: either rounds to bytes.


def test_normalization_is_the_closed_form():
    preprocessing = Preprocessing(size=(64, 32))
    image = photo()
    result = eval_transform(preprocessing)(image)
    mean = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    np.testing.assert_allclose(result.numpy(), (image.numpy() / 255 - mean) / std, atol=1e-5)


def test_shapes_types_and_layout():
    for transform in (eval_transform(Preprocessing()), train_transform(Preprocessing(), 0.5, 0.5, 10, 0.2)):
        result = transform(photo())
        assert result.shape == (3, 384, 192)
        assert result.dtype == torch.float32
        assert result.is_contiguous()
    batch = torch.stack([photo(seed=1), photo(seed=2)])
    both = eval_transform(PLAIN)(batch)
    assert torch.equal(both[1], eval_transform(PLAIN)(batch[1]))


@pytest.mark.parametrize("size", [(64, 32), (40, 20)])
def test_the_input_is_left_as_it_was(size):
    image = photo()
    before = image.clone()
    preprocessing = Preprocessing(size)
    for transform in (eval_transform(preprocessing), train_transform(preprocessing, 1.0, 1.0, 4, 0.5)):
        for _ in range(5):
            transform(image)
        assert torch.equal(image, before)


def test_flip_is_the_mirror_of_the_resized_image():
    image = photo()
    flipped = train_transform(PLAIN, flip=1.0)(image)
    plain = eval_transform(PLAIN)(image)
    # Up to one grey level: the resize rounds to bytes.
    assert (flipped - plain.flip(-1)).abs().max() <= 1.01 / 255
    assert (flipped - plain).abs().max() > 10 / 255
    assert torch.equal(train_transform(PLAIN, flip=0.0)(image), plain)


def test_flip_happens_with_its_probability():
    image = photo()
    plain = eval_transform(PLAIN)(image)
    transform = train_transform(PLAIN, flip=0.25)
    torch.manual_seed(0)
    flipped = sum(not torch.equal(transform(image), plain) for _ in range(800))
    assert abs(flipped - 200) < 6 * (800 * 0.25 * 0.75) ** 0.5


def test_erasing_writes_the_mean_color_into_one_rectangle_of_the_stated_area_and_shape():
    preprocessing = Preprocessing(size=(100, 60))
    image = torch.full((3, 50, 30), 255, dtype=torch.uint8)
    transform = train_transform(preprocessing, flip=0.0, erasing=1.0)
    torch.manual_seed(1)
    areas = []
    for _ in range(300):
        result = transform(image)
        erased = (result == 0).all(dim=0)
        assert ((result == 0).any(dim=0) == erased).all()
        rows = erased.any(dim=1).nonzero().flatten()
        columns = erased.any(dim=0).nonzero().flatten()
        height, width = len(rows), len(columns)
        assert erased.sum() == height * width  # One full rectangle.
        assert rows[-1] - rows[0] + 1 == height
        assert columns[-1] - columns[0] + 1 == width
        areas.append(height * width / 6000)
        # Rounding to pixels moves the shape by half a pixel a side.
        assert (height + 0.5) / (width - 0.5) >= 0.3
        assert (height - 0.5) / (width + 0.5) <= 3.3
    assert 0.018 < min(areas) < 0.05
    assert 0.33 < max(areas) < 0.41


def test_erasing_happens_with_its_probability():
    image = photo()
    plain = eval_transform(PLAIN)(image)
    torch.manual_seed(0)
    transform = train_transform(PLAIN, flip=0.0, erasing=0.5)
    erased = sum(not torch.equal(transform(image), plain) for _ in range(400))
    assert abs(erased - 200) < 6 * 10


def test_pad_crop_moves_the_image_by_at_most_the_padding():
    image = photo(40, 20)
    padded = torch.nn.functional.pad(image, (3, 3, 3, 3))
    windows = {
        padded[:, top : top + 40, left : left + 20].numpy().tobytes(): (top, left)
        for top in range(7)
        for left in range(7)
    }
    torch.manual_seed(0)
    transform = train_transform(PLAIN, flip=0.0, pad_crop=3)
    seen = {windows[(transform(image) * 255).round().to(torch.uint8).numpy().tobytes()] for _ in range(600)}
    assert len(seen) > 45  # Of 49.


def test_color_jitter_changes_colors_within_its_range():
    gray = torch.full((3, 40, 20), 100, dtype=torch.uint8)
    torch.manual_seed(0)
    transform = train_transform(PLAIN, flip=0.0, color_jitter=0.2)
    values = [transform(gray)[0, 0, 0].item() * 255 for _ in range(200)]
    # On flat grey only brightness shows: a factor of 0.8 … 1.2.
    assert 79 <= min(values) < 85
    assert 115 < max(values) <= 120


def test_the_default_is_the_papers_augmentation_alone():
    transform = train_transform(Preprocessing())
    assert [type(step).__name__ for step in transform.transforms] == [
        "RandomHorizontalFlip",
        "Resize",
        "ToDtype",
        "Normalize",
    ]


def test_same_generator_state_same_augmentation():
    transform = train_transform(PLAIN, 0.5, 0.5, 3, 0.3)
    image = photo()
    torch.manual_seed(3)
    first = [transform(image) for _ in range(5)]
    torch.manual_seed(3)
    assert all(torch.equal(image_, transform(image)) for image_ in first)


def test_preprocessing_travels_through_json():
    preprocessing = Preprocessing((256, 128), (0.5, 0.5, 0.25), (0.5, 0.5, 1), "bilinear")
    text = json.dumps(preprocessing.to_dict())
    again = Preprocessing.from_dict(json.loads(text))
    assert again == preprocessing
    assert hash(again) == hash(preprocessing)
    assert json.loads(text)["size"] == [256, 128]


def test_preprocessing_defaults_are_the_papers_size_and_imagenet():
    assert Preprocessing().to_dict() == {
        "size": [384, 192],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", (384,)),
        ("size", (384, 0)),
        ("size", (384.0, 192.0)),
        ("size", 384),
        ("size", (True, 192)),
        ("mean", (0.5, 0.5)),
        ("mean", (0.5, 0.5, float("nan"))),
        ("mean", "abc"),
        ("std", (0.2, 0.2, 0.0)),
        ("std", (0.2, 0.2, -1.0)),
        ("std", (0.2, 0.2, None)),
        ("interpolation", "lanczos"),
        ("interpolation", None),
    ],
)
def test_bad_preprocessing_is_refused_by_field(field, value):
    with pytest.raises(ValueError, match=f"Preprocessing.{field} is "):
        Preprocessing(**{field: value})


def test_missing_and_unknown_fields_are_refused():
    values = Preprocessing().to_dict()
    values["crop"] = values.pop("std")
    with pytest.raises(ValueError, match=r"missing \['std'\], unknown \['crop'\]"):
        Preprocessing.from_dict(values)


@pytest.mark.parametrize(
    ("name", "value"),
    [("flip", 1.5), ("erasing", -0.1), ("color_jitter", 2), ("pad_crop", -1), ("flip", float("nan"))],
)
def test_bad_augmentation_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        train_transform(PLAIN, **{name: value})
