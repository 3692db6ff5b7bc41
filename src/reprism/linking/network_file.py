"""The file of a network of cameras: counts by time and gap as JSON, checked when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from reprism.linking.answers import Basis
from reprism.linking.gains import Gain, HeldOut, Share
from reprism.linking.ratios import Histogram, TransitSettings, View

_FORMAT, _VERSION = "reprism camera network", 1

MOST_BINS = 2**22
"""Bins that the sightings of a view may span."""


class Contents(NamedTuple):
    """What a file holds; the attributes are those of :class:`reprism.CameraNetwork`."""

    sightings: Mapping[View, Histogram]
    gaps: Mapping[tuple[View, View], Histogram]
    settings: TransitSettings
    held_out: HeldOut | None
    basis: Basis | None


def as_values(contents: Contents) -> dict[str, Any]:
    """Return values for JSON."""
    views = list(contents.sightings)
    number = {view: at for at, view in enumerate(views)}
    values: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        "settings": asdict(contents.settings),
        "views": [
            {"camera": view.camera, "recording": view.recording, "sightings": list(contents.sightings[view].items())}
            for view in views
        ],
        "gaps": [
            {"from": number[one], "to": number[other], "pairs": list(histogram.items())}
            for (one, other), histogram in contents.gaps.items()
        ],
    }
    if contents.basis is not None:
        values["learned"] = asdict(contents.basis)
    if contents.held_out is not None:
        values["held_out"] = {
            "overall": contents.held_out.overall,
            "cameras": [[*cameras, *gain] for cameras, gain in contents.held_out.cameras.items()],
        }
    return values


def read_values(values: Any) -> Contents:
    """Read what :func:`as_values` returned.

    Raises:
        ValueError, TypeError, KeyError, IndexError, AttributeError: It is something else, or of a newer version.
    """
    if values["format"] != _FORMAT:
        raise ValueError(f"it is no file of a {_FORMAT}")
    if values["version"] != _VERSION:
        raise ValueError(f"it is of version {values['version']}, this Reprism reads {_VERSION}: update it")
    settings = TransitSettings(**values["settings"])
    views = [View(str(view["camera"]), str(view["recording"])) for view in values["views"]]
    sightings = {
        view: _histogram(about["sightings"], MOST_BINS) for view, about in zip(views, values["views"], strict=True)
    }
    gaps = {
        (views[about["from"]], views[about["to"]]): _histogram(about["pairs"], 2 * settings.reach + 3)
        for about in values["gaps"]
    }
    for (one, other), histogram in gaps.items():
        if one >= other or one.camera == other.camera or max(map(abs, histogram)) > settings.reach + 1:
            raise ValueError(f"the gaps between {one} and {other} cannot be right")
    learned = values.get("learned")
    basis = None if learned is None else Basis(**learned)
    return Contents(sightings, gaps, settings, _held_out(values.get("held_out")), basis)


def _histogram(pairs: Sequence[Sequence[int]], most: int) -> Histogram:
    histogram = {int(at): int(count) for at, count in pairs}
    if not histogram or min(histogram.values()) < 1 or max(histogram) - min(histogram) >= most:
        raise ValueError("a histogram is empty, too long, or has a count below 1")
    return histogram


def _held_out(values: Mapping[str, Sequence[Any]] | None) -> HeldOut | None:
    if values is None:
        return None
    overall = _gain(*values["overall"])
    return HeldOut(overall, {(str(one), str(other)): _gain(*gain) for one, other, *gain in values["cameras"]})


def _gain(pairs: int, mean: float, low: float, high: float, share: Sequence[float] | None = None) -> Gain:
    gain = Gain(int(pairs), float(mean), float(low), float(high), None if share is None else Share(*map(float, share)))
    if gain.pairs < 0 or not low <= high or not (gain.share is None or 0 <= gain.share.low <= gain.share.high <= 1):
        raise ValueError("a gain of held-out matches cannot be right")
    return gain
