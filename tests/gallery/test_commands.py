"""The commands on galleries, from a folder of crops to an erased person."""

import getpass
import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import reprism
from reprism.cli import main
from reprism.cli.galleries import parse_age
from reprism.evaluation.calibration import Calibration
from reprism.evaluation.fitted_on import FittedOn
from reprism.gallery.table import Gallery


@pytest.fixture(scope="module")
def indexed(people, tmp_path_factory):
    """A folder with a model and a gallery of the data set's test part."""
    folder = tmp_path_factory.mktemp("commands")
    torch.manual_seed(0)
    model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(64, 32))
    model.train()(torch.randn(8, 3, 64, 32))
    reprism.save(model.eval(), folder / "m.safetensors")
    command = ["index", str(people / "bounding_box_test"), "--naming", "market1501", "--gallery", str(folder / "g")]
    assert main([*command, "--model", str(folder / "m.safetensors"), "--precision", "fp32"]) == 0
    return folder


@pytest.fixture
def query(people):
    return str(sorted((people / "query").glob("*_c1*.jpg"))[0])


def test_indexing_again_adds_nothing_and_lists_what_cannot_be_read(indexed, people, tmp_path, capsys):
    (tmp_path / "0001_c1s1_000001_00.jpg").write_bytes(b"no picture")
    command = ["index", str(people / "bounding_box_test"), str(tmp_path), "--naming", "market1501"]
    command += ["--gallery", str(indexed / "g"), "--model", str(indexed / "m.safetensors")]
    count = len(Gallery.open(indexed / "g"))
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "0001_c1s1_000001_00.jpg: it is not an image" in shown.err
    assert re.search(rf"0 added .*, {count} were there, 1 images unreadable; {count} rows", shown.out)


def test_a_search_prints_the_json_that_is_promised(indexed, query, capsys):
    assert main(["search", query, "--gallery", str(indexed / "g"), "--top", "3", "--json", "--precision", "fp32"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["query"] == query
    matches = answer["matches"]
    assert [match["rank"] for match in matches] == [1, 2, 3]
    assert list(matches[0])[:3] == ["rank", "distance", "path"]
    assert {"camid", "pid", "time", "tracklet", "id", "probability", "shares", "parts", "added"} <= set(matches[0])
    embedder = reprism.Embedder(indexed / "m.safetensors", precision="fp32", device="cpu")
    want = Gallery.open(indexed / "g", embedder).search(embedder.embed([query]), top=3)[0]
    assert [match["path"] for match in matches] == [match.path for match in want]
    assert matches[0]["distance"] == pytest.approx(want[0].distance, abs=1e-5)


def test_a_search_is_noted_before_it_is_shown(indexed, query, tmp_path, capsys):
    log = tmp_path / "log"
    assert main(["search", query, query, "--gallery", str(indexed / "g"), "--top", "3", "--audit", str(log)]) == 0
    capsys.readouterr()
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    assert (first["who"], first["what"], first["via"], first["matches"]) == (
        getpass.getuser(), "search", "reprism search", 3,
    )  # fmt: skip
    assert first["ids"] == second["ids"]
    assert len(set(first["ids"])) == 3
    assert Path(query).name not in log.read_text()
    # What cannot be noted is not shown.
    assert main(["search", query, "--gallery", str(indexed / "g"), "--audit", str(tmp_path / "no" / "log")]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "--audit FILE" in shown.err


def test_a_picture_that_is_in_the_gallery_agrees_in_every_part_and_strangers_do_not(indexed, people, tmp_path, capsys):
    picture = str(sorted((people / "bounding_box_test").glob("0*_c1*.jpg"))[-1])
    page = tmp_path / "page.html"
    command = ["search", picture, "--gallery", str(indexed / "g"), "--precision", "fp32", "--device", "cpu"]
    assert main([*command, "--json", "--top", "100"]) == 0
    [answer] = json.loads(capsys.readouterr().out)
    itself, *others = answer["matches"]
    assert itself["path"] == picture
    agreeing = {"strangers": 0.0, "same_person": None, "verdict": "agrees"}
    assert itself["parts"] == dict.fromkeys(itself["shares"], agreeing)
    strangers = [match["parts"].values() for match in others if match["pid"] != itself["pid"]]
    assert np.mean([sum(part["verdict"] == "agrees" for part in parts) > 2 for parts in strangers]) < 0.15
    assert main([*command, "--html", str(page)]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("agree: ") == 20
    lines = shown.out.splitlines()
    assert sum("agree: 3 of 3" in line and Path(picture).name in line for line in lines) == 1
    assert re.fullmatch(r"\S+: fp32 by torch on cpu\n", shown.err)
    text = page.read_text()
    first = re.search(r'<svg role="img" aria-label="([^"]*)"', text)[1].split("; ")
    assert first == [f"{name}: agrees, nearer than 100 of 100 strangers" for name in itself["parts"]]
    assert "striped: differs. From left to right the parts of" in text


def test_a_small_gallery_says_that_parts_are_not_compared(indexed, people, tmp_path, capsys):
    (tmp_path / "few").mkdir()
    pictures = sorted((people / "bounding_box_test").glob("0*_c1*.jpg"))[:5]
    for picture in pictures:
        (tmp_path / "few" / picture.name).symlink_to(picture)
    command = ["index", str(tmp_path / "few"), "--gallery", str(tmp_path / "g"), "--device", "cpu"]
    assert main([*command, "--model", str(indexed / "m.safetensors")]) == 0
    page = tmp_path / "page.html"
    assert main(["search", str(pictures[0]), "--gallery", str(tmp_path / "g"), "--html", str(page)]) == 0
    assert "Parts are not compared: that takes at least 200 pairs" in capsys.readouterr().err
    assert "Parts are not compared" in page.read_text()
    assert "<svg" not in page.read_text()


def test_a_calibration_measures_the_parts(indexed, people, tmp_path, capsys):
    out = tmp_path / "calibration.json"
    command = ["calibrate", str(indexed / "m.safetensors"), "--data", f"market1501:{people}"]
    assert main([*command, "--out", str(out), "--device", "cpu"]) == 0
    capsys.readouterr()
    picture = str(sorted((people / "bounding_box_test").glob("0*_c1*.jpg"))[-1])
    command = ["search", picture, "--gallery", str(indexed / "g"), "--json", "--device", "cpu"]
    assert main([*command, "--calibration", str(out)]) == 0
    [answer] = json.loads(capsys.readouterr().out)
    scale = Calibration.read(out).parts
    assert list(scale.strangers) == list(answer["matches"][0]["parts"])
    for match in answer["matches"]:
        [want] = scale.agreement(np.array([list(match["shares"].values())]))
        assert match["parts"] == {name: asdict(part) for name, part in want.items()}
        assert all(part["same_person"] is not None for part in match["parts"].values())


def test_filters_groups_threshold_and_probability(indexed, query, capsys, tmp_path):
    fitted_on = FittedOn(Gallery.open(indexed / "g").fingerprint, flip=True)
    roc, distribution = {"threshold": [0.0], "fmr": [0.0], "tpr": [0.0]}, {"edges": [0.0], "same": [], "different": []}
    counts = dict.fromkeys(("same_pairs", "different_pairs", "queries", "mated_queries", "gallery", "identities"), 0)
    made = Calibration((), (), -3.0, 1.0, 0.0, (), roc, distribution, counts, fitted_on=fitted_on)
    made.write(tmp_path / "calibration.json")
    command = ["search", query, "--gallery", str(indexed / "g"), "--json", "--calibration"]
    command += [str(tmp_path / "calibration.json"), "--top", "50"]

    def matches(*options):
        assert main([*command, *options]) == 0
        return json.loads(capsys.readouterr().out)[0]["matches"]

    everything = matches()
    assert all(0 < match["probability"] < 1 for match in everything)
    assert {m["id"] for m in matches("--not-camera", "1")} == {m["id"] for m in everything if m["camid"] != "1"}
    assert {m["id"] for m in matches("--camera", "1", "2")} == {m["id"] for m in everything if m["camid"] in "12"}
    pids = [m["pid"] for m in matches("--group-by", "pid") if m["pid"] is not None]
    assert len(pids) == len(set(pids)) == len({m["pid"] for m in everything if m["pid"] is not None})
    limit = everything[4]["distance"] + 1e-9
    assert len(matches("--threshold", str(limit))) == len([m for m in everything if m["distance"] <= limit])
    assert matches("--after", "2024-01-01") == []  # no time is known
    assert {m["id"] for m in matches("--rerank")} == {m["id"] for m in everything}


def test_a_camera_that_is_to_be_left_out_need_not_be_there(indexed, query, capsys):
    command = ["search", query, "--gallery", str(indexed / "g"), "--json", "--not-camera", "garage"]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)[0]["matches"]
    assert "--not-camera leaves nothing out" in shown.err
    assert "there are 1, 2, 3." in shown.err


def test_a_folder_is_searched_for_with_all_its_images_in_order(indexed, people, tmp_path, capsys):
    pictures = sorted((people / "query").glob("*.jpg"))[:3]
    for picture, name in zip(pictures, ("b.jpg", "a.jpg", "below/c.JPG"), strict=True):
        (tmp_path / "wanted" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "wanted" / name).write_bytes(picture.read_bytes())
    (tmp_path / "wanted" / "notes.txt").write_text("no picture")
    (tmp_path / "wanted" / "._a.jpg").write_text("macOS leaves these")

    def answers(*inputs):
        command = ["search", *map(str, inputs), "--gallery", str(indexed / "g"), "--json", "--top", "2"]
        assert main(command) == 0
        return json.loads(capsys.readouterr().out)

    found = answers(tmp_path / "wanted")
    assert [answer["query"] for answer in found] == [
        str(tmp_path / "wanted" / name) for name in ("a.jpg", "b.jpg", "below/c.JPG")
    ]
    one_by_one = answers(pictures[1], pictures[0], pictures[2])
    assert [answer["matches"] for answer in found] == [answer["matches"] for answer in one_by_one]


def test_a_page_holds_its_pictures(indexed, query, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["search", query, query, "--gallery", str(indexed / "g"), "--top", "4", "--html", str(page)]) == 0
    text = page.read_text()
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', text)) == 2 * 5
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert text.count("<svg role=") == 2 * 4
    shown = capsys.readouterr().out
    assert str(page) in shown
    assert "bounding_box_test/" in shown  # paths are not cut off where there is no terminal


def test_compress_says_what_it_costs_and_a_dry_run_changes_nothing(indexed, people, capsys):
    command = ["compress", str(indexed / "g"), "--dim", "6", "--data", f"market1501:{people}", "--dry-run"]
    for fit in ("gallery", "train"):
        assert main([*command, "--fit", fit]) == 0
        shown = capsys.readouterr().out
        assert re.search(r"24 columns: mAP [\d.]+%.*\n +6 columns: mAP [\d.]+%.*\ncost: [+-][\d.]+ points", shown)
    assert Gallery.open(indexed / "g").dim == 24


def test_optimize_compress_and_erase(indexed, people, tmp_path, capsys):
    command = ["index", str(people / "query"), "--naming", "market1501", "--gallery", str(tmp_path / "g")]
    assert main([*command, "--model", str(indexed / "m.safetensors"), "--storage", "float16"]) == 0
    assert main(["optimize", str(tmp_path / "g")]) == 0
    assert "searches read every row" in capsys.readouterr().out
    assert main(["compress", str(tmp_path / "g"), "--dim", "4"]) == 0
    assert "24 columns are 4" in capsys.readouterr().out
    gallery = Gallery.open(tmp_path / "g")
    pid = next(row.pid for row in gallery.rows())
    of_pid = len([row for row in gallery.rows() if row.pid == pid])
    count = len(gallery)
    assert main(["erase", str(tmp_path / "g"), "--pid", pid, "--yes"]) == 0
    assert f"{of_pid} rows erased, {count - of_pid} left" in capsys.readouterr().out
    assert main(["erase", str(tmp_path / "g"), "--older-than", "30d"]) == 0
    assert main(["erase", str(tmp_path / "g"), "--older-than", "2999-01-01", "--yes"]) == 0
    assert len(gallery) == 0


def test_a_compressed_gallery_is_calibrated_anew(indexed, people, query, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, data = str(indexed / "m.safetensors"), ["--data", f"market1501:{people}"]
    command = ["index", str(people / "bounding_box_test"), "--naming", "market1501", "--gallery", "g g"]
    assert main([*command, "--model", model, "--precision", "fp32"]) == 0
    assert main(["calibrate", model, *data, "--precision", "fp32", "--fmr", "0.1", "--out", "images.json"]) == 0
    assert main(["calibrate", "--gallery", "g g", "--fmr", "0.1", "--out", "rows.json"]) == 0
    search = ["search", query, "--gallery", "g g", "--json", "--calibration"]
    for made in ("images.json", "rows.json"):
        assert main([*search, made]) == 0
    assert main(["calibrate", model, *data, "--precision", "fp32", "--no-flip", "--out", "unflipped.json"]) == 0
    capsys.readouterr()
    assert main([*search, "unflipped.json"]) == 1
    assert "flip: expected True, got False" in capsys.readouterr().err
    assert main(["compress", "g g", "--dim", "6"]) == 0
    assert "Make new ones: reprism calibrate --gallery 'g g'" in capsys.readouterr().out
    for made in ("images.json", "rows.json"):
        assert main([*search, made]) == 1
        assert "reprism calibrate --gallery 'g g'" in capsys.readouterr().err
    assert main(["calibrate", "--gallery", "g g", "--fmr", "0.1", "--out", "narrow.json"]) == 0
    capsys.readouterr()
    assert main([*search, "narrow.json"]) == 0
    assert all(0 < match["probability"] < 1 for match in json.loads(capsys.readouterr().out)[0]["matches"])


def test_mistakes_are_explained(indexed, query, tmp_path, capsys):
    gallery = str(indexed / "g")
    for command, complaint in (
        (["search", query, "--gallery", str(tmp_path)], "no gallery at"),
        (["search", query, "--gallery", gallery, "--after", "noon"], "--after 'noon'"),
        (["search", query, "--gallery", gallery, "--top", "0"], "top of at least 1, got 0"),
        (["search", query, "--gallery", gallery, "--camera", "1", "garage"], "'garage'; there are 1, 2, 3."),
        (["search", query, "--gallery", gallery, "--pid", "anna"], "has no identity 'anna'"),
        (["search", query, "--gallery", gallery, "--source", "may"], "nothing from the source 'may'"),
        (["search", str(tmp_path), "--gallery", gallery], "holds no image (.jpg"),
        (["search", str(tmp_path / "gone.jpg"), "--gallery", gallery], "no such file"),
        (["erase", gallery], "say what to erase"),
        (["erase", gallery, "--older-than", "soon"], "--older-than 'soon'"),
        (["compress", gallery, "--fit", "train"], "--fit train wants --data"),
        (["optimize", str(tmp_path / "none")], "no gallery at"),
        (["calibrate"], "expected a model and its data, or a gallery"),
        (["calibrate", "m.safetensors", "--gallery", gallery], "expected a model and its data, or a gallery"),
        (["calibrate", "--gallery", gallery, "--queries", "tracklets"], "expected tracklets of known identity"),
    ):
        assert main(command) == 1
        assert complaint in capsys.readouterr().err
    other = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(64, 32))
    reprism.save(other, tmp_path / "other.safetensors")
    assert main(["search", query, "--gallery", gallery, "--model", str(tmp_path / "other.safetensors")]) == 1
    assert "another model" in capsys.readouterr().err
    with pytest.raises(ValueError, match="before the year 1"):
        parse_age("9" * 9 + "d", "--older-than")
