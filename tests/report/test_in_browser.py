"""The pages as a browser shows them: from disk, without network, on a phone, on paper, by keyboard."""

import io
import json
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from reprism.cli import main
from reprism.data.records import Sample
from reprism.demo import DemoSettings, run_demo
from reprism.linking.transit import CameraNetwork
from reprism.report.network_page import write_network_page
from reprism.report.run_report import write_report
from reprism.training.recipes import Recipe
from reprism.training.run import train

pytestmark = pytest.mark.slow

PHONE, DESKTOP, A4 = 390, 1280, 794  # CSS pixels


class Written(NamedTuple):
    """A page on disk, and what must be read on it."""

    path: Path
    says: list[str]


@pytest.fixture(scope="module")
def run(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe.model_validate({
        "name": "tiny",
        "data": {"root": str(people), "size": (64, 32), "ids_per_batch": 4, "images_per_id": 2, "workers": 0},
        "model": {"backbone": "resnet10t", "pretrained": False, "partition": "p1+p2(s2c2)+p3(s3c3)", "part_dim": 8},
        "optimizer": {"epochs": 2, "milestones": (1,)},
        "trainer": {"accelerator": "cpu", "precision": "fp32", "evaluate_every": 1, "log_every": 1},
    })  # fmt: skip
    return train(recipe, tmp_path_factory.mktemp("browser") / "run").folder


def network() -> CameraNetwork:
    """Ways between four cameras, of names that are as long as names may be."""
    names = ["gate", "hall", "stairs to the second floor", "yard"]
    starts = np.random.default_rng(0).uniform(0, 36_000, 90)
    items = [
        Sample(Path("x.jpg"), pid, name, float(start + 60 * at + pid % 7))
        for pid, start in enumerate(starts)
        for at, name in enumerate(names)
    ]
    pairs = [(4 * pid + one, 4 * pid + other) for pid in range(90) for one, other in combinations(range(4), 2)]
    return CameraNetwork.of_pairs(items, np.array(pairs))


@pytest.fixture(scope="module")
def pages(run: Path, people: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    """The pages that Reprism writes, by name."""
    folder = tmp_path_factory.mktemp("pages")
    scores = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    report = write_report(run, folder / "report.html", shown=2, workers=0, device="cpu")
    small = DemoSettings(8, 4, 2, 2, 3, (64, 32), backbone="test_resnet", part_dim=8, epochs=2, evaluate_every=1)
    demo = run_demo(folder / "demo", 0, settings=small)
    model = str(run / "model.safetensors")
    compare = ["compare", model, model, "--data", f"market1501:{people}", "--shown", "2", "--out",
               str(folder / "compare"), "--device", "cpu", "--workers", "0"]  # fmt: skip
    assert main(compare) == 0
    return {
        "report": Written(
            report,
            [f"{scores['rank1']:.1%}", f"{scores['mAP']:.1%}", f"{scores['mINP']:.1%}", '"ids_per_batch": 4', "p3c3",
             "false match rate", "published counts do not apply", "reprism train recipe.json", "torch 2."],
        ),
        "demo": Written(
            folder / "demo" / "report.html",
            [f"{100 * demo['after'][key]:.1f} %" for key in ("rank1", "mAP")] + ['"ids_per_batch"'],
        ),
        "compare": Written(folder / "compare" / "index.html", [f"mAP {scores['mAP']:.1%}", "p2s1, p2s2, p2c1"]),
        "network": Written(write_network_page(network(), folder / "network.html"), ["gate and hall", "90", "60 s"]),
    }  # fmt: skip


def faults(page: Any) -> list[str]:
    """What is wrong with an open page, as its reader sees it."""
    found = [f"asks for {url}" for url in page.requested if not url.startswith(("file:", "data:"))]
    found += [f"complains: {text}" for text in page.complaints]
    width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    if width > room:
        found.append(f"is {width} pixels wide where there are {room}")
    pictures = page.evaluate(
        "Promise.all([...document.images].map(async i => "
        "{ await i.decode().catch(() => 0); return [i.alt, i.naturalWidth] }))"
    )
    found += [f"picture {alt!r} is not shown" for alt, width in pictures if not width]
    found += ["a picture has no words in its place" for alt, _ in pictures if not alt.strip()]
    return found


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", ["report", "demo", "compare", "network"])
def test_pages_open_from_disk(name: str, width: int, pages: dict[str, Written], new_page: Callable[..., Any]) -> None:
    page = new_page(width)
    page.goto(pages[name].path.as_uri())
    assert faults(page) == []
    assert page.evaluate("document.images.length") >= 2


def test_faults_are_found(tmp_path: Path, new_page: Callable[..., Any]) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<html><body><img src="http://127.0.0.1:9/a.png" alt=""><img src="data:image/png;base64,AAAA" alt="broken">'
        '<div style="width: 900px">wide</div><script>nothing.there()</script></body></html>'
    )
    page = new_page(PHONE)
    page.goto(bad.as_uri())
    found = "\n".join(faults(page))
    for wanted in (
        "asks for http://127.0.0.1:9/a.png",
        "pixels wide",
        "'broken' is not shown",
        "no words",
        "nothing is",
    ):
        assert wanted in found


@pytest.mark.parametrize("name", ["report", "demo", "compare"])
def test_pages_print(name: str, pages: dict[str, Written], new_page: Callable[..., Any]) -> None:
    pypdf = pytest.importorskip("pypdf")
    page = new_page(A4)
    page.goto(pages[name].path.as_uri())
    paper = pypdf.PdfReader(io.BytesIO(page.pdf(format="A4")))
    printed = " ".join(" ".join(sheet.extract_text() for sheet in paper.pages).split())
    for figure in pages[name].says:
        assert figure in printed
    assert sum(len(sheet.images) for sheet in paper.pages) >= 2
    page.emulate_media(media="print")
    assert faults(page) == []
    edge = page.evaluate("Math.max(...[...document.querySelectorAll('img, table, pre')]"
                         ".map(e => e.getBoundingClientRect().right))")  # fmt: skip
    assert edge <= A4  # paper has no scroll bar


@pytest.mark.parametrize("name", ["report", "demo"])
def test_keys_reach_everything(name: str, pages: dict[str, Written], new_page: Callable[..., Any]) -> None:
    page = new_page(PHONE)
    page.goto(pages[name].path.as_uri())
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "(e => [e.tagName, e.textContent.trim(), getComputedStyle(e).outlineStyle])(document.activeElement)"
        )
        if focus[0] == "BODY":
            break
        assert focus[2] != "none", f"nothing shows that {focus[1]!r} has the focus"
        reached.add((focus[0], focus[1]))
    links = page.evaluate("[...document.querySelectorAll('a, summary')].map(e => [e.tagName, e.textContent.trim()])")
    assert links
    assert {tuple(link) for link in links} <= reached
    # What is wider than a phone is moved by the arrow keys, so it takes the focus too.
    wide = page.evaluate("[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length")
    assert sum(tag == "DIV" for tag, _ in reached) or not wide
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("details pre").is_visible()
