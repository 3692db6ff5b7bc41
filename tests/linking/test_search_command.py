"""``reprism search --network``: what it prints is what the search by looks and times finds."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

import reprism
from reprism.cli import main
from reprism.evaluation.calibration import Calibration, calibrate
from reprism.evaluation.fitted_on import FittedOn
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery
from reprism.linking.gallery_sightings import read_sightings
from reprism.linking.learned import learn_and_keep
from reprism.linking.looks import learn_looks
from reprism.linking.network_search import Seen, kept_rows, search_by_network, search_like
from reprism.linking.reasons import Site
from reprism.linking.transit import CameraNetwork

START = datetime(2026, 5, 1, 8, tzinfo=UTC)


def network() -> CameraNetwork:
    """A person takes some 60 s from the gate to the hall."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(START.timestamp(), START.timestamp() + 20_000, 100)
    items = [
        Seen(camera, START + timedelta(seconds=float(start - START.timestamp() + later))).as_item()
        for start in starts
        for camera, later in (("gate", 0.0), ("hall", rng.normal(60, 8)))
    ]
    return CameraNetwork.of_pairs(items, np.arange(200).reshape(-1, 2))


@pytest.fixture(scope="module")
def folder(people, tmp_path_factory):
    """A model, a gallery of pictures a minute apart by two cameras, a network, a calibration and a picture."""
    folder = tmp_path_factory.mktemp("timed")
    torch.manual_seed(0)
    model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(64, 32))
    model.train()(torch.randn(8, 3, 64, 32))
    reprism.save(model.eval(), folder / "m.safetensors")
    embedder = reprism.Embedder(folder / "m.safetensors", precision="fp32", device="cpu")
    files = sorted((people / "bounding_box_test").glob("*.jpg"))[:12]
    gallery = Gallery.create(folder / "g", embedder, model=folder / "m.safetensors")
    gallery.add(
        Entry(f"k{n}", row, str(path), f"p{n}", ("hall", "gate")[n % 2], START + timedelta(minutes=n))
        for n, (path, row) in enumerate(zip(files, embedder.embed(files), strict=True))
    )
    network().save(folder / "network.json")
    kind = embedder.kind
    on = FittedOn(kind.fingerprint, kind.flip, "images", "images", projection=None)
    rng = np.random.default_rng(0)
    people = [reprism.Sample(Path(f"{n}.jpg"), n % 8, n // 8) for n in range(16)]
    made = calibrate(rng.normal(size=(16, 4)), rng.normal(size=(16, 4)), people, people, fitted_on=on)
    replace(made, slope=-4.0, intercept=0.0).write(folder / "calibration.json")
    (folder / "query.jpg").write_bytes(files[3].read_bytes())
    return folder


@pytest.fixture
def command(folder):
    files = [str(folder / name) for name in ("query.jpg", "g", "calibration.json", "network.json")]
    named = [["search"], ["--gallery"], ["--calibration"], ["--network"]]
    return [*(word for pair in zip(named, files, strict=True) for word in (*pair[0], pair[1])), "--device", "cpu"]


AT = ["--query-camera", "gate", "--query-time", (START + timedelta(minutes=3)).isoformat()]


def test_matches_have_a_probability_and_say_why(folder, command, capsys, tmp_path):
    log = tmp_path / "audit.jsonl"
    assert main([*command, *AT, "--json", "--top", "5", "--audit", str(log)]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    embedder = reprism.Embedder(folder / "m.safetensors", precision="fp32", device="cpu")
    gallery, calibration = Gallery.open(folder / "g"), Calibration.read(folder / "calibration.json")
    query = embedder.embed([folder / "query.jpg"])
    seen = Seen("gate", START + timedelta(minutes=3))
    (want,) = search_by_network(gallery, query, [seen], Site.of(network()), calibration, 5)
    assert [match["id"] for match in answer["matches"]] == [match.id for match in want]
    for match, expected in zip(answer["matches"], want, strict=True):
        assert match["probability"] == pytest.approx(expected.probability, abs=2e-3)
        assert match["by_looks"] == pytest.approx(expected.by_looks, abs=2e-3)
        assert match["reason"]["times"] == expected.reason.times
    walked = next(match for match in answer["matches"] if match["id"] == row_id("k4"))
    assert "60 s between gate and hall, usual" in walked["reason"]["text"]
    assert walked["probability"] > walked["by_looks"]
    line = json.loads(log.read_text())
    assert (line["what"], line["times"], line["matches"]) == ("search", True, 5)


def test_a_table_and_a_page_say_why_too(command, capsys, tmp_path):
    page = tmp_path / "matches.html"
    assert main([*command, *AT, "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "by looks" in shown
    assert "60 s between gate and hall, usual" in shown
    assert "times count no more than" in shown
    assert "60 s between gate and hall, usual" in page.read_text()
    assert main([*command[:6], *command[8:]]) == 0
    shown = capsys.readouterr().out
    assert "why" not in shown
    assert "by looks" not in shown


def test_a_row_asks_with_its_own_camera_and_time(folder, command, capsys):
    (row,) = [row for row in Gallery.open(folder / "g").rows() if row.key == "k3"]
    asked = ["search", *command[2:8], "--like", row.id, "--json"]
    assert main(asked) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["query"] == row.id
    calibration = Calibration.read(folder / "calibration.json")
    want = search_like(Gallery.open(folder / "g"), row.id, Site.of(network()), calibration)
    assert [match["id"] for match in answer["matches"]] == [match.id for match in want]
    assert row.id not in {match.id for match in want}
    assert len(want) == 11


def test_what_is_kept_with_a_gallery(gallery_of, seen, capsys):
    gallery = gallery_of(seen)
    asking = next(entry for entry in seen if entry.camid == "b")
    asked = ["search", "--gallery", gallery.uri, "--network", "kept", "--like", row_id(asking.key), "--json"]
    assert main(asked) == 1
    assert f"no transit times are kept with {gallery.uri}: learn them by reprism link learn" in capsys.readouterr().err
    found = learn_and_keep(gallery, read_sightings(gallery))[0]
    # Those that linking does not keep are not found, and cannot ask.
    old = [
        Entry(f"old{n}", entry.descriptor, f"/{n}", None, "a", entry.time - timedelta(days=31))
        for n, entry in enumerate(seen[:5])
    ]
    gallery.add(old)
    assert main(asked) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    want = search_like(gallery, row_id(asking.key), Site.of(found), learn_looks(gallery, found), 20, kept_rows(gallery))
    assert [match["id"] for match in answer["matches"]] == [match.id for match in want]
    assert [match["probability"] for match in answer["matches"]] == pytest.approx([match.probability for match in want])
    assert main([*asked[:-3], "--like", row_id("old0")]) == 1
    assert "older than linking keeps rows" in capsys.readouterr().err
    gallery.disable_linking()
    assert main(asked) == 1
    assert "reprism link enable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "without", "words"),
    [
        ((), 0, "give --query-camera and --query-time, or --like ID"),
        (("--query-camera", "gate"), 0, "give --query-camera and --query-time, or --like ID"),
        (("--query-camera", "gat", *AT[2:]), 0, "no such camera; there are gate, hall."),
        ((*AT[:3], "noon"), 0, "--query-time 'noon': expected a moment"),
        ((*AT, "--rerank"), 0, "--rerank is for a search by looks alone"),
        ((*AT, "--threshold", "0"), 0, "--threshold is for a search by looks alone"),
        ((*AT, "--camera-normalize"), 0, "--camera-normalize is for a search by looks alone"),
        (("--like", "x"), 0, "leave pictures out"),
        (("--query-time", "2026-05-01"), 2, "--query-time is for --network"),
        (("--query-camera", "gate"), 2, "--query-camera is for --camera-normalize or --network"),
        (("--like", "x"), 2, "--like is for --network"),
    ],
)
def test_options_that_do_not_go_together_are_refused(command, capsys, given, without, words):
    assert main([*command[:6], *command[6 + without :], *given]) == 1
    assert words in " ".join(capsys.readouterr().err.split())


def test_a_file_that_is_no_network_and_a_row_that_is_not_there(folder, command, tmp_path, capsys):
    for path in (folder / "calibration.json", folder / "query.jpg", tmp_path / "none.json"):
        assert main([*command[:7], str(path), *command[8:], *AT]) == 1
        assert f"{path} holds no network of cameras" in capsys.readouterr().err
    assert main(["search", *command[2:8], "--like", "0" * 32]) == 1
    assert "has no row of this id" in capsys.readouterr().err
    # Without a calibration it would learn from the gallery, for which linking is off.
    assert main([*command[:4], *command[6:], *AT]) == 1
    assert "reprism link enable" in capsys.readouterr().err
