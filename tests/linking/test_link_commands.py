"""``reprism link`` on a gallery: it says what it needs, does what it says, and notes it in the audit log."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import reprism
from reprism.cli import main
from reprism.linking.gallery_people import link_gallery
from reprism.linking.learned import kept_network

PURPOSE = "find lost children in the fun park"


@pytest.fixture
def site(gallery_of, seen, tmp_path):
    gallery_of(seen, on=False)
    return str(tmp_path / "site")


def audited(site):
    return [json.loads(line) for line in Path(f"{site}.audit.jsonl").read_text().splitlines()]


def test_off_until_it_is_switched_on(site, capsys):
    for command in (["run", site], [site], ["learn", site]):
        assert main(["link", *command]) == 1
        assert "linking is off for the gallery" in (said := capsys.readouterr().err)
        assert "reprism link enable" in said
    assert main(["link", "status", site]) == 0
    assert capsys.readouterr().out == f"{site}: linking is off\n"
    assert main(["link", "status", site, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"on": False}
    for given in (["--purpose", PURPOSE], ["--keep-days", "3"]):
        with pytest.raises(SystemExit) as stopped:
            main(["link", "enable", site, *given])
        assert stopped.value.code == 2
    assert main(["link", "enable", site, "--purpose", PURPOSE, "--keep-days", "200"]) == 1
    assert "expected 1 to 180 days" in capsys.readouterr().err


def test_people_are_found_shown_and_noted(site, seen, capsys, tmp_path):
    assert main(["link", "enable", site, "--purpose", PURPOSE, "--keep-days", "30"]) == 0
    assert f"for rows of the last 30 days.\nPurpose: {PURPOSE}" in capsys.readouterr().out
    assert main(["link", "learn", site, "--out", str(tmp_path / "network.json")]) == 0
    assert "transit times between 3 cameras, learned from" in " ".join(capsys.readouterr().out.split())
    gallery = reprism.Gallery.open(site)
    network = reprism.CameraNetwork.load(tmp_path / "network.json")
    assert network.as_dict() == kept_network(gallery).as_dict()
    assert network.held_out.overall.pairs > 0
    assert replace(network, held_out=None).as_dict() == reprism.CameraNetwork.of_gallery(gallery).as_dict()
    assert main(["link", site, "--top", "3"]) == 0
    shown = capsys.readouterr().out
    people = gallery.people()
    across = sum(len(person.cameras) > 1 for person in people)
    assert f"{len(seen)} rows: {len(people)} people, {across} of them seen by two cameras or more" in shown
    assert f"people; 3 of {len(people)}" in shown
    first = people[0]
    (row,) = [line for line in shown.splitlines() if line.split()[:1] == [str(first.id)]]
    assert f"{first.first:%Y-%m-%d %H:%M:%S}" in row
    assert f"{100 * first.confidence:.0f} %" in row
    assert main(["link", "run", site, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["expired"], found["unplaced"]) == (len(seen), 0, 0)
    assert found["people"] == [json.loads(json.dumps(person.as_dict())) for person in people]
    assert main(["link", "status", site, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["purpose"], status["keep_days"], status["people"], status["rows"]) == (
        PURPOSE, 30, len(people), len(seen)
    )  # fmt: skip
    assert main(["link", "status", site]) == 0
    assert f"{len(people)} people in {len(seen)} rows" in capsys.readouterr().out
    assert main(["link", "disable", site]) == 0
    assert "the people and the transit times are removed" in capsys.readouterr().out
    assert reprism.Gallery.open(site).linking() is None
    assert [(line["what"], line["state"]) for line in audited(site)] == [
        (f"link {action}", state)
        for action in ("enable", "learn", "run", "run", "disable")
        for state in ("begun", "done")
    ]
    log = audited(site)
    assert (log[0]["purpose"], log[0]["keep_days"]) == (PURPOSE, 30)
    assert log[4]["purpose"] == PURPOSE
    assert log[5]["people"] == len(people)


def test_what_fails_is_noted_too(site, capsys):
    main(["link", "enable", site, "--purpose", PURPOSE, "--keep-days", "30"])
    reprism.Gallery.open(site).erase(pids=[f"{n}" for n in range(2, 150)])
    assert main(["link", site]) == 1
    assert "seem to be of one person" in capsys.readouterr().err
    assert [(line["what"], line["state"]) for line in audited(site)][-1] == ("link run", "failed")


def test_what_is_left_out_is_said(gallery_of, seen, tmp_path, capsys):
    old = replace(seen[0], key="old", tracklet=None, time=seen[0].time - timedelta(days=40), until=None)
    gallery = gallery_of([*seen, old, replace(seen[0], key="nowhere", camid=None)])
    assert main(["link", str(tmp_path / "site")]) == 0
    shown = capsys.readouterr().out
    assert "1 further row is older than linking keeps rows" in shown
    assert "1 further row is without a camera or a time" in shown
    assert link_gallery(gallery).rows == len(seen)


def test_mistakes_are_named(site, capsys, tmp_path):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"")
    assert main(["link", "learn", str(model)]) == 1
    assert "is no gallery; of a model, expected the data to learn from: --data" in capsys.readouterr().err
    assert main(["link", "run", site, "--top", "-1"]) == 1
    assert "--top -1: expected 0 or more" in capsys.readouterr().err
    assert main(["link", "enabel", site]) == 2
    assert "Did you mean 'enable'?" in capsys.readouterr().err
    assert main(["link", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {action} " in shown for action in ("enable", "learn", "run", "status", "disable"))
