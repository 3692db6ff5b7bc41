"""Connections: how many there are, how long one may take to ask something, and how much is logged of bad ones."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

HEADER_SECONDS = 10.0
"""Seconds that a connection may take to send the headers of its next request."""

_OTHER_FILES = 1024  # of the gallery, above all
_OURS = ("reprism.service.access", "reprism.service.api")


def bounded_protocol(most: int, header_seconds: float = HEADER_SECONDS) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol, with two bounds that it lacks.

    A connection is closed when the headers of its next request have not arrived in time, however slowly they drip in.
    And when there are more than ``most``, the one that has waited longest for a request makes room; a new one is closed
    only if all others are being answered.

    Args:
        most: Connections at a time.
        header_seconds: Time for a request's headers.
    """

    class Bounded(H11Protocol):
        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, object],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None:
            super().__init__(config, server_state, app_state, _loop)
            self.waiting_since = self.loop.time()
            self._deadline: asyncio.TimerHandle | None = None
            self._answered: object = None  # the request before, when the wait for this one began

        @property
        def is_waiting(self) -> bool:
            """True while no request is being received or answered."""
            return self.cycle is None or self.cycle.response_complete

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()
            while len(self.connections) > most:
                waiting = [one for one in self.connections if isinstance(one, Bounded) and one.is_waiting]
                oldest = min(waiting, key=lambda one: one.waiting_since)  # this one, if no other waits
                self.connections.discard(oldest)
                oldest.transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._deadline is None and self.is_waiting:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self.waiting_since, self._answered = self.loop.time(), self.cycle
            self._deadline = self.loop.call_later(header_seconds, self._end_if_late)

        def _end_if_late(self) -> None:
            self._deadline = None
            if not self.is_waiting:
                return
            if self.cycle is self._answered:
                self.transport.abort()
            else:  # another request came meanwhile, and was answered
                self._wait()

    return Bounded


def fitting_connections(most: int) -> int:
    """Raise this process's limit of open files so that ``most`` connections fit, and return how many do."""
    if resource is None:
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return most if soft == resource.RLIM_INFINITY or soft >= wanted else max(1, min(most, soft // 2))


class Seldom(logging.Filter):
    """Lets a message through a few times within some seconds; how many more there were, the next one says.

    Whoever can make the service log a line could fill its disk.

    Args:
        most: Times that the same message (before its arguments are put in) is let through.
        seconds: Within which.
    """

    def __init__(self, most: int = 10, seconds: float = 60.0) -> None:
        super().__init__()
        self.most, self.seconds = most, seconds
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record."""
        key, now = (record.name, str(record.msg)[:200]), time.monotonic()
        since, count = self._seen.get(key, (now, 0))
        if now - since > self.seconds:
            if count > self.most:
                left_out = f"({count - self.most:,} more such lines were left out)"
                record.msg, record.args = f"{record.getMessage()} {left_out}", ()
            since, count = now, 0
        if len(self._seen) > 1000:  # of messages that are different each time
            self._seen.clear()
        self._seen[key] = since, count + 1
        return count < self.most


@contextmanager
def logging_seldom() -> Iterator[None]:
    """Put :class:`Seldom` on what a client can make log: the server's own lines, asyncio's, refusals."""
    seldom = Seldom()
    loggers = [logging.getLogger(name) for name in ("asyncio", "uvicorn.error", *_OURS)]
    for logger in loggers:
        logger.addFilter(seldom)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(seldom)
