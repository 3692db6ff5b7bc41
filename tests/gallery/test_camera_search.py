"""A search by camera finds what normalizing every row by hand and sorting finds."""

import json
from pathlib import Path

import numpy as np
import pytest

import reprism
from reprism.cli import main
from reprism.embedding import DescriptorKind
from reprism.evaluation.camera_statistics import CameraStatistics, CameraStatisticsError
from reprism.gallery import camera_search
from reprism.gallery.filters import Filter
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery

KIND = DescriptorKind("ab" * 32, "p1(s2c1)", 24, True)


def entries_of(count: int) -> list[Entry]:
    """Rows of five cameras, each of which adds something of its own; some of unknown camera, some alike."""
    rng = np.random.default_rng(0)
    cameras = rng.integers(-1, 5, count)
    rows = rng.normal(size=(count, 24)) + 2 * np.random.default_rng(1).normal(size=(6, 24))[cameras]
    rows[count // 2 : count // 2 + 40] = rows[0]
    cameras[count // 2 : count // 2 + 40] = cameras[0]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return [
        Entry(f"k{i}", rows[i], f"/{i}.jpg", camid=None if cameras[i] < 0 else str(cameras[i]), source=f"s{i % 3}")
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return entries_of(700)


@pytest.fixture(scope="module")
def gallery(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    made = Gallery.create(tmp_path_factory.mktemp("galleries") / "g", KIND)
    made.add(entries)
    return made


@pytest.fixture(scope="module")
def statistics(entries: list[Entry]) -> CameraStatistics:
    return CameraStatistics.fit(np.stack([one.descriptor for one in entries]), [one.camid for one in entries])


def by_hand(entries: list[Entry], statistics: CameraStatistics, query: np.ndarray, camera: str | None, top: int):
    asked = statistics.apply(query[None], [camera])[0].astype(np.float64)
    rows = statistics.apply(np.stack([one.descriptor for one in entries]), [one.camid for one in entries])
    far = np.linalg.norm(rows - asked, axis=1)
    return sorted((distance, row_id(one.key)) for distance, one in zip(far, entries, strict=True))[:top]


def test_statistics_of_a_gallery_are_those_of_its_rows(gallery: Gallery, statistics: CameraStatistics) -> None:
    told = []
    found = CameraStatistics.of_gallery(gallery, lambda done, total: told.append((done, total)))
    assert found.cameras == statistics.cameras
    for name in ("counts", "sums", "squares"):
        np.testing.assert_array_equal(getattr(found, name), getattr(statistics, name))
    assert (found.made_by.fingerprint, found.made_by.flip) == (KIND.fingerprint, True)
    assert told[-1] == (700, 700)


@pytest.mark.parametrize("camera", ["2", None, "never seen"])
def test_a_search_finds_what_sorting_every_row_finds(entries, gallery, statistics, camera) -> None:
    fitted = CameraStatistics.of_gallery(gallery)
    queries = np.stack([entries[0].descriptor, entries[7].descriptor * 3])
    for top in (1, 5, 60, 1000):
        found = gallery.search_by_camera(queries, [camera] * 2, fitted, top)
        for query, matches in zip(queries, found, strict=True):
            want = by_hand(entries, statistics, query, camera, top)
            assert [match.rank for match in matches] == list(range(1, len(want) + 1))
            assert [match.id for match in matches] == [name for _, name in want]
            np.testing.assert_allclose([match.distance for match in matches], [far for far, _ in want], atol=1e-6)


def test_filters_leave_rows_out(entries, gallery, statistics) -> None:
    fitted = CameraStatistics.of_gallery(gallery)
    kept = [one for one in entries if one.source == "s1" and one.camid == "3"]
    [matches] = gallery.search_by_camera(entries[0].descriptor, ["1"], fitted, 20, Filter(cameras=("3",), source="s1"))
    want = by_hand(kept, statistics, entries[0].descriptor, "1", 20)
    assert [match.id for match in matches] == [name for _, name in want]


def test_an_index_proposes_and_normalized_distances_decide(gallery, entries, tmp_path, monkeypatch) -> None:
    fitted = CameraStatistics.of_gallery(gallery)
    queries = np.stack([one.descriptor for one in entries[:3]])
    exact = gallery.search_by_camera(queries, ["1", "2", None], fitted, 10)
    # All rows are proposed; then only the nearest 30 by descriptors as they are.
    monkeypatch.setattr(camera_search, "EXACT_ROWS", 10)
    monkeypatch.setattr(Gallery, "has_index", lambda self: True)
    monkeypatch.setattr(type(gallery.store), "has_index", lambda self: True)
    plain = gallery.search
    monkeypatch.setattr(
        camera_search,
        "search",
        lambda store, rows, top, where, *, shares, exact: plain(rows, top, where, shares=shares, exact=True),
    )
    whole = gallery.search_by_camera(queries, ["1", "2", None], fitted, 10)
    assert [[match.id for match in some] for some in whole] == [[match.id for match in some] for some in exact]
    monkeypatch.setattr(camera_search, "PROPOSED", 30)
    few = gallery.search_by_camera(queries, ["1", "2", None], fitted, 3)
    for query, camera, matches in zip(queries, ("1", "2", None), few, strict=True):
        near = {match.id for match in plain(query, 30)[0]}
        want = by_hand([one for one in entries if row_id(one.key) in near], fitted, query, camera, 3)
        assert [match.id for match in matches] == [name for _, name in want]


def test_statistics_of_another_model_are_refused(gallery: Gallery, statistics: CameraStatistics) -> None:
    query = np.ones(24, np.float32)
    with pytest.raises(CameraStatisticsError, match="do not say what descriptors"):
        gallery.search_by_camera(query, [None], statistics)
    with pytest.raises(ValueError, match="a camera for each of 1 descriptors, got 2"):
        gallery.search_by_camera(query, [None, None], CameraStatistics.of_gallery(gallery))
    with pytest.raises(ValueError, match="expected top of at least 1, got 0"):
        gallery.search_by_camera(query, [None], CameraStatistics.of_gallery(gallery), 0)


def test_the_command_searches_by_camera(people: Path, model_file: Path, tmp_path: Path, capsys) -> None:
    place = str(tmp_path / "g")
    index = ["index", str(people / "bounding_box_test"), "--naming", "market1501", "--model", str(model_file)]
    assert main([*index, "--gallery", place, "--precision", "fp32", "--device", "cpu"]) == 0
    picture = sorted((people / "query").glob("*.jpg"))[0]
    search = [
        "search",
        str(picture),
        "--gallery",
        place,
        "--json",
        "--top",
        "4",
        "--precision",
        "fp32",
        "--device",
        "cpu",
    ]
    capsys.readouterr()
    assert main([*search, "--camera-normalize", "--query-camera", "1"]) == 0
    [answer] = json.loads(capsys.readouterr().out)
    gallery = Gallery.open(place)
    rows = reprism.Embedder(model_file, precision="fp32", device="cpu").embed([picture])
    [want] = gallery.search_by_camera(rows, ["1"], CameraStatistics.of_gallery(gallery), 4)
    assert [match["id"] for match in answer["matches"]] == [match.id for match in want]
    assert main([*search, "--camera-normalize", "--query-camera", "12"]) == 0
    assert "has no camera '12', so that the statistics of all are used; there are 1" in capsys.readouterr().err
    for options, says in (
        (["--query-camera", "1"], "--query-camera is for --camera-normalize"),
        (["--camera-normalize", "--rerank"], "--rerank is for descriptors as they are"),
        (["--camera-normalize", "--threshold", "1"], "--threshold is for descriptors as they are"),
    ):
        assert main([*search, *options]) == 1
        assert says in capsys.readouterr().err
