"""All tables run end to end on drawn people at a tiny budget: structure, not scores."""

import json
from pathlib import Path

import pytest

from reprism.cli import main
from reprism.data.rendered_cuhk03 import render_cuhk03
from reprism.data.rendered_layouts import render_market1501, render_mars
from reprism.paper import reproduce as engine
from reprism.paper.tables import TABLES
from reprism.training import run as training

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
    assert "<td>SPGAN</td>" in page
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
