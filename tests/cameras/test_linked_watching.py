"""``reprism watch --link``: those who walk by a camera are linked to people, and it is noted and shown."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch

import reprism
from reprism.cameras.views import View, check_view
from reprism.cli import main
from reprism.cli.watch_display import Rates, lines_of
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery
from reprism.linking.gallery_people import update_people

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    net = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(64, 32))
    net.train()(torch.randn(8, 3, 64, 32))
    return reprism.save(net.eval(), tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture
def embedder(model):
    return reprism.Embedder(model, precision="fp32", device="cpu", engine="torch")


@pytest.fixture
def street(tmp_path, write_video):
    """A video of three people who walk by one after the other, and a file of their boxes."""
    frames = np.clip(np.random.default_rng(0).normal(120, 6, (60, 96, 160, 3)), 0, 255).astype(np.uint8)
    lines = ["frame,left,top,right,bottom"]
    for index in range(60):
        left = 10 + 6 * (index % 20)
        frames[index, 20:74, left : left + 18] = [(220, 30, 30), (30, 200, 40), (40, 60, 230)][index // 20]
        if index % 20 < 14:
            lines.append(f"{index},{left},20,{left + 18},74")
    (tmp_path / "boxes.csv").write_text("\n".join(lines) + "\n")
    return write_video(tmp_path / "street.mp4", list(frames), options={"crf": "10"})


def walkers(dim, people=80):
    """People who pass gate, then hall, 40 s apart, within the last six hours."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(people, dim))
    for person, start in enumerate(rng.uniform(0, 20_000, people)):
        for camera, later in (("gate", 0), ("hall", rng.normal(40, 4))):
            at = NOW - timedelta(hours=6) + timedelta(seconds=start + later)
            row = (looks[person] + 0.2 * rng.normal(size=dim)).astype(np.float32)
            key = f"{person}-{camera}"
            yield Entry(key, row, key, None, camera, at, key, 5, until=at + timedelta(seconds=1))


def watch(street, model, gallery, *more):
    given = ["--detector", f"boxes:{street.parent / 'boxes.csv'}", "--camera", "gate", "--lost-seconds", "0.4"]
    network = ["--model", str(model), "--precision", "fp32", "--engine", "torch", "--device", "cpu"]
    start = ["--start", (NOW - timedelta(minutes=5)).isoformat()]
    return main(["watch", str(street), "--gallery", str(gallery), *given, *start, *network, *more])


def audited(gallery):
    return [json.loads(line) for line in (gallery.parent / f"{gallery.name}.audit.jsonl").read_text().splitlines()]


def test_those_who_walk_by_are_among_the_people(street, model, embedder, tmp_path, capsys):
    """The same people as by hand: by watching first, then updating once."""
    site, twin = tmp_path / "site", tmp_path / "twin"
    for each in (site, twin):
        gallery = Gallery.create(each, embedder)
        gallery.add(walkers(embedder.kind.dim))
        gallery.enable_linking("find lost children", 2)
        reprism.link_gallery(gallery)
    assert watch(street, model, site, "--link", "--link-every", "0.05") == 0
    shown = capsys.readouterr()
    assert watch(street, model, twin) == 0
    expected = update_people(Gallery.open(twin))
    gallery = Gallery.open(site)
    assert len(gallery) == 163
    people = [(person.id, person.rows) for person in gallery.people()]
    linked = {frozenset(rows) for _, rows in people}
    assert linked == {frozenset(person.rows) for person in expected.people}
    assert sum(map(len, linked)) == 163
    assert shown.out.endswith(f"3 added; 163 rows; {len(people)} people\n")
    assert "warning" not in shown.err
    begun, done = audited(site)
    assert (begun["what"], begun["state"], begun["via"]) == ("link watch", "begun", "reprism watch --link")
    assert (begun["purpose"], begun["sources"]) == ("find lost children", 1)
    assert (done["state"], done["people"], done["event"]) == ("done", len(people), begun["event"])
    assert done["updates"] >= 2


def test_too_few_rows_are_no_error(street, model, embedder, tmp_path, capsys):
    site = tmp_path / "site"
    Gallery.create(site, embedder).enable_linking("find lost children", 2)
    assert watch(street, model, site, "--link", "--link-every", "0.05") == 0
    shown = capsys.readouterr()
    assert shown.err.count("nobody is linked yet, until more rows are there") == 1
    assert shown.out.endswith("3 added; 3 rows\n")
    assert audited(site)[-1]["state"] == "done"


def test_it_is_refused_before_anything_is_watched(street, model, embedder, tmp_path, capsys):
    site = tmp_path / "site"
    assert watch(street, model, site, "--link") == 1
    assert "--link: there is no gallery" in capsys.readouterr().err
    assert not site.exists()
    gallery = Gallery.create(site, embedder)
    assert watch(street, tmp_path / "a model that is not looked at", site, "--link") == 1
    assert "linking is off for the gallery" in (said := capsys.readouterr().err)
    assert "reprism link enable" in said
    gallery.enable_linking("find lost children", 2)
    assert watch(street, model, site, "--link", "--link-every", "0") == 1
    assert "--link-every 0: expected more than 0 seconds" in capsys.readouterr().err
    assert len(gallery) == 0
    assert not (tmp_path / "site.audit.jsonl").exists()


def test_the_display_says_how_many_people(street):
    one = replace(check_view(View(street, "gate", NOW)), is_done=True)
    assert lines_of([one], Rates(), 1234) == ["1 of 1 sources done · 0 tracklets · 0 rows", "1,234 people"]
