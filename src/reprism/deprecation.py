"""Old names that are kept for one version."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def renamed(module: str, **names: str) -> Callable[[str], Any]:
    """Make a module's ``__getattr__`` that gives old names their new meaning for one version, with a warning.

    Args:
        module: Name of the module that has the old names.
        **names: New place of each old name, as ``package.module:name``.
    """

    def look_up(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].partition(":")
        warnings.warn(
            f"{module}.{name} is now {home}.{new}; the old name goes with the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(home), new)

    return look_up
