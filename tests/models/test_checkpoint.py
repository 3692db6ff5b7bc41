"""Model files: what is written is read; foreign and damaged ones are named; the released layout is computed alike."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
import torchvision
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import reprism
from reprism.models.backbone import BackboneError
from reprism.models.checkpoint import CheckpointError, fingerprint, read_header

IMAGES = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> reprism.PartNet:
    torch.manual_seed(0)
    model = reprism.build_model("p1+p2(s2c2)", "resnet10t", num_classes=5, part_dim=16, size=(64, 32))
    model.train()(torch.randn(8, 3, 64, 32))  # move the running statistics off their starting values
    return model.eval()


def test_round_trip(model: reprism.PartNet, tmp_path: Path) -> None:
    path = reprism.save(model, tmp_path / "new" / "model.safetensors", recipe={"name": "test"})
    again = reprism.load(path)
    assert not again.training
    assert str(again.partition) == str(model.partition)
    assert again.preprocessing == model.preprocessing
    before, after = model(IMAGES), again(IMAGES)
    assert torch.equal(before.descriptor, after.descriptor)
    assert all(torch.equal(before.logits[name], after.logits[name]) for name in before.logits)
    header = read_header(path)
    assert header["partition"] == "p1+p2(s2c2)"
    assert header["recipe"] == {"name": "test"}
    assert header["version"] == reprism.__version__
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_classifiers_are_optional(model: reprism.PartNet, tmp_path: Path) -> None:
    whole = reprism.save(model, tmp_path / "whole.safetensors")
    bare = reprism.save(model, tmp_path / "bare.safetensors", classifiers=False)
    assert bare.stat().st_size < whole.stat().st_size
    for loaded in (reprism.load(whole, classifiers=False), reprism.load(bare)):
        assert loaded.num_classes == 0
        assert torch.equal(loaded(IMAGES).descriptor, model(IMAGES).descriptor)


def test_a_fingerprint_outlasts_saving_and_tells_models_apart(model: reprism.PartNet, tmp_path: Path) -> None:
    own = fingerprint(model)
    bare = reprism.load(reprism.save(model, tmp_path / "bare.safetensors", classifiers=False))
    assert fingerprint(bare) == own
    assert fingerprint(bare.to(memory_format=torch.channels_last)) == own
    others = [copy.deepcopy(model) for _ in range(3)]
    with torch.no_grad():
        next(others[0].parameters()).flatten()[0].add_(1e-6)
        next(value for key, value in others[1].named_buffers() if key.endswith("running_var"))[0] += 1e-3
    others[2].preprocessing = type(model.preprocessing)((64, 32), interpolation="bilinear")
    assert len({own, *map(fingerprint, others)}) == 4


def test_preprocessing_travels_with_the_weights(model: reprism.PartNet, tmp_path: Path) -> None:
    changed = copy.deepcopy(model)
    changed.preprocessing = type(model.preprocessing)((64, 32), (0.5, 0.4, 0.3), (0.1, 0.2, 0.3), "bilinear")
    path = reprism.save(changed, tmp_path / "model.safetensors")
    assert reprism.load(path).preprocessing == changed.preprocessing


def test_a_failed_save_leaves_the_old_file(
    model: reprism.PartNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = reprism.save(model, tmp_path / "model.safetensors")
    before = path.read_bytes()

    def disk_full(tensors: dict[str, Tensor], target: Path, metadata: dict[str, str]) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", disk_full)
    with pytest.raises(OSError, match="No space"):
        reprism.save(model, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bad_files_are_named(model: reprism.PartNet, tmp_path: Path) -> None:
    path = reprism.save(model, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"absent\.safetensors: there is no such file"):
        reprism.load(tmp_path / "absent.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is not a whole safetensors file"):
        reprism.load(cut)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(CheckpointError, match=r"foreign\.safetensors has no Reprism header"):
        reprism.load(foreign)
    pickled = tmp_path / "foreign.pth"
    torch.save({"weight": torch.zeros(2)}, pickled)
    with pytest.raises(CheckpointError, match=r"foreign\.pth is neither"):
        reprism.load(pickled)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"format": 3, "version": "9.9"}, "format 3 by Reprism 9.9"),
     ({"backbone": "vit_tiny_patch16_224"}, "cannot be cut"),
     ({"partition": "p1"}, "does not hold the network"), ({"preprocessing": {}}, "no network that can be built")],
)  # fmt: skip
def test_bad_headers_are_explained(
    model: reprism.PartNet, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    path = reprism.save(model, tmp_path / "model.safetensors")
    header = {**read_header(path), **change}
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, metadata={"reprism": json.dumps(header)})
    with pytest.raises(CheckpointError, match=says):
        reprism.load(path)


@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model"])
def test_a_model_is_known_by_its_content_whatever_it_is_called(
    model: reprism.PartNet, tmp_path: Path, name: str
) -> None:
    again = reprism.load(reprism.save(model, tmp_path / name))
    assert torch.equal(again(IMAGES).descriptor, model(IMAGES).descriptor)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=2),
    max_leaves=4,
)
_FIELDS = ["format", "partition", "backbone", "num_classes", "part_dim", "preprocessing"]


@given(field=st.sampled_from([None, *_FIELDS, "size", "mean", "std", "interpolation"]), value=_JSON)
@example("backbone", "resnet10t.no_such_tag")
@example("part_dim", -1)
@example("part_dim", 10**15)
@example(None, "not a mapping")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_header_is_a_models_or_is_explained(
    model: reprism.PartNet, tmp_path: Path, field: str | None, value: Any
) -> None:
    path = reprism.save(model, tmp_path / "model.safetensors")
    header = read_header(path)
    if field is None:
        header = value
    elif field in _FIELDS:
        header[field] = value
    else:
        header["preprocessing"][field] = value
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata={"reprism": json.dumps(header)})
    said = str(path)
    try:
        reprism.load(path)
    except CheckpointError as error:
        said = str(error)
    assert str(path) in said
    assert "\n" not in said


class Anything:
    """More than a tensor."""


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({1: torch.zeros(1)}, "no state dict"),
        ({"weight": Anything()}, r"holds more than tensors \(.*Anything\)"),
        (nn.Linear(1, 1), r"holds more than tensors \(torch\.nn\.modules\.linear\.Linear\)"),
        (b"", "damaged"),
        (b"text" * 100, "damaged"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        (b"cos\nsystem\n(S'true'\ntR.", r"holds more than tensors \(os\.system\)"),
        ({"reduction_p0.0.weight": torch.zeros(3, 3, 1, 1)}, "no whole network"),
        ({"reduction_p1.0.weight": torch.zeros(())}, "no whole network"),
        ({"reduction_p1_s2.0.weight": torch.zeros(3, 3, 1, 1)}, "no whole network"),
    ],
)
def test_other_peoples_files_are_refused_in_one_line_without_advice_to_run_them(
    tmp_path: Path, state: Any, says: str
) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(state, bytes):
        path.write_bytes(state)
    else:
        torch.save(state, path)
    with pytest.raises(CheckpointError, match=says) as error:
        reprism.load(path)
    assert "weights_only" not in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(BackboneError) as error:
        reprism.build_model("p1", "resnet10t", pretrained=path)
    assert "weights_only" not in str(error.value)


def test_an_unknown_tag_of_weights_is_named_with_those_there_are() -> None:
    with pytest.raises(BackboneError, match=r"no weights 'no_such_tag' for 'resnet10t'; it has resnet10t\.c3_in1k"):
        reprism.build_model("p1", "resnet10t.no_such_tag")


# --- the released code's layout, stated here by torchvision's modules and plain functions -----------------------------


class Released(nn.Module):
    """SCR as that layout defines it: the keys are the module names."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        resnet = torchvision.models.resnet50()
        self.backbone = nn.Sequential(
            resnet.conv1,
            resnet.bn1,
            resnet.relu,
            resnet.maxpool,
            resnet.layer1,
            resnet.layer2,
            resnet.layer3[0],
        )
        resnet.layer4[0].conv2.stride = (1, 1)
        resnet.layer4[0].downsample[0].stride = (1, 1)
        rest = nn.Sequential(nn.Sequential(*resnet.layer3[1:]), resnet.layer4)
        for number in (1, 2, 3):
            setattr(self, f"p{number}", copy.deepcopy(rest))
        widths = {"p1": 2048, "p2": 2048, "p3": 2048}
        widths |= {f"p2_s{i}": 2048 for i in (1, 2)} | {f"p3_s{i}": 2048 for i in (1, 2, 3)}
        widths |= {"p2_c1": 1024, "p2_c2": 1024, "p3_c1": 683, "p3_c2": 683, "p3_c3": 682}
        for name, width in widths.items():
            setattr(
                self,
                f"reduction_{name}",
                nn.Sequential(nn.Conv2d(width, 256, 1, bias=False), nn.BatchNorm2d(256)),
            )
            setattr(self, f"fc_id_{name}", nn.Linear(256, classes))

    def forward(self, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        shared, features = self.backbone(images), {}
        for k in (1, 2, 3):
            feature_map = getattr(self, f"p{k}")(shared)
            whole = feature_map.amax((2, 3), keepdim=True)
            features[f"p{k}"] = whole
            if k > 1:
                for i, stripe in enumerate(feature_map.chunk(k, dim=2), 1):
                    features[f"p{k}_s{i}"] = stripe.amax((2, 3), keepdim=True)
                sizes = {2: [1024, 1024], 3: [683, 683, 682]}[k]
                for i, group in enumerate(whole.split(sizes, dim=1), 1):
                    features[f"p{k}_c{i}"] = group
        features = {name: getattr(self, f"reduction_{name}")(f).flatten(1) for name, f in features.items()}
        return features, {name: getattr(self, f"fc_id_{name}")(f) for name, f in features.items()}


@pytest.fixture(scope="module")
def released() -> Released:
    torch.manual_seed(0)
    released = Released(11)
    released.train()(torch.randn(4, 3, 96, 48))
    return released.eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_released_weights_give_the_same_outputs(released: Released, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scr{suffix}"
    state = released.state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    model = reprism.load(path)
    assert str(model.partition) == "p1+p2(s2c2)+p3(s3c3)"
    assert model.num_classes == 11
    images = torch.randn(2, 3, 96, 48)
    with torch.no_grad():
        output, (features, logits) = model(images), released(images)
    assert len(features) == 13
    for name, feature in features.items():
        torch.testing.assert_close(output.features[name.replace("_", "")], feature, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.logits[name.replace("_", "")], logits[name], atol=1e-5, rtol=1e-5)
    again = reprism.load(reprism.save(model, tmp_path / "converted.safetensors"))
    assert torch.equal(again(images).descriptor, output.descriptor)


def test_released_weights_with_an_unknown_tensor_are_refused(released: Released, tmp_path: Path) -> None:
    state = {**released.state_dict(), "p1.7.extra": torch.zeros(1)}
    torch.save(state, tmp_path / "scr.pth")
    with pytest.raises(CheckpointError, match=r"unknown tensor 'p1\.7\.extra'"):
        reprism.load(tmp_path / "scr.pth")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("num_classes", 10**9, "too small"), ("part_dim", 10**9, "too small"), ("num_classes", -1, "whole number"),
        ("num_classes", "4", "whole number"), ("size", 10**5, "at most 2048 pixels"),
    ],
)  # fmt: skip
def test_numbers_of_a_header_take_no_memory_that_the_file_does_not_hold(
    model: reprism.PartNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: Any, words: str
) -> None:
    path = reprism.save(model, tmp_path / "m.safetensors")
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["reprism"])
    if field == "size":
        header["preprocessing"]["size"] = [value, value]
    else:
        header[field] = value
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, metadata={"reprism": json.dumps(header)})
    monkeypatch.setattr("reprism.models.checkpoint.build_model", lambda *_, **__: pytest.fail("it was built"))
    with pytest.raises(CheckpointError, match=words):
        reprism.load(path)
