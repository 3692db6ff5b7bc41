"""Old names work for one version, and warn."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from reprism.cli.arguments import parse
from reprism.data.video import VideoSettings
from reprism.deprecation import renamed_arguments
from reprism.evaluation.distances import part_distances
from reprism.evaluation.ranking import evaluate
from reprism.notation import Partition
from reprism.training.recipes import RECIPES, find_recipe, write_recipe


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("reprism.gallery.sightings", "Sighting", "reprism.gallery.inputs:IndexItem"),
        ("reprism.gallery.sightings", "find_sightings", "reprism.gallery.inputs:find_items"),
        ("reprism.gallery.facts", "Facts", "reprism.gallery.database:GalleryInfo"),
        ("reprism.evaluation.sharpened", "SharpenedDistances", "reprism.evaluation.refined:RefinedDistances"),
        ("reprism.data.transforms", "normalise", "reprism.data.transforms:normalize"),
        ("reprism.embedding", "pool_runs", "reprism.embedding:pool_segments"),
    ],
)
def test_names_of_modules(old: str, name: str, new: str) -> None:
    home, _, attribute = new.partition(":")
    with pytest.warns(DeprecationWarning, match=rf"{old}\.{name} is now {home}\.{attribute}"):
        found = getattr(importlib.import_module(old), name)
    assert found is getattr(importlib.import_module(home), attribute)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = importlib.import_module(old).nothing


def test_arguments() -> None:
    @renamed_arguments(old="new")
    def add(first: int, new: int = 1) -> int:
        return first + new

    assert (add(1), add(1, 2), add(1, new=2)) == (2, 3, 3)
    with pytest.warns(DeprecationWarning, match=r"add\(old=…\) is now new=…; the old name goes") as caught:
        assert add(1, old=5) == 6  # type: ignore[call-arg]
    assert caught[0].filename == __file__, "the warning points at the caller"
    with pytest.raises(TypeError, match="other"):
        add(1, other=2)  # type: ignore[call-arg]


def test_segments_were_once_runs() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 12))
    partition = Partition.parse("p1+p2(s2)")
    with pytest.warns(DeprecationWarning, match=r"part_distances\(runs=…\) is now segments=…"):
        old = part_distances(rows[0], rows, partition, runs=1)  # type: ignore[call-arg]
    np.testing.assert_array_equal(old, part_distances(rows[0], rows, partition))

    labels = ([1, 2], [1, 2, 3, 1], None, None)
    with pytest.warns(DeprecationWarning, match=r"evaluate\(all_pairs_runs=…\) is now all_pairs_segments=…"):
        found = evaluate(rows[:2], rows, *labels, all_pairs_runs=2)  # type: ignore[call-arg]
    assert found.mAP == evaluate(rows[:2], rows, *labels, all_pairs_segments=2).mAP


def test_video_settings_take_and_give_runs() -> None:
    with pytest.warns(DeprecationWarning, match=r"VideoSettings\(runs=…\) is now segments=…") as caught:
        made = VideoSettings(frames=4, runs=2)  # type: ignore[call-arg]
    assert caught[0].filename == __file__
    assert made == VideoSettings(frames=4, segments=2)
    with pytest.warns(DeprecationWarning, match=r"VideoSettings\.runs is now segments"):
        assert made.runs == 2  # type: ignore[attr-defined]
    with pytest.warns(DeprecationWarning, match="segments"):
        assert replace(made, runs=1).segments == 1  # type: ignore[call-arg]
    with pytest.warns(DeprecationWarning, match="segments"), pytest.raises(ValueError, match="segments=0"):
        VideoSettings(runs=0)  # type: ignore[call-arg]


def test_recipes_of_earlier_versions_say_runs(tmp_path: Path) -> None:
    recipe = RECIPES["scr-mars"]
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"video": VideoSettings(frames=8, segments=2)})}
    )
    write_recipe(recipe, tmp_path / "recipe.json")
    values = json.loads((tmp_path / "recipe.json").read_text())
    assert "runs" not in values["data"]["video"]
    values["data"]["video"]["runs"] = values["data"]["video"].pop("segments")
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    assert find_recipe(str(tmp_path)) == recipe
    # One that changes a named recipe: the named one has segments already.
    (tmp_path / "own.yaml").write_text("recipe: scr-mars\ndata: {video: {frames: 4, runs: 1}}\n")
    assert find_recipe(str(tmp_path / "own.yaml")).data.video == VideoSettings(frames=4, segments=1)


@dataclass
class _Command:
    """Do something."""

    video: VideoSettings = field(default_factory=VideoSettings)


@pytest.mark.parametrize("given", [["--video.runs", "2"], ["--video.runs=2"]])
def test_options(given: list[str]) -> None:
    with pytest.warns(UserWarning, match=r"--video\.runs is now --video\.segments"):
        assert parse(_Command, given, "reprism do", example="reprism do").video.segments == 2
