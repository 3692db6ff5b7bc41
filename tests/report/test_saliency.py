"""Saliency against Grad-CAM's own formula; stripes' maps lie in their stripes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageFont

import reprism
from reprism.cli import main
from reprism.report.saliency import ExplainError, _wrapped, draw_saliency, overlay, saliency


@pytest.fixture(scope="module")
def model() -> reprism.PartNet:
    torch.manual_seed(0)
    model = reprism.build_model("p1+p2(s2c2)+p3(s3)", "resnet10t", 6, part_dim=8, size=(96, 48))
    model.train()(torch.randn(8, 3, 96, 48))
    return model.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(3, 3, 96, 48, generator=torch.Generator().manual_seed(1))


def grad_cam(model: reprism.PartNet, images: torch.Tensor, branch: str, score) -> np.ndarray:
    """Selvaraju et al., equations 1 and 2: channels weighted by their mean gradient, summed, what is positive."""
    maps = {}
    hook = model.branches[branch].register_forward_hook(lambda _, __, output: maps.setdefault("map", output))
    value = score(model(images))
    hook.remove()
    (gradient,) = torch.autograd.grad(value.sum(), maps["map"])
    weights = gradient.mean((2, 3), keepdim=True)
    return F.relu((weights * maps["map"]).sum(1)).detach().numpy()


def scaled(heat: np.ndarray) -> np.ndarray:
    return heat / np.maximum(heat.max((1, 2), keepdims=True), 1e-12)


@pytest.mark.parametrize("part", ["p1", "p2", "p2c2"])
def test_it_is_grad_cam_of_the_parts_own_classifier(model: reprism.PartNet, images: torch.Tensor, part: str) -> None:
    asked = torch.tensor([0, 5, 2])
    expected = grad_cam(model, images, part[:2], lambda out: out.logits[part][range(3), asked])
    found = saliency(model, images, part, identities=asked)
    assert found.shape == (3, 6, 3)
    np.testing.assert_allclose(found, scaled(expected), atol=1e-5)
    likeliest = model(images).logits[part].argmax(1)
    np.testing.assert_array_equal(saliency(model, images, part), saliency(model, images, part, identities=likeliest))


def test_against_a_second_picture_it_asks_for_the_features_similarity(
    model: reprism.PartNet, images: torch.Tensor
) -> None:
    other = torch.randn(1, 3, 96, 48, generator=torch.Generator().manual_seed(2))
    feature = model(other).features["p2c1"].detach()
    expected = grad_cam(model, images, "p2", lambda out: F.cosine_similarity(out.features["p2c1"], feature))
    np.testing.assert_allclose(saliency(model, images, "p2c1", against=other), scaled(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("part", "rows"), [("p2s1", [0, 1, 2]), ("p2s2", [3, 4, 5]), ("p3s1", [0, 1]), ("p3s2", [2, 3]), ("p3s3", [4, 5])]
)
def test_stripes_maps_lie_in_their_stripes(
    model: reprism.PartNet, images: torch.Tensor, part: str, rows: list[int]
) -> None:
    heat = np.concatenate([saliency(model, images, part, identities=torch.full((3,), who)) for who in range(6)])
    outside = [row for row in range(6) if row not in rows]
    assert not heat[:, outside].any()
    assert heat[:, rows].max() == 1


@pytest.mark.parametrize("part", ["p2s1", "p3s3", "p2c1"])
def test_without_the_mask_a_stripes_map_is_grad_cam_over_the_whole_picture(
    model: reprism.PartNet, images: torch.Tensor, part: str
) -> None:
    """The mask alone keeps a map in its stripe: Grad-CAM's sum over channels knows no stripes."""
    asked = torch.tensor([1, 4, 3])
    expected = grad_cam(model, images, part[:2], lambda out: out.logits[part][range(3), asked])
    whole = saliency(model, images, part, identities=asked, masked=False)
    np.testing.assert_allclose(whole, scaled(expected), atol=1e-5)
    kept = {"p2s1": whole[:, :3], "p3s3": whole[:, 4:], "p2c1": whole}[part]
    outside = {"p2s1": whole[:, 3:], "p3s3": whole[:, :4], "p2c1": np.ones(1)}[part]
    assert outside.any()
    masked = saliency(model, images, part, identities=asked)
    rows = {"p2s1": slice(0, 3), "p3s3": slice(4, 6), "p2c1": slice(0, 6)}[part]
    np.testing.assert_allclose(masked[:, rows], scaled(kept), atol=1e-5)


def test_what_cannot_be_explained(model: reprism.PartNet, images: torch.Tensor) -> None:
    with pytest.raises(ExplainError, match="has no part 'p9'; it has p1, p2, p2s1"):
        saliency(model, images, "p9")
    with pytest.raises(ExplainError, match="identities 0 to 5"):
        saliency(model, images, "p1", identities=torch.tensor([0, 1, 6]))
    with pytest.raises(ExplainError, match="not both"):
        saliency(model, images, "p1", identities=torch.tensor([0, 1, 2]), against=images)
    bare = reprism.build_model("p1", "resnet10t", part_dim=8, size=(96, 48)).eval()
    with pytest.raises(ExplainError, match=r"without classifiers.*--against"):
        saliency(bare, images, "p1")


def test_heat_is_red_and_cold_is_blue() -> None:
    picture = Image.new("RGB", (40, 80), (128, 128, 128))
    heat = np.zeros((8, 4))
    heat[:4] = 1
    found = np.asarray(overlay(picture, heat)).astype(int)
    assert found[5, 20, 0] > found[5, 20, 2] + 30
    assert found[75, 20, 2] > found[75, 20, 0]
    grid = draw_saliency([picture, picture], [[heat, heat], [heat, heat]], ["p1", "p2"], width=40)
    assert grid.size == (3 * 44 + 4, 16 + 2 * 84 + 4)
    captioned = draw_saliency([picture, picture], [[heat, heat], [heat, heat]], ["p1", "p2"], width=40, caption="a b c")
    assert captioned.size == (grid.width, grid.height + 16)
    assert ImageChops.difference(captioned.crop((0, 0, *grid.size)), grid).getbbox() is None
    assert (np.asarray(captioned.convert("L"))[grid.height :] < 200).any()


def test_a_grid_of_several_networks() -> None:
    """Maps of different sizes in cells of one size; each network's heading over its own columns, whole."""
    picture = Image.new("RGB", (40, 80), (128, 128, 128))
    rows = [[np.ones(size) for size in ((24, 12), (8, 4), (8, 4))]]
    titles = ["p1", "p1", "p1s1"]
    alone = draw_saliency([picture], rows, titles, width=40)
    grid = draw_saliency([picture], rows, titles, width=40, networks=[("one_net", 1), ("b", 2)])
    lines = grid.height - alone.height
    assert lines == 2 * 16, "one_net does not fit 40 pixels, and is broken into one_ and net"
    assert (
        ImageChops.difference(grid.crop((0, lines + 1, *grid.size)), alone.crop((0, 1, *alone.size))).getbbox() is None
    )
    heading = np.asarray(grid.convert("L"))[:lines]
    inked = np.flatnonzero((heading < 200).any(0))
    columns = [range(48, 88), range(92, 176)]
    assert all(any(x in column for column in columns) for x in inked)
    for column in columns:
        assert (heading[:, column.start : column.stop] < 200).any()


@pytest.mark.parametrize("text", ["resnet50.tv_in1k p1+p2(s2c2)+p3(s3c3) 384x192", "residual_attention56", "p1", ""])
@pytest.mark.parametrize("width", [20, 90, 1000])
def test_headings_are_broken_without_losing_anything(text: str, width: int) -> None:
    font = ImageFont.load_default(12)
    lines = _wrapped(text, width, font)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    words = re.split(r"(?<=[ _.+])", text)
    assert all(font.getlength(line) <= max([width, *map(font.getlength, words)]) for line in lines)
    assert width < 1000 or len(lines) == 1


def test_the_command(model: reprism.PartNet, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reprism.save(model, tmp_path / "model.safetensors")
    first, second = sorted((people / "query").glob("*.jpg"))[:2]
    command = ["explain", str(tmp_path / "model.safetensors"), str(first), str(second), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    names = [part.name for part in model.partition.parts]
    names += [f"{part.name}-unmasked" for part in model.partition.parts if part.kind == "stripe"]
    pictures = [f"00{number}-{path.stem}" for number, path in enumerate((first, second), 1)]
    written = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert written == {"grid", *(f"{picture}-{name}" for picture in pictures for name in names)}
    kept, whole = ((tmp_path / "out" / f"{pictures[0]}-p2s1{end}.png").read_bytes() for end in ("", "-unmasked"))
    assert kept != whole
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        assert grid.width == 4 + 100 * (1 + len(names))
    assert main([*command, "--parts", "p1", "p2s1", "--against", str(second)]) == 0
    assert main([*command, "--parts", "p7"]) == 1
    assert "--parts p7: there is no such part" in capsys.readouterr().err


def test_the_command_sets_networks_side_by_side(
    model: reprism.PartNet, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each network sees the pictures at its own size; a part that one of them lacks is no column of it."""
    torch.manual_seed(1)
    other = reprism.build_model("p1(s2)", "mobilenetv3_small_050", 4, part_dim=8, size=(64, 32)).eval()
    mine, theirs = (str(reprism.save(net, tmp_path / f"{n}.safetensors")) for n, net in enumerate((model, other)))
    pictures = [str(path) for path in sorted((people / "query").glob("*.jpg"))[:2]]
    command = ["explain", mine, *pictures, "--beside", theirs, "--parts", "p2s1", "p1", "--out"]
    assert main([*command, str(tmp_path / "both")]) == 0
    stems = [f"{n:03d}-{Path(path).stem}" for n, path in enumerate(pictures, 1)]
    labels = ["p2s1", "p2s1-unmasked", "p1", "2-p1"]
    written = {path.stem for path in (tmp_path / "both").glob("*.png")}
    assert written == {"grid", *(f"{stem}-{label}" for stem in stems for label in labels)}
    # The second network's column is what it shows by itself.
    assert main(["explain", theirs, *pictures, "--parts", "p1", "--out", str(tmp_path / "alone")]) == 0
    for stem in stems:
        beside, alone = (tmp_path / "both" / f"{stem}-2-p1.png", tmp_path / "alone" / f"{stem}-p1.png")
        assert beside.read_bytes() == alone.read_bytes()
    assert main(["explain", mine, pictures[0], "--beside", theirs, "--parts", "p2", "--out", str(tmp_path / "no")]) == 1
    assert "leaves a model without a column" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
