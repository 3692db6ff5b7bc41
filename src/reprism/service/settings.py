"""What bounds a service: how large, how many, how long."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class ServiceSettings:
    """The limits of a service, and how long it keeps what is put in.

    Attributes:
        max_bytes: Largest request body.
        max_pixels: Largest picture decoded.
        queue: Requests at work or waiting; those beyond are answered 503. It bounds the memory: about ``max_bytes`` for
            each.
        batch_size: Pictures that the network takes at a time, if so many wait.
        upload_seconds: How long a body may take to arrive.
        retain: How long rows are kept, counted from the time taken (from the time added where that is unknown); None:
            until they are erased.
        upkeep_seconds: How often outdated rows are erased, and small files gathered.
        thumbnails: Whether a small picture is kept of what is put in.
    """

    max_bytes: int = 10 * 2**20
    max_pixels: int = 2**25
    queue: int = 64
    batch_size: int = 16
    upload_seconds: float = 30.0
    retain: timedelta | None = None
    upkeep_seconds: float = 3600.0
    thumbnails: bool = True

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "queue", "batch_size", "upload_seconds", "upkeep_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be more than 0")
        if self.retain is not None and not timedelta(0) < self.retain < datetime.now(UTC) - _EARLIEST:
            raise ValueError(f"retain is {self.retain}; it must be more than 0 and reach back to the year 1 at most")
