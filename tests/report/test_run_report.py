"""A run's report says what the run was and what it scored."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from reprism.cli import main
from reprism.data import open_dataset
from reprism.data.check import PUBLISHED
from reprism.embedding import Embedder
from reprism.report import run_report
from reprism.report.run_report import write_report
from reprism.training.recipes import Recipe, RecipeError, find_recipe
from reprism.training.run import train


@pytest.fixture(scope="module")
def run(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe.model_validate({
        "name": "tiny",
        "data": {"root": str(people), "size": (64, 32), "ids_per_batch": 4, "images_per_id": 2, "workers": 0},
        "model": {"backbone": "resnet10t", "pretrained": False, "partition": "p1(s2)", "part_dim": 8},
        "optimizer": {"epochs": 2, "milestones": (1,)},
        "trainer": {"accelerator": "cpu", "precision": "fp32", "evaluate_every": 1, "log_every": 1},
    })  # fmt: skip
    return train(recipe, tmp_path_factory.mktemp("report") / "run").folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    calls: list[tuple[str, int, int]] = []
    path = write_report(run, shown=2, workers=0, device="cpu", progress=lambda *call: calls.append(call))
    assert path == run / "report.html"
    assert {what for what, *_ in calls} >= {"query", "gallery"}
    return path.read_text(encoding="utf-8")


def test_it_says_what_the_run_scored(run: Path, page: str) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"<strong>{metrics['rank1']:.1%}</strong>" in page
    assert f"<strong>{metrics['mAP']:.1%}</strong>" in page
    markdown = (run / "report.md").read_text()
    assert f"| mAP | {metrics['mAP']:.1%} |" in markdown
    assert "same-camera matches ignored" in markdown


def test_it_says_what_the_data_were(page: str) -> None:
    assert "Drawn people: published counts do not apply." in page
    assert "published: 12,936" not in page


def test_counts_as_published_are_said_to_be(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Elsewhere than where it is written that the people are drawn.
    data = dataclasses.replace(open_dataset("market1501", people), root=people / "query")
    assert run_report._counts(data)[1] == "These are not the published counts: another data set."
    monkeypatch.setitem(PUBLISHED, ("market1501", ""), {"train": {"images": 108, "identities": 12}})
    table, said = run_report._counts(data)
    assert said == "These are the published counts."
    assert table.rows[0] == ["train", "108", "12", "3"]
    _, said = run_report._counts(dataclasses.replace(data, name="csv"))
    assert said == "No counts were published for these data."


def test_parts_of_the_nearest_are_told_beside_strangers(run: Path, page: str, people: Path) -> None:
    markdown = (run / "report.md").read_text()
    hard = [line.strip("| ").split(" | ") for line in markdown.splitlines() if re.match(r"\| \d+ \| .*\.jpg", line)]
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if re.match(r"\| p1(s\d)? \|", line)]
    assert [row[0] for row in rows] == ["p1", "p1s1", "p1s2"]
    assert len(hard) == len(rows[0]) - 1 == 2
    assert "striped: differs. From left to right, tiny: p1, p1s1, p1s2." in page
    data = open_dataset("market1501", people)
    embedder = Embedder(run / "model.safetensors", precision="fp32", device="cpu")
    query, gallery = (
        embedder.embed([item.path for item in items]).astype(float).reshape(len(items), 3, 8)  # 8 columns a part
        for items in (data.query, data.gallery)
    )
    pairs = ((query[:, None] - gallery) ** 2).sum(3)
    strangers = [[a.pid != b.pid and a.camid != b.camid for b in data.gallery] for a in data.query]
    for (_, name, *_, distance), *cells in zip(hard, *[row[1:] for row in rows], strict=True):
        (asked,) = (place for place, item in enumerate(data.query) if item.path.name == name)
        own = [(item.pid, item.camid) == (data.query[asked].pid, data.query[asked].camid) for item in data.gallery]
        nearest = np.where(own, np.inf, pairs[asked].sum(1)).argmin()
        assert np.sqrt(pairs[asked, nearest].sum()) == pytest.approx(float(distance), abs=1e-3)
        for part, cell in enumerate(cells):
            verdict, farther = re.fullmatch(r"(agrees|differs|unclear), (\d+) of 100", cell).groups()
            counted = 100 * (pairs[strangers][:, part] >= pairs[asked, nearest, part]).mean()
            assert float(farther) == pytest.approx(counted, abs=1.5)
            assert verdict != "agrees" or int(farther) >= 94


def test_it_stands_alone_and_shows_everything(page: str) -> None:
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    for title in ("Results", "Training", "Data", "Distances", "Hardest queries", "Saliency of the parts",
                  "Settings", "Run it again"):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    for alt in (
        "CMC curve",
        "Histogram of average precision",
        "Losses over training steps",
        "Rank-1 and mAP over epochs",
        "Saliency of every part",
    ):
        assert f'alt="{alt}"' in page
    assert page.count('alt="Ranked list of hardest query') == 2


def test_its_recipe_trains_the_same_again(run: Path, page: str, people: Path, tmp_path: Path) -> None:
    markdown = (run / "report.md").read_text()
    (recipe,) = re.findall(r"```json\n(.*?)\n```", markdown, flags=re.DOTALL)
    assert str(people) not in page
    assert str(people) not in markdown
    (tmp_path / "recipe.json").write_text(recipe)
    found = find_recipe(str(tmp_path / "recipe.json"))
    recorded = find_recipe(str(run))
    assert found == recorded.model_copy(update={"data": recorded.data.model_copy(update={"root": None})})


def test_the_command_and_its_errors(
    run: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my report.html"
    assert main(["report", str(run), "--out", str(out), "--data-root", str(people), "--device", "cpu", "--workers", "0",
                 "--shown", "1"]) == 0  # fmt: skip
    assert out.is_file()
    assert (tmp_path / "my report.md").is_file()
    shutil.copytree(run, tmp_path / "again")
    both = ["report", str(run), str(tmp_path / "again"), "--device", "cpu", "--workers", "0", "--shown", "1"]
    assert main([*both, "--out", str(out)]) == 1
    assert "names the report of one run" in capsys.readouterr().err
    assert main(both) == 0
    assert (tmp_path / "again" / "report.html").is_file()
    shutil.copytree(run, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "metrics.json").unlink()
    with pytest.raises(ValueError, match="is not finished: reprism train"):
        write_report(tmp_path / "unfinished")
    with pytest.raises(RecipeError):
        write_report(tmp_path / "nothing")
    with pytest.raises(ValueError, match="expected 1 or more of the hardest queries to show, got 0"):
        write_report(run, shown=0)
    assert main(["report", str(tmp_path / "nothing")]) == 1


def test_it_says_by_whom_the_epoch_was_chosen(run: Path, page: str, tmp_path: Path) -> None:
    assert "nothing was chosen by them" in page
    chosen = shutil.copytree(run, tmp_path / "chosen")
    metrics = json.loads((chosen / "metrics.json").read_text())
    of = [each | {"of": "validation"} for each in metrics["evaluations"]]
    metrics |= {"epoch": 2, "evaluations": of, "validation": of[1] | {"identities": 3}}
    (chosen / "metrics.json").write_text(json.dumps(metrics))
    said = write_report(chosen, shown=1, workers=0, device="cpu").read_text(encoding="utf-8")
    assert "on 3 training people set aside, by whom epoch 2 was chosen" in said
