"""Files and folders that appear whole: written aside, and renamed when they are complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def whole_file(path: str | PathLike[str], *, previous: str | PathLike[str] | None = None) -> Iterator[BinaryIO]:
    """Open a file to write that takes the name ``path`` when all of it is on the disk, and is removed if that fails.

    It lies beside ``path`` until then: on the same file system, where renaming is one step. A crash or a power cut at
    any moment leaves the old file or the new one. The folder is made if absent.

    Args:
        path: the file to write; an existing one is replaced.
        previous: a name in the same folder that the replaced file is kept by.

    Raises:
        OSError: it cannot be written, such as on a full disk; names ``path``.
    """
    path = Path(path)
    make_folder(path.parent)
    # A name of its own: two processes may write the same file at once.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with aside.open("wb") as file:
            mode = os.fstat(file.fileno()).st_mode
            yield file
        # By its name: safetensors puts a file of its own, which others may not read, in the place of the opened one.
        aside.chmod(mode & 0o777)
        sync_file(aside)
        if previous is not None and path.exists():
            path.replace(previous)
        aside.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        # torch.save hides the system's reason behind one of its own; and neither says which file.
        reason = error if isinstance(error, OSError) else error.__context__
        if isinstance(reason, OSError) and reason.errno is not None:
            raise OSError(reason.errno, os.strerror(reason.errno), str(path)) from error
        raise


def sync_file(path: str | PathLike[str]) -> None:
    """Bring a file's content to the disk.

    Raises:
        OSError: it cannot be, such as on a full or failing disk; names ``path``.
    """
    # Windows syncs only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
    finally:
        os.close(descriptor)


def sync_folder(folder: str | PathLike[str]) -> None:
    """Bring a folder's names to the disk, where the system can: Windows opens no folders, some shares sync none.

    Raises:
        OSError: the system can, and it failed.
    """
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # such as that of all users, which lets them pass and lists nothing
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: str | PathLike[str]) -> None:
    """Make a folder, and those that it lies in, where they are not there; their names are on the disk afterwards."""
    folder = Path(folder).absolute()
    missing = [some for some in (folder, *folder.parents) if not some.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for some in reversed(missing):
        sync_folder(some.parent)


def write_whole(path: str | PathLike[str], content: str | bytes) -> None:
    """Write a file so that its name only ever stands for all of it; text as UTF-8. Its folder is made if absent."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: str | PathLike[str], values: Any) -> None:
    """Write values as indented JSON, whole."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


@contextmanager
def one_at_a_time(path: str | PathLike[str], *, seconds: float | None = None) -> Iterator[None]:
    """Wait until no other thread or process is inside with the same ``path``: a file made for this, and left there.

    The system lets go of it when a process ends, however that comes about. Where it has no such locks (Windows),
    nobody waits.

    Args:
        path: the file.
        seconds: how long to wait for another to leave; None: until it does.

    Raises:
        BlockingIOError: another is still inside.
    """
    with Path(path).open("ab") as file:
        if fcntl is not None:
            if seconds is None:
                fcntl.flock(file, fcntl.LOCK_EX)
            else:
                _lock_within(file, seconds)
        yield


def _lock_within(file: BinaryIO, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.02)


@contextmanager
def whole_folder(root: str | PathLike[str]) -> Iterator[Path]:
    """A folder beside ``root`` to fill; it takes that name when all of it is on the disk, and is removed if that fails.

    Raises:
        FileExistsError: ``root`` exists, and is not an empty folder; or came to, while this one was filled.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        what = "is not empty" if root.is_dir() else "is a file"
        raise FileExistsError(f"{root} exists and {what}: remove it, or choose another root")
    unfinished = root.absolute().with_name(f".{root.absolute().name}.{uuid.uuid4().hex[:8]}.unfinished")
    make_folder(unfinished)
    try:
        yield unfinished
        if hasattr(os, "sync"):
            os.sync()  # one call for all: of tens of thousands of small files each alone would take minutes
        try:
            if root.exists():
                root.rmdir()  # renaming onto an empty folder is not possible on every system
            unfinished.rename(root)
            sync_folder(unfinished.parent)
        except OSError as error:
            if root.is_dir():  # another process has filled it meanwhile
                raise FileExistsError(f"{root} has been made by another process meanwhile") from error
            raise
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
