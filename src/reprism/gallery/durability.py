"""Let a gallery on a local disk outlive a power cut.

LanceDB writes a transaction's files, then a manifest that names them, and leaves it to the system when they come to the
disk: that may take half a minute, in any order. A power cut meanwhile leaves manifests that are empty, or that name
empty files. So here every transaction is brought to the disk and then *confirmed*: a small file names, for each table,
the last manifest that is on the disk together with all it needs. Nothing older is removed before that. A manifest that
was never confirmed is passed over once the machine has been started again: no call had returned that wrote it.

This takes a disk and a file system that keep what they were told to keep, as ext4, XFS, APFS and NTFS do.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from reprism.files import one_at_a_time, sync_file, sync_folder, write_json
from reprism.gallery.database import (
    CAMERAS,
    ERASING,
    LINK_TABLES,
    PROJECTIONS,
    ROWS,
    GalleryBusyError,
    GalleryError,
    connect,
)

LOCK, CONFIRMED = ".writing", ".confirmed"
"""File that a writer locks; and file of each table's last manifest that is on the disk, with all that it names."""

_ASIDE = ".unconfirmed"
_READ_AT_ONCE = 2**16  # rows
_BOOT = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger(__name__)


class Disk:
    """Brings what is written in a gallery's folder to the disk, and lets one process write at a time.

    Args:
        folder: The gallery's; None for object storage, which does both by itself or not at all.

    Attributes:
        lock_seconds: Maximum seconds to wait for another process that writes (default: until it is done).
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.lock_seconds: float | None = None
        self._there: set[tuple[str, int, int]] = set()  # the files that this process brought to the disk

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wait for other writers; on leaving without an error, what was written is on the disk.

        Raises:
            GalleryBusyError: Another was still writing after ``lock_seconds``.
        """
        with ExitStack() as stack:
            if self.folder is not None:
                try:
                    stack.enter_context(one_at_a_time(self.folder / LOCK, seconds=self.lock_seconds))
                except BlockingIOError as error:
                    raise GalleryBusyError(
                        f"another process has been writing to {self.folder} for {self.lock_seconds:g} seconds: "
                        "nothing was changed; try again"
                    ) from error
            yield
            self.confirm()

    def confirm(self) -> None:
        """While writing: bring all that is new to the disk, then note that it is there.

        Raises:
            OSError: The disk is full or fails; what was confirmed before stays so.
        """
        if self.folder is None:
            return
        folders, files = [self.folder], set()
        for folder in folders:
            with os.scandir(folder) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.name not in (LOCK, CONFIRMED):
                        with suppress(FileNotFoundError):
                            about = entry.stat(follow_symlinks=False)
                            files.add((entry.path, about.st_ino, about.st_mtime_ns))
        for path, _, _ in sorted(files - self._there):
            # Workers of a cluster write files beside a writer, under names that vanish when they are whole. Such a file
            # belongs to no version yet; a later writer, which makes it part of one, brings it to the disk.
            with suppress(FileNotFoundError):
                sync_file(path)
        # Of what was removed too: else a cut brings it back.
        for folder in [*reversed(folders), self.folder.absolute().parent]:
            sync_folder(folder)
        self._there = files
        newest = {name: manifests[0].name for name in _TABLES if (manifests := _manifests(self.folder, name))}
        if (noted := {"boot": _boot(), "manifests": newest}) != _confirmed(self.folder):
            write_json(self.folder / CONFIRMED, noted)


def is_whole(folder: Path) -> bool:
    """Return whether each table's newest manifest is confirmed: on the disk with all that it needs."""
    newest = {name: manifests[0].name for name in _TABLES if (manifests := _manifests(folder, name))}
    confirmed = _confirmed(folder)["manifests"]
    return newest == {name: last for name, last in confirmed.items() if _table(folder, name).exists()}


def recover(folder: Path) -> None:
    """Pass over what a power cut left half written; does nothing while another process writes, or where it may not.

    If the machine was started again since, each table goes back to its last confirmed version. Otherwise a process was
    killed, and the newest version is taken of which every file can be read; so too of a gallery that confirms nothing,
    because an earlier Reprism or another program wrote it. Manifests that are passed over are renamed; it is said.

    Raises:
        GalleryError: No version can be read.
    """
    if is_whole(folder):
        return
    try:
        with one_at_a_time(folder / LOCK, seconds=0):
            _recover(folder)
    except OSError as error:
        # Another writes; or it cannot be written to, and is read as it is.
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC):
            raise


def _recover(folder: Path) -> None:
    noted = _confirmed(folder)
    restarted = bool(noted["manifests"]) and (noted["boot"] is None or noted["boot"] != _boot())
    for name in _TABLES:
        manifests, last = _manifests(folder, name), noted["manifests"].get(name)
        if restarted and last is None:  # it was being made
            shutil.rmtree(_table(folder, name), ignore_errors=True)
            continue
        if restarted and last in {path.name for path in manifests}:
            passed = [path for path in manifests if path.name < last]
        else:
            passed = _unreadable(folder, name, manifests)
        for path in passed:
            path.rename(path.with_name(path.name + _ASIDE))
        if passed:
            _log.warning(
                "%s: the last change to the table of %s had not come to the disk when the machine stopped. The version "
                "before it is taken; it is whole.", folder, name,
            )  # fmt: skip
    with suppress(OSError):  # on a full disk it can be read all the same; whoever writes next confirms
        Disk(folder).confirm()


_TABLES = (ROWS, PROJECTIONS, ERASING, CAMERAS, *LINK_TABLES)


def _table(folder: Path, name: str) -> Path:
    return folder / f"{name}.lance"


def _manifests(folder: Path, name: str) -> list[Path]:
    """Return a table's manifests, newest first: Lance's names count down."""
    return sorted((_table(folder, name) / "_versions").glob("*.manifest"))


def _unreadable(folder: Path, name: str, manifests: list[Path]) -> list[Path]:
    """Return the manifests newer than the newest whose files can all be read. They are hidden meanwhile."""
    hidden: list[tuple[Path, Path]] = []
    try:
        for path in manifests:
            try:
                table = connect(folder).open_table(name)
                # A file that is cut off anywhere cannot be opened at all, so that the narrowest column shows it.
                columns = ["id"] if "id" in table.schema.names else table.schema.names
                for _ in table.search().select(columns).to_batches(_READ_AT_ONCE):
                    pass
            except (RuntimeError, OSError, ValueError):
                hidden.append((path, path.rename(path.with_name(path.name + _ASIDE))))
            else:
                return [path for path, _ in hidden]
    finally:
        for path, aside in hidden:
            aside.rename(path)
    if name != ROWS:  # what needs it will say so
        return []
    raise GalleryError(
        f"{folder} is damaged: none of the {len(manifests)} versions that it keeps can be read. Bring it back from a "
        "backup, or remove the folder and index anew."
    )


def _confirmed(folder: Path) -> dict[str, Any]:
    try:
        noted = json.loads((folder / CONFIRMED).read_text("utf-8"))
        return {"boot": noted["boot"], "manifests": dict(noted["manifests"])}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {"boot": None, "manifests": {}}


def _boot() -> str | None:
    """Return the system's id of the time since it was started; None where it has none."""
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return None
