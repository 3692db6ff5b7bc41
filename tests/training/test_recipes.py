"""Recipes: the paper's figures, files and their faults, the command line over them."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from reprism.data.video import VideoSettings
from reprism.training.recipes import (
    RECIPES,
    DataSettings,
    ModelSettings,
    Recipe,
    RecipeError,
    find_recipe,
    what_is_computed,
    write_recipe,
)

DATASETS = ["market1501", "dukemtmc", "cuhk03-labelled", "cuhk03-detected", "mars"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_papers_settings(dataset: str) -> None:
    """Section 4.1, in the paper's order."""
    recipe = RECIPES[f"scr-{dataset}"]
    assert recipe.data.size == (384, 192)
    assert recipe.model.backbone.startswith("resnet50")
    assert recipe.model.pretrained is True
    assert (recipe.data.flip, recipe.data.erasing, recipe.data.color_jitter, recipe.data.pad_crop) == (0.5, 0, 0, 0)
    assert (recipe.data.ids_per_batch, recipe.data.images_per_id) == (8, 4)
    assert recipe.optimizer.amsgrad
    assert recipe.optimizer.epochs == 500
    assert recipe.optimizer.weight_decay == 5e-4
    assert (recipe.optimizer.lr, recipe.optimizer.milestones, recipe.optimizer.gamma) == (2e-4, (300, 400), 0.1)
    assert (recipe.loss.margin, recipe.loss.ce_weight, recipe.loss.label_smoothing) == (1.2, 2, 0)
    assert recipe.model.partition == "p1+p2(s2c2)+p3(s3c3)"
    assert recipe.model.part_dim == 256


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_released_settings_differ_in_batch_and_erasing_alone(dataset: str) -> None:
    paper, released = (RECIPES[f"scr-{dataset}{end}"].model_dump() for end in ("", "-released"))
    changed = {key for key in paper["data"] if paper["data"][key] != released["data"][key]}
    assert changed == {"ids_per_batch", "erasing"}
    assert (released["data"]["ids_per_batch"], released["data"]["images_per_id"]) == (4, 4)
    assert released["data"]["erasing"] == 0.5
    for other in ("model", "loss", "optimizer", "trainer"):
        assert paper[other] == released[other]


@pytest.mark.parametrize("name", RECIPES)
def test_a_written_recipe_is_read_back(name: str, tmp_path: Path) -> None:
    write_recipe(RECIPES[name], tmp_path / "recipe.json")
    assert find_recipe(str(tmp_path)) == find_recipe(str(tmp_path / "recipe.json")) == RECIPES[name]


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_file_changes_a_named_recipe(tmp_path: Path, suffix: str) -> None:
    values = {"recipe": "scr-market1501-released", "name": "mine", "data": {"size": [192, 96]}, "loss": {"margin": 0.3}}
    path = tmp_path / f"mine{suffix}"
    path.write_text(yaml.safe_dump(values) if suffix == ".yaml" else json.dumps(values))
    recipe = find_recipe(str(path))
    assert (recipe.name, recipe.data.size, recipe.loss.margin) == ("mine", (192, 96), 0.3)
    assert (recipe.data.erasing, recipe.loss.ce_weight) == (0.5, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [("data: {sise: [1, 2]}", r"data\.sise: Extra inputs"), ("loss: {margin: -1}", r"loss\.margin: .*greater"),
     ("model: {partition: p1(x2)}", r"character 4"), ("- 1", "a mapping"), ("{", "neither YAML nor JSON"),
     ("recipe: nothing", "which is none of scr-market1501")],
)  # fmt: skip
def test_faulty_files_are_explained(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "faulty.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says) as error:
        find_recipe(str(path))
    assert str(path) in str(error.value)


def test_settings_out_of_range_are_told_in_one_line() -> None:
    with pytest.raises(RecipeError) as error:
        DataSettings(flip=1.5, size=(0, 2))
    assert str(error.value) == (
        "size.0: Input should be greater than or equal to 1; flip: Input should be less than or equal to 1"
    )
    with pytest.raises(RecipeError, match=r"recipe: not a partition: .*\(character 4\)") as error:
        ModelSettings(partition="p1(x2)")
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'scr-market1501'"):
        find_recipe("scr-market")
    with pytest.raises(ValidationError):
        Recipe.model_validate({"data": {"flip": 1.5}})


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "a\\b", "..", ".x", "~x", "a\nb", "x" * 101])
def test_a_name_chooses_no_other_folder_than_the_runs_own(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="cannot be a folder's name"):
        Recipe(name=name)
    (tmp_path / "recipe.json").write_text(json.dumps({"name": name}))
    with pytest.raises(RecipeError, match="cannot be a folder's name"):
        find_recipe(str(tmp_path))


@pytest.mark.parametrize("option", ["split_file", "cache"])
def test_a_file_chooses_no_place_to_write_to(tmp_path: Path, option: str) -> None:
    """What is there is read alone: a run's own recipe names what it wrote once."""
    path, place = tmp_path / "recipe.yaml", tmp_path / "elsewhere" / "file"
    for value in (str(place), "../x/no-such-file", "~/no-such-file"):
        path.write_text(json.dumps({"data": {"options": {option: value}}}))
        with pytest.raises(RecipeError, match=rf"would write {re.escape(value)}.*--data.options {option}"):
            find_recipe(str(path))
    place.parent.mkdir()
    place.touch()
    for value in (str(place), "division.csv"):
        path.write_text(json.dumps({"data": {"options": {option: value}}}))
        assert find_recipe(str(path)).data.options == {option: value}


def test_a_file_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.yaml").write_text("[" * 20_000)
    with pytest.raises(RecipeError, match="neither YAML nor JSON"):
        find_recipe(str(tmp_path / "deep.yaml"))


def test_a_run_may_go_on_where_its_data_moved_and_work_is_done_otherwise_but_compute_nothing_else() -> None:
    recipe = RECIPES["cpu-hour"]
    elsewhere = {"root": Path("/elsewhere"), "workers": 3, "cache": "none"}
    moved = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=elsewhere),
            "trainer": recipe.trainer.model_copy(update={"log_every": 1, "checkpoint_seconds": 5.0}),
        }
    )
    assert what_is_computed(moved) == what_is_computed(recipe)
    for section, field, value in (
        ("data", "size", (64, 32)),
        ("data", "video", VideoSettings(frames=3)),
        ("loss", "margin", 0.5),
        ("trainer", "precision", "fp16"),
    ):
        other = getattr(recipe, section).model_copy(update={field: value})
        assert what_is_computed(recipe.model_copy(update={section: other})) != what_is_computed(recipe)
