"""The command line, as a user meets it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import reprism
from reprism.cli import COMMANDS, main
from reprism.data.rendered_layouts import render_market1501


def test_help_needs_no_torch_and_names_every_command() -> None:
    code = (
        "import sys; from reprism.cli import main; main(['--help']); "
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    started = time.perf_counter()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 5  # it takes a twentieth of a second; loading torch takes several
    assert run.stdout.rstrip().endswith("False False")
    for command in COMMANDS:
        assert f"\n  {command} " in run.stdout


def test_import_needs_no_torch() -> None:
    code = (
        "import sys, reprism; print('torch' in sys.modules); "
        "reprism.Partition.parse('p1'); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_every_public_name_loads() -> None:
    for name in reprism.__all__:
        assert getattr(reprism, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = reprism.nonsense


@pytest.mark.parametrize(
    "command", [["train"], ["evaluate"], ["demo"], ["data", "render"], ["train", "scr-market1501"]]
)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_train_help_shows_the_recipes_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "scr-market1501-released", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--data.erasing" in shown
    assert "default: 0.5" in shown
    assert "--optimizer.lr" in shown


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [(["nonsense"], 2, "no command 'nonsense'"), (["train"], 2, "name a recipe first"),
     (["train", "scr-markt1501"], 1, "Did you mean scr-market1501"),
     (["train", "scr-market1501"], 1, "--data.root"),
     (["evaluate", "absent.safetensors", "--data", "market1501"], 1, "NAME:DIR"),
     (["evaluate", "absent.safetensors", "--data", "nothing:/tmp"], 1, "Unknown data set 'nothing'"),
     (["data"], 2, "data render")],
)  # fmt: skip
def test_mistakes_are_explained(
    arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_render_train_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path of the README: draw, train with settings from the command line, evaluate the file that came out."""
    monkeypatch.chdir(tmp_path)
    assert main(["data", "render", "market1501", "people", "--train-identities", "8", "--test-identities", "4",
                 "--height", "64"]) == 0  # fmt: skip
    assert main(["train", "scr-market1501", "--data.root", "people", "--data.size", "64", "32",
                 "--data.workers", "0", "--model.backbone", "mobilenetv3_small_050", "--model.pretrained", "False",
                 "--model.partition", "p1(s2)", "--model.part-dim", "16", "--optimizer.epochs", "1",
                 "--trainer.precision", "fp32", "--trainer.accelerator", "cpu"]) == 0  # fmt: skip
    recorded = json.loads(Path("runs/scr-market1501/metrics.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", "runs/scr-market1501/model.safetensors", "--data", "market1501:people",
                 "--precision", "fp32", "--device", "cpu"]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    result = json.loads(Path("evaluation.json").read_text())
    assert result["mAP"] == pytest.approx(recorded["mAP"], abs=1e-4)
    assert {"rank1", "rank5", "rank10", "rank20", "mINP", "num_queries", "lost_queries", "protocol"} <= result.keys()
    assert f"{100 * result['mAP']:.1f}" in shown
    for words in ("AP by step", "with mirrored image", "same-camera matches ignored", "64x32"):
        assert words in result["protocol"]


def test_several_data_sets_and_lost_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    reprism.save(reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16)), "model.safetensors")
    for name, seed in (("one", 1), ("two", 2)):
        render_market1501(tmp_path / name, train_identities=2, test_identities=3, size=(32, 16), seed=seed, junk=0)
    # Nobody else saw this person: every gallery image of it goes.
    victim = next((tmp_path / "two" / "query").glob("*.jpg")).name[:4]
    for image in (tmp_path / "two" / "bounding_box_test").glob(f"{victim}_*.jpg"):
        image.unlink()
    assert main(["evaluate", "model.safetensors", "--data", "market1501:one", "market1501:two", "--lost", "zero",
                 "--ap", "trapezoid", "--out", "both.json", "--device", "cpu"]) == 0  # fmt: skip
    one, two = json.loads(Path("both.json").read_text())
    assert one["num_lost_queries"] == 0
    assert two["num_lost_queries"] == len(list((tmp_path / "two" / "query").glob(f"{victim}_*.jpg"))) > 0
    assert all(Path(path).name.startswith(victim) for path in two["lost_queries"])
    assert "a lost one counting 0" in two["protocol"]
    assert "lost (no other camera saw this person)" in capsys.readouterr().out
