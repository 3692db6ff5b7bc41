"""Files and folders that appear whole: written aside, and renamed when complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

_POLL_SECONDS = 0.02  # between two looks at a lock that another holds


@contextmanager
def whole_file(path: str | PathLike[str], *, previous: str | PathLike[str] | None = None) -> Iterator[BinaryIO]:
    """Open a file to write that is renamed to ``path`` once all of it is on the disk, and removed if that fails.

    Until then it lies beside ``path``: on the same file system, where renaming is one step. A crash or a power cut at
    any moment leaves the old file or the new one. The folder is made if absent.

    Args:
        path: File to write; an existing one is replaced.
        previous: Name in the same folder under which the replaced file is kept.

    Raises:
        OSError: It cannot be written, such as on a full disk; names ``path``.
    """
    path = Path(path)
    make_folder(path.parent)
    # A name of its own: two processes may write the same file at once.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with aside.open("wb") as file:
            mode = os.fstat(file.fileno()).st_mode
            yield file
        # By its name: safetensors puts a file of its own, which others may not read, in place of the opened one.
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
        OSError: That fails, such as on a full or failing disk; names ``path``.
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
    """Bring a folder's names to the disk, where the system can: Windows and some network shares cannot.

    Raises:
        OSError: The system can, and it failed.
    """
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # such as the folder of all users' homes, which may be entered but not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: str | PathLike[str]) -> None:
    """Make a folder and its parents where absent, and bring their names to the disk."""
    folder = Path(folder).absolute()
    missing = [some for some in (folder, *folder.parents) if not some.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for some in reversed(missing):
        sync_folder(some.parent)


def write_whole(path: str | PathLike[str], content: str | bytes) -> None:
    """Write a file that appears whole; text as UTF-8. Its folder is made if absent."""
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: str | PathLike[str], values: Any) -> None:
    """Write values as indented JSON in a file that appears whole."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


@contextmanager
def one_at_a_time(path: str | PathLike[str], *, seconds: float | None = None) -> Iterator[None]:
    """Wait until no other thread or process is inside with the same ``path``, a file made for this.

    The system releases the lock when a process ends, however that happens.

    Args:
        path: Lock file; it stays there.
        seconds: Maximum seconds to wait (default: as long as it takes).

    Raises:
        BlockingIOError: Another is still inside.
        OSError: The file cannot be made or opened.
    """
    # A lock of its own each time: of one object, other threads would count as the same holder.
    lock = FileLock(path, timeout=-1 if seconds is None else seconds, thread_local=False)
    try:
        lock.acquire(poll_interval=_POLL_SECONDS)
    except Timeout as error:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process holds it", str(path)) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_folder(root: str | PathLike[str]) -> Iterator[Path]:
    """Make a folder to fill, renamed to ``root`` once all of it is on the disk, and removed if that fails.

    Raises:
        FileExistsError: ``root`` is not an empty folder, at the beginning or at the end.
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
            os.sync()  # one call for all: syncing tens of thousands of small files one by one would take minutes
        try:
            if root.exists():
                root.rmdir()  # renaming onto an empty folder is not possible on every system
            unfinished.rename(root)
            sync_folder(unfinished.parent)
        except OSError as error:
            if root.is_dir():  # another process has filled it meanwhile
                raise FileExistsError(f"{root} was made by another process meanwhile") from error
            raise
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
