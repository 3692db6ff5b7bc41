"""The page of people in a browser, before a real service with drawn people who walk past three cameras."""

import os
import re
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

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
NOW = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)  # what is learned depends on the second
WAYS = {"gate": 0.0, "hall": 40.0, "yard": 90.0}  # seconds from the camera before
PEOPLE = 50


def walkers(dim: int) -> list[Entry]:
    """Tracklets of two pictures of drawn people who pass the gate, the hall, the yard; some look much like others."""
    rng = np.random.default_rng(0)
    found = []
    for pid, start in enumerate(rng.uniform(0, 20_000, PEOPLE)):
        looks, time = rng.normal(size=dim), start
        for number, (name, way) in enumerate(WAYS.items()):
            time += rng.normal(way, way / 9) if way else 0.0
            if rng.random() < 0.85:
                strip = tuple(crop(pid, number, at) for at in range(2))
                row = (looks + 0.85 * rng.normal(size=dim)).astype(np.float32)
                key, at = f"{pid}-{name}", NOW - timedelta(hours=6) + timedelta(seconds=time)
                known = {"camid": name, "time": at, "until": at + timedelta(seconds=2), "tracklet": key, "frames": 5}
                found.append(Entry(key, row, key, **known, thumbnail=strip[0], strip=strip))
    return found


def crop(pid: int, camid: int, number: int) -> bytes:
    picture = draw_person(person(5, pid), camera(5, camid), np.random.default_rng((pid, camid, number)))
    return make_thumbnail(torch.tensor(picture).permute(2, 0, 1))


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
def url(gallery: Gallery, network: reprism.Embedder, listening: Callable[..., str]) -> str:
    """The address of the gallery's service."""
    access = Access.from_toml(TOKENS, "tokens")
    return listening(create_app(gallery, network, ServiceSettings(link_seconds=0), access=access))


@pytest.fixture
def opened(url: str, new_page: Callable[..., Any]) -> Callable[..., Any]:
    """Opens a view of the page with a token, as ``opened("#review", token=BEN, size=PHONE)``."""

    def open_page(view: str = "", token: str = ANN, size: tuple[int, int] = DESK, **options: Any) -> Any:
        page = new_page(*size, locale="en-GB", timezone_id="Asia/Tokyo", **options)
        page.context.add_init_script(f"sessionStorage.setItem('token', '{token}')")
        page.goto(f"{url}people.html{view}")
        page.wait_for_selector("main:not([hidden])")
        page.wait_for_selector("#status:not(:has-text('Loading'))", state="attached")
        return page

    return open_page


def keep_picture(page: Any, name: str) -> None:
    """Keep a screenshot where whoever runs the test wants to look at some."""
    if folder := os.environ.get("REPRISM_TEST_PICTURES"):
        page.wait_for_load_state("networkidle")
        page.screenshot(path=f"{folder}/people-{name}-{page.viewport_size['width']}.png")


def fits(page: Any) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def wait_for(page: Any, count: int, selector: str) -> None:
    """Wait until the page has so many of something."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_count(count, timeout=300_000)


def said(page: Any, words: str) -> None:
    """Wait until the page says something of itself."""
    page.wait_for_selector(f"#status:has-text('{words}')")


def answer_of(page: Any, path: str) -> Any:
    """What the service answers Ann."""
    address = urljoin(page.url, path)
    return page.request.get(address, headers={"Authorization": f"Bearer {ANN}"}).json()


def of_ids(gallery: Gallery) -> dict[int, set[str]]:
    """The rows of each person."""
    return {one.id: set(one.rows) for one in gallery.people()}


# ---- the list, and one person ----------------------------------------------------------------------------


def test_the_list_shows_who_is_in_the_gallery(opened: Callable[..., Any], gallery: Gallery) -> None:
    page = opened()
    everyone = gallery.people()
    shown = page.locator(".person")
    assert page.inner_text("#people-count").startswith(f"{len(everyone)},")
    assert shown.locator(".open").all_inner_texts() == [f"Person {one.id}" for one in everyone]
    for card, one in zip(shown.all()[:5], everyone, strict=False):
        assert card.locator(".faces li").count() == min(6, len(one.rows))
        facts = card.locator("dd").all_inner_texts()
        first = one.first + timedelta(hours=9)  # in Tokyo
        assert facts[0] == ", ".join(one.cameras)
        assert facts[1].startswith(f"{first.day} {first:%b, %H:%M}")
        assert facts[2] == str(len(one.rows))
        assert facts[3] == ("> 99 %" if 1 > one.confidence > 0.99 else f"{100 * one.confidence:.0f} %")
    page.wait_for_selector(".person:first-child .faces li:last-child img")
    # A filter is in the address: Back takes it away again.
    page.click("#people-filters summary")
    page.select_option("[name=camera]", "yard")
    page.click("#people-form .main")
    at_yard = [f"Person {one.id}" for one in everyone if "yard" in one.cameras]
    wait_for(page, len(at_yard), ".person")
    assert page.url.endswith("#people&camera=yard")
    assert shown.locator(".open").all_inner_texts() == at_yard
    page.go_back()
    wait_for(page, len(everyone), ".person")
    # What one types is one's own time.
    late = sorted(one.last for one in everyone)[-7].replace(second=0)
    page.fill("[name=after]", f"{late + timedelta(hours=9):%Y-%m-%dT%H:%M}")
    page.click("#people-form .main")
    since = [f"Person {one.id}" for one in everyone if one.last - timedelta(seconds=2) >= late]
    assert 7 <= len(since) < len(at_yard)
    wait_for(page, len(since), ".person")
    assert shown.locator(".open").all_inner_texts() == since
    page.fill("[name=after]", "")
    early = NOW - timedelta(days=2) + timedelta(hours=9)
    page.fill("[name=before]", f"{early:%Y-%m-%dT%H:%M}")
    page.click("#people-form .main")
    page.wait_for_selector("#people-empty:has-text('Loosen the filters')")
    assert page.complaints == []
    assert {urlsplit(each).netloc for each in page.requested if not each.startswith("blob:")} == {
        urlsplit(page.url).netloc
    }


def test_more_are_shown_when_asked_for(opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened("#review")
    page.route("**/people?*", lambda route: route.fulfill(json=many(route.request.url)))
    page.click("nav >> text=People")
    wait_for(page, 60, ".person")
    page.click("#people-more")
    wait_for(page, 75, ".person")
    assert page.locator(".person .open").last.inner_text() == "Person 75"
    assert page.is_hidden("#people-more")


def many(address: str) -> dict[str, Any]:
    """Seventy-five people as the service tells of them, a part at a time."""
    asked = {name: int(value) for name, value in parse_qsl(urlsplit(address).query)}
    numbers = range(1, 76)[asked["offset"] :][: asked["limit"]]
    facts = {"rows": 1, "cameras": ["gate"], "first": NOW.isoformat(), "last": NOW.isoformat(), "confidence": 1.0}
    return {"total": 75, "people": [{"id": number, "faces": []} | facts for number in numbers]}


def test_a_person_is_split_and_it_is_undone(opened: Callable[..., Any], gallery: Gallery) -> None:
    whole = gallery.people()[0]
    page = opened()
    page.click(f"text='Person {whole.id}'")
    page.wait_for_selector("#person-view:not([hidden]) .sight .film img:not([hidden])")
    told = answer_of(page, f"people/{whole.id}")
    assert page.locator(".sight strong").all_inner_texts() == [
        f"{place}. {sight['camera']}" for place, sight in enumerate(told["sights"], 1)
    ]
    assert page.locator(".mark").count() == len(whole.rows)
    links = page.locator(".sight .link").all_inner_texts()
    assert links[0] == ""
    for place, (words, link) in enumerate(zip(links[1:], told["links"], strict=True), 1):
        assert words.startswith(f"Linked to {place}: {link['sentence']} (")
    # From the timeline to a sight, and chosen by keyboard.
    page.locator(".mark").first.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.value") == whole.rows[-1]
    assert page.is_disabled("#split")
    page.keyboard.press("Space")
    times = [datetime.fromisoformat(sight["time"]) for sight in told["sights"]]
    start = 1 + int(np.argmax(np.diff(np.array(times))))  # where somebody else begins, as likely as not
    for place in range(start, len(times) - 1):
        page.locator(".sight input").nth(place).check()
    stay, leave = set(whole.rows[:start]), set(whole.rows[start:])
    assert page.inner_text("#split-count") == f"{len(leave)} of {len(times)} sights chosen."
    keep_picture(page, "person")
    page.click("#split")
    page.wait_for_selector("#undo:not([hidden])")
    said(page, f"of person {whole.id} became person")
    people = of_ids(gallery)
    assert not [rows for rows in people.values() if rows & stay and rows & leave]
    assert page.locator(".sight").count() == len(people[whole.id]) < len(whole.rows)
    (answer,) = gallery.link_answers()
    assert (answer.kind, answer.by) == ("different", "ann")
    assert (set(answer.one), set(answer.other)) == (leave, stay)
    page.click("#undo")
    said(page, "Taken back.")
    assert gallery.link_answers() == []
    assert of_ids(gallery)[whole.id] == set(whole.rows)
    assert page.locator(".sight").count() == len(whole.rows)
    page.go_back()
    page.wait_for_selector("#people-view:not([hidden])")
    assert page.complaints == []


def test_two_people_are_merged_and_a_contradiction_is_told_once(opened: Callable[..., Any], gallery: Gallery) -> None:
    doubt = next(
        one for one in review_queue(gallery, 100) if person_of(gallery, one.one) != person_of(gallery, one.other)
    )
    one, other = person_of(gallery, doubt.one), person_of(gallery, doubt.other)
    rows = of_ids(gallery)
    page = opened(f"#person={one}")
    page.fill("#merge-with", "9999")
    page.wait_for_selector("#merge-preview:has-text('Nobody has this number any more')")
    assert page.is_disabled("#merge")
    page.fill("#merge-with", str(one))
    page.wait_for_selector("#merge-preview:has-text('This is the person shown here')")
    page.fill("#merge-with", str(other))
    page.wait_for_selector("#merge-preview .faces")
    keep_picture(page, "merge")
    page.click("#merge")
    said(page, "became one with")
    assert rows[one] | rows[other] in of_ids(gallery).values()
    assert page.locator(".sight").count() == len(rows[one] | rows[other])
    # The answer stands in the way of its contrary, which is said in one place.
    page.locator(".sight input").first.check()
    page.click("#split")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error-words").startswith("That cannot be. that contradicts answer 1 (same, by ann")
    assert page.inner_text("body").count("contradicts") == 1
    assert page.inner_text("#status") == ""
    # In the lists, with ways back.
    page.click("nav >> text=Changes")
    page.wait_for_selector("#changes-list h3:has-text('became one with')")
    keep_picture(page, "changes-made")
    page.click("nav >> text=Answers")
    page.wait_for_selector("#answers-list h3:has-text('The same person')")
    assert "by ann" in page.inner_text("#answers-list")
    keep_picture(page, "answers-made")
    page.click("#answers-list button")
    page.wait_for_selector("#answers-empty:not([hidden])")
    assert gallery.link_answers() == []
    assert of_ids(gallery).items() >= {one: rows[one]}.items() or rows[one] in of_ids(gallery).values()
    # What a change did is undone by taking its answer back; here it was taken back already.
    page.click("nav >> text=Changes")
    page.locator("#changes-list button").last.click()
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error-words")


def person_of(gallery: Gallery, rows: Sequence[str]) -> int:
    return next(number for number, theirs in of_ids(gallery).items() if rows[0] in theirs)


# ---- the review queue ------------------------------------------------------------------------------------


def press(page: Any, key: str) -> None:
    """Press a key that decides, and wait until the next question is there."""
    with page.expect_response(re.compile("/people/answers")):
        page.keyboard.press(key)
    page.wait_for_selector("#decisions:not([aria-busy])")


def test_ten_decisions_by_keyboard_alone(opened: Callable[..., Any], gallery: Gallery) -> None:
    waiting = review_queue(gallery, 1000)
    assert len(waiting) > 10
    page = opened("#review")
    page.wait_for_selector("#question:not([hidden])")
    assert page.inner_text("#review-count") == f"0 decided, {len(waiting)} left"
    one, other = (page.locator(f"#side-{name} .shown .picture").bounding_box() for name in ("one", "other"))
    assert (one["width"], one["height"]) == (other["width"], other["height"])
    page.wait_for_selector("#side-one .shown img")
    page.wait_for_selector("#side-other .shown img")
    keep_picture(page, "review")
    # The arrows step through the pictures of either side.
    sizes = [len(waiting[0].one), len(waiting[0].other)]
    place = sizes.index(max(sizes))
    if place:
        page.keyboard.press("ArrowDown")
    side = page.locator([".side >> nth=0", ".side >> nth=1"][place])
    assert side.get_attribute("data-marked") == ""
    page.keyboard.press("ArrowRight")
    side.locator(".caption", has_text=f"2 of {sizes[place]}: ").wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is none before the first
    side.locator(".caption", has_text=f"1 of {sizes[place]}: ").wait_for()
    keys = dict(zip("sdu", ("same", "different", "unsure"), strict=True))
    for key in "dusdudsudd":
        press(page, key)
    answers = gallery.link_answers()
    assert [answer.kind for answer in answers] == [keys[key] for key in "dusdudsudd"]
    assert [(answer.one, answer.other) for answer in answers] == [(each.one, each.other) for each in waiting[:10]]
    assert {answer.by for answer in answers} == {"ann"}
    assert page.inner_text("#review-count").startswith("10 decided, ")
    # Undone by a key, the last one first; the question is asked again.
    words = page.inner_text("#question-words")
    press(page, "z")
    press(page, "z")
    assert gallery.link_answers() == answers[:8]
    assert page.inner_text("#review-count").startswith("8 decided, ")
    assert page.inner_text("#question-words") != words
    press(page, "u")
    (*_, again) = gallery.link_answers()
    assert (again.kind, again.one, again.other) == ("unsure", waiting[8].one, waiting[8].other)
    assert page.complaints == []


def test_keys_decide_nothing_elsewhere(opened: Callable[..., Any], gallery: Gallery) -> None:
    page = opened("#review")
    page.wait_for_selector("#question:not([hidden])")
    page.keyboard.press("Control+s")
    page.evaluate("document.querySelector('#token-form').removeAttribute('data-used')")
    page.focus("#token")
    page.keyboard.type("sdu")
    page.click("nav >> text=Cameras")
    page.wait_for_selector("#cameras-view:not([hidden])")
    page.keyboard.press("s")
    page.wait_for_load_state("networkidle")
    assert gallery.link_answers() == []


def test_two_who_decide_at_once_are_asked_different_things(opened: Callable[..., Any], gallery: Gallery) -> None:
    waiting = review_queue(gallery, 1000)
    ann, ben = opened("#review"), opened("#review", token=BEN)
    for page in (ann, ben):
        page.wait_for_selector("#question:not([hidden])")
    assert ben.inner_text("#review-count") == f"0 decided, {len(waiting) - 10} left"
    press(ann, "u")
    press(ben, "d")
    by = {answer.by: (answer.one, answer.other) for answer in gallery.link_answers()}
    assert by == {"ann": (waiting[0].one, waiting[0].other), "ben": (waiting[10].one, waiting[10].other)}
    # What Ben decided, Ann is not asked any more; what she holds comes first.
    ann.reload()
    ann.wait_for_selector("#question:not([hidden])")
    asked = answer_of(ann, "people/questions?limit=200")["questions"]
    assert ann.inner_text("#review-count") == f"0 decided, {len(asked)} left"
    pairs = [(tuple(each["one"]), tuple(each["other"])) for each in asked]
    assert pairs[0] == (waiting[1].one, waiting[1].other)
    assert by["ben"] not in pairs


def test_nothing_left_to_ask(opened: Callable[..., Any]) -> None:
    page = opened("#cameras")
    page.route("**/people/questions*", lambda route: route.fulfill(json={"questions": [], "left": 0}))
    page.click("nav >> text=Review")
    page.wait_for_selector("#review-none:not([hidden])")
    assert page.is_hidden("#question")
    assert page.is_disabled("[data-kind=same]")
    keep_picture(page, "review-none")
    page.unroute("**/people/questions*")
    page.click("#review-again")
    page.wait_for_selector("#question:not([hidden])")


# ---- cameras ---------------------------------------------------------------------------------------------


def test_the_network_is_drawn_and_told(opened: Callable[..., Any]) -> None:
    page = opened("#cameras")
    page.wait_for_selector("#cameras-graph svg")
    told = answer_of(page, "people/network")
    assert {way["to"] for way in told["ways"]} == {"gate", "yard"} or len(told["ways"]) >= 2
    assert page.locator(".graph .camera").count() == len(told["cameras"]) == len(WAYS)
    assert page.locator(".graph .way path").count() == len(told["ways"])
    rows = page.locator("#cameras-ways tr").all()
    for row, way in zip(rows, told["ways"], strict=True):
        cells = row.locator("td").all_inner_texts()
        assert cells[:2] == [way["from"], way["to"]]
        assert cells[4] == str(way["matches"])
        if way["usual"][1] < 120:
            low, high = (f"{seconds:.0f}" for seconds in way["usual"])
            assert cells[2] == (f"{high} s" if low == high else f"{low} to {high} s")
    assert page.get_attribute(".graph", "aria-label").startswith("3 cameras and ")
    keep_picture(page, "cameras")
    assert page.complaints == []


# ---- for everyone, and for nobody else -------------------------------------------------------------------


def test_it_is_hidden_without_the_scope(
    url: str, opened: Callable[..., Any], new_page: Callable[..., Any], gallery: Gallery
) -> None:
    for token, is_shown in ((SEARCHER, False), (ANN, True)):
        page = new_page(*DESK)
        page.context.add_init_script(f"sessionStorage.setItem('token', '{token}')")
        page.goto(url)
        page.wait_for_selector("#stats:has-text('pictures')")
        assert page.is_visible("#to-people") == is_shown
    page.click("#to-people")
    page.wait_for_selector(".person")
    page = opened("#review", token=SEARCHER)
    assert page.is_visible("#none-view")
    assert not [each for each in page.requested if "/people/" in each]
    # Another token brings what that one may see.
    page.click("#forget-token")
    page.fill("#token", ANN)
    page.click("text=Use token")
    page.wait_for_selector("#question:not([hidden])")
    gallery.disable_linking()
    page.click("nav >> text=Answers")
    page.wait_for_selector("#error:not([hidden])")
    assert "linking is off for this gallery" in page.inner_text("#error-words")
    page.reload()
    page.wait_for_selector("#none-view:not([hidden])")


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_view_fits_with_its_first_pictures_in_sight(
    size: tuple[int, int],
    opened: Callable[..., Any],
    gallery: Gallery,
    contrasts: Callable[[Any], list[Any]],
    names_of_controls: Callable[[Any], list[Any]],
) -> None:
    page = opened(size=size, color_scheme="dark" if size == PHONE else "light")

    def look(name: str, first: str = "") -> None:
        if first:
            box = page.locator(first).first.bounding_box()
            assert 0 < box["y"] < box["y"] + box["height"] <= size[1], name
        assert fits(page), name
        assert [each for each in contrasts(page) if each[0] < 4.5] == []
        assert all(said.strip() for _, said in names_of_controls(page)), name
        keep_picture(page, name)

    page.wait_for_selector(".person img")
    look("list", ".person .faces")
    page.click(".person .open >> nth=0")
    page.wait_for_selector(".sight img")
    look("person", ".sight .film")
    page.click("nav >> text=Review")
    page.wait_for_selector("#side-other .shown img")
    for part in ("#side-one .shown", "#side-other .shown", ".side .caption", "[data-kind=same]", "#take-back"):
        look("review", part)
    page.click("nav >> text=Cameras")
    page.wait_for_selector(".graph")
    look("cameras", ".graph")
    for view in ("changes", "answers"):
        page.click(f"nav >> text={view.title()}")
        page.wait_for_selector(f"#{view}-empty:not([hidden])")
        look(view)
    assert page.evaluate("document.activeElement.textContent") == "Answers"  # the view's title
    assert page.complaints == []
