"""What a search found, as one page with the pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from PIL import Image

from reprism.data.images import ImageError, read_image
from reprism.evaluation.part_scale import NO_SCALE, PartAgreement, summary
from reprism.files import write_whole
from reprism.gallery.search import Match
from reprism.gallery.table import Gallery
from reprism.report.lists_page import BARS
from reprism.report.report import COLOURS, Html, Section, escaped, page, paragraph, picture_uri, table

_HEIGHT = 128  # of a picture, in CSS pixels
_BAR, _BAR_HEIGHT = 8, 48  # of a part's bar, with the space beside it


def write_search_page(
    path: str | PathLike[str],
    gallery: Gallery,
    answers: Sequence[tuple[str, Sequence[Match]]],
    title: str = "Search",
) -> None:
    """Write a self-contained page: of each query its picture, and its matches with theirs.

    A match is shown by its thumbnail in the gallery, or else by the picture it was made from, if that can be read.

    Args:
        path: Where.
        gallery: What was searched.
        answers: Each query's picture file, and its matches.
        title: Of the page.

    Raises:
        ImageError: A query's picture cannot be read.
    """
    sections = [Section(Path(query).name, _answer(gallery, query, matches)) for query, matches in answers]
    lead = f"{len(gallery):,} rows in {gallery.uri} were searched."
    matches = [match for _, found in answers for match in found]
    notes = []
    if any(match.parts for match in matches):
        notes = [paragraph(f"{BARS} From left to right the parts of {gallery.partition}.")]
    elif any(match.shares for match in matches):
        notes = [paragraph(NO_SCALE)]
    write_whole(path, page(title, sections, lead=[paragraph(lead), *notes]))


def _answer(gallery: Gallery, query: str, matches: Sequence[Match]) -> list[str]:
    asked = Html(f"<p>{_picture(_from_file(query), f'the person searched for, {Path(query).name}')}</p>")
    if not matches:
        return [asked, "No match."]
    probable = any(match.probability is not None for match in matches)
    split = any(match.parts for match in matches)
    timed = any(match.time is not None for match in matches)
    header = ["rank", "picture", "distance", *(["probability"] if probable else []), "identity", "camera"]
    header += [*(["time"] if timed else []), *(["parts"] if split else []), "image"]
    rows = [
        [
            match.rank,
            _match_picture(gallery, match),
            f"{match.distance:.3f}",
            *(["" if match.probability is None else f"{match.probability:.0%}"] if probable else []),
            match.pid or "unknown",
            match.camid or "unknown",
            *(["unknown" if match.time is None else match.time.isoformat(" ", "seconds")] if timed else []),
            *([_parts(match.parts or {})] if split else []),
            # A path has no place to be broken at but any; on a phone it is not to stand upright.
            Html(f'<div style="overflow-wrap: anywhere; min-width: 12rem">{escaped(match.path)}</div>'),
        ]
        for match in matches
    ]
    return [asked, table(header, rows, numbers=False)]


def _match_picture(gallery: Gallery, match: Match) -> str:
    alt = f"match {match.rank}"
    try:
        thumbnail = gallery.thumbnail(match.id)
    except KeyError:  # erased since
        return "erased"
    if thumbnail is not None:
        return _picture(f"data:image/jpeg;base64,{base64.b64encode(thumbnail).decode('ascii')}", alt)
    try:
        return _picture(_from_file(match.path), alt)
    except ImageError:
        return "no picture"


def _from_file(path: str) -> str:
    picture = Image.fromarray(read_image(path).permute(1, 2, 0).numpy())
    picture.thumbnail((8 * _HEIGHT, 2 * _HEIGHT))  # sharp on screens of two pixels to one
    return picture_uri(picture)


def _picture(uri: str, alt: str) -> Html:
    return Html(f'<img src="{escaped(uri)}" alt="{escaped(alt)}" style="height:{_HEIGHT}px">')


def _parts(parts: Mapping[str, PartAgreement]) -> Html:
    """Return a bar for each part above a summary; a bar says what it shows where it is pointed at, or aloud."""
    width = _BAR * max(1, len(parts))
    words = {name: f"{name}: {part.verdict}, {part.words}" for name, part in parts.items()}
    bars = "".join(
        f"<g><title>{escaped(words[name])}</title>{_bar(_BAR * place, part)}</g>"
        for place, (name, part) in enumerate(parts.items())
    )
    floor = f'<path d="M0 {_BAR_HEIGHT + 0.5}H{width}" stroke="currentColor"/>'
    drawn = (
        f'<svg role="img" aria-label="{escaped("; ".join(words.values()))}" width="{width}" '
        f'height="{_BAR_HEIGHT + 1}">{bars}{floor}</svg>'
    )
    return Html(f'{drawn}<div style="min-width: 10rem"><small>{escaped(summary(parts))}</small></div>')


def _bar(left: int, part: PartAgreement) -> str:
    """Return a bar as high as the percentile among strangers: filled, hollow or striped by its verdict."""
    rise = max(2.0, _BAR_HEIGHT * part.strangers / 100)
    thick, middle = _BAR - 2, left + (_BAR - 2) / 2
    if part.verdict == "unclear":
        return (
            f'<rect x="{left + 0.5}" y="{_BAR_HEIGHT - rise + 0.5:.1f}" width="{thick - 1}" height="{rise:.1f}" '
            'fill="none" stroke="currentColor"/>'
        )
    ink = {"agrees": f'stroke="{COLOURS[2]}"', "differs": f'stroke="{COLOURS[1]}" stroke-dasharray="3 2"'}[part.verdict]
    return f'<path d="M{middle} {_BAR_HEIGHT}V{_BAR_HEIGHT - rise:.1f}" stroke-width="{thick}" {ink}/>'
