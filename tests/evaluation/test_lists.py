"""Ranked lists against a full sort, and which queries are chosen to be shown."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.data import open_dataset
from reprism.data.records import Sample
from reprism.evaluation.lists import hardest, most_different, ranked_lists
from reprism.evaluation.ranking import evaluate


def samples(pids, camids, path="none.png"):
    return [Sample(path, pid, camid) for pid, camid in zip(pids, camids, strict=True)]


def brute_force(query, gallery, query_items, gallery_items, place, k):
    """The definition: sort all that is left of the gallery by distance, then by place."""
    one = query_items[place]
    kept = [
        (float(np.sqrt(((gallery[j] - query[place]) ** 2).sum())), j)
        for j, other in enumerate(gallery_items)
        if one.camid is None or (other.pid, other.camid) != (one.pid, one.camid)
    ]
    return sorted(kept)[:k]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 40),
    k=st.integers(1, 12),
    block_bytes=st.sampled_from([1, 300, 2**20]),
    cameras=st.booleans(),
)
def test_lists_are_those_of_a_full_sort(seed, size, k, block_bytes, cameras):
    rng = np.random.default_rng(seed)
    # Small integers: distances are exact, and ties abound.
    query, gallery = (rng.integers(0, 3, (rows, 2)).astype(np.float32) for rows in (5, size))
    query_items = samples(rng.integers(0, 3, 5).tolist(), rng.integers(0, 2, 5).tolist() if cameras else [None] * 5)
    gallery_items = samples(
        rng.integers(0, 3, size).tolist(), rng.integers(0, 2, size).tolist() if cameras else [None] * size
    )
    lists = ranked_lists(query, gallery, query_items, gallery_items, k=k, block_bytes=block_bytes)
    for place, got in enumerate(lists):
        want = brute_force(query, gallery, query_items, gallery_items, place, k)
        assert got.query == place
        assert got.gallery.tolist() == [j for _, j in want]
        assert got.distances.tolist() == pytest.approx([distance for distance, _ in want])
        assert got.correct.tolist() == [gallery_items[j].pid == query_items[place].pid for _, j in want]


def test_the_first_right_image_stands_where_evaluate_counts_it():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(20, 8)), rng.normal(size=(200, 8))
    ids = [rng.integers(0, 5, n).tolist() for n in (20, 200, 20, 200)]
    metrics = evaluate(query, gallery, *ids)
    lists = ranked_lists(query, gallery, samples(ids[0], ids[2]), samples(ids[1], ids[3]), k=200)
    assert [1 + one.correct.tolist().index(True) for one in lists] == metrics.first_match_rank.tolist()


def test_chosen_queries_come_in_the_order_wanted_and_again_if_wanted_again():
    query, gallery = np.eye(3), np.eye(3)
    people = samples([1, 2, 3], [1, 1, 1])
    lists = ranked_lists(query, gallery, people, samples([1, 2, 3], [2, 2, 2]), [2, 0, 2], k=1)
    assert [(one.query, one.gallery.tolist()) for one in lists] == [(2, [2]), (0, [0]), (2, [2])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"chosen": [2]}, "query 2 was chosen, but there are 2"),
        ({"chosen": [-1]}, "query -1"),
        ({"gallery": np.ones((3, 5))}, "4 wide and gallery descriptors 5"),
        ({"gallery": np.ones((2, 4))}, "gallery has 3 items but descriptors 2×4"),
        ({"gallery": np.full((3, 4), np.nan)}, "rows 0 to 2 is not finite"),
        ({"query": np.full((2, 4), np.inf)}, "query descriptor is not finite"),
    ],
)
def test_wrong_input_is_named(change, message):
    arguments = {
        "query": np.ones((2, 4)),
        "gallery": np.ones((3, 4)),
        "query_items": samples([1, 2], [1, 1]),
        "gallery_items": samples([1, 2, 3], [2, 2, 2]),
    }
    with pytest.raises(ValueError, match=message):
        ranked_lists(**{**arguments, **change})


# ---- the drawing ---------------------------------------------------------------------------------------------------


def test_junk_is_in_no_list(people) -> None:
    data = open_dataset("market1501", people)
    gallery = [
        type(item)(item.path, -1 if place < 5 else item.pid, item.camid) for place, item in enumerate(data.gallery)
    ]
    rows = np.arange(len(gallery), dtype=float)[:, None]
    (found,) = ranked_lists(np.array([[0.0]]), rows, data.query[:1], gallery, k=4)
    assert found.gallery.min() >= 5


def metrics(*precisions: float) -> SimpleNamespace:
    values = np.array(precisions)
    return SimpleNamespace(average_precision=values, num_valid_queries=int(np.isfinite(values).sum()))


def test_the_hardest_queries_are_those_of_least_precision_and_no_lost_ones() -> None:
    assert hardest(metrics(0.5, np.nan, 0.1, 0.9), 2) == [2, 0]
    assert hardest(metrics(0.5, np.nan, 0.1, 0.9), 9) == [2, 0, 3]


def test_networks_differ_most_where_the_gap_is_widest() -> None:
    one, other = metrics(0.5, np.nan, 0.1, 0.9), metrics(0.6, 0.2, 0.9, 0.4)
    assert most_different(one, other, 9) == [2, 3, 0]
