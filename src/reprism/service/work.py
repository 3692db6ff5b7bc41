"""Work that waits its turn: a bound on how much there is, and threads that do what waits together at once."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from fastapi import Request

T = TypeVar("T")
R = TypeVar("R")


class BusyError(Exception):
    """There are as many requests at work or waiting as there may be.

    Attributes:
        of_holder: True if this holder alone has too many.
    """

    def __init__(self, *, of_holder: bool) -> None:
        super().__init__()
        self.of_holder = of_holder


class GoneError(Exception):
    """The client went away before its answer was there."""


class Admission:
    """Counts the requests that are at work or waiting for it, and refuses more than there may be.

    Used in the event loop only, so that nothing needs a lock.

    Args:
        limit: Requests at a time.
        of_holder: Requests of one holder at a time; others find places then, however many one sends.
        refused: Called at each refusal.
    """

    def __init__(self, limit: int, of_holder: int, refused: Callable[[], object]) -> None:
        self.limit, self.of_holder = limit, of_holder
        self._refused = refused
        self._present: Counter[str] = Counter()

    @property
    def present(self) -> int:
        """Requests at work or waiting."""
        return self._present.total()

    @contextmanager
    def admit(self, holder: str) -> Iterator[None]:
        """Keep a place for a holder's request while inside.

        Raises:
            BusyError: There is none.
        """
        is_full = self.present >= self.limit
        if is_full or self._present[holder] >= self.of_holder:
            self._refused()
            raise BusyError(of_holder=not is_full)
        self._present[holder] += 1
        try:
            yield
        finally:
            self._present[holder] -= 1


class Batcher(Generic[T, R]):
    """One thread that does at once what waits when its turn comes.

    What comes while a batch is under way forms the next: alone, an item does not wait for others, and under load
    batches fill by themselves.

    Args:
        do: Function from items to their results, in the same order. If it raises, every item gets the error.
        most: Items at a time.
        name: Name of the thread.
    """

    def __init__(self, do: Callable[[Sequence[T]], Sequence[R]], most: int, name: str) -> None:
        self._do = do
        self._most = most
        self._waiting: deque[tuple[T, Future[R]]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    def submit(self, item: T) -> Future[R]:
        """Queue an item; its result comes later. Cancelled before its turn, the item is dropped.

        Raises:
            RuntimeError: It is closed.
        """
        future: Future[R] = Future()
        self._waiting.append((item, future))
        # A step for every item: so many are enough, and those that find nothing left do nothing.
        self._pool.submit(self._step)
        return future

    def close(self) -> None:
        """Wait for what is under way, and drop what waits."""
        self._pool.shutdown(cancel_futures=True)
        while self._waiting:
            self._waiting.popleft()[1].cancel()

    def _step(self) -> None:
        batch: list[tuple[T, Future[R]]] = []
        while self._waiting and len(batch) < self._most:
            item, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                batch.append((item, future))
        if not batch:
            return
        try:
            results = self._do([item for item, _ in batch])
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                future.set_result(result)


async def unless_gone(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """Return the result of some work, which is dropped if the client goes away. The body must have been read.

    Raises:
        GoneError: The client went away.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise GoneError
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
