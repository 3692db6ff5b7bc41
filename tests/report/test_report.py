import base64
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from reprism.report import report
from reprism.report.report import Html, Section

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


def pixel():
    return report.picture_uri(Image.new("RGB", (2, 2)))


def test_a_page_is_one_file_and_shows_text_as_it_is():
    chart = report.cmc_figure({HOSTILE: [0.1, 0.5, 1.0]})
    sections = [
        Section(
            HOSTILE,
            [
                HOSTILE,
                report.paragraph("see ", report.code(HOSTILE)),
                report.code_block(HOSTILE),
                report.subheading(HOSTILE),
                report.bullets([HOSTILE]),
                report.details(HOSTILE, HOSTILE),
                report.table((HOSTILE, "n"), [(HOSTILE, HOSTILE)]),
                report.headline([(HOSTILE, HOSTILE, HOSTILE)]),
                report.side_by_side(HOSTILE, report.image(report.figure_uri(chart), HOSTILE, HOSTILE)),
            ],
        )
    ]
    page = assert_self_contained(report.page(HOSTILE, sections, lead=[HOSTILE]))
    # Document title and heading, lead, contents, section heading, and once per place above.
    assert page.text.count(HOSTILE) == 5 + 15
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [HOSTILE]


def test_markup_made_by_the_report_is_not_escaped_again():
    assert report.paragraph("1 < 2, ", Html("<b>3</b>")) == "<p>1 &lt; 2, <b>3</b></p>"


def test_headings_are_reached_from_the_contents():
    page = Page(report.page("t", [Section("one", []), Section("two", [])]))
    ids = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == [f"#{name}" for name in ids]


def test_a_page_suits_phones_paper_and_the_dark():
    text = report.page("t", [])
    for needed in ("width=device-width", "@media print", "prefers-color-scheme: dark", 'lang="en"', "utf-8"):
        assert needed in text


def test_images_from_elsewhere_are_refused():
    with pytest.raises(ValueError, match=r"data URI, not 'https://x\.org"):
        report.image("https://x.org/a.png", "")


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 columns was given a row of 3"):
        report.table(("a", "b"), [(1, 2, 3)])


def test_figures_are_svg_of_their_own_and_always_the_same():
    first, second = (report.figure_uri(report.cmc_figure({"after": [0.25, 1.0]})) for _ in range(2))
    assert first == second
    kind, content = first.split(",")
    assert kind == "data:image/svg+xml;base64"
    svg = base64.b64decode(content).decode()
    assert svg.rstrip().endswith("</svg>")
    assert not re.search(r'(href|src)="(?!#)', svg)


def write_log(run, version, lines):
    folder = run / "csv" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_the_log_of_a_resumed_run_is_read_as_one(tmp_path):
    write_log(tmp_path, 0, ["epoch,loss/total,step,test/mAP", "0,9.0,1,", "0,8.0,3,", "0,,3,0.1"])
    write_log(tmp_path, 2, ["epoch,step,loss/total", "0,3,7.5", "1,5,6.0"])
    write_log(tmp_path, 10, ["epoch,step,loss/total", "1,5,5.5"])
    log = report.read_log(tmp_path)
    assert log["loss/total"] == [(1, 9.0), (3, 7.5), (5, 5.5)]
    assert log["test/mAP"] == [(3, 0.1)]


def test_a_run_without_logs_has_none(tmp_path):
    assert report.read_log(tmp_path) == {}


def test_losses_are_drawn_as_logged_and_smoothed():
    log = {"loss/total": [(k, 5.0) for k in range(40)], "loss/triplet": [(0, 1.0), (1, float("nan")), (2, 3.0)]}
    figure = report.loss_figure(log)
    axes = figure.axes[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["total", "batch-hard triplet"]
    drawn, smooth, triplet, _ = axes.lines
    assert drawn.get_ydata() == pytest.approx([5.0] * 40)
    assert smooth.get_ydata() == pytest.approx([5.0] * 40)
    assert list(triplet.get_xdata()) == [0, 2]


def test_charts_show_the_figures_they_are_given():
    cmc = report.cmc_figure({"before": [0.0, 0.5], "after": [0.75, 1.0]}).axes[0]
    assert [(line.get_label(), list(line.get_xdata()), list(line.get_ydata())) for line in cmc.lines] == [
        ("before", [1, 2], [0.0, 0.5]),
        ("after", [1, 2], [0.75, 1.0]),
    ]
    over = report.evaluations_figure([{"epoch": 5, "mAP": 0.2, "rank1": 0.3}, {"epoch": 9, "mAP": 0.4, "rank1": 0.6}])
    assert [list(line.get_ydata()) for line in over.axes[0].lines] == [[0.3, 0.6], [0.2, 0.4]]


def test_smoothing_leaves_a_straight_fall_where_it_is():
    fall = [100.0 - k for k in range(100)]
    line = report.loss_figure({"loss/total": list(enumerate(fall))}).axes[0].lines[1]
    assert list(line.get_ydata()) == pytest.approx(fall)


def test_a_table_without_titles_has_no_line_for_them():
    assert "<thead>" not in report.table(("", ""), [("name", "value")])
