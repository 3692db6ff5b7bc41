"""Figures of tracks against a truth: HOTA, IDF1 and MOTA, by the library trackeval.

A track belongs to one camera, unless its id says who it is in all of them (:func:`evaluate_identities`).

HOTA: Luiten et al. 2021, "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking". IDF1: Ristani et al. 2016.
MOTA: Bernardin and Stiefelhagen 2008.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import linear_sum_assignment

from reprism.cameras.box_files import BoxTable
from reprism.cameras.track_files import TracksError, check_tracks, read_lengths, read_tracks
from reprism.cameras.track_people import read_people
from reprism.progress import Count

Tracks: TypeAlias = str | PathLike[str] | Mapping[str, BoxTable]

_MOST_BYTES = 8 * 2**30  # of trackeval's tables of every person by every track
_NOBODY = "nobody is in the truth: it has no boxes that count, so that there is nothing to evaluate"
_TABLES = 24  # of them, of 8 bytes a pair: one for each of HOTA's 19 thresholds, and what they are made from


@dataclass(frozen=True)
class TrackFigures:
    """Figures of one camera's tracks, or of all cameras'. Fractions, not percent; NaN where undefined.

    Attributes:
        hota: Geometric mean of ``deta`` and ``assa`` at IoU 0.05, 0.10 … 0.95; the mean of those 19.
        deta: How well people are found: found / (found + missed + false), the mean over the same IoUs.
        assa: How well boxes that were found are joined to tracks, the mean over the same IoUs.
        idf1: Share of boxes with the right identity, if each person has one track at most.
        mota: 1 - (missed + false + id_switches) / boxes; below 0 where there are more errors than boxes.
        id_switches: How often a person goes on with another track.
        missed: True boxes without a track's box.
        false: Tracks' boxes without a true box.
        boxes: True boxes that count.
        people: Identities of the truth.
        tracks: Tracks, without those that follow only what is ignored.
    """

    hota: float
    deta: float
    assa: float
    idf1: float
    mota: float
    id_switches: int
    missed: int
    false: int
    boxes: int
    people: int
    tracks: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the figures for JSON, None for what is undefined."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class TrackMetrics:
    """Figures of tracks against a truth, for each camera and over all.

    Attributes:
        overall: Over all cameras: errors and boxes are summed, not the cameras' figures averaged.
        cameras: By camera.
        iou: Minimum IoU of a match, for all but HOTA, DetA and AssA.
        min_visibility: People who show less are ignored.
    """

    overall: TrackFigures
    cameras: Mapping[str, TrackFigures]
    iou: float
    min_visibility: float

    def describe(self) -> str:
        """Say how the figures were measured."""
        ignored = f"; people of whom less than {self.min_visibility:.0%} shows are ignored" * (self.min_visibility > 0)
        return (
            f"IDF1, MOTA, switches, missed and false at IoU {self.iou:g}; HOTA, DetA and AssA over IoU 0.05 to 0.95; "
            f"identities within each camera{ignored} (trackeval {version('trackeval')})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "protocol": self.describe(),
            "iou": self.iou,
            "min_visibility": self.min_visibility,
            "overall": self.overall.as_dict(),
            "cameras": {camera: figures.as_dict() for camera, figures in self.cameras.items()},
        }


@dataclass(frozen=True)
class IdentityFigures:
    """Figures of identities that hold in all cameras (Ristani et al. 2016). Fractions; NaN where undefined.

    People of the truth and people of the tracks are paired one to one, so that most boxes are right: those that lie on
    a true box of the person who was paired with theirs.

    Attributes:
        idf1: Share of right boxes among the true and the tracks' boxes together, the harmonic mean of the other two.
        precision: Share of right boxes among the tracks'.
        recall: Share of right boxes among the true ones.
        boxes: True boxes that count.
        tracked: Tracks' boxes, without those on what is ignored.
        people: People of the truth.
        found: People of the tracks.
    """

    idf1: float
    precision: float
    recall: float
    boxes: int
    tracked: int
    people: int
    found: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the figures for JSON, None for what is undefined."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


def evaluate_identities(
    truth: Tracks,
    tracks: Tracks,
    iou: float = 0.5,
    *,
    min_visibility: float = 0.0,
    progress: Count | None = None,
) -> IdentityFigures:
    """Compare people who were followed from camera to camera with the truth.

    An id stands for the same person in every camera, in the truth and in the tracks: whoever has one id in one camera
    and another id in the next is right in one of the two alone.

    Args:
        truth, tracks, iou, min_visibility: As of :func:`evaluate_tracks`; of a drawn site's folder
            (:func:`reprism.cameras.read_people`), ids of the truth are its people.
        progress: Called with the number of frames done and of all.

    Raises:
        TracksError, DetectorError, ValueError: As of :func:`evaluate_tracks`.
    """
    _check_settings(iou, min_visibility)
    _, scorer, _ = _scorers(iou)
    true, given, lengths = _read(truth, tracks, read_people)
    check_tracks(true, given, lengths)
    cameras = sorted(true)
    ours, theirs = _as_one([true[camera] for camera in cameras], [given[camera] for camera in cameras])
    frames = np.unique(np.concatenate([ours.frames, theirs.frames]))
    data = _prepare(ours, theirs, frames, iou, min_visibility, progress)
    _check_memory("the site", data)
    if not data["num_gt_ids"]:
        raise TracksError(_NOBODY)
    found = scorer.eval_sequence(data)
    return IdentityFigures(
        idf1=float(found["IDF1"]),
        precision=float(found["IDP"]) if data["num_tracker_dets"] else math.nan,
        recall=float(found["IDR"]),
        boxes=data["num_gt_dets"],
        tracked=data["num_tracker_dets"],
        people=data["num_gt_ids"],
        found=data["num_tracker_ids"],
    )


def evaluate_tracks(
    truth: Tracks,
    tracks: Tracks,
    iou: float = 0.5,
    *,
    min_visibility: float = 0.0,
    progress: Count | None = None,
) -> TrackMetrics:
    """Compare tracks with the truth.

    Boxes of the truth that do not count (:attr:`reprism.cameras.BoxTable.ignored`, a score of 0, or less visible than
    ``min_visibility``) are matched first, with all others, and leave together with the tracks' boxes that they match:
    those are neither right nor false.

    Args:
        truth: File or folder (:func:`reprism.cameras.read_tracks`), or boxes by camera. Beside ``CAMERA/gt/gt.txt`` a
            ``seqinfo.ini`` says how many frames there are.
        tracks: The same. Of two files, the names need not agree.
        iou: Minimum intersection over union of a match, above 0 up to 1.
        min_visibility: Ignore people of whom a smaller share shows, 0 … 1.
        progress: Called with the number of frames done and of all.

    Raises:
        TracksError: The cameras differ; boxes have no ids, one twice in a frame, or numbers that are not finite; frames
            are out of range; nobody is in the truth; or trackeval is not installed.
        DetectorError: A file cannot be read.
        ValueError: ``iou`` or ``min_visibility`` is out of range.
    """
    _check_settings(iou, min_visibility)
    scorers = _scorers(iou)
    true, given, lengths = _read(truth, tracks, partial(read_tracks, ignored=True))
    check_tracks(true, given, lengths)
    frames = {camera: np.unique(np.concatenate([true[camera].frames, given[camera].frames])) for camera in sorted(true)}
    done, total = 0, sum(map(len, frames.values()))
    scores: dict[str, list[dict[str, Any]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for camera, present in frames.items():
        data = _prepare(true[camera], given[camera], present, iou, min_visibility)
        _check_memory(camera, data)
        sizes[camera] = data["num_gt_ids"], data["num_tracker_ids"]
        scores[camera] = []
        for scorer in scorers:
            scores[camera].append(scorer.eval_sequence(data))
            done += len(present)
            if progress:
                progress(done // len(scorers), total)
    if not any(people for people, _ in sizes.values()):
        raise TracksError(_NOBODY)
    together = [
        scorer.combine_sequences({camera: found[number] for camera, found in scores.items()})
        for number, scorer in enumerate(scorers)
    ]
    return TrackMetrics(
        overall=_figures(together, *np.sum(list(sizes.values()), axis=0).tolist()),
        cameras={camera: _figures(found, *sizes[camera]) for camera, found in scores.items()},
        iou=iou,
        min_visibility=min_visibility,
    )


def _check_settings(iou: float, min_visibility: float) -> None:
    if not 0 < iou <= 1:
        raise ValueError(f"expected an IoU above 0 and up to 1, got {iou:g}")
    if not 0 <= min_visibility <= 1:
        raise ValueError(f"expected a minimum visibility of 0 to 1, got {min_visibility:g}")


def _scorers(iou: float) -> Sequence[Any]:
    """Return trackeval's HOTA, Identity and CLEAR."""
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError as error:
        raise TracksError(f"evaluating tracks needs the package {error.name}: pip install 'reprism[track]'") from error
    config = {"THRESHOLD": iou, "PRINT_CONFIG": False}
    return HOTA(), Identity(config), CLEAR(config)


def _read(
    truth: Tracks, tracks: Tracks, reader: Callable[[str | PathLike[str]], dict[str, BoxTable]]
) -> tuple[Mapping[str, BoxTable], Mapping[str, BoxTable], Mapping[str, int | None]]:
    """Return truth and tracks by camera, and numbers of frames."""
    given = tracks if isinstance(tracks, Mapping) else read_tracks(tracks)
    if isinstance(truth, Mapping):
        return truth, given, {}
    true, lengths = reader(truth), read_lengths(truth)
    if len(true) == len(given) == 1 and not isinstance(tracks, Mapping) and Path(tracks).is_file():
        given = dict(zip(true, given.values(), strict=True))  # of one file each it is plain what belongs to what
    return true, given, lengths


def _as_one(ours: Sequence[BoxTable], theirs: Sequence[BoxTable]) -> tuple[BoxTable, BoxTable]:
    """Return the boxes of all cameras, one camera after the other, as of one recording."""
    begin, shifted = 0, []
    for pair in zip(ours, theirs, strict=True):
        shifted.append([replace(table, frames=table.frames + begin) for table in pair])
        begin = max((int(table.frames[-1]) + 1 for table in shifted[-1] if len(table.frames)), default=begin)
    true, given = (_concatenated(side) for side in zip(*shifted, strict=True))
    return true, given


def _concatenated(tables: Sequence[BoxTable]) -> BoxTable:
    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(table, name) for table in tables])

    ids = tuple(chain.from_iterable(table.ids for table in tables))
    return BoxTable(column("frames"), column("xyxy"), column("scores"), ids, column("visibility"), column("ignored"))


def _check_memory(camera: str, data: dict[str, Any]) -> None:
    people, tracks = data["num_gt_ids"], data["num_tracker_ids"]
    needed = 8 * max(_TABLES * people * tracks, 3 * (people + tracks) ** 2)
    if needed > _MOST_BYTES:
        raise TracksError(
            f"{camera} has {people:,} people and {tracks:,} tracks: comparing each with each takes "
            f"{needed / 2**30:.0f} GiB. Divide its recording, and name the parts as cameras"
        )


def _prepare(
    true: BoxTable,
    given: BoxTable,
    frames: np.ndarray,
    iou: float,
    min_visibility: float,
    progress: Count | None = None,
) -> dict[str, Any]:
    """Return what trackeval's metrics read: ids, counted from 0, and IoUs of each frame, without what is ignored.

    Frames without any box change no figure and are left out.
    """
    aside = true.ignored | (true.scores == 0) | (true.visibility < min_visibility)
    counts, kept = ~aside, np.ones(len(given.frames), bool)
    similarities = []
    for done, frame in enumerate(frames, start=1):
        ours, theirs = _rows(true, frame), _rows(given, frame)
        similarity = _ious(true.xyxy[ours], given.xyxy[theirs])
        excused = _matched_to(aside[ours], similarity, iou)
        kept[theirs] = ~excused
        similarities.append(similarity[counts[ours]][:, ~excused])
        if progress:
            progress(done, len(frames))
    people, gt_ids = _numbered(true, counts, frames)
    tracks, tracker_ids = _numbered(given, kept, frames)
    return {
        "gt_ids": gt_ids,
        "tracker_ids": tracker_ids,
        "similarity_scores": similarities,
        "num_gt_ids": people,
        "num_tracker_ids": tracks,
        "num_gt_dets": int(np.count_nonzero(counts)),
        "num_tracker_dets": int(np.count_nonzero(kept)),
        "num_timesteps": len(frames),
    }


def _rows(table: BoxTable, frame: int) -> slice:
    start, end = np.searchsorted(table.frames, [frame, frame + 1])
    return slice(int(start), int(end))


def _numbered(table: BoxTable, kept: np.ndarray, frames: np.ndarray) -> tuple[int, list[np.ndarray]]:
    """Return the number of identities of the boxes that are kept, and their numbers from 0 in each frame."""
    numbers: dict[str, int] = {}
    of_box = np.array([numbers.setdefault(table.ids[row], len(numbers)) for row in np.flatnonzero(kept)], np.int64)
    edges = np.searchsorted(table.frames[kept], frames)
    return len(numbers), np.split(of_box, edges[1:])


def _matched_to(aside: np.ndarray, similarity: np.ndarray, iou: float) -> np.ndarray:
    """Return which columns match a row that is set aside, where rows and columns are matched for the most IoU."""
    excused = np.zeros(similarity.shape[1], bool)
    if aside.any():
        matches = np.where(similarity >= iou, similarity, 0)
        rows, columns = linear_sum_assignment(matches, maximize=True)
        excused[columns] = aside[rows] & (matches[rows, columns] > 0)
    return excused


def _ious(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the intersection over union of N and M boxes, N×M float64; 0 for boxes without an area."""
    a, b = one[:, None].astype(np.float64), other[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.maximum(sides, 0).prod(axis=-1)
    areas = [np.maximum(each[..., 2:] - each[..., :2], 0).prod(axis=-1) for each in (a, b)]
    return np.divide(shared, areas[0] + areas[1] - shared, out=np.zeros_like(shared), where=shared > 0)


def _figures(found: Sequence[dict[str, Any]], people: int, tracks: int) -> TrackFigures:
    hota, identity, clear = found
    boxes = int(clear["CLR_TP"] + clear["CLR_FN"])
    any_box, any_true = (1.0 if there else math.nan for there in (boxes + clear["CLR_FP"], boxes))
    return TrackFigures(
        hota=float(np.mean(hota["HOTA"])) * any_box,
        deta=float(np.mean(hota["DetA"])) * any_box,
        assa=float(np.mean(hota["AssA"])) * any_box,
        idf1=float(identity["IDF1"]) * any_box,
        mota=float(clear["MOTA"]) * any_true,
        id_switches=int(clear["IDSW"]),
        missed=int(clear["CLR_FN"]),
        false=int(clear["CLR_FP"]),
        boxes=boxes,
        people=people,
        tracks=tracks,
    )
