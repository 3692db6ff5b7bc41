"""``reprism link`` on the people of a gallery: update, answer, answers, changes and undo."""

import json
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from reprism.cli.arguments import parse
from reprism.cli.galleries import system_user
from reprism.cli.link_gallery import MOMENT, counted, noted, print_changes
from reprism.cli.output import figures_table, progress_bars

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery
    from reprism.linking.answering import Answered
    from reprism.service.audit import Change


@dataclass
class Update:
    """Take new rows and answers into the people of a gallery.

    New rows are compared with all others. The people to whom one of them comes near are found anew, and all others stay
    as they are: much faster than reprism link run where few rows are new. Transit times stay as they were learned;
    without any, as after an erasure, all rows are linked as by reprism link run.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery with linking switched on: reprism link enable."""
    json: bool = False
    """Print JSON instead: counts, and how people changed."""
    audit: Path | None = None
    """Audit log (default: GALLERY.audit.jsonl, beside the gallery)."""


@dataclass
class Answering:
    """Say of rows of a gallery whether they are of one person; it holds from now on, and the people follow at once.

    Look at the pictures first: reprism link review GALLERY --html review.html shows what is most worth an answer, with
    the commands that give it. An answer is kept with who gave it, and can be taken back: reprism link undo. One that
    contradicts what the cameras saw, or an answer before, is refused.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery with linking switched on: reprism link enable."""
    kind: tyro.conf.Positional[Literal["same", "different", "unsure"]]
    """same: all of the rows are of one person. different: nobody is on both sides. unsure: it cannot be told, and is
    not asked again."""
    one: tuple[str, ...] = ()
    """Ids of the rows on one side."""
    other: tuple[str, ...] = ()
    """Ids of the rows on the other side; of same it may be left out."""
    people: tuple[int, ...] = ()
    """In place of rows: numbers of two people. Each side is then all rows of one of them."""
    audit: Path | None = None
    """Audit log (default: GALLERY.audit.jsonl, beside the gallery)."""


@dataclass
class Answers:
    """List the answers that hold: who said of which rows that they are of one person, or of two.

    Those that were taken back are left out, and rows that were erased or are older than linking keeps rows are in none.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery with linking switched on: reprism link enable."""
    json: bool = False
    """Print JSON instead, with the ids of rows."""


@dataclass
class Changes:
    """List how people changed from one time to the next: merges, splits and rows that moved.

    Any of them can be undone: reprism link undo GALLERY --change N.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery with linking switched on: reprism link enable."""
    json: bool = False
    """Print JSON instead, with the ids of rows."""


@dataclass
class Undo:
    """Take an answer back, or undo a change of people; the people follow at once.

    To undo a change that an answer led to is to take the answer back. Any other change is undone by answers, in your
    name: the rows that moved are the same person as those that stayed, and not the one whom they came to.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery with linking switched on: reprism link enable."""
    answer: int | None = None
    """Number of the answer to take back: reprism link answers."""
    change: int | None = None
    """Number of the change to undo: reprism link changes."""
    audit: Path | None = None
    """Audit log (default: GALLERY.audit.jsonl, beside the gallery)."""


def update(argv: Sequence[str]) -> int:
    """Take new rows and answers into the people of a gallery."""
    arguments = parse(Update, argv, "reprism link update", example="reprism link update gallery", main=("json",))

    from reprism.gallery.permission import require_linking
    from reprism.gallery.table import Gallery
    from reprism.linking.gallery_people import update_people

    gallery = Gallery.open(arguments.gallery)
    facts = {"purpose": require_linking(gallery.store).purpose}
    with noted(gallery.uri, arguments.audit, "update", facts) as change, progress_bars() as progress:
        found = update_people(gallery, progress=progress)
        change.outcome |= {"people": len(found.people), "rows": found.rows, "changes": len(found.changes)}
    if arguments.json:
        counts = {"rows": found.rows, "people": len(found.people), "contradicted": found.contradicted}
        print(json.dumps(counts | {"changes": [each.as_dict() for each in found.changes]}, indent=2))
        return 0
    print(f"{found.rows:,} rows: {len(found.people):,} people")
    print_changes(found, arguments.gallery)
    return 0


def answer(argv: Sequence[str]) -> int:
    """Say of rows whether they are of one person."""
    arguments = parse(
        Answering,
        argv,
        "reprism link answer",
        example="reprism link answer gallery same --people 7 9\n"
        "reprism link answer gallery different --one 3f1c0123456789abcdef0123456789ab "
        "--other 9d2e0123456789abcdef0123456789ab",
        main=("one", "other", "people"),
    )

    from reprism.gallery.permission import require_linking
    from reprism.gallery.table import Gallery
    from reprism.linking.answering import answer_link

    gallery = Gallery.open(arguments.gallery)
    facts = {"purpose": require_linking(gallery.store).purpose, "kind": arguments.kind}
    one, other = _sides(gallery, arguments)
    with noted(gallery.uri, arguments.audit, "answer", facts, ids=(*one, *other)) as change, _followed(change):
        _print_answered(answer_link(gallery, arguments.kind, one, other, by=system_user()), change, arguments.gallery)
    return 0


def undo(argv: Sequence[str]) -> int:
    """Take an answer back, or undo a change of people."""
    arguments = parse(
        Undo,
        argv,
        "reprism link undo",
        example="reprism link undo gallery --answer 3\nreprism link undo gallery --change 12",
        main=("answer", "change"),
    )
    if (arguments.answer is None) == (arguments.change is None):
        raise ValueError("expected either --answer N or --change N")

    from reprism.gallery.permission import require_linking
    from reprism.gallery.table import Gallery
    from reprism.linking.answering import undo_change, undo_link_answer

    gallery, by = Gallery.open(arguments.gallery), system_user()
    facts: dict[str, Any] = {"purpose": require_linking(gallery.store).purpose}
    before = {each.number for each in gallery.link_answers()}
    if arguments.answer is not None:
        facts |= {"answer": arguments.answer}
        with noted(gallery.uri, arguments.audit, "undo", facts) as change, _followed(change):
            taken = undo_link_answer(gallery, arguments.answer, by=by)
            _print_answered(taken, change, arguments.gallery, before)
    elif arguments.change is not None:
        facts |= {"change": arguments.change}
        with noted(gallery.uri, arguments.audit, "undo", facts) as change:
            undone = undo_change(gallery, arguments.change, by=by)
            _print_answered(undone, change, arguments.gallery, before)
    return 0


def answers(argv: Sequence[str]) -> int:
    """List the answers that hold."""
    arguments = parse(Answers, argv, "reprism link answers", example="reprism link answers gallery", main=("json",))

    from reprism.gallery.table import Gallery

    found = Gallery.open(arguments.gallery).link_answers()
    if arguments.json:
        print(json.dumps([each.as_dict() for each in found], indent=2))
        return 0
    table = figures_table("answers, times in UTC", ("said", "rows", "by", "at"), "answer")
    for each in found:
        rows = " and ".join(f"{len(side):,}" for side in (each.one, each.other) if side)
        table.add_row(str(each.number), each.kind, rows, escape(each.by), f"{each.at:{MOMENT}}")
    _print_or_say(table.row_count, "no answers", table)
    return 0


def changes(argv: Sequence[str]) -> int:
    """List how people changed."""
    arguments = parse(Changes, argv, "reprism link changes", example="reprism link changes gallery", main=("json",))

    from reprism.gallery.table import Gallery

    found = Gallery.open(arguments.gallery).people_changes()
    if arguments.json:
        print(json.dumps([each.as_dict() for each in found], indent=2))
        return 0
    figures = ("what", "of person", "to person", "rows", "by answer", "at")
    table = figures_table("changes of people, times in UTC", figures, "change")
    for each in found:
        led = "" if each.answer is None else str(each.answer)
        cells = (each.kind, str(each.before), str(each.after), f"{len(each.rows):,}", led, f"{each.at:{MOMENT}}")
        table.add_row(str(each.number), *cells)
    _print_or_say(table.row_count, "nobody changed", table)
    return 0


def _print_or_say(count: int, none: str, table: object) -> None:
    if count:
        Console(highlight=False).print(table)
    else:
        print(none)


def _sides(gallery: "Gallery", given: Answering) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ids of the rows on either side of an answer.

    Raises:
        ValueError: Neither rows nor two people are given, or both; or there is no such person.
    """
    if bool(given.people) == bool(given.one or given.other):
        raise ValueError("expected rows (--one ID --other ID) or two people (--people 7 9)")
    if not given.people:
        return given.one, given.other
    if len(set(given.people)) != 2:
        raise ValueError(f"--people: expected the numbers of two people, got {' '.join(map(str, given.people))}")
    rows = {person.id: person.rows for person in gallery.people()}
    if missing := [number for number in given.people if number not in rows]:
        raise ValueError(f"--people: there is no person {missing[0]} in {gallery.uri}: see reprism link run, or update")
    first, second = given.people
    return rows[first], rows[second]


@contextmanager
def _followed(change: "Change") -> Iterator[None]:
    """Say so, rather than fail, where an answer is kept or taken back but nobody can be linked."""
    from reprism.linking.odds import OddsError
    from reprism.linking.transit import CameraNetworkError

    try:
        yield
    except (CameraNetworkError, OddsError) as error:
        change.outcome["followed"] = False
        print(f"reprism link: warning: it is kept, but nobody can be linked: {error}", file=sys.stderr)


def _print_answered(
    answered: "Answered", change: "Change", gallery: str, before: Collection[int] = frozenset()
) -> None:
    """Print what answers came to, those ``before`` taken back, and note it."""
    change.outcome |= {
        "answers": [each.number for each in answered.answers],
        "changes": [each.number for each in answered.changes],
    }
    for each in answered.answers:
        verb = " is taken back" if each.number in before else ""
        print(f"answer {each.number}{verb}: {each.kind}, of {len(each.one) + len(each.other):,} rows")
    if answered.changes:
        print(f"{counted(answered.changes)}: reprism link changes {gallery}")
    else:
        print("no person changed")
