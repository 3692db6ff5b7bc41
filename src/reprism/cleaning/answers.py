"""A person's answers to findings, and the corrected list that follows from them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

from reprism.cleaning.findings import KINDS, REMOVE, Placed, path_in
from reprism.data.records import DISTRACTOR, JUNK, DataError, Tracklet
from reprism.data.tables import read_table
from reprism.files import write_whole

Answer = Literal["wrong", "right", "cannot tell"]

ANSWERS: dict[str, str] = {
    "wrong": "The labels are wrong: do what is suggested.",
    "right": "The labels are right: change nothing.",
    "cannot tell": "Change nothing.",
}
"""The answers to a finding, and what follows from each."""

_NEEDED = ("finding", "kind", "split", "path", "pid", "change", "answer")
_IDENTITY = "identity "


class AnswersError(DataError):
    """Answers cannot be used: they are no such table, contradict themselves, or are of other data."""


class Answered(NamedTuple):
    """A picture of a finding that was answered.

    Attributes:
        where: Its line, for errors.
        finding: Number of the finding.
        kind: Kind of the finding.
        split, path, pid: The picture, as findings have it.
        change: The suggested change of it; empty for none.
        answer: One of :data:`ANSWERS`.
    """

    where: str
    finding: str
    kind: str
    split: str
    path: str
    pid: str
    change: str
    answer: str


@dataclass(frozen=True)
class Corrected:
    """A data set's items as answers leave them.

    Attributes:
        entries: Items that stay, in their order.
        pids: Their identities, as text.
        renamed: Number of items whose identity changed.
        removed: Number of items that were left out.
    """

    entries: tuple[Placed, ...]
    pids: tuple[str, ...]
    renamed: int
    removed: int


def read_answers(path: str | PathLike[str]) -> list[Answered]:
    """Read a table of answers: one that the page exported, or ``findings.csv`` with its last column filled in.

    A finding is answered in one of its rows or in several, which must agree; findings without an answer are left out.

    Raises:
        AnswersError: It cannot be read, lacks a column, or has an answer that is none; names the row.
    """
    try:
        rows, _ = read_table(Path(path), _NEEDED, _NEEDED, filled=("finding", "kind", "path"))
    except DataError as error:
        raise AnswersError(f"{error} Give the answers that the page exported, or findings.csv filled in.") from error
    answers: dict[str, str] = {}
    for where, row in rows:
        answer = row["answer"].lower()
        if not answer:
            continue
        if answer not in ANSWERS:
            raise AnswersError(f"{path}, {where}: expected the answer {', '.join(ANSWERS)}, got {row['answer']!r}.")
        if answers.setdefault(row["finding"], answer) != answer:
            raise AnswersError(
                f"{path}, {where}: finding {row['finding']} was answered {answers[row['finding']]} above."
            )
    found = [Answered(where, **(row | {"answer": answers.get(row["finding"], "")})) for where, row in rows]
    for each in found:
        if each.kind not in KINDS:
            raise AnswersError(
                f"{path}, {each.where}: expected one of the kinds {', '.join(KINDS)}, got {each.kind!r}."
            )
        if each.change not in ("", REMOVE) and not each.change.removeprefix(_IDENTITY).strip():
            raise AnswersError(f"{path}, {each.where}: no identity in the change {each.change!r}.")
        if each.change not in ("", REMOVE) and not each.change.startswith(_IDENTITY):
            raise AnswersError(
                f"{path}, {each.where}: expected the change {REMOVE} or identity NAME, got {each.change!r}."
            )
    return [each for each in found if each.answer]


def correct(entries: Sequence[Placed], root: Path, answers: Sequence[Answered]) -> Corrected:
    """Apply what is suggested of findings that were answered ``wrong``.

    Pictures are removed, then named; last, an identity that is another name of a person is given up, for all pictures
    that have it by then.

    Args:
        entries: Items of the data set that the findings are of (:func:`reprism.cleaning.entries_of`).
        root: Its folder or table.
        answers: From :func:`read_answers`.

    Raises:
        AnswersError: They name a picture that the data set does not have, or has under another identity; or two of them
            give a picture different identities.
        DataError: An identity would be in training and in test.
    """
    place: dict[tuple[str, str], int] = {
        (entry.split, path_in(root, entry.item.path)): row for row, entry in enumerate(entries)
    }
    removed: set[int] = set()
    named: dict[int, Answered] = {}
    merged: dict[tuple[bool, str], str] = {}
    for each in answers:
        row = place.get((each.split, each.path))
        if row is None:
            raise AnswersError(
                f"{each.where}: {root} has no picture {each.path} in {each.split}: give the data set that it is of."
            )
        if str(entries[row].item.pid) != each.pid:
            raise AnswersError(
                f"{each.where}: {each.path} was {each.pid} and is {entries[row].item.pid} now: the labels have changed "
                "since the findings were made. Run reprism data clean again."
            )
        if each.answer != "wrong" or not each.change:
            continue
        if each.change == REMOVE:
            removed.add(row)
            continue
        identity = each.change.removeprefix(_IDENTITY).strip()
        if each.kind == "two names":
            merged[entries[row].is_training, each.pid] = identity
        elif named.setdefault(row, each).change != each.change:
            raise AnswersError(
                f"finding {each.finding} gives {each.path} the {each.change}, finding {named[row].finding} the "
                f"{named[row].change}: answer one of them otherwise."
            )
    kept, pids, renamed = [], [], 0
    for row, entry in enumerate(entries):
        if row in removed:
            continue
        pid = named[row].change.removeprefix(_IDENTITY).strip() if row in named else str(entry.item.pid)
        pid = _final(merged, entry.is_training, pid)
        kept.append(entry)
        pids.append(pid)
        renamed += pid != str(entry.item.pid)
    _refuse_leaks(kept, pids)
    return Corrected(tuple(kept), tuple(pids), renamed, len(removed))


def _final(merged: dict[tuple[bool, str], str], training: bool, pid: str) -> str:
    """Follow names that were given up to the one that stays; of names that give up each other, the least stays."""
    seen = [pid]
    while (training, pid) in merged:
        pid = merged[training, pid]
        if pid in seen:
            return min(seen[seen.index(pid) :])
        seen.append(pid)
    return pid


def _refuse_leaks(entries: Sequence[Placed], pids: Sequence[str]) -> None:
    sides: tuple[set[str], set[str]] = set(), set()
    for entry, pid in zip(entries, pids, strict=True):
        if entry.is_person:
            sides[entry.is_training].add(pid)
    if both := sides[0] & sides[1]:
        raise DataError(
            f"the identity {min(both)} (of {len(both)}) would be in training and in test, which no list may say: "
            "answer its leak with wrong, so that it leaves training, or divide the data anew."
        )


def write_list(path: str | PathLike[str], corrected: Corrected) -> None:
    """Write a corrected list, which the data set ``csv`` reads. No picture is touched: the list names where they lie.

    Paths are relative to the list's folder where they lie in it, and absolute elsewhere. What is not known of any
    picture has no column.

    Args:
        path: CSV file to write.
        corrected: From :func:`correct`.
    """
    folder = Path(path).absolute().parent
    rows = [row for pair in zip(corrected.entries, corrected.pids, strict=True) for row in _rows(*pair, folder)]
    optional = [name for name in ("tracklet", "frame", "time", "recording") if any(row[name] for row in rows)]
    text = io.StringIO(newline="")
    columns = ["path", "pid", *(["camid"] if any(row["camid"] for row in rows) else []), "split", "role", *optional]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def _rows(entry: Placed, pid: str, folder: Path) -> Iterator[dict[str, str]]:
    item = entry.item
    role = {JUNK: "junk", DISTRACTOR: "distractor"}.get(item.pid, "person") if isinstance(item.pid, int) else "person"
    paths = [item.folder / name for name in item.names] if isinstance(item, Tracklet) else [item.path]
    for number, path in enumerate(paths):
        path = path.absolute()
        yield {
            "path": path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path),
            "pid": pid,
            "camid": "" if item.camid is None else str(item.camid),
            "split": entry.split,
            "role": role,
            "tracklet": str(item.path) if isinstance(item, Tracklet) else "",
            "frame": str(number) if isinstance(item, Tracklet) else "",
            "time": "" if item.time is None else repr(float(item.time)),
            "recording": item.recording or "",
        }
