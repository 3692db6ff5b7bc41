"""Calibrate a gallery on its own rows, and check that a calibration is of a gallery's distances."""

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
    from reprism.gallery.store import Store

Queries = Literal["images", "tracklets"]
"""Kinds of queries of a gallery: images, or tracklets pooled as its own are."""

_IMAGE, _POOLED = "frames = 1", "frames > 1"


def check_calibration(store: Store, calibration: Calibration, queries: Queries = "images") -> None:
    """Check a calibration; see :meth:`reprism.Gallery.check_calibration`."""
    rows = _rows(store)
    if rows is None and calibration.fitted_on is not None:
        rows = calibration.fitted_on.rows
    remedy = f"reprism calibrate --gallery {quote(store.uri)}"
    remedy += " --queries tracklets" if queries == "tracklets" else ""
    calibration.check(_fitted_on(store, queries, rows or "images"), remedy)


def calibrate_gallery(
    store: Store,
    queries: Queries = "images",
    *,
    max_queries: int = 10_000,
    fmrs: Sequence[float] = FMRS,
    seed: int = 0,
    about: dict[str, Any] | None = None,
    progress: Count | None = None,
) -> Calibration:
    """Calibrate a gallery; see :meth:`reprism.Gallery.calibrate`."""
    descriptors, items, pooled = _known(store)
    rows = _rows(store)
    known: Rows = "mixed" if pooled.any() and not pooled.all() else "pooled" if pooled.any() else "images"
    asking = np.flatnonzero(pooled if queries == "tracklets" else ~pooled)
    remedy = "Index labelled pictures and tracklets of people who were seen by several cameras."
    if not len(items):
        raise CalibrationError(f"no row of {store.uri} has both an identity and a camera. {remedy}")
    if not len(asking):
        other = ": --queries tracklets" if queries == "images" else ""
        raise CalibrationError(
            f"expected {queries} of known identity and camera in {store.uri}, got none. {remedy} Or calibrate for the "
            f"other kind of query{other}."
        )
    if known != rows:
        raise CalibrationError(
            f"{store.uri} holds images and tracklets, but all its rows of known identity and camera are "
            f"{'tracklets' if known == 'pooled' else 'images'}: distances to the others would not be known. {remedy}"
        )
    asking = _some_people(items, asking, max_queries, np.random.default_rng(seed))
    return calibrate(
        descriptors[asking],
        descriptors,
        [items[row] for row in asking],
        items,
        fitted_on=_fitted_on(store, queries, known),
        asking=np.isin(np.arange(len(items)), asking),
        fmrs=fmrs,
        seed=seed,
        about=about,
        # The columns of a compressed gallery belong to no part.
        partition=Partition.parse(store.partition) if store.projection is None else None,
        progress=progress,
    )


def _fitted_on(store: Store, queries: Queries, rows: Rows) -> FittedOn:
    facts = store.info
    asked: Rows = "images" if queries == "images" else "pooled"
    return FittedOn(facts.kind.fingerprint, facts.kind.flip, asked, rows, projection=facts.projection)


def _rows(store: Store) -> Rows | None:
    """Return the kind of a gallery's rows; None while it is empty."""
    images, pooled = (
        len(store.table.search().where(kind).select(["id"]).limit(1).to_arrow()) for kind in (_IMAGE, _POOLED)
    )
    return "mixed" if images and pooled else "pooled" if pooled else "images" if images else None


def _known(store: Store) -> tuple[np.ndarray, list[Sample], np.ndarray]:
    """Return rows of known identity and camera, in the order of their ids: descriptors, samples, whether pooled."""
    ids: list[str] = []
    items: list[Sample] = []
    frames: list[int] = []
    blocks = [np.zeros((0, store.dim), np.float32)]
    columns = ["id", "pid", "camid", "frames", "path", DESCRIPTOR]
    for batch in store.read(columns, "pid IS NOT NULL AND camid IS NOT NULL"):
        blocks.append(as_matrix(batch[DESCRIPTOR]))
        ids += batch["id"].to_pylist()
        frames += batch["frames"].to_pylist()
        about = (batch[name].to_pylist() for name in ("path", "pid", "camid"))
        items += [Sample(Path(path), pid, camid) for path, pid, camid in zip(*about, strict=True)]
    order = np.argsort(np.array(ids, dtype=str))
    return np.concatenate(blocks)[order], [items[row] for row in order], np.array(frames, dtype=int)[order] > 1


def _some_people(items: Sequence[Sample], asking: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return the querying rows of people drawn at random, at most ``most`` rows together."""
    people, person = np.unique([str(items[row].pid) for row in asking], return_inverse=True)
    order = rng.permutation(len(people))
    taken = np.cumsum(np.bincount(person)[order]) <= most
    return asking[np.isin(person, order[taken])]
