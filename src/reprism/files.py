"""Files and folders that appear whole: written aside, and renamed when they are complete."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def write_whole(path: str | PathLike[str], content: str | bytes) -> None:
    """Write a file so that its name only ever stands for all of it; text as UTF-8. Its folder is made if absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two processes may write the same file at once.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: str | PathLike[str], values: Any) -> None:
    """Write values as indented JSON, whole."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


@contextmanager
def one_at_a_time(path: str | PathLike[str]) -> Iterator[None]:
    """Wait until no other thread or process is inside with the same ``path``: a file made for this, and left there.

    The system lets go of it when a process ends, however that comes about. Where it has no such locks (Windows),
    nobody waits.
    """
    with Path(path).open("ab") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def whole_folder(root: str | PathLike[str]) -> Iterator[Path]:
    """A folder beside ``root`` to fill; it takes that name if all goes well, and is removed if not.

    Raises:
        FileExistsError: ``root`` exists, and is not an empty folder; or came to, while this one was filled.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        what = "is not empty" if root.is_dir() else "is a file"
        raise FileExistsError(f"{root} exists and {what}: remove it, or choose another root")
    unfinished = root.absolute().with_name(f".{root.absolute().name}.{uuid.uuid4().hex[:8]}.unfinished")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        try:
            if root.exists():
                root.rmdir()  # renaming onto an empty folder is not possible on every system
            unfinished.rename(root)
        except OSError as error:
            if root.is_dir():  # another process has filled it meanwhile
                raise FileExistsError(f"{root} has been made by another process meanwhile") from error
            raise
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
