"""Figures of tracks against brute force by definition, against motmetrics, and against trackeval's own reading."""

import itertools
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from reprism.cameras import (
    BoxTable,
    IdentityFigures,
    TrackFigures,
    TracksError,
    evaluate_identities,
    evaluate_tracks,
)

motmetrics = pytest.importorskip("motmetrics")
trackeval = pytest.importorskip("trackeval")

HIGH, WIDE = 40, 20  # of a true box; people are 100 pixels apart

Scene = list[tuple[int, str, int, int]]
"""Frame, identity, cell and pixels to the right of it: one box in a cell of a frame."""


def table(scene: Scene, **more) -> BoxTable:
    rows = sorted(scene, key=lambda row: row[0])
    boxes = [(100 * cell + dx, 10, 100 * cell + dx + WIDE, 10 + HIGH) for _, _, cell, dx in rows]
    frames = np.array([row[0] for row in rows], np.int64)
    scores = np.ones(len(rows), np.float32)
    return BoxTable(frames, np.array(boxes, np.float32).reshape(-1, 4), scores, tuple(row[1] for row in rows), **more)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Scene, Scene]:
    """People in cells of their own, and tracks: shifted, missing, elsewhere, under names that change."""
    frames, people = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    true = [
        (frame, f"p{person}", person, 0) for frame in range(frames) for person in range(people) if draw(st.booleans())
    ]
    tracked: Scene = []
    for frame in range(frames):
        names = draw(st.permutations([f"t{number}" for number in range(4)]))
        cells = draw(st.lists(st.integers(0, 3), unique=True, max_size=4))
        tracked += [(frame, name, cell, draw(st.integers(-9, 9))) for name, cell in zip(names, cells, strict=False)]
    return true, tracked


def iou_of(dx: int) -> float:
    return (WIDE - abs(dx)) / (WIDE + abs(dx))


def matches(true: Scene, tracked: Scene, iou: float) -> list[tuple[int, str, str]]:
    """Frame, person and track: of one box in a cell at most there is no choice."""
    at = {(frame, cell): (name, dx) for frame, name, cell, dx in tracked}
    found = [(frame, name, *at[frame, cell]) for frame, name, cell, _ in true if (frame, cell) in at]
    return [(frame, person, track) for frame, person, track, dx in found if iou_of(dx) >= iou - 1e-9]


def hota_by_definition(true: Scene, tracked: Scene) -> tuple[float, float, float]:
    """HOTA, DetA and AssA: for each found box the share of right ones among all boxes of its person or its track."""
    sums = np.zeros(3)
    for alpha in np.arange(1, 20) / 20:
        found = matches(true, tracked, alpha)
        associations = []
        for _, person, track in found:
            together = sum(each[1:] == (person, track) for each in found)
            either = sum(row[1] == person for row in true) + sum(row[1] == track for row in tracked) - together
            associations.append(together / either)
        detection = len(found) / max(1, len(true) + len(tracked) - len(found))
        association = sum(associations) / max(1, len(found))
        sums += math.sqrt(detection * association), detection, association
    return tuple(sums / 19)


def idf1_by_definition(true: Scene, tracked: Scene, iou: float) -> float:
    """The best share that any pairing of people and tracks gets right."""
    found = matches(true, tracked, iou)
    people = sorted({row[1] for row in true})
    tracks = sorted({row[1] for row in tracked}) + ["nobody"] * len(people)
    right = max(
        sum((person, track) in pairs for _, person, track in found)
        for chosen in itertools.permutations(tracks, len(people))
        for pairs in [set(zip(people, chosen, strict=True))]
    )
    return 2 * right / (len(true) + len(tracked))


@settings(max_examples=60)
@given(scenes(), st.sampled_from([0.4, 0.5, 0.75]))
def test_figures_are_those_of_the_definitions(both: tuple[Scene, Scene], iou: float) -> None:
    true, tracked = both
    assume(true)
    figures = evaluate_tracks({"c": table(true)}, {"c": table(tracked)}, iou).overall
    assert (figures.hota, figures.deta, figures.assa) == pytest.approx(hota_by_definition(true, tracked))
    assert figures.idf1 == pytest.approx(idf1_by_definition(true, tracked, iou))
    found = matches(true, tracked, iou)
    last: dict[str, str] = {}
    switches = 0
    for _, person, track in sorted(found):
        switches += last.get(person, track) != track
        last[person] = track
    missed, false = len(true) - len(found), len(tracked) - len(found)
    assert (figures.missed, figures.false, figures.id_switches) == (missed, false, switches)
    assert figures.mota == pytest.approx(1 - (missed + false + switches) / len(true))
    names = [len({row[1] for row in rows}) for rows in both]
    assert [figures.boxes, figures.people, figures.tracks] == [len(true), *names]


def by_motmetrics(true: BoxTable, tracked: BoxTable, iou: float) -> dict[str, float]:
    accumulator = motmetrics.MOTAccumulator()
    for frame in np.union1d(true.frames, tracked.frames):
        ours, theirs = np.flatnonzero(true.frames == frame), np.flatnonzero(tracked.frames == frame)
        distances = np.full((len(ours), len(theirs)), np.nan)
        for row, column in np.ndindex(*distances.shape):
            a, b = true.xyxy[ours[row]].astype(float), tracked.xyxy[theirs[column]].astype(float)
            wide, high = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            if wide > 0 and high > 0:
                overlap = wide * high
                share = overlap / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - overlap)
                if share >= iou:
                    distances[row, column] = 1 - share
        numbers = [
            [sorted(set(each.ids)).index(each.ids[row]) for row in rows]
            for each, rows in ((true, ours), (tracked, theirs))
        ]
        accumulator.update(*numbers, distances, frameid=int(frame))
    names = ["idf1", "mota", "num_switches", "num_misses", "num_false_positives"]
    return motmetrics.metrics.create().compute(accumulator, metrics=names, name="c").loc["c"].to_dict()


@pytest.mark.parametrize("seed", range(3))
def test_figures_agree_with_motmetrics(seed: int) -> None:
    """People who walk through each other, with a tracker that loses, swaps and invents some."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[tuple[int, str, np.ndarray]]] = {"true": [], "tracks": []}
    for person in range(5):
        start, step = rng.uniform(0, 300, 2), rng.uniform(-6, 6, 2)
        track = f"{person}a"
        for frame in range(int(rng.integers(0, 10)), int(rng.integers(25, 40))):
            box = np.concatenate([start + frame * step, start + frame * step + (60, 120)])
            rows["true"].append((frame, f"p{person}", box))
            if rng.random() < 0.08:
                track += "b"
            if rng.random() < 0.8:
                rows["tracks"].append((frame, track, box + rng.normal(0, 4, 4)))
            if rng.random() < 0.1:
                rows["tracks"].append((frame, f"x{person}", box + 500))
    true, tracked = (
        BoxTable(
            np.array([row[0] for row in found]),
            np.array([row[2] for row in found], np.float32),
            np.ones(len(found), np.float32),
            tuple(row[1] for row in found),
        )
        for found in (sorted(rows[name], key=lambda row: row[0]) for name in ("true", "tracks"))
    )
    figures = evaluate_tracks({"c": true}, {"c": tracked}, 0.5).overall
    want = by_motmetrics(true, tracked, 0.5)
    assert figures.idf1 == pytest.approx(want["idf1"])
    assert figures.mota == pytest.approx(want["mota"])
    assert [figures.id_switches, figures.missed, figures.false] == [
        want["num_switches"], want["num_misses"], want["num_false_positives"],
    ]  # fmt: skip
    assert figures.id_switches > 2
    assert figures.false > 2


# What motmetrics publishes of the two sequences that it brings: IDF1, MOTA, switches, missed, false, people.
PUBLISHED = {
    "TUD-Campus": (0.558, 0.526, 7, 150, 13, 8),
    "TUD-Stadtmitte": (0.645, 0.564, 7, 452, 45, 10),
}


def test_published_figures_of_real_sequences(tmp_path: Path) -> None:
    data = Path(motmetrics.__file__).parent / "data"
    for name in PUBLISHED:
        for kind, file in (("truth", "gt"), ("tracks", "test")):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"{name}.txt").write_text((data / name / f"{file}.txt").read_text())
    found = evaluate_tracks(tmp_path / "truth", tmp_path / "tracks")
    for name, (idf1, mota, *counts) in PUBLISHED.items():
        figures = found.cameras[name]
        assert (figures.idf1, figures.mota) == pytest.approx((idf1, mota), abs=5e-4)
        assert [figures.id_switches, figures.missed, figures.false, figures.people] == counts
    assert found.overall.idf1 == pytest.approx(0.624, abs=5e-4)
    assert found.overall.boxes == sum(figures.boxes for figures in found.cameras.values())


@settings(max_examples=20)
@given(scenes(), scenes())
def test_cameras_together_are_as_one_long_recording(one: tuple[Scene, Scene], other: tuple[Scene, Scene]) -> None:
    assume(one[0] and other[0])
    parts = [{"a": table(one[side]), "b": table(other[side])} for side in (0, 1)]
    later = [[(frame + 100, f"other {name}", cell, dx) for frame, name, cell, dx in rows] for rows in other]
    joined = [{"c": table(rows + more)} for rows, more in zip(one, later, strict=True)]
    want = evaluate_tracks(*joined).overall
    assert asdict(evaluate_tracks(*parts).overall) == pytest.approx(asdict(want))


def identities_by_hand(true: list[Scene], tracked: list[Scene], iou: float) -> tuple[float, float, float]:
    """IDF1, precision and recall of the best pairing of people and found ones over the frames of all cameras."""
    found = [match[1:] for ours, theirs in zip(true, tracked, strict=True) for match in matches(ours, theirs, iou)]
    people, names = ({row[1] for scene in side for row in scene} for side in (true, tracked))
    counts = np.array([[found.count((person, name)) for name in sorted(names)] for person in sorted(people)])
    right = counts[linear_sum_assignment(counts, maximize=True)].sum() if counts.size else 0
    boxes, tracks = (sum(map(len, side)) for side in (true, tracked))
    return 2 * right / (boxes + tracks), right / max(1, tracks), right / max(1, boxes)


@settings(max_examples=60)
@given(st.lists(scenes(), min_size=1, max_size=3), st.sampled_from([0.4, 0.5, 0.75]))
def test_identities_hold_in_all_cameras(cameras: list[tuple[Scene, Scene]], iou: float) -> None:
    true, tracked = map(list, zip(*cameras, strict=True))
    assume(any(true))
    found = evaluate_identities(
        *({f"cam{number}": table(scene) for number, scene in enumerate(side)} for side in (true, tracked)), iou
    )
    idf1, precision, recall = identities_by_hand(true, tracked, iou)
    assert (found.idf1, found.recall) == pytest.approx((idf1, recall))
    assert found.precision == pytest.approx(precision) if any(tracked) else math.isnan(found.precision)
    assert [found.boxes, found.tracked] == [sum(map(len, side)) for side in (true, tracked)]
    assert [found.people, found.found] == [len({row[1] for scene in side for row in scene}) for side in (true, tracked)]


def test_a_person_who_changes_ids_between_cameras_is_right_in_one() -> None:
    true = {"a": table([(0, "ann", 0, 0), (1, "ann", 0, 0), (0, "bob", 1, 0)]), "b": table([(0, "ann", 0, 0)])}
    names = {"ann": "1", "bob": "2"}
    right = {camera: replace(boxes, ids=tuple(names[name] for name in boxes.ids)) for camera, boxes in true.items()}
    assert evaluate_identities(true, right).idf1 == 1
    torn = {"a": right["a"], "b": replace(right["b"], ids=("3",))}
    assert evaluate_tracks(true, torn).overall.idf1 == 1  # each camera by itself is right
    assert evaluate_identities(true, torn) == IdentityFigures(3 / 4, 3 / 4, 3 / 4, 4, 4, 2, 3)
    nobody = {camera: table([]) for camera in true}
    assert evaluate_identities(true, nobody).as_dict()["precision"] is None
    with pytest.raises(TracksError, match="nobody is in the truth"):
        evaluate_identities(nobody, right)
    with pytest.raises(ValueError, match="IoU above 0"):
        evaluate_identities(true, right, 0)


def test_trackeval_reads_and_ignores_the_same(tmp_path: Path) -> None:
    """MOT files with distractors, static people and cars, by trackeval's own reading of MOT17."""
    rng = np.random.default_rng(5)
    lengths = {"MOT17-c1": 30, "MOT17-c2": 20}
    for camera, length in lengths.items():
        gt, result = [], []
        for person, kind in enumerate((1, 1, 1, 2, 7, 8, 12, 3)):
            x, y = rng.uniform(0, 250, 2) + 1000 * (kind == 3)
            for frame in range(1, length + 1):
                x, y = x + rng.normal(0, 3), y + rng.normal(0, 3)
                gt.append(f"{frame},{person + 1},{x:.2f},{y:.2f},50,100,{int(kind == 1)},{kind},{rng.random():.3f}")
                if rng.random() < 0.85:
                    dx, dy = rng.normal(0, 5, 2)
                    name = 10 * person + frame // 12
                    result.append(f"{frame},{name},{x + dx:.2f},{y + dy:.2f},50,100,0.9,-1,-1,-1")
        for path, lines in ((f"gt/{camera}/gt/gt.txt", gt), (f"results/ours/data/{camera}.txt", result)):
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n")
    quiet = {"PRINT_CONFIG": False}
    dataset = trackeval.datasets.MotChallenge2DBox(
        quiet
        | {"GT_FOLDER": str(tmp_path / "gt"), "TRACKERS_FOLDER": str(tmp_path / "results"), "SEQ_INFO": lengths}
        | {"SKIP_SPLIT_FOL": True, "TRACKERS_TO_EVAL": ["ours"], "OUTPUT_FOLDER": str(tmp_path / "out")}
    )
    metrics = [trackeval.metrics.HOTA(), trackeval.metrics.Identity(quiet), trackeval.metrics.CLEAR(quiet)]
    silent = ("USE_PARALLEL", "PRINT_RESULTS", "PRINT_CONFIG", "TIME_PROGRESS", "OUTPUT_SUMMARY", "OUTPUT_DETAILED")
    evaluator = trackeval.Evaluator(dict.fromkeys((*silent, "PLOT_CURVES", "OUTPUT_EMPTY_CLASSES"), False))
    results = evaluator.evaluate([dataset], metrics)[0]["MotChallenge2DBox"]["ours"]
    found = evaluate_tracks(tmp_path / "gt", tmp_path / "results" / "ours" / "data")
    for camera, figures in (("COMBINED_SEQ", found.overall), *found.cameras.items()):
        want = results[camera]["pedestrian"]
        assert figures.hota == pytest.approx(want["HOTA"]["HOTA"].mean())
        assert figures.deta == pytest.approx(want["HOTA"]["DetA"].mean())
        assert figures.assa == pytest.approx(want["HOTA"]["AssA"].mean())
        assert figures.idf1 == pytest.approx(want["Identity"]["IDF1"])
        assert figures.mota == pytest.approx(want["CLEAR"]["MOTA"])
        assert figures.false == want["CLEAR"]["CLR_FP"] > 10  # those on the car
        assert figures.boxes == 3 * (lengths.get(camera) or sum(lengths.values()))


@pytest.mark.parametrize(
    "aside",
    [{"ignored": np.array([0, 1], bool)}, {"visibility": np.array([1, 0.2], np.float32)}],
    ids=["ignored", "hardly visible"],
)
def test_what_is_ignored_is_neither_missed_nor_false(aside: dict[str, np.ndarray]) -> None:
    true = table([(0, "p", 0, 0), (0, "q", 1, 0)], **aside)
    both = table([(0, "t", 0, 0), (0, "u", 1, 2)])
    for tracked, false in ((table([(0, "t", 0, 0)]), 0), (both, 0), (table([(0, "t", 0, 0), (0, "u", 2, 0)]), 1)):
        figures = evaluate_tracks({"c": true}, {"c": tracked}, min_visibility=0.25).overall
        assert (figures.boxes, figures.people, figures.missed, figures.false) == (1, 1, 0, false)
        assert figures.tracks == 1 + false
    # One that overlaps who is ignored too little is false.
    near = table([(0, "t", 0, 0), (0, "u", 1, 9)])
    assert evaluate_tracks({"c": true}, {"c": near}, min_visibility=0.25).overall.false == 1
    # A track's box that fits somebody who counts better is theirs, and is right.
    beside = table([(0, "p", 0, 0), (0, "q", 0, 3)], **aside)
    figures = evaluate_tracks({"c": beside}, {"c": table([(0, "t", 0, 0)])}, min_visibility=0.25).overall
    assert (figures.mota, figures.tracks) == (1, 1)


def test_who_shows_just_enough_counts() -> None:
    true = table([(0, "p", 0, 0)], visibility=np.array([0.25], np.float32))
    assert evaluate_tracks({"c": true}, {"c": table([])}, min_visibility=0.25).overall.missed == 1


def test_a_score_of_zero_is_ignored_in_the_truth_alone() -> None:
    marked = table([(0, "p", 0, 0), (0, "q", 1, 0)])
    marked.scores[1] = 0
    assert evaluate_tracks({"c": marked}, {"c": table([(0, "t", 0, 0)])}).overall.mota == 1
    unsure = table([(0, "t", 0, 0)])
    unsure.scores[:] = 0
    assert evaluate_tracks({"c": table([(0, "p", 0, 0)])}, {"c": unsure}).overall.mota == 1


def test_what_is_undefined_is_no_number() -> None:
    nobody, somebody = table([]), table([(0, "p", 0, 0)])
    found = evaluate_tracks(
        {"empty": nobody, "ghosts": nobody, "seen": somebody}, {"empty": nobody, "ghosts": somebody, "seen": somebody}
    )
    empty, ghosts = found.cameras["empty"], found.cameras["ghosts"]
    assert all(math.isnan(value) for value in (empty.hota, empty.deta, empty.assa, empty.idf1, empty.mota))
    assert math.isnan(ghosts.mota)
    assert (ghosts.hota, ghosts.idf1, ghosts.false) == (0, 0, 1)
    values = found.as_dict()
    assert values["cameras"]["empty"]["hota"] is values["cameras"]["ghosts"]["mota"] is None
    assert values["cameras"]["seen"] == TrackFigures(1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1).as_dict()
    assert values["overall"]["false"] == 1
    with pytest.raises(TracksError, match="nobody is in the truth"):
        evaluate_tracks({"c": nobody}, {"c": somebody})


def test_progress_ends_with_all_frames() -> None:
    told: list[tuple[int, int]] = []
    true = {"a": table([(0, "p", 0, 0), (7, "p", 0, 0)]), "b": table([(3, "p", 0, 0)])}
    evaluate_tracks(true, true, progress=lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_settings_out_of_range() -> None:
    true = {"c": table([(0, "p", 0, 0)])}
    with pytest.raises(ValueError, match="IoU above 0"):
        evaluate_tracks(true, true, 0)
    with pytest.raises(ValueError, match="visibility of 0 to 1"):
        evaluate_tracks(true, true, min_visibility=25)


def test_more_people_than_can_be_compared_are_refused_before() -> None:
    many = {"c": table([(number, f"p{number}", 0, 0) for number in range(20_000)])}
    with pytest.raises(TracksError, match=r"20,000 people and 20,000 tracks.* GiB\. Divide"):
        evaluate_tracks(many, many)
