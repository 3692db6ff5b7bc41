"""Write the questions about the people of a gallery as one page, with the pictures of both groups side by side."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from reprism.files import write_whole
from reprism.gallery.answers import KINDS
from reprism.gallery.doubts import Doubt
from reprism.gallery.rows import THUMBNAIL, Row, rows_of
from reprism.gallery.table import Gallery
from reprism.report.pages import Picture, data_uri, render

_MOMENT = "%Y-%m-%d %H:%M:%S"


def write_review_page(
    path: str | PathLike[str],
    gallery: Gallery,
    doubts: Sequence[Doubt],
    person: Mapping[str, int],
    *,
    title: str = "Questions about people",
    shown: int = 6,
) -> Path:
    """Write a self-contained page: each question with the pictures of both groups, and the commands that answer it.

    It shows people, and says so. It loads nothing and sends nothing. A row is shown by its small picture in the
    gallery; one that keeps none, by its camera and time alone.

    Args:
        path: HTML file to write.
        gallery: The gallery.
        doubts: The questions, numbered from 1 on in their order (:func:`reprism.review_queue`).
        person: Each row's person.
        title: Title of the page.
        shown: Most pictures of a group: first the row that looks most like the other group, then in order of time.

    Returns:
        The page's path.
    """
    asked = sorted({row for doubt in doubts for row in (*doubt.one, *doubt.other)})
    rows = {row.id: row for row in rows_of(gallery.store.fetch(asked, gallery.store.row_columns))}
    two: list[dict[str, Any]] = []
    one: list[dict[str, Any]] = []
    for number, doubt in enumerate(doubts, 1):
        numbers = [person[group[0]] for group in (doubt.one, doubt.other)]
        together = numbers[0] == numbers[1]
        (one if together else two).append({
            "number": number,
            "people": f"Person {numbers[0]}" if together else f"Persons {numbers[0]} and {numbers[1]}",
            "probability": doubt.probability,
            "groups": [_group(gallery, group, rows, shown) for group in (doubt.one, doubt.other)],
            "commands": [answer_command(gallery.uri, kind, doubt) for kind in KINDS],
        })  # fmt: skip
    sections = [
        {"title": f"{heading} ({len(found):,})", "questions": found}
        for heading, found in (("Two people who may be one", two), ("One person who may be two", one))
        if found
    ]
    page = render("review.html", title=title, gallery=gallery.uri, count=len(doubts), sections=sections)
    write_whole(path, page)
    return Path(path)


def answer_command(uri: str, kind: str, doubt: Doubt) -> str:
    """Return the command that answers a question."""
    words = ["reprism", "link", "answer", uri, kind, "--one", *doubt.one, "--other", *doubt.other]
    return shlex.join(words)


def _group(gallery: Gallery, group: Sequence[str], rows: Mapping[str, Row], shown: int) -> dict[str, Any]:
    """Return the pictures and captions of a group's rows; those that were erased meanwhile are left out."""
    there = [row for row in group if row in rows]
    chosen = [*there[:1], *sorted(there[1:], key=lambda row: (str(rows[row].time), row))][:shown]
    found = gallery.store.fetch(chosen, ["id", THUMBNAIL])
    pictures = dict(zip(found["id"].to_pylist(), found[THUMBNAIL].to_pylist(), strict=True))
    return {
        "pieces": [_piece(rows[row], pictures.get(row)) for row in chosen],
        "left": len(there) - len(chosen),
        "rows": len(there),
    }


def _piece(row: Row, picture: bytes | None) -> dict[str, Any]:
    where = f"camera {row.camid}"
    when = "" if row.time is None else f"{row.time:{_MOMENT}}"
    shown = None if picture is None else Picture(data_uri("image/jpeg", picture), f"{where}, {when}")
    return {"id": row.id, "where": where, "when": when, "picture": shown}
