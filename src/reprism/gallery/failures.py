"""Explain failures of a gallery's storage: LanceDB's own messages are long, and name lines of its source."""

from __future__ import annotations

import re

_DAMAGED = "a file of it is missing, empty or cut off: bring it back from a backup, or remove the folder and index anew"

_REASONS: tuple[tuple[str, str], ...] = (
    ("No space left on device", "the disk is full: free some space and try again"),
    ("Disk quota exceeded", "the quota of disk space is used up: free some space and try again"),
    ("File too large", "a file may not be made so large here: raise the limit (ulimit -f) and try again"),
    ("Permission denied", "it may not be written or read by this user: see who owns its folder"),
    ("Operation not permitted", "it may not be written by this user: see who owns its folder"),
    ("Read-only file system", "its file system can only be read: mount it to be written, or copy the gallery"),
    ("Too many open files", "too many files are open: raise the limit (ulimit -n 8192) and try again"),
    ("Input/output error", "the disk fails: copy the gallery from it while that is possible"),
    ("Cannot allocate memory", "there is not enough memory: end other programs and try again"),
    ("ommit conflict", "another process changed it at the same time: try again"),
    ("oncurrent", "another process changed it at the same time: try again"),
    ("Not found", _DAMAGED),
    ("No such file", _DAMAGED),
    ("Invalid range", _DAMAGED),
    ("failed to fill whole buffer", _DAMAGED),
    ("file size is too small", _DAMAGED),
)
"""Parts of messages that LanceDB takes over from the system or does not change, and what they mean."""

_LANCE = re.compile(r"lance error|LanceError|lance::")
_SOURCE = re.compile(r",? ?/\S+\.rs:\d+(:\d+)?")


def storage_failure(error: BaseException) -> str | None:
    """Return what went wrong where LanceDB failed; None for any other error, which names its file itself.

    Returns:
        One line, in which the reason stands before the remedy; it does not name the gallery.
    """
    said = " ".join(str(error).split())
    if not _LANCE.search(said):
        return None
    for part, meaning in _REASONS:
        if part in said:
            return meaning
    return _SOURCE.sub("", said)[:300]
