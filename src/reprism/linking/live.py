"""Keep the people of a gallery up to date while rows come in, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike

from reprism.gallery.database import GalleryError
from reprism.gallery.permission import linking_of, require_linking
from reprism.gallery.table import Gallery
from reprism.linking.gallery_people import update_people
from reprism.linking.odds import OddsError
from reprism.linking.transit import CameraNetworkError

_GROWTH = 1.1  # of the rows, after which it is tried again to learn from them, where they were too few


@dataclass
class LivePeople:
    """People who are kept up to date.

    Attributes:
        people: Their number; None as long as nobody is linked.
        updates: How often they were brought up to date.
    """

    people: int | None = None
    updates: int = 0


@contextmanager
def keep_people_live(
    uri: str | PathLike[str],
    live: LivePeople,
    *,
    every: float = 10.0,
    report: Callable[[str], object] | None = None,
) -> Iterator[None]:
    """Keep people up to date as long as the context lasts, and once more at its end (:func:`reprism.update_people`).

    Whoever puts rows in does not wait for it: it has a thread and a view of the gallery of its own. It rests for as
    long as an update took, at least, so that it is at work half of the time at most.

    Where rows are too few to learn from, that is reported once, and it is tried again when a tenth more have come. What
    else goes wrong with the gallery, as where somebody switches linking off, is reported too and ends nothing but the
    updates. An error of the program is raised at the end.

    Args:
        uri: The gallery.
        live: Filled in with what was found.
        every: Minimum seconds between two updates.
        report: Called with a line of text about what goes wrong (default: a warning of the logger ``reprism``).

    Raises:
        LinkingError: Linking is off.
    """
    gallery = Gallery.open(uri)
    require_linking(gallery.store)
    update = _Updates(gallery, live, report or logging.getLogger("reprism").warning)
    stop, failure = threading.Event(), list[BaseException]()

    def follow() -> None:
        pause = 0.0
        try:
            while not stop.wait(pause):
                began = time.monotonic()
                update()
                pause = max(every, time.monotonic() - began)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failure:
        raise failure[0]
    update(at_end=True)


class _Updates:
    """Brings people up to date each time it is called, and reports what goes wrong once."""

    def __init__(self, gallery: Gallery, live: LivePeople, report: Callable[[str], object]) -> None:
        self._gallery, self._live, self._report = gallery, live, report
        self._too_few = 0  # rows that were too few to learn from
        self._said = ""

    def __call__(self, *, at_end: bool = False) -> None:
        count = len(self._gallery)
        if self._too_few and not at_end and count < _GROWTH * self._too_few:
            return
        try:
            if linking_of(self._gallery.store) is None:
                self._live.people = None
                self._tell(f"linking was switched off for {self._gallery.uri}: nobody is linked any more")
                return
            self._live.people = len(update_people(self._gallery).people) or None
            self._live.updates += 1
            self._too_few, self._said = 0, ""
        except (CameraNetworkError, OddsError) as error:
            if not self._too_few:
                self._tell(f"nobody is linked yet, until more rows are there: {error}")
            self._too_few = max(count, 1)
        except (GalleryError, OSError) as error:
            self._tell(f"people are not up to date: {error}")

    def _tell(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._report(line)
