"""What a search found, as one page with the pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from PIL import Image

from reprism.data.images import ImageError, read_image
from reprism.figures.report import Html, Section, escaped, page, paragraph, picture_uri, table
from reprism.files import write_whole
from reprism.gallery.search import Match
from reprism.gallery.table import Gallery

_HEIGHT = 128  # of a picture, in CSS pixels
_BAR = 7  # width of a part's bar and the space beside it


def write_search_page(
    path: str | PathLike[str],
    gallery: Gallery,
    answers: Sequence[tuple[str, Sequence[Match]]],
    title: str = "Search",
) -> None:
    """Write a self-contained page: of each query its picture, and its matches with theirs.

    A match is shown by its thumbnail in the gallery, or else by the picture it was made from, if that can be read.

    Args:
        path: where.
        gallery: what was searched.
        answers: each query's picture file, and its matches.
        title: of the page.

    Raises:
        ImageError: a query's picture cannot be read.
    """
    sections = [Section(Path(query).name, _answer(gallery, query, matches)) for query, matches in answers]
    lead = f"{len(gallery):,} rows in {gallery.uri} were searched."
    bars = (
        "Bars: each part's share in the squared distance; a short bar is a part that agrees. "
        f"From left to right the parts of {gallery.partition}."
    )
    shown = any(match.shares for _, matches in answers for match in matches)
    write_whole(path, page(title, sections, lead=[paragraph(lead), *([paragraph(bars)] if shown else [])]))


def _answer(gallery: Gallery, query: str, matches: Sequence[Match]) -> list[str]:
    asked = Html(f"<p>{_picture(_from_file(query), f'the person searched for, {Path(query).name}')}</p>")
    if not matches:
        return [asked, "No match."]
    probable = any(match.probability is not None for match in matches)
    split = any(match.shares for match in matches)
    timed = any(match.time is not None for match in matches)
    header = ["rank", "picture", "distance", *(["probability"] if probable else []), "identity", "camera"]
    header += [*(["time"] if timed else []), *(["parts"] if split else []), "image"]
    highest = max((max(match.shares.values()) for match in matches if match.shares), default=0.0)
    rows = [
        [
            match.rank,
            _match_picture(gallery, match),
            f"{match.distance:.3f}",
            *(["" if match.probability is None else f"{match.probability:.0%}"] if probable else []),
            match.pid or "unknown",
            match.camid or "unknown",
            *(["unknown" if match.time is None else match.time.isoformat(" ", "seconds")] if timed else []),
            *([_bars(match.shares or {}, highest)] if split else []),
            # A path has no place to be broken at but any.
            Html(f'<span style="overflow-wrap: anywhere">{escaped(match.path)}</span>'),
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


def _bars(shares: dict[str, float], highest: float) -> Html:
    """A bar for each part, with its name and share to be read where it is pointed at, or aloud."""
    width, height = _BAR * max(1, len(shares)), 48
    said = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
    bars = "".join(
        f'<rect x="{_BAR * place}" y="{height - rise:.1f}" width="{_BAR - 2}" height="{rise:.1f}" '
        f'fill="currentColor"><title>{escaped(name)} {share:.3f}</title></rect>'
        for place, (name, share) in enumerate(shares.items())
        for rise in [max(1.0, height * share / max(highest, 1e-12))]
    )
    return Html(f'<svg role="img" aria-label="{escaped(said)}" width="{width}" height="{height}">{bars}</svg>')
