"""All tables run end to end on drawn people at a tiny budget: structure, not scores."""

import json
from pathlib import Path
from typing import Any

import pytest

import reprism
from reprism.cli import main
from reprism.drawn.cuhk03 import render_cuhk03
from reprism.drawn.layouts import render_market1501, render_mars
from reprism.evaluation.items import evaluate_items
from reprism.models.checkpoint import read_header
from reprism.paper import reproduce as engine
from reprism.paper.tables import TABLES
from reprism.training import run as training
from reprism.training.recipes import SCR, LossSettings, OptimizerSettings, Recipe, scr

pytestmark = pytest.mark.slow

RECIPE = """
recipe: scr-market1501
data: {size: [128, 32], ids_per_batch: 4, images_per_id: 2, workers: 0}
model: {pretrained: false, part_dim: 4, backbone: resnet10t}
optimizer: {epochs: 1, milestones: []}
trainer: {accelerator: cpu, precision: fp32}
"""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every data set, tiny; DukeMTMC-reID is Market-1501's with its own names."""
    folder = tmp_path_factory.mktemp("data")
    few = {"train_identities": 5, "test_identities": 3, "size": (32, 16)}
    render_market1501(folder / "market1501", **few, images_per_camera=2)
    render_cuhk03(folder / "cuhk03", **few, images_per_camera=2)
    render_mars(folder / "mars", **few, frames=(2, 4))
    market = render_market1501(folder / "dukemtmc", **few, images_per_camera=2, junk=0, distractors=0, seed=1)
    for image in list(market.rglob("*.jpg")):
        pid, camera, frame, _ = image.stem.split("_")
        image.rename(image.with_name(f"{pid}_{camera[:2]}_f{frame}.jpg"))
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(roots: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All ten tables in one folder, as the command line makes them."""
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "tiny.yaml").write_text(RECIPE)
    for table in TABLES:
        data = [f"{name}:{root}" for name, root in roots.items()]
        assert main(["reproduce", table, "--data", *data, "--recipe", str(folder / "tiny.yaml"), "--backbone",
                     "resnet10t", "--attention-backbone", "seresnet18", "--out", str(folder)]) == 0  # fmt: skip
    return folder


def cells(folder: Path, table: str) -> list[dict]:
    return json.loads((folder / f"{table}.json").read_text())["cells"]


def test_every_experiment_was_measured_and_every_other_figure_quoted(finished: Path) -> None:
    for name, table in TABLES.items():
        found = iter(cells(finished, name))
        for row in table.rows:
            for target, published in row.published.items():
                cell = next(found)
                assert (cell["method"], cell["target"]) == (row.method, target)
                assert cell["published"] == (None if published is None else list(published))
                if row.experiment is None:
                    assert cell["why_not"] == engine.QUOTED
                    assert cell["measured"] == []
                else:
                    ((rank1, mean_ap),) = cell["measured"]
                    assert 0 <= mean_ap <= 100 >= rank1 >= 0
                    assert cell["seconds"] > 0
                    assert "queries lost" in cell["protocol"]


def test_trainings_are_shared(finished: Path) -> None:
    """SCR on each data set is trained once, whichever table asks for it."""
    runs = [run.name for run in (finished / "runs").iterdir()]
    scr = [run for run in runs if "-p1+p2(s2c2)+p3(s3c3)-" in run and run.startswith("mars")]
    assert len(scr) == 1
    tests = {path.name for path in (finished / "runs" / scr[0] / "tests").iterdir()}
    assert len(tests) == 4, "Table 5's four rows are four tests of one network"
    asked = {
        (e.trained_on or target, e.partition, e.backbone, e.ce_weight, e.triplet_weight, e.released)
        for table in TABLES.values()
        for row in table.rows
        for target in row.published
        if (e := row.experiment) is not None
    }
    assert len(runs) == len(asked)


def test_the_tables_read_well(finished: Path) -> None:
    text = (finished / "table3.md").read_text()
    assert "| p1 | Market-1501 | 89.5 / 73.3 |" in text
    assert "Settings: the paper's, but for backbone resnet10t; attention backbone seresnet18;" in text
    assert "optimizer.epochs 1" in text
    assert "no ImageNet weights" in text
    page = (finished / "table9.html").read_text()
    assert '<th scope="row">SPGAN</th>' in page
    assert "src=" not in page
    assert page.count("<tr>") == 1 + 4 * 2 + 2


def test_what_is_there_is_not_trained_again(
    finished: Path, roots: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", lambda *_, **__: pytest.fail("trained again"))
    before = cells(finished, "table2")
    assert main(["reproduce", "table2", "--data", f"cuhk03:{roots['cuhk03']}", "--recipe",
                 str(finished / "tiny.yaml"), "--backbone", "resnet10t", "--attention-backbone", "seresnet18",
                 "--out", str(finished)]) == 0  # fmt: skip
    assert cells(finished, "table2") == before


def test_table_9_measures_the_network_of_the_other_data_set(finished: Path, roots: dict[str, str]) -> None:
    """Each figure is what the network trained on the other data set scores, found by what its own file says."""
    scr = {}
    for file in (finished / "runs").glob("*/model.safetensors"):
        recipe = read_header(file)["recipe"]
        papers_losses = recipe["loss"] == LossSettings().model_dump()
        if recipe["model"]["partition"] == SCR and papers_losses and not recipe["data"]["erasing"]:
            scr[recipe["data"]["root"]] = file
    for cell in cells(finished, "table9")[-2:]:
        tested = cell["target"]
        trained = {"market1501": "dukemtmc", "dukemtmc": "market1501"}[tested]
        dataset = reprism.open_dataset(tested, roots[tested])
        figures = {}
        for name in (trained, tested):
            embedder = reprism.Embedder(scr[roots[name]], device="cpu", precision="fp32")
            rows = [embedder.embed_items(items) for items in (dataset.query, dataset.gallery)]
            metrics = evaluate_items(*rows, dataset.query, dataset.gallery)
            figures[name] = [100 * metrics.rank(1), 100 * metrics.mAP]
        assert cell["measured"] == [pytest.approx(figures[trained])]
        assert figures[trained] != pytest.approx(figures[tested]), "a test that cannot tell them apart"


def test_a_row_that_fails_is_reported_and_the_others_are_measured(
    roots: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    command = ["reproduce", "table1", "--data", f"market1501:{roots['market1501']}", "--recipe",
               str(tmp_path / "tiny.yaml"), "--backbone", "resnet10t", "--out", str(tmp_path)]  # fmt: skip
    train, asked = training.train, []

    def out_of_memory(recipe: Recipe, *rest: Any, **options: Any) -> Any:
        asked.append((recipe.model.partition, recipe.model.backbone))
        if recipe.model.partition == "p2(s2c2)" and len(asked) == 3:
            raise RuntimeError("CUDA out of memory.\nTry a smaller batch.")
        return train(recipe, *rest, **options)

    monkeypatch.setattr(training, "train", out_of_memory)
    assert main([*command, "--attention-backbone", "vit_tiny_patch16_224"]) == 1
    found = cells(tmp_path, "table1")
    assert [cell["failed"] for cell in found] == [False, True, True]
    assert found[0]["measured"]
    assert found[1]["why_not"].startswith("failed: backbone 'vit_tiny_patch16_224' cannot be cut")
    assert found[2]["why_not"] == "failed: RuntimeError: CUDA out of memory."
    assert "| failed: RuntimeError: CUDA out of memory. |" in (tmp_path / "table1.md").read_text()
    said = capsys.readouterr().err
    assert "ResNet-50 + spatial-channel partition on Market-1501 failed: RuntimeError: CUDA out of memory." in said
    assert "Run the same command again" in said
    # Again, with what was wrong put right: only what failed is trained.
    assert main([*command, "--attention-backbone", "seresnet18"]) == 0
    assert asked[3:] == [("p1", "seresnet18"), ("p2(s2c2)", "resnet10t")]
    again = cells(tmp_path, "table1")
    assert again[0] == found[0]
    assert not any(cell["failed"] for cell in again)
    assert all(cell["measured"] for cell in again)


def test_starting_weights_are_given_network_by_network(
    roots: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import timm
    import torch

    files = {}
    for name in ("resnet10t", "seresnet18"):
        files[name] = tmp_path / f"{name}.pth"
        torch.save(timm.create_model(name, num_classes=0).state_dict(), files[name])
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.replace("pretrained: false", f"pretrained: {files['resnet10t']}"))
    command = ["reproduce", "table1", "--data", f"market1501:{roots['market1501']}", "--recipe", str(recipe),
               "--backbone", "resnet10t", "--attention-backbone", "seresnet18", "--out", str(tmp_path)]  # fmt: skip
    assert main(command) == 1
    assert "--pretrained resnet10t=FILE seresnet18=FILE" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists(), "refused before anything is trained"
    for given, says in (("seresnet18", "expected BACKBONE=FILE"), ("seresnet18=absent.pth", "there is no such file")):
        assert main([*command, "--pretrained", given]) == 1
        assert says in capsys.readouterr().err
    assert main([*command, "--pretrained", f"seresnet18={files['seresnet18']}"]) == 0
    assert all(cell["measured"] for cell in cells(tmp_path, "table1"))


def test_missing_data_and_rows_not_asked_for_are_said(
    roots: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    assert main(["reproduce", "table3", "--data", f"market1501:{roots['market1501']}", "--rows", "p1+p2(s2c2)+p3",
                 "--recipe", str(tmp_path / "tiny.yaml"), "--backbone", "resnet10t", "--seeds", "2",
                 "--out", str(tmp_path)]) == 0  # fmt: skip
    found = cells(tmp_path, "table3")
    assert [cell["why_not"] for cell in found[-3:]] == [
        "",
        "not run: no data for dukemtmc",
        "not run: no data for cuhk03",
    ]
    assert all(cell["why_not"] == "not run: not asked for" for cell in found[:-3])
    assert found[-3]["seeds"] == [0, 1]
    assert len(found[-3]["measured"]) == 2
    assert " ± " in capsys.readouterr().out


def test_the_list_and_mistakes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["reproduce", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "SCR, Market-1501 to DukeMTMC-reID: market1501, dukemtmc" in shown
    assert "HA-CNN: other authors' figure" in shown
    for arguments, status, says in (
        ([], 2, "name a table"),
        (["table11"], 1, "there is no table 'table11'"),
        (["table1", "--rows", "VGG"], 1, "has no row like VGG"),
        (["table1", "--seeds", "0"], 1, "must be 1 or more"),
        (["table7", "--data", "cuhk03,boxes=detected:/x"], 1, "the table says which variant"),
    ):
        assert main(["reproduce", *arguments, "--out", str(tmp_path)]) == status
        assert says in capsys.readouterr().err


def test_runs_keep_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the first version named them: a setting that recipes get later must not have finished runs trained again.
    names: list[str] = []
    monkeypatch.setattr(training, "train", lambda recipe, folder, **_: names.append(folder.name))
    budget = engine.Budget(scr("x", "y"))
    for row in TABLES["table2"].rows:
        if row.experiment:
            engine._train(budget.recipe_of(row.experiment, "cuhk03-labelled", "/d", 0), tmp_path, None)
    assert [name[-8:] for name in names] == ["0a9c4280", "ace124a4", "539a7b22"]
    # And any setting that changes what is computed changes the name.
    engine._train(scr("x", "market1501").model_copy(update={"optimizer": OptimizerSettings(ema=0.9)}), tmp_path, None)
    engine._train(scr("x", "market1501"), tmp_path, None)
    assert names[-1] != names[-2]
