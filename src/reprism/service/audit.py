"""What was done to a gallery, by whom and when: a file of JSON lines that only grows.

A line holds no descriptor, no picture and no name of a person. Rows stand in it by their ids, which are digests: they
let two lines be told to be about the same row, and mean nothing once the row is erased. Erasures therefore write the
ids of what went, never the identity; the file lies outside the gallery's folder, which erasure is to leave no trace in.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any


class AuditLog:
    """A file that lines are added to, closed on leaving the context; threads and processes may share it.

    Args:
        path: The file; made if absent, readable by its owner alone.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()

    def write(self, who: str, what: str, ids: Iterable[str] = (), **facts: Any) -> None:
        """Add a line: ``at`` (UTC), ``who``, ``what``, ``ids``, and further facts.

        It is with the system when this returns: it survives the process's end, if not a power failure.

        Raises:
            OSError: it could not be written, such as on a full disk; then nothing may be answered.
        """
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "who": who, "what": what, **facts}
        content = json.dumps(line | {"ids": list(ids)}).encode() + b"\n"
        with self._lock:
            written = os.write(self._file, content)
            if written < len(content):
                raise OSError(f"the audit log {self.path} took {written} of {len(content)} bytes: is the disk full?")

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)
