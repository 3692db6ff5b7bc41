"""Does the choice of crops pay: what ``reprism watch`` describes of a tracklet, beside even and random frames.

    python benchmarks/crops.py model.safetensors --folder sites

Draws sites of four cameras into the folder, once, and describes every box of every person in them, once. A tracklet is
one person crossing one camera's view, by the truth, so that no tracker's mistake is in the figures. Each tracklet is a
query against those of all other cameras; every way of choosing k crops is scored on the same descriptors, the mean of
the crops' rows. Boxes are of four kinds:

- true: those of the truth that show a fifth of the person at least;
- jittered: the same, each side moved by a tenth of the box's height or width (standard deviation);
- blurred: true boxes, half of whose crops are blurred as by a movement to a side;
- motion: what the detector ``motion`` finds, of the person whose true box it overlaps most (IoU 0.5 at least).

Differences are from even frames, with the standard error of the mean over the queries.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
import tyro
from PIL import Image, ImageFilter
from scipy.optimize import linear_sum_assignment

import reprism
from reprism.cameras import Boxes, motion_detector, read_frames
from reprism.cameras.boxes import within
from reprism.cameras.crops import BestOverTime, covered, crop_score, cut, edges_cut, sharpness, usual_height
from reprism.cli.embedding import NetworkSettings, load_embedder
from reprism.drawn.cameras import render_cameras

Kind = Literal["true", "jittered", "blurred", "motion"]
Ranking: TypeAlias = reprism.RankingMetrics

_VISIBLE = 0.2
_JITTER = 0.1
_OVERLAP = 0.5
_BLURRED = 0.5
_SHORTEST = 5  # boxes of a tracklet: half a second, as for reprism watch


@dataclass
class Arguments:
    """Does the choice of crops pay: the crops that ``reprism watch`` describes, beside even and random frames."""

    model: tyro.conf.Positional[Path]
    """Model, as ``reprism watch`` takes it."""
    folder: Path = Path("drawn-sites")
    """Folder for the drawn sites and the descriptors; those that are there are used again."""
    boxes: tuple[Kind, ...] = get_args(Kind)
    """Kinds of boxes."""
    sites: int = 4
    """Number of sites, of four cameras each."""
    seed: int = 0
    """Seed of the first site; the others follow."""
    people: int = 24
    """People of a site."""
    seconds: int = 120
    """Length of a site's recording."""
    crops: tuple[int, ...] = (1, 3, 5, 15)
    """Numbers of crops of a tracklet."""
    turns: int = 10
    """Random choices, of whose scores the mean is printed."""
    preprocess: str | None = None
    """Preprocessing of an ONNX file, as ``reprism watch`` takes it."""


class Sights(NamedTuple):
    """All boxes of one kind, a row each, tracklet by tracklet and in the order of time.

    ``tracklets`` numbers the tracklets, ``pids`` and ``cameras`` are those of each tracklet.
    """

    tracklets: np.ndarray
    frames: np.ndarray
    heights: np.ndarray
    sharpness: np.ndarray
    edges: np.ndarray
    covered: np.ndarray
    sure: np.ndarray
    rows: np.ndarray
    pids: np.ndarray
    cameras: np.ndarray


Choice: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From the rows of a tracklet to those of them that are chosen."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    for seed in seeds_of(arguments):
        if not (arguments.folder / f"site{seed}").exists():
            render_cameras(arguments.folder / f"site{seed}", people=arguments.people, seconds=arguments.seconds,
                           crowd=0.3, seed=seed)  # fmt: skip
    for kind in arguments.boxes:
        sights = described(arguments, kind)
        print(f"\n{kind} boxes: {len(sights.rows):,} in {len(sights.pids)} tracklets of {len(set(sights.pids))} people")
        compare_choices(sights, arguments)
        compare_descriptors(sights, max(arguments.crops))


def seeds_of(arguments: Arguments) -> range:
    """Return the seeds of the sites."""
    return range(arguments.seed, arguments.seed + arguments.sites)


# ---- the boxes and their descriptors ---------------------------------------------------------------------


def described(arguments: Arguments, kind: Kind) -> Sights:
    """Describe all boxes of a kind, or read what was described before."""
    parts = []
    for seed in seeds_of(arguments):
        path = arguments.folder / f"{kind}{seed}-{arguments.model.stem}.npz"
        if not path.exists():
            np.savez(path, **described_site(arguments, kind, seed)._asdict())
        with np.load(path) as saved:
            parts.append(Sights(**saved))
    before = np.cumsum([0, *(len(part.pids) for part in parts)])
    numbered = [part._replace(tracklets=part.tracklets + start) for part, start in zip(parts, before[:-1], strict=True)]
    return Sights(*map(np.concatenate, zip(*numbered, strict=True)))


def described_site(arguments: Arguments, kind: Kind, seed: int) -> Sights:
    """Describe all boxes of a kind in a site's videos."""
    embedder = load_embedder(arguments.model, NetworkSettings(preprocess=arguments.preprocess), flip=False)
    found: dict[str, list[Any]] = defaultdict(list)
    for camera, video in enumerate(sorted((arguments.folder / f"site{seed}").glob("cam*.mp4"))):
        crops: list[np.ndarray] = []
        rng = np.random.default_rng((seed, camera))
        for index, image, boxes, who in boxes_of(video, kind, rng):
            height, width = image.shape[:2]
            edges, shares = edges_cut(boxes.xyxy, height, width), covered(boxes.xyxy)
            for row in np.flatnonzero(who[:, 0]):
                crop = cut(image, boxes.xyxy[row]).copy()
                if kind == "blurred" and rng.random() < _BLURRED:
                    crop = blurred(crop, rng)
                crops.append(crop)
                tall = boxes.xyxy[row, 3] - boxes.xyxy[row, 1]
                values = (index, tall, sharpness(crop), edges[row], shares[row], boxes.scores[row])
                found["values"].append(values)
                found["track"].append((camera, who[row, 1], who[row, 0]))
        found["rows"].extend(embedder.embed(crops))
        print(f"{kind}: {video}", file=sys.stderr)
    tracks, numbers, counts = np.unique(np.array(found["track"]), axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(numbers, kind="stable")
    order = order[counts[numbers[order]] >= _SHORTEST]
    kept, numbers = np.unique(numbers[order], return_inverse=True)
    frames, heights, sharp, edges, shares, sure = np.array(found["values"])[order].T
    return Sights(
        tracklets=numbers,
        frames=frames,
        heights=heights,
        sharpness=sharp,
        edges=edges,
        covered=shares,
        sure=sure,
        rows=np.array(found["rows"])[order],
        pids=1000 * seed + tracks[kept, 2],
        cameras=100 * seed + tracks[kept, 0],
    )


def blurred(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur a crop as a movement by a twentieth to a fifth of its height would, to a side."""
    radius = rng.uniform(0.05, 0.2) * crop.shape[0] / 2
    return np.asarray(Image.fromarray(crop).filter(ImageFilter.BoxBlur((radius, 0))))


def boxes_of(video: Path, kind: Kind, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray, Boxes, np.ndarray]]:
    """Yield the frames of a video with their boxes, and the person and the track of each box (0: of nobody)."""
    truth = defaultdict(list)
    with (video.parent / "truth.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["file"] == video.name:
                box = [float(row[side]) for side in ("left", "top", "right", "bottom")]
                truth[int(row["frame"]) - 1].append(
                    (*box, int(row["pid"]), int(row["track"]), float(row["visibility"]))
                )
    detector = motion_detector()
    for frame in read_frames(video):
        people = np.array(truth[frame.index]).reshape(-1, 7)
        height, width = frame.image.shape[:2]
        if kind == "motion":
            boxes = detector(frame)
            who = matched(boxes.xyxy, people)
        else:
            people = people[people[:, 6] >= _VISIBLE]
            sides = np.tile(people[:, 2:4] - people[:, :2], 2)
            moved = rng.normal(0, _JITTER, sides.shape) * sides if kind == "jittered" else 0
            who = people[:, 4:6].astype(int)
            boxes = Boxes(people[:, :4] + moved)
            clipped = within(boxes, height, width)
            if len(clipped) < len(boxes):
                raise ValueError(f"{video}, frame {frame.index}: a box is not in the frame")
            boxes = clipped
        yield frame.index, frame.image, boxes, who


def matched(boxes: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Return the person and the track of each box, 0 where it is nobody's."""
    starts = np.maximum(boxes[:, None, :2], people[None, :, :2])
    ends = np.minimum(boxes[:, None, 2:], people[None, :, 2:4])
    shared = np.clip(ends - starts, 0, None).prod(axis=2)
    areas = [(each[:, 2:4] - each[:, :2]).prod(axis=1) for each in (boxes, people)]
    overlap = shared / (areas[0][:, None] + areas[1][None] - shared)
    who = np.zeros((len(boxes), 2), int)
    for box, person in zip(*linear_sum_assignment(-overlap), strict=True):
        if overlap[box, person] >= _OVERLAP:
            who[box] = people[person, 4:6]
    return who


# ---- choices ---------------------------------------------------------------------------------------------


INGREDIENTS: dict[str, dict[str, float]] = {
    "edges": {"edges": 0},
    "overlap": {"share": 0.0},
    "height": {"height": 64.0},
    "sharpness": {"sharp": 1.0},
    "the detector's score": {"sure": 1.0},
}
"""Ingredients of a crop's score that are left out by giving all crops the same."""


def worth_of(sights: Sights, without: str | None = None) -> np.ndarray:
    """Score all crops as ``reprism watch`` does, or without an ingredient."""
    worth = np.empty(len(sights.rows))
    usual, last = 0.0, -1
    for row in range(len(worth)):
        tall = float(sights.heights[row])
        if sights.tracklets[row] != last:
            usual, last = tall, sights.tracklets[row]
        given: dict[str, Any] = {
            "height": tall,
            "sharp": float(sights.sharpness[row]),
            "edges": int(sights.edges[row]),
            "share": float(sights.covered[row]),
            "sure": float(sights.sure[row]),
            **INGREDIENTS.get(without or "", {}),
        }
        steady = without == "steadiness"
        # Height counts twice: how large a box is, and how far from the usual.
        around = given["height"] if steady else usual * given["height"] / tall
        worth[row] = crop_score(usual=around, **given)
        usual = usual_height(usual, tall)
    return worth


def by_worth(sights: Sights, worth: np.ndarray, k: int) -> Choice:
    """Choose as ``reprism watch`` does."""

    def choose(rows: np.ndarray) -> np.ndarray:
        best = BestOverTime[int](k)
        for row in rows:
            best.offer(int(sights.frames[row] - sights.frames[rows[0]]), float(worth[row]), partial(int, row))
        return np.array(best.kept())

    return choose


def highest(worth: np.ndarray, k: int) -> Choice:
    """Choose the highest scores, wherever they are in time."""
    return lambda rows: np.sort(rows[np.argsort(-worth[rows], kind="stable")[:k]])


def even(k: int) -> Choice:
    """Choose the middles of k equal runs of boxes."""
    return lambda rows: rows[((np.arange(min(k, len(rows))) + 0.5) * len(rows) / min(k, len(rows))).astype(int)]


def at_random(k: int, seed: int) -> Choice:
    """Choose at random, none twice."""
    rng = np.random.default_rng(seed)
    return lambda rows: np.sort(rng.choice(rows, min(k, len(rows)), replace=False))


def compare_choices(sights: Sights, arguments: Arguments) -> None:
    """Print how well each choice ranks."""
    everything, worth = score(sights, lambda rows: rows), worth_of(sights)
    for k in arguments.crops:
        base = score(sights, even(k))
        print(f" {k} crops; difference from even frames")
        print_line("random frames", [score(sights, at_random(k, seed)) for seed in range(arguments.turns)], base)
        print_line("even frames", [base], base)
        print_line("chosen", [score(sights, by_worth(sights, worth, k))], base)
        print_line("highest scores alone", [score(sights, highest(worth, k))], base)
    print_line("all frames", [everything], base)
    most = max(arguments.crops)
    base = score(sights, by_worth(sights, worth, most))
    print(f" {most} crops, chosen without an ingredient; difference from with all")
    for name in (*INGREDIENTS, "steadiness"):
        print_line(name, [score(sights, by_worth(sights, worth_of(sights, name), most))], base)


def print_line(name: str, found: list[Ranking], base: Ranking) -> None:
    """Print a choice's scores, and its difference from another in mAP."""
    precision = np.mean([one.average_precision for one in found], axis=0)
    gain = precision - base.average_precision
    gain = gain[np.isfinite(gain)]
    error = gain.std() / np.sqrt(len(gain))
    rank1, precision = np.mean([(one.rank(1), one.mAP) for one in found], axis=0)
    print(f"  {name:<26} rank-1 {100 * rank1:5.1f}  mAP {100 * precision:5.1f}  {100 * gain.mean():+5.1f} "
          f"± {100 * error:.1f}")  # fmt: skip


def score(sights: Sights, choose: Choice, pool: Callable[[np.ndarray], np.ndarray] | None = None) -> Ranking:
    """Rank all tracklets by the crops that were chosen of each."""
    starts = np.searchsorted(sights.tracklets, np.arange(len(sights.pids) + 1))
    chosen = [choose(np.arange(start, end)) for start, end in pairwise(starts)]
    pool = pool or mean
    rows = torch.nn.functional.normalize(torch.from_numpy(np.stack([pool(sights.rows[each]) for each in chosen])))
    return reprism.evaluate(rows, rows, sights.pids, sights.pids, sights.cameras, sights.cameras)


# ---- descriptors -----------------------------------------------------------------------------------------


def compare_descriptors(sights: Sights, most: int) -> None:
    """Print how well the descriptors of chosen crops rank by how they are pooled."""
    choose = by_worth(sights, worth_of(sights), most)
    base = score(sights, choose)
    print(f" descriptors of {most} chosen crops; difference from their mean")
    print_line("mean", [base], base)
    print_line("3 segments, side by side", [score(sights, choose, lambda rows: np.concatenate(segments(rows)))], base)
    print_line("mean of 3 segments", [score(sights, choose, lambda rows: np.mean(segments(rows), axis=0))], base)


def mean(rows: np.ndarray) -> np.ndarray:
    """Pool as ``reprism watch`` does."""
    return np.asarray(rows.mean(0))


def segments(rows: np.ndarray) -> list[np.ndarray]:
    """Return the mean of each third of the rows; of fewer than three the last counts again."""
    rows = np.concatenate([rows, rows[-1:].repeat(max(0, 3 - len(rows)), axis=0)])
    return [part.mean(0) for part in np.array_split(rows, 3)]


if __name__ == "__main__":
    main()
