"""Code named by files: imported where the user said so, and nowhere else; then it reaches all that it is for."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import reprism
from reprism import imports
from reprism.cli import main
from reprism.imports import UntrustedCodeError, import_object, is_import_path
from reprism.models.checkpoint import CheckpointError
from reprism.training.recipes import RecipeError, find_recipe

OWN = """
from pathlib import Path

Path("imported").touch()

import torch

import reprism
from reprism.data.transforms import normalize, resize
from torchvision.transforms import v2


def load(root, half="no"):
    data = reprism.open_dataset("market1501", root)
    Path("half").write_text(half)
    return reprism.ReIDDataset("own", data.root, data.train, data.query, data.gallery)


class Pull(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.centers = torch.nn.Parameter(torch.zeros(model.num_classes, model.part_dim))

    def forward(self, output, labels):
        return (output.features["p1"] - self.centers[labels]).square().mean()


def sampler(train_set, rank, world_size):
    return [[0, 1, 2, 3], [4, 5, 6, 7]]


def transform(preprocessing):
    return v2.Compose([resize(preprocessing), normalize(preprocessing)])


def head(in_dim, part_dim):
    return torch.nn.Linear(in_dim, part_dim)


def no_data(root):
    return 7
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module of one's own, which leaves a trace when it is imported."""
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(imports, "_trusted", set())
    yield tmp_path
    sys.modules.pop("own_parts", None)


TINY = (
    *("--data.size", "32", "16", "--data.ids-per-batch", "4", "--data.images-per-id", "2", "--data.workers", "0"),
    *("--model.backbone", "mobilenetv3_small_050", "--model.partition", "p1", "--model.part-dim", "8"),
    *("--model.pretrained", "False", "--optimizer.epochs", "2", "--trainer.evaluate-every", "0"),
    *("--trainer.accelerator", "cpu", "--trainer.precision", "fp32"),
)
CODE = (
    *("--data.name", "own_parts:load", "--data.sampler", "own_parts:sampler"),
    *("--data.transform", "own_parts:transform", "--model.head", "own_parts:head", "--loss.use", "own_parts:Pull"),
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [("a:b", True), ("a.b:c", True), ("a", False), ("a:b:c", False), ("a b:c", False), (":b", False), ("a.:b", False)],
)
def test_import_paths(text: str, holds: bool) -> None:
    assert is_import_path(text) is holds


def test_nothing_is_imported_without_trust(own: Path) -> None:
    with pytest.raises(UntrustedCodeError, match=r"'own_parts:load'.*--trust own_parts.*reprism\.trust\('own_parts'\)"):
        reprism.open_dataset("own_parts:load", own)
    assert not (own / "imported").exists()
    reprism.trust("own")  # no part of a name is enough
    with pytest.raises(UntrustedCodeError):
        import_object("own_parts:load", "it")
    reprism.trust("own_parts")
    before = list(sys.path)
    assert import_object("own_parts:load", "it").__name__ == "load"
    assert sys.path == before
    with pytest.raises(ValueError, match="own_parts has no 'other'"):
        import_object("own_parts:other", "it")
    reprism.trust("absent")
    with pytest.raises(ValueError, match="no module 'absent'"):
        import_object("absent:it", "it")
    with pytest.raises(ValueError, match="expected a ReIDDataset from own_parts:no_data, got int"):
        reprism.open_dataset("own_parts:no_data", own)


def test_a_run_of_ones_own_parts_is_trained_resumed_and_evaluated(
    own: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "cpu-minutes", "--data.root", str(people), "--data.cache", "none", *TINY, "--out", "run"]
    assert main([*train, *CODE, "--data.options", "half", "yes"]) == 0
    assert (own / "half").read_text() == "yes"
    recipe = json.loads((own / "run" / "recipe.json").read_text())
    assert (recipe["loss"]["use"], recipe["data"]["sampler"]) == ("own_parts:Pull", "own_parts:sampler")
    point = torch.load(own / "run" / "last.ckpt", weights_only=True)
    assert point["state_dict"]["loss.centers"].abs().max() > 0
    assert point["global_step"] == 4, "two batches in each of two epochs"
    # Elsewhere, in another process, nobody has said that the code may be run.
    sys.modules.pop("own_parts")
    imports._trusted.clear()
    (own / "imported").unlink()
    capsys.readouterr()
    evaluate = ["evaluate", "run/model.safetensors", "--device", "cpu", "--workers", "0", "--data"]
    for command in (["train", "run", "--resume"], [*evaluate, f"market1501:{people}"], ["report", "run"]):
        assert main(command) == 1
        assert "--trust own_parts" in capsys.readouterr().err
        assert not (own / "imported").exists()
    assert main(["train", "run", "--resume", "--trust", "own_parts"]) == 0
    assert main([*evaluate, f"market1501:{people}"]) == 0, "trusted in this process by now"
    imports._trusted.clear()
    assert main([*evaluate, f"own_parts:load,half=three:{people}", "--trust=own_parts"]) == 0
    assert (own / "half").read_text() == "three"


def test_a_loader_that_is_typed_is_trusted_and_a_model_files_head_is_not(own: Path, people: Path) -> None:
    torch.manual_seed(0)
    reprism.trust("own_parts")
    head = import_object("own_parts:head", "it")
    model = reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16), head=head)
    reprism.save(model, "own.safetensors")
    reprism.save(reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16)), "plain.safetensors")
    imports._trusted.clear()
    with pytest.raises(CheckpointError, match=r"own\.safetensors cannot be loaded: .*--trust own_parts.*head=…"):
        reprism.load("own.safetensors")
    assert main(["evaluate", "plain.safetensors", "--data", f"own_parts:load:{people}", "--device", "cpu"]) == 0
    assert reprism.load("own.safetensors").kinds == {"head": "own_parts:head"}


def test_a_recipes_file_cannot_have_code_run(own: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "hostile.yaml").write_text("recipe: cpu-minutes\nloss: {use: 'own_parts:Pull'}\n")
    assert main(["train", "hostile.yaml", "--data.root", str(people), *TINY]) == 1
    assert "loss.use is the code 'own_parts:Pull'" in capsys.readouterr().err
    assert not (own / "imported").exists()
    (own / "wrong.yaml").write_text("model: {pool: median}\n")
    with pytest.raises(RecipeError, match=r"expected pool max, avg, gem or package\.module:make, got 'median'"):
        find_recipe("wrong.yaml")
    assert main(["train", "hostile.yaml", "--trust"]) == 1
    assert "expected a module after --trust" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_by_a_loss_that_leaves_classifiers_aside(own: Path, people: Path) -> None:
    command = [sys.executable, "-m", "reprism", "train", "cpu-minutes", "--data.root", str(people), *TINY]
    own_loss = ["--loss.use", "own_parts:Pull", "--trainer.devices", "2", "--data.ids-per-batch", "4", "--out", "run"]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    run = subprocess.run([*command, *own_loss], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    point = torch.load(own / "run" / "last.ckpt", weights_only=True)
    assert point["state_dict"]["loss.centers"].abs().max() > 0
