"""The search page in a browser, before a real service with drawn people in its gallery."""

import base64
import io
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

import reprism
from reprism.drawn.shots import camera, draw_person, person
from reprism.evaluation.calibration import Calibration
from reprism.evaluation.fitted_on import FittedOn
from reprism.gallery.indexing import make_thumbnail
from reprism.gallery.permission import keep_learned, require_linking
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery
from reprism.linking.network_search import Seen
from reprism.linking.transit import CameraNetwork
from reprism.service.access import Access
from reprism.service.api import ServiceSettings, create_app

pytestmark = pytest.mark.slow  # a browser draws every page

PHONE = 390  # CSS pixels
SEED, PEOPLE, CAMERAS = 5, 4, ("gate", "hall", "yard")
START = datetime(2024, 5, 3, 8, tzinfo=UTC)
SEARCHER, ERASER = "a-token-that-searches", "a-token-that-erases"
TOKENS = f"""
[searcher]
token = "{SEARCHER}"
scopes = ["search"]
[eraser]
token = "{ERASER}"
scopes = ["search", "erase"]
"""
SEARCH = re.compile("/search")
NASTY = '<img src="x" onerror="window.hacked = 1"><script>window.hacked = 1</script>'


def crop(pid: int, camid: int, number: int = 0) -> np.ndarray:
    return draw_person(person(SEED, pid), camera(SEED, camid), np.random.default_rng((pid, camid, number)))


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return buffer.getvalue()


QUERY = crop(1, 1, 7)
UPLOAD = {"name": "query.png", "mimeType": "image/png", "buffer": png(QUERY)}


@pytest.fixture(scope="module")
def embedder() -> reprism.Embedder:
    torch.manual_seed(0)
    model = reprism.build_model("p1+p2(s2c2)", "test_resnet", num_classes=2, part_dim=16, size=(64, 32))
    return reprism.Embedder(model, precision="fp32")


@pytest.fixture(scope="module")
def entries(embedder: reprism.Embedder) -> list[Entry]:
    """Four people, each seen by three cameras, an hour from one to the next; and a stranger of unknown time."""
    seen = [(pid, camid) for pid in range(PEOPLE) for camid in range(len(CAMERAS))] + [(PEOPLE, 0)]
    crops = [crop(pid, camid) for pid, camid in seen]
    found = [
        Entry(
            f"/crops/{pid}-{camid}.jpg",
            descriptor,
            f"/crops/{pid}-{camid}.jpg",
            pid=f"person {pid}",
            camid=CAMERAS[camid],
            time=START + timedelta(hours=3 * pid + camid),
            thumbnail=make_thumbnail(torch.tensor(picture).permute(2, 0, 1)),
        )
        for (pid, camid), descriptor, picture in zip(seen, embedder.embed(crops), crops, strict=True)
    ]
    return [*found[:-1], replace(found[-1], pid=None, time=None, thumbnail=None)]


def half_sure(embedder: reprism.Embedder) -> Calibration:
    """A calibration that gives each match a probability, the lower the farther it is."""
    fitted_on = FittedOn(embedder.kind.fingerprint, embedder.flip)
    return Calibration((), (), -3.0, 3.0, 0.0, (), {}, {}, {}, fitted_on=fitted_on)


@pytest.fixture
def serve(
    embedder: reprism.Embedder,
    entries: list[Entry],
    tmp_path: Path,
    listening: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., str]:
    """Starts a service, as ``serve(entries, tokens=…, **settings)``; gives its address."""
    monkeypatch.setattr("reprism.evaluation.part_scale.FEWEST_STRANGERS", 20)
    numbers = count()

    def start(chosen: Sequence[Entry] = entries, tokens: str = "", **settings: Any) -> str:
        gallery = Gallery.create(tmp_path / f"gallery-{next(numbers)}", embedder)
        gallery.add(chosen)
        access = Access.from_toml(tokens, "tokens") if tokens else Access()
        return listening(create_app(gallery, embedder, ServiceSettings(**settings), half_sure(embedder), access=access))

    return start


@pytest.fixture
def opened(serve: Callable[..., str], new_page: Callable[..., Any]) -> Callable[..., Any]:
    """Opens the page of a service with all the drawn people, or of the one at ``url``."""

    def open_page(url: str = "", width: int = 1280, **options: Any) -> Any:
        page = new_page(width, locale="en-GB", timezone_id="Asia/Tokyo", **options)
        with page.expect_response("**/session"):
            page.goto(url or serve())
        page.evaluate("document.fonts.ready")
        return page

    return open_page


def settled(page: Any) -> None:
    """Wait until an answer is shown."""
    page.wait_for_selector("#results:not([aria-busy])")


def wait_for(page: Any, count: int, selector: str) -> None:
    """Wait until the page has so many of something."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_count(count, timeout=300_000)


def upload(page: Any, file: dict[str, Any] = UPLOAD) -> None:
    with page.expect_event("requestfinished", lambda request: SEARCH.search(request.url)):
        page.set_input_files("#picture", file)
    settled(page)


def search(page: Any) -> None:
    with page.expect_response(SEARCH):
        page.click("#search-form button[type=submit]")
    settled(page)


def shown(page: Any) -> list[list[str]]:
    """Of every match on the page: identity, camera, distance."""
    return page.evaluate(
        "[...document.querySelectorAll('.matches li.card')].map(card => [card.querySelector('.open').lastChild.data,"
        "...['Camera', 'Distance'].map(name => [...card.querySelectorAll('dt')].find(t => t.textContent === name)"
        ".nextSibling.textContent)])"
    )


def ranked(embedder: reprism.Embedder, entries: Sequence[Entry]) -> list[list[str]]:
    """The same by the definition."""
    (query,) = embedder.embed([QUERY])
    distances = [float(np.linalg.norm(entry.descriptor - query)) for entry in entries]
    return [
        [entries[at].pid or "unknown", entries[at].camid or "unknown", f"{distances[at]:.3f}"]
        for at in np.argsort(distances)
    ]


def hosts(page: Any) -> set[str]:
    return {urlsplit(url).netloc for url in page.requested if not url.startswith(("blob:", "data:"))}


# ---- searching -------------------------------------------------------------------------------------------


def test_a_picture_finds_its_matches(
    opened: Callable[..., Any], embedder: reprism.Embedder, entries: list[Entry]
) -> None:
    page = opened()
    assert "Nothing has been searched for" in page.inner_text("#status")
    page.locator("#stats", has_text="13 pictures").wait_for()
    upload(page)
    assert shown(page) == ranked(embedder, entries)
    assert page.inner_text("#status").startswith("13 matches from 3 cameras")
    # Everything has a thumbnail but the stranger.
    wait_for(page, 12, ".matches img")
    pictures = page.evaluate("[...document.querySelectorAll('.matches img')].map(i => [i.naturalHeight > 0, i.alt])")
    assert all(there and words.startswith("Match ") for there, words in pictures)
    assert page.locator(".matches .picture svg").count() == 1
    first = page.locator(".matches li.card").first
    assert first.locator(".part-name").all_inner_texts() == ["p1", "p2", "p2s1", "p2s2", "p2c1", "p2c2"]
    distance = float(shown(page)[0][2])
    assert f"{100 / (1 + math.exp(3 * distance - 3)):.0f} %" in first.inner_text()
    assert page.complaints == []
    assert hosts(page) == {urlsplit(page.url).netloc}


def parts_shown(card: Any) -> list[tuple[str, str, float]]:
    """Of every part in a list: its verdict, its words, and how much of its bar is filled."""
    return [
        tuple(part)
        for part in card.locator(".parts li").evaluate_all(
            "items => items.map(item => [item.className, item.querySelector('.words').textContent,"
            "parseFloat(item.querySelector('.bar > span').style.width)])"
        )
    ]


def test_the_parts_of_a_match_are_told_beside_strangers(
    opened: Callable[..., Any], embedder: reprism.Embedder, entries: list[Entry]
) -> None:
    page = opened()
    upload(page, {**UPLOAD, "buffer": png(crop(0, 0))})  # a picture that is in the gallery
    cards = page.locator(".matches li.card")
    assert parts_shown(cards.first) == [("agrees", "agrees, nearer than 100 of 100 strangers", 0)] * 6
    assert "Parts: 6 of 6 agree, 0 differ" in cards.first.inner_text()
    farthest = parts_shown(cards.last)
    assert sum(verdict == "agrees" for verdict, *_ in farthest) < 3
    for verdict, words, filled in [part for card in cards.all() for part in parts_shown(card)]:
        assert words == f"{verdict}, nearer than {int(100 - filled)} of 100 strangers"
        assert (verdict == "agrees") == (filled <= 5)
        assert (verdict == "differs") == (filled >= 50)
    # The verdict has a sign of its own beside the colour.
    signs = cards.last.locator(".sign").all_inner_texts()
    assert signs == [{"agrees": "✓", "differs": "✗", "unclear": "?"}[verdict] for verdict, *_ in farthest]
    assert page.is_visible("#parts-caption")
    assert not page.is_visible("#parts-missing")
    # In the dialog the words are to be read beside the bars.
    cards.last.click()
    assert parts_shown(page.locator("#match")) == farthest
    box = page.locator("#match .words").first.bounding_box()
    assert box["width"] > 100


def test_a_gallery_that_is_too_small_says_so(opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened()
    monkeypatch.setattr("reprism.evaluation.part_scale.FEWEST_STRANGERS", 200)
    upload(page)
    assert page.is_visible("#parts-missing")
    assert not page.is_visible("#parts-caption")
    assert page.locator(".parts").count() == 0
    page.locator(".matches li.card").first.click()
    assert not page.is_visible("#match-parts")


@pytest.mark.parametrize(
    ("fill", "keep"),
    [
        (lambda page: page.check("#only-cameras >> text=hall"), lambda entry: entry.camid == "hall"),
        (lambda page: page.check("#not-cameras >> text=hall"), lambda entry: entry.camid != "hall"),
        # In Tokyo, where this browser is, 08:00 UTC is 17:00. The first moment counts, the last does not.
        (
            lambda page: (
                page.fill("[name=after]", "2024-05-03T19:00"),
                page.fill("[name=before]", "2024-05-03T22:00"),
            ),
            lambda entry: entry.time and 2 <= (entry.time - START) / timedelta(hours=1) < 5,
        ),
    ],
    ids=["only", "not", "time"],
)
def test_filters(
    fill: Callable[..., Any],
    keep: Callable[..., Any],
    opened: Callable[..., Any],
    embedder: reprism.Embedder,
    entries: list[Entry],
) -> None:
    page = opened()
    upload(page)
    fill(page)
    search(page)
    kept = [entry for entry in entries if keep(entry)]
    assert 3 <= len(kept) < len(entries)
    assert shown(page) == ranked(embedder, kept)
    page.click("text=Clear filters")
    search(page)
    assert len(shown(page)) == len(entries)
    assert page.complaints == []


def test_fewer_nearer_or_grouped(opened: Callable[..., Any], embedder: reprism.Embedder, entries: list[Entry]) -> None:
    page = opened()
    upload(page)
    everyone = ranked(embedder, entries)
    page.fill("[name=top]", "3")
    search(page)
    assert shown(page) == everyone[:3]
    assert page.inner_text("#filters-set") == "(1 set)"
    page.fill("[name=top]", "20")
    page.select_option("[name=group_by]", "pid")
    search(page)
    of_each = {row[0]: row for row in reversed(everyone)}
    assert shown(page) == sorted(of_each.values(), key=lambda row: row[2])
    page.select_option("[name=group_by]", "none")
    page.fill("[name=threshold]", "0.00001")
    search(page)
    assert shown(page) == []
    assert page.inner_text("#status").startswith("No match.")
    assert not page.is_visible("#timeline")
    page.fill("[name=threshold]", "3")  # no distance is: the browser says so, and asks nothing
    asked = len(page.requested)
    page.click("#search-form button[type=submit]")
    assert len(page.requested) == asked


def test_dropped_pasted_and_searched_again(opened: Callable[..., Any], entries: list[Entry]) -> None:
    page = opened()
    for event in ("drop", "paste"):
        with page.expect_response(SEARCH):
            page.evaluate(
                """([event, content]) => {
                    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                    const data = new DataTransfer();
                    data.items.add(new File([bytes], `${event}.png`, { type: "image/png" }));
                    const made = event === "drop" ? new DragEvent(event, { dataTransfer: data, cancelable: true })
                        : new ClipboardEvent(event, { clipboardData: data });
                    document.dispatchEvent(made);
                }""",
                [event, base64.b64encode(UPLOAD["buffer"]).decode()],
            )
        settled(page)
        assert page.inner_text("#picture-name") == f"{event}.png"
        assert len(shown(page)) == len(entries)
    page.locator(".open").nth(4).click()
    wanted = shown(page)[4]
    with page.expect_response(SEARCH):
        page.click("#search-again")
    settled(page)
    assert shown(page)[0][:2] == wanted[:2]  # a picture's own thumbnail is nearest to it
    assert page.complaints == []


# ---- a match, opened -------------------------------------------------------------------------------------


def test_a_match_opens(opened: Callable[..., Any], entries: list[Entry]) -> None:
    page = opened()
    upload(page)
    page.locator(".matches .picture").nth(1).click()
    pid, camid, _ = shown(page)[1]
    said = page.inner_text("#match")
    (entry,) = [entry for entry in entries if (entry.pid, entry.camid) == (pid, camid)]
    assert entry.time is not None
    local = entry.time + timedelta(hours=9)
    for words in (f"Match 2: {pid}", camid, entry.path, f"{local:%H:%M:%S}", "p2c2"):
        assert words in said
    page.click("text=Next")
    assert page.inner_text("#match-title").startswith("Match 3")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#match-title").startswith("Match 1")
    assert page.is_disabled("#previous")
    page.keyboard.press("Escape")
    assert not page.is_visible("#match")


def test_erasing_an_image_and_an_identity(opened: Callable[..., Any], entries: list[Entry]) -> None:
    page = opened()
    upload(page)
    page.locator(".open").first.click()
    path = page.locator("#match-facts dd").nth(-2).inner_text()
    page.click("#erase-image")
    assert path in page.inner_text("#confirm")
    page.keyboard.press("Escape")
    assert page.is_visible("#match")
    assert len(shown(page)) == len(entries)
    page.click("#erase-image")
    page.click("#confirm >> text=Keep")
    assert len(shown(page)) == len(entries)
    page.click("#erase-image")
    with page.expect_response(re.compile("/images/")):
        page.click("#confirm button[value=erase]")
    page.wait_for_selector("#status:has-text('Erased: 1 row')")
    assert len(shown(page)) == len(entries) - 1
    search(page)
    assert len(shown(page)) == len(entries) - 1
    pid = next(name for name, *_ in shown(page) if name != "unknown")
    page.locator(f".open:has-text('{pid}')").first.click()
    page.click("#erase-identity")
    assert f"“{pid}”" in page.inner_text("#confirm")
    page.click("#confirm button[value=erase]")
    page.wait_for_selector("#status:has-text('Erased')")
    search(page)
    assert shown(page)
    assert pid not in {name for name, *_ in shown(page)}
    page.locator(".open:has-text('unknown')").click()
    assert not page.is_visible("#erase-identity")  # nobody known
    assert page.complaints == []


def test_timeline(opened: Callable[..., Any], entries: list[Entry]) -> None:
    page = opened()
    upload(page)
    timed = [entry for entry in entries if entry.time]
    assert page.locator(".lane-name").evaluate_all("names => names.map(name => name.textContent)") == [
        f"camera {name}" for name in CAMERAS
    ]
    assert page.locator(".lane").count() == len(CAMERAS)
    assert page.locator(".mark").count() == len(timed)
    assert page.inner_text("#timeless") == "1 match of unknown time not shown here."
    page.click("#timeline summary")
    rows = [row.split("\t") for row in page.locator("#sightings tr").all_inner_texts()]
    assert [[row[1], row[2]] for row in rows] == [[entry.camid, entry.pid] for entry in timed]  # in order of time
    # Marks stand in the lanes of their cameras, the later the farther right.
    places = page.evaluate(
        "[...document.querySelectorAll('.mark')].map(m => [m.getAttribute('aria-label'),"
        "+m.firstChild.getAttribute('cx'), +m.firstChild.getAttribute('cy')])"
    )
    lanes = page.evaluate("[...document.querySelectorAll('.lane')].map(r => [+r.getAttribute('y'),"
                          "+r.getAttribute('y') + +r.getAttribute('height')])")  # fmt: skip
    assert [x for _, x, _ in places] == sorted(x for _, x, _ in places)
    for (label, _, y), entry in zip(places, timed, strict=True):
        assert f"{entry.pid}, camera {entry.camid}" in label
        top, bottom = lanes[CAMERAS.index(entry.camid or "")]
        assert top < y < bottom
    page.locator(".mark").nth(2).hover()
    assert timed[2].pid in page.inner_text(".preview")
    page.locator(".mark").nth(3).click()
    assert timed[3].pid in page.inner_text("#match-title")


# ---- what goes wrong -------------------------------------------------------------------------------------


def test_files_that_are_refused(serve: Callable[..., str], opened: Callable[..., Any]) -> None:
    page = opened(serve(max_bytes=200_000))
    upload(page)
    for content, words in (
        (b"just words", "not a picture"),
        (UPLOAD["buffer"][:200], "cannot be decoded"),
        (bytes(300_000), "too large"),
    ):
        upload(page, {"name": "bad.txt", "mimeType": "text/plain", "buffer": content})
        assert words in page.inner_text("[role=alert]")
        assert page.is_visible("[role=alert]")
        assert shown(page) == []
        assert not page.is_visible("#retry")
    upload(page)
    assert shown(page)
    assert not page.is_visible("[role=alert]")


def test_without_a_picture(opened: Callable[..., Any]) -> None:
    page = opened()
    page.click("#search-form button[type=submit]")
    assert "no picture yet" in page.inner_text("[role=alert]")


def test_a_busy_service_and_none(opened: Callable[..., Any], entries: list[Entry]) -> None:
    page = opened()
    page.route(SEARCH, lambda route: route.fulfill(status=503, headers={"Retry-After": "7"}, json={"detail": "full"}))
    upload(page)
    assert "cannot answer now" in page.inner_text("[role=alert]")
    assert "in 7 s" in page.inner_text("[role=alert]")
    page.unroute(SEARCH)
    with page.expect_response(SEARCH):
        page.click("#retry")
    settled(page)
    assert len(shown(page)) == len(entries)
    page.route(SEARCH, lambda route: route.abort())
    page.click("#search-form button[type=submit]")
    page.wait_for_selector("[role=alert]:has-text('cannot be reached')")
    assert page.is_visible("#retry")


def test_tokens(serve: Callable[..., str], opened: Callable[..., Any], entries: list[Entry]) -> None:
    page = opened(serve(tokens=TOKENS))
    page.wait_for_selector("#token:focus")
    upload(page)
    assert "access token" in page.inner_text("[role=alert]")

    def give(token: str) -> None:
        page.fill("#token", token)
        with page.expect_response("**/session"):
            page.keyboard.press("Enter")
        settled(page)

    give("a-token-that-is-wrong")
    assert "access token" in page.inner_text("[role=alert]")
    give(SEARCHER)
    assert not page.is_visible("[role=alert]")
    assert page.input_value("#token") == ""
    search(page)
    assert len(shown(page)) == len(entries)
    wait_for(page, 12, ".matches img")  # which need the token too
    page.locator(".open").first.click()
    assert not page.is_visible("#erase-image")
    assert not page.is_visible("#erase-identity")
    page.keyboard.press("Escape")
    give(ERASER)
    search(page)
    page.locator(".open").first.click()
    assert page.is_visible("#erase-image")
    page.keyboard.press("Escape")
    assert all(token not in url for url in page.requested for token in (SEARCHER, ERASER))
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 1, ""]
    page.click("#forget-token")
    page.wait_for_selector("#token:focus")
    assert page.evaluate("sessionStorage.length") == 0
    assert shown(page) == []


def test_names_are_text(serve: Callable[..., str], opened: Callable[..., Any], entries: list[Entry]) -> None:
    entry = replace(entries[0], key=NASTY, path=NASTY, pid=NASTY, camid=NASTY, source=NASTY, tracklet=NASTY)
    page = opened(serve([entry]))
    upload(page, UPLOAD | {"name": f"{NASTY.replace('/', '')}.png"})
    assert shown(page)[0][:2] == [NASTY, NASTY]
    assert page.locator("#only-cameras label").inner_text() == NASTY
    page.locator(".mark").hover()
    assert NASTY in page.inner_text(".preview")
    page.locator(".open").click()
    assert page.inner_text("#match").count(NASTY) == 6  # title, identity, camera, track, source, file
    page.click("#erase-identity")
    assert NASTY in page.inner_text("#confirm")
    page.click("#confirm button[value=erase]")
    page.wait_for_selector("#status:has-text('Erased: 1 row')")
    assert page.evaluate("window.hacked") is None
    assert page.complaints == []
    assert hosts(page) == {urlsplit(page.url).netloc}


@pytest.mark.parametrize("pid", ["ada\nlovelace", "ada\n", "\u2028", "../images/ada", "a?b#c", "%0A"], ids=ascii)
def test_any_name_can_be_erased(
    serve: Callable[..., str], opened: Callable[..., Any], entries: list[Entry], pid: str
) -> None:
    page = opened(serve([replace(entries[0], pid=pid), replace(entries[1], pid="ada")]))
    upload(page)
    wait_for(page, 2, ".matches li.card")
    names = page.evaluate("[...document.querySelectorAll('.open')].map(e => e.lastChild.data)")
    page.locator(".open").nth(names.index(pid)).click()
    page.click("#erase-identity")
    page.click("#confirm button[value=erase]")
    page.wait_for_selector("#status:has-text('Erased: 1 row')")
    assert [name for name, *_ in shown(page)] == ["ada"]


# ---- the API's documentation -----------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1440, PHONE])
@pytest.mark.parametrize("tokens", ["", TOKENS], ids=["open", "tokens"])
def test_the_documentation_loads_nothing_from_elsewhere(
    serve: Callable[..., str], new_page: Callable[..., Any], width: int, tokens: str
) -> None:
    url, page = serve(tokens=tokens), new_page(width)
    page.goto(f"{url}docs")
    # Every endpoint is there, and one can be tried out.
    page.wait_for_selector(".opblock")
    described = page.evaluate("fetch('openapi.json').then(answer => answer.json())")
    assert page.locator(".opblock").count() == sum(map(len, described["paths"].values()))
    page.click(".opblock-summary-path[data-path='/session'] >> xpath=ancestor::button")
    page.click(".try-out__btn")
    page.click(".execute")
    page.wait_for_selector(".live-responses-table .response-col_status:has-text('200')")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.complaints == []
    assert hosts(page) == {urlsplit(url).netloc}


# ---- for everyone ----------------------------------------------------------------------------------------

FOCUS = """(() => {
    const e = document.activeElement;
    const ringed = e.matches('#picture') ? e.parentElement : e.matches('.open') ? e.closest('.card') : e;
    const style = getComputedStyle(ringed);
    const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
        || e.matches('.mark') && parseFloat(getComputedStyle(e.firstChild).strokeWidth) >= 3;
    return [e.tagName, e.id || e.name || e.className.baseVal || e.className, ring];
})()"""


def test_by_keyboard_alone(opened: Callable[..., Any], entries: list[Entry]) -> None:
    page = opened()

    def tab_to(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                assert page.evaluate(FOCUS)[2], f"nothing shows that {selector} has the focus"
                return
        pytest.fail(f"no Tab leads to {selector}")

    # Asked for before the first key: the browser takes a moment until it hands choosers over.
    with page.expect_file_chooser() as chooser:
        tab_to("#picture")
        page.keyboard.press("Enter")
    with page.expect_response(SEARCH):
        chooser.value.set_files(UPLOAD)
    settled(page)
    tab_to("[name=not_camera]")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    wait_for(page, 8, ".matches li.card")
    tab_to(".mark")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert page.is_visible(".preview")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    assert page.inner_text("#match-title") == label.partition(",")[0]
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == label
    tab_to(".open")
    page.keyboard.press("Enter")
    tab_to("#erase-image")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.value") == "keep"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#status:has-text('Erased: 1 row')")
    assert len(shown(page)) == 7
    assert page.complaints == []


def test_tab_order_and_names(opened: Callable[..., Any], names_of_controls: Callable[[Any], list[Any]]) -> None:
    page = opened()
    upload(page)
    order = []
    while True:
        page.keyboard.press("Tab")
        tag, name, ring = page.evaluate(FOCUS)
        if tag == "BODY":
            break
        assert ring, f"nothing shows that {name} has the focus"
        if not order or order[-1] != name:  # the fields within a date are one
            order.append(name)
    # Of the marks one, whichever is first in time; "": what folds and unfolds, and Clear filters.
    assert [re.sub("^mark.*", "mark", name) for name in order] == [
        "skip", "to-search", "to-live", "picture", "", "camera", "not_camera", "after", "before", "top", "threshold",
        "group_by", "rerank", "main", "", "mark", "", "open",
    ]  # fmt: skip
    page.locator(".open").first.click()
    page.click("#erase-image")
    for state in ("confirm", "match", "page"):
        named = names_of_controls(page)
        assert len(named) >= 3
        for role, name in named:
            assert name.strip(), f"a {role} has no name ({state})"
        page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str, opened: Callable[..., Any], contrasts: Callable[[Any], list[Any]]) -> None:
    page = opened(color_scheme=scheme)
    upload(page)
    for step in (None, ".open", "#erase-image"):
        if step:
            page.locator(step).first.click()
        found = contrasts(page)
        assert len(found) > 50
        assert [each for each in found if each[0] < 4.5] == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark))) < 200) == (scheme == "dark")


def test_on_a_phone(serve: Callable[..., str], opened: Callable[..., Any], entries: list[Entry]) -> None:
    long = "x" * 120
    named = replace(entries[0], key="long", path=f"/{long}.jpg", pid=long, camid=long, source=long)
    page = opened(serve([named, *entries]), width=PHONE, has_touch=True)

    def fits() -> bool:
        return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    assert fits()
    assert not page.is_visible("[name=after]")  # the filters are folded
    upload(page)
    assert fits()
    page.click("#filters summary")
    page.click("#timeline summary")
    assert fits()
    right = page.evaluate("Math.max(...[...document.querySelectorAll('.card, .lane, button, input, select, .parts')]"
                          ".map(e => e.getBoundingClientRect().right))")  # fmt: skip
    assert right <= PHONE
    page.locator(f".open:has-text('{long}')").tap()
    assert fits()
    assert page.evaluate("(d => d.scrollWidth <= d.clientWidth)(document.getElementById('match'))")


# ---- the files -------------------------------------------------------------------------------------------


TIMED = """
[linker]
token = "a-token-that-links"
scopes = ["search", "link"]
"""


def keep_times(gallery: Gallery) -> None:
    """Switch linking on, with times kept: people take an hour from the gate to the hall, and on to the yard."""
    rng = np.random.default_rng(0)
    items = [
        Seen(camid, START + timedelta(seconds=float(start))).as_item()
        for walk in rng.uniform(0, 40_000, 60)
        for camid, start in zip(CAMERAS, (walk, walk + rng.normal(3600, 30), walk + rng.normal(7200, 30)), strict=True)
    ]
    pairs = np.arange(180).reshape(-1, 3)
    network = CameraNetwork.of_pairs(items, np.concatenate([pairs[:, :2], pairs[:, 1:]]))
    gallery.enable_linking("find lost children", 30)
    keep_learned(gallery.store, require_linking(gallery.store), {}, network=json.dumps(network.as_dict()))


@pytest.mark.parametrize("width", [1440, PHONE])
def test_times_between_cameras(
    width: int, serve: Callable[..., str], opened: Callable[..., Any], entries: list[Entry], tmp_path: Path
) -> None:
    shift = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2) - START
    recent = [replace(entry, time=None if entry.time is None else entry.time + shift) for entry in entries]
    url = serve(recent, TOKENS + TIMED)
    keep_times(Gallery.open(tmp_path / "gallery-0"))
    page = opened(url, width)

    def give(token: str) -> None:
        page.fill("#token", token)
        with page.expect_response("**/stats"):
            page.click("text=Use token")

    # Who may not follow people across cameras is not offered to.
    give(SEARCHER)
    assert page.locator("#by-times").is_hidden()
    give("a-token-that-links")
    page.wait_for_selector("#by-times:not([hidden])")
    assert page.locator("#taken").is_hidden()
    upload(page)
    assert page.locator(".why").count() == 0
    page.check("#use-times")
    first = recent[0]
    page.select_option("#query-camera", first.camid)
    tokyo = (first.time + timedelta(hours=9)).strftime("%Y-%m-%dT%H:%M:%S")
    page.fill("#query-time", tokyo)
    with page.expect_response(SEARCH) as answered:
        page.click("#search-form button.main")
    found = answered.value.json()["matches"]
    page.wait_for_function(f"document.querySelectorAll('.why').length === {len(found)}")
    assert page.locator(".why").all_text_contents() == [match["reason"]["text"] for match in found]
    assert any("between gate and hall, usual" in match["reason"]["text"] for match in found)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if folder := os.environ.get("REPRISM_TEST_PICTURES"):
        page.screenshot(path=f"{folder}/times-{width}.png", full_page=True)
    # A match that is searched for brings its own camera and time; another picture does not keep them.
    hall = next(match for match in found if match["camid"] == "hall" and match["thumbnail"])
    page.locator(".matches .card").nth(hall["rank"] - 1).click()
    assert hall["reason"]["text"] in page.locator("#match-facts").text_content()
    with page.expect_response(SEARCH):
        page.click("#search-again")
    assert page.input_value("#query-camera") == "hall"
    there = datetime.fromisoformat(hall["time"]) + timedelta(hours=9)
    assert page.input_value("#query-time") == there.strftime("%Y-%m-%dT%H:%M:%S")
    page.set_input_files("#picture", UPLOAD)
    assert (page.input_value("#query-camera"), page.input_value("#query-time")) == ("", "")


def test_the_pages_are_in_the_package_and_ask_nobody_else() -> None:
    folder = files("reprism.service") / "page"
    page = "".join((folder / name).read_text(encoding="utf-8") for name in ("index.html", "people.html"))
    modules = sorted(file.name for file in folder.iterdir() if file.name.endswith(".js") and file.name != "docs.js")
    scripts = [(folder / name).read_text(encoding="utf-8") for name in modules]
    named = re.findall(r'(?:href|src)="([^"#]+)"', page) + re.findall(r'from "\./([^"]+)"', "".join(scripts))
    assert {"page.css", "people.css", "icon.svg", *modules} <= set(named)
    for name in set(named) - {"openapi.json", "./"}:
        assert (folder / name).is_file()
    for text in (page, *scripts, *((folder / name).read_text(encoding="utf-8") for name in ("page.css", "people.css"))):
        outside = set(re.findall(r"\w+://[^\s\"']+", text)) - {"http://www.w3.org/2000/svg"}
        assert not outside
    # Nothing that a strict Content-Security-Policy forbids.
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", page)
