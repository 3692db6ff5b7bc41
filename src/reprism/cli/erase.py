"""``reprism erase``."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from reprism.cli.arguments import parse
from reprism.cli.galleries import audit_path, open_audit, parse_age, system_user

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery
    from reprism.gallery.upkeep import Erasable

_LISTED = 5  # names and paths
_MOMENT = "%Y-%m-%d %H:%M:%S"


@dataclass
class Arguments:
    """Erase people from a gallery: their rows, thumbnails and descriptors, and their bytes on disk.

    It shows what would go, and asks. It fails if an identity or a row that is named is not there. The erasure is noted
    in the gallery's audit log, as the service's erasures are.
    Pictures that were indexed stay where they are: delete them yourself.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery that reprism index created."""
    pid: tuple[str, ...] = ()
    """Identities whose rows to erase."""
    id: tuple[str, ...] = ()
    """Erase these rows; reprism search --json shows their ids."""
    older_than: str | None = None
    """Erase rows taken before this, or added before it if their time is unknown: an age (30d, 12h, 4w) or a time."""
    yes: bool = False
    """Erase without asking."""
    json: bool = False
    """Print what was erased as JSON; what would go is shown on standard error."""
    compact: bool = True
    """Rewrite the gallery without the erased bytes; otherwise reprism optimize does."""
    audit: Path | None = None
    """Audit log (default: GALLERY.audit.jsonl, beside the gallery)."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism erase``; returns the exit status: 1 if the answer was no, or what is named is not there."""
    arguments = parse(
        Arguments,
        argv,
        "reprism erase",
        example="reprism erase gallery --pid anna\nreprism erase gallery --older-than 30d --yes",
        main=("pid", "id", "older_than", "yes"),
    )
    if not (arguments.pid or arguments.id or arguments.older_than):
        raise ValueError("say what to erase: --pid, --id or --older-than")

    from reprism.gallery.table import Gallery

    older_than = None if arguments.older_than is None else parse_age(arguments.older_than, "--older-than")
    audit_path(arguments.gallery, arguments.audit)  # before anything is looked up
    gallery = Gallery.open(arguments.gallery)
    found, unfinished = gallery.erasable(arguments.id, arguments.pid, older_than), gallery.stats()["erasing"]
    shown = sys.stderr if arguments.json else sys.stdout
    print(_summary(arguments.gallery, found), file=shown)
    if len(found) and not arguments.yes and not _confirmed():
        print("Nothing was erased.", file=shown)
        return 1
    erased = _erase(gallery, found, older_than, arguments)
    if arguments.json:
        print(json.dumps(_facts(found) | {"erased": erased, "left": len(gallery)}))
    else:
        print(f"{arguments.gallery}: {erased:,} rows erased, {len(gallery):,} left")
    if unfinished:  # by a run of this command, perhaps: what it names is gone already
        print(f"{arguments.gallery}: an erasure that had been interrupted is finished", file=shown)
        return 0
    absent = [f"identity {pid!r}" for pid in arguments.pid if pid not in found.identities]
    absent += [f"id {id_!r}" for id_ in arguments.id if id_ not in found.ids]
    for what in absent:
        print(f"reprism erase: {arguments.gallery} has no row of the {what}", file=sys.stderr)
    return 1 if absent else 0


def _erase(gallery: "Gallery", found: "Erasable", older_than: datetime | None, arguments: Arguments) -> int:
    """Erase what was shown, and note it in the audit log before and after.

    Raises:
        OSError: It could not be done, or not to its end; says what remains.
    """
    from reprism.gallery.failures import storage_failure
    from reprism.service.audit import AuditError, Change

    facts = {"via": "reprism erase"} | ({"older_than": older_than.isoformat()} if older_than else {})
    change = Change(system_user(), "erase", found.ids, facts)
    try:
        # Without rows too: it finishes an erasure that was interrupted.
        with open_audit(gallery.uri, arguments.audit) as audit, audit.recording([change] if len(found) else []):
            change.outcome["erased"] = gallery.erase(found.ids, compact=arguments.compact)
    except (OSError, RuntimeError) as error:
        reason = storage_failure(error) or (isinstance(error, OSError) and error.errno is not None and str(error))
        if not reason or isinstance(error, AuditError):
            raise
        raise OSError(f"{gallery.uri}: {_unfinished(gallery, found)} ({reason})") from error
    return change.outcome["erased"]


def _unfinished(gallery: "Gallery", found: "Erasable") -> str:
    """Say what an erasure that failed has left."""
    again = f"run the same command again once that is mended, or reprism optimize {gallery.uri}"
    left = len(gallery.erasable(found.ids)) if len(found) else 0
    if left:
        return f"{left:,} of {len(found):,} rows were not erased: {again}"
    return f"the rows can be found no more, but their bytes are still on the disk: {again}"


def _confirmed() -> bool:
    """Ask on the terminal whether to go on.

    Raises:
        ValueError: There is no terminal.
    """
    if not sys.stdin.isatty():
        raise ValueError("there is no terminal to ask on, so nothing was erased: add --yes to erase without asking")
    print("Erase them? This cannot be undone. [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# ---- what is shown ---------------------------------------------------------------------------------------


def _summary(gallery: str, found: "Erasable") -> str:
    """Say what would go, in a few lines."""
    if not len(found):
        return f"{gallery}: no row is to be erased"
    taken = "at unknown times" if found.first is None else f"{found.first:{_MOMENT}} to {found.last:{_MOMENT}} UTC"
    lines = [
        f"{gallery}: {len(found):,} {'row is' if len(found) == 1 else 'rows are'} to be erased",
        f"  identities  {_counted(found.identities, len(found))}",
        f"  cameras     {_counted(found.cameras, len(found))}",
        f"  taken       {taken}",
        *(
            f"  {'paths' if number == 0 else '':<10}  {_plain(path)}"
            for number, path in enumerate(found.paths[:_LISTED])
        ),
    ]
    if len(found) > _LISTED:
        lines.append(f"{'':<14}and {len(found) - _LISTED:,} more")
    return "\n".join(lines)


def _counted(rows: Mapping[str, int], count: int) -> str:
    """List the names with most rows, such as ``anna (3), bob (1), unknown (2)``."""
    names = sorted(rows, key=lambda name: -rows[name])
    said = [f"{_plain(name)} ({rows[name]:,})" for name in names[:_LISTED]]
    if len(names) > _LISTED:
        said.append(f"{len(names) - _LISTED:,} others")
    if unknown := count - sum(rows.values()):
        said.append(f"unknown ({unknown:,})")
    return ", ".join(said)


def _plain(text: str) -> str:
    """Escape what would move the cursor or change colours: names come from others' files."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _facts(found: "Erasable") -> dict[str, Any]:
    first, last = (None if time is None else time.isoformat() for time in (found.first, found.last))
    return asdict(found) | {"first": first, "last": last}
