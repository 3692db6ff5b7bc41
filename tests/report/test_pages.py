import base64
import re
from datetime import datetime
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from jinja2 import UndefinedError
from PIL import Image

from reprism.evaluation.part_scale import PartAgreement
from reprism.report.charts import cmc_figure
from reprism.report.pages import Code, Picture, Table, figure_uri, picture_uri, render
from reprism.report.search_page import write_search_page

HOSTILE = "<script>alert(\"1\")</script> & 'quotes'"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, visible text, and whether every tag is closed in its order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def assert_self_contained(text):
    """No address that a browser would follow by itself, nor any link out of the page."""
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "link", "object", "base"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name == "src":
                assert value.startswith("data:")
            if name == "href":
                assert value.startswith("#")
    assert not re.search(r"https?://|url\(|@import", text)
    return page


def pixel(alt=HOSTILE, caption=HOSTILE):
    return Picture(picture_uri(Image.new("RGB", (2, 2))), alt, caption, about=HOSTILE)


def report_of(*pieces):
    sections = [{"title": HOSTILE, "pieces": pieces}]
    return render("run_report.html", title=HOSTILE, figures=[(HOSTILE, HOSTILE, HOSTILE)], sections=sections)


def test_a_report_is_one_file_and_shows_text_as_it_is():
    chart = Picture(figure_uri(cmc_figure({HOSTILE: [0.1, 0.5, 1.0]})), HOSTILE, HOSTILE)
    table = Table((HOSTILE, "n"), [(HOSTILE, HOSTILE)])
    code = [Code(HOSTILE, "sh"), Code(HOSTILE, "sh", HOSTILE)]
    page = assert_self_contained(report_of(HOSTILE, table, *code, pixel(), [chart]))
    # Document title and heading, three large figures, contents, section heading, and once per place above.
    assert page.text.count(HOSTILE) == 7 + 1 + 3 + 3 + 2 + 1
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [HOSTILE, HOSTILE]


def test_a_page_of_lists_shows_names_as_they_are():
    sections = [{"title": HOSTILE, "picture": pixel()}]
    page = assert_self_contained(
        render("lists.html", title=HOSTILE, about=HOSTILE, legend=HOSTILE, sections=sections),
    )
    assert page.text.count(HOSTILE) == 2 + 2 + 2 + 2


def test_a_table_of_the_paper_shows_names_as_they_are():
    table = Table((HOSTILE, "n"), [(HOSTILE, HOSTILE)])
    page = assert_self_contained(render("paper_table.html", title=HOSTILE, notes=[HOSTILE], table=table))
    assert page.text.count(HOSTILE) == 2 + 1 + 3


def test_a_page_of_a_search_shows_names_as_they_are(tmp_path):
    query = tmp_path / "<script>&'\".png"
    Image.new("RGB", (20, 40)).save(query)
    parts = {
        HOSTILE: PartAgreement(0, None, "agrees"),
        "p2": PartAgreement(50, 0.5, "unclear"),
        "p3": PartAgreement(100, 0.1, "differs"),
    }
    found = {"probability": 0.125, "distance": 0.5, "shares": {}, "time": datetime(2024, 1, 2, 3, 4, 5)}
    first = SimpleNamespace(rank=1, id="a", pid=HOSTILE, camid=HOSTILE, path=str(query), parts=parts, **found)
    erased = SimpleNamespace(rank=2, id="gone", pid=None, camid=None, path=HOSTILE, parts=None, **found)

    class OneRow:
        uri, partition = HOSTILE, "p1"

        def __len__(self):
            return 1234

        def thumbnail(self, row):
            if row == "gone":
                raise KeyError(row)

    write_search_page(tmp_path / "page.html", OneRow(), [(str(query), [first, erased]), (str(query), [])], HOSTILE)
    page = assert_self_contained((tmp_path / "page.html").read_text(encoding="utf-8"))
    # Title and heading, the gallery's address, identity, camera, a part's words, and the path of the second match.
    assert page.text.count(HOSTILE) == 2 + 1 + 2 + 1 + 1
    assert page.text.count(query.name) == 2 * 2 + 1  # contents and headings, and the first match's path
    for shown in ("1,234 rows in", "2024-01-02 03:04:05", "12%", "0.500", "erased", "No match.", "agree: 1 of 3"):
        assert shown in page.text
    [label] = [
        attributes["aria-label"] for tag, attributes in page.tags if tag == "svg" and "differs" in str(attributes)
    ]
    assert label.split("; ")[0] == f"{HOSTILE}: agrees, {parts[HOSTILE].words}"
    bars = [attributes for _, attributes in page.tags if attributes.get("class", "").startswith("bar-")]
    assert [bar["class"] for bar in bars] == ["bar-agrees", "bar-unclear", "bar-differs"]
    # Of 48 pixels: at least two, a half, and all.
    assert [bars[0]["d"], bars[1]["height"], bars[2]["d"]] == ["M3.0 48V46.0", "24.0", "M19.0 48V0.0"]


def test_headings_are_reached_from_the_contents():
    sections = [{"title": "one", "pieces": []}, {"title": "two", "pieces": []}]
    page = Page(render("run_report.html", title="t", figures=[], sections=sections))
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == [f"#{name}" for name in ids]
    assert len(ids) == 2


def test_a_page_suits_phones_paper_and_the_dark():
    text = report_of()
    for needed in ("width=device-width", "@media print", "prefers-color-scheme: dark", 'lang="en"', "utf-8"):
        assert needed in text


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="legend"):
        render("lists.html", title="t", about="", sections=[])


def test_images_from_elsewhere_are_refused():
    with pytest.raises(ValueError, match=r"expected a data URI .*, got 'https://x\.org"):
        Picture("https://x.org/a.png", "")


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected 2 cells in each row of a table, got 3"):
        Table(("a", "b"), [(1, 2, 3)])


def test_figures_are_svg_of_their_own_and_always_the_same():
    first, second = (figure_uri(cmc_figure({"after": [0.25, 1.0]})) for _ in range(2))
    assert first == second
    kind, content = first.split(",")
    assert kind == "data:image/svg+xml;base64"
    svg = base64.b64decode(content).decode()
    assert svg.rstrip().endswith("</svg>")
    assert not re.search(r'(href|src)="(?!#)', svg)


def test_a_table_without_titles_has_no_line_for_them():
    assert "<thead>" in report_of(Table(("", "score"), [("name", "value")]))
    assert "<thead>" not in report_of(Table(("", ""), [("name", "value")]))
