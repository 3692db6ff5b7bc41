"""Measure joined tracklets on drawn cameras: what is gained, and how often a join is wrong.

    reprism data render cameras site --seconds 60
    reprism data render market1501 people --seed 7 --train-identities 64 --test-identities 64
    reprism calibrate MODEL --data market1501:people
    python benchmarks/stitching.py site MODEL calibration.json

Each camera is tracked once from what `motion` finds, once from the true boxes, and once from the true boxes of which
each person's are missing for 1.5 to 4 s every 1.5 to 6 s. Whose a tracklet is say the true boxes that most of its own
match. A join is right if both tracklets are of one person; to be joined are a person's tracklet and the next one, if no
more than `--seconds` lie between. A tracklet that is mostly nobody's or of several people is never right to join.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import tyro
from measure import from_extra

from reprism.cameras import (
    BoxTable,
    Detector,
    evaluate_tracks,
    find_tracklets,
    open_detector,
    open_tracker,
    read_frames,
    read_tracks,
)
from reprism.cameras.stitching import Limits, Piece, stitch
from reprism.cameras.tracks import UNTRACKED
from reprism.cli.embedding import NetworkSettings, load_embedder
from reprism.embedding import Embedder
from reprism.evaluation.calibration import Calibration
from reprism.evaluation.fitted_on import FittedOn

with from_extra():
    from reprism.cameras.describing import keeper

FPS, IOU, LOST = 10, 0.5, 1.0


@dataclass
class Arguments:
    """Measure joined tracklets on drawn cameras: what is gained, and how often a join is wrong."""

    site: tyro.conf.Positional[Path]
    """Folder of reprism data render cameras."""
    model: tyro.conf.Positional[Path]
    """Model that describes the crops."""
    calibration: tyro.conf.Positional[Path]
    """Its calibration, on other people."""
    fmr: tuple[float, ...] = (0.1, 0.01, 0.001)
    """False match rates to join at."""
    seconds: float = 5.0
    """Maximum gap."""
    preprocess: str | None = None
    """Preprocessing of an ONNX file, such as imagenet."""


@dataclass
class Camera:
    """The tracklets of one camera, with the truth."""

    truth: BoxTable
    pieces: list[Piece[None]]
    boxes: list[tuple[int, np.ndarray, int, tuple[int, int]]]  # frame, box, number of the track, name of the tracklet
    people: dict[tuple[int, int], str | None]  # whose each tracklet is


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    embedder = load_embedder(arguments.model, NetworkSettings(preprocess=arguments.preprocess))
    calibration = Calibration.read(arguments.calibration)
    calibration.check(FittedOn(embedder.kind.fingerprint, embedder.flip))
    truth = read_tracks(arguments.site)
    print("| boxes | joined at | tracklets | of a person | right | wrong | missed | IDF1 | HOTA | switches |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind in ("motion", "true", "true, broken"):
        cameras = {name: tracked(arguments.site, name, table, kind, embedder) for name, table in truth.items()}
        for fmr in (None, *arguments.fmr):
            limits = Limits(arguments.seconds, 1e-9)  # joins none
            if fmr is not None:
                limits = Limits.calibrated(calibration, fmr, arguments.seconds, 120.0)
            print_row(kind, fmr, cameras, limits)


def print_row(kind: str, fmr: float | None, cameras: dict[str, Camera], limits: Limits) -> None:
    """Join the tracklets of all cameras, and print the figures of them."""
    chains = {name: stitch(camera.pieces, limits) for name, camera in cameras.items()}
    right = wrong = missed = tracklets = crossings = 0
    tables = {}
    for name, camera in cameras.items():
        joined = {(one.name, other.name) for chain in chains[name] for one, other in pairwise(chain)}
        same = {pair for pair in joined if camera.people[pair[0]] == camera.people[pair[1]] is not None}
        right, wrong = right + len(same), wrong + len(joined - same)
        missed += len(to_join(camera, limits.seconds) - joined)
        owned = [chain for chain in chains[name] if any(camera.people[one.name] for one in chain)]
        tracklets, crossings = tracklets + len(owned), crossings + len(set(camera.truth.ids))
        number = {one.name: order for order, chain in enumerate(chains[name]) for one in chain}
        tables[name] = BoxTable(
            np.array([frame for frame, *_ in camera.boxes]),
            np.array([box for _, box, *_ in camera.boxes], np.float32).reshape(-1, 4),
            np.ones(len(camera.boxes), np.float32),
            tuple(str(number[of]) for *_, of in camera.boxes),
        )
    figures = evaluate_tracks({name: camera.truth for name, camera in cameras.items()}, tables).overall
    count = sum(len(each) for each in chains.values())
    rate = "—" if fmr is None else f"{fmr:g}"
    print(
        f"| {kind} | {rate} | {count} | {tracklets / crossings:.2f} | {right} | {wrong} | {missed} "
        f"| {figures.idf1:.1%} | {figures.hota:.1%} | {figures.id_switches} |",
        flush=True,
    )


def to_join(camera: Camera, seconds: float) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    """Return a person's tracklet and the next one, where the gap is short."""
    wanted = set()
    for one in camera.pieces:
        later = [
            other
            for other in camera.pieces
            if camera.people[other.name] == camera.people[one.name] is not None
            and 0 < other.tracklet.first.seconds - one.tracklet.last.seconds <= seconds
        ]
        if later:
            wanted.add((one.name, min(later, key=lambda other: other.tracklet.first.seconds).name))
    return wanted


def tracked(site: Path, name: str, truth: BoxTable, kind: str, embedder: Embedder) -> Camera:
    """Track one camera, describe its tracklets, and say whose each is."""
    seen: list[tuple[int, np.ndarray, np.ndarray]] = []
    tracklets = list(
        find_tracklets(
            read_frames(site / f"{name}.mp4"),
            detector_of(site, name, truth, kind),
            open_tracker("bytetrack", fps=FPS, lost_seconds=LOST, sure=0),
            keeper(embedder, thumbnails=False),
            lost_seconds=LOST,
            seen=lambda frame, boxes, numbers: seen.append((frame.index, boxes.xyxy, numbers)),
        )
    )
    spans: dict[int, list[Piece[None]]] = {}
    pieces = []
    for one in tracklets:
        rows = np.concatenate([embedder.embed_ready(crop.picture.pixels[None]).numpy() for crop in one.crops])
        pieces.append(Piece(one.with_pictures(lambda _: None), rows.mean(0)))
        spans.setdefault(one.number, []).append(pieces[-1])
    boxes, votes = [], {piece.name: Counter[str | None]() for piece in pieces}
    for frame, all_boxes, numbers in seen:
        here = np.flatnonzero(truth.frames == frame)
        for box, number in zip(all_boxes, numbers.tolist(), strict=True):
            if number == UNTRACKED:
                continue
            of = next(each for each in spans[number] if frame <= each.tracklet.last.index)
            boxes.append((frame, box, number, of.name))
            shares = overlaps(box, truth.xyxy[here])
            votes[of.name][truth.ids[here[shares.argmax()]] if shares.max(initial=0) >= IOU else None] += 1
    return Camera(truth, pieces, boxes, {of: majority(count) for of, count in votes.items()})


def majority(votes: Counter[str | None]) -> str | None:
    """Return whose more than half of the boxes are."""
    (person, count), *_ = votes.most_common(1)
    return person if 2 * count > votes.total() else None


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union of a box with each of others."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = np.clip(sides, 0, None).prod(1)
    areas = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1)
    shares: np.ndarray = both / (areas - both)
    return shares


def detector_of(site: Path, name: str, truth: BoxTable, kind: str) -> Detector:
    """Return a detector; that of ``true, broken`` loses everybody for a while, again and again."""
    if kind != "true, broken":
        return open_detector("motion" if kind == "motion" else f"boxes:{site / name / 'gt' / 'gt.txt'}")
    rng, ids = np.random.default_rng(5), np.array(truth.ids)
    shows = np.ones(len(ids), bool)
    for person in sorted(set(truth.ids)):
        frames = truth.frames[ids == person]
        start = frames[0] + rng.integers(15, 60)
        while start < frames[-1]:
            end = start + rng.integers(15, 40)
            shows[(ids == person) & (truth.frames >= start) & (truth.frames < end)] = False
            start = end + rng.integers(15, 60)
    return lambda frame: truth.xyxy[shows & (truth.frames == frame.index)]


if __name__ == "__main__":
    main()
