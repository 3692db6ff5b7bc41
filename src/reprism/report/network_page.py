"""Show a network of cameras: a graph with transit times, what is known of every two cameras, and how sure it is."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from os import PathLike
from pathlib import Path

from reprism.files import write_whole
from reprism.linking.gains import Gain
from reprism.linking.routes import Offset, Route, Way, clock_advice, clock_ahead, clock_offsets, find_routes
from reprism.linking.transit import CameraNetwork
from reprism.report.network_chart import Edge, duration, find_edges, gaps_figure, network_figure, told
from reprism.report.pages import Picture, Table, figure_uri, render

_CHARTS = 36  # pairs of cameras with a chart of their gaps
_LEAST_WIDTH = 620  # CSS pixels below which the words in the graph could not be read
_CHART_WIDTH = 260

GRAPH = (
    "Arrows: at least {least} matches who came by one camera first, at times that matches have more often than chance; "
    "the wider, the more. On the {labelled} with the most matches: how long half of the walks take. Dashed and green: "
    "both cameras see a person at once."
)
"""Legend of the graph."""

GAPS = (
    "Blue: gaps between matched sightings, below 0 where the second camera was first. Orange: as many pairs of any two "
    "sightings. Where blue is above orange, a gap speaks for one person."
)
"""Legend of the charts of gaps."""

OVERLAP = (
    "At once: half of the matches and more, beyond chance, lie within a bin of one gap; and that is about 0, or kept "
    "more exactly than people walk. Then the gap tells by how much the second camera's clock is ahead, to a second or "
    "two. Elsewhere the page's times are by the clocks as they are."
)
"""When two cameras see a person at once."""

CLOCKS = (
    "Clocks are told by cameras that see people at once, and by people who walk both ways, if they agree over three "
    "cameras: the middle between the times there and back. A walk that takes longer there than back looks the same."
)
"""How clocks are told."""

HELD_OUT = (
    "Held-out gain: learned from one half of the time, the natural logarithm of how much likelier the network makes "
    "the matches of the other half, on average, with its 95 % interval; 0 is no network. These matches are found by "
    "appearance alone, and those that are wrong lower it. Doubtful: perhaps none of them lies where the network has "
    "it, so that nothing is said of these cameras. In brackets: matches, the share of a camera's sightings that arrive "
    "at the other, and until when 99 % of these do."
)
"""What the gain in the table is."""


def write_network_page(
    network: CameraNetwork,
    path: str | PathLike[str],
    *,
    title: str = "A network of cameras",
    overlapping: Collection[tuple[str, str]] = (),
) -> Path:
    """Write a self-contained page: the graph, tables of cameras and of pairs, and the gaps of every two cameras.

    It shows no person and no picture of one.

    Args:
        network: The network.
        path: HTML file to write.
        title: Title of the page.
        overlapping: Two cameras each that are known to overlap.

    Returns:
        The page's path.

    Raises:
        ValueError: Cameras that are said to overlap have no matches.
    """
    routes = find_routes(network, overlapping=overlapping)
    offsets = clock_offsets(routes)
    least = network.settings.least_pairs
    edges = find_edges(routes, offsets, least)
    cameras = _cameras(network)
    known = sum(route.known for route in routes.values())
    figures = [
        ("matches", f"{network.num_pairs:,}", f"from {_sightings(network):,} sightings"),
        (
            "pairs of cameras",
            f"{known:,}",
            f"of {len(cameras) * (len(cameras) - 1) // 2:,} have {least} matches or more",
        ),
    ]
    if network.held_out is not None and network.held_out.overall.pairs:
        gain = network.held_out.overall
        figures.append(("held-out gain", _signed(gain.mean), f"{_interval(gain)} over {gain.pairs:,} matches"))
    alt = "Graph of cameras: " + "; ".join(_words(edge) for edge in edges)
    legend = GRAPH.format(least=least, labelled=min(len(edges), 2 * len(cameras)))
    graph = Picture(figure_uri(network_figure(cameras, edges)), alt, legend, _LEAST_WIDTH)
    most = sorted((each for each in routes.items() if each[1].known), key=lambda each: -each[1].pairs)[:_CHARTS]
    charts = [
        Picture(
            figure_uri(gaps_figure(one, other, route, clock_ahead(offsets, one, other) or 0.0)),
            f"Gaps between {one} and {other}",
            f"{one} and {other}: {route.pairs:,} matches",
            _CHART_WIDTH,
        )
        for (one, other), route in sorted(most)
    ]
    sections: list[dict[str, object]] = [
        {"title": "Ways", "pieces": [graph]},
        {"title": "Times", "pieces": [_ways(network, routes, offsets), HELD_OUT]},
        {"title": "Overlap", "pieces": [_overlaps(routes, offsets), OVERLAP]},
        {"title": "Cameras", "pieces": [_clocks(network, offsets), CLOCKS, *clock_advice(offsets)]},
    ]
    if charts:
        sections.append({"title": "Gaps", "pieces": [GAPS, charts]})
    about = (
        "How long people take from camera to camera, learned from sightings of unknown people. It is evidence beside "
        "appearance, for a person to judge by, and no proof of who went where."
    )
    write_whole(path, render("network.html", title=title, about=about, figures=figures, sections=sections))
    return Path(path)


def write_network_picture(
    network: CameraNetwork, path: str | PathLike[str], *, overlapping: Collection[tuple[str, str]] = ()
) -> Path:
    """Write the graph as a PNG file, on white.

    Args:
        network, overlapping: As of :func:`write_network_page`.
        path: File to write.

    Returns:
        The file's path.
    """
    routes = find_routes(network, overlapping=overlapping)
    edges = find_edges(routes, clock_offsets(routes), network.settings.least_pairs)
    buffer = io.BytesIO()
    network_figure(_cameras(network), edges).savefig(buffer, format="png", dpi=144, facecolor="white")
    write_whole(path, buffer.getvalue())
    return Path(path)


def _cameras(network: CameraNetwork) -> list[str]:
    return sorted({view.camera for view in network.sightings})


def _sightings(network: CameraNetwork) -> int:
    return sum(sum(times.values()) for times in network.sightings.values())


def _ways(network: CameraNetwork, routes: Mapping[tuple[str, str], Route], offsets: Mapping[str, Offset]) -> Table:
    least = network.settings.least_pairs
    rows = []
    for (one, other), route in routes.items():
        forth, back = route.ways(clock_ahead(offsets, one, other) or 0.0, least=least)
        ways = ("at once", "at once") if route.at_once else (_way(forth), _way(back))
        gain = None if network.held_out is None else network.held_out.cameras.get((one, other))
        rows.append((
            _named(one, other),
            f"{route.pairs:,}",
            f"{route.per_hour:,.1f}",
            *(ways if route.known else (_unknown(route),) * 2),
            "–" if gain is None else "says nothing" if gain.low == gain.high == 0 else _told_gain(gain),
        ))  # fmt: skip
    return Table(("", "matches", "an hour", "there", "back", "held-out gain"), rows)


def _overlaps(routes: Mapping[tuple[str, str], Route], offsets: Mapping[str, Offset]) -> Table:
    rows = []
    for (one, other), route in routes.items():
        ahead = clock_ahead(offsets, one, other)
        rows.append((
            _named(one, other),
            ("yes" if route.at_once else "not told") if route.known else _unknown(route),
            f"{_signed(route.peak, 1)} s",
            f"{route.at_peak:.0%}",
            f"{route.at_peak_by_chance:.1%}",
            "not told" if ahead is None else f"{_signed(ahead, 1)} s",
        ))  # fmt: skip
    return Table(("", "at once", "most frequent gap", "matches there", "by chance", "second's clock"), rows)


def _clocks(network: CameraNetwork, offsets: Mapping[str, Offset]) -> Table:
    rows = []
    for camera in _cameras(network):
        views = [times for view, times in network.sightings.items() if view.camera == camera]
        offset = offsets.get(camera)
        if offset is None:
            clock = "not told"
        elif offset.reference == camera:
            clock = "others are compared with it"
        else:
            clock = f"{_signed(offset.seconds, 1)} s beside {offset.reference}"
        rows.append([camera, f"{sum(sum(times.values()) for times in views):,}", f"{len(views):,}", clock])
    return Table(("", "sightings", "recordings", "clock"), rows)


def _way(way: Way | None) -> str:
    if way is None:
        return "–"
    return f"{told(way)} ({way.pairs:,}; {way.rate:.0%} by {duration(way.latest)})"


def _unknown(route: Route) -> str:
    return "doubtful" if route.doubtful else "too few"


def _words(edge: Edge) -> str:
    if edge.way is None:
        return f"{edge.start} and {edge.end} see people at once, {edge.pairs:,} matches"
    return f"{edge.start} to {edge.end} in {told(edge.way)}, {edge.pairs:,} matches"


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+,.{digits}f}".replace("-", "−")


def _named(one: str, other: str) -> str:
    # Short names are kept on a line.
    return f"{one} and {other}".replace(" ", "\u00a0" if len(one) + len(other) < 24 else " ")


def _told_gain(gain: Gain) -> str:
    return f"{_signed(gain.mean)} ({_interval(gain)})"


def _interval(gain: Gain) -> str:
    return f"{_signed(gain.low)} to {_signed(gain.high)}"
