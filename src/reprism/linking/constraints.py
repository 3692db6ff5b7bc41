"""What is known of rows without a look at them: tracklets, who was in view at once, and what somebody said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from reprism.gallery.answers import Answer
from reprism.gallery.rows import Row


class Known(NamedTuple):
    """Pairs of rows of which it is known.

    Attributes:
        together: K×2 indices of rows that are of one person, enough to join all that are.
        apart: L×2 indices of rows that are of two.
        contradicted: Numbers of the answers that do not agree with what the cameras saw, or with answers before, and
            were left out.
    """

    together: np.ndarray
    apart: np.ndarray
    contradicted: tuple[int, ...] = ()


def known_pairs(rows: Sequence[Row], answers: Sequence[Answer] = ()) -> Known:
    """Return what is known of each two rows without a look at them.

    Rows of one camera and source with one tracklet's name are of one person. Two tracklets of one camera and source
    that were in view at once are of two. (The same walk may be in two sources, such as a video that was read twice.)
    What somebody said holds, unless it contradicts these, or what was said before.

    Args:
        rows: N rows with cameras and times.
        answers: Answers that hold, in order; rows of theirs that are not among ``rows`` are passed over.
    """
    tracklets: dict[tuple[str | None, str | None, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.tracklet is not None:
            tracklets[row.camid, row.source, row.tracklet].append(index)
    together = [pair for members in tracklets.values() for pair in pairwise(members)]
    spans: dict[tuple[str | None, str | None], list[tuple[datetime, datetime, int]]] = defaultdict(list)
    for (camid, source, _), members in tracklets.items():
        times = [rows[index].time for index in members] + [rows[index].until for index in members]
        known = [time for time in times if time is not None]
        spans[camid, source].append((min(known), max(known), members[0]))
    apart = [pair for view in spans.values() for pair in _overlapping(view)]
    groups, contradicted = _Groups(len(rows), together, apart), list[int]()
    index_of = {row.id: index for index, row in enumerate(rows)} if answers else {}
    for answer in answers:
        one, other = ([index_of[row] for row in some if row in index_of] for some in (answer.one, answer.other))
        if answer.kind == "same":
            if groups.join([*one, *other]):
                together.extend(pairwise([*one, *other]))
            else:
                contradicted.append(answer.number)
        elif answer.kind == "different":
            if groups.part(one, other):
                apart.extend((first, second) for first in one for second in other)
            else:
                contradicted.append(answer.number)
    return Known(_array(together), _array(apart), tuple(contradicted))


def said_pairs(rows: Sequence[Row], answers: Sequence[Answer]) -> Known:
    """Return what is known of each two rows by what somebody said alone; arguments as of :func:`known_pairs`."""
    seen, known = known_pairs(rows), known_pairs(rows, answers)
    return Known(known.together[len(seen.together) :], known.apart[len(seen.apart) :], known.contradicted)


class _Groups:
    """Rows that are known to be together, and which of these groups are known to be apart."""

    def __init__(self, count: int, together: Iterable[tuple[int, int]], apart: Iterable[tuple[int, int]]) -> None:
        self._above = list(range(count))
        self._apart: dict[int, set[int]] = defaultdict(set)
        for pair in together:
            self.join(pair)
        for one, other in apart:
            self.part([one], [other])

    def join(self, rows: Sequence[int]) -> bool:
        """Bring rows together; False, and nothing is done, if two of them are apart."""
        roots = sorted({self._root(row) for row in rows})
        if any(self._apart[root] & set(roots) for root in roots):
            return False
        for root in roots[1:]:
            self._above[root] = roots[0]
            for third in self._apart.pop(root):
                self._apart[third].discard(root)
                self._apart[third].add(roots[0])
                self._apart[roots[0]].add(third)
        return True

    def part(self, one: Sequence[int], other: Sequence[int]) -> bool:
        """Put rows apart from others; False, and nothing is done, if two of them are together."""
        ones, others = ({self._root(row) for row in some} for some in (one, other))
        if ones & others:
            return False
        for first in ones:
            for second in others:
                self._apart[first].add(second)
                self._apart[second].add(first)
        return True

    def _root(self, row: int) -> int:
        while self._above[row] != row:
            self._above[row] = row = self._above[self._above[row]]
        return row


def _array(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


def _overlapping(spans: list[tuple[datetime, datetime, int]]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of every two spans that share a moment, their ends included."""
    open_spans: list[tuple[datetime, int]] = []
    for first, last, number in sorted(spans):
        open_spans = [(end, other) for end, other in open_spans if end >= first]
        yield from ((other, number) for _, other in open_spans)
        open_spans.append((last, number))
