"""Crowded rows, far from the origin and close together: ranked as float64 ranks them; and the warning of collapse."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reprism
from reprism.data.records import Sample
from reprism.evaluation.calibration import calibrate
from reprism.evaluation.crowding import centered, warn_of_collapse
from reprism.evaluation.distances import AllPairsDistances, EuclideanDistances
from reprism.evaluation.items import evaluate_items
from reprism.evaluation.ranking import evaluate
from reprism.evaluation.reranking import average_query_expansion, rerank

pytestmark = pytest.mark.filterwarnings("ignore:the descriptors have collapsed")


def crowded(seed, spread, queries=12, gallery=150, width=24, persons=8, length=1.0):
    """Rows of float32 about one point, closer for one person, and whose they are."""
    rng = np.random.default_rng(seed)
    point, centers = rng.normal(size=width), rng.normal(size=(persons, width))
    sides = []
    for count in (queries, gallery):
        pids = rng.integers(0, persons, count)
        rows = point + spread * (centers[pids] + 0.5 * rng.normal(size=(count, width)))
        sides.append(((length * rows).astype(np.float32), pids))
    return sides


def squared(a, b):
    return ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(2)


SPREADS = st.sampled_from([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0])
LENGTHS = st.sampled_from([1e-6, 1.0, 1e6, 1e17])


@given(st.integers(0, 2**32 - 1), SPREADS, LENGTHS, st.sampled_from([700, 5000, 2**28]))
@settings(max_examples=60)
def test_every_first_match_ranks_as_in_float64(seed, spread, length, block_bytes):
    (query, qp), (gallery, gp) = crowded(seed, spread, length=length)
    copies = query.copy(), gallery.copy()
    metrics = evaluate(query, gallery, qp, gp, None, None, block_bytes=block_bytes)
    exact = squared(query, gallery)
    for distances, pid, rank in zip(exact, qp, metrics.first_match_rank, strict=True):
        nearest = distances[gp == pid].min(initial=np.inf)
        # No rank is off but among distances within a hundred thousandth of each other.
        fewest, most = (1 + np.count_nonzero(distances < nearest * (1 + e)) for e in (-1e-5, 1e-5))
        assert fewest <= rank <= most or not (gp == pid).any()
    assert (query == copies[0]).all()
    assert (gallery == copies[1]).all()


@pytest.mark.parametrize("offset", [1.0, -300.0])
def test_mean_average_precision_is_that_of_float64(offset):
    rng = np.random.default_rng(0)
    centers, pids = rng.normal(size=(100, 128)), rng.integers(0, 100, 1200)
    rows = (offset * (1 + 1e-4 * (centers[pids] + 0.6 * rng.normal(size=(1200, 128))))).astype(np.float32)
    sides = rows[:200], rows[200:]
    labels = pids[:200], pids[200:], None, None
    want = evaluate(*(side.astype(float) - offset for side in sides), *labels).mAP
    assert want > 0.99
    assert evaluate(*sides, *labels).mAP == pytest.approx(want, abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 7, 1000, 100_000]), st.integers(1, 3))
@settings(max_examples=60)
def test_equal_distances_of_integers_stay_equal(seed, offset, high):
    """All differences of integers are exact, hence all ties: the centre is no fraction."""
    rng = np.random.default_rng(seed)
    query, gallery = (offset + rng.integers(0, high + 1, (n, 3)) for n in (5, 60))
    pids, gp = rng.integers(0, 5, 5), rng.integers(0, 5, 60)
    gp[:5] = range(5)
    metrics = evaluate(query.astype(np.float32), gallery.astype(np.float32), pids, gp, None, None)
    for row, pid, rank in zip(squared(query, gallery), pids, metrics.first_match_rank, strict=True):
        assert rank == 1 + np.flatnonzero(gp[np.argsort(row, kind="stable")] == pid)[0]


def test_equal_rows_rank_in_gallery_order():
    rows = np.full((40, 6), 3.3, np.float32)
    metrics = evaluate(rows[:1], rows, [7], [*range(39), 7], None, None)
    assert metrics.first_match_rank.tolist() == [8]  # of the two of 7, the first


@given(st.integers(0, 2**32 - 1), SPREADS, st.integers(1, 3))
@settings(max_examples=30)
def test_filled_distances_are_right_to_a_millionth_of_the_largest(seed, spread, runs):
    (query, _), (gallery, _) = crowded(seed, spread)
    q, g = torch.from_numpy(query), torch.from_numpy(gallery)
    out, rows = torch.empty(len(q), len(g)), np.arange(len(q))
    AllPairsDistances(q, g, runs, 2**20).fill(out, rows, 0, len(g))
    parts = [np.split(side, runs, axis=1) for side in (query, gallery)]
    want = sum(np.sqrt(squared(a, b)) for a in parts[0] for b in parts[1])
    np.testing.assert_allclose(out.numpy(), want, atol=2e-3 * want.max())  # roots of next to nothing are rough
    plain = EuclideanDistances(q, g, 2**20)
    plain.fill(out, rows, 0, len(g))
    want = squared(query, gallery)
    np.testing.assert_allclose(out + plain.query_norms[:, None], want, atol=1e-5 * want.max())


@given(st.integers(0, 2**32 - 1), SPREADS)
@settings(max_examples=20)
def test_reranking_and_query_expansion_are_those_of_float64(seed, spread):
    (query, _), (gallery, _) = crowded(seed, spread)
    point = gallery.mean(0, dtype=float)
    moved = query - point, gallery - point  # float64: what no rounding troubles
    np.testing.assert_allclose(rerank(query, gallery, 6, 3), rerank(*moved, 6, 3), atol=1e-4)
    wanted = np.argsort(squared(query, gallery), axis=1)[:, :4]
    mean = (query + gallery.astype(float)[wanted].sum(1)) / 5
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(average_query_expansion(query, gallery, 4), mean, atol=3e-7)


def test_a_calibration_counts_crowded_pairs_as_float64_does():
    (query, asked), (gallery, known) = crowded(0, 1e-4, queries=60)
    items = [[Sample(Path(), f"person {pid}", camid) for pid in pids] for camid, pids in enumerate((asked, known))]
    found = calibrate(query, gallery, *items, fmrs=(0.1, 0.01))
    distances, alike = np.sqrt(squared(query, gallery)), asked[:, None] == known
    assert found.points[0].tpr > 0.1
    for point in found.points:
        near = distances < point.threshold
        assert point.fmr == pytest.approx(near[~alike].mean(), abs=2 / (~alike).sum())
        assert point.tpr == pytest.approx(near[alike].mean(), abs=2 / alike.sum())


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.float32), (torch.float32, torch.bfloat16)])
def test_half_precision_is_centered_after_widening(dtypes):
    rows = 1 + torch.arange(60).reshape(20, 3) / 128
    sides = [rows.to(dtype) for dtype in dtypes]
    moved = centered(*sides)
    for side, center in zip(sides, moved, strict=True):
        assert center.dtype == torch.float32
        assert torch.equal(center - center[0], side.float() - side.float()[0])
    assert moved[1].abs().amax() < 1


def test_rows_about_the_origin_are_left_as_they_are():
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    assert centered(rows, rows) == (rows, rows)
    assert EuclideanDistances(rows, rows, 2**20).direct


def test_a_few_rows_far_away_hide_nothing():
    (query, qp), (gallery, gp) = crowded(1, 1e-4)
    gallery[[3, 70, 140]] *= -50
    gp[[3, 70, 140]] = 99
    metrics = evaluate(query, gallery, qp, gp, None, None)
    nearest = gp[np.argsort(squared(query, gallery), axis=1)[:, 0]]
    np.testing.assert_array_equal(metrics.first_match_rank == 1, nearest == qp)


def test_what_is_not_finite_is_found_among_crowded_rows():
    rows = torch.ones(400, 3)
    rows[77, 1] = torch.nan
    for query, gallery, name in ((rows, torch.ones(400, 3), "query"), (torch.ones(400, 3), rows, "gallery")):
        with pytest.raises(ValueError, match=f"{name} row 77 .* NaN"):
            evaluate(query, gallery, range(400), range(400), None, None)


def test_rows_whose_squares_would_overflow_are_ranked_if_they_are_close():
    gallery = 3e19 + torch.tensor([[0.0], [4e15], [8e15]])
    assert torch.isinf(gallery.square()).all()
    # A little beyond the middle row: the last one is its second nearest.
    assert evaluate(gallery[1:2] * 1.00001, gallery, [1], [0, 2, 1], None, None).first_match_rank.tolist() == [2]


# ---- the warning -----------------------------------------------------------------------------------------


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        call()
    return [str(each.message) for each in caught]


def test_collapsed_descriptors_are_named_once_an_evaluation():
    (query, qp), (gallery, gp) = crowded(0, 1e-3)
    items = [[Sample("x", int(pid), place % 2) for place, pid in enumerate(pids)] for pids in (qp, gp)]
    ways = {
        "plain": lambda: evaluate(query, gallery, qp, gp, None, None),
        "pairs": lambda: evaluate(query, gallery, qp, gp, None, None, all_pairs_segments=2),
        "reranked": lambda: evaluate_items(query, gallery, *items, rerank={}),
    }
    for name, way in ways.items():
        [message] = warned(way)
        assert "cosine above 0.995" in message, name
        assert "BGR" in message
    crowd = np.repeat(gallery, 5, axis=0)
    many = [[Sample("x", place, (place + side) % 2) for place in range(len(crowd))] for side in (0, 1)]
    assert len(warned(lambda: evaluate_items(crowd, crowd, *many, single_shot_trials=3))) == 1


def test_the_border_is_a_tenth_of_the_length():
    point = torch.zeros(40, 40)
    point[:, 0] = 1
    for distance, messages in ((0.099, 1), (0.101, 0)):
        # All but the first as far from it as that; it is the nearest to the mean.
        rows = point + distance * torch.nn.functional.pad(torch.eye(39), (1, 0, 1, 0))
        assert len(warned(lambda rows=rows: warn_of_collapse(rows))) == messages


def test_other_descriptors_are_not(people):
    data = reprism.open_dataset("market1501", people)
    for backbone in ("test_resnet", "mobilenetv3_small_050"):
        torch.manual_seed(0)
        model = reprism.build_model("p1+p2(s2c2)", backbone, pretrained=False, part_dim=32, size=(64, 32)).eval()
        embedder = reprism.Embedder(model, precision="fp32", device="cpu")
        rows = [embedder.embed_items(side) for side in (data.query, data.gallery)]
        assert len(rows[1]) >= 32
        assert not warned(lambda rows=rows: evaluate_items(*rows, data.query, data.gallery))
    rng = np.random.default_rng(0)
    assert not warned(
        lambda: evaluate(rng.normal(size=(9, 4)), rng.normal(size=(99, 4)), [1] * 9, [1] * 99, None, None)
    )
    few = np.ones((5, 4))
    assert not warned(lambda: evaluate(few, few, [1] * 5, [1] * 5, None, None))
