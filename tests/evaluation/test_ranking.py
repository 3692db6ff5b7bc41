import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from reprism.evaluation import counting, ranking
from reprism.evaluation.distances import part_distances
from reprism.evaluation.ranking import evaluate, evaluate_distances
from reprism.notation import Partition

COMMON = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def brute_force(distances, qp, gp, qc, gc, max_rank=50, lost="exclude"):
    """The definitions, one query at a time: sort what is left of the gallery, walk down the list."""
    step, trapezoid, inverse, first, hits = [], [], [], [], []
    for i, pid in enumerate(qp):
        kept = [j for j in range(len(gp)) if not (qc is not None and gp[j] == pid and gc[j] == qc[i])]
        kept.sort(key=lambda j: (distances[i][j], j))
        total = sum(gp[j] == pid for j in kept)
        first.append(0)
        if total == 0:
            step.append(math.nan), trapezoid.append(math.nan), inverse.append(math.nan), hits.append(None)
            continue
        found, of_step, area, last, old_recall, old_precision = 0, 0.0, 0.0, 0, 0.0, 1.0
        for position, j in enumerate(kept, start=1):
            if gp[j] == pid:
                found += 1
                of_step += found / position
                last = position
                first[-1] = first[-1] or position
            # The MATLAB code of Market-1501 (compute_AP.m), statement by statement.
            recall, precision = found / total, found / position
            area += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        step.append(of_step / total), trapezoid.append(area), inverse.append(total / last)
        hits.append([first[-1] <= k for k in range(1, max_rank + 1)])
    valid = [i for i in range(len(qp)) if first[i]]
    over = len(valid) if lost == "exclude" else len(qp)
    return SimpleNamespace(
        step=step,
        trapezoid=trapezoid,
        first=first,
        mAP_step=sum(step[i] for i in valid) / over if valid else None,
        mAP_trapezoid=sum(trapezoid[i] for i in valid) / over if valid else None,
        mINP=sum(inverse[i] for i in valid) / over if valid else None,
        cmc=[sum(hits[i][k] for i in valid) / over for k in range(max_rank)] if valid else None,
        lost=tuple(i for i in range(len(qp)) if not first[i]),
        num_valid=len(valid),
    )


def assert_agrees(got, want):
    assert got.first_match_rank.tolist() == want.first
    assert got.lost_queries == want.lost
    assert (got.num_queries, got.num_valid_queries) == (len(want.first), want.num_valid)
    np.testing.assert_allclose(got.average_precision_step, want.step, rtol=1e-12)
    np.testing.assert_allclose(got.average_precision_trapezoid, want.trapezoid, rtol=1e-12)
    np.testing.assert_allclose(got.average_precision, getattr(want, got.ap), rtol=1e-12)
    np.testing.assert_allclose(got.cmc, want.cmc, rtol=1e-12)
    assert got.mAP_step == pytest.approx(want.mAP_step, rel=1e-12)
    assert got.mAP_trapezoid == pytest.approx(want.mAP_trapezoid, rel=1e-12)
    assert got.mAP == pytest.approx(getattr(want, f"mAP_{got.ap}"), rel=1e-12)
    assert got.mINP == pytest.approx(want.mINP, rel=1e-12)
    assert [got.rank(k) for k in range(1, len(want.cmc) + 1)] == pytest.approx(want.cmc, rel=1e-12)


def squared_distances(query, gallery):
    q, g = np.asarray(query, dtype=float), np.asarray(gallery, dtype=float)
    return ((q[:, None] - g[None]) ** 2).sum(2)


@st.composite
def cases(draw):
    """Small integer descriptors: every product is exact, and ties are everywhere."""
    n, m, width = draw(st.integers(1, 12)), draw(st.integers(1, 40)), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    high = draw(st.sampled_from([1, 2, 4, 30]))
    pids, cameras = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    query, gallery = rng.integers(0, high + 1, (n, width)), rng.integers(0, high + 1, (m, width))
    qp, gp = rng.integers(-1, pids, n), rng.integers(-1, pids, m)
    if draw(st.booleans()):
        gp.sort()
    qc, gc = rng.integers(0, cameras, n), rng.integers(0, cameras, m)
    qp, gp, qc, gc = (x.tolist() for x in (qp, gp, qc, gc))
    if draw(st.booleans()):
        qp, gp, qc, gc = ([f"id {x}" for x in labels] for labels in (qp, gp, qc, gc))
    if draw(st.booleans()):
        qc = gc = None
    return query.astype(np.float32), gallery.astype(np.float32), qp, gp, qc, gc


OPTIONS = st.fixed_dictionaries(
    {
        "ap": st.sampled_from(["step", "trapezoid"]),
        "lost": st.sampled_from(["exclude", "zero"]),
        "max_rank": st.sampled_from([1, 3, 50]),
        # One value, a few rows, a few columns, everything at once.
        "block_bytes": st.sampled_from([1, 64, 700, 3000, 2**28]),
    }
)


@COMMON
@given(cases(), OPTIONS)
def test_agrees_with_the_definition(case, options):
    query, gallery, *labels = case
    distances = squared_distances(query, gallery)
    want = brute_force(distances, *labels, options["max_rank"], options["lost"])
    assume(want.num_valid)
    assert_agrees(evaluate(query, gallery, *labels, **options), want)
    assert_agrees(evaluate_distances(distances, *labels, **options), want)


@COMMON
@given(cases(), OPTIONS)
def test_queries_with_many_matches_are_sorted_instead(case, options):
    query, gallery, *labels = case
    want = brute_force(squared_distances(query, gallery), *labels, options["max_rank"], options["lost"])
    assume(want.num_valid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_SORT_ABOVE", 1)
        assert_agrees(evaluate(query, gallery, *labels, **options), want)


@COMMON
@given(cases(), OPTIONS, st.integers(1, 64))
def test_small_tiles_change_nothing(case, options, elements):
    query, gallery, *labels = case
    want = brute_force(squared_distances(query, gallery), *labels, options["max_rank"], options["lost"])
    assume(want.num_valid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_TILE_ELEMENTS", {"cpu": elements})
        assert_agrees(evaluate(query, gallery, *labels, **options), want)


@pytest.mark.parametrize("block_bytes", [20_000, 100_000, 2**28])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_larger_gallery_with_exact_distances(block_bytes, dtype):
    rng = np.random.default_rng(0)
    query, gallery = rng.integers(-8, 9, (70, 5)), rng.integers(-8, 9, (900, 5))
    labels = (
        rng.integers(0, 30, 70),
        rng.integers(-1, 30, 900),
        rng.integers(0, 4, 70),
        rng.integers(0, 4, 900),
    )
    want = brute_force(squared_distances(query, gallery), *labels)
    got = evaluate(
        torch.tensor(query, dtype=dtype), torch.tensor(gallery, dtype=dtype), *labels, block_bytes=block_bytes
    )
    assert_agrees(got, want)


# ---- by hand ----------------------------------------------------------------


def line(positions):
    return torch.tensor([[float(x)] for x in positions])


def test_worked_by_hand():
    # Matches at ranks 1 and 3 of 4.
    got = evaluate(line([0]), line([1, 2, 3, 4]), [7], [7, 1, 7, 1], None, None, max_rank=4)
    assert got.average_precision_step.tolist() == pytest.approx([(1 + 2 / 3) / 2])
    # At rank 1 the precision before is 1 by definition; before rank 3 it is 1/2.
    assert got.average_precision_trapezoid.tolist() == pytest.approx([((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2])
    assert got.mINP == pytest.approx(2 / 3)
    assert got.cmc.tolist() == [1, 1, 1, 1]
    assert got.cmc.dtype == np.float64


def test_a_first_match_at_rank_two():
    got = evaluate(line([0]), line([1, 2]), [7], [1, 7], None, None, max_rank=3, ap="trapezoid")
    assert got.mAP == pytest.approx((0 + 1 / 2) / 2)
    assert got.mAP_step == pytest.approx(1 / 2)
    assert got.cmc.tolist() == [0, 1, 1]


def test_same_identity_and_camera_is_ignored_not_wrong():
    # The nearest row is the query's own picture: it neither counts as a hit nor takes rank 1.
    args = line([0]), line([0, 1, 2]), ["a"], ["a", "a", "b"], ["c1"], ["c1", "c2", "c1"]
    assert evaluate(*args).rank(1) == 1
    assert evaluate(*args).mINP == 1
    assert evaluate(*args[:4], None, None).average_precision.tolist() == [1.0]


def test_lost_queries_are_listed_and_scored_as_asked():
    # Query 0 sees its identity under its own camera only, query 2 nowhere.
    args = line([0, 0, 0]), line([0, 1, 2]), [1, 2, 9], [1, 3, 2], [1, 1, 1], [1, 2, 2]
    excluded, zero = evaluate(*args), evaluate(*args, lost="zero")
    assert excluded.lost_queries == zero.lost_queries == (0, 2)
    assert excluded.num_queries == 3
    assert excluded.num_valid_queries == 1
    assert excluded.first_match_rank.tolist() == [0, 3, 0]
    assert np.isnan(excluded.average_precision).tolist() == [True, False, True]
    assert excluded.mAP == pytest.approx(1 / 3)
    assert zero.mAP == pytest.approx(1 / 9)
    assert (excluded.rank(3), zero.rank(3)) == (1, pytest.approx(1 / 3))
    assert (excluded.rank(2), zero.mINP) == (0, pytest.approx(1 / 9))


def test_equal_distances_rank_in_gallery_order():
    assert evaluate(line([0]), line([1, 1, 1]), [7], [7, 1, 1], None, None).first_match_rank.tolist() == [1]
    assert evaluate(line([0]), line([1, -1, 1]), [7], [1, 1, 7], None, None).first_match_rank.tolist() == [3]


def test_summary_is_json_and_names_its_protocol():
    got = evaluate(line([0]), line([1, 2]), [7], [1, 7], None, None, ap="trapezoid", max_rank=5)
    assert json.loads(json.dumps(got.as_dict())) == {
        "mAP": 0.25,
        "mINP": 0.5,
        "rank1": 0.0,
        "rank5": 1.0,
        "num_queries": 1,
        "num_valid_queries": 1,
        "num_lost_queries": 0,
        "ap": "trapezoid",
        "lost": "exclude",
        "trials": 1,
    }
    assert "mAP=0.25" in repr(got)


# ---- what may be given ------------------------------------------------------


def example(seed=3):
    rng = np.random.default_rng(seed)
    query, gallery = (rng.integers(-5, 6, (rows, 4)).astype(np.float32) for rows in (9, 50))
    labels = rng.integers(0, 5, 9), rng.integers(0, 5, 50), rng.integers(0, 3, 9), rng.integers(0, 3, 50)
    return query, gallery, labels, brute_force(squared_distances(query, gallery), *labels)


@pytest.mark.parametrize("block_bytes", [300, 2**28])
@pytest.mark.parametrize("gallery_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("query_dtype", [torch.float16, torch.float32, torch.float64])
def test_every_dtype(query_dtype, gallery_dtype, block_bytes):
    query, gallery, labels, want = example()
    q, g = torch.from_numpy(query).to(query_dtype), torch.from_numpy(gallery).to(gallery_dtype)
    assert_agrees(evaluate(q, g, *labels, block_bytes=block_bytes), want)


def test_half_precision_is_widened_not_computed_with():
    # 2048 + 1 does not exist in float16: squared norms in half precision would tie the two rows.
    query, gallery = torch.zeros(1, 2), torch.tensor([[45.0, 5.0], [45.0, 4.0]])
    got = evaluate(query.half(), gallery.half(), [1], [0, 1], None, None)
    assert got.first_match_rank.tolist() == [1]


def test_double_precision_stays_double():
    gallery = torch.tensor([[1 + 1e-12], [1.0]], dtype=torch.float64)
    assert evaluate(line([0]), gallery, [1], [0, 1], None, None).first_match_rank.tolist() == [1]
    assert evaluate(line([0]), gallery.float(), [1], [0, 1], None, None).first_match_rank.tolist() == [2]


@pytest.mark.parametrize("block_bytes", [300, 2**28])
def test_memory_mapped_arrays(tmp_path, block_bytes, recwarn):
    query, gallery, labels, want = example()
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    assert_agrees(evaluate(query, mapped, *labels, block_bytes=block_bytes), want)
    np.save(tmp_path / "distances.npy", squared_distances(query, gallery).astype(np.float32))
    mapped = np.load(tmp_path / "distances.npy", mmap_mode="r")
    assert_agrees(evaluate_distances(mapped, *labels, block_bytes=block_bytes), want)
    assert not recwarn.list


def test_any_layout_and_byte_order():
    query, gallery, labels, want = example()
    wide = torch.zeros(50, 8)
    wide[:, ::2] = torch.from_numpy(gallery)
    for other in (
        np.asfortranarray(gallery),
        gallery.astype(">f4"),
        np.ascontiguousarray(gallery[::-1])[::-1],
        wide[:, ::2],
        torch.from_numpy(gallery).requires_grad_(),
    ):
        assert_agrees(evaluate(query, other, *labels), want)


def test_labels_may_be_lists_arrays_or_tensors():
    query, gallery, (qp, gp, qc, gc), want = example()
    assert_agrees(evaluate(query, gallery, torch.tensor(qp), gp.tolist(), list(qc), torch.tensor(gc)), want)
    assert_agrees(evaluate(query, gallery, list(torch.tensor(qp)), gp, qc.astype(np.int8), tuple(gc)), want)
    assert_agrees(evaluate(query, gallery, qp.astype(str), [str(p) for p in gp], qc, gc), want)
    assert_agrees(evaluate(query, gallery, [(p, "x") for p in qp], [(p, "x") for p in gp], qc, gc), want)


def test_the_callers_arrays_are_left_alone():
    query, gallery, labels, _ = example()
    distances = squared_distances(query, gallery).astype(np.float32)
    copies = query.copy(), gallery.copy(), distances.copy()
    evaluate(query, gallery, *labels)
    evaluate_distances(distances, *labels)
    for array, copy in zip((query, gallery, distances), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_autocast_does_not_coarsen_the_distances():
    query, gallery, labels, want = example()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_agrees(evaluate(query * 101, gallery * 101, *labels), want)


def test_negative_and_half_distances_rank_as_they_are():
    distances = torch.tensor([[-1.0, -3.0, 2.0]])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        got = evaluate_distances(distances.to(dtype), [1], [1, 0, 0], None, None)
        assert got.first_match_rank.tolist() == [2]


def test_progress_reaches_the_number_of_valid_queries():
    query, gallery, labels, want = example()
    seen = []
    evaluate(query, gallery, *labels, block_bytes=300, progress=lambda done, todo: seen.append((done, todo)))
    assert seen[-1] == (want.num_valid, want.num_valid)
    assert len(seen) > 1
    assert seen == sorted(seen)


# ---- what may not -----------------------------------------------------------

BASE = {
    "query": torch.ones(2, 3),
    "gallery": torch.ones(4, 3),
    "query_pids": [1, 2],
    "gallery_pids": [1, 2, 1, 2],
    "query_camids": [0, 0],
    "gallery_camids": [1, 1, 1, 1],
}


def spoilt(rows, row, value):
    x = torch.ones(rows, 3)
    x[row:, 1] = value
    return x


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gallery": torch.ones(4, 5)}, ValueError, "3 wide and gallery descriptors 5"),
        ({"query": torch.ones(0, 3)}, ValueError, r"query has shape \(0, 3\)"),
        ({"gallery": np.ones((0, 3), np.float32)}, ValueError, r"gallery has shape \(0, 3\)"),
        ({"query": torch.ones(3)}, ValueError, r"query has shape \(3,\): expected two dimensions"),
        ({"query": torch.ones(2, 3, dtype=torch.int64)}, TypeError, "query is a Tensor of torch.int64"),
        ({"gallery": np.ones((4, 3), int)}, TypeError, "gallery is a ndarray of int64"),
        ({"gallery": [[1.0] * 3] * 4}, TypeError, "gallery is a list"),
        ({"query_pids": [1]}, ValueError, "query_pids has 1 labels for 2 rows"),
        ({"gallery_pids": np.ones(5)}, ValueError, "gallery_pids has 5 labels for 4 rows"),
        ({"query_camids": [1, 2, 3]}, ValueError, "query_camids has 3 labels for 2 rows"),
        ({"gallery_camids": []}, ValueError, "gallery_camids has 0 labels for 4 rows"),
        ({"query_pids": np.array(3)}, ValueError, "query_pids has the single value 3"),
        ({"query_pids": np.ones((2, 2), int)}, TypeError, r"query_pids holds .* cannot be hashed .*\[1, 1\]"),
        ({"gallery_pids": [1, 2, math.nan, 1]}, ValueError, "gallery_pids holds None or NaN"),
        ({"query_camids": [None, 1]}, ValueError, "query_camids holds None or NaN"),
        ({"query_camids": None}, ValueError, "gallery_camids were given but not query_camids"),
        ({"gallery_camids": None}, ValueError, "query_camids were given but not gallery_camids"),
        ({"query": spoilt(2, 1, math.nan)}, ValueError, "query row 1 .* NaN or infinite"),
        ({"gallery": spoilt(4, 2, math.inf)}, ValueError, "gallery row 2 .* NaN or infinite"),
        ({"gallery": spoilt(4, 3, -math.inf).half()}, ValueError, "gallery row 3 .* NaN or infinite"),
        ({"gallery": spoilt(4, 3, 1e30)}, ValueError, "gallery row 3 is too long"),
        ({"query_pids": ["1", "2"]}, ValueError, "no valid query: none of the 2 .*'1'.* 1"),
        ({"gallery_camids": [0] * 4}, ValueError, "under another camera"),
        ({"ap": "area"}, ValueError, "ap='area' is unknown: choose 'step' or 'trapezoid'"),
        ({"lost": "drop"}, ValueError, "lost='drop' is unknown: choose 'exclude' or 'zero'"),
        ({"max_rank": 0}, ValueError, "max_rank=0"),
        ({"max_rank": 2.5}, ValueError, "max_rank=2.5"),
        ({"block_bytes": 0}, ValueError, "block_bytes=0"),
    ],
)
def test_errors_name_what_was_given(change, error, message, monkeypatch):
    monkeypatch.setattr(ranking, "ranks_of_matches", lambda *_: pytest.fail("the ranking had begun"))
    with pytest.raises(error, match=message):
        evaluate(**{**BASE, **change})


def test_errors_of_given_distances():
    labels = [1, 2], [1, 2, 1], None, None
    with pytest.raises(ValueError, match=r"distances row 1 .* NaN or infinite"):
        evaluate_distances(torch.tensor([[1.0, 2, 3], [1, math.nan, math.inf]]), *labels)
    with pytest.raises(ValueError, match="gallery_pids has 3 labels for 4 rows"):
        evaluate_distances(torch.ones(2, 4), *labels)
    with pytest.raises(ValueError, match="ap='x'"):
        evaluate_distances(torch.ones(2, 3), *labels, ap="x")
    with pytest.raises(ValueError, match="ranks count from 1"):
        evaluate_distances(torch.ones(2, 3), *labels).rank(0)


def test_a_row_just_short_enough_keeps_every_distance_finite():
    far = math.sqrt(torch.finfo(torch.float32).max) * 0.49
    got = evaluate(line([far]), line([-far, far]), [1], [1, 0], None, None)
    assert got.first_match_rank.tolist() == [2]
    with pytest.raises(ValueError, match="query row 0 is too long"):
        evaluate(line([far * 1.1]), line([-far, far]), [1], [1, 0], None, None)


# ---- memory -----------------------------------------------------------------

MEMORY = """
import resource, sys, torch
from reprism.evaluation.ranking import evaluate
n, m, d = 1000, 30000, 16
query, gallery = torch.randn(n, d), torch.randn(m, d)
labels = torch.arange(n) % 500, torch.arange(m) % 500, None, None
evaluate(query[:500], gallery[:500], labels[0][:500], labels[1][:500], None, None)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(query, gallery, *labels, block_bytes=16 * 2**20)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_memory_stays_far_below_the_full_matrix():
    used = int(subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout)
    assert used < 40 * 2**20  # the full matrix: 120 MB


@COMMON
@given(cases(), st.integers(1, 3))
def test_all_pairs_of_segments_sum_their_distances(case, segments):
    query, gallery, *labels = case
    rng = np.random.default_rng(segments)
    # R different descriptors a row; distances that are all different, so that rounding decides no rank.
    q, g = rng.normal(size=(len(query), segments, 5)), rng.normal(size=(len(gallery), segments, 5))
    distances = sum(
        np.sqrt(((q[:, None, i] - g[None, :, j]) ** 2).sum(2)) for i in range(segments) for j in range(segments)
    )
    want = brute_force(distances, *labels)
    assume(want.num_valid)
    wide = [x.reshape(len(x), -1) for x in (q, g)]
    assert_agrees(evaluate(*wide, *labels, all_pairs_segments=segments), want)
    assert_agrees(evaluate(*wide, *labels, all_pairs_segments=segments, block_bytes=4096), want)


def test_rows_that_are_not_so_many_segments_are_refused():
    with pytest.raises(ValueError, match="all_pairs_segments=2: rows of width 3"):
        evaluate(np.ones((1, 3)), np.ones((2, 3)), [1], [1, 2], None, None, all_pairs_segments=2)
    with pytest.raises(ValueError, match="all_pairs_segments=0"):
        evaluate(np.ones((1, 3)), np.ones((2, 3)), [1], [1, 2], None, None, all_pairs_segments=0)


def test_part_distances_sum_to_the_squared_distance_and_are_each_parts_own():
    rng = np.random.default_rng(0)
    partition = Partition.parse("p1+p2(s2c2)")
    query, gallery = rng.normal(size=(1, 6 * 5)), rng.normal(size=(4, 6 * 5))
    shares = part_distances(query[0], gallery, partition)
    np.testing.assert_allclose(shares.sum(1), squared_distances(query, gallery)[0])
    for place, part in enumerate(partition.parts):
        columns = partition.columns(part.name, 5)
        np.testing.assert_allclose(shares[:, place], squared_distances(query[:, columns], gallery[:, columns])[0])
    # Of tracklets: two segments side by side, a part has columns in both.
    segments = part_distances(np.tile(query, 2), np.tile(gallery, 2), partition, segments=2)
    np.testing.assert_allclose(segments, 2 * shares)
    with pytest.raises(ValueError, match="a multiple of the 6 parts"):
        part_distances(query, gallery[:, :29], partition)
