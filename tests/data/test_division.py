"""Identities set aside from the training ones, compared with what their definition asks for."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprism.data.check import lost_queries
from reprism.data.division import hold_out
from reprism.data.records import DataError, ReIDDataset, Sample, Tracklet

TEST = (Sample(Path("q.jpg"), 900, 1),), (Sample(Path("g.jpg"), 900, 2),)


def dataset_of(shots: list[tuple[int, int | None]]) -> ReIDDataset:
    train = tuple(Sample(Path(f"{index}.jpg"), pid, camid) for index, (pid, camid) in enumerate(shots))
    return ReIDDataset("mine", Path("root"), train, *TEST)


people = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=80)


@given(people, st.floats(0.01, 0.9), st.integers(0, 5))
def test_people_set_aside_are_whole_and_every_query_has_a_match(
    shots: list[tuple[int, int | None]], share: float, seed: int
) -> None:
    dataset = dataset_of(shots)
    identities = {item.pid for item in dataset.train}
    try:
        left, held = hold_out(dataset, share, seed)
    except DataError:
        # Only if none of some people can be found, or too few would be left.
        cameras = {pid: {camid for other, camid in shots if other == pid} for pid in identities}
        count = max(2, round(share * len(identities)))
        assert count >= len(identities) or sum(len(seen) < 2 for seen in cameras.values()) >= count
        return
    chosen = {item.pid for item in (*held.query, *held.gallery)}
    assert len(chosen) == max(2, round(share * len(identities)))
    assert {item.pid for item in left.train} == identities - chosen
    assert sorted((*left.train, *held.query, *held.gallery), key=str) == sorted(dataset.train, key=str)
    assert not lost_queries(held.query, held.gallery)
    # The test set has no part in it, and stays what it was.
    assert (left.query, left.gallery) == TEST
    assert 900 not in chosen
    assert hold_out(dataset, share, seed) == (left, held)


def test_without_cameras_any_other_image_is_a_match() -> None:
    left, held = hold_out(dataset_of([(pid, None) for pid in range(6) for _ in range(2)]), 0.5)
    assert len(held.query) == len(held.gallery) == 3
    assert len(left.train) == 6


def test_tracklets_are_set_aside_whole() -> None:
    train = tuple(
        Tracklet(Path("root"), (f"{pid}_{camid}.jpg",), pid, camid) for pid in range(4) for camid in (1, 2, 2)
    )
    _, held = hold_out(ReIDDataset("mine", Path("root"), train, *TEST), 0.5)
    assert all(isinstance(item, Tracklet) for item in (*held.query, *held.gallery))
    assert not lost_queries(held.query, held.gallery)


def test_too_few_people_are_refused() -> None:
    with pytest.raises(DataError, match="expected more than 2 training identities in root to set 2 aside, got 2"):
        hold_out(dataset_of([(1, 1), (1, 2), (2, 1)]), 0.5)
    with pytest.raises(DataError, match="different cameras"):
        hold_out(dataset_of([(pid, 1) for pid in range(8) for _ in range(2)]), 0.5)
