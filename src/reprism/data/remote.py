"""Files at addresses such as ``s3://bucket/photos/1.jpg``: object storage, web servers and archives, by fsspec."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any, BinaryIO

from reprism.data.records import DataError

_MOST = 2**28  # bytes taken of a file that can only be read from its beginning to its end


def is_address(path: str | PathLike[str]) -> bool:
    """Return whether a path is an address, ``scheme://…``, and not of this machine's own files."""
    return "://" in str(path)


def check_schemes(paths: Iterable[str]) -> None:
    """Refuse addresses that cannot be read here at all, before the first of them is.

    Raises:
        DataError: A scheme is unknown, or needs a package that is not installed, or an address is a chain of several
            (``zip://…::s3://…``); names an address.
    """
    first: dict[str, str] = {}
    for path in paths:
        if is_address(path):
            first.setdefault(path.split("://", 1)[0], path)
    for address in first.values():
        _file_system(address)


@contextmanager
def open_address(address: str) -> Iterator[BinaryIO]:
    """Open a file at an address, to read from any place in it. No more of it is fetched than is read.

    Raises:
        DataError: As of :func:`check_schemes`.
        OSError: There is no such file, or it may not be read.
    """
    files, path = _file_system(address)
    with files.open(path, "rb") as file:
        yield file if file.seekable() else io.BytesIO(file.read(_MOST))


def files_below(address: str) -> list[str]:
    """Return the addresses of all files in a folder and its subfolders, sorted as a walk through them goes.

    Files and folders whose names begin with a dot are skipped.

    Raises:
        DataError: There is no such folder, or it cannot be listed; names it, the reason and the remedy.
    """
    files, root = _file_system(address)
    try:
        found = files.find(root)
    except Exception as error:  # each kind of storage has errors of its own
        raise DataError(f"{address} cannot be listed: {_one_line(error)}. Check the address and the access.") from error
    if not found:
        raise DataError(f"{address} holds no file: there is no such folder, or it is empty.")
    below = len(root.rstrip("/")) + 1
    # Like a local walk: a folder's own files before those of its subfolders.
    names = [(name[below:].split("/"), name) for name in found]
    names = [(parts, name) for parts, name in names if not any(part.startswith(".") for part in parts)]
    return [files.unstrip_protocol(name) for _, name in sorted(names, key=lambda pair: (pair[0][:-1], pair[0][-1]))]


def _file_system(address: str) -> tuple[Any, str]:
    import fsspec

    if "::" in address:  # a chain, whose parts open further ones
        raise DataError(f"{address} is a chain of addresses, and such are not followed. Give the file's own address.")
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise DataError(f"{address} needs a package that is not installed: {error}") from error
    except ValueError as error:  # no such scheme
        raise DataError(
            f"{address} cannot be opened: {error}. fsspec knows schemes such as s3, gs and https."
        ) from error
    return found


def _one_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n")[0].rstrip(".")
