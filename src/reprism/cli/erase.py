"""``reprism erase``."""

import getpass
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from reprism.cli.arguments import parse
from reprism.cli.galleries import audit_path, parse_age

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery
    from reprism.gallery.upkeep import Erasable

_LISTED = 5  # names and paths
_MOMENT = "%Y-%m-%d %H:%M:%S"


@dataclass
class Arguments:
    """Erase people from a gallery: their rows, thumbnails and descriptors, and the bytes of these on disk.

    It shows what would go, and asks. The erasure is noted in the gallery's audit log, as the service's erasures are.
    Pictures that were indexed stay where they are: delete them yourself.
    """

    gallery: tyro.conf.Positional[str]
    """Gallery that reprism index created."""
    pid: tuple[str, ...] = ()
    """Erase all rows of these identities."""
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
    """Run ``reprism erase``; returns the exit status: 1 if the answer was no."""
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
    log = audit_path(arguments.gallery, arguments.audit)
    gallery = Gallery.open(arguments.gallery)
    found = gallery.erasable(arguments.id, arguments.pid, older_than)
    shown = sys.stderr if arguments.json else sys.stdout
    print(_summary(arguments.gallery, found), file=shown)
    if len(found) and not arguments.yes and not _confirmed():
        print("Nothing was erased.", file=shown)
        return 1
    erased = _erase(gallery, found, older_than, log, compact=arguments.compact)
    if arguments.json:
        print(json.dumps(_facts(found) | {"erased": erased, "left": len(gallery)}))
    else:
        print(f"{arguments.gallery}: {erased:,} rows erased, {len(gallery):,} left")
    return 0


def _erase(gallery: "Gallery", found: "Erasable", older_than: datetime | None, log: Path, *, compact: bool) -> int:
    """Erase what was shown, and note it in the audit log before and after."""
    from reprism.service.audit import AuditLog, Change

    facts = {"via": "reprism erase"} | ({"older_than": older_than.isoformat()} if older_than else {})
    change = Change(_user(), "erase", found.ids, facts)
    # Without rows too: it finishes an erasure that was interrupted.
    with AuditLog(log) as audit, audit.recording([change] if len(found) else []):
        change.outcome["erased"] = gallery.erase(found.ids, compact=compact)
    return change.outcome["erased"]


def _user() -> str:
    """Return the name of whoever runs this, as the system knows them; their number if they have none."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except ImportError:  # Windows
        return getpass.getuser()
    except KeyError:
        return f"user {os.getuid()}"


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
