"""Code that recipes, runs and model files name, such as ``mymodule:make_loss``: imported only if the user trusts it."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PATH = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")

_trusted: set[str] = set()


class UntrustedCodeError(ValueError):
    """A file names code of a module that nobody said may be imported; the message names both and the remedy."""


def trust(*modules: str) -> None:
    """Let recipes, run folders and model files name code of these modules, and of modules in them, in this process.

    Importing code runs it, and a file from elsewhere could name any. On the command line: ``--trust MODULE``. A module
    that is not installed is looked for in the working directory.

    Args:
        *modules: Names such as ``mymodule`` or ``mypackage``.
    """
    _trusted.update(modules)


def is_import_path(text: str) -> bool:
    """Return whether a text is of the form ``package.module:name``."""
    return _PATH.fullmatch(text) is not None


def import_object(path: str, what: str) -> Any:
    """Import an object by its path.

    Args:
        path: ``package.module:name``.
        what: Purpose of the object, for messages.

    Raises:
        UntrustedCodeError: The module is none of those that :func:`trust` was told.
        ValueError: The path is of another form, or there is no such module or object in it.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise ValueError(f"expected {what} as package.module:name, got {path!r}")
    module, name = match.groups()
    if not any(module == one or module.startswith(f"{one}.") for one in _trusted):
        raise UntrustedCodeError(
            f"{what} is the code {path!r}, which is imported only if you trust it: give --trust {module}, in Python "
            f"reprism.trust({module!r})"
        )
    try:
        with _working_directory():
            return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise ValueError(f"{what} is {path!r}, but there is no module {error.name!r} here") from error
    except AttributeError as error:
        raise ValueError(f"{what} is {path!r}, but {module} has no {name!r}") from error


@contextmanager
def _working_directory() -> Iterator[None]:
    """Look for modules in the working directory too, after all other places, and only for this import."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
