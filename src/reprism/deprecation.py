"""Old names that are kept for one version, with a warning."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def renamed(module: str, **names: str) -> Callable[[str], Any]:
    """Make a module's ``__getattr__`` that gives old names their new meaning.

    Args:
        module: Name of the module that has the old names.
        **names: New place of each old name, as ``package.module:name``.
    """

    def look_up(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new = names[name].partition(":")
        _warn(f"{module}.{name}", f"{home}.{new}")
        return getattr(importlib.import_module(home), new)

    return look_up


def renamed_arguments(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Let a function take arguments by their old names too.

    Args:
        **names: New name of each old one.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **given: P.kwargs) -> T:
            for old in names.keys() & given.keys():
                _warn(f"{function.__qualname__.removesuffix('.__init__')}({old}=…)", f"{names[old]}=…")
                given[names[old]] = given.pop(old)
            return function(*args, **given)

        return call

    return decorate


def renamed_fields(**names: str) -> Callable[[type[T]], type[T]]:
    """Let a dataclass be made and read by old names of its fields too.

    Args:
        **names: New name of each old one.
    """

    def decorate(kind: type[T]) -> type[T]:
        kind.__init__ = renamed_arguments(**names)(kind.__init__)  # type: ignore[method-assign]
        for old, new in names.items():
            setattr(kind, old, property(functools.partial(_read, old, new)))
        return kind

    return decorate


def _read(old: str, new: str, value: object) -> Any:
    _warn(f"{type(value).__name__}.{old}", new)
    return getattr(value, new)


def _warn(old: str, new: str) -> None:
    message = f"{old} is now {new}; the old name goes with the next version"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
