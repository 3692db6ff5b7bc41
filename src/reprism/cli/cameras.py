"""``reprism cameras``."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reprism.cli.arguments import parse
from reprism.cli.output import figures_table, progress_bars

if TYPE_CHECKING:
    from reprism.gallery.camera_info import CameraInfo
    from reprism.gallery.camera_settings import CameraSettings

_BARS = "▁▂▃▄▅▆▇█"
_UNKNOWN = "(unknown)"
_WIDE = 90  # columns of a terminal, from which on a bar for each hour fits


@dataclass
class Arguments:
    """Show what a gallery holds of each camera, and set cameras right.

    The first table has rows, tracklets, rows per hour, the longest time without a row, and bars for the hours of the
    day: when the camera sees people, whether it stopped, whether its clock is off. The second has the times of its
    first and last row, and how bright and large its pictures are (of up to 64 thumbnails, drawn at random).

    Rates count from a camera's first row to its last, nights included.

    With --clock-ahead the times of a camera's rows are set right; --ignore names a picture of its view, white where
    nobody is to be found. reprism watch goes by both from then on. Nothing else is changed.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery that reprism index created."""
    clock_ahead: tuple[str, ...] = ()
    """Camera and the seconds by which its clock is ahead of the true time, such as gate=40; negative if
    it is behind."""
    ignore: tuple[str, ...] = ()
    """Camera and the picture of what is left out, such as gate=view.png; gate=none leaves out nothing."""
    timezone: str = "UTC"
    """Time zone to show times and hours in, such as Europe/Berlin."""
    json: bool = False
    """Print JSON instead: times in UTC, hours of --timezone."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism cameras``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism cameras",
        example="reprism cameras gallery\nreprism cameras gallery --clock-ahead gate=40 --ignore gate=view.png",
        main=("clock_ahead", "ignore", "timezone", "json"),
    )

    from reprism.gallery.table import Gallery

    gallery = Gallery.open(arguments.gallery)
    changes = settings_of(arguments, gallery.camera_settings())
    for camid, settings in changes.items():
        changed = gallery.set_camera(camid, settings)
        print(f"{camid}: times of {changed:,} rows set right", file=sys.stderr)
    set_before = gallery.camera_settings()
    with progress_bars() as progress:
        found = gallery.cameras(arguments.timezone, progress=partial(progress, "reading the gallery"))
    if arguments.json:
        print(json.dumps([each.as_dict() | _settings_json(each.camid, set_before) for each in found], indent=2))
        return 0
    if not found:
        print(f"{arguments.gallery} is empty")
        return 0
    console = Console(highlight=False)
    console.print(rows_table(found, arguments.timezone, console.width))
    console.print(times_table(found, arguments.timezone))
    if set_before:
        console.print(settings_table(set_before))
    return 0


def settings_of(arguments: Arguments, present: "Mapping[str, CameraSettings]") -> "dict[str, CameraSettings]":
    """Return the settings of the cameras that are to be changed.

    Raises:
        ValueError: An option is not CAMERA=VALUE, or seconds are no number.
        DetectorError: A picture of what is left out cannot be read.
    """
    from reprism.cameras.regions import read_regions
    from reprism.gallery.camera_settings import CameraSettings

    changes: dict[str, CameraSettings] = {}

    def change(camid: str, **values: Any) -> None:
        changes[camid] = replace(changes.get(camid) or present.get(camid) or CameraSettings(), **values)

    for given in arguments.clock_ahead:
        camid, seconds = _parted(given, "--clock-ahead", "gate=40")
        try:
            change(camid, clock_ahead=float(seconds))
        except ValueError:
            raise ValueError(f"--clock-ahead {given}: expected seconds after the =, got {seconds!r}") from None
    for given in arguments.ignore:
        camid, picture = _parted(given, "--ignore", "gate=view.png")
        if picture != "none":
            read_regions(picture)
        change(camid, ignore=None if picture == "none" else Path(picture).read_bytes())
    return changes


def _parted(given: str, option: str, example: str) -> tuple[str, str]:
    camid, found, value = given.rpartition("=")
    if not found or not camid or not value:
        raise ValueError(f"{option} {given}: expected a camera and a value, such as {example}")
    return camid, value


def _settings_json(camid: str | None, settings: "Mapping[str, CameraSettings]") -> dict[str, Any]:
    one = settings.get(camid) if camid is not None else None
    return {"clock_ahead": one.clock_ahead if one else 0.0, "ignores": one is not None and one.ignore is not None}


def settings_table(settings: "Mapping[str, CameraSettings]") -> Table:
    """Return what was set for cameras, whether they have rows or not."""
    table = figures_table("set for cameras", ("clock ahead", "leaves out"), label="camera")
    for camid, one in sorted(settings.items()):
        share = ""
        if one.ignore is not None:
            from reprism.cameras.regions import read_regions

            share = f"{100 * read_regions(one.ignore).mean():.0f} % of the view"
        table.add_row(escape(camid), f"{one.clock_ahead:+g} s" if one.clock_ahead else "", share)
    return table


def rows_table(found: Sequence["CameraInfo"], timezone: str, width: int) -> Table:
    """Return how much each camera saw, and at which hours; on a narrow terminal two hours share a bar."""
    step = 1 if width >= _WIDE else 2
    each_bar = "an hour" if step == 1 else "two hours"
    title = f"rows; the day from 0 to 24 o'clock in {timezone}, a bar for {each_bar}, the highest for a camera's most"
    table = figures_table(title, ("rows", "tracklets", "per hour", "longest gap", "day"), label="camera")
    for each in found:
        gap = "" if each.longest_gap is None else duration(each.longest_gap[1] - each.longest_gap[0])
        rate = "" if each.per_hour is None else f"{each.per_hour:,.{1 if each.per_hour < 100 else 0}f}"
        bars = hour_bars([sum(each.hours[hour : hour + step]) for hour in range(0, 24, step)]) if each.timed else ""
        table.add_row(_name(each), f"{each.rows:,}", f"{each.tracklets:,}", rate, gap, bars)
    return table


def times_table(found: Sequence["CameraInfo"], timezone: str) -> Table:
    """Return when each camera saw its first and last, and how its pictures look."""
    zone = ZoneInfo(timezone)
    table = figures_table(
        f"times in {timezone}; light of pictures in percent of white, and their median height × width",
        ("first", "last", "no time", "light", "pixels"),
        label="camera",
    )

    def shown(moment: datetime | None) -> str:
        return "" if moment is None else f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"

    for each in found:
        untimed = f"{each.rows - each.timed:,}" if each.rows > each.timed else ""
        brightness = "" if each.brightness is None else f"{100 * each.brightness:.0f}"
        size = "" if each.picture_size is None else "{}×{}".format(*each.picture_size)
        table.add_row(_name(each), shown(each.first), shown(each.last), untimed, brightness, size)
    return table


def hour_bars(hours: Sequence[int]) -> str:
    """Return a bar for each number, as high as its share of the largest; a dot for 0."""
    most = max(hours)
    return "".join(_BARS[(len(_BARS) * count - 1) // most] if count else "·" for count in hours)


def duration(length: timedelta) -> str:
    """Write a duration in its two largest units: ``3 d 4 h``, ``12 min 30 s``."""
    seconds = round(length.total_seconds())
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    largest = next((number for number, (_, size) in enumerate(units) if seconds >= size), len(units) - 1)
    parts = []
    for name, size in units[largest : largest + 2]:
        count, seconds = divmod(seconds, size)
        parts.append(f"{count} {name}")
    return " ".join(parts[:1] if parts[-1].startswith("0 ") else parts)


def _name(each: "CameraInfo") -> str:
    return _UNKNOWN if each.camid is None else escape(each.camid)
