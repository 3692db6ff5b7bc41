"""Write what may be wrong with a data set's labels, as a page with the pictures that takes answers."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from os import PathLike
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from reprism.cleaning.faults import Faults
from reprism.cleaning.findings import COLUMNS, KINDS, Finding, Kind, Placed, path_in, rows_of
from reprism.data.images import ImageError, read_image
from reprism.files import write_whole
from reprism.progress import Count
from reprism.report.pages import Picture, picture_uri, render

_HEIGHT = 192  # pixels of a picture: sharp at the page's 128 CSS pixels on most screens


def write_cleaning_page(
    path: str | PathLike[str],
    faults: Faults,
    entries: Sequence[Placed],
    root: Path,
    *,
    title: str,
    command: str,
    shown: int = 100,
    progress: Count | None = None,
) -> Path:
    """Write a self-contained page: each finding with its pictures, answered by keyboard or button, exported as CSV.

    It shows people, and says so. It loads nothing and sends nothing; answers stay in the browser until exported.

    Args:
        path: HTML file to write.
        faults: The findings, which are numbered from 1 on in their order.
        entries: The items that they index.
        root: Folder or table of the data set.
        title: Title of the page.
        command: Command that takes the exported answers.
        shown: Most findings of a kind on the page.
        progress: Called with the findings drawn and all of them.

    Returns:
        The page's path.
    """

    @cache
    def uri(row: int) -> str | None:
        try:
            picture = Image.fromarray(read_image(entries[row].item.path).permute(1, 2, 0).numpy())
        except ImageError:
            return None
        picture.thumbnail((4 * _HEIGHT, _HEIGHT))
        return picture_uri(picture)

    def picture(row: int) -> Picture | None:
        entry, found = entries[row], uri(row)
        if found is None:
            return None
        camera = "" if entry.item.camid is None else f", camera {entry.item.camid}"
        name = f"{entry.item.pid}{camera}, {entry.split}: {path_in(root, entry.item.path)}"
        return Picture(found, f"identity {entry.item.pid}{camera}", name)

    of_kind: dict[Kind, list[tuple[int, Finding]]] = {kind: [] for kind in KINDS}
    for number, finding in enumerate(faults.findings, 1):
        of_kind[finding.kind].append((number, finding))
    total = sum(min(shown, len(found)) for found in of_kind.values())
    sections, rows, done = [], [], 0
    for kind, found in of_kind.items():
        pieces = []
        for number, finding in found[:shown]:
            groups = [(group.title, list(filter(None, map(picture, group.rows)))) for group in finding.groups]
            pieces.append({
                "number": number, "reason": finding.reason, "score": finding.score,
                "suggestion": finding.suggestion, "groups": groups,
            })  # fmt: skip
            rows += [[row[name] for name in COLUMNS[:-1]] for row in rows_of(finding, number, entries, root)]
            done += 1
            if progress is not None:
                progress(done, total)
        if found:
            heading = f"{kind.capitalize()} ({len(found):,})"
            sections.append(
                {"title": heading, "about": KINDS[kind], "findings": pieces, "left": max(0, len(found) - shown)}
            )
    script = files("reprism.report").joinpath("templates/cleaning.js").read_text(encoding="utf-8")
    page = render(
        "cleaning.html",
        title=title,
        about=f"{len(entries):,} items in {root} were compared. A person decides: nothing is changed by itself.",
        figures=[(kind, f"{len(found):,}", _share(faults, kind)) for kind, found in of_kind.items()],
        command=command,
        total=total,
        rows={
            "columns": COLUMNS,
            "rows": rows,
            "digest": hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16],
        },
        script=Markup(script),  # noqa: S704  our own file
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sections=sections,
    )
    write_whole(path, page)
    return Path(path)


def _share(faults: Faults, kind: Kind) -> str:
    units = {"wrong identity": "of all pictures", "two people": "of all identities", "two names": "of nearest pairs"}
    if kind not in faults.shares:
        return ""
    return f"{faults.shares[kind]:.1%} {units[kind]} seem to be, found or not"
