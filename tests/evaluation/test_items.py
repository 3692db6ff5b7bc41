"""Items as labels; junk, averaged queries, single gallery shots."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprism.data.records import ReIDDataset, Sample, Tracklet
from reprism.evaluation.items import (
    average_boxes,
    average_queries,
    boxes_of_queries,
    evaluate_items,
    expand_queries,
    require_multi_query,
)

# On a line: the query at 0; its own camera's image at 1, a stranger at 2, the true match at 3.
POSITIONS = np.array([[1.0], [2.0], [3.0]], np.float32)
QUERY = np.array([[0.0]], np.float32)


def sample(pid: int | str, camid: int | str | None) -> Sample:
    return Sample(Path(f"{pid}_{camid}.jpg"), pid, camid)


def test_the_querys_own_camera_is_ignored() -> None:
    gallery = [sample("a", 1), sample("b", 1), sample("a", 2)]
    metrics = evaluate_items(QUERY, POSITIONS, [sample("a", 1)], gallery, max_rank=3)
    assert metrics.cmc.tolist() == [0, 1, 1]
    assert metrics.mAP == 0.5


def test_without_cameras_nothing_is_ignored() -> None:
    gallery = [sample("a", None), sample("b", None), sample("a", None)]
    metrics = evaluate_items(QUERY, POSITIONS, [sample("a", None)], gallery, ap="step")
    assert metrics.rank(1) == 1
    assert metrics.mAP == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_half_known_cameras_are_refused() -> None:
    gallery = [sample("a", 1), sample("b", None), sample("a", 2)]
    with pytest.raises(ValueError, match=r"b_None\.jpg"):
        evaluate_items(QUERY, POSITIONS, [sample("a", 1)], gallery)


def test_junk_is_ignored_wherever_it_ranks() -> None:
    gallery = [sample(-1, 2), sample("-1", 3), sample("a", 2)]
    metrics = evaluate_items(QUERY, POSITIONS, [sample("a", 1)], gallery, max_rank=3)
    assert metrics.cmc.tolist() == [0, 1, 1], "the integer -1 is junk, the string is somebody's name"


def test_rows_and_items_must_agree() -> None:
    with pytest.raises(ValueError, match="gallery has 3 descriptors for 2 items"):
        evaluate_items(QUERY, POSITIONS, [sample("a", 1)], [sample("a", 2), sample("b", 2)])


def test_tracklets_are_items() -> None:
    tracks = [Tracklet(Path("x"), ("1.jpg",), pid, camid) for pid, camid in ((-1, 1), (5, 2), (6, 1))]
    assert evaluate_items(QUERY, POSITIONS, [sample(6, 2)], tracks).first_match_rank.tolist() == [2]


def test_queries_of_one_person_and_camera_are_averaged() -> None:
    rows = np.array([[1, 0], [5, 5], [3, 4], [2, 2]], np.float32)
    items = [sample("a", 1), sample("b", 1), sample("a", 1), sample("a", 2)]
    means, first = average_queries(rows, items)
    assert means.tolist() == [[2, 2], [5, 5], [2, 2]]
    assert first == [items[0], items[1], items[3]]


@given(
    st.lists(st.tuples(st.sampled_from([-1, 0, 1, 2]), st.integers(1, 2)), min_size=1, max_size=12),
    st.booleans(), st.integers(1, 4), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_only_what_is_ranked_for_a_query_joins_it(labels, cameras, k, seed) -> None:
    rng = np.random.default_rng(seed)
    gallery = [Sample(Path(f"{n}.jpg"), pid, camid if cameras else None) for n, (pid, camid) in enumerate(labels)]
    query = [Sample(Path(name), pid, 1 if cameras else None) for name, pid in (("0.jpg", 1), ("q.jpg", 2))]
    rows, there = rng.normal(size=(2, 3)), rng.normal(size=(len(gallery), 3))
    ranked = [n for n, item in enumerate(gallery) if item.pid != -1]
    if k > len(ranked):
        with pytest.raises(ValueError, match=f"k={k}" if ranked else "none of them empty"):
            expand_queries(rows, there, query, gallery, k)
        return
    found = expand_queries(rows, there, query, gallery, k)
    for expanded, row, item in zip(found, rows, query, strict=True):
        joins = [n for n in ranked if gallery[n].path != item.path
                 and not (cameras and (gallery[n].pid, gallery[n].camid) == (item.pid, item.camid))]  # fmt: skip
        nearest = sorted(joins, key=lambda n: ((there[n] - row) ** 2).sum())[:k]
        mean = np.mean([row, *there[nearest]], axis=0)
        np.testing.assert_allclose(expanded, mean / np.linalg.norm(mean))


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2)), min_size=1, max_size=6),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_boxes_of_a_querys_person_and_camera_stand_for_it(queries, boxes, seed) -> None:
    rng = np.random.default_rng(seed)
    query, extra = (rng.normal(size=(len(who), 3)) for who in (queries, boxes))
    found = average_boxes(query, [sample(*who) for who in queries], extra, [sample(*who) for who in boxes])
    for row, who, own in zip(found.numpy(), queries, query, strict=True):
        same = [vector for vector, other in zip(extra, boxes, strict=True) if other == who]
        np.testing.assert_allclose(row, np.mean(same, axis=0) if same else own)


def test_multi_query_is_refused_where_there_is_nothing_to_average() -> None:
    def data(query, boxes=()) -> ReIDDataset:
        return ReIDDataset("mine", Path("people"), (), tuple(query), (sample("a", 3),), multi_query=tuple(boxes))

    alone = [sample("a", 1), sample("a", 2), sample("b", 1)]
    elsewhere = [sample("b", 2), sample("c", 1)]
    for dataset in (data(alone), data(alone, elsewhere)):
        with pytest.raises(ValueError, match=r"nothing to average: mine in people .* without --multi-query"):
            require_multi_query(dataset)
    require_multi_query(data([*alone, sample("a", 1)]))
    require_multi_query(data(alone, [*elsewhere, sample("b", 1)]))
    assert boxes_of_queries(data(alone, [*elsewhere, sample("b", 1)])) == [sample("b", 1)]


def single_shot_by_hand(query, gallery, asked, there, rng_choices):
    """One trial from the definition: rank of the match among one item of each identity."""
    ranks = []
    for q, who in enumerate(asked):
        rows = [rng_choices[who.camid][pid] for pid in rng_choices[who.camid]]
        match = rng_choices[who.camid].get(who.pid)
        if match is None:
            ranks.append(0)
            continue
        distance = ((gallery - query[q]) ** 2).sum(1)
        ranks.append(1 + sum(distance[row] < distance[match] for row in rows))
    return ranks


def test_single_gallery_shot() -> None:
    """Each trial's ranks are those of some choice of one item of each identity by the other cameras."""
    rng = np.random.default_rng(0)
    asked = [sample(pid, 1) for pid in (1, 1, 2, 3, 9)]
    there = [sample(pid, camid) for pid in (1, 2, 3, 4) for camid in (1, 2, 2, 3)]
    query, gallery = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(16, 4)).astype(np.float32)
    metrics = evaluate_items(query, gallery, asked, there, single_shot_trials=50, seed=4)
    assert (metrics.num_queries, metrics.num_valid_queries, metrics.lost_queries) == (5, 4, (4,))
    assert metrics.trials == 50
    ranks = metrics.first_match_rank.reshape(50, 5)
    np.testing.assert_allclose(metrics.average_precision_step.reshape(50, 5)[:, :4], 1 / ranks[:, :4])
    assert metrics.rank(1) == pytest.approx((ranks[:, :4] == 1).mean())
    assert metrics.mAP == pytest.approx((1 / ranks[:, :4]).mean())
    # All 3⁴ choices there are, and the ranks of each.
    options = {pid: [n for n, item in enumerate(there) if item.pid == pid and item.camid != 1] for pid in (1, 2, 3, 4)}
    possible = {
        tuple(single_shot_by_hand(query, gallery, asked, there, {1: dict(zip(options, choice, strict=True))}))
        for choice in itertools.product(*options.values())
    }
    drawn = {tuple(row) for row in ranks.tolist()}
    assert drawn <= possible
    assert len(drawn) > len(possible) / 3
    again = evaluate_items(query, gallery, asked, there, single_shot_trials=50, seed=4)
    np.testing.assert_array_equal(again.first_match_rank, metrics.first_match_rank)
    zero = evaluate_items(query, gallery, asked, there, single_shot_trials=50, seed=4, lost="zero")
    assert zero.mAP == pytest.approx(metrics.mAP * 4 / 5)


def test_single_gallery_shot_without_cameras_and_without_matches() -> None:
    gallery = [sample("a", None), sample("b", None), sample("a", None)]
    metrics = evaluate_items(QUERY, POSITIONS, [sample("a", None)], gallery, single_shot_trials=30)
    assert set(metrics.first_match_rank.tolist()) == {1, 2}
    with pytest.raises(ValueError, match="no valid query"):
        evaluate_items(QUERY, POSITIONS, [sample("z", None)], gallery, single_shot_trials=3)
