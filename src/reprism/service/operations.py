"""Operations on a gallery for its clients: each step in the thread that it belongs to, none in the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from fastapi import HTTPException
from torch import Tensor

from reprism.embedding import Embedder
from reprism.evaluation.calibration import Calibration
from reprism.gallery.database import GalleryBusyError
from reprism.gallery.failures import storage_failure
from reprism.gallery.filters import Filter
from reprism.gallery.indexing import make_thumbnail
from reprism.gallery.rows import Entry, Row, row_id
from reprism.gallery.search import Match
from reprism.gallery.table import Gallery, GalleryError
from reprism.linking.network_search import Seen
from reprism.service.audit import AuditError, AuditLog, Change
from reprism.service.clips import ClipError, cut_clip, find_sighting
from reprism.service.rows import Pictures, pictures_of
from reprism.service.schemas import ImageFacts, SearchQuery
from reprism.service.settings import ServiceSettings
from reprism.service.times import KeptTimes
from reprism.service.uploads import Upload, decode_upload
from reprism.service.work import Batcher

R = TypeVar("R")

_DECODERS, _READERS, _CUTTERS = 2, 4, 2  # threads
_ADDED_AT_ONCE, _ERASED_AT_ONCE = 256, 1024
_GATHERED_AFTER = 100  # writes, each of which makes files of its own
_ATTEMPTS = 5


class UnavailableError(Exception):
    """The gallery is not there, or it is another now; the message is for clients and names no path."""


class SearchResult(NamedTuple):
    """Result of a search.

    Attributes:
        matches: Best first.
        pictures: What can be seen of each, by id.
        embed_seconds, search_seconds: Duration, waiting included.
    """

    matches: Sequence[Match]
    pictures: dict[str, Pictures]
    embed_seconds: float
    search_seconds: float


class _Erasure(NamedTuple):
    """One client's request to erase."""

    who: str
    id: str | None = None
    pid: str | None = None


class Operations:
    """A gallery, the network that describes pictures for it, and the threads that both work in.

    One thread runs the network, one adds, one erases; searches and look-ups run beside them. Writes wait for each other
    (the gallery sees to it, across processes too), and reads never wait for writes: each sees the table as it was when
    it began. An erasure rewrites the table and removes the old files; a read that loses its files is begun again.
    """

    def __init__(
        self,
        gallery: Gallery,
        embedder: Embedder,
        settings: ServiceSettings,
        audit: AuditLog | None,
        calibration: Calibration | None,
        observe_batch: Callable[[int], None],
    ) -> None:
        self.gallery = gallery
        # A process that hangs while it writes must not keep this one from ending.
        gallery.disk.lock_seconds = settings.lock_seconds
        self.settings = settings
        self._embedder = embedder
        self._audit = audit
        self._calibration = calibration
        self._observe_batch = observe_batch
        self._network = Batcher(self._embed, settings.batch_size, "network")
        self._adding = Batcher(self._add, _ADDED_AT_ONCE, "adding")
        self._erasing = Batcher(self._erase, _ERASED_AT_ONCE, "erasing")
        self._decoding = ThreadPoolExecutor(_DECODERS, "decoding")
        self._reading = ThreadPoolExecutor(_READERS, "reading")
        self._cutting = ThreadPoolExecutor(_CUTTERS, "cutting")
        self._linking = ThreadPoolExecutor(1, "linking")
        self._videos = tuple(folder.resolve() for folder in settings.videos)
        self.times = KeptTimes(gallery, calibration)
        self._writes = 0

    def close(self) -> None:
        """Wait for what is under way, drop what waits, and end the threads."""
        for threads in (self._decoding, self._reading, self._cutting, self._linking):
            threads.shutdown(cancel_futures=True)
        for batcher in (self._network, self._adding, self._erasing):
            batcher.close()

    # ---- searching ---------------------------------------------------------------------------------------

    async def search(self, upload: Upload, query: SearchQuery, who: str) -> SearchResult:
        """Find the rows that look like an uploaded picture.

        Raises:
            HTTPException: The picture is none, too large or cannot be decoded; or 409: there are no times to search by.
            AuditError: The search could not be noted.
            UnavailableError: As of :meth:`read`.
        """
        started = time.perf_counter()
        ready, _ = await self._decoded(upload.content, thumbnail=False)
        descriptor = await asyncio.wrap_future(self._network.submit(ready))
        embedded = time.perf_counter()
        where = Filter(tuple(query.camera), tuple(query.not_camera), query.after, query.before)

        def find() -> tuple[Sequence[Match], dict[str, Pictures]]:
            if query.times:
                seen = Seen(query.query_camera, query.query_time)
                timed = self.times.search(descriptor, seen, query.top, where)
                return timed, self.pictures(timed)
            matches = self.gallery.search(
                descriptor,
                query.top,
                where,
                threshold=query.threshold,
                calibration=self._calibration,
                group_by=None if query.group_by == "none" else query.group_by,
                rerank=query.rerank,
            )[0]
            return matches, self.pictures(matches)

        matches, pictures = await self.read(find)
        # Nothing is answered that is not in the log.
        used = {"times": True} if query.times else {}
        await self.log(who, "search", [match.id for match in matches], matches=len(matches), **used)
        return SearchResult(matches, pictures, embedded - started, time.perf_counter() - embedded)

    async def times_between(self) -> list[str]:
        """Return the cameras between which times are known; none if linking is off, or they are not learned.

        Raises:
            UnavailableError: As of :meth:`read`.
        """
        return await self.read(self.times.cameras)

    async def image(self, id: str) -> tuple[Row, Pictures]:  # noqa: A002 - what it is called in the gallery
        """Look a row up, and what can be seen of it.

        Raises:
            KeyError: There is none.
            UnavailableError: As of :meth:`read`.
        """

        def find() -> tuple[Row, Pictures]:
            row = self.gallery.get(id)
            return row, self.pictures([row])[id]

        return await self.read(find)

    def pictures(self, rows: Sequence[Row]) -> dict[str, Pictures]:
        """Return what can be seen of some rows, by id; for functions that :meth:`read` calls."""
        return pictures_of(self.gallery, rows, self._videos)

    async def clip(self, id: str, who: str) -> bytes:  # noqa: A002
        """Cut the seconds of a row out of its video, an MP4 file.

        Raises:
            KeyError: There is no such row.
            HTTPException: 404: its video is not there, or may not be shown; 415: it is coded in another way than
                browsers play.
            AuditError: The look could not be noted.
            UnavailableError: As of :meth:`read`.
        """
        row = await self.read(lambda: self.gallery.get(id))

        def cut() -> bytes:
            sighting = find_sighting(row.path, self._videos)
            if sighting is None:
                raise HTTPException(404, f"of the image {id} there is no video that may be shown")
            try:
                return cut_clip(sighting)
            except ClipError as error:
                raise HTTPException(415, str(error)) from None

        content = await asyncio.get_running_loop().run_in_executor(self._cutting, cut)
        await self.log(who, "clip", [id])
        return content

    async def read(self, read: Callable[[], R]) -> R:
        """Call a function that reads the gallery in a thread; again, if an erasure took its files away meanwhile.

        Raises:
            UnavailableError: The gallery is not there, or it is another now.
        """

        def attempt() -> R:
            with self._available():
                for _ in range(_ATTEMPTS - 1):
                    try:
                        return read()
                    except (OSError, RuntimeError) as error:
                        # LanceDB has no type of error of its own for this.
                        if not isinstance(error, FileNotFoundError) and "Not found" not in str(error):
                            raise
                return read()

        return await asyncio.get_running_loop().run_in_executor(self._reading, attempt)

    # ---- putting in and taking out -----------------------------------------------------------------------

    async def add(self, upload: Upload, facts: ImageFacts, who: str) -> tuple[str, bool]:
        """Put a picture in; one that is there already stays as it is.

        Returns:
            Its row's id, and whether it is new.

        Raises:
            HTTPException: The picture is none, too large or cannot be decoded; or the service's network is an export of
                the gallery's, which only searches.
            AuditError: The addition could not be noted; nothing came in.
            UnavailableError: As of :meth:`read`.
        """
        original = self._embedder.original_kind
        if original is not None and await self.read(lambda: self.gallery.kind) == original:
            raise HTTPException(409, "this service runs an export of the gallery's model: only the original may add")
        key = f"upload:{upload.digest}"
        if await self.read(lambda: self.gallery.has([key])):
            return row_id(key), False
        ready, thumbnail = await self._decoded(upload.content, thumbnail=self.settings.thumbnails)
        descriptor = await asyncio.wrap_future(self._network.submit(ready))
        entry = Entry(
            key, descriptor, key, facts.pid, facts.camid, facts.time, source=facts.source, thumbnail=thumbnail
        )
        return row_id(key), await asyncio.wrap_future(self._adding.submit((entry, who)))

    async def erase(self, who: str, *, id: str | None = None, pid: str | None = None) -> int:  # noqa: A002
        """Take a row or an identity out, and its bytes off the disk; returns how many rows went.

        Raises:
            AuditError: The erasure could not be noted; nothing was erased.
            UnavailableError: As of :meth:`read`.
        """
        # Once asked for it is done, also if the client goes away.
        return await asyncio.wrap_future(self._erasing.submit(_Erasure(who, id, pid)))

    async def change(self, note: Callable[[], Change], change: Callable[[Change], R]) -> R:
        """Change the people, one change at a time; it is noted before and after, and done also if nobody waits.

        Args:
            note: Returns what is to be noted; whatever it raises, nothing is changed.
            change: Called with that, to add the outcome.

        Raises:
            AuditError, UnavailableError: As of :meth:`erase`.
        """

        def run() -> R:
            with self._available(), self._recording([noted := note()]):
                return change(noted)

        return await asyncio.get_running_loop().run_in_executor(self._linking, run)

    async def upkeep(self) -> int:
        """Erase what is older than is kept, and gather small files; returns how many rows went.

        Raises:
            AuditError: The erasure could not be noted; nothing was erased.
            UnavailableError: As of :meth:`read`.
        """

        def run() -> int:
            with self._available():
                erased = 0 if self.settings.retain is None else self._erase_outdated(self.settings.retain)
                self.gallery.optimize(build=False)
                return erased

        return await asyncio.get_running_loop().run_in_executor(self._reading, run)

    # ---- in threads --------------------------------------------------------------------------------------

    async def _decoded(self, content: bytes, *, thumbnail: bool) -> tuple[Tensor, bytes | None]:
        """Return a picture of the network's size, and a small one."""

        def decode() -> tuple[Tensor, bytes | None]:
            image = decode_upload(content, self.settings.max_pixels)
            return self._embedder.resize(image), make_thumbnail(image) if thumbnail else None

        return await asyncio.get_running_loop().run_in_executor(self._decoding, decode)

    async def log(self, who: str, what: str, ids: Sequence[str], **facts: int) -> None:
        """Note what is answered, before it is.

        Raises:
            AuditError: It could not be noted.
        """
        if self._audit is not None:
            audit = self._audit
            await asyncio.get_running_loop().run_in_executor(
                self._reading, lambda: audit.write(who, what, ids, **facts)
            )

    @contextmanager
    def _available(self) -> Iterator[None]:
        """Tell a gallery that was taken away, or put in another's place, from other failures.

        Raises:
            UnavailableError: It was.
        """
        try:
            self.gallery.check(self._embedder, searching=True)  # another in its place may be of another model
            yield
        except GalleryBusyError as error:
            raise UnavailableError(
                "another process is writing to the gallery, so this was not done: try again"
            ) from error
        except GalleryError as error:
            raise UnavailableError("the gallery was replaced by one that this service cannot read") from error
        except (OSError, RuntimeError) as error:
            if isinstance(error, AuditError):
                raise
            if not Gallery.exists(self.gallery.uri):
                raise UnavailableError("the gallery is missing: it was moved or deleted") from error
            if (reason := storage_failure(error)) is None:
                raise
            raise UnavailableError(f"the gallery could not be used: {reason}") from error

    def _recording(self, changes: Sequence[Change]) -> AbstractContextManager[None]:
        return nullcontext() if self._audit is None else self._audit.recording(changes)

    def _embed(self, images: Sequence[Tensor]) -> Sequence[np.ndarray]:
        self._observe_batch(len(images))
        return list(self._embedder.embed_ready(torch.stack(list(images))).numpy())

    def _add(self, given: Sequence[tuple[Entry, str]]) -> Sequence[bool]:
        with self._available():
            seen = self.gallery.has(entry.key for entry, _ in given)
            new, changes = [], []
            for entry, who in given:
                new.append(entry.key not in seen)
                seen.add(entry.key)
                if new[-1]:
                    changes.append(Change(who, "add", [row_id(entry.key)]))
            with self._recording(changes):
                self.gallery.add(entry for entry, _ in given)
        self._writes += 1
        if self._writes % _GATHERED_AFTER == 0:
            self.gallery.optimize(build=False)
        return new

    def _erase(self, wanted: Sequence[_Erasure]) -> Sequence[int]:
        """Erase for several clients, and rewrite the table once for all of them."""
        self.times.forget()
        with self._available():
            changes: list[Change] = []
            taken: set[str] = set()
            for who, id_, pid in wanted:
                found = self.gallery.erasable([] if id_ is None else [id_], [] if pid is None else [pid])
                changes.append(Change(who, "erase", [row for row in found.ids if row not in taken]))
                taken.update(found.ids)
            with self._recording([change for change in changes if change.ids]):
                for change in changes:
                    # By ids: nothing goes that is not in the log, whoever adds meanwhile.
                    change.outcome["erased"] = self.gallery.erase(change.ids, compact=False)
                if taken:
                    self._remove_bytes()
        return [change.outcome["erased"] for change in changes]

    def _remove_bytes(self) -> None:
        try:
            self.gallery.compact()
        except (GalleryError, OSError, RuntimeError) as error:
            raise UnavailableError(
                "what was erased is found no more, but its bytes are still on the disk, because the gallery could not "
                "be rewritten (its log says why): the next upkeep tries again"
            ) from error

    def _erase_outdated(self, retain: timedelta) -> int:
        self.times.forget()
        limit = datetime.now(UTC) - retain
        ids = self.gallery.erasable(older_than=limit).ids
        change = Change("retention", "erase", ids, {"older_than": limit.isoformat()})
        with self._recording([change] if ids else []):
            change.outcome["erased"] = self.gallery.erase(ids)
        return change.outcome["erased"]
