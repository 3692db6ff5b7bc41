"""The benchmarks' libraries: an extra installs them all, and a missing one is named in one line."""

import ast
import re
import runpy
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

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
