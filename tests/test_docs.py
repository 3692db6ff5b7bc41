"""The documents' examples: blocks run in the order of their page, links lead somewhere, the reference is complete.

A block that cannot run here says why in a comment above it, ``<!-- not run: REASON -->``. Its commands and options must
exist all the same. A block with a title is a file that later blocks use.
"""

import ast
import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reprism
from reprism.cli import COMMANDS, main
from reprism.demo import DemoSettings, run_demo
from reprism.drawn.cuhk03 import render_cuhk03
from reprism.models.backbone import FAMILIES
from reprism.models.residual_attention import RESIDUAL_ATTENTION56
from reprism.paper.tables import RESNET50, SENET
from reprism.training.recipes import Recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]

# What makes a command short. An option that is given twice counts as given last.
SMALL_PEOPLE = ["--train-identities", "16", "--test-identities", "8", "--height", "64"]
RENDER_CAMERAS = ["data", "render", "cameras"]
SMALL_SITE = ["--fps", "2", "--size", "96", "128"]
SHORT_RUN = [
    *("--optimizer.epochs", "1", "--optimizer.milestones", "--optimizer.warmup", "0"),
    *("--trainer.evaluate-every", "0", "--trainer.precision", "fp32", "--data.workers", "0"),
]
SMALL_NETWORK = ["--model.backbone", "test_resnet", "--model.pretrained", "False", "--data.size", "64", "32"]
SMALL_DEMO = DemoSettings(
    train_identities=8,
    test_identities=4,
    cameras=2,
    images_per_camera=2,
    distractors=3,
    size=(64, 32),
    backbone="test_resnet",
    part_dim=8,
    epochs=2,
    evaluate_every=1,
    list_length=3,
)


@dataclass(frozen=True)
class Block:
    reason: str | None
    """Why it is not run."""
    language: str
    title: str | None
    text: str

    @property
    def commands(self) -> Iterator[list[str]]:
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def blocks(page: str, language: str | None = None) -> list[Block]:
    pattern = (
        r'^(?:<!-- not run: (?P<reason>[^\n]+) -->\n\n)?```(?P<language>\w*)(?: title="(?P<title>[^"]+)")?\n'
        r"(?P<text>.*?)^```$"
    )
    found = re.finditer(pattern, (DOCS / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    every = [Block(**each.groupdict()) for each in found]
    return [block for block in every if language in (None, block.language)]


@cache
def options(*command: str) -> frozenset[str]:
    """The options of a command, by its help."""
    shown = subprocess.run([sys.executable, "-m", "reprism", *command, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return frozenset(re.findall(r"--[a-z][a-z0-9.-]*", shown.stdout))


def assert_there_is(words: list[str]) -> None:
    """A command line that is not run: what it calls exists, and takes the options that it is given."""
    if words[:2] == ["docker", "run"]:  # what follows the image's name is for its entry point
        words = ["reprism", "serve", *words[words.index("reprism") + 1 :]]
    elif words[0] in ("srun", "torchrun"):
        words = words[words.index("reprism") :]
    given = {word.split("=")[0] for word in words if word.startswith("--")}
    if words[0] == "python":
        path = ROOT / words[1]
        script = path.read_text("utf-8")
        script += "".join(
            each.read_text("utf-8") for each in path.parent.glob("*.py") if f"from {each.stem} im" in script
        )
        known = re.findall(r'"(--[a-z-]+)"', script)  # of argparse; tyro's are the fields of a class
        fields = re.findall(r"^    (\w+): .+ = ", script, re.MULTILINE)
        known += [f"--{no}{name.replace('_', '-')}" for name in fields for no in ("", "no-")]
        assert given <= set(known), words
    elif words[0] == "reprism":
        deep = 4 if words[1:4] == RENDER_CAMERAS else 3 if words[1] in ("data", "link") else 2
        command = words[1:deep]
        assert command[0] in COMMANDS, words
        assert given <= options(*command) | {"--trust"}, words
    else:
        assert words[0] in ("for", "done", "done;", "docker", "export", "mkdir", "sudo"), words


def run_block_command(words: list[str]) -> None:
    """Run a command line, made short."""
    if words[0] == "reprism":
        run_reprism(words[1:])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    elif words[:2] == ["pip", "install"]:
        assert set(re.findall(r"\w+", words[2].partition("[")[2])) <= EXTRAS.keys(), words
    else:
        assert words[0] == "chmod", words
        subprocess.run(words, check=True)


def run_reprism(command: list[str]) -> None:
    if command[0] == "serve":
        serve_until_healthy(command)
        return
    if command[0] == "train":
        command = [*command, *SHORT_RUN, *(SMALL_NETWORK if command[1].startswith("scr") else [])]
        if "--data.validation" in command:  # which needs evaluations
            command += ["--trainer.evaluate-every", "1"]
    if command[:3] == RENDER_CAMERAS:
        command = [*command, *SMALL_SITE]
    elif command[:2] == ["data", "render"]:
        command = [*command, *SMALL_PEOPLE]
    assert main(command) == 0, command


def serve_until_healthy(command: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "reprism", *command, "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as service:
        try:
            said = ""
            while service.poll() is None and not re.search(r"http://\S+:\d+", said):
                said += service.stdout.readline()  # type: ignore[union-attr]
            address = re.search(r"http://[\d.]+:\d+", said)
            assert address, said
            with urllib.request.urlopen(f"{address[0]}/healthz", timeout=60) as answer:
                assert answer.status == 200
        finally:
            service.send_signal(signal.SIGINT)
            service.communicate(timeout=60)
    assert service.returncode == 0


def run_page(page: str, place: Path) -> dict[str, Any]:
    """Run all blocks of a page in the working directory; returns the names that its Python left."""
    known: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        text = block.text.replace("/data/", f"{place}/")
        if block.reason and block.language == "python":
            imports = [node for node in ast.parse(text).body if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), page, "exec"), {})
        elif block.reason:
            for words in block.commands:
                assert_there_is(words)
        elif block.title:
            Path(block.title).write_text(text, "utf-8")
        elif block.language == "python":
            exec(compile(text, page, "exec"), known)
        elif block.language == "sh":
            for words in Block(None, "sh", None, text).commands:
                run_block_command(words)
        else:
            assert block.language in ("", "csv", "json", "text"), f"{page}: a block of {block.language!r}"
    return known


@pytest.fixture
def place(tmp_path: Path, people: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder with what the examples of how-tos and explanations speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("reprism.cli.erase._confirmed", lambda: True)
    monkeypatch.setattr("reprism.models.backbone.FAMILIES", list(FAMILIES))
    monkeypatch.setattr("reprism.demo.run_demo", partial(run_demo, settings=SMALL_DEMO))
    torch.manual_seed(0)
    model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(32, 16))
    model.train()(torch.randn(8, 3, 32, 16))
    reprism.save(model, "model.safetensors")
    images = sorted((people / "query").glob("*.jpg"))
    for name, image in zip(("first.jpg", "second.jpg"), images, strict=False):
        (tmp_path / name).symlink_to(image)
    (tmp_path / "Market-1501").symlink_to(people)
    for image in sorted(people.glob("*/*.jpg")):
        pid, camera = image.name.split("_")[0], image.name.split("_")[1][:2]
        if image.parent.name != "gt_bbox" and int(pid) > 0:
            link(tmp_path / "people" / f"person {pid}" / f"camera {camera}" / image.name, image)
            link(tmp_path / "pictures" / f"{pid}_{camera[1]}_{image.parent.name}-{image.name}", image)
    for number, image in enumerate(images[:8], 1):
        link(tmp_path / "crops" / f"{number:04}.jpg", image)
    return tmp_path


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


@pytest.fixture(scope="module")
def cuhk03_and_mars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    render_cuhk03(folder / "cuhk03", train_identities=8, test_identities=3, size=(32, 16))
    assert main(["data", "render", "mars", str(folder / "MARS"), "--height", "32"]) == 0
    return folder


@pytest.fixture
def other_data(place: Path, cuhk03_and_mars: Path) -> None:
    """CUHK03 and MARS, drawn, in the working directory."""
    for name, drawn in {"cuhk03": "cuhk03", "cuhk03_release": "cuhk03", "MARS": "MARS"}.items():
        link(place / name, cuhk03_and_mars / drawn)


WITH_OTHER_DATA = ["explanation/datasets.md", "how-to/joint-training.md", "how-to/video.md"]
CHECKED_FURTHER = ["explanation/agreement.md", "how-to/own-loss.md", "how-to/serve.md"]
BY_ITSELF = [page for page in PAGES if page not in (*WITH_OTHER_DATA, *CHECKED_FURTHER)]


@pytest.mark.slow
@pytest.mark.parametrize("page", BY_ITSELF)
def test_blocks_run(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if page.startswith("tutorials/"):
        for path in place.iterdir():  # a tutorial begins with nothing
            path.rename(place.with_name(f"{place.name}-{path.name}"))
    run_page(page, place)
    assert "error" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("other_data")
@pytest.mark.parametrize("page", WITH_OTHER_DATA)
def test_blocks_with_other_data_run(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_page(page, place)
    assert "error" not in capsys.readouterr().err


@pytest.mark.slow
def test_shares_of_the_parts_add_up(place: Path) -> None:
    known = run_page("explanation/agreement.md", place)
    squared = ((known["gallery"] - known["query"][0]) ** 2).sum(1)
    np.testing.assert_allclose(known["shares"].sum(1), squared, atol=1e-5)


@pytest.mark.slow
def test_a_loss_of_ones_own_is_logged(place: Path) -> None:
    pytest.importorskip("pytorch_metric_learning", reason="pytorch-metric-learning is not installed")
    run_page("how-to/own-loss.md", place)
    assert json.loads((place / "runs" / "spread" / "metrics.json").read_text())["num_queries"] > 0
    header = (place / "runs" / "spread" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {"loss/total", "loss/paper", "loss/spread"} <= set(header.split(","))


@pytest.mark.slow
def test_a_row_is_found_in_the_audit_log(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_page("how-to/serve.md", place)
    capsys.readouterr()
    assert main(["search", "first.jpg", "--gallery", "gallery", "--top", "1", "--json"]) == 0
    [answer] = json.loads(capsys.readouterr().out)
    look_up = blocks("how-to/serve.md", "python")[-1].text.replace("3f1c…", answer["matches"][0]["id"])
    exec(compile(look_up, "serve.md", "exec"), {})
    last = Path("gallery.audit.jsonl").read_text("utf-8").splitlines()[-1]
    assert json.loads(last)["ids"] == [capsys.readouterr().out.strip()]


@pytest.mark.parametrize("number", [0, 1, 2], ids=["images", "tracklets", "times"])
def test_the_tables_of_ones_own_data_open(number: int, tmp_path: Path) -> None:
    text = blocks("explanation/datasets.md", "csv")[number].text
    for row in csv.DictReader(text.splitlines()):
        (tmp_path / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / row["path"]).touch()
    (tmp_path / "people.csv").write_text(text)
    data = reprism.open_dataset("csv", tmp_path / "people.csv")
    assert len(data.query) == 1
    assert len(data.gallery) == 1
    assert data.is_video == (number == 1)
    assert (data.query[0].time is not None) == (number == 2)


def test_figure_2s_networks_are_trained_as_the_paper_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 2.2: (a) is "a vanilla ResNet-50 trained with cross-entropy classification loss"."""
    asked: dict[str, Recipe] = {}

    def train(recipe: Recipe, folder: Path, **_: Any) -> None:
        asked[folder.name] = recipe
        raise ValueError("not trained")

    monkeypatch.setattr("reprism.training.run.train", train)
    for block in blocks("explanation/paper.md", "sh"):
        for words in block.commands:
            if words[:2] == ["reprism", "train"]:
                assert main(words[1:]) == 1
    losses = {name: (recipe.loss.ce_weight, recipe.loss.triplet_weight) for name, recipe in asked.items()}
    assert losses == {"resnet50": (2, 0), "parts": (2, 1), "senet": (2, 1), "attention": (2, 1)}
    assert {name: (recipe.model.partition, recipe.model.backbone) for name, recipe in asked.items()} == {
        "resnet50": ("p1", RESNET50),
        "parts": ("p2(s2c2)", RESNET50),
        "senet": ("p1", SENET),
        "attention": ("p1", RESIDUAL_ATTENTION56),
    }


def test_batch_scripts_are_shell_and_call_what_there_is() -> None:
    scripts = [block for page in PAGES for block in blocks(page, "sh") if block.title]
    assert any("#SBATCH" in script.text for script in scripts)
    for script in scripts:
        checked = subprocess.run(["bash", "-n"], input=script.text, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, ""), script.title
        called = [words for words in script.commands if words[0] in ("srun", "torchrun", "reprism")]
        assert called, script.title
        for words in called:
            assert_there_is(words)


def test_every_public_name_is_in_the_reference() -> None:
    names = re.findall(r"^::: reprism\.(\w+)$", (DOCS / "reference" / "python.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(names) == sorted(reprism.__all__)


def test_every_command_is_in_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import hooks

    assert hooks.MARK in (DOCS / hooks.PAGE).read_text("utf-8")
    monkeypatch.setenv("COLUMNS", "100")
    text = hooks.commands()
    assert os.environ["COLUMNS"] == "100"
    sections = dict(re.findall(r"^## reprism ([\w -]+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) >= {*COMMANDS, "data check", "data render", "data render cameras"}
    for name, section in sections.items():
        if name in COMMANDS:
            assert COMMANDS[name] in section
        assert options(*name.split()) <= set(re.findall(r"--[a-z][a-z0-9.-]*", section))
