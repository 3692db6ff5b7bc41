import csv
import importlib.metadata
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import torchvision

import reprism
from reprism import demo
from reprism.data import open_dataset
from reprism.demo import DemoSettings, run_demo, search_demo
from reprism.demo_site import SiteSettings, _overlap, site_metrics
from reprism.report.site_section import Answer, Sighting
from reprism.training.recipes import find_recipe

pytestmark = pytest.mark.slow

TINY = DemoSettings(
    train_identities=8,
    test_identities=4,
    cameras=2,
    images_per_camera=2,
    distractors=3,
    size=(64, 32),
    backbone="test_resnet",
    part_dim=8,
    epochs=2,
    evaluate_every=1,
    list_length=3,
    site=None,
)
SITE = SiteSettings(cameras=2, people=4, seconds=20, size=(180, 320))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A whole demo, as small as it gets: its folder, what run_demo gave, and the progress it reported."""
    out = tmp_path_factory.mktemp("demo") / "it's <b>mine</b>"
    calls = []
    metrics = run_demo(out, 1, lambda *call: calls.append(call), settings=replace(TINY, site=SITE))
    return out, metrics, calls


def test_the_demo_trains_the_recipe_of_the_readme():
    made, named = DemoSettings().recipe(Path("people"), 0), find_recipe("cpu-minutes")
    assert made.model_copy(update={"name": named.name, "data": named.data}) == named
    assert made.data.model_copy(update={"root": None}) == named.data


def test_metrics_hold_before_after_and_seconds(finished):
    out, metrics, _ = finished
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    for when in ("before", "after"):
        for key in ("mAP", "rank1", "same_camera"):
            assert 0 <= metrics[when][key] <= 1
        assert metrics[when]["cmc"][0] == metrics[when]["rank1"]
        assert metrics[when]["num_queries"] == 8
    assert metrics["seconds"] >= sum(metrics["timings"].values()) - 0.5
    assert [each["epoch"] for each in metrics["evaluations"]] == [1, 2]
    assert metrics["counts"]["train_identities"] == 8
    assert metrics["counts"]["gallery_images"] == 4 * 2 * 1 + 3 + 0


def test_after_is_what_training_measured_itself(finished):
    metrics = finished[1]
    assert metrics["after"]["mAP"] == pytest.approx(metrics["evaluations"][-1]["mAP"], abs=1e-6)
    assert metrics["after"]["mAP"] != metrics["before"]["mAP"]


def test_the_report_is_one_file_that_shows_everything(finished):
    out, metrics, _ = finished
    text = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\(", text)

    class Page(HTMLParser):
        tags, said = [], ""

        def handle_starttag(self, tag, attributes):
            self.tags.append((tag, dict(attributes)))

        def handle_data(self, data):
            self.said += data

    page = Page()
    page.feed(text)
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert (
        sum(source.startswith("data:image/svg+xml") for source in sources) == 4
    )  # CMC, losses, evaluations, the cameras' times
    assert sum(source.startswith("data:image/jpeg") for source in sources) >= 3  # people, and ranked lists
    assert not {"script", "link", "iframe", "b"} & {tag for tag, _ in page.tags}
    assert "<b>mine</b>" in page.said  # the folder's name, as text
    for wanted in (
        TINY.partition,
        TINY.backbone,
        "seed 1",
        f"torch {importlib.metadata.version('torch')}",
        f"{100 * metrics['after']['rank1']:.1f} %",
        f"{100 * metrics['before']['rank1']:.1f} %",
        f"{metrics['timings']['training']:.1f} s",
        "same-camera matches ignored",
        "reprism evaluate",
        "reprism train",
    ):
        assert wanted in page.said


def test_the_parts_it_leaves_can_be_used(finished):
    out, metrics, _ = finished
    names = ["cameras", "data", "metrics.json", "report.html", "run", "tracklets"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    recipe = find_recipe(str(out / "run"))
    assert recipe.data.root == out.resolve() / "data"
    dataset = open_dataset(recipe.data.name, recipe.data.root)
    embedder = reprism.Embedder(out / "run" / "model.safetensors", precision="fp32")
    labels = [[getattr(s, key) for s in part] for key in ("pid", "camid") for part in (dataset.query, dataset.gallery)]
    again = reprism.evaluate(*(embedder.embed_samples(part) for part in (dataset.query, dataset.gallery)), *labels)
    assert again.mAP == pytest.approx(metrics["after"]["mAP"], abs=1e-6)


def test_the_site_is_watched_and_the_report_ends_with_the_people_found(finished):
    """People by the true tracks that lie in the tracklets' times; the nearest tracklets by all distances."""
    out, metrics, _ = finished
    text = (out / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2[^>]*>([^<]+)</h2>", text)[-1] == "People found by 2 cameras"
    gallery = reprism.Gallery.open(out / "tracklets")
    rows = gallery.rows()
    assert rows
    assert all(Path(row.path.partition("#t=")[0]).exists() for row in rows)
    site = metrics["site"]
    assert site["tracklets"] == len(rows)
    with (out / "cameras" / "tracks.csv").open() as file:
        tracks = list(csv.DictReader(file))
    assert 1 <= site["people"] <= len({track["pid"] for track in tracks})
    assert 0 <= site["mixed"] <= len(rows)
    assert 0 <= site["right"] <= site["asked"] <= len(rows) - site["mixed"]
    assert f"{site['tracklets']} tracklets" in text


def test_site_metrics_count_what_there_is():
    start = datetime(2026, 1, 5, 9, tzinfo=UTC)
    one, two, three = (Sighting(camera, start, start, who, []) for camera, who in (("a", 1), ("b", 1), ("b", None)))
    answers = [Answer(one, [(two, 0.1)]), Answer(two, [(one, 0.1)]), Answer(three, [(one, 0.1)])]
    # Of the two tracklets by b one is of the person, by a the only one.
    assert site_metrics([one, two, three], answers) == {
        "tracklets": 3, "people": 1, "mixed": 1, "asked": 2, "right": 2, "chance": 0.75,
    }  # fmt: skip
    assert site_metrics([], [])["chance"] == 0


def test_overlap_is_that_of_torchvision():
    boxes = torch.rand(20, 4, generator=torch.Generator().manual_seed(0)).double()
    boxes[:, 2:] += boxes[:, :2] + 0.1
    want = torchvision.ops.box_iou(boxes[:10], boxes[10:])
    found = [[_overlap(a, b) for b in boxes[10:].numpy()] for a in boxes[:10].numpy()]
    assert found == pytest.approx(want.numpy(), abs=1e-12)


def test_the_search_is_in_the_gallery_it_indexed_and_can_be_replaced(tmp_path):
    out = tmp_path / "demo"
    run_demo(out, 1, settings=TINY)
    answers = search_demo(out, people=3, top=4)
    data = open_dataset("market1501", out / "data")
    assert len(reprism.Gallery.open(out / "gallery")) == len(data.gallery)
    assert len({query.pid for query, _ in answers}) == len(answers) == 3
    embedder = reprism.Embedder(out / "run" / "model.safetensors", precision="fp32")
    for query, matches in answers:
        others = [sample for sample in data.gallery if sample.camid != query.camid]
        distances = torch.cdist(
            *map(torch.from_numpy, (embedder.embed_samples([query]), embedder.embed_samples(others)))
        )
        nearest = distances[0].sort(stable=True)
        assert [match.distance for match in matches] == pytest.approx(nearest.values[:4].tolist(), abs=1e-4)
        assert matches[0].path == str(others[int(nearest.indices[0])].path)
    assert "data:image" in (out / "search.html").read_text(encoding="utf-8")
    run_demo(out, 2, settings=TINY)  # a new demo takes the place of all of it
    assert not (out / "gallery").exists()


def test_progress_is_reported_up_to_the_end_of_every_step(finished):
    calls = finished[2]
    names = {what for what, _, _ in calls}
    assert {"drawing people", "query (before)", "gallery (after)"} <= names
    for name in names:
        done = [(done, total) for what, done, total in calls if what == name]
        assert done == sorted(done)
        assert done[-1][0] == done[-1][1]


def test_before_is_the_network_that_training_starts_from(tmp_path, monkeypatch):
    started = []
    recipe = TINY.recipe(tmp_path, 3)
    untrained = demo._starting_network(recipe, 8)

    def stop_at_fit(trainer, module, **options):
        started.append({key: value.clone() for key, value in module.model.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", stop_at_fit)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "out", 3, settings=TINY)
    assert not list(tmp_path.iterdir())  # interrupted, it leaves nothing
    for key, value in untrained.state_dict().items():
        assert torch.equal(value, started[0][key]), key


def test_measuring_before_moves_no_random_numbers(tmp_path):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    demo._starting_network(TINY.recipe(tmp_path, 3), 8)
    assert torch.equal(torch.get_rng_state(), state)


# ---- the folder ----------------------------------------------------------------------------------------------------


def earlier_demo(out):
    (out / "data").mkdir(parents=True)
    (out / "metrics.json").write_text('{"made_by": "reprism demo"}')
    (out / "report.html").write_text("earlier")
    return out


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"thesis.tex": "x"}, "holds thesis.tex, which no demo wrote"),
        ({"metrics.json": "{}"}, "holds no earlier demo"),
        ({"metrics.json": "[1]"}, "holds no earlier demo"),
        ({"metrics.json": "not JSON"}, "holds no earlier demo"),
        ({"report.html": "x"}, "holds no earlier demo"),
        ({"metrics.json": '{"made_by": "reprism demo"}', "notes.txt": "x"}, "holds notes.txt"),
    ],
)
def test_a_foreign_folder_is_refused_at_once(tmp_path, monkeypatch, files, message):
    monkeypatch.setattr(demo, "render_market1501", lambda *a, **k: pytest.fail("it has begun"))
    out = tmp_path / "out"
    out.mkdir()
    for name, text in files.items():
        (out / name).write_text(text)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=message):
        run_demo(out)
    assert contents(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(FileExistsError, match="is a file"):
        run_demo(tmp_path / "out")


@pytest.mark.parametrize("failing", ["render_market1501", "train", "demo_page"])
def test_a_failing_step_leaves_the_earlier_demo_as_it_was(tmp_path, monkeypatch, failing):
    out = earlier_demo(tmp_path / "out")
    before = contents(tmp_path)

    def fail(*arguments, **options):
        raise OSError("no space left")

    if failing == "demo_page":  # the last step; what precedes it need not be real
        monkeypatch.setattr(demo, "train", lambda recipe, folder, **k: fake_training(recipe, folder))
    monkeypatch.setattr(demo, failing, fail)
    with pytest.raises(OSError, match="no space left"):
        run_demo(out, settings=TINY)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def fake_training(recipe, folder):
    """A run folder around an untrained network."""
    from reprism.training.run import TrainingResult

    folder.mkdir()
    (folder / "environment.json").write_text(
        '{"packages": {}, "gpu": null, "cpu": null, "threads": 1, "platform": "", "python": ""}'
    )
    model = demo._starting_network(recipe, TINY.train_identities).eval()
    return TrainingResult(folder, model, {"evaluations": [{"epoch": 1, "mAP": 0.1, "rank1": 0.1}]})


@pytest.mark.parametrize("earlier", ["none", "empty", "demo"])
def test_the_new_demo_takes_the_place_of_nothing_or_of_an_earlier_one(tmp_path, earlier):
    out = tmp_path / "deep" / "out"
    if earlier == "empty":
        out.mkdir(parents=True)
    if earlier == "demo":
        earlier_demo(out)
    with demo._replaced_when_whole(out) as folder:
        assert folder.parent == out.parent  # on the same file system: moved in one step
        (folder / "report.html").write_text("new")
        if earlier == "demo":
            assert (out / "report.html").read_text() == "earlier"
    assert contents(tmp_path / "deep") == {"out/report.html": b"new"}


def test_what_others_put_there_meanwhile_is_not_lost(tmp_path):
    out = tmp_path / "out"

    def make():
        with demo._replaced_when_whole(out) as folder:
            (folder / "report.html").write_text("new")
            out.mkdir()
            (out / "thesis.tex").write_text("x")

    with pytest.raises(FileExistsError, match=r"holds thesis\.tex"):
        make()
    assert contents(tmp_path) == {"out/thesis.tex": b"x"}


def test_a_move_that_fails_brings_the_earlier_demo_back(tmp_path, monkeypatch):
    out = earlier_demo(tmp_path / "out")
    before = contents(tmp_path)
    rename = Path.rename

    def fail_for_the_new(path, target):
        if path.name.endswith(".unfinished"):
            raise OSError("device is busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="device is busy"), demo._replaced_when_whole(out) as folder:
        (folder / "report.html").write_text("new")
    assert contents(tmp_path) == before
