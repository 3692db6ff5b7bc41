"""A gallery: descriptors of images and tracklets in a Lance table; adding, looking up, searching and erasing them.

The table lies in a folder, or in object storage (``s3://…``). It records the model that made its descriptors and
refuses those of another. A change appears whole or not at all, whenever the process or the machine stops
(:mod:`reprism.gallery.durability`). On a local disk, writing processes wait for each other; readers never wait, and see
the version that was there when they began. In object storage let one process write at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from reprism.embedding import DescriptorKind, Embedder
from reprism.evaluation.calibration import FMRS, Calibration
from reprism.evaluation.camera_statistics import CameraStatistics
from reprism.gallery import calibrating, camera_search, search, upkeep
from reprism.gallery.answers import Answer, answers_of
from reprism.gallery.calibrating import Queries
from reprism.gallery.camera_info import CameraInfo, camera_infos
from reprism.gallery.camera_settings import CameraSettings, camera_settings, set_camera
from reprism.gallery.compression import Projection
from reprism.gallery.database import (
    ASKED_AT_ONCE,
    GalleryError,
    GalleryInfo,
)
from reprism.gallery.durability import Disk
from reprism.gallery.filters import NO_FILTER, Filter, one_of
from reprism.gallery.people import Change, Person, changes_of, people_of
from reprism.gallery.permission import Linking, disable_linking, enable_linking, linking_of
from reprism.gallery.rows import (
    DESCRIPTOR,
    STRIP,
    THUMBNAIL,
    Entry,
    Row,
    Storage,
    as_matrix,
    normalized,
    row_id,
    rows_of,
    to_arrow,
)
from reprism.gallery.search import Match
from reprism.gallery.store import Store
from reprism.gallery.upkeep import Erasable
from reprism.progress import Count

if TYPE_CHECKING:
    pass

__all__ = ["Gallery", "GalleryError"]


class Gallery:
    """People seen by cameras, searchable by descriptor. Made by :meth:`create` and :meth:`open`.

    Attributes:
        uri: Folder, or address in object storage.
        store: The table and the database that it lies in.
    """

    def __init__(self, store: Store) -> None:
        self.uri = store.uri
        self.store = store

    @property
    def disk(self) -> Disk:
        """Brings changes to the disk; ``disk.lock_seconds`` bounds the wait for another process that writes."""
        return self.store.disk

    # ---- opening -----------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        uri: str | PathLike[str],
        made_by: Embedder | DescriptorKind,
        storage: Storage = "float32",
        model: str | PathLike[str] | None = None,
    ) -> Gallery:
        """Create an empty gallery.

        Args:
            uri: Folder that does not exist or is empty, or an address in object storage that LanceDB knows.
            made_by: Embedder whose descriptors it will hold, or the embedder's ``kind``.
            storage: ``float32``; or ``float16``: half the disk, distances within 0.001. (LanceDB 0.40 searches no
                int8 and no bfloat16 column; its index holds 4 or 8 bits a column either way.)
            model: Path of the model file, recorded for commands that are called without it.

        Raises:
            GalleryError: There is a gallery already, or the folder holds something else.
        """
        kind = made_by.kind if isinstance(made_by, Embedder) else made_by
        if storage not in get_args(Storage):
            raise GalleryError(
                f"expected storage {' or '.join(get_args(Storage))}, got {storage!r} (LanceDB searches no other)"
            )
        note = None if model is None else str(Path(model).absolute())
        return cls(Store.create(uri, GalleryInfo(kind, storage, kind.dim, model=note)))

    @classmethod
    def exists(cls, uri: str | PathLike[str]) -> bool:
        """Return whether there is a gallery at ``uri``."""
        return Store.exists(uri)

    @classmethod
    def open(
        cls,
        uri: str | PathLike[str],
        embedder: Embedder | DescriptorKind | None = None,
        *,
        searching: bool = False,
    ) -> Gallery:
        """Open a gallery.

        If the machine stopped while it was written, the last version that is whole on the disk is opened, with a
        warning. It has everything that a call wrote before it returned.

        Args:
            uri: Folder, or address in object storage.
            embedder: Embedder of the descriptors to add or search for (default: only widths are checked).
            searching: They are searched for only, as :meth:`check` takes it.

        Raises:
            GalleryError: There is none, it has a newer format, none of its versions can be read, or its descriptors
                are of another model or of other settings; both are named.
        """
        gallery = cls(Store.open(uri))
        if embedder is not None:
            gallery.check(embedder, searching=searching)
        return gallery

    def check(self, embedder: Embedder | DescriptorKind, *, searching: bool = False) -> None:
        """Refuse an embedder whose descriptors do not compare with those in the gallery.

        Args:
            embedder: Embedder of the descriptors, or its ``kind``.
            searching: They are searched for only. An export of the gallery's model may do that: it was proved to
                describe as the model does, within its precision. It may not add.

        Raises:
            GalleryError: They are of another model or of other settings; both are named.
        """
        held, given = self.kind, embedder.kind if isinstance(embedder, Embedder) else embedder
        original = embedder.original_kind if isinstance(embedder, Embedder) else None
        if original == held:
            if searching:
                return
            raise GalleryError(
                f"the gallery {self.uri} holds descriptors of the network that the given one was exported from: an "
                "export may search it, and only the original may add to it"
            )
        if held.fingerprint != given.fingerprint:
            raise GalleryError(
                f"the gallery {self.uri} holds descriptors of another model: its fingerprint is "
                f"{held.fingerprint[:12]} ({held.partition}, {held.dim} columns), the given model's "
                f"{given.fingerprint[:12]} ({given.partition}, {given.dim} columns). Their distances mean nothing: "
                "take the gallery's model, or index anew."
            )
        if held != given:
            raise GalleryError(
                f"the gallery {self.uri} was made with flip={held.flip}, the embedder has flip={given.flip}: such "
                "descriptors do not compare. Make the embedder like the gallery, or index anew."
            )

    # ---- properties --------------------------------------------------------------------------------------

    @property
    def kind(self) -> DescriptorKind:
        """Model and settings that made its descriptors."""
        return self.store.info.kind

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the network that made its descriptors."""
        return self.kind.fingerprint

    @property
    def partition(self) -> str:
        """Notation of that network."""
        return self.kind.partition

    @property
    def descriptor_dim(self) -> int:
        """Columns of the descriptors that are handed in."""
        return self.kind.dim

    @property
    def flip(self) -> bool:
        """True if descriptors include the mirrored image."""
        return self.kind.flip

    @property
    def model(self) -> Path | None:
        """Path of that network's file when the gallery was made, if it was recorded."""
        note = self.store.info.model
        return None if note is None else Path(note)

    @property
    def dim(self) -> int:
        """Columns that are stored: fewer in a compressed gallery."""
        return self.store.dim

    @property
    def storage(self) -> Storage:
        """Number format of the stored descriptors."""
        return self.store.storage

    @property
    def projection(self) -> Projection | None:
        """The projection of every descriptor that is added or searched for; None unless the gallery is compressed."""
        return self.store.projection

    def __len__(self) -> int:
        return int(self.store.table.count_rows())

    def __repr__(self) -> str:
        return f"Gallery({self.uri!r}, {len(self):,} rows)"

    # ---- adding --------------------------------------------------------------------------------------

    def add(self, entries: Iterable[Entry]) -> int:
        """Add entries; those whose key is there already are skipped. All are added, or none.

        Each call is one transaction: many entries at a time are faster.

        Returns:
            Number of rows added.

        Raises:
            ValueError: A descriptor has another width or is not finite, or a time has no time zone; nothing was added.
        """
        given: dict[str, Entry] = {}
        for entry in entries:
            given.setdefault(entry.key, entry)
        chosen = list(given.values())
        rows = normalized((entry.descriptor for entry in chosen), self.descriptor_dim, "the descriptor of entry")
        if not chosen:
            return 0
        with self.disk.writing():
            self.store.complete()
            info, projection = self.store.info, self.projection
            table = to_arrow(chosen, projection.apply(rows) if projection else rows, info.schema)
            result = self.store.table.merge_insert("id").when_not_matched_insert_all().execute(table)
        return int(result.num_inserted_rows)

    def keys(self) -> Iterator[str]:
        """Yield every key, in no particular order."""
        for batch in self.store.table.search().select(["key"]).to_batches():
            yield from batch["key"].to_pylist()

    def has(self, keys: Iterable[str]) -> set[str]:
        """Return the given keys that are in the gallery."""
        asked = {row_id(key): key for key in keys}
        return {asked[row] for row in self._present(list(asked))}

    def _present(self, ids: Sequence[str]) -> set[str]:
        if len(ids) <= ASKED_AT_ONCE:
            found = self.store.fetch(ids, ["id"])
            return set(found["id"].to_pylist())
        asked, present = set(ids), set()
        for batch in self.store.table.search().select(["id"]).to_batches():
            present.update(asked.intersection(batch["id"].to_pylist()))
        return present

    # ---- looking up --------------------------------------------------------------------------------------

    def get(self, id: str) -> Row:  # noqa: A002 - what it is called in the table
        """Return a row by its id.

        Raises:
            KeyError: There is none.
        """
        rows = rows_of(self.store.fetch([id], self.store.row_columns))
        if not rows:
            raise KeyError(id)
        return rows[0]

    def thumbnail(self, id: str) -> bytes | None:  # noqa: A002
        """Return a row's JPEG picture, or None if it has none.

        Raises:
            KeyError: There is no such row.
        """
        found = self.store.fetch([id], ["id", THUMBNAIL])
        if not len(found):
            raise KeyError(id)
        return found[THUMBNAIL][0].as_py()

    def strip(self, id: str) -> list[bytes]:  # noqa: A002
        """Return small JPEG pictures of a row that is a tracklet, in the order of time; of others none.

        Raises:
            KeyError: There is no such row.
        """
        names = [name for name in ("id", STRIP) if name in self.store.columns]
        found = self.store.fetch([id], names)
        if not len(found):
            raise KeyError(id)
        return found[STRIP][0].as_py() or [] if STRIP in names else []

    def with_thumbnail(self, ids: Sequence[str]) -> set[str]:
        """Return the ids of those rows that have a picture."""
        if not ids:
            return set()
        condition = f"{one_of('id', ids)} AND {THUMBNAIL} IS NOT NULL"
        return set(self.store.table.search().where(condition).select(["id"]).to_arrow()["id"].to_pylist())

    def strip_lengths(self, ids: Sequence[str]) -> dict[str, int]:
        """Return how many pictures :meth:`strip` gives of some rows, by id; rows that have none are left out."""
        if not ids or STRIP not in self.store.columns:
            return {}
        columns: dict[str, Any] = {"id": "id", "length": f"array_length({STRIP})"}
        found = self.store.table.search().where(one_of("id", ids)).select(columns).to_arrow()
        lengths = zip(found["id"].to_pylist(), found["length"].to_pylist(), strict=True)
        return {row: length for row, length in lengths if length}

    def descriptors(self, ids: Sequence[str]) -> np.ndarray:
        """Return the stored descriptors of some rows, N×dim float32, in the order of ``ids``.

        Raises:
            KeyError: One of them is absent.
        """
        found = self.store.fetch(ids, ["id", DESCRIPTOR])
        index = {row: number for number, row in enumerate(found["id"].to_pylist())}
        return as_matrix(found[DESCRIPTOR])[[index[row] for row in ids]]

    def blocks(self) -> Iterator[tuple[np.ndarray, list[str | None]]]:
        """Yield the stored descriptors, N×dim float32, and the cameras of all rows, about 32 MB at a time."""
        for batch in self.store.read([DESCRIPTOR, "camid"]):
            yield as_matrix(batch[DESCRIPTOR]), batch["camid"].to_pylist()

    def rows(self, where: Filter = NO_FILTER, limit: int | None = None) -> list[Row]:
        """Return the rows that pass a filter, at most ``limit`` of them, in no particular order."""
        query = self.store.table.search().select(self.store.row_columns)
        if (condition := where.sql()) is not None:
            query = query.where(condition)
        return rows_of(query.limit(limit).to_arrow() if limit is not None else query.to_arrow())

    def stats(self) -> dict[str, Any]:
        """Return counts, times and settings of the gallery.

        Returns:
            ``rows``, ``identities`` (known ones), ``cameras`` (camera: rows), ``first`` and ``last`` (times taken, UTC,
            or None), ``bytes`` (on disk; None in object storage), ``index`` (``kind``, ``indexed`` and ``unindexed``
            rows; None without one), ``fingerprint``, ``partition``, ``flip``, ``storage``, ``dim``,
            ``descriptor_dim``, and ``erasing`` (whether an erasure or another rewrite was interrupted before the bytes
            that it removes were gone).
        """
        return self.store.stats()

    def cameras(self, zone: str = "UTC", *, progress: Count | None = None) -> list[CameraInfo]:
        """Return what the gallery holds of each camera: rows, tracklets, times, gaps, and how its pictures look.

        The table is read a batch at a time, in seconds for a million rows.

        Args:
            zone: Time zone that :attr:`CameraInfo.hours` count the hours of the day in, such as ``Europe/Berlin``.
            progress: Called with the number of rows done and of all.

        Returns:
            One for each camera, sorted by name; last the one of rows of unknown camera, if there are any.

        Raises:
            ValueError: There is no such time zone.
        """
        return camera_infos(self.store, zone, progress=progress)

    def camera_settings(self) -> dict[str, CameraSettings]:
        """Return what was set for cameras, by name; those for which nothing was are left out."""
        return camera_settings(self.store)

    def set_camera(self, camid: str, settings: CameraSettings) -> int:
        """Set how far a camera's clock is ahead, and where nobody is to be found.

        :func:`reprism.cameras.watch` goes by it from then on. The times of the camera's rows are set right at once,
        each by the difference from what it was set right by before; cut off in between, the same call does the rest.

        Args:
            camid: The camera; it need not have rows.
            settings: In place of its present ones.

        Returns:
            Number of rows whose times were changed.

        Raises:
            ValueError: The camera has no name, or the seconds are not finite.
        """
        return set_camera(self.store, camid, settings)

    def index(self) -> dict[str, Any] | None:
        """Return the index over descriptors: ``kind``, ``indexed`` and ``unindexed`` rows; None if there is none."""
        return self.store.index()

    def has_index(self) -> bool:
        """Return whether there is an index over descriptors."""
        return self.store.has_index()

    # ---- searching ---------------------------------------------------------------------------------------

    def search(
        self,
        descriptors: np.ndarray,
        top: int = 20,
        where: Filter = NO_FILTER,
        *,
        threshold: float | None = None,
        calibration: Calibration | None = None,
        queries: Queries = "images",
        group_by: str | None = None,
        rerank: bool = False,
        shares: bool = True,
        exact: bool | None = None,
    ) -> list[list[Match]]:
        """Return the rows nearest to descriptors, by Euclidean distance between descriptors of length 1.

        Equal distances rank in the order of ids. Distances are exact to rounding even where the index found the rows.

        Args:
            descriptors: N×D, of the model that made the gallery's, not compressed; or D for a single one.
            top: Maximum number of matches; with ``group_by`` of groups.
            where: Filter; other rows are left out before the search.
            threshold: Maximum distance of a match.
            calibration: Gives each match its probability, and a scale for its parts. It must pass
                :meth:`check_calibration`.
            queries: Kind of the descriptors, images or pooled tracklets, for which the calibration must hold.
            group_by: ``pid`` or ``tracklet``: each group is represented by its nearest row. A row without one is a
                group of its own.
            rerank: Order the nearest rows by k-reciprocal re-ranking among the query and them.
            shares: Compare part by part (default: yes).
            exact: True reads every row, False uses the index (default: chosen by the number of rows,
                ``reprism.gallery.search.EXACT_ROWS``, and of those that pass the filter, ``FEW_ROWS``).

        Returns:
            For each descriptor its matches, best first.

        Raises:
            ValueError: An option is out of range, descriptors have another width or are not finite, ``exact=False``
                without an index, or the calibration is of a network with other parts.
            CalibrationError: The calibration was fitted on other distances.
        """
        return search.search(
            self.store,
            descriptors,
            top,
            where,
            threshold=threshold,
            calibration=calibration,
            queries=queries,
            group_by=group_by,
            rerank=rerank,
            shares=shares,
            exact=exact,
        )

    def search_by_camera(
        self,
        descriptors: np.ndarray,
        cameras: Sequence[str | None],
        statistics: CameraStatistics,
        top: int = 20,
        where: Filter = NO_FILTER,
        *,
        exact: bool | None = None,
    ) -> list[list[Match]]:
        """Return the rows nearest to descriptors, both normalized by the statistics of their cameras.

        A gallery of up to ``reprism.gallery.search.EXACT_ROWS`` rows, or without an index, is read whole: the result is
        exact. In a larger one the index knows descriptors as they are. The nearest thousand by these, ten for each
        wanted if that is more, are put in order by normalized ones; a row that is not among them is not found.

        Args:
            descriptors: N×D, of the model that made the gallery's, not compressed; or D for a single one.
            cameras: The N cameras that took the queries; None, and a camera that the statistics do not have, are
                normalized by those of all cameras.
            statistics: Of this gallery's descriptors: ``CameraStatistics.of_gallery(gallery)``.
            top: Maximum number of matches.
            where: Filter; other rows are left out before the search.
            exact: True reads every row, False uses the index (default: as said above).

        Returns:
            For each descriptor its matches, best first. Their ``distance`` is that of normalized descriptors, which no
            calibration holds for; they are not compared part by part.

        Raises:
            ValueError: As for :meth:`search`, or the cameras are not as many as the descriptors.
            CameraStatisticsError: The statistics are of another model's descriptors.
        """
        return camera_search.search_by_camera(self.store, descriptors, cameras, statistics, top, where, exact=exact)

    def calibrate(
        self,
        queries: Queries = "images",
        *,
        max_queries: int = 10_000,
        fmrs: Sequence[float] = FMRS,
        seed: int = 0,
        about: dict[str, Any] | None = None,
        progress: Count | None = None,
    ) -> Calibration:
        """Calibrate the distances in the gallery, compressed or not, on its own rows of known identity and camera.

        Such rows are searched for among all such rows, as in :func:`reprism.calibrate`. Rows of unknown identity are
        left out: they may be of anybody.

        Args:
            queries: Kind of the queries to come: images (as ``reprism search`` and ``reprism serve`` do), or
                tracklets pooled as its own are. Rows of that kind are the queries.
            max_queries: Maximum number of querying rows; beyond it people are drawn, with all their rows.
            fmrs, seed, about, progress: As in :func:`reprism.calibrate`.

        Raises:
            CalibrationError: Too few rows are known, or those are not of the kinds that the gallery holds.
        """
        return calibrating.calibrate_gallery(
            self.store, queries, max_queries=max_queries, fmrs=fmrs, seed=seed, about=about, progress=progress
        )

    def check_calibration(self, calibration: Calibration, queries: Queries = "images") -> None:
        """Refuse a calibration that does not hold for searches of the gallery.

        It must be of the gallery's model, mirrored image and projection, and of queries and rows of the same kind: a
        gallery of images alone takes a calibration of images; one that holds tracklets too takes one of its own rows.
        The storage (float16) makes no difference. While the gallery is empty, any kind of rows is taken.

        Args:
            calibration: The calibration.
            queries: Kind of queries that it is to be used for.

        Raises:
            CalibrationError: It was fitted on other distances; names the difference and the command that makes another.
        """
        calibrating.check_calibration(self.store, calibration, queries)

    # ---- people ------------------------------------------------------------------------------------------

    def linking(self) -> Linking | None:
        """Return what the linking of rows to people was switched on for; None while it is off."""
        return linking_of(self.store)

    def enable_linking(self, purpose: str, keep_days: int) -> Linking:
        """Allow that rows are linked to people, across cameras, for a purpose.

        Until then :meth:`reprism.CameraNetwork.of_gallery`, :func:`reprism.link_gallery` and :meth:`people` refuse.
        With the same purpose again, ``keep_days`` changes.

        Args:
            purpose: What for, in words.
            keep_days: Rows that were taken longer ago take no part, and are in no person: 1 to 180 days.

        Raises:
            ValueError: The purpose is empty, or the days are out of range.
            LinkingError: It is on for another purpose.
        """
        return enable_linking(self.store, purpose, keep_days)

    def disable_linking(self) -> bool:
        """Forbid linking again; removes the people, what was said of them and what was learned, and their bytes.

        Returns:
            Whether it was on.
        """
        return disable_linking(self.store)

    def people(self, now: datetime | None = None) -> list[Person]:
        """Return the people whom :func:`reprism.link_gallery` found last, those seen most first.

        A row that was erased since, or is older than linking keeps rows, is in none of them.

        Args:
            now: Moment from which to count back, with a time zone (default: the present one).

        Raises:
            LinkingError: Linking is off.
        """
        return people_of(self.store, now)

    def link_answers(self, now: datetime | None = None) -> list[Answer]:
        """Return what was said of rows (:func:`reprism.answer_link`) and holds, in order; arguments as :meth:`people`.

        Raises:
            LinkingError: Linking is off.
        """
        return answers_of(self.store, now)

    def people_changes(self, now: datetime | None = None) -> list[Change]:
        """Return how people changed, merges and splits, in order; arguments as :meth:`people`.

        Raises:
            LinkingError: Linking is off.
        """
        return changes_of(self.store, now)

    # ---- upkeep ------------------------------------------------------------------------------------------

    def erasable(
        self, ids: Iterable[str] = (), pids: Iterable[str] = (), older_than: datetime | None = None
    ) -> Erasable:
        """Return the rows that :meth:`erase` would remove with the same arguments; changes nothing."""
        return upkeep.erasable(self.store, ids, pids, older_than)

    def erase(
        self,
        ids: Iterable[str] = (),
        pids: Iterable[str] = (),
        older_than: datetime | None = None,
        compact: bool = True,
    ) -> int:
        """Erase the rows with one of these ids, or of one of these identities, or older than a moment.

        They leave the people that rows were linked to (:meth:`people`), and the transit times between cameras that were
        learned from them are removed, to be learned anew from the other rows.

        Args:
            ids: Ids of rows.
            pids: Identities.
            older_than: Erases rows taken before it; rows of unknown time by the time when they were added.
            compact: Remove the bytes from the disk too, which rewrites the gallery (:meth:`compact`). Without it the
                rows are no longer found, but their bytes stay until that is called.

        Returns:
            Number of rows erased.
        """
        return upkeep.erase(self.store, ids, pids, older_than, compact)

    def compact(self) -> None:
        """Rewrite the gallery with nothing but its rows: erased rows are then in no file any more.

        The table is written anew beside the old one and replaces it in one step; existing indices are rebuilt. A
        search that another process began before may fail.
        """
        upkeep.compact(self.store)

    def optimize(self, *, build: bool = True) -> None:
        """Gather small files, and build or refresh the indices; finish an interrupted erasure.

        The index over descriptors is built once there are more than ``reprism.gallery.search.EXACT_ROWS`` rows: below,
        a search reads them all. Rows added later are found without it, and indexed by the next call.

        Args:
            build: Build missing indices; existing ones are refreshed either way.
        """
        upkeep.optimize(self.store, build=build)

    def compress(
        self, dim: int | None = None, projection: Projection | None = None, whitening: float = 0.0
    ) -> Projection:
        """Project every descriptor to fewer columns. There is no way back.

        Distances change. Calibrations and thresholds made before are refused; :meth:`calibrate` makes new ones.

        Args:
            dim: Number of principal components of the gallery's own rows to keep.
            projection: A projection fitted elsewhere instead (:meth:`Projection.fit`), such as on a training set.
            whitening: With ``dim``: how far to whiten the components, 0 … 1 (see :class:`Projection`).

        Returns:
            The projection, which is applied to all rows added and searched for later.

        Raises:
            GalleryError: The gallery is compressed already, or has too few rows to fit to.
            ValueError: Neither or both are given, or the projection has another width.
        """
        return upkeep.compress(self.store, dim, projection, whitening)

    def fit(self, dim: int, whitening: float = 0.0) -> Projection:
        """Fit the first ``dim`` principal components of the gallery's rows (:meth:`Projection.fit`); changes nothing.

        Raises:
            ValueError: There are too few rows for so many.
        """
        return upkeep.fit(self.store, dim, whitening)
