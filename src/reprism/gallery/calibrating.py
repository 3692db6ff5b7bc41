"""Calibrations and galleries: what a gallery's distances are of, and a calibration made from its own rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reprism.data.records import Sample
from reprism.evaluation.calibration import FMRS, Calibration, CalibrationError, calibrate
from reprism.evaluation.fitted_on import FittedOn, Rows
from reprism.gallery.rows import DESCRIPTOR, as_matrix
from reprism.notation import Partition
from reprism.progress import Count

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery

Queries = Literal["images", "tracklets"]
"""Kinds of queries of a gallery: images, or tracklets pooled as its own are."""

_IMAGE, _POOLED = "frames = 1", "frames > 1"
_BLOCK = 2**25  # bytes of descriptors at a time


def check_calibration(gallery: Gallery, calibration: Calibration, queries: Queries = "images") -> None:
    """Refuse a calibration that does not hold for searches of a gallery.

    It must be of the gallery's model, mirrored image and projection, and of queries and rows of the same kind: a
    gallery of images alone takes a calibration of images; one that holds tracklets too takes one of its own rows.
    How the numbers are stored (float16) makes no difference.

    Args:
        gallery: What is searched. While it is empty, any kind of rows is taken.
        calibration: What is to give probabilities or thresholds.
        queries: What is searched for.

    Raises:
        CalibrationError: It was fitted on other distances; names the difference and the command that makes another.
    """
    rows = _rows(gallery)
    if rows is None and calibration.fitted_on is not None:
        rows = calibration.fitted_on.rows
    remedy = f"reprism calibrate --gallery {quote(gallery.uri)}"
    remedy += " --queries tracklets" if queries == "tracklets" else ""
    calibration.check(_fitted_on(gallery, queries, rows or "images"), remedy)


def calibrate_gallery(
    gallery: Gallery,
    queries: Queries = "images",
    *,
    max_queries: int = 10_000,
    fmrs: Sequence[float] = FMRS,
    seed: int = 0,
    about: dict[str, Any] | None = None,
    progress: Count | None = None,
) -> Calibration:
    """Calibrate the distances in a gallery, compressed or not, on its own rows of known identity and camera.

    Such rows are searched for among all such rows, as in :func:`reprism.evaluation.calibration.calibrate`. Rows of
    unknown identity take no part: they may be of anybody.

    Args:
        gallery: Where to.
        queries: What the gallery will be searched for: images (as ``reprism search`` and ``reprism serve`` do), or
            tracklets pooled as its own are. Rows of that kind ask.
        max_queries: Most rows that ask; beyond it people are drawn, with all that they have. All rows are asked.
        fmrs, seed, about, progress: As in :func:`reprism.evaluation.calibration.calibrate`.

    Raises:
        CalibrationError: Too few rows are known, or those that are known are not of the kinds that the gallery holds.
    """
    descriptors, items, pooled = _known(gallery)
    rows = _rows(gallery)
    known: Rows = "mixed" if pooled.any() and not pooled.all() else "pooled" if pooled.any() else "images"
    asking = np.flatnonzero(pooled if queries == "tracklets" else ~pooled)
    remedy = "Index labelled pictures and tracklets of people who were seen by several cameras."
    if not len(items):
        raise CalibrationError(f"no row of {gallery.uri} has both an identity and a camera. {remedy}")
    if not len(asking):
        other = ": --queries tracklets" if queries == "images" else ""
        raise CalibrationError(
            f"of {gallery.uri} no row of known identity and camera is among the {queries} that it is to be searched "
            f"for. {remedy} Or calibrate for the other kind of query{other}."
        )
    if known != rows:
        raise CalibrationError(
            f"{gallery.uri} holds images and tracklets, but of its rows of known identity and camera all are "
            f"{'tracklets' if known == 'pooled' else 'images'}: distances to the others would not be known. {remedy}"
        )
    asking = _some_people(items, asking, max_queries, np.random.default_rng(seed))
    return calibrate(
        descriptors[asking],
        descriptors,
        [items[place] for place in asking],
        items,
        fitted_on=_fitted_on(gallery, queries, known),
        asking=np.isin(np.arange(len(items)), asking),
        fmrs=fmrs,
        seed=seed,
        about=about,
        # The columns of a compressed gallery belong to no part.
        partition=Partition.parse(gallery.partition) if gallery.projection is None else None,
        progress=progress,
    )


def _fitted_on(gallery: Gallery, queries: Queries, rows: Rows) -> FittedOn:
    facts = gallery._facts()
    asked: Rows = "images" if queries == "images" else "pooled"
    return FittedOn(facts.kind.fingerprint, facts.kind.flip, asked, rows, projection=facts.projection)


def _rows(gallery: Gallery) -> Rows | None:
    """Return the kind of a gallery's rows; None while it is empty."""
    images, pooled = (
        len(gallery._table.search().where(kind).select(["id"]).limit(1).to_arrow()) for kind in (_IMAGE, _POOLED)
    )
    return "mixed" if images and pooled else "pooled" if pooled else "images" if images else None


def _known(gallery: Gallery) -> tuple[np.ndarray, list[Sample], np.ndarray]:
    """The rows of known identity and camera, in the order of their ids: descriptors, who they are of, and if pooled."""
    asked = gallery._table.search().where("pid IS NOT NULL AND camid IS NOT NULL")
    asked = asked.select(["id", "pid", "camid", "frames", "path", DESCRIPTOR])
    ids: list[str] = []
    items: list[Sample] = []
    frames: list[int] = []
    blocks = [np.zeros((0, gallery.dim), np.float32)]
    for batch in asked.to_batches(max(1, _BLOCK // (4 * gallery.dim))):
        blocks.append(as_matrix(batch[DESCRIPTOR]))
        ids += batch["id"].to_pylist()
        frames += batch["frames"].to_pylist()
        columns = (batch[name].to_pylist() for name in ("path", "pid", "camid"))
        items += [Sample(Path(path), pid, camid) for path, pid, camid in zip(*columns, strict=True)]
    order = np.argsort(np.array(ids, dtype=str))
    return np.concatenate(blocks)[order], [items[place] for place in order], np.array(frames, dtype=int)[order] > 1


def _some_people(items: Sequence[Sample], asking: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """The rows that ask, of so many people drawn by chance as have no more of them together."""
    people, person = np.unique([str(items[place].pid) for place in asking], return_inverse=True)
    order = rng.permutation(len(people))
    taken = np.cumsum(np.bincount(person)[order]) <= most
    return asking[np.isin(person, order[taken])]
