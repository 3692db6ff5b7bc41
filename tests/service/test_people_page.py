"""The page of people in a browser, before a real service with drawn people who walk past three cameras."""

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reprism
from reprism.drawn.shots import camera, draw_person, person
from reprism.gallery.indexing import make_thumbnail
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery
from reprism.linking.answering import review_queue
from reprism.linking.gallery_people import link_gallery
from reprism.service.access import Access
from reprism.service.api import ServiceSettings, create_app

pytestmark = pytest.mark.slow  # a browser draws every page

DESK, PHONE = (1440, 900), (390, 844)
ANN, BEN, SEARCHER = "a-token-of-ann-alone", "a-token-of-ben-alone", "a-token-that-searches"
TOKENS = f"""
ann = {{token = "{ANN}", scopes = ["search", "link"]}}
ben = {{token = "{BEN}", scopes = ["search", "link"]}}
searcher = {{token = "{SEARCHER}", scopes = ["search"]}}
"""
NOW = datetime.now(UTC).replace(microsecond=0)
WAYS = {"gate": 0.0, "hall": 40.0, "yard": 90.0}  # seconds from the camera before
PEOPLE = 60


def walkers(dim: int) -> list[Entry]:
    """Tracklets of two pictures of drawn people who pass the gate, the hall, the yard; some look much like others."""
    rng = np.random.default_rng(0)
    found = []
    for pid, start in enumerate(rng.uniform(0, 20_000, PEOPLE)):
        looks, time = rng.normal(size=dim), start
        for number, (name, way) in enumerate(WAYS.items()):
            time += rng.normal(way, way / 9) if way else 0.0
            if rng.random() < 0.85:
                drawn = [draw_person(person(5, pid), camera(5, number), np.random.default_rng((pid, number, at)))
                         for at in range(2)]  # fmt: skip
                strip = tuple(make_thumbnail(torch.tensor(picture).permute(2, 0, 1)) for picture in drawn)
                row = (looks + 0.85 * rng.normal(size=dim)).astype(np.float32)
                key, at = f"{pid}-{name}", NOW - timedelta(hours=6) + timedelta(seconds=time)
                found.append(
                    Entry(
                        key,
                        row,
                        key,
                        camid=name,
                        time=at,
                        until=at + timedelta(seconds=2),
                        tracklet=key,
                        frames=5,
                        thumbnail=strip[0],
                        strip=strip,
                    )  # fmt: skip
                )
    return found


@pytest.fixture(scope="module")
def network() -> reprism.Embedder:
    torch.manual_seed(0)
    return reprism.Embedder(reprism.build_model("p1", "test_resnet", num_classes=2, part_dim=32, size=(64, 32)))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, network: reprism.Embedder) -> Gallery:
    """A gallery whose people were found, to be copied."""
    gallery = Gallery.create(tmp_path_factory.mktemp("site") / "gallery", network)
    gallery.add(walkers(gallery.descriptor_dim))
    gallery.enable_linking("find lost children", 30)
    link_gallery(gallery)
    return gallery


@pytest.fixture
def gallery(tmp_path: Path, site: Gallery) -> Gallery:
    shutil.copytree(site.uri, tmp_path / "gallery")
    return Gallery.open(tmp_path / "gallery")


@pytest.fixture
def opened(
    gallery: Gallery, network: reprism.Embedder, listening: Callable[..., str], new_page: Callable[..., Any]
) -> Callable[..., Any]:
    """Opens a view of the page with a token, as ``opened("#review", token=BEN, size=PHONE)``."""
    url = listening(create_app(gallery, network, ServiceSettings(), access=Access.from_toml(TOKENS, "tokens")))

    def open_page(view: str = "", token: str = ANN, size: tuple[int, int] = DESK, **options: Any) -> Any:
        page = new_page(*size, locale="en-GB", timezone_id="Asia/Tokyo", **options)
        page.context.add_init_script(f"sessionStorage.setItem('token', '{token}')")
        page.goto(f"{url}people.html{view}")
        return page

    return open_page


def keep_picture(page: Any, name: str) -> None:
    """Keep a screenshot where whoever runs the test wants to look at some."""
    if folder := os.environ.get("REPRISM_TEST_PICTURES"):
        page.wait_for_load_state("networkidle")
        page.screenshot(path=f"{folder}/people-{name}-{page.viewport_size['width']}.png")


def fits(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_look(size, opened):
    page = opened(size=size)
    page.wait_for_selector(".person img")
    keep_picture(page, "list")
    page.click(".person .open >> nth=0")
    page.wait_for_selector(".sight img")
    keep_picture(page, "person")
    for view in ("review", "cameras", "changes", "answers"):
        page.click(f"nav >> text={view.title()}")
        page.wait_for_selector(f"#{view}-view:not([hidden])")
        page.wait_for_timeout(500)
        keep_picture(page, view)
    assert page.complaints == []
