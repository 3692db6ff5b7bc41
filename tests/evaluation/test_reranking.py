"""Re-ranking against the dense definition, statement by statement; nearest neighbours against sorting."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reprism
from reprism.evaluation.items import evaluate_items
from reprism.evaluation.neighbors import nearest
from reprism.evaluation.ranking import evaluate_distances
from reprism.evaluation.reranking import RerankedDistances, average_query_expansion, rerank

COMMON = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def squared(a, b):
    return ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(2)


def dense(query, gallery, k1, k2, weight):
    """Zhong et al. 2017, equations 3 to 12, with N×N matrices and Python sets."""
    rows = np.concatenate([query, gallery])
    count = len(rows)
    distance = squared(rows, rows)
    distance = distance / np.where(distance.max(1) > 0, distance.max(1), 1)[:, None]
    order = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in order[i, : k + 1].tolist() if i in order[j, : k + 1]}

    vectors = np.zeros((count, count))
    for i in range(count):
        own = reciprocal(i, k1)
        members = set(own)
        for j in own:
            other = reciprocal(j, int(np.around(k1 / 2)))
            if len(other & own) > 2 / 3 * len(other) + 1e-9:
                members |= other
        for j in members:
            vectors[i, j] = np.exp(-distance[i, j])
        vectors[i] /= vectors[i].sum() or 1
    if k2 > 1:
        vectors = np.stack([vectors[order[i, :k2]].mean(0) for i in range(count)])
    n = len(query)
    overlap = np.minimum(vectors[:n, None], vectors[None, n:]).sum(2)
    return (1 - overlap / (2 - overlap)) * (1 - weight) + distance[:n, n:] * weight


def clustered(seed, n, m, width=6, people=5):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(people, width))
    who = [rng.integers(0, people, size) for size in (n, m)]
    return *(centers[w] + 0.4 * rng.normal(size=(len(w), width)) for w in who), *who


@COMMON
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 30), st.integers(1, 12), st.integers(1, 7),
    st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([1, 3000, 2**28]),
)  # fmt: skip
def test_it_is_the_dense_definition(seed, n, m, k1, k2, weight, block_bytes) -> None:
    query, gallery, *_ = clustered(seed, n, m)
    found = rerank(query, gallery, k1, k2, weight, block_bytes=block_bytes)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, dense(query, gallery, k1, k2, weight), atol=1e-5)


@pytest.mark.parametrize("kind", ["float32", "torch", "bfloat16", "mapped"])
def test_at_the_usual_options_and_types(kind, tmp_path) -> None:
    query, gallery, *_ = clustered(3, 40, 160, width=32, people=12)
    query, gallery = query.astype(np.float32), gallery.astype(np.float32)
    given_ = query, gallery
    if kind == "torch":
        given_ = torch.from_numpy(query), torch.from_numpy(gallery)
    elif kind == "bfloat16":
        given_ = torch.from_numpy(query).bfloat16(), torch.from_numpy(gallery).bfloat16()
        query, gallery = (side.float().numpy() for side in given_)
    elif kind == "mapped":
        gallery.tofile(tmp_path / "gallery")
        given_ = query, np.memmap(tmp_path / "gallery", np.float32, "r", shape=gallery.shape)
    np.testing.assert_allclose(reprism.rerank(*given_), dense(query, gallery, 20, 6, 0.3), atol=1e-5)


def test_equal_rows_rank_in_order() -> None:
    rows = np.repeat(np.eye(3, 4), 4, axis=0)
    np.testing.assert_allclose(rerank(rows[::4], rows, 3, 2), dense(rows[::4], rows, 3, 2, 0.3), atol=1e-5)
    same = np.ones((3, 2))
    np.testing.assert_allclose(rerank(same, same, 2, 1), dense(same, same, 2, 1, 0.3), atol=1e-5)


def test_blocks_are_parts_of_the_whole() -> None:
    query, gallery, *_ = clustered(1, 9, 25)
    whole, blocks = rerank(query, gallery, 6, 3), RerankedDistances(query, gallery, 6, 3)
    out = torch.empty(3, 11)
    blocks.fill(out, np.array([7, 0, 2]), 8, 19)
    np.testing.assert_allclose(out.numpy(), whole[[7, 0, 2], 8:19], atol=1e-6)


def test_ranking_by_blocks_is_ranking_by_the_matrix() -> None:
    query, gallery, qp, gp = clustered(5, 20, 60, people=6)
    labels = {"query_pids": qp, "gallery_pids": gp, "query_camids": None, "gallery_camids": None}
    by_matrix = evaluate_distances(rerank(query, gallery, 8, 3), **labels)
    by_block = evaluate_distances(RerankedDistances(query, gallery, 8, 3), **labels, block_bytes=2000)
    np.testing.assert_array_equal(by_block.first_match_rank, by_matrix.first_match_rank)
    assert by_block.mAP == pytest.approx(by_matrix.mAP, abs=1e-9)
    plain = reprism.evaluate(query, gallery, *labels.values())
    assert by_block.mAP > plain.mAP, "neighbourhoods help where people form clusters"
    items = [[reprism.Sample("x", int(pid), None) for pid in pids] for pids in (qp, gp)]
    assert evaluate_items(query, gallery, *items, rerank={"k1": 8, "k2": 3}).mAP == pytest.approx(by_matrix.mAP)
    with pytest.raises(ValueError, match="re-ranking compares every item"):
        evaluate_items(query, gallery, *items, rerank={}, single_shot_trials=2)


def test_progress_reaches_all_rows() -> None:
    query, gallery, *_ = clustered(5, 20, 60)
    calls = []
    rerank(query, gallery, block_bytes=10_000, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (80, 80)
    assert len(calls) > 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"k1": 0}, "k1=0"),
        ({"k2": 0}, "k2=0"),
        ({"lambda_value": 1.5}, "lambda_value=1.5"),
        ({"gallery": np.ones((4, 3))}, "query rows are 2 wide and gallery rows 3"),
        ({"gallery": np.array([[1, 2], [np.nan, 0]])}, "gallery row 1 holds NaN"),
        ({"query": np.array([[np.inf, 2]])}, "query row 0 holds NaN or infinite"),
    ],
)
def test_what_cannot_be_reranked(change, says) -> None:
    arguments = {"query": np.ones((2, 2)), "gallery": np.ones((3, 2)), **change}
    with pytest.raises(ValueError, match=says):
        rerank(**arguments)


# --- neighbours and query expansion ---------------------------------------------------------------------------


@COMMON
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 9),
    st.integers(1, 40),
    st.integers(1, 5),
    st.sampled_from([1, 500, 2**20]),
)
def test_nearest_is_the_head_of_a_stable_sort(seed, n, m, high, block_bytes) -> None:
    """On small integers, where every product is exact and ties are everywhere."""
    rng = np.random.default_rng(seed)
    query, gallery = (rng.integers(0, high + 1, (size, 3)).astype(np.float32) for size in (n, m))
    k = int(rng.integers(1, m + 1))
    found = nearest(torch.from_numpy(query), torch.from_numpy(gallery), k, block_bytes)
    distance = squared(query, gallery)
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.rows.numpy(), order)
    np.testing.assert_array_equal(found.squared.numpy(), np.take_along_axis(distance, order, 1))
    np.testing.assert_array_equal(found.farthest.numpy(), distance.max(1))


def test_average_query_expansion_is_a_mean_of_length_one() -> None:
    query, gallery, *_ = clustered(2, 7, 30)
    found = average_query_expansion(query, gallery, 4)
    for row, expanded in zip(query, found, strict=True):
        near = np.argsort(((gallery - row) ** 2).sum(1))[:4]
        mean = np.concatenate([row[None], gallery[near]]).mean(0)
        np.testing.assert_allclose(expanded, mean / np.linalg.norm(mean))
    with pytest.raises(ValueError, match="k=31: expected a number from 1 to the 30"):
        average_query_expansion(query, gallery, 31)
    with pytest.raises(ValueError, match="ignored has 2 entries for 7 queries"):
        average_query_expansion(query, gallery, 3, ignored=[(), (1,)])
