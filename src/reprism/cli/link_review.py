"""``reprism link review`` and ``export``: questions about the people of a gallery, and the people as labels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from reprism.cli.arguments import parse
from reprism.cli.link_gallery import noted
from reprism.cli.output import figures_table, progress_bars

if TYPE_CHECKING:
    from reprism.gallery.doubts import Doubt
    from reprism.gallery.table import Gallery


@dataclass
class Review:
    """List the questions about the people of a gallery that are most worth an answer, the greatest doubts first.

    Either two people may be one, or one person may be two. Of each person at most one question is listed, for its
    answer may settle others. Answer by reprism link answer; with --html by the commands on the page.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery with linking switched on: reprism link enable."""
    top: int = 20
    """Most questions to list."""
    json: bool = False
    """Print JSON instead, with the ids of the rows of both groups."""
    html: Path | None = None
    """Page to write too: the pictures of both groups side by side, and the commands that answer. It shows people;
    nothing erases from it what is erased from the gallery."""
    overwrite: bool = False
    """Replace the file that --html names, if it exists."""
    audit: Path | None = None
    """With --html: audit log (default: GALLERY.audit.jsonl, beside the gallery)."""


@dataclass
class Export:
    """Write the people of a gallery as labels: a CSV file with a line for each row.

    Its columns are path, pid (the person's number), camid, time, until, track (the tracklet's name), confidence in the
    person, answered (yes where somebody said of the row that it is of one person with others, or not), and id. The data
    set csv reads it, so that people become training labels: look at them first.

    Rows of videos have no picture file: --pictures writes the small one that the gallery keeps of each row, and leaves
    out rows of which there is none. Nothing erases from these files what is erased from the gallery.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery with linking switched on: reprism link enable."""
    csv: Path
    """CSV file to write."""
    pictures: Path | None = None
    """Folder to write each row's small picture to, which path then names; absent or empty."""
    overwrite: bool = False
    """Replace the file that --csv names, if it exists."""
    audit: Path | None = None
    """Audit log (default: GALLERY.audit.jsonl, beside the gallery)."""


def review(argv: Sequence[str]) -> int:
    """List the questions about people that are most worth an answer."""
    arguments = parse(
        Review,
        argv,
        "reprism link review",
        example="reprism link review gallery --top 10 --html review.html",
        main=("top", "html", "overwrite", "json"),
    )
    if arguments.top < 0:
        raise ValueError(f"--top {arguments.top}: expected 0 or more")
    page = arguments.html
    if page is not None:
        _refuse_existing(page, "--html", overwrite=arguments.overwrite)

    from reprism.gallery.permission import require_linking
    from reprism.gallery.table import Gallery

    gallery = Gallery.open(arguments.gallery)
    purpose = require_linking(gallery.store).purpose
    doubts, person = _questions(gallery, arguments.top)
    if page is not None:
        from reprism.report.review_page import write_review_page

        rows = [row for doubt in doubts for row in (*doubt.one, *doubt.other)]
        with noted(gallery.uri, arguments.audit, "review", {"purpose": purpose, "page": str(page)}, ids=rows):
            write_review_page(page, gallery, doubts, person)
    if arguments.json:
        print(json.dumps([doubt.as_dict() | {"people": _people(doubt, person)} for doubt in doubts], indent=2))
        return 0
    if not doubts:
        print("no questions")
    else:
        table = figures_table("questions", ("of people", "rows", "one person", "doubt"), "question")
        for number, doubt in enumerate(doubts, 1):
            who = " and ".join(map(str, _people(doubt, person)))
            rows_of_each = f"{len(doubt.one):,} and {len(doubt.other):,}"
            table.add_row(str(number), who, rows_of_each, f"{doubt.probability:.0%}", f"{doubt.doubt:.0%}")
        Console(highlight=False).print(table)
    if page is not None:
        print(page)
    elif doubts:
        print("To see them, with the commands that answer: --html FILE")
    return 0


def export(argv: Sequence[str]) -> int:
    """Write the people of a gallery as labels, in a CSV file."""
    arguments = parse(
        Export,
        argv,
        "reprism link export",
        example="reprism link export gallery --csv labels.csv\n"
        "reprism link export gallery --csv labels/labels.csv --pictures labels/pictures",
        main=("csv", "pictures", "overwrite"),
    )
    if arguments.csv.suffix.lower() != ".csv":
        raise ValueError(f"expected --csv FILE.csv, got {arguments.csv}")
    _refuse_existing(arguments.csv, "--csv", overwrite=arguments.overwrite)

    from reprism.gallery.permission import require_linking
    from reprism.gallery.table import Gallery
    from reprism.linking.labels import write_labels

    gallery = Gallery.open(arguments.gallery)
    facts = {"purpose": require_linking(gallery.store).purpose, "file": str(arguments.csv)}
    if arguments.pictures is not None:
        facts["pictures"] = str(arguments.pictures)
    with noted(gallery.uri, arguments.audit, "export", facts) as change, progress_bars() as progress:
        found = write_labels(gallery, arguments.csv, pictures=arguments.pictures, progress=progress)
        change.outcome |= {"rows": found.rows, "people": found.people}
    print(f"{arguments.csv}: {found.rows:,} rows of {found.people:,} people, {found.answered:,} of them answered")
    if found.without_file and arguments.pictures is not None:
        print(f"{found.without_file:,} rows are left out: there is no picture of them")
    elif found.without_file:
        print(f"{found.without_file:,} rows name no picture file: --pictures FOLDER writes one for each")
    return 0


def _refuse_existing(path: Path, flag: str, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists: give --overwrite to replace it, or another {flag}")


def _questions(gallery: "Gallery", most: int) -> "tuple[list[Doubt], dict[str, int]]":
    """Return the questions that can be answered, and each row's person."""
    from reprism.gallery.doubts import MOST_DOUBTS
    from reprism.linking.answering import review_queue

    person = {row: each.id for each in gallery.people() for row in each.rows}
    # Rows that have just become too old are in nobody, and no answer about them is taken.
    found = [doubt for doubt in review_queue(gallery, MOST_DOUBTS) if {*doubt.one, *doubt.other} <= set(person)]
    return found[:most], person


def _people(doubt: "Doubt", person: dict[str, int]) -> list[int]:
    """Return the numbers of the people whom a question is about: two, or one who may be two."""
    return list(dict.fromkeys(person[group[0]] for group in (doubt.one, doubt.other)))
