"""Tracklets on the page: their strips, the clips of their video, and the live view, before a real service."""

import io
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import reprism
from reprism.drawn.shots import camera, draw_person, person
from reprism.drawn.video import Noise, write_video
from reprism.gallery.indexing import make_thumbnail
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery
from reprism.service import live
from reprism.service.access import Access
from reprism.service.api import ServiceSettings, create_app

pytestmark = pytest.mark.slow  # a browser draws every page

START = datetime(2024, 5, 3, 8, 30, 12, tzinfo=UTC)  # 17:30:12 where the browser is
TOKEN = "a-token-that-searches-and-erases"
TOKENS = f'someone = {{token = "{TOKEN}", scopes = ["search", "erase"]}}'
BOX = (0.25, 0.25, 0.5, 0.75)
NASTY = '<img src="x" onerror="window.hacked = 1">'


def crop(pid: int, number: int = 0) -> np.ndarray:
    return draw_person(person(5, pid), camera(5, 1), np.random.default_rng((pid, number)))


def jpeg(picture: np.ndarray) -> bytes:
    return make_thumbnail(torch.tensor(picture).permute(2, 0, 1))


@pytest.fixture(scope="module")
def embedder() -> reprism.Embedder:
    torch.manual_seed(0)
    return reprism.Embedder(reprism.build_model("p1", "test_resnet", num_classes=2, part_dim=16, size=(64, 32)))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of a grey that grows brighter."""
    path = tmp_path_factory.mktemp("videos") / "gate.mp4"
    frames = (np.full((96, 160, 3), 20 + number, np.uint8) for number in range(120))
    quiet = Noise(0, 1, (96, 160), np.random.default_rng(0))
    write_video(path, frames, fps=10, size=(96, 160), start=START, noise=quiet)
    return path


@pytest.fixture(scope="module")
def tracklets(embedder: reprism.Embedder, video: Path) -> list[Entry]:
    """Three tracklets of four pictures, of which one has a video, and a picture alone."""
    vectors = embedder.embed([crop(pid) for pid in range(4)])
    found = [
        Entry(
            f"k{pid}", vectors[pid], f"{video}#t=5.000,8.000" if pid == 0 else f"/nowhere/{pid}.mp4#t=5.000,8.000",
            pid=None if pid == 0 else NASTY, camid=f"cam {pid}", time=START + timedelta(seconds=pid),
            until=START + timedelta(seconds=pid + 7), tracklet=str(pid), frames=4, thumbnail=jpeg(crop(pid)),
            strip=tuple(jpeg(crop(pid, number)) for number in range(4)), first_box=BOX, last_box=(0.5, 0.5, 1.0, 1.0),
        )
        for pid in range(3)
    ]  # fmt: skip
    return [*found, Entry("k3", vectors[3], "/p3.jpg", camid="cam 3", time=START, thumbnail=jpeg(crop(3)))]


@pytest.fixture
def served(
    embedder: reprism.Embedder,
    video: Path,
    tmp_path: Path,
    listening: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[str, Gallery]]:
    """Starts a service, as ``served(entries, tokens)``; gives its address, and the gallery."""
    monkeypatch.setattr(live, "POLL_SECONDS", 0.1)
    numbers = itertools.count()

    def start(entries: Sequence[Entry], tokens: str = "") -> tuple[str, Gallery]:
        gallery = Gallery.create(tmp_path / f"gallery-{next(numbers)}", embedder)
        gallery.add(entries)
        access = Access.from_toml(tokens, "tokens") if tokens else Access()
        app = create_app(gallery, embedder, ServiceSettings(videos=(video.parent,)), access=access)
        return listening(app), gallery

    return start


@pytest.fixture
def opened(new_page: Callable[..., Any]) -> Callable[..., Any]:
    """Opens the page at an address."""

    def open_page(url: str, width: int = 1280, **options: Any) -> Any:
        page = new_page(width, locale="en-GB", timezone_id="Asia/Tokyo", **options)
        with page.expect_response("**/session"):
            page.goto(url)
        return page

    return open_page


def search(page: Any, pid: int = 0) -> Any:
    buffer = io.BytesIO()
    Image.fromarray(crop(pid)).save(buffer, format="png")
    page.set_input_files("#picture", {"name": "q.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    return page.locator(".matches li.card").first


def count(page: Any, wanted: int, selector: str) -> None:
    """Wait until the page has so many of something."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_count(wanted, timeout=300_000)


def fits(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


# ---- strips ----------------------------------------------------------------------------------------------


def test_a_strip_plays_under_the_pointer_and_with_the_focus(
    served: Callable[..., Any], opened: Callable[..., Any], tracklets: list[Entry]
) -> None:
    page = opened(served(tracklets)[0])
    card = search(page)
    assert "3 May 2024, 17:30:12 to 17:30:19" in card.inner_text()
    box = card.locator(".picture")
    assert box.get_attribute("data-strip") == "▸ 4"
    assert not any("/strip/" in url for url in page.requested)  # nothing is fetched before it is wanted
    for attend, leave in (
        (card.hover, lambda: page.mouse.move(0, 0)),
        (card.locator(".open").focus, page.locator("#to-live").focus),
    ):
        attend()
        for wanted in ("1 / 4", "2 / 4", "3 / 4", "4 / 4", "1 / 4"):
            page.wait_for_function(
                "([box, wanted]) => box.dataset.strip === wanted", arg=[box.element_handle(), wanted]
            )
        assert card.locator(".strip-frame").evaluate("image => image.naturalHeight > 0")
        leave()
        page.wait_for_function("box => box.dataset.strip === '▸ 4'", arg=box.element_handle())
        assert card.locator(".strip-frame").count() == 0
    alone = page.locator(".matches li.card", has_text="cam 3")
    assert alone.locator(".picture").get_attribute("data-strip") is None
    assert page.complaints == []


def test_who_wants_no_motion_sees_none(
    served: Callable[..., Any], opened: Callable[..., Any], tracklets: list[Entry]
) -> None:
    page = opened(served(tracklets)[0], reduced_motion="reduce")
    card = search(page)
    card.hover()
    page.wait_for_timeout(600)
    assert card.locator(".picture").get_attribute("data-strip") == "▸ 4"
    assert not any("/strip/" in url for url in page.requested)
    card.click()
    count(page, 4, "#match .film img:not([hidden])")


def test_the_film_of_a_match_by_keyboard_and_on_a_phone(
    served: Callable[..., Any], opened: Callable[..., Any], tracklets: list[Entry]
) -> None:
    page = opened(served(tracklets)[0], width=390, has_touch=True)
    search(page).locator(".open").tap()
    count(page, 4, "#match .film img:not([hidden])")
    assert fits(page)
    assert page.evaluate("(d => d.scrollWidth <= d.clientWidth)(document.getElementById('match'))")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Picture 2 of 4"
    page.keyboard.press("Enter")
    page.wait_for_selector("#match-picture img[alt='Picture 2 of 4']")
    source = "document.querySelector('{} img').src"
    assert page.evaluate(source.format("#match-picture")) == page.evaluate(source.format(".film li:nth-child(2)"))
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#match-title").startswith("Match 2")
    assert page.complaints == []


# ---- clips -----------------------------------------------------------------------------------------------


def plays(page: Any) -> bool:
    return bool(page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.640028\"')"))


def test_a_clip_plays_with_the_boxes_of_both_sights(
    served: Callable[..., Any], opened: Callable[..., Any], tracklets: list[Entry]
) -> None:
    page = opened(served(tracklets)[0], reduced_motion="reduce")  # so that it does not run by itself
    search(page).locator(".open").click()
    page.click("#play-clip")
    if not plays(page):
        page.wait_for_selector("#clip-status:has-text('cannot play the clip')")
        pytest.skip("this Chromium has no H.264: it was told so")
    video = page.locator("#clip-video")
    video.wait_for()
    assert page.evaluate("document.getElementById('clip-video').duration") == pytest.approx(7.1, abs=0.11)
    assert page.evaluate("document.getElementById('clip-video').muted")
    for moment, words, (left, top, right, bottom) in (
        (0.5, "first seen here", BOX), (3.5, None, BOX), (5.5, "last seen here", (0.5, 0.5, 1.0, 1.0)),
    ):  # fmt: skip
        page.evaluate(
            "t => new Promise(done => {const v = document.getElementById('clip-video');"
            "v.addEventListener('seeked', done, {once: true}); v.currentTime = t;})",
            moment,
        )
        frame = page.locator("#clip-box")
        if words is None:
            frame.wait_for(state="hidden")
            continue
        frame.wait_for()
        assert frame.get_attribute("data-words") == words
        inner, outer = frame.bounding_box(), video.bounding_box()
        x, y = (inner["x"] - outer["x"]) / outer["width"], (inner["y"] - outer["y"]) / outer["height"]
        width, height = inner["width"] / outer["width"], inner["height"] / outer["height"]
        assert (x, y, x + width, y + height) == pytest.approx((left, top, right, bottom), abs=0.01)
        # What is seen is the video at that moment: 20 + its number is how bright a frame is.
        bright = page.evaluate(
            "(() => {const v = document.getElementById('clip-video'); const c = new OffscreenCanvas(160, 96)"
            ".getContext('2d'); c.drawImage(v, 0, 0); return c.getImageData(20, 80, 1, 1).data[0]})()"
        )
        assert bright == pytest.approx(20 + 10 * (3 + moment), abs=3)
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.getElementById('clip-video').hasAttribute('src')")
    assert page.locator("#match").evaluate("dialog => dialog.open")
    page.click("#next")
    assert not page.is_visible("#play-clip")  # of the others no video is at hand
    assert page.complaints == []


def test_a_video_that_is_gone_is_told(
    served: Callable[..., Any], opened: Callable[..., Any], tracklets: list[Entry], video: Path
) -> None:
    page = opened(served(tracklets)[0], width=390)
    search(page).locator(".open").click()
    aside = video.rename(video.with_suffix(".away"))
    try:
        page.click("#play-clip")
        page.wait_for_selector("#clip-status:has-text('The video is not at hand any more.')")
    finally:
        aside.rename(video)
    assert fits(page)


# ---- live ------------------------------------------------------------------------------------------------


def times(page: Any) -> list[str]:
    """Of every card the time, to the second."""
    texts = page.locator("#live-cards .facts").all_inner_texts()
    return [text.partition("2024, ")[2][:8] for text in texts]


def test_what_comes_in_is_shown_newest_first(
    served: Callable[..., Any], opened: Callable[..., Any], tracklets: list[Entry]
) -> None:
    url, gallery = served(tracklets[3:], TOKENS)
    page = opened(url)
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#stats:has-text('1 picture')")
    page.click("#to-live")
    page.wait_for_selector("#live-state:has-text('Listening')")
    assert re.match(r"Nothing has come in since \d\d:\d\d:\d\d\. ", page.inner_text("#live-empty"))
    assert "reprism watch SOURCE --gallery GALLERY" in page.inner_text("#live-empty")
    gallery.add(tracklets[:2])
    count(page, 2, "#live-cards > li")
    assert times(page) == ["17:30:13", "17:30:12"]
    assert not page.is_visible("#live-empty")
    count(page, 8, "#live-cards .film img:not([hidden])")
    # Paused, it holds back what comes.
    page.click("#live-pause")
    gallery.add(tracklets[2:3])
    page.wait_for_selector("#live-pause:has-text('Go on (1 new)')")
    count(page, 2, "#live-cards > li")
    page.click("#live-pause")
    count(page, 3, "#live-cards > li")
    assert times(page)[0] == "17:30:14"
    # A card opens, and what is erased goes; no picture of it may still be on its way then.
    count(page, 12, "#live-cards .film img:not([hidden])")
    page.locator("#live-cards .open").first.click()
    assert page.inner_text("#match-title") == f"Camera cam 2: {NASTY}"
    count(page, 4, "#match .film img:not([hidden])")
    assert not page.is_visible("#next")
    page.click("#erase-image")
    page.click("#confirm .danger")
    count(page, 2, "#live-cards > li")
    assert [row.camid for row in gallery.rows() if row.camid == "cam 2"] == []
    assert page.evaluate("window.hacked") is None
    assert page.complaints == []


def test_the_view_goes_on_where_it_was_left(
    served: Callable[..., Any], opened: Callable[..., Any], tracklets: list[Entry]
) -> None:
    url, gallery = served([])
    page = opened(url, width=390)
    page.click("#to-live")
    page.wait_for_selector("#live-state:has-text('Listening')")
    gallery.add(tracklets[:1])
    count(page, 1, "#live-cards > li")
    page.click("#to-search")
    gallery.add(tracklets[1:2])
    page.click("#to-live")
    count(page, 2, "#live-cards > li")
    # Only one camera; the choice has grown with what came.
    page.select_option("#live-camera", "cam 1")
    count(page, 1, "#live-cards > li")
    page.wait_for_selector("#live-state:has-text('Listening')")
    gallery.add([tracklets[2], replace(tracklets[2], key="again", camid="cam 1")])
    count(page, 2, "#live-cards > li")
    assert {text.split("\n")[0] for text in page.locator("#live-cards h3").all_inner_texts()} == {NASTY}
    assert fits(page)
    # A connection that breaks is made anew, and nothing is missed.
    page.context.set_offline(True)
    page.route("**/events*", lambda route: route.abort())
    page.click("#to-search")
    page.click("#to-live")
    page.wait_for_selector("#live-state:has-text('The connection was lost. Trying again in')")
    gallery.add([replace(tracklets[2], key="later", camid="cam 1")])
    page.context.set_offline(False)
    page.unroute("**/events*")
    count(page, 3, "#live-cards > li")


def test_the_view_keeps_two_hundred_cards(
    served: Callable[..., Any], opened: Callable[..., Any], tracklets: list[Entry]
) -> None:
    url, gallery = served([])
    page = opened(url)
    page.click("#to-live")
    page.wait_for_selector("#live-state:has-text('Listening')")
    many = [replace(tracklets[0], key=f"many {n}", time=START + timedelta(seconds=n)) for n in range(230)]
    gallery.add(many[:150])
    count(page, 150, "#live-cards > li")
    gallery.add(many[150:])
    page.wait_for_selector("#live-count:has-text('230 tracks')")
    count(page, 200, "#live-cards > li")
    assert times(page)[0] == f"{START + timedelta(hours=9, seconds=229):%H:%M:%S}"
    # Pictures that nobody looks at are not fetched.
    assert sum("/strip/" in url for url in page.requested) < 400


def test_who_may_not_search_may_not_listen(
    served: Callable[..., Any], opened: Callable[..., Any], tracklets: list[Entry]
) -> None:
    page = opened(served(tracklets, TOKENS)[0])
    page.click("#to-live")
    page.wait_for_selector("#live-state:has-text('The service wants an access token')")
