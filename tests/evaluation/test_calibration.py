"""Calibration against the definitions, pair by pair, and against distributions with a known answer."""

import copy
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from reprism.data.records import Sample
from reprism.data.video import VideoSettings
from reprism.evaluation import calibration, pair_counts
from reprism.evaluation.calibration import Calibration, CalibrationError, calibrate
from reprism.evaluation.fitted_on import FittedOn
from reprism.evaluation.part_scale import PartScale
from reprism.notation import Partition
from reprism.report.calibration import draw_calibration

TRACKLETS = FittedOn.of_dataset("ab" * 32, flip=True, video=VideoSettings(frames=8, segments=2))


def sample(pid, camid) -> Sample:
    return Sample(Path("x.jpg"), int(pid), None if camid is None else int(camid))


def people(seed=0, count=30, cameras=3, each=3, width=8, spread=0.25):
    """Unit rows: a query of everybody in every camera, and a gallery of the rest, with distractors and junk."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(count, width))
    query, gallery = ([], []), ([], [])
    for pid in range(1, count + 1):
        for camid in range(cameras):
            for number in range(each):
                rows, items = gallery if number else query
                rows.append(centers[pid - 1] + spread * rng.normal(size=width))
                items.append(sample(pid, camid))
    for pid in [0] * 20 + [-1] * 10:
        gallery[0].append(rng.normal(size=width))
        gallery[1].append(sample(pid, rng.integers(cameras)))
    unit = [np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query[0], gallery[0])]
    return unit[0].astype(np.float32), unit[1].astype(np.float32), query[1], gallery[1]


def by_hand(query, gallery, query_items, gallery_items):
    """Distances of the pairs of the same and of different people, by other cameras; nearest of either kind."""
    same, different, nearest = [], [], []
    for row, asked in zip(query, query_items, strict=True):
        best = [math.inf, math.inf]
        for other, there in zip(gallery, gallery_items, strict=True):
            if there.pid == -1:
                continue
            distance = float(np.sqrt(((row.astype(float) - other) ** 2).sum()))
            alike, together = asked.pid == there.pid, asked.camid is not None and asked.camid == there.camid
            if not together:
                (same if alike else different).append(distance)
            if not (alike and together):
                best[0 if alike else 1] = min(best[0 if alike else 1], distance)
        nearest.append(best)
    return np.array(same), np.array(different), np.array(nearest)


@pytest.fixture(scope="module")
def case():
    return people()


@pytest.fixture(scope="module")
def made(case):
    return calibrate(*case, fmrs=(0.1, 0.01, 1e-3, 1e-5), about={"data": "drawn"}, fitted_on=TRACKLETS)


def test_every_pair_is_counted_and_rates_are_shares_of_them(case, made) -> None:
    same, different, _ = by_hand(*case)
    assert made.counts["same_pairs"] == len(same)
    assert made.counts["different_pairs"] == len(different)
    assert (made.counts["queries"], made.counts["identities"], made.counts["gallery"]) == (90, 30, 200)
    assert [point.wanted_fmr for point in made.points] == [0.1, 0.01, 1e-3, 1e-5]
    for point in made.points:
        # Up to the pairs within float32 of a bin's edge.
        assert point.fmr == pytest.approx((different < point.threshold).mean(), abs=2 / len(different))
        assert point.tpr == pytest.approx((same < point.threshold).mean(), abs=2 / len(same))
        assert point.fmr <= point.wanted_fmr
        # One bin more would be too many.
        assert (different < point.threshold + 1e-3).mean() > point.wanted_fmr
        assert point.reliable == ((different < point.threshold).sum() >= 30)
    assert made.points[0].reliable
    assert not made.points[-1].reliable


def test_the_roc_and_the_densities_are_those_of_all_pairs(case, made) -> None:
    same, different, _ = by_hand(*case)
    roc = {name: np.array(values) for name, values in made.roc.items()}
    for name, pairs in (("fmr", different), ("tpr", same)):
        expected = np.array([(pairs < edge).mean() for edge in roc["threshold"]])
        np.testing.assert_allclose(roc[name], expected, atol=3 / len(pairs))
        assert (np.diff(roc[name]) >= 0).all()
    assert (roc["fmr"][-1], roc["tpr"][-1]) == (1, 1)
    edges = np.array(made.distribution["edges"])
    for name, pairs in (("same", same), ("different", different)):
        expected = np.histogram(pairs, edges, density=True)[0]
        np.testing.assert_allclose(made.distribution[name], expected, atol=3 / len(pairs) / (edges[1] - edges[0]))
    threshold = made.threshold(0.05)
    assert (different < threshold).mean() <= 0.05 + 2 / len(different)


def test_open_set_rates_are_those_of_ranked_queries(case, made) -> None:
    *_, nearest = by_hand(*case)
    mated = np.isfinite(nearest[:, 0])
    assert made.counts["mated_queries"] == mated.sum()
    for wanted, point in zip(calibration.FALSE_ALARM_RATES, made.open_set, strict=True):
        alarms = nearest[:, 1] <= point.threshold
        assert point.false_alarm_rate == pytest.approx(alarms.mean())
        assert alarms.mean() <= wanted < alarms.mean() + 1.5 / len(nearest)
        right = (nearest[:, 0] < nearest[:, 1]) & (nearest[:, 0] <= point.threshold)
        assert point.identification_rate == pytest.approx(right[mated].mean())


def test_blocks_do_not_matter(case, made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_counts, "_BLOCK", 700)
    calls = []
    again = calibrate(*case, fmrs=(0.1, 0.01, 1e-3, 1e-5), about={"data": "drawn"},
                      progress=lambda done, total: calls.append((done, total)))  # fmt: skip
    assert [total for _, total in calls] == [180] * 60  # two passes
    assert [done for done, _ in calls] == list(range(3, 181, 3))
    assert again.counts == made.counts
    assert [point.tpr for point in again.points] == pytest.approx([point.tpr for point in made.points], abs=1e-3)


def test_without_cameras_every_pair_counts(case) -> None:
    query, gallery, *items = case
    items = [[dataclasses.replace(item, camid=None) for item in side] for side in items]
    same, different, _ = by_hand(query, gallery, *items)
    counts = calibrate(query, gallery, *items).counts
    assert (counts["same_pairs"], counts["different_pairs"]) == (len(same), len(different))


def test_probabilities_are_right_as_often_as_they_say() -> None:
    """On other people of the same population."""
    made = calibrate(*people(seed=1, count=150, spread=0.4))
    assert made.slope < 0
    assert made.calibration_error < 0.08
    query, gallery, query_items, gallery_items = people(seed=2, count=150, spread=0.4)
    wanted = np.array([item.pid != -1 for item in gallery_items])
    distance = np.sqrt(((query[:, None] - gallery[None, wanted]) ** 2).sum(2))
    there = [item for item in gallery_items if item.pid != -1]
    alike = np.array([[a.pid == b.pid for b in there] for a in query_items])
    together = np.array([[a.camid == b.camid for b in there] for a in query_items])
    distance[alike & together] = np.inf
    nearest = np.argsort(distance, axis=1)[:, :10]
    predicted = made.probability(np.take_along_axis(distance, nearest, 1)).ravel()
    right = np.take_along_axis(alike, nearest, 1).ravel()
    for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        some = (predicted >= low) & (predicted < high)
        if some.sum() > 50:
            assert abs(predicted[some].mean() - right[some].mean()) < 0.12
    assert 0 <= predicted.min() <= predicted.max() <= 1


def test_people_apart_give_finite_probabilities() -> None:
    made = calibrate(*people(spread=0.01, width=64))
    assert np.isfinite([made.slope, made.intercept]).all()
    assert made.probability(0.0) > 0.95
    assert made.probability(2.0) < 0.05
    assert made.points[0].tpr == 1


def leaves(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a number stands in some JSON, but for what the maker adds."""
    if isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            if (*path, key) != ("about",):
                yield from leaves(value, (*path, key))
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield path


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """A calibration with parts, as its file has it."""
    case = people(count=60, width=16)
    partition = Partition.parse("p1(s2)+p2")
    scale = PartScale.of_distances(partition, np.random.default_rng(0).random((300, 4)), np.ones((60, 4)))
    return json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(calibrate(*case), parts=scale))))


@given(data=st.data(), wrong=st.sampled_from([math.nan, math.inf, -math.inf, "x", None, [], {}, True, -1e9]))
def test_any_number_that_is_none_is_refused(
    tmp_path_factory: Any, whole: dict[str, Any], data: Any, wrong: Any
) -> None:
    values = copy.deepcopy(whole)
    *above, last = data.draw(st.sampled_from(list(leaves(values))))
    place = values
    for key in above:
        place = place[key]
    assume(last not in ("slope", "intercept") or wrong != -1e9)
    place[last] = wrong
    path = tmp_path_factory.mktemp("wrong") / "calibration.json"
    path.write_text(json.dumps(values))
    with pytest.raises(CalibrationError, match=r"holds no calibration"):
        Calibration.read(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.update(slope=3.0), "slope is 3"),
        (lambda values: values["roc"]["threshold"].reverse(), "threshold of roc are out of order"),
        (lambda values: values["roc"]["fmr"].pop(), "not equally long"),
        (lambda values: values["roc"].update(fmr=[]), "not equally long"),
        (lambda values: values["points"].reverse(), "wanted_fmr of points are out of order"),
        (lambda values: values["points"][0]["fmr_interval"].reverse(), "ends before it begins"),
        (lambda values: values["distribution"]["edges"].pop(), "do not fit its edges"),
        (lambda values: values["counts"].pop("queries"), "counts must be"),
        (lambda values: values["points"][0].update(fmr=1.5), r"points\[0\].fmr is 1.5; it lies in"),
        (lambda values: values["parts"]["strangers"]["p1"].reverse(), "quantiles of parts.strangers.p1"),
        (lambda values: values.update(about=3), "about"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, whole: dict[str, Any], change: Any, words: str) -> None:
    values = copy.deepcopy(whole)
    change(values)
    (tmp_path / "calibration.json").write_text(json.dumps(values))
    with pytest.raises(CalibrationError, match=words):
        Calibration.read(tmp_path / "calibration.json")


def test_a_file_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(CalibrationError, match="holds no calibration"):
        Calibration.read(tmp_path / "deep.json")


def test_it_is_written_and_read_again(made, tmp_path: Path) -> None:
    made.write(tmp_path / "calibration.json")
    assert Calibration.read(tmp_path / "calibration.json") == made
    draw_calibration(made, tmp_path / "calibration.png")
    with Image.open(tmp_path / "calibration.png") as picture:
        assert picture.size == (1430, 440)
    for content in ("", "{", "[]", '{"points": []}', '{"points": 3}', '{"points": [], "fitted_on": 3}'):
        (tmp_path / "no.json").write_text(content)
        with pytest.raises(CalibrationError, match=r"no.json holds no calibration .*reprism calibrate"):
            Calibration.read(tmp_path / "no.json")
    with pytest.raises(CalibrationError, match=r"absent.json holds no calibration"):
        Calibration.read(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (
            VideoSettings(frames=8, segments=1),
            r"segments: expected 8 frames \(even\) in 1 segments, .* got 8 .* in 2 segments",
        ),
        (
            VideoSettings(frames=8, segments=2, sampling="random"),
            r"expected 8 frames \(random\) .* got 8 frames \(even\)",
        ),
        (VideoSettings(frames=8, segments=2, pooling="max"), r"expected .*, max of each.* got .*, mean of each"),
        (VideoSettings(frames=9, segments=2), "expected 9 frames .* got 8 frames"),
        (None, "queries: expected images, got tracklets, segments side by side; rows: expected images, got"),
    ],
)
def test_it_is_refused_for_other_distances(made, video, words) -> None:
    made.check(TRACKLETS)
    made.check(FittedOn.of_dataset("ab" * 32, flip=True, video=VideoSettings(frames=8, segments=2, seed=7)))
    with pytest.raises(CalibrationError, match=words) as caught:
        made.check(FittedOn.of_dataset("ab" * 32, flip=True, video=video))
    assert str(caught.value).endswith("Make one for these: reprism calibrate MODEL --data NAME:DIR")


def test_a_file_of_the_older_format_is_read_and_refused_for_use(made, tmp_path: Path) -> None:
    made.write(tmp_path / "calibration.json")
    values = json.loads((tmp_path / "calibration.json").read_text())
    assert values["fitted_on"]["segments"] == {
        "frames": 8, "sampling": "even", "segments": 2, "pooling": "mean", "comparison": "concatenate",
    }  # fmt: skip
    values["fitted_on"]["segments"]["runs"] = values["fitted_on"]["segments"].pop("segments")
    (tmp_path / "calibration.json").write_text(json.dumps(values))
    assert Calibration.read(tmp_path / "calibration.json") == made, "earlier versions called them runs"
    del values["fitted_on"]
    (tmp_path / "calibration.json").write_text(json.dumps(values))
    old = Calibration.read(tmp_path / "calibration.json")
    assert old == dataclasses.replace(made, fitted_on=None)
    with pytest.raises(CalibrationError, match=r"does not say what it was fitted on .* reprism calibrate MODEL"):
        old.check(TRACKLETS)


def test_junk_takes_no_part_on_either_side_and_distractors_are_nobodys_match(case, made) -> None:
    query, gallery, query_items, gallery_items = case
    rows = np.concatenate([query, query[:5]])
    items = [*query_items, *[sample(-1, 0)] * 5]
    again = calibrate(rows, gallery, items, gallery_items, fmrs=(0.1, 0.01, 1e-3, 1e-5))
    assert again.points == made.points
    assert again.counts == made.counts


def test_what_cannot_be_calibrated(case) -> None:
    query, gallery, query_items, gallery_items = case
    with pytest.raises(ValueError, match=r"expected rates between 0 and 1, got fmrs=\[0\]"):
        calibrate(*case, fmrs=(0,))
    with pytest.raises(ValueError, match="query has 90 descriptors for 89 items"):
        calibrate(query, gallery, query_items[:-1], gallery_items)
    alone = [dataclasses.replace(item, pid=10_000 + n) for n, item in enumerate(query_items)]
    with pytest.raises(CalibrationError, match="0 pairs of the same person"):
        calibrate(query, gallery, alone, gallery_items)
    with pytest.raises(CalibrationError, match="3 query identities are too few"):
        calibrate(query[:9], gallery, query_items[:9], gallery_items)
    broken = torch.from_numpy(query.copy())
    broken[3, 1] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        calibrate(broken, gallery, query_items, gallery_items)
    with pytest.raises(CalibrationError, match="a false match rate of 1e-09 cannot be told from none"):
        calibrate(*case).threshold(1e-9)
