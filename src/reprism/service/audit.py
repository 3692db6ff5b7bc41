"""What was done to a gallery, by whom and when: a file of JSON lines that only grows.

A search is one line. A change (``add``, ``erase``) is two: one with the state ``begun``, on the disk before anything is
changed, and one with ``done`` or ``failed``; both carry the same ``event``. A change that cannot be noted as begun is
not made. One that was begun and has no second line was cut short, or its outcome could not be noted: it may be there in
part. A line that is no JSON was cut off by a full disk, and what it was about was refused.

A line holds no descriptor, no picture and no name of a person. Rows stand in it by their ids, which are digests: they
let two lines be told to be about the same row, and mean nothing once the row is erased. Erasures therefore write the
ids of what goes, never the identity; the file lies outside the gallery's folder, which erasure is to leave no trace in.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)


class AuditError(OSError):
    """The audit log cannot be written; the message names it and the reason."""


@dataclass
class Change:
    """A change of the gallery, to be noted before it is made and after.

    Attributes:
        who: Whoever asked for it.
        what: ``add`` or ``erase``.
        ids: The rows that it is about.
        facts: What else is known before.
        outcome: What is known after; filled in while it is made.
        event: Joins its two lines.
    """

    who: str
    what: str
    ids: Sequence[str] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    event: str = field(default_factory=lambda: secrets.token_hex(8))


class AuditLog:
    """A file that lines are added to, closed on leaving the context; threads and processes may share it.

    Args:
        path: The file; made if absent, readable by its owner alone.

    Raises:
        AuditError: It cannot be opened for writing.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise AuditError(
                f"the audit log {self.path} cannot be opened: {error.strerror}. Name another: --audit FILE"
            ) from error
        self._on_disk = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._lock = threading.Lock()

    def write(self, who: str, what: str, ids: Iterable[str] = (), **facts: Any) -> None:
        """Add a line: ``at`` (UTC), ``who``, ``what``, further facts, and ``ids``.

        It is with the system when this returns: it survives the process's end, if not a power failure.

        Raises:
            AuditError: It could not be written, such as on a full disk; then nothing may be answered.
        """
        self._append([{"who": who, "what": what, **facts, "ids": list(ids)}])

    @contextmanager
    def recording(self, changes: Sequence[Change]) -> Iterator[None]:
        """Note changes as begun, make them inside the context, and note how they ended.

        That they were begun survives a power failure. An outcome that cannot be noted is an error in the service's log.

        Raises:
            AuditError: They could not be noted as begun; the context was not entered.
        """
        if not changes:
            yield
            return
        self._append([_line(each, "begun", {**each.facts, "ids": list(each.ids)}) for each in changes], sync=True)
        state = "failed"
        try:
            yield
            state = "done"
        finally:
            try:
                self._append([_line(each, state, each.outcome) for each in changes], sync=True)
            except AuditError as error:
                _log.error("%s; the outcome (%s) of what was begun is not in it", error, state)

    def _append(self, lines: Sequence[dict[str, Any]], *, sync: bool = False) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = b"".join(json.dumps({"at": now} | line).encode() + b"\n" for line in lines)
        try:
            with self._lock:
                if self._is_cut_off():
                    content = b"\n" + content
                written = os.write(self._file, content)
                if written < len(content):
                    raise OSError(0, f"it took {written} of {len(content)} bytes: is the disk full?")
                if sync and self._on_disk:
                    os.fsync(self._file)
        except OSError as error:
            raise AuditError(f"the audit log {self.path} cannot be written: {error.strerror}") from error

    def _is_cut_off(self) -> bool:
        """Whether the last line has no end, so that another would be glued to it."""
        size = os.fstat(self._file).st_size if self._on_disk else 0
        return size > 0 and os.pread(self._file, 1, size - 1) != b"\n"

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)


def _line(change: Change, state: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {"who": change.who, "what": change.what, "event": change.event, "state": state, **facts}
