"""Say why two sightings may be of one person: the parts that agree, and the time between two cameras."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from reprism.data.records import Item
from reprism.linking.ratios import View
from reprism.linking.routes import Offset, Route, clock_ahead, clock_offsets, find_routes
from reprism.linking.transit import CameraNetwork

if TYPE_CHECKING:
    from reprism.evaluation.part_scale import PartAgreement

Verdict = Literal["usual", "unclear", "unusual", "unknown"]

_NAMED = 4  # parts that are named one by one
_SAYS_LITTLE = math.log(2)


@dataclass(frozen=True, eq=False)
class Site:
    """A network of cameras, and what is read from it to put times into words.

    Attributes:
        network: The network.
        routes: What is known about every two cameras, in order (:func:`reprism.linking.routes.find_routes`).
        offsets: How far cameras' clocks are ahead, where it is told (:func:`reprism.linking.routes.clock_offsets`).
    """

    network: CameraNetwork
    routes: Mapping[tuple[str, str], Route]
    offsets: Mapping[str, Offset]

    @classmethod
    def of(cls, network: CameraNetwork) -> Site:
        """Read a network; once for all pairs that are to be explained by it."""
        routes = find_routes(network)
        return cls(network, routes, clock_offsets(routes))


@dataclass(frozen=True)
class Reason:
    """Why two sightings may be of one person, or may not.

    Attributes:
        agree, differ: Names of the parts that agree and that differ, as ``p2s1``.
        parts: Number of parts that were compared; 0: none were.
        cameras: The cameras of the two sightings, the earlier one first; None where unknown.
        seconds: Seconds between them, with clocks set right where their offset is told; None where unknown.
        usual: Lower and upper quartile, in seconds, of the usual times that way; None where there is no usual way.
        at_once: Whether both cameras saw a person at once, as these two do.
        log_ratio: Natural logarithm of how much likelier the times are for one person than for any two.
        floor: Logarithm of the least ratio that these cameras give any times; None where the network says nothing.
        verdict: ``usual`` if matches have such a gap more often than any two sightings, and it speaks for one person;
            ``unusual`` if they do not, and it speaks against: the floor alone keeps that possible; ``unclear``
            otherwise; ``unknown`` if the network says nothing.
        times: All of this about cameras and times in words.
    """

    agree: tuple[str, ...]
    differ: tuple[str, ...]
    parts: int
    cameras: tuple[str | None, str | None]
    seconds: float | None
    usual: tuple[float, float] | None
    at_once: bool
    log_ratio: float
    floor: float | None
    verdict: Verdict
    times: str

    @property
    def text(self) -> str:
        """Why, in a sentence without a full stop: ``p2s2 and p2c1 agree; 41 s between stairs and yard, …``."""
        return "; ".join(filter(None, (self.looks, self.times)))

    @property
    def looks(self) -> str:
        """The parts that agree and differ in words; empty where none were compared."""
        if not self.parts:
            return ""
        said = _listed(self.agree, self.parts, "agrees", "agree") if self.agree else "no part agrees"
        return f"{said}, {_listed(self.differ, self.parts, 'differs', 'differ')}" if self.differ else said

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON, with ``text``."""
        return {"text": self.text} | asdict(self)


def explain_pair(query: Item, row: Item, site: Site, parts: Mapping[str, PartAgreement] | None = None) -> Reason:
    """Say why two sightings may be of one person.

    Args:
        query, row: The two sightings; cameras and times may be unknown.
        site: The network of cameras (``Site.of(network)``).
        parts: How well each part agrees, by name (:attr:`reprism.gallery.search.Match.parts`); None: not compared.
    """
    agree, differ = (
        tuple(name for name, part in (parts or {}).items() if part.verdict == verdict)
        for verdict in ("agrees", "differs")
    )
    return Reason(agree, differ, len(parts or {}), **_times(query, row, site))


def _times(query: Item, row: Item, site: Site) -> dict[str, Any]:
    """Return what a reason says of cameras and times, by the names of its attributes."""
    one, other = (None if item.camid is None else str(item.camid) for item in (query, row))
    said: dict[str, Any] = {
        "cameras": (one, other),
        "seconds": None,
        "usual": None,
        "at_once": False,
        "log_ratio": 0.0,
        "floor": None,
        "verdict": "unknown",
    }
    if one is None or other is None:
        return said | {"times": "a camera is not known: times say nothing"}
    if query.time is None or row.time is None:
        return said | {"times": "a time is not known: times say nothing"}
    if one == other:
        gap = row.time - query.time
        words = f"{_duration(abs(gap))} apart by {one}: times say nothing of one camera"
        return said | {"seconds": abs(gap) if query.recording == row.recording else None, "times": words}
    # In the order of the cameras' names, as the network has them.
    views = View(one, query.recording or ""), View(other, row.recording or "")
    times = (query.time, row.time)
    if views[0] > views[1]:
        views, times = (views[1], views[0]), (times[1], times[0])
    table = site.network.ratio_by_gap(*views)
    if table is None:
        return said | {"times": _nothing_known(site.network, one, other)}
    said |= {
        "log_ratio": float(site.network.log_ratio([query], [row])[0, 0]),
        "floor": float(table.min()),
        "verdict": "unclear",
    }
    route = site.routes.get((views[0].camera, views[1].camera))
    if views[0].recording != views[1].recording or route is None:
        return said | {"times": f"{one} and {other} in two recordings: {_odds(said['log_ratio'])}"}
    return said | _on_route(route, (views[0].camera, views[1].camera), times, said, site)


def _on_route(
    route: Route, cameras: tuple[str, str], times: tuple[float, float], said: Mapping[str, Any], site: Site
) -> dict[str, Any]:
    """Return what times say where two cameras of one recording are known.

    Args:
        route: What is known about them.
        cameras: The two, in order.
        times: The times of the sightings by them, by their clocks.
        said: What the network says of it, as in :func:`_times`.
        site: Where they stand.
    """
    width = site.network.settings.bin_seconds
    gap = times[1] - times[0]
    # In bins as the network counts them.
    at = math.floor(times[1] / width) - math.floor(times[0] / width) + len(route.gaps) // 2
    is_usual = 0 <= at < len(route.usual) and bool(route.usual[at])
    ahead = clock_ahead(site.offsets, *cameras) or 0.0
    true_gap = gap - ahead
    way = route.ways(ahead)[0 if true_gap > 0 else 1]
    usual = None if way is None else (way.quartiles[0], way.quartiles[2])
    at_once = route.at_once and is_usual and abs(gap - route.peak) <= site.network.settings.smoothing
    log_ratio = said["log_ratio"]
    verdict: Verdict = "unclear"
    if log_ratio < 0 and not is_usual:
        verdict = "unusual"
    elif log_ratio > 0 and is_usual:
        verdict = "usual"
    first, then = cameras if true_gap >= 0 else cameras[::-1]
    normally = "" if usual is None else f"usual {_span(*usual)}"
    words = f"{_duration(abs(true_gap))} between {first} and {then}"
    if at_once:
        words = f"{first} and {then} see people at once, {_duration(abs(true_gap))} apart here"
    elif verdict == "unusual":
        words += f": no usual way{normally and f' ({normally})'}; times count no more than "
        words += f"{_times_as(-said['floor'])} to 1 against it"
    elif verdict == "usual":
        words += f", {normally or 'as is usual'}"
    else:
        words += f"{normally and f', {normally}'}: {_odds(log_ratio)}"
    return {
        "cameras": (first, then),
        "seconds": abs(true_gap),
        "usual": usual,
        "at_once": at_once,
        "verdict": verdict,
        "times": words,
    }


def _nothing_known(network: CameraNetwork, one: str, other: str) -> str:
    known = {view.camera for view in network.sightings}
    for camera in (one, other):
        if camera not in known:
            return f"{camera} is not in the network of cameras: times say nothing"
    return f"{one} to {other}: too few matches to tell"


def _listed(names: Sequence[str], parts: int, one: str, many: str) -> str:
    if len(names) > _NAMED:
        return f"{len(names)} of {parts} parts {many}"
    *first, last = names
    return f"{', '.join(first)} and {last} {many}" if first else f"{last} {one}"


def _odds(log_ratio: float) -> str:
    """Say how much times count."""
    if abs(log_ratio) < _SAYS_LITTLE:
        return "times say little"
    return f"times count {_times_as(abs(log_ratio))} to 1 {'for' if log_ratio > 0 else 'against'} it"


def _times_as(log_ratio: float) -> str:
    """Return how many to 1 a logarithm is, rounded up: what is said to be a bound is one."""
    return f"{math.ceil(math.exp(log_ratio) - 1e-6):,}"


_UNITS = ((86_400.0, "days", 2), (3600.0, "h", 2), (60.0, "min", 2), (1.0, "s", 0))


def _unit(seconds: float) -> tuple[float, str]:
    """Return the unit in which a duration is told: the largest of which it has two."""
    return next((size, name) for size, name, least in _UNITS if seconds >= least * size)


def _duration(seconds: float) -> str:
    size, name = _unit(seconds)
    return f"{seconds / size:.0f} {name}"


def _span(low: float, high: float) -> str:
    size, name = _unit(high)
    first, last = f"{low / size:.0f}", f"{high / size:.0f}"
    return f"{last} {name}" if first == last else f"{first} to {last} {name}"
