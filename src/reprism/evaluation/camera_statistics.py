"""Statistics of cameras: what descriptors of one camera have in common, and how to take it away, without a label.

Light, angle and sharpness of a camera move the descriptors of all that it sees. Each camera's descriptors are centred
on their own mean, and their deviation is brought to that of all cameras, column by column. No identity is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.numpy

from reprism.data.records import JUNK, Item, Label, ReIDDataset
from reprism.evaluation.camera_sums import UNIT, Totals, add_rows, checked_dim, rows_by_camera, unit, variance_of
from reprism.files import whole_file
from reprism.progress import Count

SHRINKAGE = 10.0
"""Rows by which a camera's statistics are drawn towards those of all: with n rows its own weigh n / (n + 10)."""

LEAST_DEVIATION = 0.1
"""Least deviation of a column, as a share of the root mean square over columns. Columns that hardly vary, such as
those of dead units, are not made loud."""

_FORMAT, _VERSION = "reprism camera statistics", 1
_NOISE = 1e-6  # length of a difference from the mean that is but rounding


class CameraStatisticsError(ValueError):
    """A file holds no statistics of cameras, or they are of another model's descriptors."""


class DescriptorTable(Protocol):
    """The rows that :meth:`CameraStatistics.of_gallery` reads: a :class:`reprism.Gallery`, or anything like one."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the network that made the descriptors."""

    @property
    def flip(self) -> bool:
        """True if descriptors include the mirrored image."""

    @property
    def projection(self) -> Any:
        """The projection of a compressed gallery, which has a ``digest``; None without."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def blocks(self) -> Iterable[tuple[np.ndarray, Sequence[Label | None]]]:
        """Yield N×D descriptors and their N cameras, block by block."""


@dataclass(frozen=True)
class MadeBy:
    """The descriptors that statistics are of; they hold for no others.

    Attributes:
        fingerprint: The model's (:func:`reprism.models.checkpoint.fingerprint`).
        flip: True if descriptors include the mirrored image.
        projection: Digest of the projection of a compressed gallery; None without.
    """

    fingerprint: str
    flip: bool
    projection: str | None = None


@dataclass(frozen=True, eq=False)
class CameraStatistics:
    """Mean and deviation of the descriptors of each camera, and of all of them.

    They are kept as sums, from which rows can be taken away again. Rows are brought to length 1 first; rows of unknown
    camera take no part.

    Attributes:
        cameras: Names of the cameras, sorted; the camera 1 and the camera "1" are the same.
        counts: C int64, rows of each.
        sums, squares: C×D int64, sums of the rows and of their squares, in units of 2**-32.
        made_by: The descriptors that they are of; None if that is not known.
    """

    cameras: tuple[str, ...]
    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    made_by: MadeBy | None = None

    def __repr__(self) -> str:
        return f"CameraStatistics({len(self.cameras)} cameras, {self.counts.sum():,} rows of {self.dim} columns)"

    # ---- fitting ---------------------------------------------------------------------------------------------

    @classmethod
    def fit(
        cls, descriptors: np.ndarray, cameras: Sequence[Label | None], made_by: MadeBy | None = None
    ) -> CameraStatistics:
        """Fit to the descriptors of some cameras.

        Args:
            descriptors: N×D.
            cameras: Their N cameras; None where unknown.
            made_by: The descriptors' model and settings.

        Raises:
            ValueError: No row has a camera, numbers of rows and cameras differ, or a value is not finite.
        """
        return cls.of_blocks([(descriptors, cameras)], made_by)

    @classmethod
    def of_blocks(
        cls, blocks: Iterable[tuple[np.ndarray, Sequence[Label | None]]], made_by: MadeBy | None = None
    ) -> CameraStatistics:
        """Fit to descriptors that come block by block, in any order: the result is the same to the last bit.

        Memory is that of a block, and 16 bytes for each camera and column.

        Args:
            blocks: Pairs of N×D descriptors and their N cameras, as :meth:`fit` takes them.
            made_by: The descriptors' model and settings.

        Raises:
            ValueError: As for :meth:`fit`.
        """
        totals: dict[str, Totals] = {}
        dim = 0
        for descriptors, cameras in blocks:
            dim = checked_dim(descriptors, dim)
            add_rows(totals, descriptors, cameras, 1)
        if not totals:
            raise ValueError("expected descriptors of known cameras, got none: give each row its camera")
        return _of_totals(totals, made_by)

    @classmethod
    def of_gallery(cls, gallery: DescriptorTable, progress: Count | None = None) -> CameraStatistics:
        """Fit to all rows of a :class:`reprism.Gallery`, read block by block.

        Args:
            gallery: The gallery.
            progress: Called with the number of rows done and of all.

        Raises:
            ValueError: No row has a camera.
        """
        projection = gallery.projection
        made_by = MadeBy(gallery.fingerprint, gallery.flip, None if projection is None else projection.digest)
        return cls.of_blocks(_counted(gallery.blocks(), len(gallery), progress), made_by)

    def with_rows(self, descriptors: np.ndarray, cameras: Sequence[Label | None]) -> CameraStatistics:
        """Return the statistics with more rows; exactly those of a fit to all of them.

        Raises:
            ValueError: As for :meth:`fit`, or descriptors of another width.
        """
        return self._changed(descriptors, cameras, 1)

    def without(self, descriptors: np.ndarray, cameras: Sequence[Label | None]) -> CameraStatistics:
        """Return the statistics without rows that were fitted to, such as erased ones.

        They are exactly, to the last bit, those of a fit to the other rows.

        Args:
            descriptors: The N×D descriptors to take away, with the values that they had.
            cameras: Their cameras.

        Raises:
            ValueError: A camera has fewer rows than are to be taken away, or none are left; rows that cannot have been
                among those fitted to.
        """
        return self._changed(descriptors, cameras, -1)

    def _changed(self, descriptors: np.ndarray, cameras: Sequence[Label | None], sign: int) -> CameraStatistics:
        checked_dim(descriptors, self.dim)
        totals = {
            camera: Totals(int(self.counts[at]), self.sums[at].copy(), self.squares[at].copy())
            for at, camera in enumerate(self.cameras)
        }
        add_rows(totals, descriptors, cameras, sign)
        for camera, total in totals.items():
            if total.count < 0 or (total.squares < 0).any() or (total.count == 0 and total.squares.any()):
                raise ValueError(f"camera {camera!r}: rows are to be taken away that the statistics do not hold")
        left = {camera: total for camera, total in totals.items() if total.count}
        if not left:
            raise ValueError("no row would be left: statistics of no rows say nothing")
        return _of_totals(left, self.made_by)

    # ---- using -----------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Columns of the descriptors."""
        return int(self.sums.shape[1])

    def mean(self, camera: Label | None = None) -> np.ndarray:
        """Return D float64, the mean of a camera's rows, drawn towards that of all rows where they are few.

        Args:
            camera: The camera. One that was never seen, or None, has the mean of all rows.
        """
        everywhere = self.sums.sum(0, dtype=np.float64) / UNIT / self.counts.sum()
        at = self._index(camera)
        if at is None:
            return np.asarray(everywhere)
        weight = self._weight(at)
        return np.asarray(weight * self.sums[at] / UNIT / self.counts[at] + (1 - weight) * everywhere)

    def deviation(self, camera: Label | None = None) -> np.ndarray:
        """Return D float64, the standard deviation of a camera's rows, drawn towards that of all if they are few.

        Variances are drawn, not deviations. It is at least ``LEAST_DEVIATION`` of the root mean square over the columns
        of all rows, and 1 if no row differs.

        Args:
            camera: As for :meth:`mean`.
        """
        sums, squares = (some.sum(0, dtype=np.float64) for some in (self.sums, self.squares))
        everywhere = variance_of(self.counts.sum(), sums, squares)
        variance, at = everywhere, self._index(camera)
        if at is not None:
            weight = self._weight(at)
            variance = (
                weight * variance_of(self.counts[at], self.sums[at], self.squares[at]) + (1 - weight) * everywhere
            )
        least = LEAST_DEVIATION * np.sqrt(everywhere.mean())
        return np.maximum(np.sqrt(variance), least) if least > 0 else np.ones(self.dim)

    def apply(self, descriptors: np.ndarray, cameras: Sequence[Label | None]) -> np.ndarray:
        """Normalize descriptors by their cameras: ``(x - mean) / deviation × deviation of all rows``, then length 1.

        The last factor keeps the weight that the network gives each column: dividing alone would raise columns that
        vary little, and cost accuracy. Normalized descriptors compare with normalized ones only.

        Args:
            descriptors: N×D.
            cameras: Their N cameras; one that was never seen, or None, is normalized by the statistics of all rows.

        Returns:
            N×D float32 of length 1. (A row that equals its camera's mean says nothing, and is zeros.)

        Raises:
            ValueError: Another width, numbers of rows and cameras that differ, or a value that is not finite.
        """
        checked_dim(descriptors, self.dim)
        known = [camera if self._index(camera) is not None else None for camera in cameras]
        everywhere = self.deviation()
        maps = {camera: (self.mean(camera), everywhere / self.deviation(camera)) for camera in set(known)}
        out = np.zeros(np.shape(descriptors), np.float32)
        for some, rows, camera in rows_by_camera(descriptors, known):
            mean, factor = maps[camera]
            out[some] = unit((unit(rows) - mean) * factor, _NOISE)
        return out

    def check(self, made_by: MadeBy) -> None:
        """Refuse to be used on other descriptors than those that the statistics are of.

        Raises:
            CameraStatisticsError: They are others, or it is not known which; names what differs.
        """
        if self.made_by is None:
            raise CameraStatisticsError(
                "the statistics of cameras do not say what descriptors they are of: fit them with made_by"
            )
        for name in ("fingerprint", "flip", "projection"):
            ours, theirs = getattr(self.made_by, name), getattr(made_by, name)
            if ours != theirs:
                raise CameraStatisticsError(
                    f"the statistics of cameras are of other descriptors ({name}: expected {str(theirs)[:12]}, got "
                    f"{str(ours)[:12]}): fit them anew to these"
                )

    def _index(self, camera: Label | None) -> int | None:
        return None if camera is None or str(camera) not in self.cameras else self.cameras.index(str(camera))

    def _weight(self, at: int) -> float:
        return float(self.counts[at] / (self.counts[at] + SHRINKAGE))

    # ---- files -----------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> Path:
        """Write a safetensors file, whole: numbers, and what they are of as text; no pictures, no rows."""
        with whole_file(path) as file:
            file.write(self.as_bytes())
        return Path(path)

    def as_bytes(self) -> bytes:
        """Return what :meth:`save` writes."""
        about = {
            "format": _FORMAT,
            "version": _VERSION,
            "cameras": self.cameras,
            "made_by": None if self.made_by is None else vars(self.made_by),
        }
        tensors = {"counts": self.counts, "sums": self.sums, "squares": self.squares}
        return safetensors.numpy.save(tensors, {"reprism": json.dumps(about)})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> CameraStatistics:
        """Read what :meth:`save` wrote.

        Raises:
            CameraStatisticsError: The file is missing, holds something else, or is of a newer version; names it.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise CameraStatisticsError(f"{path} holds no statistics of cameras: {error}") from error
        return cls.from_bytes(content, str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str = "the bytes") -> CameraStatistics:
        """Read what :meth:`as_bytes` returned.

        Args:
            content: The bytes.
            name: What they are called in errors.

        Raises:
            CameraStatisticsError: They are something else, or of a newer version.
        """
        try:
            tensors = safetensors.numpy.load(content)
            # Text stands in the header alone: eight bytes of its length, then JSON.
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            about = json.loads(header.get("__metadata__", {}).get("reprism", "{}"))
            if about.get("format") != _FORMAT:
                raise ValueError(f"it is no file of {_FORMAT}")
            if about["version"] != _VERSION:
                raise ValueError(f"it is of version {about['version']}, this Reprism reads {_VERSION}: update it")
            counts, sums, squares = (tensors[each] for each in ("counts", "sums", "squares"))
            made_by = None if about["made_by"] is None else MadeBy(**about["made_by"])
            cameras = tuple(map(str, about["cameras"]))
            fits = (
                {array.dtype for array in (counts, sums, squares)} == {np.dtype(np.int64)}
                and counts.shape == (len(set(cameras)),)
                and len(cameras) == len(counts) > 0
                and sums.shape == squares.shape == (len(counts), sums.shape[1])
                and bool((counts > 0).all() and (squares >= 0).all())
            )
            if not fits:
                raise ValueError("its numbers do not fit each other")
            return cls(cameras, counts, sums, squares, made_by)
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            IndexError,
            safetensors.SafetensorError,
        ) as error:
            raise CameraStatisticsError(f"{name} holds no statistics of cameras: {error}") from error


def _counted(
    blocks: Iterable[tuple[np.ndarray, Sequence[Label | None]]], rows: int, progress: Count | None
) -> Iterator[tuple[np.ndarray, Sequence[Label | None]]]:
    done = 0
    for block in blocks:
        yield block
        done += len(block[1])
        if progress is not None:
            progress(done, max(done, rows))


def _of_totals(totals: dict[str, Totals], made_by: MadeBy | None) -> CameraStatistics:
    cameras = tuple(sorted(totals))
    chosen = [totals[camera] for camera in cameras]
    return CameraStatistics(
        cameras,
        np.array([total.count for total in chosen], np.int64),
        np.stack([total.sums for total in chosen]),
        np.stack([total.squares for total in chosen]),
        made_by,
    )


# ---- data sets -----------------------------------------------------------------------------------------------


def require_cameras(dataset: ReIDDataset) -> None:
    """Refuse to normalize by cameras where they are unknown.

    Raises:
        ValueError: They are; names the data set and the remedy.
    """
    if any(item.camid is None for item in (*dataset.query, *dataset.gallery)):
        raise ValueError(
            f"camera normalization needs the cameras, which are unknown in {dataset.name} in {dataset.root}: give the "
            "data a column camid, or evaluate without --camera-normalize"
        )


def statistics_of_items(
    query: np.ndarray, gallery: np.ndarray, query_items: Sequence[Item], gallery_items: Sequence[Item]
) -> CameraStatistics:
    """Fit to the images of an evaluation, query and gallery, by their cameras alone.

    Junk is left out, as in the ranking; distractors take part. A gallery item that is a query too counts once.

    Args:
        query: N×D descriptors of ``query_items``.
        gallery: M×D descriptors of ``gallery_items``.
        query_items, gallery_items: Images or tracklets, in the descriptors' order.

    Raises:
        ValueError: As for :meth:`CameraStatistics.fit`.
    """
    asked = {item.path for item in query_items}
    rows = [row for row, item in enumerate(gallery_items) if item.pid != JUNK and item.path not in asked]
    cameras = [item.camid for item in query_items], [gallery_items[row].camid for row in rows]
    return CameraStatistics.of_blocks([(query, cameras[0]), (gallery[rows], cameras[1])])
