"""The demo's last section: who was seen where on a drawn site, and each tracklet's nearest ones in other cameras."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from reprism.report.charts import chart
from reprism.report.pages import Picture, Table, figure_uri, picture_uri

_STRIP = 4  # pictures of a strip
_HEIGHT = 112
_GAP = 2
_NOBODY = "#7b8490"


@dataclass(frozen=True, eq=False)
class Sighting:
    """A tracklet on a drawn site, with who it truly is.

    Attributes:
        camera: The camera.
        first, last: Times of the first and last sight.
        person: Number of the person; None if it is of nobody, or of several.
        strip: Small JPEG pictures, in the order of time.
    """

    camera: str
    first: datetime
    last: datetime
    person: int | None
    strip: list[bytes]


@dataclass(frozen=True, eq=False)
class Answer:
    """A tracklet, and the nearest one of every other camera with its distance."""

    sighting: Sighting
    elsewhere: list[tuple[Sighting, float]]

    @property
    def is_right(self) -> bool:
        """Whether the nearest one of all is of the same person."""
        nearest, _ = min(self.elsewhere, key=lambda pair: pair[1])
        return nearest.person == self.sighting.person


def answerable(answers: Sequence[Answer]) -> list[Answer]:
    """Return those whose person another camera saw too."""
    cameras = defaultdict(set)
    for answer in answers:
        cameras[answer.sighting.person].add(answer.sighting.camera)
    return [
        answer for answer in answers if answer.sighting.person is not None and len(cameras[answer.sighting.person]) > 1
    ]


def site_section(
    sightings: Sequence[Sighting], answers: Sequence[Answer], metrics: Mapping[str, Any], *, shown: int = 6
) -> dict[str, Any]:
    """Return what the template shows of a site.

    Args:
        sightings: All tracklets, in the order of time.
        answers: What was found elsewhere for each.
        metrics: As ``metrics.json`` has them.
        shown: Number of people of whom a tracklet is shown with the nearest ones elsewhere.
    """
    start = min((one.first for one in sightings), default=None)
    people = _one_each(answers, shown)
    return {
        "metrics": metrics,
        "cameras": len({one.camera for one in sightings}),
        "timeline": timeline(sightings),
        "people": _table(sightings, answers),
        "rows": [_row(answer, start) for answer in people if start is not None],
    }


def _one_each(answers: Sequence[Answer], count: int) -> list[Answer]:
    """Return the first tracklet of each person whom another camera saw too."""
    chosen: dict[int | None, Answer] = {}
    for answer in answerable(answers):
        if answer.sighting.strip:
            chosen.setdefault(answer.sighting.person, answer)
    return list(chosen.values())[:count]


def _row(answer: Answer, start: datetime) -> list[Picture]:
    asked = answer.sighting
    pictures = [_picture(asked, start, f"Person {asked.person}, ", "")]
    for one, distance in sorted(answer.elsewhere, key=lambda pair: pair[1]):
        verdict = "the same person" if one.person == asked.person else _name(one.person)
        if one.strip:
            pictures.append(_picture(one, start, "", f": {verdict}, distance {distance:.2f}"))
    return pictures


def _picture(one: Sighting, start: datetime, before: str, after: str) -> Picture:
    words = f"{before}{one.camera}, {_clock(one.first, start)} to {_clock(one.last, start)}{after}"
    return Picture(picture_uri(_strip(one.strip)), f"a walk past a camera: {words}", words)


def _name(person: int | None) -> str:
    return "nobody, or several people" if person is None else f"person {person}"


def _clock(moment: datetime, start: datetime) -> str:
    minutes, seconds = divmod(int((moment - start).total_seconds()), 60)
    return f"{minutes}:{seconds:02}"


def _strip(pictures: Sequence[bytes]) -> Image.Image:
    """Return some of the pictures side by side, on white."""
    chosen = (
        [pictures[index * len(pictures) // _STRIP] for index in range(_STRIP)] if len(pictures) > _STRIP else pictures
    )
    images = [_resized(content) for content in chosen]
    width = sum(image.width + _GAP for image in images) - _GAP
    strip = Image.new("RGB", (width, _HEIGHT), "white")
    left = 0
    for image in images:
        strip.paste(image, (left, 0))
        left += image.width + _GAP
    return strip


def _resized(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        return image.resize((max(1, round(image.width * _HEIGHT / image.height)), _HEIGHT))


def _table(sightings: Sequence[Sighting], answers: Sequence[Answer]) -> Table:
    """Return a line for each person: tracklets, cameras, and how often they were found elsewhere."""
    tracklets = Counter(one.person for one in sightings)
    cameras = defaultdict(set)
    for one in sightings:
        cameras[one.person].add(one.camera)
    asked = Counter(answer.sighting.person for answer in answerable(answers))
    right = Counter(answer.sighting.person for answer in answerable(answers) if answer.is_right)
    rows = [
        (
            f"Person\N{NO-BREAK SPACE}{person}",
            tracklets[person],
            ", ".join(sorted(cameras[person])),
            f"{right[person]} of {asked[person]}" if asked[person] else "",
        )
        for person in sorted(person for person in tracklets if person is not None)
    ]
    if tracklets[None]:
        rows.append(("Nobody, or several", tracklets[None], ", ".join(sorted(cameras[None])), ""))
    return Table(("", "tracklets", "cameras", "found first elsewhere"), rows)


def timeline(sightings: Sequence[Sighting]) -> Picture:
    """Return a chart of who was in front of which camera when, a color and a number for each person."""
    figure, axes = chart("seconds", "")
    figure.set_size_inches(7.6, 2.6)
    cameras = sorted({one.camera for one in sightings})
    start = min((one.first for one in sightings), default=None)
    colors = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    lanes = _lanes(sightings)
    deep = [max((lanes[index] for index, one in enumerate(sightings) if one.camera == camera), default=0) + 1
            for camera in cameras]  # fmt: skip
    bottoms = {camera: sum(deep[:number]) + number for number, camera in enumerate(cameras)}
    for index, one in enumerate(sightings):
        if start is None:
            break
        left, right = ((moment - start).total_seconds() for moment in (one.first, one.last))
        color = _NOBODY if one.person is None else colors[(2 * one.person) % 20 + (one.person // 10) % 2]
        bottom = bottoms[one.camera] + lanes[index]
        axes.broken_barh([(left, max(right - left, 0.5))], (bottom + 0.08, 0.84), facecolors=color)
        if one.person is not None:
            axes.text(left + 0.3, bottom + 0.5, str(one.person), fontsize=6, va="center", color="black", clip_on=True)
    axes.set_yticks([bottoms[camera] + deep[number] / 2 for number, camera in enumerate(cameras)], cameras)
    axes.set_ylim(max(sum(deep) + len(cameras), 1) - 0.5, -0.5)
    axes.set_xlim(left=0)
    _grow(figure, sum(deep) + len(cameras))
    return Picture(
        figure_uri(figure),
        "Who was in front of which camera when",
        "Each bar is a tracklet, with the number of the person; gray ones are of nobody or of several people.",
        least_width=620,
    )


def _grow(figure: Figure, lanes: int) -> None:
    figure.set_size_inches(7.6, 0.9 + 0.14 * max(lanes, 8))


def _lanes(sightings: Sequence[Sighting]) -> list[int]:
    """Return for each the first lane of its camera that is free from its first sight on; they are in order of time."""
    ends: dict[str, list[datetime]] = defaultdict(list)
    lanes = []
    for one in sightings:
        free = next((lane for lane, end in enumerate(ends[one.camera]) if end < one.first), len(ends[one.camera]))
        ends[one.camera][free : free + 1] = [one.last]
        lanes.append(free)
    return lanes
