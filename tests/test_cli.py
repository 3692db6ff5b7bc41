"""The command line, as a user meets it."""

import json
import re
import resource
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import reprism
from reprism.cli import COMMANDS, main
from reprism.drawn.layouts import render_market1501
from reprism.drawn.output import DRAWN_MARK
from reprism.evaluation.fitted_on import FittedOn
from reprism.evaluation.items import evaluate_items, expand_queries


def time_of_children() -> float:
    """Seconds that processes which have ended took of a processor, however busy it was."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_needs_no_torch_and_names_every_command() -> None:
    code = (
        "import sys; from reprism.cli import main; main(['--help']); "
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    before = time_of_children()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time_of_children() - before < 2  # it takes a twentieth of a second; loading torch takes several
    assert run.stdout.rstrip().endswith("False False")
    for command in COMMANDS:
        assert f"\n  {command} " in run.stdout


def test_a_warning_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: list[str]) -> int:
        warnings.warn("this looks odd", stacklevel=1)
        return 0

    monkeypatch.setattr("reprism.cli.import_module", lambda _: SimpleNamespace(run=run))
    with warnings.catch_warnings():  # pytest keeps warnings to itself otherwise
        warnings.simplefilter("always")
        warnings.showwarning = lambda *shown: sys.stderr.write(warnings.formatwarning(*shown[:4]))
        assert main(["optimize", "gallery"]) == 0
    assert capsys.readouterr().err == "reprism optimize: warning: this looks odd\n"


def test_import_needs_no_torch() -> None:
    code = (
        "import sys, reprism; print('torch' in sys.modules); "
        "reprism.Partition.parse('p1'); print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_every_public_name_loads() -> None:
    for name in reprism.__all__:
        assert getattr(reprism, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = reprism.nonsense


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["evaluate"],
        ["demo"],
        ["data", "render"],
        ["data", "check"],
        ["calibrate"],
        ["train", "scr-market1501"],
    ],
)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_train_help_shows_the_recipes_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "scr-market1501-released", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--data.erasing" in shown
    assert "default: 0.5" in shown
    assert "--optimizer.lr" in shown


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [(["nonsense"], 2, "no command 'nonsense'"), (["train"], 2, "name a recipe first"),
     (["trian"], 2, "no command 'trian'. Did you mean 'train'?"),
     (["data", "chek"], 2, "no action 'chek'. Did you mean 'check'?"),
     (["data", "check", "Market", "/tmp"], 1, "Did you mean 'market1501'?"),
     (["reproduce", "tabel3"], 1, "Did you mean 'table3'?"),
     (["train", "scr-markt1501"], 1, "Did you mean 'scr-market1501'?"),
     (["train", "scr-market1501"], 1, "--data.root"),
     (["evaluate", "absent.safetensors", "--data", "market1501"], 1, "NAME:DIR"),
     (["evaluate", "absent.safetensors", "--data", "nothing:/tmp"], 1, "Unknown data set 'nothing'"),
     (["evaluate", "absent.safetensors", "--data", "cuhk03,boxes:/tmp"], 1, "NAME,OPTION=VALUE:DIR"),
     (["evaluate", "absent.safetensors", "--data", "mars,boxes=detected:/tmp"], 1, "'mars' has no option boxes"),
     (["data"], 2, "reprism data ACTION"),
     (["data", "check", "market1501", "absent"], 1, "There is no folder"),
     (["data", "check", "cuhk03,boxes=drawn", "/tmp"], 1, "expected labelled or detected")],
)  # fmt: skip
def test_mistakes_are_explained(
    arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == status
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_render_train_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path of the README: draw, train with settings from the command line, evaluate the file that came out."""
    monkeypatch.chdir(tmp_path)
    assert main(["data", "render", "market1501", "people", "--train-identities", "8", "--test-identities", "4",
                 "--height", "64"]) == 0  # fmt: skip
    assert main(["train", "scr-market1501", "--data.root", "people", "--data.size", "64", "32",
                 "--data.workers", "0", "--model.backbone", "mobilenetv3_small_050", "--model.pretrained", "False",
                 "--model.partition", "p1(s2)", "--model.part-dim", "16", "--optimizer.epochs", "1",
                 "--trainer.precision", "fp32", "--trainer.accelerator", "cpu"]) == 0  # fmt: skip
    recorded = json.loads(Path("runs/scr-market1501/metrics.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", "runs/scr-market1501/model.safetensors", "--data", "market1501:people",
                 "--precision", "fp32", "--device", "cpu"]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    result = json.loads(Path("evaluation-scr-market1501-market1501-people.json").read_text())
    assert result["mAP"] == pytest.approx(recorded["mAP"], abs=1e-4)
    assert {"rank1", "rank5", "rank10", "rank20", "mINP", "num_queries", "lost_queries", "protocol"} <= result.keys()
    assert f"{100 * result['mAP']:.1f}" in shown
    for words in ("AP by step", "with mirrored image", "same-camera matches ignored", "64x32"):
        assert words in result["protocol"]


def test_several_data_sets_and_lost_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    reprism.save(reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16)), "model.safetensors")
    for name, seed in (("one", 1), ("two", 2)):
        render_market1501(tmp_path / name, train_identities=2, test_identities=3, size=(32, 16), seed=seed, junk=0)
    # Nobody else saw this person: every gallery image of it goes.
    victim = next((tmp_path / "two" / "query").glob("*.jpg")).name[:4]
    for image in (tmp_path / "two" / "bounding_box_test").glob(f"{victim}_*.jpg"):
        image.unlink()
    assert main(["evaluate", "model.safetensors", "--data", "market1501:one", "market1501:two", "--lost", "zero",
                 "--ap", "trapezoid", "--out", "both.json", "--device", "cpu"]) == 0  # fmt: skip
    one, two = json.loads(Path("both.json").read_text())
    assert one["num_lost_queries"] == 0
    assert two["num_lost_queries"] == len(list((tmp_path / "two" / "query").glob(f"{victim}_*.jpg"))) > 0
    assert all(Path(path).name.startswith(victim) for path in two["lost_queries"])
    assert "a lost one counting 0" in two["protocol"]
    assert "lost (no other camera saw this person)" in capsys.readouterr().out


def test_data_check_counts_and_tells_by_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(render_market1501(tmp_path / "m", train_identities=3, test_identities=3, size=(32, 16), junk=0))
    Path(root, DRAWN_MARK).unlink()
    assert main(["data", "check", "market1501", root]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "48 (published: 12,936)" in shown
    assert "3 training identities cannot fill a batch of 8 identities" in shown
    assert "FAILED: 9 problems." in shown
    assert main(["data", "check", "market1501", root, "--json", "--decode"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["parts"]["query"]["images"] == 12
    # One's own data have nothing to differ from, until an image breaks.
    own = tmp_path / "own"
    for n, image in enumerate(sorted((tmp_path / "m" / "bounding_box_train").glob("*.jpg"))):
        folder = own / image.name[:4] / f"camera {image.name[6]}"
        folder.mkdir(parents=True, exist_ok=True)
        image.rename(folder / f"{n}.jpg")
    check = ["data", "check", "folder", str(own), "--split-by-identity", "0.5", "--seed", "2",
             "--ids-per-batch", "1"]  # fmt: skip
    assert main(check) == 0
    assert "OK: no problems." in capsys.readouterr().out
    (own / "split-0.5-2.csv").unlink()
    next(own.rglob("*.jpg")).write_bytes(b"broken")
    assert main([*check, "--decode"]) == 1
    shown = capsys.readouterr().out
    assert "1 unreadable images" in shown
    assert "FAILED: 1 problem." in shown


def test_a_network_is_tested_on_data_it_was_not_trained_on_and_each_says_its_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    reprism.save(reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16)), "model.safetensors")
    people = ["--train-identities", "2", "--test-identities", "3", "--height", "32"]
    for layout in ("market1501", "cuhk03", "mars"):
        assert main(["data", "render", layout, layout, *people]) == 0
        assert main(["data", "check", layout, layout, "--ids-per-batch", "2"]) == 0
        said = capsys.readouterr().out
        assert "Drawn people: published counts do not apply." in said
        assert "OK: no problems." in said
    assert main(["evaluate", "model.safetensors", "--data", "market1501:market1501", "cuhk03,boxes=detected:cuhk03",
                 "cuhk03,protocol=classic,split=2:cuhk03", "mars:mars", "mars,protocol=without-queries:mars",
                 "--video.frames", "4", "--video.segments", "2", "--comparison", "all-pairs",
                 "--device", "cpu", "--workers", "0", "--out", "all.json"]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    results = json.loads(Path("all.json").read_text())
    assert [result["data"] for result in results] == ["market1501", "cuhk03", "cuhk03", "mars", "mars"]
    assert [result["trials"] for result in results] == [1, 1, 10, 1, 1]
    assert "one gallery item of each identity by another camera, 10 trials" in results[2]["protocol"]
    assert "classic protocol, split 2" in results[2]["protocol"]
    assert "4 frames of a tracklet (even) in 2 segments, mean of each, compared by all-pairs" in results[3]["protocol"]
    assert all("single query" in result["protocol"] for result in results)
    assert (results[3]["num_lost_queries"], results[4]["num_lost_queries"]) == (0, 1)
    for result in results:
        assert result["protocol"].split(", ")[0] in " ".join(shown.split())


def test_the_protocol_says_what_was_done_not_what_the_data_set_suggests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], people: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    reprism.save(reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16)), "model.safetensors")
    assert main(["data", "render", "cuhk03", "cuhk03", "--train-identities", "2", "--test-identities", "3",
                 "--height", "32"]) == 0  # fmt: skip
    classic, market = "cuhk03,protocol=classic:cuhk03", f"market1501:{people}"
    for data, shots, said in ((classic, "0", False), (classic, "3", True), (market, "1", True), (market, "0", False)):
        assert main(["evaluate", "model.safetensors", "--data", data, "--single-gallery-shot", shots,
                     "--device", "cpu", "--workers", "0", "--out", "it.json", "--overwrite"]) == 0  # fmt: skip
        result = json.loads(Path("it.json").read_text())
        assert (f"one gallery item of each identity by another camera, {shots} trials" in result["protocol"]) == said
    assert main(["evaluate", "model.safetensors", "--data", classic, "--ranked-lists", "x", "--device", "cpu",
                 "--workers", "0"]) == 1  # fmt: skip
    assert "not single shots" in capsys.readouterr().err


def test_multi_query_describes_each_query_by_its_boxes_or_says_that_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16))
    model.train()(torch.randn(8, 3, 32, 16))
    reprism.save(model, "model.safetensors")
    root = render_market1501(
        tmp_path / "m", train_identities=1, test_identities=4, cameras=3, size=(32, 16), gt_bbox=True
    )
    evaluate = ["evaluate", "model.safetensors", "--data", "market1501:m", "--multi-query", "--device", "cpu",
                "--precision", "fp32", "--workers", "0"]  # fmt: skip
    assert main([*evaluate, "--out", "boxes.json"]) == 0
    result = json.loads(Path("boxes.json").read_text())
    assert "each query the mean of the hand-drawn boxes of its person and camera" in result["protocol"]
    embedder = reprism.Embedder("model.safetensors", precision="fp32", device="cpu")
    data = reprism.open_dataset("market1501", root)
    boxes = sorted((root / "gt_bbox").glob("*.jpg"))
    described = embedder.embed(boxes).astype(np.float64)
    same = [[path.name[:7] == query.path.name[:7] for path in boxes] for query in data.query]
    assert np.sum(same, axis=1).tolist() == [4] * 12
    rows = np.stack([described[chosen].mean(0) for chosen in same]).astype(np.float32)
    expected = evaluate_items(rows, embedder.embed_samples(data.gallery), data.query, data.gallery)
    assert result["num_queries"] == 12
    assert result["mAP"] == pytest.approx(expected.mAP, abs=1e-4)
    shutil.rmtree(root / "gt_bbox")
    capsys.readouterr()
    assert main(evaluate) == 1
    assert "multi-query has nothing to average" in capsys.readouterr().err


def test_the_table_of_camera_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], people: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16))
    model.train()(torch.randn(8, 3, 32, 16))
    reprism.save(model, "model.safetensors")
    data = ["model.safetensors", "--data", f"market1501:{people}", "--device", "cpu", "--precision", "fp32"]
    assert main(["evaluate", *data, "--by-camera-pair", "--out", "scores.json"]) == 0
    out = capsys.readouterr().out
    pairs = json.loads(Path("scores.json").read_text())["camera_pairs"]
    found = reprism.evaluate_model(
        model.eval(), reprism.open_dataset("market1501", people), precision="fp32", device="cpu"
    ).by_camera_pair()
    assert [(pair["query"], pair["gallery"]) for pair in pairs] == list(found)
    assert len(pairs) == 6
    for pair, metrics in zip(pairs, found.values(), strict=True):
        assert pair["mAP"] == pytest.approx(metrics.mAP)
        (row,) = re.findall(rf"^ *{pair['query']} +(.*)", out, flags=re.MULTILINE)
        assert f"{100 * pair['rank1']:.1f}" in row.split()


def test_reranking_expansion_and_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], people: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16))
    model.train()(torch.randn(8, 3, 32, 16))
    reprism.save(model, "model.safetensors")
    data = ["model.safetensors", "--data", f"market1501:{people}", "--device", "cpu", "--precision", "fp32"]
    assert (
        main(["evaluate", *data, "--rerank", "--k1", "5", "--k2", "2", "--expand-queries", "3", "--out", "r.json"]) == 0
    )
    result = json.loads(Path("r.json").read_text())
    for words in ("re-ranked (k1 5, k2 2, lambda 0.3)", "queries expanded by their 3 nearest"):
        assert words in result["protocol"]
    embedder = reprism.Embedder("model.safetensors", precision="fp32", device="cpu")
    opened = reprism.open_dataset("market1501", people)
    rows = [embedder.embed_samples(items) for items in (opened.query, opened.gallery)]
    rows[0] = expand_queries(*rows, opened.query, opened.gallery, 3)
    expected = evaluate_items(*rows, opened.query, opened.gallery, rerank={"k1": 5, "k2": 2})
    assert result["mAP"] == pytest.approx(expected.mAP, abs=1e-4)
    assert main(["evaluate", *data, "--camera-normalize", "--out", "cameras.json"]) == 0
    by_camera = json.loads(Path("cameras.json").read_text())
    expected = reprism.evaluate_model(embedder, opened, reprism.Protocol(camera_normalize=True)).as_dict()
    assert (by_camera["camera_normalize"], by_camera["mAP"]) == (True, pytest.approx(expected["mAP"], abs=1e-6))
    link = ["link", "learn", *data, "--split", "test", "--out", "network.json"]
    assert main(link) == 0
    assert "transit times between 3 cameras, learned from" in " ".join(capsys.readouterr().out.split())
    assert main(["evaluate", *data, "--camera-normalize", "--network", "network.json", "--out", "linked.json"]) == 0
    network = reprism.CameraNetwork.load("network.json")
    protocol = reprism.Protocol(camera_normalize=True, network=network)
    expected = reprism.evaluate_model(embedder, opened, protocol).as_dict()
    linked = json.loads(Path("linked.json").read_text())
    assert (linked["network"], linked["mAP"]) == (network.describe(), pytest.approx(expected["mAP"], abs=1e-6))
    assert main(link) == 1
    assert "network.json exists: give --overwrite" in capsys.readouterr().err
    assert main(["link", "show", "network.json", "--png", "network.png"]) == 0
    assert "network.html\nnetwork.png\n" in capsys.readouterr().out
    assert "learned from sightings of unknown people" in Path("network.html").read_text("utf-8")
    assert Path("network.png").read_bytes().startswith(b"\x89PNG")
    for wrong in ("1", "1:1", ":2", "1:2:3"):
        assert main(["link", "show", "network.json", "--overlap", wrong]) == 1
        assert f"expected two cameras as ONE:OTHER, such as gate:hall, got '{wrong}'" in capsys.readouterr().err
    assert main(["link", "lern"]) == 2
    assert "Did you mean 'learn'?" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["calibrate", *data, "--fmr", "0.1", "1e-4", "--out", "made/calibration.json"]) == 0
    shown = capsys.readouterr().out
    found = reprism.Calibration.read("made/calibration.json")
    assert [point.wanted_fmr for point in found.points] == [0.1, 1e-4]
    assert f"{found.points[0].threshold:.4f}" in shown
    assert "fewer than 30 false matches" in shown
    assert found.fitted_on == FittedOn(embedder.kind.fingerprint, flip=True)
    assert Path("made/calibration.png").stat().st_size > 10_000


def test_backbones_and_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["backbones", "resnet10t", "mobilenetv3_small_050", "--size", "32", "16", "--partition", "p1(s2)",
                 "--batch", "2", "--out", "costs.json", "--device", "cpu"]) == 0  # fmt: skip
    first, second = json.loads(Path("costs.json").read_text())
    assert (first["backbone"], second["backbone"]) == ("resnet10t", "mobilenetv3_small_050")
    assert first["gflop"] > second["gflop"] > 0
    assert f"{first['parameters']:,}" in capsys.readouterr().out
    model = reprism.build_model("p1", "mobilenetv3_small_050", 3, part_dim=8, size=(32, 16))
    reprism.save(model, "with.safetensors")
    assert main(["convert", "with.safetensors", "without.safetensors", "--no-classifiers"]) == 0
    assert reprism.load("without.safetensors").num_classes == 0
    assert "p1 on mobilenetv3_small_050, 0 classes" in capsys.readouterr().out
    assert main(["convert", "absent.pth", "x.safetensors"]) == 1


def test_ranked_lists_and_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], people: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("one", 0), ("two", 1)):
        torch.manual_seed(seed)
        model = reprism.build_model("p1(s2)", "mobilenetv3_small_050", part_dim=8, size=(32, 16))
        model.train()(torch.randn(8, 3, 32, 16))
        reprism.save(model, f"{name}.safetensors")
    data = ["--data", f"market1501:{people}", "--device", "cpu", "--precision", "fp32", "--shown", "3", "--top", "4"]
    assert main(["evaluate", "one.safetensors", *data, "--ranked-lists", "hardest"]) == 0
    assert sorted(path.name for path in Path("hardest").iterdir()) == ["0001.png", "0002.png", "0003.png", "index.html"]
    page = Path("hardest/index.html").read_text()
    assert "p1, p1s1, p1s2" in page
    assert page.count("data:image/") == 3
    capsys.readouterr()
    assert main(["compare", "one.safetensors", "two.safetensors", *data]) == 0
    assert "compare/index.html" in capsys.readouterr().out
    assert "one.safetensors: mAP" in Path("compare/index.html").read_text()
    assert main(["evaluate", "one.safetensors", *data, "--ranked-lists", "x", "--rerank"]) == 1


def test_figures_are_named_after_model_and_data_and_never_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], people: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16))
    reprism.save(model, "runs/stripes only/model.safetensors")
    reprism.save(model, "other.safetensors")
    options = ["--device", "cpu", "--workers", "0", "--data", f"market1501:{people}"]
    run = "runs/stripes only/model.safetensors"
    names = []
    for command in ([run, *options], [run, *options], ["other.safetensors", *options, f"market1501:{people}/"]):
        assert main(["evaluate", *command]) == 0
        shown = capsys.readouterr().out
        (line,) = [line for line in shown.splitlines() if line.startswith("figures in ")]
        names.append(line.removeprefix("figures in "))
    assert names == [
        "evaluation-stripes-only-market1501-market.json",
        "evaluation-stripes-only-market1501-market-2.json",
        "evaluation-other-market1501-market.json",
    ]
    assert all(json.loads(Path(name).read_text()) for name in names)
    # Two data sets of the same name are told apart as they were given, whole.
    assert f"market1501:{people}/:singlequery" in "".join(shown.split())
    Path("mine.json").write_text("precious")
    assert main(["evaluate", run, *options, "--out", "mine.json"]) == 1
    assert "mine.json exists: give --overwrite" in capsys.readouterr().err
    assert Path("mine.json").read_text() == "precious"
    assert main(["evaluate", run, *options, "--out", "mine.json", "--overwrite"]) == 0
    assert json.loads(Path("mine.json").read_text())["checkpoint"] == run
