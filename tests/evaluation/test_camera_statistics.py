"""Statistics of cameras, against their definition in numpy; and that rows taken away leave no trace."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import reprism
from reprism.data.records import JUNK, ReIDDataset, Sample
from reprism.evaluation.camera_statistics import (
    LEAST_DEVIATION,
    SHRINKAGE,
    CameraStatistics,
    CameraStatisticsError,
    MadeBy,
    require_cameras,
    statistics_of_items,
)

MADE_BY = MadeBy("f" * 64, True)


def rows_of(seed: int, count: int, dim: int = 5) -> tuple[np.ndarray, list[str | None]]:
    """Rows of length 1, each camera about a point of its own, some of no camera."""
    rng = np.random.default_rng(seed)
    cameras = rng.integers(-1, 3, count)
    rows = rng.normal(size=(count, dim)) * (1 + cameras[:, None]) + 2 * cameras[:, None]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), [None if camera < 0 else f"cam{camera}" for camera in cameras]


def by_definition(rows: np.ndarray, cameras: list[str | None]) -> np.ndarray:
    """Normalize as the documentation says, row by row."""
    x = rows.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    known = x[[camera is not None for camera in cameras]]
    least = LEAST_DEVIATION * np.sqrt(known.var(0).mean())
    out = []
    for row, camera in zip(x, cameras, strict=True):
        mean, variance = known.mean(0), known.var(0)
        if camera is not None:
            own = x[[other == camera for other in cameras]]
            weight = len(own) / (len(own) + SHRINKAGE)
            mean = weight * own.mean(0) + (1 - weight) * mean
            variance = weight * own.var(0) + (1 - weight) * variance
        everywhere, deviation = (np.maximum(np.sqrt(v), least) for v in (known.var(0), variance))
        z = (row - mean) / deviation * everywhere
        out.append(z / np.linalg.norm(z))
    return np.array(out)


@given(st.integers(0, 2**31), st.integers(8, 60))
@settings(deadline=None, max_examples=40)
def test_normalized_rows_are_those_of_the_definition(seed: int, count: int) -> None:
    rows, cameras = rows_of(seed, count)
    fitted = CameraStatistics.fit(rows, cameras)
    np.testing.assert_allclose(fitted.apply(rows, cameras), by_definition(rows, cameras), atol=2e-6)


def test_many_rows_of_a_camera_get_the_mean_and_deviation_of_all() -> None:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(1, 0.3, (4000, 6)), rng.normal(0.6, 0.5, (4000, 6))])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cameras = [1] * 4000 + [2] * 4000
    fitted = CameraStatistics.fit(rows, cameras)
    shifted = (rows - np.repeat([fitted.mean(1), fitted.mean(2)], 4000, axis=0)) / np.repeat(
        [fitted.deviation(1), fitted.deviation(2)], 4000, axis=0
    )
    for half in (shifted[:4000], shifted[4000:]):
        # The shrinkage of 10 rows in 4,010 is what is left.
        np.testing.assert_allclose(half.mean(0), 0, atol=0.05)
        np.testing.assert_allclose(half.std(0), 1, atol=0.1)


def test_a_camera_never_seen_and_none_have_the_statistics_of_all() -> None:
    rows, cameras = rows_of(1, 50)
    fitted = CameraStatistics.fit(rows, cameras)
    known = rows[[camera is not None for camera in cameras]].astype(np.float64)
    for camera in (None, "another", 7):
        np.testing.assert_allclose(fitted.mean(camera), known.mean(0), atol=1e-7)
        np.testing.assert_allclose(fitted.deviation(camera), known.std(0), atol=1e-6)


def test_cameras_of_few_rows_are_drawn_towards_all() -> None:
    rows, cameras = rows_of(2, 300)
    fitted = CameraStatistics.fit(np.concatenate([rows, rows[:10]]), [*cameras, *["rare"] * 10])
    own = rows[:10].astype(np.float64).mean(0)
    np.testing.assert_allclose(fitted.mean("rare"), (own + fitted.mean()) / 2, atol=1e-7)


@given(st.integers(0, 2**31), st.lists(st.integers(1, 40), min_size=1, max_size=5), st.randoms())
@settings(deadline=None, max_examples=40)
def test_blocks_in_any_order_give_the_same_to_the_last_bit(seed: int, sizes: list[int], random) -> None:
    rows, cameras = rows_of(seed, sum(sizes) + 4)
    rows[:3], cameras[:3] = rows[3], ["cam0", "cam1", "cam2"]
    order = list(range(len(rows)))
    random.shuffle(order)
    cuts = np.split(np.array(order), np.cumsum(sizes))
    blocks = [(rows[cut], [cameras[row] for row in cut]) for cut in cuts]
    assert same(CameraStatistics.of_blocks(blocks), CameraStatistics.fit(rows, cameras))


@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 60))
@settings(deadline=None, max_examples=40)
def test_without_rows_it_is_what_a_fit_to_the_others_is_to_the_last_bit(seed: int, kept: int, erased: int) -> None:
    rows, cameras = rows_of(seed, kept + erased)
    cameras[0] = "cam0"
    whole = CameraStatistics.fit(rows, cameras)
    left = CameraStatistics.fit(rows[:kept], cameras[:kept])
    assert same(whole.without(rows[kept:], cameras[kept:]), left)
    assert same(left.with_rows(rows[kept:], cameras[kept:]), whole)


def same(one: CameraStatistics, other: CameraStatistics) -> bool:
    return one.cameras == other.cameras and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("counts", "sums", "squares")
    )


def test_what_was_never_there_cannot_be_taken_away() -> None:
    rows, cameras = rows_of(3, 40)
    fitted = CameraStatistics.fit(rows, cameras)
    for given_rows, names in ((rows[:1], ["another"]), (np.repeat(rows, 9, axis=0), cameras * 9)):
        with pytest.raises(ValueError, match="that the statistics do not hold"):
            fitted.without(given_rows, names)
    with pytest.raises(ValueError, match="no row would be left"):
        fitted.without(rows, cameras)


def test_columns_that_never_vary_stay_silent() -> None:
    rows, cameras = rows_of(4, 80)
    rows = np.concatenate([rows, np.zeros((80, 2), np.float32)], axis=1)
    rows[0, 5] = 1e-6  # a unit that is all but dead
    normalized = CameraStatistics.fit(rows, cameras).apply(rows, cameras)
    assert np.abs(normalized[:, 5:]).max() < 1e-4
    alike = np.ones((5, 3))
    assert np.abs(CameraStatistics.fit(alike, [1] * 5).apply(alike, [1] * 5)).max() < 1e-6


@pytest.mark.parametrize(
    ("rows", "cameras", "says"),
    [
        (np.ones((2, 3)), [1], "a camera for each of 2 descriptors, got 1"),
        (np.ones((2, 3)), [None, None], "expected descriptors of known cameras, got none"),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), [1, 1], "descriptor 1 holds NaN"),
        (np.ones(3), [1, 1, 1], r"expected N×D descriptors, got shape \(3,\)"),
    ],
)
def test_what_cannot_be_fitted_is_refused(rows: np.ndarray, cameras: list, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CameraStatistics.fit(rows, cameras)


def test_descriptors_of_another_width_are_refused() -> None:
    fitted = CameraStatistics.fit(*rows_of(5, 20))
    with pytest.raises(ValueError, match="expected N×5 descriptors, got shape"):
        fitted.apply(np.ones((2, 4)), [1, 1])


# ---- files -----------------------------------------------------------------------------------------------


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    fitted = CameraStatistics.fit(*rows_of(6, 30), MADE_BY)
    read = CameraStatistics.load(fitted.save(tmp_path / "cameras.safetensors"))
    assert same(read, fitted)
    assert read.made_by == MADE_BY
    read.check(MADE_BY)


def test_statistics_of_other_descriptors_are_refused() -> None:
    fitted = CameraStatistics.fit(*rows_of(6, 30), MADE_BY)
    for other, says in (
        (MadeBy("a" * 64, True), "fingerprint: expected aaaaaaaaaaaa, got ffffffffffff"),
        (MadeBy("f" * 64, False), "flip: expected False, got True"),
        (MadeBy("f" * 64, True, "d" * 64), "projection: expected dddddddddddd, got None"),
    ):
        with pytest.raises(CameraStatisticsError, match=says):
            fitted.check(other)
    with pytest.raises(CameraStatisticsError, match="do not say what descriptors they are of"):
        CameraStatistics.fit(*rows_of(6, 30)).check(MADE_BY)


def test_files_that_hold_no_statistics_are_refused(tmp_path: Path) -> None:
    path = CameraStatistics.fit(*rows_of(6, 30), MADE_BY).save(tmp_path / "good.safetensors")
    whole = path.read_bytes()
    good = {name: np.array(value) for name, value in safetensors.numpy.load(whole).items()}
    about = {"format": "reprism camera statistics", "version": 1, "cameras": ["a", "b", "c"], "made_by": None}

    def written(tensors: dict[str, np.ndarray], about: object) -> bytes:
        return safetensors.numpy.save(tensors, {"reprism": json.dumps(about)})

    bad = {
        "cut off": whole[:-8],
        "text": b"cameras",
        "other tensors": safetensors.numpy.save({"x": np.ones(2)}),
        "newer": written(good, about | {"version": 2}),
        "cameras": written(good, about | {"cameras": ["a", "b"]}),
        "twice": written(good, about | {"cameras": ["a", "b", "b"]}),
        "floats": written(good | {"sums": good["sums"].astype(float)}, about),
        "widths": written(good | {"sums": good["sums"][:, :2]}, about),
        "negative": written(good | {"counts": -good["counts"]}, about),
        "a list": written(good, [1]),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CameraStatisticsError, match="holds no statistics of cameras"):
            CameraStatistics.load(tmp_path / name)
    with pytest.raises(CameraStatisticsError, match="absent holds no statistics"):
        CameraStatistics.load(tmp_path / "absent")
    assert reprism.CameraStatistics is CameraStatistics


# ---- data sets -------------------------------------------------------------------------------------------


def items_of(pids: list[int], camids: list[int | None], side: str) -> list[Sample]:
    return [Sample(Path(f"{side}{n}.jpg"), pid, camid) for n, (pid, camid) in enumerate(zip(pids, camids, strict=True))]


def test_an_evaluation_is_fitted_to_each_image_once_and_to_no_junk() -> None:
    rows, _ = rows_of(7, 12)
    query, gallery = items_of([1, 2], [1, 2], "q"), items_of([1, 2, JUNK, 0, 1, 2], [1, 2, 1, 2, 2, 1], "g")
    both = [*gallery, query[0]]
    found = statistics_of_items(rows[:2], np.concatenate([rows[2:8], rows[:1]]), query, both)
    kept = [0, 1, 2, 3, 5, 6, 7]
    assert same(found, CameraStatistics.fit(rows[kept], [1, 2, 1, 2, 2, 2, 1]))


def test_a_data_set_without_cameras_is_refused() -> None:
    query, gallery = tuple(items_of([1], [None], "q")), tuple(items_of([1], [None], "g"))
    with pytest.raises(ValueError, match=r"cameras, which are unknown in some in root.*column camid"):
        require_cameras(ReIDDataset("some", Path("root"), (), query, gallery))
