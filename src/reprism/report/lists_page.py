"""Write the ranked lists of one network, or of several below each other, as pictures and as one page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from PIL import Image

from reprism.evaluation.lists import RankedList
from reprism.evaluator import Evaluation
from reprism.files import write_whole
from reprism.report.pages import Picture, picture_uri, render
from reprism.report.ranked import draw_ranked_lists

LEGEND = (
    "Green with a tick: the query's person; red with a cross: somebody else. Below each match its distance, identity "
    "and camera."
)
"""Legend of a ranked list."""

BARS = (
    "Bars: how far apart each part is, compared with pairs of strangers. A short bar is nearer than almost all of "
    "them, a full one farther. Filled: agrees; hollow: unclear; striped: differs."
)
"""Legend of the bars of parts."""

NO_BARS = "No bars: there are too few pairs of strangers seen by different cameras to compare parts with."
"""Legend where there is no scale for bars."""

LEAST_WIDTH = 620
"""CSS pixels below which the words in such a picture could not be read."""


def legend(ranked: Sequence[Evaluation]) -> str:
    """Return in words what :func:`draw_lists` shows of some networks."""
    if all(one.scale is None for one in ranked):
        return f"{LEGEND} {NO_BARS}"
    orders = "; ".join(f"{one.name}: {', '.join(part.name for part in one.partition.parts)}" for one in ranked)
    return f"{LEGEND} {BARS} From left to right, {orders}."


def draw_lists(lists: Sequence[tuple[Evaluation, RankedList]], captions: Sequence[str]) -> Image.Image:
    """Draw ranked lists below each other, and under every match how well each part agrees.

    Args:
        lists: Each list with its evaluation; all of one data set.
        captions: A line above each list.

    Raises:
        ImageError: An image cannot be read; names it.
    """
    dataset = lists[0][0].dataset
    compared = any(one.scale is not None for one, _ in lists)
    parts = [one.parts(found) for one, found in lists] if compared else None
    return draw_ranked_lists([found for _, found in lists], dataset.query, dataset.gallery, captions, parts=parts)


def write_lists(
    folder: str | PathLike[str],
    ranked: Sequence[Evaluation],
    chosen: Sequence[int],
    k: int = 10,
    *,
    title: str,
    about: str = "",
) -> Path:
    """Write a picture of each chosen query's lists (``0001.png``, …) and ``index.html``, which holds them all.

    Args:
        folder: Made if absent.
        ranked: Evaluations of one network, or of several on one data set: each gives a list, below each other.
        chosen: Indices of queries, in this order.
        k: Matches in a list.
        title: Title of the page.
        about: First paragraph of the page.

    Returns:
        The page's path.

    Raises:
        ValueError: No query is chosen, or a protocol has no one ranked list.
        ImageError: An image cannot be read; names it.
    """
    if not chosen:
        raise ValueError("there is no query to show: all are lost, or none was asked for")
    folder, dataset = Path(folder), ranked[0].dataset
    lists = [one.ranked_lists(chosen, k) for one in ranked]
    sections = []
    for number, query in enumerate(chosen):
        captions = [f"{one.name}: average precision {one.metrics.average_precision[query]:.1%}" for one in ranked]
        picture = draw_lists([(one, found[number]) for one, found in zip(ranked, lists, strict=True)], captions)
        write_whole(folder / f"{number + 1:04d}.png", _png(picture))
        heading = dataset.query[query].path.name
        alt = f"Ranked lists of {heading}. {'; '.join(captions)}"
        shown = Picture(picture_uri(picture), alt, least_width=LEAST_WIDTH)
        sections.append({"title": f"{number + 1}. {heading}", "picture": shown})
    page = render("lists.html", title=title, about=about, legend=legend(ranked), sections=sections)
    write_whole(folder / "index.html", page)
    return folder / "index.html"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="png")
    return buffer.getvalue()
