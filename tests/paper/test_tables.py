"""The published figures against the paper's own arithmetic, and every experiment against the notation."""

from pathlib import Path

import pytest
import timm

from reprism.models.backbone import cut_backbone
from reprism.notation import Partition
from reprism.paper.reproduce import Budget, needs
from reprism.paper.tables import RESNET50, SENET, TABLES, TARGETS, Experiment
from reprism.training.recipes import RECIPES, SCR


def figures(table: str, method: str) -> dict:
    (row,) = [row for row in TABLES[table].rows if row.method == method]
    return dict(row.published)


def test_every_table_is_there() -> None:
    assert list(TABLES) == [f"table{number}" for number in range(1, 11)]
    assert sum(len(table.rows) for table in TABLES.values()) == 3 + 3 + 5 + 4 + 4 + 9 + 7 + 5 + 6 + 7


def test_figures_that_the_paper_prints_twice_agree() -> None:
    scr = figures("table3", SCR)
    assert scr["market1501"] == figures("table6", "SCR")["market1501"] == (95.7, 89.0)
    assert scr["dukemtmc"] == figures("table6", "SCR")["dukemtmc"]
    cuhk = figures("table2", f"Spatial-Channel {SCR}")
    assert cuhk == figures("table4", "lambda = 2") == figures("table7", "SCR")
    assert scr["cuhk03-detected"] == cuhk["cuhk03-detected"]
    assert figures("table5", "TPP(E)") == figures("table8", "SCR")
    assert figures("table1", "ResNet-50")["market1501"] == figures("table3", "p1")["market1501"]
    assert figures("table1", "ResNet-50 + spatial-channel partition") == {
        "market1501": figures("table3", "p2(s2c2)")["market1501"]
    }


def test_differences_that_the_paper_states() -> None:
    """Section 4.4: SCR is 0.8 mAP above CPM on Market-1501, and 2.1 rank-1, 2.4 mAP on DukeMTMC-reID."""
    scr, cpm = figures("table6", "SCR"), figures("table6", "CPM")
    assert scr["market1501"][1] - cpm["market1501"][1] == pytest.approx(0.8)
    assert scr["dukemtmc"][0] - cpm["dukemtmc"][0] == pytest.approx(2.1)
    assert scr["dukemtmc"][1] - cpm["dukemtmc"][1] == pytest.approx(2.4)


def test_every_row_of_ours_has_an_experiment_and_no_other() -> None:
    ours = [row for table in TABLES.values() for row in table.rows if row.experiment]
    assert len(ours) == 3 + 3 + 5 + 4 + 4 + 1 + 1 + 1 + 2 + 7
    for row in ours:
        assert str(Partition.parse(row.experiment.partition)) == row.experiment.partition
        assert set(row.published) <= TARGETS.keys()
        assert all(needs(row).values())
    assert needs(TABLES["table6"].rows[0]) == {}
    assert needs(TABLES["table9"].rows[-1]) == {"market1501": ["dukemtmc", "market1501"]}


def test_the_papers_own_settings_differ_in_nothing() -> None:
    assert Budget(RECIPES["scr-market1501"]).differences() == []
    changed = Budget(RECIPES["cpu-hour"], backbone="resnet18", seeds=3).differences()
    assert "backbone resnet18" in changed
    assert "optimizer.epochs 76" in changed
    assert "data.erasing 0.5" in changed


def test_an_experiment_becomes_its_recipe() -> None:
    budget = Budget(RECIPES["scr-market1501"], backbone="resnet18")
    recipe = budget.recipe_of(Experiment("p1", triplet_weight=0.0, trained_on="cuhk03-detected"), "mars", "/x", 5)
    assert (recipe.seed, recipe.model.partition, recipe.model.backbone) == (5, "p1", "resnet18")
    assert (recipe.data.name, recipe.data.options) == ("cuhk03", {"boxes": "detected"})
    assert (recipe.loss.ce_weight, recipe.loss.triplet_weight) == (2.0, 0.0)
    assert budget.recipe_of(Experiment(backbone="seresnet50"), "mars", "/x", 0).model.backbone == "seresnet50"
    assert budget.recipe_of(Experiment(released=True), "market1501", "/x", 0).data.ids_per_batch == 4


def test_table_9_trains_on_one_data_set_and_tests_on_the_other() -> None:
    budget = Budget(RECIPES["scr-market1501"])
    trained = {}
    for row in TABLES["table9"].rows[-2:]:
        (target,) = row.published
        trained[row.method] = (budget.recipe_of(row.experiment, target, "/x", 0).data.name, TARGETS[target].name)
    assert trained == {
        "SCR, Market-1501 to DukeMTMC-reID": ("market1501", "dukemtmc"),
        "SCR, DukeMTMC-reID to Market-1501": ("dukemtmc", "market1501"),
    }


def test_table_1_compares_networks_and_not_imagenet_recipes() -> None:
    """Both have weights from before the paper: no tag of timm's later recipes (a1, ra2, …)."""
    backbones = {row.experiment.backbone for row in TABLES["table1"].rows}
    assert backbones == {RESNET50, SENET}
    origins = {name: timm.get_pretrained_cfg(name) for name in backbones}
    assert origins[RESNET50].tag == "tv_in1k"
    # pretrained-models.pytorch's copy of the SENet authors' Caffe weights (timm/models/senet.py).
    assert "v0.1-cadene/se_resnet50" in origins[SENET].url
    assert cut_backbone(SENET, False).channels == 2048


def test_each_network_starts_from_its_own_weights() -> None:
    recipe = RECIPES["scr-market1501"]
    rows = [row.experiment for row in TABLES["table1"].rows]
    files = {"resnet50": Path("resnet.pth"), SENET: Path("senet.pth")}
    budget = Budget(recipe, pretrained=files)
    budget.check_weights(rows)
    used = [budget.recipe_of(row, "market1501", "/x", 0).model.pretrained for row in rows]
    assert used == [Path("resnet.pth"), Path("senet.pth"), Path("resnet.pth")]
    assert budget.differences() == [
        "starting weights of resnet50 resnet.pth", f"starting weights of {SENET} senet.pth"
    ]  # fmt: skip
    with pytest.raises(ValueError, match=rf"'vgg16', which no row trains; the rows train {RESNET50}, {SENET}"):
        Budget(recipe, pretrained={"vgg16": Path("x")}).check_weights(rows)
    one = recipe.model_copy(update={"model": recipe.model.model_copy(update={"pretrained": Path("resnet.pth")})})
    with pytest.raises(ValueError, match=rf"2 different networks.*--pretrained {RESNET50}=FILE {SENET}=FILE"):
        Budget(one).check_weights(rows)
    Budget(one).check_weights([rows[0], rows[2]])
    Budget(one, pretrained={"legacy_seresnet50": Path("senet.pth")}).check_weights(rows)
