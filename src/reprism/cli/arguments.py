"""Read a command's arguments, and show help that begins with an example and the options that matter."""

from __future__ import annotations

import inspect
import shutil
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

T = TypeVar("T")

_RENAMED = {"--video.runs": "--video.segments", "--data.video.runs": "--data.video.segments"}
"""Options by their old names, which are taken for one version."""

_METAVARS = {str: "STR", int: "INT", float: "FLOAT", Path: "PATH"}


def parse(
    kind: type[T],
    argv: Sequence[str],
    prog: str,
    *,
    example: str,
    main: Sequence[str] = (),
    default: T | None = None,
    about: str | None = None,
) -> T:
    """Read a command's arguments.

    Args:
        kind: A dataclass. Its docstring and its fields' docstrings are the help.
        argv: The arguments, without the command's name.
        prog: The command, such as ``reprism index``.
        example: Commands that work as they stand, one a line. The help begins with them.
        main: Names of the fields that the help lists first.
        default: Values that differ from the dataclass's own.
        about: Help in place of the dataclass's docstring.

    Raises:
        SystemExit: The arguments ask for help (status 0), or are wrong (status 2, explained on standard error).
    """
    if {"-h", "--help"} & {*argv}:
        print(_introduction(inspect.cleandoc(about or kind.__doc__ or ""), example))
    registry = ConstructorRegistry()
    registry.struct_rule(_plain_help(kind, main))
    values: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(kind, args=list(map(_renamed, argv)), prog=prog, description="", registry=registry, **values)


def _renamed(argument: str) -> str:
    name, separator, value = argument.partition("=")
    if name not in _RENAMED:
        return argument
    warnings.warn(f"{name} is now {_RENAMED[name]}; the old name goes with the next version", stacklevel=3)
    return f"{_RENAMED[name]}{separator}{value}"


def _introduction(about: str, example: str) -> str:
    """Return the first sentence, the example, then the rest, as wide as the terminal."""
    width = max(40, shutil.get_terminal_size().columns)
    first, *others = [
        textwrap.fill(" ".join(text.split()), width, break_on_hyphens=False) for text in about.split("\n\n")
    ]
    heading = "Examples:" if "\n" in example else "Example:"
    return "\n\n".join([first, f"{heading}\n{textwrap.indent(example, '  ')}", *others]) + "\n"


def _plain_help(kind: type, main: Sequence[str]) -> Callable[[StructTypeInfo], StructConstructorSpec | None]:
    """Return a rule for tyro that changes how fields are shown, and lists those named ``main`` first."""
    asking = False

    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal asking
        if asking:
            return None  # tyro asks every rule, this one too: its own answer is the one to change
        asking = True
        try:
            found = ConstructorRegistry.get_struct_spec(info)
        finally:
            asking = False
        if not isinstance(found, StructConstructorSpec):
            return None
        fields = [_plainly(field) for field in found.fields]
        if info.type is kind:
            fields.sort(key=lambda field: main.index(field.name) if field.name in main else len(main))
        return replace(found, fields=tuple(fields))

    return rule


def _plainly(field: StructFieldSpec) -> StructFieldSpec:
    """Show a field without ``None`` as a type or a default, without backticks, in one paragraph."""
    kind: Any = field.type
    bare, *notes = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    configured: Any = next((note for note in notes if isinstance(note, type(tyro.conf.arg()))), tyro.conf.arg())
    if configured.help_behavior_hint is None and configured.name is None:
        shown = replace(
            configured,
            help_behavior_hint=_flag_hint if bare is bool else _default_hint,
            metavar=configured.metavar or _metavar(bare, field.default),
        )
        kind = Annotated[(bare, *(note for note in notes if note is not configured), shown)]
    return replace(field, type=kind, helptext=lambda: _one_paragraph(field.helptext))


def _one_paragraph(text: str | Callable[[], str | None] | None) -> str | None:
    text = text() if callable(text) else text
    return None if text is None else " ".join(text.replace("`", "").split())


def _default_hint(default: str) -> str:
    return "" if default in ("None", "") else f"(default: {default})"


def _flag_hint(default: str) -> str:
    return {"True": "(default: on)", "False": "(default: off)"}.get(default, "")


def _metavar(kind: Any, default: Any) -> str | None:
    """Name the value of an option that may be left out: its type, without ``None``."""
    if default is not None or get_origin(kind) not in (Union, UnionType):
        return None
    kinds = [get_args(one)[0] if get_origin(one) is Annotated else one for one in get_args(kind) if one is not NoneType]
    if len(kinds) != 1:
        return None
    if get_origin(kinds[0]) is Literal:
        return "{" + ",".join(map(str, get_args(kinds[0]))) + "}"
    return _METAVARS.get(kinds[0])
