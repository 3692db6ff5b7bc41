"""Findings: what may be wrong with the labels of some pictures, how likely that is, and what would put it right."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

from reprism.data.records import DISTRACTOR, JUNK, Item, Label, ReIDDataset
from reprism.files import write_json, write_whole

Kind = Literal["wrong identity", "two people", "two names", "duplicate", "leak"]
Split = Literal["train", "query", "gallery"]

KINDS: dict[Kind, str] = {
    "wrong identity": "A picture that is far from the others of its identity, and near those of another.",
    "two people": "One identity whose pictures fall into two groups, as if it were two people.",
    "two names": "Two identities whose pictures look like one person's.",
    "duplicate": "The same picture twice.",
    "leak": "The same person, or the same picture, in the training split and in the test splits.",
}
"""Kinds of findings, each with its meaning."""

REMOVE = "remove"
"""The change that takes a picture out of the list."""

COLUMNS = ("finding", "kind", "score", "split", "path", "pid", "camid", "change", "answer")
"""Columns of a table of findings, and of answers."""


class Placed(NamedTuple):
    """An item of a data set, and the split that it is in."""

    item: Item
    split: Split

    @property
    def is_person(self) -> bool:
        """True if the identity is somebody's, and not that of junk or of distractors."""
        return self.item.pid not in (JUNK, DISTRACTOR)

    @property
    def is_training(self) -> bool:
        """True for the training split, False for query and gallery, which share their identities."""
        return self.split == "train"


@dataclass(frozen=True, slots=True)
class Group:
    """Some pictures that a finding shows beside others.

    Attributes:
        title: Line above them.
        rows: Indices of items.
    """

    title: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that may be wrong.

    Attributes:
        kind: What is wrong.
        score: 0 … 1. Of copies the share of a perceptual hash's bits that agree, 1 for the same bytes; else the
            probability that it is wrong, by how this data set's own pictures look (:mod:`reprism.cleaning.chances`).
        reason: Why, in words.
        suggestion: What to do if it is wrong, in words.
        groups: The pictures, side by side.
        changes: What the suggestion does, by index of an item: the new identity as text, or :data:`REMOVE`.
        renamed: For two names of one person: the identity that is given up, and the one that stays; else None.
    """

    kind: Kind
    score: float
    reason: str
    suggestion: str
    groups: tuple[Group, ...]
    changes: dict[int, str]
    renamed: tuple[Label, Label] | None = None

    @property
    def rows(self) -> list[int]:
        """Indices of all of its items: those shown first, each once."""
        return list(dict.fromkeys([*(row for group in self.groups for row in group.rows), *self.changes]))


def entries_of(dataset: ReIDDataset) -> list[Placed]:
    """List the items of a data set with their splits; a picture that is a query and in the gallery too is a query."""
    splits: tuple[Split, ...] = ("train", "query", "gallery")
    placed = [Placed(item, split) for split in splits for item in getattr(dataset, split)]
    found: dict[Path, Placed] = {}
    for entry in placed:
        known = found.get(entry.item.path)
        if known is None or known.is_training != entry.is_training:
            found.setdefault(entry.item.path, entry)
    return list(found.values())


def path_in(root: Path, path: Path) -> str:
    """Return a picture's path as findings have it: from the data set's folder where it lies in it."""
    folder = root if root.is_dir() else root.parent
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def rows_of(finding: Finding, number: int, entries: Sequence[Placed], root: Path) -> list[dict[str, str]]:
    """Return a finding's rows of the table, one for each of its pictures."""
    rows = []
    for row in finding.rows:
        entry = entries[row]
        change = finding.changes.get(row, "")
        rows.append({
            "finding": str(number),
            "kind": finding.kind,
            "score": f"{finding.score:.4f}",
            "split": entry.split,
            "path": path_in(root, entry.item.path),
            "pid": str(entry.item.pid),
            "camid": "" if entry.item.camid is None else str(entry.item.camid),
            "change": change if change in ("", REMOVE) else f"identity {change}",
            "answer": "",
        })  # fmt: skip
    return rows


def write_findings(
    folder: str | PathLike[str],
    findings: Sequence[Finding],
    entries: Sequence[Placed],
    root: Path,
    about: dict[str, Any],
) -> tuple[Path, Path]:
    """Write ``findings.csv``, a row for each picture of each finding, and ``findings.json``.

    Args:
        folder: Made if absent.
        findings: Findings, which are numbered from 1 on in this order.
        entries: The items that they index.
        root: Folder or table of the data set.
        about: What the JSON says beside the findings.

    Returns:
        The paths of both.
    """
    tables = [rows_of(finding, number, entries, root) for number, finding in enumerate(findings, 1)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for rows in tables for row in rows)
    table, values = Path(folder) / "findings.csv", Path(folder) / "findings.json"
    write_whole(table, text.getvalue())
    pictures = ("split", "path", "pid", "camid", "change")
    listed = [
        {
            "finding": number,
            "kind": finding.kind,
            "score": round(float(finding.score), 4),
            "reason": finding.reason,
            "suggestion": finding.suggestion,
            "pictures": [{name: row[name] for name in pictures} for row in rows],
        }
        for number, (finding, rows) in enumerate(zip(findings, tables, strict=True), 1)
    ]
    write_json(values, about | {"kinds": KINDS, "findings": listed})
    return table, values
