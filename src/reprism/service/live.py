"""Rows that come into the gallery, whoever puts them in, told to those who listen."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from reprism.gallery.arrivals import Mark, mark_of, newest_mark, rows_after
from reprism.gallery.store import Store
from reprism.service.operations import Operations, UnavailableError
from reprism.service.rows import facts_of
from reprism.service.schemas import Image

POLL_SECONDS = 1.0
"""Seconds between two looks at whether the gallery has changed."""
WAITING = 200
"""Rows that wait for a listener, at most; of more the newest."""

_log = logging.getLogger(__name__)


class Arrival(NamedTuple):
    """A row that came in."""

    mark: Mark
    image: Image


class Listener:
    """One who listens, and what waits for them. Used in the event loop only.

    Args:
        cameras: Only rows of these cameras are told; of all if there are none.
        mark: Only rows that came in after it are told.

    Attributes:
        mark: The place up to which everything was offered.
    """

    def __init__(self, cameras: Sequence[str], mark: Mark) -> None:
        self.mark = mark
        self._cameras = frozenset(cameras)
        self._waiting: deque[Arrival] = deque()
        self._skipped = 0
        self._is_open = True
        self._changed = asyncio.Event()

    def offer(self, arrivals: Sequence[Arrival], left_out: int) -> None:
        """Put rows in the queue that were not offered before; the oldest go if it is too long.

        Args:
            arrivals: The rows, oldest first.
            left_out: Number of rows that came in before them, and were too many.
        """
        new = [one for one in arrivals if one.mark > self.mark]
        if not new:
            return
        self.mark = new[-1].mark
        self._waiting.extend(one for one in new if not self._cameras or one.image.camid in self._cameras)
        self._skipped += left_out
        while len(self._waiting) > WAITING:
            self._waiting.popleft()
            self._skipped += 1
        if self._waiting:
            self._changed.set()

    async def take(self) -> tuple[list[Arrival], int] | None:
        """Wait for rows; return them, oldest first, and how many before them were left out. None once it is closed."""
        await self._changed.wait()
        if not self._is_open:
            return None
        self._changed.clear()
        taken, skipped = list(self._waiting), self._skipped
        self._waiting.clear()
        self._skipped = 0
        return taken, skipped

    def close(self) -> None:
        """End :meth:`take`, now and later."""
        self._is_open = False
        self._changed.set()


class Live:
    """Looks at the gallery while somebody listens, once for all of them.

    Args:
        work: The gallery, and the threads that it is read in.
    """

    def __init__(self, work: Operations) -> None:
        self._work = work
        self._listeners: set[Listener] = set()
        self._mark = Mark(0, 0, "")
        self._version: int | None = None
        self._turn = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._is_open = True

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                async with self._turn:
                    await self._look()
            except UnavailableError as error:  # it may come back
                _log.error("those who listen are told of nothing: %s", error)
            except Exception:
                _log.exception("those who listen are told of nothing")
            await asyncio.sleep(POLL_SECONDS)

    async def join(self, cameras: Sequence[str], after: Mark | None) -> Listener:
        """Begin to listen, to rows from now on or to those after a mark.

        Raises:
            UnavailableError: The gallery cannot be read.
        """
        async with self._turn:
            newest = await self._work.read(lambda: newest_mark(self._store))
            listener = Listener(cameras, newest if after is None else after)
            if after is not None:
                listener.offer(*await self._arrivals(after))
            if not self._listeners:
                self._mark, self._version = newest, None
            self._listeners.add(listener)
            self._wanted.set()
            if not self._is_open:
                listener.close()
            return listener

    def leave(self, listener: Listener) -> None:
        """End listening."""
        self._listeners.discard(listener)
        if not self._listeners:
            self._wanted.clear()

    def close(self) -> None:
        """Send all listeners away, and whoever comes later: the service ends."""
        self._is_open = False
        for listener in self._listeners:
            listener.close()

    @property
    def listeners(self) -> int:
        """Number of those who listen."""
        return len(self._listeners)

    @property
    def _store(self) -> Store:
        return self._work.gallery.store

    async def _look(self) -> None:
        version = await self._work.read(lambda: int(self._store.table.version))
        if version == self._version:
            return
        arrivals, left_out = await self._arrivals(self._mark)
        if arrivals:
            self._mark = arrivals[-1].mark
            for listener in self._listeners:
                listener.offer(arrivals, left_out)
        self._version = version

    async def _arrivals(self, mark: Mark) -> tuple[list[Arrival], int]:
        def find() -> tuple[list[Arrival], int]:
            rows, left_out = rows_after(self._store, mark, WAITING)
            pictures = self._work.pictures(rows)
            return [Arrival(mark_of(row), Image(**facts_of(row, pictures[row.id]))) for row in rows], left_out

        return await self._work.read(find)
