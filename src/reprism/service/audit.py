"""The audit log of a gallery, what was done by whom and when: a file of JSON lines that only grows.

A search is one line, and so are a clip that is sent and rows that are told to one who listens. A change (``add``,
``erase``) is two: one with the state ``begun``, on the disk before anything is changed, and one with ``done`` or
``failed``; both carry the same ``event``. A change that cannot be noted as begun is not made. One that was begun and
has no second line was cut short, or its outcome could not be noted: it may be there in part. A line that is no JSON was
cut off by a full disk, and what it was about was refused.

A line holds no descriptor, no picture and no name of a person. Rows stand in it by pseudonyms: digests of their ids
under a secret key, one for each gallery. They let two lines be told to be about the same row. An erased row cannot be
named again from the log and a list of paths, as it could be from ids, which are plain digests of paths. With the key
that is possible still: it lies in the gallery, not beside the log, and goes with it. Erasures note the pseudonyms of
what goes, never the identity; the log lies outside the gallery's folder, in which erasure is to leave no trace.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

from reprism.files import sync_folder

_KEY_BYTES = 32

_log = logging.getLogger(__name__)


class AuditError(OSError):
    """The audit log cannot be written; the message names it and the reason."""


@dataclass
class Change:
    """A change of the gallery, to be noted before it is made and after.

    Attributes:
        who: Name of the person or program that asked for it.
        what: ``add``, ``erase``, or ``link`` with an action: ``link enable``, ``link run``.
        ids: Ids of the rows concerned.
        facts: Further facts known before the change.
        outcome: Facts known after the change; filled in while it is made.
        event: Identifier that joins the change's two lines.
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
        key: The file of the key that pseudonyms are made with; likewise (default: ``path`` with ``.key`` added).

    Raises:
        AuditError: One of them cannot be opened for writing, or what is in ``key`` is no key.
    """

    def __init__(self, path: str | PathLike[str], key: str | PathLike[str] | None = None) -> None:
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise AuditError(
                f"the audit log {self.path} cannot be opened: {error.strerror}. Name another: --audit FILE"
            ) from error
        self._on_disk = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._lock = threading.Lock()
        try:
            self._key = _read_key(self.path.with_name(f"{self.path.name}.key") if key is None else Path(key))
        except AuditError:
            os.close(self._file)
            raise

    def pseudonym(self, id: str) -> str:  # noqa: A002 - what it is called in the gallery
        """Return a row's name in the log: 32 hexadecimal digits, HMAC-SHA256 of its id under the gallery's key."""
        return hmac.new(self._key, id.encode(), "sha256").hexdigest()[:32]

    def write(self, who: str, what: str, ids: Iterable[str] = (), **facts: Any) -> None:
        """Add a line: ``at`` (UTC), ``who``, ``what``, further facts, and ``ids``.

        It is with the system when this returns: it survives the process's end, if not a power failure.

        Raises:
            AuditError: It could not be written, such as on a full disk; then nothing may be answered.
        """
        self._append([{"who": who, "what": what, **facts, "ids": [self.pseudonym(each) for each in ids]}])

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
        begun = [each.facts | {"ids": [self.pseudonym(row) for row in each.ids]} for each in changes]
        self._append([_line(each, "begun", facts) for each, facts in zip(changes, begun, strict=True)], sync=True)
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
        """Return whether the last line is unfinished, so that another would be glued to it."""
        size = os.fstat(self._file).st_size if self._on_disk else 0
        return size > 0 and os.pread(self._file, 1, size - 1) != b"\n"

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)


def _line(change: Change, state: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {"who": change.who, "what": change.what, "event": change.event, "state": state, **facts}


def _read_key(path: Path) -> bytes:
    """Read the key in a file, which is made if absent; it appears whole, however many make it at once."""
    try:
        if not path.exists():
            aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(descriptor, secrets.token_bytes(_KEY_BYTES))
                os.fsync(descriptor)
                with suppress(FileExistsError):
                    os.link(aside, path)
            finally:
                os.close(descriptor)
                aside.unlink()
            sync_folder(path.parent)
        key = path.read_bytes()
    except OSError as error:
        raise AuditError(f"the key of the audit log, {path}, cannot be made or read: {error.strerror}") from error
    if len(key) != _KEY_BYTES:
        raise AuditError(
            f"the key of the audit log, {path}, has {len(key)} bytes instead of {_KEY_BYTES}: bring it back from a "
            "backup; or remove it, and what is noted from then on can no longer be matched with what was before"
        )
    return key
