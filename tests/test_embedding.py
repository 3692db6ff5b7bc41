"""The embedder: every kind of input means the same, and the protocol is the stated one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import reprism
from reprism.data.images import ImageError
from reprism.data.records import Tracklet
from reprism.data.transforms import eval_transform
from reprism.data.video import VideoSettings


@pytest.fixture(scope="module")
def model() -> reprism.PartNet:
    torch.manual_seed(0)
    model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=16, size=(64, 32))
    model.train()(torch.randn(8, 3, 64, 32))
    return model.eval()


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (50, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def embedder(model: reprism.PartNet) -> reprism.Embedder:
    return reprism.Embedder(model, batch_size=4, precision="fp32", device="cpu")


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1)


def test_every_kind_of_input_means_the_same(embedder: reprism.Embedder, picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "crop.png"
    Image.fromarray(picture).save(path)
    planar = torch.from_numpy(picture).permute(2, 0, 1)
    expected = embedder.embed([picture])
    assert expected.shape == (1, 48)
    assert expected.dtype == np.float32
    mixed = embedder.embed([path, str(path), Image.fromarray(picture), planar, planar.float() / 255])
    np.testing.assert_allclose(mixed, np.repeat(expected, 5, axis=0), atol=1e-5)
    np.testing.assert_allclose(embedder.embed(planar[None]), expected, atol=1e-5)


def test_the_callers_network_stays_as_it_is_and_the_embedder_keeps_the_weights_it_was_given(
    picture: np.ndarray,
) -> None:
    model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", num_classes=3, part_dim=16, size=(64, 32)).train()
    model.trunk.eval()  # such as with frozen batch statistics
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    strides = [parameter.stride() for parameter in model.parameters()]
    embedder = reprism.Embedder(model, precision="fp32", device="cpu")
    before = embedder.embed([picture])
    assert [module.training for module in model.modules()] == modes
    assert [parameter.stride() for parameter in model.parameters()] == strides
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), f"{name} moved"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    np.testing.assert_array_equal(embedder.embed([picture]), before)
    assert np.abs(reprism.Embedder(model, precision="fp32", device="cpu").embed([picture]) - before).max() > 1e-3
    assert reprism.Embedder(model, device="meta").model is not model
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_the_descriptor_is_image_plus_mirror_then_one_norm(model: reprism.PartNet, picture: np.ndarray) -> None:
    planar = eval_transform(model.preprocessing)(torch.from_numpy(picture).permute(2, 0, 1))[None]
    with torch.no_grad():
        image, mirrored = model(planar).descriptor, model(planar.flip(3)).descriptor
    both = (image + mirrored).numpy()
    for flip, raw in ((True, both), (False, image.numpy())):
        found = reprism.Embedder(model, flip=flip, precision="fp32", device="cpu").embed([picture])
        np.testing.assert_allclose(found, raw / np.linalg.norm(raw), atol=1e-5)


def test_ready_images_are_resized_and_not_normalized(embedder: reprism.Embedder, picture: np.ndarray) -> None:
    resized = embedder.resize(torch.from_numpy(picture).permute(2, 0, 1))[None]
    np.testing.assert_allclose(embedder.embed_ready(resized), embedder.embed([picture]), atol=1e-6)
    with pytest.raises(TypeError, match=r"torch\.float32 were given; expected uint8"):
        embedder.embed_ready(eval_transform(embedder.model.preprocessing)(resized))


def test_rows_have_length_one_in_any_batch(embedder: reprism.Embedder) -> None:
    pictures = [np.random.default_rng(n).integers(0, 256, (40 + n, 30, 3), dtype=np.uint8) for n in range(9)]
    rows = embedder.embed(pictures)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    for n in (0, 4, 8):  # batches are of four
        np.testing.assert_allclose(rows[n], embedder.embed([pictures[n]])[0], atol=1e-5)


@pytest.mark.parametrize("precision", ["auto", "bf16"])
def test_lower_precision_stays_close(
    model: reprism.PartNet, embedder: reprism.Embedder, picture: np.ndarray, precision: str
) -> None:
    pictures = [picture, picture[::-1].copy()]
    lower = reprism.Embedder(model, precision=precision, device="cpu").embed(pictures)
    assert cosines(lower, embedder.embed(pictures)).min() > 0.99


def test_read_only_and_reversed_arrays_are_taken_without_a_word(
    embedder: reprism.Embedder, picture: np.ndarray, recwarn: pytest.WarningsRecorder
) -> None:
    frozen = picture.copy()
    frozen.flags.writeable = False
    reversed_twice = picture[..., ::-1].copy()[..., ::-1]
    np.testing.assert_array_equal(*embedder.embed([frozen, reversed_twice]))
    assert not recwarn.list


def test_nothing_gives_nothing(embedder: reprism.Embedder) -> None:
    assert embedder.embed([]).shape == (0, 48)
    assert embedder.embed_boxes(np.zeros((10, 10, 3), np.uint8), []).shape == (0, 48)


def test_boxes_are_crops(embedder: reprism.Embedder) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    boxes = [[10, 20, 50, 100], [-5, -5, 30, 60], [100.2, 40.7, 500, 500]]
    crops = [frame[20:100, 10:50], frame[0:60, 0:30], frame[40:120, 100:160]]
    np.testing.assert_allclose(embedder.embed_boxes(frame, boxes), embedder.embed(crops), atol=1e-5)


@pytest.mark.parametrize(
    ("boxes", "says"),
    [([[0, 0, 5]], "1×3"), ([[0, 0, 5, 5], [200, 0, 300, 5]], "box 1 .* covers nothing"), ([[5, 5, 5, 9]], "box 0"),
     ([[0, 0, float("nan"), 5]], "box 0 is not finite")],
)  # fmt: skip
def test_bad_boxes_are_named(embedder: reprism.Embedder, boxes: list[list[float]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        embedder.embed_boxes(np.zeros((100, 100, 3), np.uint8), boxes)


def test_bad_pictures_are_named(embedder: reprism.Embedder, tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_text("not a picture")
    with pytest.raises(ImageError, match=r"no\.jpg"):
        embedder.embed([tmp_path / "no.jpg"])
    good = np.zeros((4, 4, 3), np.uint8)
    for bad, says in (
        (np.zeros((4, 4, 3), np.float32), r"image 1 .* float32; expected H×W×3 uint8"),
        (np.zeros((4, 4), np.uint8), r"image 1 .*shape \(4, 4\)"),
        (torch.full((3, 4, 4), 2.0), r"image 1 .*2…2; expected 0…1"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), r"expected 3×H×W"),
    ):
        with pytest.raises(ValueError, match=says):
            embedder.embed([good, bad])
    for bad in (None, torch.zeros(3, 4, 4, dtype=torch.int64)):
        with pytest.raises(TypeError, match="image 1 is a"):
            embedder.embed([good, bad])
    with pytest.raises(TypeError, match=r"give \[image\]"):
        embedder.embed("crop.jpg")
    with pytest.raises(ValueError, match="batch_size"):
        reprism.Embedder(embedder.model, batch_size=0)
    with pytest.raises(ImageError, match=r"Cannot read image 1: .*mode I;16, more than 8 bits"):
        embedder.embed([good, Image.new("I;16", (4, 4))])


def test_samples_keep_their_order(embedder: reprism.Embedder, people: Path) -> None:
    query = reprism.open_dataset("market1501", people).query
    seen: list[tuple[int, int]] = []
    rows = embedder.embed_samples(query, workers=1, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(rows, embedder.embed([sample.path for sample in query]), atol=1e-5)
    assert seen[-1] == (len(query), len(query))


# --- tracklets ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Tracklet:
    """Seven frames of noise on disk."""
    folder, rng = tmp_path_factory.mktemp("walk"), np.random.default_rng(1)
    for n in range(7):
        Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    return Tracklet(folder, tuple(f"{n}.png" for n in range(7)), "somebody", 1)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize(
    ("frames", "segments", "chosen"),
    [
        (6, 3, [[0, 1], [2, 3], [4, 5]]),
        (5, 3, [[0, 1], [2, 4], [5]]),
        (3, 1, [[0, 2, 4]]),
        (9, 3, [[0, 1, 2], [3, 4, 5], [6, 6, 6]]),
    ],
)
def test_a_tracklet_is_its_segments_side_by_side(
    embedder: reprism.Embedder, walk: Tracklet, frames: int, segments: int, chosen: list[list[int]], pooling: str
) -> None:
    """From the definition: rows of length 1, mean or maximum of each segment, not normalised again."""
    video = VideoSettings(frames=frames, segments=segments, pooling=pooling)
    paths = [walk.frame(n).path for n in range(7)]
    rows = embedder.embed(paths)
    pool = np.mean if pooling == "mean" else np.max
    expected = np.concatenate([pool(rows[segment], axis=0) for segment in chosen])
    assert expected.shape == (segments * embedder.descriptor_dim,)
    np.testing.assert_allclose(embedder.embed_tracklet(paths, video), expected, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_tracklets([walk, walk], video), [expected, expected], atol=1e-5)
    np.testing.assert_allclose(embedder.embed_items([walk], video), [expected], atol=1e-5)


def test_all_frames_and_frames_from_a_stream(embedder: reprism.Embedder, walk: Tracklet) -> None:
    paths = [walk.frame(n).path for n in range(7)]
    whole = VideoSettings(frames=1, segments=1, sampling="all")
    expected = embedder.embed(paths).mean(0)
    np.testing.assert_allclose(embedder.embed_tracklet(iter(paths), whole), expected, atol=1e-5)
    assert embedder.embed_tracklet(paths).shape == (3 * embedder.descriptor_dim,), "the paper's three segments"


def test_a_tracklet_of_nothing_and_mixed_items_are_refused(embedder: reprism.Embedder, walk: Tracklet) -> None:
    with pytest.raises(ValueError, match="without a frame"):
        embedder.embed_tracklet([])
    with pytest.raises(ValueError, match="1 images and 1 tracklets are mixed"):
        embedder.embed_items([walk, walk.frame(0)])
    assert embedder.embed_items([]).shape == (0, embedder.descriptor_dim)


def test_a_broken_frame_is_named(embedder: reprism.Embedder, walk: Tracklet) -> None:
    with pytest.raises(ImageError, match=r"absent\.png"):
        embedder.embed_tracklets([Tracklet(walk.folder, ("0.png", "absent.png"), 1, 1)])


def test_an_embedder_and_its_network_print_in_a_line() -> None:
    model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", 751, part_dim=8, size=(64, 32))
    name = "PartNet('p1(s2)' on mobilenetv3_small_050, 64×32 images, 24 columns, 751 classes)"
    assert repr(model) == name
    embedder = reprism.Embedder(model, flip=False, precision="fp32", device="cpu")
    assert repr(embedder) == f"Embedder({name}, without mirrored image, torch, fp32, cpu)"
