"""The page of a network of cameras: what it says is what is known, and it is one file whatever cameras are called."""

import io
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reprism.data.records import Sample
from reprism.linking.gains import Gain, HeldOut
from reprism.linking.routes import Way, clock_offsets, find_routes
from reprism.linking.transit import CameraNetwork
from reprism.report.network_chart import Edge, find_edges, network_figure, place, told
from reprism.report.network_page import write_network_page, write_network_picture

HOSTILE = "<script>alert(\"1\")</script> & 'quotes'"


class Page(HTMLParser):
    """A page's tags with their attributes, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


def self_contained(path: Path) -> Page:
    """A page that loads nothing and runs nothing."""
    page = Page(path.read_text("utf-8"))
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "link", "object"}
    for _, attributes in page.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    return page


def site(names: tuple[str, str, str, str] = ("gate", "hall", "roof", "yard")) -> CameraNetwork:
    """The second sees what the first does, 60 s ahead; 30 to 50 s from there is the fourth, and the third is rare."""
    rng = np.random.default_rng(0)
    gate, hall, roof, yard = names
    items, pairs = [], []

    def match(one: str, start: float, other: str, end: float) -> None:
        pairs.append((len(items), len(items) + 1))
        items.extend(Sample(Path("x.jpg"), 0, camera, float(time)) for camera, time in ((one, start), (other, end)))

    for start in rng.uniform(0, 36_000, 200):
        match(gate, start, hall, start + 60 + rng.normal(0, 1))
    for start in rng.uniform(0, 36_000, 100):
        match(hall, start + 60, yard, start + rng.uniform(30, 50))
    for start in rng.uniform(0, 36_000, 5):
        match(roof, start, yard, start + 20)
    network = CameraNetwork.of_pairs(items, np.array(pairs))
    gain = Gain(90, 1.5, 1.25, -0.0 + 1.75)
    return replace(network, held_out=HeldOut(gain, {(gate, hall): gain, (hall, yard): Gain(9, -0.25, -0.5, 0.125)}))


def rows(text: str) -> dict[str, list[list[str]]]:
    """The cells of the tables' rows, by the first."""
    found: dict[str, list[list[str]]] = {}
    for row in text.split("<tr>")[1:]:
        cells = [part.partition("</")[0] for part in row.replace('<th scope="row">', "<td>").split("<td>")[1:]]
        if cells:
            found.setdefault(cells[0].replace("\u00a0", " "), []).append(cells[1:])
    return found


def test_it_says_what_is_known(tmp_path: Path) -> None:
    path = write_network_page(site(), tmp_path / "network.html", title="Our site")
    page = self_contained(path)
    found = rows(path.read_text("utf-8"))
    (times, overlap) = found["gate and hall"]
    assert times[0] == "200"
    assert times[2:] == ["at once", "at once", "+1.50 (+1.25 to +1.75)"]
    assert float(times[1]) == pytest.approx(200 / 10, rel=0.05)
    assert overlap[0] == "yes"
    assert float(overlap[1].split()[0]) == pytest.approx(60, abs=0.5)
    assert overlap[-1] == overlap[1]
    # The yard's clock is not told: by the clocks as they are, people come there before they are in the hall.
    times, overlap = found["hall and yard"]
    low, high = (float(word) for word in times[3].partition("(")[0].split() if word.isdigit())
    assert (low, high) == pytest.approx((15, 25), abs=4)
    # All of the yard's people but for those five from the roof, who came there too.
    assert times[3].partition("; ")[2] == "95% by 28 s)"
    assert (times[2], times[4]) == ("–", "−0.25 (−0.50 to +0.12)")
    assert (overlap[0], overlap[-1]) == ("not told", "not told")
    assert found["roof and yard"][0][2:] == ["too few", "too few", "–"]
    assert found["roof"][0][-1] == "not told"
    assert found["hall"][0][-1].endswith(" s beside gate")
    assert "+1.50" in page.text
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert "gate and hall see people at once, 200 matches" in alts[0]
    assert "yard to hall in " in alts[0]
    assert len(alts) == 3


def test_cameras_may_have_any_name(tmp_path: Path) -> None:
    names = (HOSTILE, "$x_{", "roof\n", "yard " * 20)
    path = write_network_page(site(names), tmp_path / "network.html")
    assert HOSTILE in self_contained(path).text
    assert write_network_page(site(names), tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_a_picture_of_the_graph(tmp_path: Path) -> None:
    with Image.open(write_network_picture(site(), tmp_path / "network.png")) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
        colors = {color for _, color in picture.convert("RGB").getcolors(2**20)}
    assert len(colors) > 50


def test_a_network_that_knows_nothing_has_a_page(tmp_path: Path) -> None:
    items = [Sample(Path("x.jpg"), 0, camera, float(time)) for time in range(5) for camera in ("a", "b")]
    for pairs in (np.zeros((0, 2), int), np.array([[0, 1]])):
        network = CameraNetwork.of_pairs(items, pairs)
        text = write_network_page(network, tmp_path / "network.html").read_text("utf-8")
        assert "0</strong>" in text
        write_network_picture(network, tmp_path / "network.png")


def test_edges_are_ways_and_overlap() -> None:
    network = site()
    routes = find_routes(network)
    edges = find_edges(routes, clock_offsets(routes), 20)
    assert [(edge.start, edge.end, edge.way is None) for edge in edges] == [
        ("gate", "hall", True), ("yard", "hall", False)
    ]  # fmt: skip
    assert [edge.pairs for edge in edges] == [200, pytest.approx(100, abs=3)]


@pytest.mark.parametrize(
    ("quartiles", "words"),
    [((35, 40, 60), "35 to 60 s"), ((16, 16, 16), "16 s"), ((12, 30, 930), "12 s to 16 min"),
     ((240, 250, 600), "4 to 10 min"), ((240, 250, 260), "4 min"), ((600, 650, 14_400), "10 min to 4.0 h")],
)  # fmt: skip
def test_times_are_told_in_words(quartiles: tuple[float, float, float], words: str) -> None:
    assert told(Way(30, quartiles)) == words


def test_near_cameras_are_placed_nearer() -> None:
    """And those that nothing connects, on a circle."""
    names = ["a", "b", "c", "d"]
    way = {seconds: Way(30, (seconds, seconds, seconds)) for seconds in (20.0, 400.0, 5000.0)}
    edges = [Edge("a", "b", 30, way[20.0]), Edge("c", "b", 30, way[400.0]), Edge("c", "d", 30, way[5000.0])]
    at = dict(zip(names, place(names, edges), strict=True))

    def apart(one: str, other: str) -> float:
        return float(np.linalg.norm(at[one] - at[other]))

    assert 0.7 < apart("a", "b") < apart("c", "d") < apart("b", "d") < apart("a", "d")
    assert apart("b", "c") > 0.7
    np.testing.assert_allclose(np.linalg.norm(place(names, edges[:2]), axis=1), 1)
    assert place(["a", "b"], edges[:1]).shape == (2, 2)
    assert place(["a"], []).shape == (1, 2)


def test_words_in_the_graph_lie_apart() -> None:
    """Of twelve arrows between four cameras, no two times are written over each other."""
    names = ["cam1", "cam2", "cam3", "cam4"]
    way = Way(30, (24.0, 28.0, 32.0))
    edges = [Edge(one, other, 30, way) for one in names for other in names if one != other]
    figure = network_figure(names, edges)
    figure.savefig(io.BytesIO(), format="png")
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 4 + 2 * 4
    assert not [1 for one, other in combinations(boxes, 2) if one.overlaps(other)]
