"""Write what a search found, as one page with the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from PIL import Image

from reprism.data.images import ImageError, read_image
from reprism.evaluation.part_scale import NO_SCALE, summary
from reprism.files import write_whole
from reprism.gallery.search import Match
from reprism.gallery.table import Gallery
from reprism.report.lists_page import BARS
from reprism.report.pages import Picture, data_uri, picture_uri, render

_HEIGHT = 128  # CSS pixels of a picture, as style.css sets them


def write_search_page(
    path: str | PathLike[str],
    gallery: Gallery,
    answers: Sequence[tuple[str, Sequence[Match]]],
    title: str = "Search",
) -> None:
    """Write a self-contained page with each query's picture, and its matches with theirs.

    A match is shown by its thumbnail in the gallery, or else by the picture it was made from, if that can be read.

    Args:
        path: File to write.
        gallery: The gallery that was searched.
        answers: Each query's picture file, and its matches.
        title: Title of the page.

    Raises:
        ImageError: A query's picture cannot be read.
    """
    matches = [match for _, found in answers for match in found]
    note = ""
    if any(match.parts for match in matches):
        note = f"{BARS} From left to right the parts of {gallery.partition}."
    elif any(match.shares for match in matches):
        note = NO_SCALE
    sections = [
        {
            "title": Path(query).name,
            "picture": Picture(_from_file(query), f"the person searched for, {Path(query).name}"),
            "matches": [(match, _match_picture(gallery, match), summary(match.parts or {})) for match in found],
            "probable": any(match.probability is not None for match in found),
            "timed": any(match.time is not None for match in found),
            "split": any(match.parts for match in found),
            "explained": any(hasattr(match, "reason") for match in found),
        }
        for query, found in answers
    ]
    searched = f"{len(gallery):,} rows in {gallery.uri} were searched."
    write_whole(path, render("search.html", title=title, searched=searched, note=note, sections=sections))


def _match_picture(gallery: Gallery, match: Match) -> Picture | str:
    """Return a match's picture, or the reason why there is none."""
    alt = f"match {match.rank}"
    try:
        thumbnail = gallery.thumbnail(match.id)
    except KeyError:  # erased since
        return "erased"
    if thumbnail is not None:
        return Picture(data_uri("image/jpeg", thumbnail), alt)
    try:
        return Picture(_from_file(match.path), alt)
    except ImageError:
        return "no picture"


def _from_file(path: str) -> str:
    picture = Image.fromarray(read_image(path).permute(1, 2, 0).numpy())
    picture.thumbnail((8 * _HEIGHT, 2 * _HEIGHT))  # sharp on screens of two pixels to one
    return picture_uri(picture)
