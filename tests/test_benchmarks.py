"""The benchmarks' libraries: an extra installs them all, and a missing one is named in one line; what reviews do."""

import ast
import functools
import importlib
import itertools
import re
import runpy
import sys
import tomllib
from datetime import UTC, datetime
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest

from reprism.evaluation.clusters import score_clusters
from reprism.gallery.rows import Entry
from reprism.linking.people import people_of

ROOT = Path(__file__).parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


def test_the_extra_installs_what_the_benchmarks_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["bench"]]
    for extra in re.findall(r"reprism\[(\w+)\]", " ".join(wanted)):
        wanted += project["optional-dependencies"][extra]
    installed = {re.match(r"[\w-]+", each)[0].lower() for each in wanted}  # type: ignore[index]
    ours = {path.stem for path in BENCHMARKS} | {"reprism"} | sys.stdlib_module_names
    distributions = packages_distributions()
    for path in BENCHMARKS:
        for name in imported(path) - ours:
            # faiss is faiss-cpu, which need not be installed here.
            known = {each.lower() for each in distributions.get(name, [name, f"{name}-cpu"])}
            assert known & installed, f"{path.name} imports {name}"


@pytest.mark.parametrize(("script", "library"), [("search", "faiss"), ("serve", "httpx2"), ("serve", "psutil")])
def test_a_missing_library_is_named_with_its_extra(script: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(ROOT / "benchmarks" / f"{script}.py")
    monkeypatch.setattr(sys, "argv", [path])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(path, run_name="__main__")
    assert ended.value.code == f"{script}.py: {library} is missing: pip install '.[bench]'"
    assert "pip install '.[bench]'" in (ROOT / "docs" / "explanation" / "benchmarks.md").read_text("utf-8")


@pytest.mark.slow
def test_the_measurement_of_a_gpu_runs_on_a_processor_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(ROOT / "benchmarks" / "gpu.py")
    tiny = "--device cpu --backbone test_resnet --size 64 32 --batch 4 --steps 1 --product 64 --identities 2"
    monkeypatch.setattr(sys, "argv", [path, *tiny.split()])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    runpy.run_path(path, run_name="__main__")
    shown = capsys.readouterr().out
    for measured in ("product in fp32", "training in fp32", "describing in fp32"):
        assert re.search(rf"{measured}: [\d.]+", shown), shown
    assert re.search(r"indexing: \d+ crops in [\d.]+ s, [\d.]+ crops/s", shown), shown


def test_right_answers_bring_people_nearer_to_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    review = importlib.import_module("review")
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(30), 4)
    entries = [
        Entry(f"{n}", np.zeros(1), "", f"{who}", "a", datetime(2026, 5, 1, tzinfo=UTC)) for n, who in enumerate(truth)
    ]
    pairs = np.array([*itertools.combinations(range(len(truth)), 2)])
    same = truth[pairs[:, 0]] == truth[pairs[:, 1]]
    probabilities = np.clip(np.where(same, rng.normal(0.25, 0.2, len(pairs)), 0.02), 0.01, 0.99)
    rows = [review.row_of(entry) for entry in entries]
    people = people_of(len(rows), [(pairs, probabilities)], None, least=0.2)
    scores = {}
    for wrong in (0.0, 1.0):
        asking = functools.partial(review.ask_by_doubt, least=0.2)
        reviews = review.review(people, rows, asking, 5, wrong, 0.2, np.random.default_rng(1), whole=True)
        scores[wrong] = list(itertools.islice(reviews, 16))
    before = score_clusters(people.labels, truth.tolist()).f1
    assert scores[0.0][0] == scores[1.0][0] == pytest.approx(before)
    assert scores[0.0][-1] > 0.95 > before + 0.1
    assert scores[1.0][-1] < before


@pytest.mark.parametrize(
    ("one", "other", "by_two", "by_all"),
    [
        ("aa", "aa", "same", "same"),
        ("ab", "a", "same", "unsure"),
        ("ab", "c", "different", "different"),
        ("ab", "cb", "different", "unsure"),
    ],
)
def test_an_answer_that_is_right_of_some_only_is_none(
    one: str, other: str, by_two: str, by_all: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    review = importlib.import_module("review")
    assert review.right_answer([*one], [*other], whole=False) == by_two
    assert review.right_answer([*one], [*other], whole=True) == by_all
