"""Limits of a service: sizes, numbers, times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class ServiceSettings:
    """The limits of a service, and how long it keeps what is put in.

    Attributes:
        max_bytes: Largest request body.
        max_pixels: Largest picture decoded.
        queue: Requests at work or waiting; those beyond are answered 503. It bounds the memory: about ``max_bytes`` for
            each. Erasures have places of their own, a quarter as many.
        queue_per_holder: Those of one holder of a token; those beyond are answered 429. None: a quarter of ``queue``,
            or all of it where there is one holder.
        batch_size: Pictures that the network takes at a time, if so many wait.
        upload_seconds: Maximum seconds for a body to arrive.
        retain: Time that rows are kept, counted from the time taken (from the time added where that is unknown); None:
            until they are erased.
        lock_seconds: Maximum seconds that a change waits for another process that writes to the gallery.
        upkeep_seconds: Seconds between two erasures of outdated rows, when small files are gathered too.
        thumbnails: Keep a small picture of each image that is added.
        link_seconds: Seconds between two looks at whether rows came in, which are then taken into the people, where
            linking is on and people were found before; 0: never.
        videos: Folders of the videos that sightings may be played from. They show everybody who was in view.
    """

    max_bytes: int = 10 * 2**20
    max_pixels: int = 2**25
    queue: int = 64
    queue_per_holder: int | None = None
    batch_size: int = 16
    upload_seconds: float = 30.0
    retain: timedelta | None = None
    lock_seconds: float = 20.0
    upkeep_seconds: float = 3600.0
    thumbnails: bool = True
    link_seconds: float = 10.0
    videos: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        bounds = (
            "max_bytes",
            "max_pixels",
            "queue",
            "queue_per_holder",
            "batch_size",
            "upload_seconds",
            "lock_seconds",
        )
        for name in (*bounds, "upkeep_seconds"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be more than 0")
        if not self.link_seconds >= 0:
            raise ValueError(f"link_seconds is {self.link_seconds}; it must be 0 or more")
        if self.retain is not None and not timedelta(0) < self.retain < datetime.now(UTC) - _EARLIEST:
            raise ValueError(f"retain is {self.retain}; it must be more than 0 and reach back to the year 1 at most")
