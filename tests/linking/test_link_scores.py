"""Scores of linking against the truth, by hand and by the command."""

import colorsys
import json

import numpy as np
import pytest
import torch
from PIL import Image

import reprism
from reprism.cli import main
from reprism.data.records import DISTRACTOR, Sample
from reprism.evaluation.clusters import score_clusters
from reprism.linking.link_scores import evaluate_links
from reprism.linking.people import find_people
from reprism.linking.transit import CameraNetwork


def test_scores_are_those_of_the_people_found(walks_of):
    rows, items = walks_of(people=80)
    strangers = [Sample(f"s{n}.jpg", DISTRACTOR, "a", item.time, item.recording) for n, item in enumerate(items[:9])]
    everybody = [*items, *strangers]
    noise = np.random.default_rng(3).normal(size=(9, rows.shape[1]))
    rows = np.concatenate([rows, noise / np.linalg.norm(noise, axis=1, keepdims=True)]).astype(np.float32)
    network = CameraNetwork.learn(rows, everybody)
    found = evaluate_links(rows, everybody, network, least=0.3)
    people = find_people(rows, everybody, network, least=0.3)
    count, pids = len(items), [item.pid for item in items]
    assert found.with_times == score_clusters(people.labels[:count], pids)
    looks = find_people(rows, everybody, odds=people.odds, least=0.3)
    assert found.by_looks == score_clusters(looks.labels[:count], pids)
    # The diagram, pair by pair; strangers have no part in it.
    times = network.log_ratio(items, items)
    pairs = [(a, b) for a in range(count) for b in range(a) if items[a].camid != items[b].camid]
    right = np.array([pids[a] == pids[b] for a, b in pairs])
    assert found.true_share == pytest.approx(right.mean())
    likely = np.array([people.odds.probability(np.linalg.norm(rows[a] - rows[b]), times[a, b]) for a, b in pairs])
    bins = np.minimum((likely * 10).astype(int), 9)
    filled = [n for n in range(10) if (bins == n).any()]
    assert sum(each.count for each in found.reliability) == len(pairs)
    for n, each in zip(filled, found.reliability, strict=True):
        assert each.count == pytest.approx((bins == n).sum(), abs=2)  # a probability on an edge may round either way
        assert each.predicted == pytest.approx(likely[bins == n].mean(), abs=0.02)
        assert each.observed == pytest.approx(right[bins == n].mean(), abs=0.02)
    gaps = [(abs(each.predicted - each.observed), each.count) for each in found.reliability if each.predicted >= 0.1]
    assert found.calibration_error == pytest.approx(
        np.average(*np.transpose(gaps)[:1], weights=[count for _, count in gaps])
    )
    # The same for every two cameras.
    for cameras, between in found.camera_pairs.items():
        here = np.array([{items[a].camid, items[b].camid} == set(cameras) for a, b in pairs])
        assert between.pairs == here.sum()
        assert between.observed == pytest.approx(right[here].mean())
        assert between.predicted == pytest.approx(likely[here].mean(), abs=1e-4)
        for linked, labels in ((between.with_times, people.labels), (between.by_looks, looks.labels)):
            joined = np.array([labels[a] == labels[b] for a, b in pairs])
            assert linked == ((joined & here).sum(), (right & here).sum(), (joined & right & here).sum())
    assert list(found.camera_pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    with pytest.raises(ValueError, match="sightings of known people"):
        evaluate_links(rows[count:], strangers, network)


def ranks_by_hand(rows, items, network, asks, shown):
    """Queries, rank-1 and mAP of sightings that search others: one after the other, sorted by what speaks for each."""
    first, precisions = [], []
    for query in asks:
        others = [row for row in shown if (items[row].pid, items[row].camid) != (items[query].pid, items[query].camid)]
        score = 20 * rows[others] @ rows[query]
        if network is not None:
            score = score + network.log_ratio([items[query]], [items[row] for row in others])[0]
        hits = np.array([items[others[at]].pid == items[query].pid for at in np.argsort(-score, kind="stable")], bool)
        if hits.any():
            first.append(hits[0])
            precisions.append(((np.arange(hits.sum()) + 1) / (np.flatnonzero(hits) + 1)).mean())
    return len(first), pytest.approx(np.mean(first)), pytest.approx(np.mean(precisions))


def test_ranks_are_those_of_every_sighting_among_the_others(walks_of):
    rows, items = walks_of(people=80)
    network = CameraNetwork.learn(rows, items)
    found = evaluate_links(rows, items, network)
    everybody = range(len(items))
    assert found.ranks_by_looks == ranks_by_hand(rows, items, None, everybody, everybody)
    assert found.ranks_with_times == ranks_by_hand(rows, items, network, everybody, everybody)
    assert found.ranks_with_times.rank1 > found.ranks_by_looks.rank1
    for cameras, between in found.camera_pairs.items():
        one, other = ([row for row in everybody if items[row].camid == camera] for camera in cameras)
        for ranks, times in ((between.ranks_by_looks, None), (between.ranks_with_times, network)):
            there, back = (ranks_by_hand(rows, items, times, *way) for way in ((one, other), (other, one)))
            queries = there[0] + back[0]
            assert ranks.queries == queries
            assert ranks.mAP == pytest.approx((there[0] * there[2].expected + back[0] * back[2].expected) / queries)


def test_who_is_seen_by_one_camera_has_no_rank(walks_of):
    rows, items = walks_of(people=60)
    network = CameraNetwork.learn(rows, items)
    alone = [Sample(item.path, number, item.camid, item.time, "day") for number, item in enumerate(items, 1)]
    found = evaluate_links(rows, alone, network)
    assert found.ranks_with_times is found.ranks_by_looks is None
    assert {each.ranks_with_times for each in found.camera_pairs.values()} == {None}
    assert found.true_share == 0
    assert "rank1" not in found.as_dict()["camera_pairs"][0]["by_looks"]


@pytest.fixture(scope="module")
def tiny_model_file(tmp_path_factory):
    torch.manual_seed(0)
    model = reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16))
    model.train()(torch.randn(8, 3, 32, 16))
    return reprism.save(model.eval(), tmp_path_factory.mktemp("model") / "m.safetensors")


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """A table of pictures of people in one color each, who walk past three cameras."""
    folder = tmp_path_factory.mktemp("walks")
    rng = np.random.default_rng(0)
    lines = ["path,pid,camid,split,time,recording"]
    for person, start in enumerate(rng.uniform(0, 9000, 70)):
        color = [round(255 * part) for part in colorsys.hsv_to_rgb(person / 70, 0.3 + 0.7 * rng.random(), 0.9)]
        for camera, after in (("a", 0), ("b", 40), ("c", 130)):
            name = f"{person}{camera}.png"
            shade = np.array(color) * (0.95 + 0.05 * rng.random())
            Image.fromarray(np.full((32, 16, 3), shade, np.uint8)).save(folder / name)
            split = "query" if camera == "a" else "gallery"
            lines.append(f"{name},{person},{camera},{split},{start + after + rng.normal(0, 3):.2f},day")
    for name, person in (("x.png", 100), ("y.png", 101)):
        Image.fromarray(np.full((32, 16, 3), person, np.uint8)).save(folder / name)
        lines.append(f"{name},{person},a,train,0,day")
    (folder / "walks.csv").write_text("\n".join(lines) + "\n")
    return folder / "walks.csv"


def test_the_command_finds_and_scores_people(walks, tiny_model_file, tmp_path, capsys):
    data = [str(tiny_model_file), "--data", f"csv:{walks}"]
    assert main(["evaluate-links", *data, "--json", str(tmp_path / "links.json")]) == 0
    said = capsys.readouterr().out
    assert "70 people in 210 images" in said
    written = json.loads((tmp_path / "links.json").read_text())
    assert written["with_times"]["f1"] > written["by_looks"]["f1"]
    assert f"{100 * written['with_times']['f1']:.1f}" in said
    error = f"from a probability of 10 % on: {100 * written['calibration_error']:.1f} points"
    assert error in " ".join(said.split())
    assert (
        f"looks and times {100 * written['with_times']['rank1']:.1f} / {100 * written['with_times']['mAP']:.1f}" in said
    )
    (row,) = [line.split() for line in said.splitlines() if line.split()[:2] == ["a,", "b"]]
    (between,) = [each for each in written["camera_pairs"] if each["cameras"] == ["a", "b"]]
    assert row[2] == f"{between['pairs']:,}" == "4,900"
    assert float(row[4]) == pytest.approx(100 / 70, abs=0.01)
    assert float(row[6]) == pytest.approx(100 * between["with_times"]["recall"], abs=0.051)
    assert float(row[7]) == pytest.approx(100 * between["with_times"]["rank1"], abs=0.051)
    # With a network that was learned before it is the same: it was learned from the same images.
    assert main(["link", "learn", *data, "--split", "test", "--out", str(tmp_path / "n.json")]) == 0
    again = ["--network", str(tmp_path / "n.json"), "--json", str(tmp_path / "again.json")]
    again += ["--png", str(tmp_path / "links.png")]
    assert main(["evaluate-links", *data, *again]) == 0
    assert json.loads((tmp_path / "again.json").read_text()) == written
    with Image.open(tmp_path / "links.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_the_command_explains_mistakes(walks, tiny_model_file, tmp_path, capsys):
    (tmp_path / "no.json").write_text("{}")
    data = [str(tiny_model_file), "--data", f"csv:{walks}"]
    assert main(["evaluate-links", *data, "--network", str(tmp_path / "no.json")]) == 1
    assert "holds no network of cameras" in capsys.readouterr().err
    assert main(["evaluate-links", *data, "--least", "0"]) == 1
    assert "least=0" in capsys.readouterr().err
