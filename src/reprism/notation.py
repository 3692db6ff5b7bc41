"""The partition notation: text ↔ :class:`Partition`, and the :class:`Part` that everything else is driven by.

::

    partition := branch ("+" branch)*
    branch    := "p" INT [ "(" group+ ")" | "[" group+ "]" ]
    group     := ("s" | "c") INT            s = horizontal stripes, c = channel groups

``p1`` is a branch with its global feature alone; ``p2(s2c2)`` a global feature, 2 stripes and 2 channel groups;
``p1[s6]`` the 6 stripes alone. The SCR network (WACV 2020, Figure 3) is ``p1+p2(s2c2)+p3(s3c3)``.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["global", "stripe", "channel"]

_KINDS: dict[str, Kind] = {"s": "stripe", "c": "channel"}
_LETTERS = {kind: letter for letter, kind in _KINDS.items()}
# Counts above this are surely a typing error, and would only fail later and less clearly.
_MAX_COUNT = 1024


class NotationError(ValueError):
    """A partition text that does not follow the grammar; the message points at the offending character."""

    def __init__(self, text: str, position: int, reason: str) -> None:
        self.text, self.position, self.reason = text, position, reason
        super().__init__(
            f"not a partition: {reason} (character {position + 1})\n  {text}\n  {' ' * position}^\n"
            "A partition reads like p1+p2(s2c2)+p3(s3c3): branches joined by +, each with stripes (s2) and channel "
            "groups (c2); square brackets, as in p1[s6], leave the global feature out."
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One feature of the descriptor: the whole, one stripe, or one channel group of one branch's map.

    Attributes:
        name: Unique in its partition, e.g. ``p2``, ``p2s1``, ``p3c3``.
        branch: Name of the branch it is pooled from, e.g. ``p2``.
        kind: ``global``, ``stripe`` (top to bottom) or ``channel``.
        index: Index, from 0, among the parts of its group; 0 for a global part.
        count: Number of parts in its group; 1 for a global part.
    """

    name: str
    branch: str
    kind: Kind
    index: int = 0
    count: int = 1


@dataclass(frozen=True, slots=True)
class Group:
    """``count`` stripes or channel groups that one map is cut into."""

    kind: Kind
    count: int

    def __str__(self) -> str:
        return f"{_LETTERS[self.kind]}{self.count}"


@dataclass(frozen=True, slots=True)
class Branch:
    """One copy of the backbone's last layers, and what its map is cut into.

    Attributes:
        number: The integer after ``p``.
        groups: The cuts, in the order written; empty for a branch with its global feature alone.
        has_global: True if the map's global feature is a part too (round brackets, or none).
    """

    number: int
    groups: tuple[Group, ...] = ()
    has_global: bool = True

    def __post_init__(self) -> None:
        if not self.groups and not self.has_global:
            raise ValueError(f"branch p{self.number} has no part: give it groups or its global feature")

    @property
    def name(self) -> str:
        """``p`` and the number."""
        return f"p{self.number}"

    @property
    def parts(self) -> tuple[Part, ...]:
        """The branch's parts: the global one, then each group's, in the order written."""
        parts = [Part(self.name, self.name, "global")] if self.has_global else []
        # Two groups of one kind, as in p1[s1s2s4s8], would give two parts the name p1s1: those say "of" what.
        groups_of_kind = Counter(group.kind for group in self.groups)
        for group in self.groups:
            suffix = f"of{group.count}" if groups_of_kind[group.kind] > 1 else ""
            letter = _LETTERS[group.kind]
            parts += [
                Part(f"{self.name}{letter}{index + 1}{suffix}", self.name, group.kind, index, group.count)
                for index in range(group.count)
            ]
        return tuple(parts)

    def __str__(self) -> str:
        if not self.groups:
            return self.name
        left, right = "()" if self.has_global else "[]"
        return f"{self.name}{left}{''.join(map(str, self.groups))}{right}"


@dataclass(frozen=True)
class Partition:
    """A network's branches and parts (paper section 3.1), written and read as text.

    >>> str(Partition.parse("p1+p2(s2c2)+p3(s3c3)"))
    'p1+p2(s2c2)+p3(s3c3)'
    >>> len(Partition.parse("p1+p2(s2c2)+p3(s3c3)").parts)
    13
    """

    branches: tuple[Branch, ...]

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError("a partition needs at least one branch")

    @classmethod
    def parse(cls, text: str) -> Partition:
        """Read a partition; ``str()`` of the result is ``text`` again.

        Raises:
            NotationError: The text does not follow the grammar, names a branch or a cut twice, or has a count of 0.
        """
        return _Parser(text).partition()

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All parts, in the order of the descriptor's columns."""
        return tuple(part for branch in self.branches for part in branch.parts)

    def columns(self, name: str, part_dim: int) -> slice:
        """Return the descriptor's columns that hold the part ``name``, each part being ``part_dim`` wide.

        Raises:
            KeyError: No part has that name.
        """
        for index, part in enumerate(self.parts):
            if part.name == name:
                return slice(index * part_dim, (index + 1) * part_dim)
        raise KeyError(f"{self} has no part {name!r}; its parts are {', '.join(p.name for p in self.parts)}")

    def __str__(self) -> str:
        return "+".join(map(str, self.branches))


class _Parser:
    """Recursive descent over the grammar at the top of this file."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def partition(self) -> Partition:
        branches: list[Branch] = []
        while True:
            start = self.position
            branch = self.branch()
            if any(branch.number == other.number for other in branches):
                raise self.error(f"branch {branch.name} is named twice", start)
            branches.append(branch)
            if self.position == len(self.text):
                return Partition(tuple(branches))
            self.take("+", "expected + and another branch, or the end")

    def branch(self) -> Branch:
        self.take("p", "expected a branch, such as p1")
        number = self.integer("the branch's number")
        opening = self.peek()
        if opening not in ("(", "["):
            return Branch(number)
        self.position += 1
        closing = ")" if opening == "(" else "]"
        groups: list[Group] = []
        while True:
            start = self.position
            letter = self.peek()
            if letter not in _KINDS:
                raise self.error("expected s (stripes) or c (channel groups)" + (f", or {closing}" if groups else ""))
            self.position += 1
            group = Group(_KINDS[letter], self.integer("the number of parts"))
            if group in groups:
                raise self.error(f"{group} is named twice in one branch", start)
            groups.append(group)
            if self.peek() == closing:
                self.position += 1
                return Branch(number, tuple(groups), has_global=opening == "(")

    def integer(self, meaning: str) -> int:
        # ASCII only, and no leading zero: str() must give the very text back.
        match = re.compile(r"[0-9]+").match(self.text, self.position)
        if match is None:
            raise self.error(f"expected {meaning}")
        if match[0].startswith("0"):
            raise self.error(f"{meaning} starts at 1 and has no leading zero")
        if len(match[0]) > 4 or int(match[0]) > _MAX_COUNT:
            raise self.error(f"{meaning} is at most {_MAX_COUNT}")
        self.position = match.end()
        return int(match[0])

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def take(self, character: str, otherwise: str) -> None:
        if self.peek() != character:
            raise self.error(otherwise)
        self.position += 1

    def error(self, reason: str, position: int | None = None) -> NotationError:
        return NotationError(self.text, self.position if position is None else position, reason)
