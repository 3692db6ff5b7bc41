"""``reprism data clean``: a page that takes answers by keyboard, and the list that follows from what it exports."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from reprism.cleaning.duplicates import find_copies
from reprism.cli import main
from reprism.data import open_dataset


@pytest.fixture(scope="module")
def copied(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn people with two copies: one of the same bytes, one in test, saved again."""
    root = tmp_path_factory.mktemp("copied") / "market"
    shutil.copytree(people, root)
    training = sorted((root / "bounding_box_train").glob("*.jpg"))
    first = training[0]
    shutil.copy(first, first.with_name(re.sub(r"_(\d\d)\.jpg$", "_77.jpg", first.name)))
    with Image.open(training[10]) as picture:
        test = sorted((root / "bounding_box_test").glob("[1-9]*.jpg") or [])
        name = (test or sorted((root / "bounding_box_test").glob("*.jpg")))[-1].name
        picture.save(root / "bounding_box_test" / re.sub(r"_(\d\d)\.jpg$", "_78.jpg", name), quality=85)
    return root


@pytest.fixture(scope="module")
def cleaned(copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from reprism import build_model, save

    folder = tmp_path_factory.mktemp("cleaned")
    save(build_model("p1", "test_resnet", num_classes=2, part_dim=8), folder / "model.safetensors")
    command = ["data", "clean", "market1501", str(copied), "--model", str(folder / "model.safetensors")]
    command += ["--out", str(folder / "clean"), "--device", "cpu", "--precision", "fp32", "--workers", "0"]
    assert main(command) == 0
    return folder / "clean"


def test_copies_are_found(copied):
    paths = sorted(copied.glob("bounding_box_*/*.jpg"))
    found = {tuple(paths[row].name[-6:-4] for row in copies.rows): copies for copies in find_copies(paths)}
    same = [copies for names, copies in found.items() if "77" in names]
    saved = [copies for names, copies in found.items() if "78" in names]
    assert [copies.exact for copies in same] == [True]
    assert [copies.agreement for copies in same] == [1.0]
    assert [copies.exact for copies in saved] == [False]
    assert 0.9 <= saved[0].agreement < 1
    bytes_alone = find_copies(paths, near=False)
    assert [copies.rows for copies in bytes_alone] == [same[0].rows]


def test_the_tables_list_the_copies(cleaned):
    findings = json.loads((cleaned / "findings.json").read_text(encoding="utf-8"))["findings"]
    removed = {
        finding["kind"]: [each["path"] for each in finding["pictures"] if each["change"] == "remove"]
        for finding in findings
        if any(re.search(r"_7[78]\.jpg", each["path"]) for each in finding["pictures"])
    }
    assert set(removed) >= {"duplicate", "leak"}
    assert all("bounding_box_train" in path for path in removed["leak"])
    rows = list(csv.DictReader(io.StringIO((cleaned / "findings.csv").read_text(encoding="utf-8"))))
    assert {row["finding"] for row in rows} == {str(finding["finding"]) for finding in findings}
    assert len(list(cleaned.glob("descriptors-*.npy"))) == 1


def test_the_page_loads_nothing_and_says_that_it_shows_people(cleaned):
    page = (cleaned / "index.html").read_text(encoding="utf-8")
    assert "This page shows people" in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "default-src 'none'" in page


@pytest.mark.slow
def test_answers_by_keyboard_become_a_list(cleaned, copied, new_page, tmp_path):
    for width in (390, 1440):
        page = new_page(width=width)
        page.goto((cleaned / "index.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    findings = json.loads((cleaned / "findings.json").read_text(encoding="utf-8"))["findings"]
    for finding in findings:
        page.keyboard.press("j")
        page.keyboard.press("w" if finding["kind"] in ("duplicate", "leak") else "c")
        if finding is not findings[-1]:
            page.keyboard.press("k")  # an answer goes on by itself
    page.reload()  # and the browser keeps them
    assert f"{len(findings)} of {len(findings)} answered" in page.inner_text("#count")
    with page.expect_download() as download:
        page.keyboard.press("e")
    answers = tmp_path / "answers.csv"
    download.value.save_as(answers)
    assert not page.complaints
    out = tmp_path / "corrected.csv"
    command = ["data", "clean", "market1501", str(copied), "--answers", str(answers), "--out", str(out)]
    assert main(command) == 0
    before, after = open_dataset("market1501", copied), open_dataset("csv", out)
    gone = {item.path for item in before.train} - {item.path for item in after.train}
    removed = {each["path"] for finding in findings for each in finding["pictures"]
               if finding["kind"] in ("duplicate", "leak") and each["change"] == "remove"}  # fmt: skip
    assert {path.relative_to(copied).as_posix() for path in gone} == {p for p in removed if "train" in p}
    assert main(command) == 1  # it exists


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "expected --model MODEL"),
        (["--model", "m.onnx", "--out", "x.csv"], "expected --out as a folder"),
        (["--answers", "a.csv"], "expected --out FILE.csv"),
        (["--answers", "absent.csv", "--out", "c.csv"], "absent.csv"),
    ],
)
def test_wrong_use_is_explained(people, options, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "clean", "market1501", str(people), *options]) == 1
    assert words in capsys.readouterr().err
