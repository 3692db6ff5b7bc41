"""Draw a network of cameras: the cameras with the ways between them, and the gaps of every two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from scipy.ndimage import gaussian_filter1d
from scipy.sparse.csgraph import shortest_path

from reprism.linking.routes import Offset, Route, Way, clock_ahead
from reprism.report.charts import COLORS, GRAY, chart

_SIZE = (8.2, 5.4)  # inches
_LEAST_APART = 0.75  # of two cameras, where the most distant are about 2 apart
_LABELS_PER_CAMERA = 2


class Edge(NamedTuple):
    """An arrow of the graph, or a line where both cameras see a person at once.

    Attributes:
        start, end: Cameras.
        pairs: Matches that it stands for.
        way: Times that the way takes; None where both see a person at once.
    """

    start: str
    end: str
    pairs: int
    way: Way | None


def find_edges(routes: Mapping[tuple[str, str], Route], offsets: Mapping[str, Offset], least: int) -> list[Edge]:
    """Return the edges between cameras that are known, those with the most matches first.

    Args:
        routes, offsets: What is known about every two cameras, and their clocks.
        least: With fewer matches a direction is no edge.
    """
    edges: list[Edge] = []
    for (one, other), route in routes.items():
        if not route.known:
            continue
        if route.at_once:
            edges.append(Edge(one, other, route.pairs, None))
            continue
        forth, back = route.ways(clock_ahead(offsets, one, other) or 0.0, least=least)
        edges += [
            Edge(start, end, way.pairs, way)
            for start, end, way in ((one, other, forth), (other, one, back))
            if way is not None
        ]
    return sorted(edges, key=lambda edge: (-edge.pairs, edge.start, edge.end))


def network_figure(cameras: Sequence[str], edges: Sequence[Edge]) -> Figure:
    """Draw cameras as nodes, and between them arrows that are the wider the more matches took that way.

    Cameras are the nearer the shorter the ways, as far as a plane and the names allow. Of many arrows, those with the
    most matches say how long half of the walks take.

    Args:
        cameras: All cameras' names.
        edges: Arrows and lines, those with the most matches first.
    """
    figure = Figure(figsize=_SIZE)
    axes = figure.add_axes((0, 0, 1, 1))
    places = dict(zip(cameras, place(cameras, edges), strict=True))
    most = max((edge.pairs for edge in edges), default=1)
    both = {(edge.start, edge.end) for edge in edges}
    labelled = edges[: _LABELS_PER_CAMERA * len(cameras)]
    spots: list[np.ndarray] = []
    for edge in edges:
        start, end = places[edge.start], places[edge.end]
        # Arrows of the two directions are bent away from each other.
        bend = 0.16 if (edge.end, edge.start) in both else 0.0
        axes.add_patch(
            FancyArrowPatch(
                tuple(start),
                tuple(end),
                arrowstyle="-" if edge.way is None else "-|>",
                mutation_scale=13,
                connectionstyle=f"arc3,rad={bend}",
                linestyle="--" if edge.way is None else "-",
                linewidth=0.8 + 4.2 * math.sqrt(edge.pairs / most),
                color=COLORS[2] if edge.way is None else COLORS[0],
                alpha=0.85 if edge in labelled else 0.3,
                shrinkA=20,
                shrinkB=20,
                zorder=1,
            )
        )
        if edge in labelled:
            spot = _free_spot(start, end, bend, [*places.values(), *spots])
            spots.append(spot)
            axes.text(
                float(spot[0]),
                float(spot[1]),
                "at once" if edge.way is None else told(edge.way),
                ha="center",
                va="center",
                fontsize=8.5,
                color="#1c2430",
                bbox={"boxstyle": "round,pad=0.2", "facecolor": "#eef1f5", "edgecolor": "none", "alpha": 0.95},
                zorder=3,
                parse_math=False,
            )
    for camera, at in places.items():
        axes.text(
            float(at[0]),
            float(at[1]),
            short(camera),
            ha="center",
            va="center",
            fontsize=11,
            fontweight="bold",
            color="white",
            bbox={"boxstyle": "round,pad=0.5", "facecolor": "#43536b", "edgecolor": "none"},
            zorder=2,
            parse_math=False,
        )
    around = np.array(list(places.values()))
    margin = np.array([0.35, 0.25])
    low, high = around.min(axis=0) - margin, around.max(axis=0) + margin
    # A unit is as long either way, and the whole is as wide and tall as the figure.
    middle, half = (low + high) / 2, float(((high - low) / _SIZE).max()) / 2
    axes.set_xlim(middle[0] - half * _SIZE[0], middle[0] + half * _SIZE[0])
    axes.set_ylim(middle[1] - half * _SIZE[1], middle[1] + half * _SIZE[1])
    axes.set_axis_off()
    return figure


def gaps_figure(one: str, other: str, route: Route, ahead: float) -> Figure:
    """Draw how often matches have each gap, and any two sightings.

    Args:
        one, other: Names of the cameras.
        route: What is known about them.
        ahead: Seconds that the second's clock is ahead, which are taken off.
    """
    figure, axes = chart(f"seconds from {short(one)} to {short(other)}", "matches per 10 s")
    axes.xaxis.label.set_parse_math(False)
    gaps = route.gaps - ahead
    width = float(gaps[1] - gaps[0])
    scale = 10 / width
    reach = _reach(gaps, route.matched)
    # Smoothed, and drawn at so many points, as far as the chart's width shows no more.
    shown = np.linspace(-reach, reach, 241)
    bins = max(1.0, reach / width / 60)
    matched, chance = (
        np.interp(shown, gaps, gaussian_filter1d(counts, bins) * scale) for counts in (route.matched, route.chance)
    )
    axes.fill_between(shown, matched, color=COLORS[0], alpha=0.35, linewidth=0)
    axes.plot(shown, matched, color=COLORS[0], linewidth=1.2, label="matches")
    axes.plot(shown, chance, color=COLORS[1], linewidth=1.2, label="by chance")
    axes.axvline(0, color=GRAY, linewidth=0.8, alpha=0.6)
    axes.set_ylim(bottom=0)
    axes.set_xlim(-reach, reach)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=GRAY)
    return figure


def told(way: Way) -> str:
    """Return how long half of the walks take: "35 to 60 s", "12 s to 15 min"."""
    low, high = (_duration(way.quartiles[at]) for at in (0, 2))
    if low == high:
        return " ".join(low)
    return f"{low[0]} to {' '.join(high)}" if low[1] == high[1] else f"{' '.join(low)} to {' '.join(high)}"


def duration(seconds: float) -> str:
    """Return a duration in words: "45 s", "15 min"."""
    return " ".join(_duration(seconds))


def short(camera: str) -> str:
    """Return a camera's name for an axis."""
    return camera if len(camera) <= 18 else f"{camera[:17]}…"


def place(cameras: Sequence[str], edges: Sequence[Edge]) -> np.ndarray:
    """Place cameras on a plane: by classical multidimensional scaling of the times between them.

    The logarithms of the times count, and those of cameras without a way are the shortest by others. Where some cannot
    be reached at all, cameras lie on a circle.

    Args:
        cameras: Names.
        edges: Ways between them.

    Returns:
        N×2, the same for the same network.
    """
    count = len(cameras)
    angles = 2 * np.pi * np.arange(count) / max(1, count)
    circle = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    if count < 3:
        return circle[:, ::-1]
    number = {camera: at for at, camera in enumerate(cameras)}
    apart = np.full((count, count), np.inf)
    for edge in edges:
        seconds = 1.0 if edge.way is None else max(1.0, edge.way.quartiles[1])
        at = number[edge.start], number[edge.end]
        apart[at] = apart[at[::-1]] = min(apart[at], math.log1p(seconds))
    apart = shortest_path(np.where(np.isinf(apart), 0, apart), directed=False)
    if not np.isfinite(apart).all():
        return circle
    center = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * center @ apart**2 @ center)
    # Signs of eigenvectors are any: the largest part is above 0.
    axes = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0))
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]] + 1e-12)
    places = axes / max(1e-9, np.abs(axes).max())
    # A line of cameras is bent a little, so that ways past the next one are seen.
    if np.abs(places[:, 1]).max() < 0.35:
        places[:, 1] += 0.5 * (places[:, 0] ** 2 - np.mean(places[:, 0] ** 2))
    places += 0.01 * circle
    for _ in range(200):
        between = places[:, None] - places[None]
        lengths = np.linalg.norm(between, axis=2) + np.eye(count)
        missing = np.maximum(0, _LEAST_APART - lengths) * (1 - np.eye(count))
        places = places + 0.25 * np.sum(between / lengths[..., None] * missing[..., None], axis=1)
    return np.asarray(places)


def _free_spot(start: np.ndarray, end: np.ndarray, bend: float, taken: Sequence[np.ndarray]) -> np.ndarray:
    """Return the point of a bent arrow that is the farthest from what is written already, near to its middle."""
    along = end - start
    corner = start + along / 2 + bend * np.array([along[1], -along[0]])
    at = np.linspace(0.3, 0.7, 9)[:, None]
    points = (1 - at) ** 2 * start + 2 * at * (1 - at) * corner + at**2 * end
    # Words are wider than tall: lines below each other may be nearer.
    apart = np.array([min(np.hypot(*((point - other) * (1, 3))) for other in taken) for point in points])
    return points[int(np.argmax(np.minimum(apart, 0.5) - 0.2 * np.abs(at[:, 0] - 0.5)))]


def _duration(seconds: float) -> tuple[str, str]:
    if seconds < 180:
        return f"{seconds:.0f}", "s"
    return (f"{seconds / 60:.0f}", "min") if seconds < 10_800 else (f"{seconds / 3600:.1f}", "h")


def _reach(gaps: np.ndarray, matched: np.ndarray) -> float:
    """Return the seconds on either side that hold nine tenths of the matches, and not less than two minutes."""
    order = np.argsort(np.abs(gaps))
    cumulated = np.cumsum(matched[order])
    at = int(np.searchsorted(cumulated, 0.9 * cumulated[-1]))
    return float(min(np.abs(gaps).max(), max(120.0, 1.1 * np.abs(gaps[order[min(at, len(order) - 1)]]))))
