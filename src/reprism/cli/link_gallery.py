"""``reprism link`` on a gallery: enable, run, status and disable. Each change is noted in the gallery's audit log."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reprism.cli.arguments import parse
from reprism.cli.galleries import open_audit, system_user
from reprism.cli.output import figures_table, progress_bars
from reprism.progress import Progress

if TYPE_CHECKING:
    from reprism.gallery.people import Change as PersonChange
    from reprism.gallery.people import Person
    from reprism.gallery.permission import Linking
    from reprism.linking.gallery_people import Linked
    from reprism.linking.transit import CameraNetwork
    from reprism.service.audit import Change

MOMENT = "%Y-%m-%d %H:%M:%S"
"""Format of printed times."""


@dataclass
class Enable:
    """Allow that the rows of a gallery are linked to people across its cameras.

    To follow people from camera to camera is the most intrusive use of a gallery. So it is off until somebody says what
    for and for how long, which the gallery keeps and its audit log notes. With the same purpose again, --keep-days
    changes. For another purpose, switch it off first.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery that reprism index created."""
    purpose: str
    """Purpose of the linking, in words; recorded with the gallery and in the audit log."""
    keep_days: int
    """Rows that were taken longer ago take no part, and are in no person: 1 to 180 days, no more than the
    purpose needs. The rows themselves stay: reprism erase --older-than removes them."""
    audit: Path | None = None
    """Audit log (default: GALLERY.audit.jsonl, beside the gallery)."""


@dataclass
class Disable:
    """Forbid that the rows of a gallery are linked; removes the people, and what was learned of the cameras.

    The rows stay as they are.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery that reprism index created."""
    audit: Path | None = None
    """Audit log (default: GALLERY.audit.jsonl, beside the gallery)."""


@dataclass
class Status:
    """Show whether linking is on for a gallery: what for, since when, for how long, and what it found."""

    gallery: tyro.conf.Positional[str]
    """Gallery that reprism index created."""
    json: bool = False
    """Print JSON instead."""


@dataclass
class Run:
    """Find the people of a gallery: which of its rows are of one person, by looks, cameras and times.

    Rows with a camera and a time are compared, each with each, up to 100,000 of them; no identity is looked at. Two
    tracklets in view of one camera at once are two people. People keep their numbers from run to run. The people of
    the last run are replaced.

    Transit times between cameras are learned if none are kept with the gallery: reprism link learn learns them anew,
    and an erasure removes them. Linking must be switched on: reprism link enable. A person is a guess: look at the
    pictures before anything follows from it.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery that reprism index created."""
    least: float = 0.2
    """Least mean probability between two groups of rows that become one person. More makes more people,
    who are purer."""
    relearn: bool = False
    """Learn transit times anew first."""
    top: int = 20
    """Most people to list, those seen most first."""
    json: bool = False
    """Print JSON instead, with the ids of rows."""
    audit: Path | None = None
    """Audit log (default: GALLERY.audit.jsonl, beside the gallery)."""


def enable(argv: Sequence[str]) -> int:
    """Allow that the rows of a gallery are linked to people, for a purpose."""
    arguments = parse(
        Enable,
        argv,
        "reprism link enable",
        example='reprism link enable gallery --purpose "Find lost children in the fun park" --keep-days 2',
        main=("purpose", "keep_days"),
    )

    from reprism.gallery.table import Gallery

    gallery = Gallery.open(arguments.gallery)
    facts = {"purpose": arguments.purpose, "keep_days": arguments.keep_days}
    with noted(gallery.uri, arguments.audit, "enable", facts):
        linking = gallery.enable_linking(arguments.purpose, arguments.keep_days)
    print(f"{arguments.gallery}: {_said(linking)}")
    return 0


def disable(argv: Sequence[str]) -> int:
    """Forbid it again; removes the people, and what was learned of the cameras."""
    arguments = parse(Disable, argv, "reprism link disable", example="reprism link disable gallery")

    from reprism.gallery.table import Gallery

    gallery = Gallery.open(arguments.gallery)
    with noted(gallery.uri, arguments.audit, "disable", {}):
        was_on = gallery.disable_linking()
    gone = "the people and the transit times are removed" if was_on else "it was off before"
    print(f"{arguments.gallery}: linking is off; {gone}")
    return 0


def status(argv: Sequence[str]) -> int:
    """Show what linking was switched on for, and what it found."""
    arguments = parse(Status, argv, "reprism link status", example="reprism link status gallery", main=("json",))

    from reprism.gallery.table import Gallery

    gallery = Gallery.open(arguments.gallery)
    linking = gallery.linking()
    people = [] if linking is None else gallery.people()
    if arguments.json:
        print(json.dumps(_facts(linking, people), indent=2))
    elif linking is None:
        print(f"{arguments.gallery}: linking is off")
    else:
        print(f"{arguments.gallery}: {_said(linking)}")
        learned = "not learned" if linking.learned is None else f"learned {linking.learned:{MOMENT}} UTC"
        print(f"transit times {learned}; {len(people):,} people in {sum(len(one.rows) for one in people):,} rows")
    return 0


def link(argv: Sequence[str]) -> int:
    """Find the people of a gallery."""
    arguments = parse(
        Run,
        argv,
        "reprism link run",
        example="reprism link run gallery --top 10",
        main=("least", "relearn", "top", "json"),
    )
    if arguments.top < 0:
        raise ValueError(f"--top {arguments.top}: expected 0 or more")

    from reprism.gallery.permission import require_linking
    from reprism.gallery.table import Gallery
    from reprism.linking.gallery_people import link_gallery

    gallery = Gallery.open(arguments.gallery)
    facts = {"purpose": require_linking(gallery.store).purpose}
    with noted(gallery.uri, arguments.audit, "run", facts) as change, progress_bars() as progress:
        found = link_gallery(gallery, least=arguments.least, relearn=arguments.relearn, progress=progress)
        change.outcome |= {"people": len(found.people), "rows": found.rows}
    if arguments.json:
        counts = {"rows": found.rows, "expired": found.expired, "unplaced": found.unplaced}
        print(json.dumps(counts | {"people": [person.as_dict() for person in found.people]}, indent=2))
        return 0
    across = sum(len(person.cameras) > 1 for person in found.people)
    print(f"{found.rows:,} rows: {len(found.people):,} people, {across:,} of them seen by two cameras or more")
    for count, why in (
        (found.expired, "older than linking keeps rows"),
        (found.unplaced, "without a camera or a time"),
    ):
        if count:
            print(f"{count:,} further {'row is' if count == 1 else 'rows are'} {why}")
    print_changes(found, arguments.gallery)
    if shown := found.people[: arguments.top]:
        Console(highlight=False).print(_people_table(shown, len(found.people)))
    return 0


def learn(uri: str, audit: Path | None, rounds: int, held_out: bool, progress: Progress) -> "CameraNetwork":
    """Learn the transit times between a gallery's cameras, keep them with it, and note that in its audit log.

    Raises:
        GalleryError: There is no gallery, or linking is off.
        CameraNetworkError: No two cameras have rows with times.
    """
    from reprism.gallery.permission import require_linking
    from reprism.gallery.table import Gallery
    from reprism.linking.gallery_sightings import read_sightings
    from reprism.linking.learned import learn_and_keep

    gallery = Gallery.open(uri)
    facts = {"purpose": require_linking(gallery.store).purpose}
    with noted(gallery.uri, audit, "learn", facts) as change:
        network, _ = learn_and_keep(
            gallery, read_sightings(gallery), rounds=rounds, held_out=held_out, progress=progress
        )
        change.outcome["matches"] = network.num_pairs
    return network


@contextmanager
def noted(
    uri: str, audit: Path | None, action: str, facts: dict[str, Any], *, ids: Sequence[str] = (), via: str | None = None
) -> "Iterator[Change]":
    """Note in a gallery's audit log that something is done, before and after.

    Args:
        uri: The gallery.
        audit: Its audit log, as the user gave it.
        action: What is done.
        facts: Further facts known before.
        ids: Ids of the rows concerned.
        via: Command that does it (default: ``reprism link ACTION``).
    """
    from reprism.service.audit import Change

    change = Change(system_user(), f"link {action}", ids, facts | {"via": via or f"reprism link {action}"})
    with open_audit(uri, audit) as log, log.recording([change]):
        yield change


# ---- what is shown ---------------------------------------------------------------------------------------


def print_changes(found: "Linked", gallery: str) -> None:
    """Print how people changed, and which answers could not be kept to."""
    if found.changes:
        print(f"{counted(found.changes)}: reprism link changes {gallery}")
    if found.contradicted:
        numbers = ", ".join(map(str, found.contradicted))
        print(
            f"left out, for they contradict what the cameras saw, or earlier answers: answers {numbers}. "
            f"See reprism link answers {gallery}"
        )


def counted(changes: "Sequence[PersonChange]") -> str:
    """Return in words how many changes of people there are of each kind."""
    kinds = Counter(change.kind for change in changes)
    return ", ".join(f"{count:,} {kind}{'s' * (count > 1)}" for kind, count in sorted(kinds.items()))


def _said(linking: "Linking") -> str:
    return (
        f"linking is on since {linking.since:{MOMENT}} UTC, for rows of the last {linking.keep_days} days.\n"
        f"Purpose: {linking.purpose}"
    )


def _facts(linking: "Linking | None", people: "Sequence[Person]") -> dict[str, Any]:
    if linking is None:
        return {"on": False}
    return {
        "on": True,
        "purpose": linking.purpose,
        "keep_days": linking.keep_days,
        "since": linking.since.isoformat(),
        "learned": None if linking.learned is None else linking.learned.isoformat(),
        "network": None if linking.network is None else json.loads(linking.network),
        "people": len(people),
        "rows": sum(len(person.rows) for person in people),
    }


def _people_table(people: "Sequence[Person]", count: int) -> Table:
    title = f"people; {len(people):,} of {count:,}" if len(people) < count else "people"
    table = figures_table(f"{title}, times in UTC", ("rows", "cameras", "first seen", "last seen", "sure"), "person")
    for person in people:
        table.add_row(
            str(person.id),
            f"{len(person.rows):,}",
            escape(", ".join(person.cameras)),
            f"{person.first:{MOMENT}}",
            f"{person.last:{MOMENT}}",
            "" if person.confidence is None else f"{100 * person.confidence:.0f} %",
        )
    return table
