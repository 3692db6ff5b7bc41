import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reprism.evaluation import refined, rough
from reprism.evaluation.distances import EuclideanDistances
from reprism.evaluation.identities import Identities
from reprism.evaluation.ranking import evaluate
from reprism.evaluation.refined import RefinedDistances

WAYS = ("int8", "bf16", "int8 of two levels")  # the cheapest first


def exact_product(a, b):
    return (a.double() @ b.double()).to(torch.int32)


def all_products(gallery, longest):
    """Every way, whatever the processor: they are right everywhere, only slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rough, "fastest_precision", lambda _: "bf16")
        patch.setattr(rough, "_multiplies_int8", lambda: True)
        return list(rough.rough_products(gallery, longest))


@pytest.fixture(autouse=True, params=WAYS)
def way(request, monkeypatch):
    """Used at any width, on any processor."""
    monkeypatch.setattr(refined, "_FEWEST_COLUMNS", 1)
    monkeypatch.setattr(refined, "_WORTH_IT", 50.0)
    if not rough._multiplies_int8():
        # Other processors' products of 8 bits are not even right.
        monkeypatch.setattr(torch, "_int_mm", exact_product)
    place = WAYS.index(request.param)

    def one(gallery, longest):
        found = all_products(gallery, longest)  # of one column, bfloat16 alone
        return [found[min(place, len(found) - 1)]]

    monkeypatch.setattr(refined, "rough_products", one)
    return request.param


def refined_distances(plain):
    [product] = refined.rough_products(plain.gallery, refined.longest_of(plain))
    return RefinedDistances(plain, product, 2**28)


def people(seed, queries=24, gallery=1500, width=40, persons=9, spread=1.0):
    """Descriptors with identity structure, so crowded that bfloat16 alone gets ranks wrong."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(persons, width))
    sides = []
    for count in (queries, gallery):
        pids = rng.integers(0, persons, count)
        rows = centers[pids] + spread * rng.normal(size=(count, width))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        sides.append((torch.from_numpy(rows.astype(np.float32)), pids, rng.integers(0, 3, count)))
    return sides


def exact_average_precision(query, gallery):
    """By definition, in float64, one query after the other: nan where no match is left."""
    (q, qp, qc), (g, gp, gc) = query, gallery
    out = []
    for row, pid, cam in zip(q.double(), qp, qc, strict=True):
        kept = np.flatnonzero(~((gp == pid) & (gc == cam)))
        order = kept[np.argsort(((g.double()[kept] - row) ** 2).sum(1).numpy(), kind="stable")]
        ranks = 1 + np.flatnonzero(gp[order] == pid)
        out.append(np.mean(np.arange(1, len(ranks) + 1) / ranks) if len(ranks) else np.nan)
    return np.array(out)


@pytest.mark.parametrize("block_bytes", [2**28, 2**18])
@pytest.mark.parametrize("seed", range(8))
def test_ranks_as_the_definition_in_float64_does(seed, block_bytes, monkeypatch):
    used = []
    fill = RefinedDistances.fill_near
    monkeypatch.setattr(RefinedDistances, "fill_near", lambda *args: used.append(1) or fill(*args))
    query, gallery = people(seed)
    metrics = evaluate(query[0], gallery[0], query[1], gallery[1], query[2], gallery[2], block_bytes=block_bytes)
    np.testing.assert_allclose(metrics.average_precision, exact_average_precision(query, gallery), atol=1e-12)
    assert used
    assert len(used) > 1 or block_bytes > 2**20, "the gallery was to be cut"


def test_bfloat16_alone_would_rank_otherwise():
    query, gallery = people(0)
    rough = [(rows.bfloat16().float(), pids, cams) for rows, pids, cams in (query, gallery)]
    assert not np.allclose(exact_average_precision(*rough), exact_average_precision(query, gallery), equal_nan=True)


@given(st.integers(0, 10_000), st.sampled_from([1, 7, 40, 300]), st.sampled_from([1e-3, 1.0, 50.0]))
@settings(max_examples=40, deadline=None)
def test_every_distance_lies_on_its_side_of_every_match(seed, width, scale):
    query, gallery = people(seed, queries=6, gallery=60, width=width)
    q, g = query[0] * scale, gallery[0] * scale
    plain = EuclideanDistances(q, g, 2**28)
    assume(plain.center is None)
    distances = refined_distances(plain)
    matches = torch.from_numpy(np.random.default_rng(seed).integers(0, 60, (6, 4)))
    rows = np.repeat(np.arange(6), 4)
    at_matches = distances.of_matches(np.arange(6), rows, matches.numpy().ravel()).view(6, 4)
    out = torch.empty(6, 60)
    distances.fill_near(out, np.arange(6), 0, 60, at_matches)
    exact = g.double().square().sum(1) - 2 * q.double() @ g.double().T
    torch.testing.assert_close(at_matches.double(), exact.gather(1, matches), rtol=0, atol=1e-5 * scale**2)
    # Where float64 sees a difference beyond float32's rounding, the filled block sees the same sign.
    gap = exact[:, :, None] - exact.gather(1, matches)[:, None, :]
    clear = gap.abs() > 1e-5 * scale**2
    seen = (out[:, :, None] - at_matches[:, None, :]).sign()
    assert torch.equal(seen[clear].double(), gap.sign()[clear])


def test_rough_distances_stray_by_less_than_the_bound(way):
    query, gallery = people(3, queries=40, gallery=400, width=513)
    distances = refined_distances(EuclideanDistances(query[0], gallery[0], 2**28))
    exact = gallery[0].double().square().sum(1) - 2 * query[0].double() @ gallery[0].double().T
    distances.step = 150
    rows = torch.empty(40, 400)
    distances.fill(rows, np.arange(40), 0, 400)
    bounds = distances._bounds(query[0], exact.float(), distances.norms)
    error = (rows - exact).abs().amax(1)
    assert (error < bounds).all()
    useful = {"bf16": 0.05, "int8": 0.08, "int8 of two levels": 0.003}[way]
    assert (bounds < useful).all(), "a bound that wide would settle little"


# Each case: bfloat16 strays by nearly all that one term of the bound allows, and puts the stranger, the gallery's first
# row, on the wrong side of the match, its second. All other numbers are exact in bfloat16.
WIDTH = 1024  # of ones: a squared norm of 1024
# Both are ties that bfloat16 rounds down by 2⁻⁸, to 1 and to -(1 + 4·2⁻⁸): errors that add up in rows that do not.
ROUNDED = torch.tensor([1 + 2**-8, -(1 + 3 * 2**-8)]).repeat(WIDTH // 2)
ONES = torch.ones(WIDTH)


def signs(total, zeros=0):
    """A row of ones and minus ones, after so many zeros, with that sum."""
    minus = (WIDTH - zeros - total) // 2
    return torch.cat([torch.zeros(zeros), -torch.ones(minus), torch.ones(WIDTH - zeros - minus)])


def flipped(row, place):
    return torch.where(torch.arange(WIDTH) == place, -row, row)


BFLOAT16 = {
    # q·g is 4, in bfloat16 8; the match has 6: it is the nearer one.
    "the query is rounded": (ROUNDED, -ONES, flipped(-ONES, 0)),
    # ‖g‖² is 1040, q·g is 4, in bfloat16 8; the match has 1024 and -2: it is the nearer one.
    "the gallery is rounded": (-ONES, ROUNDED, signs(2)),
    # 2·q·g is 1028, in bfloat16 1024; the match has 1026, and a squared norm of 1023: it is the farther one.
    "the product is rounded": (ONES, signs(514), signs(513, zeros=1)),
}


def row(*first, rest, width=WIDTH):
    """A row that begins so; the rest are all one number, or as given."""
    tail = torch.as_tensor(rest, dtype=torch.float32)
    return torch.cat([torch.tensor([float(number) for number in first]), tail.expand(width - len(first))])


# A largest number of 127 makes the step 1, of which rounding leaves up to a half; one of 1 makes all of ±1 exact.
INT8 = {
    # q·g is -501, of integers 0; the match has -127: it is the nearer one.
    "the query is rounded": (row(127, rest=0.49), row(0, rest=-1), row(-1, rest=signs(0)[1:])),
    # q·g is -501, of integers 0; the match has about 0, and a squared norm of 17152 to 16375.
    "the gallery is rounded": (row(0, rest=-1), row(127, rest=0.49), row(127, rest=signs(2)[1:])),
}
FINE = 0.49 / 254  # which two levels take for nothing
TWO_LEVELS = {
    # q·g is -2, of integers 0; the match has -1: it is the nearer one.
    "the query is rounded": (row(127, rest=FINE), row(0, rest=-1), row(-1 / 127, rest=signs(2)[1:])),
    "the gallery is rounded": (row(0, rest=-1), row(127, rest=FINE), row(127, 1, rest=0)),
    # What two levels leave out: q·g is -158 by the finer integers alone, 0 without; the match has -127.
    "the finer integers are not multiplied": (
        row(0, 127, rest=100 / 254),
        row(127, 0, rest=-100 / 254),
        row(127, -1, rest=0),
    ),
}
HARD = {"bf16": BFLOAT16, "int8": INT8, "int8 of two levels": TWO_LEVELS}


@pytest.mark.parametrize(("way", "case"), [(way, case) for way in HARD for case in HARD[way]], indirect=["way"])
def test_no_term_of_the_bound_is_idle(way, case, monkeypatch):
    query, stranger, match = HARD[way][case]
    # Far away, and far from each other: what keeps the gallery from being a crowd.
    blocks = 1 - 2 * torch.eye(4).repeat_interleave(WIDTH // 4, dim=1)
    gallery = torch.stack([stranger, match, *(-query.sign() * blocks)])
    exact = ((gallery.double() - query.double()) ** 2).sum(1)
    settled = refined_distances(EuclideanDistances(query[None], gallery, 2**28))
    alone = torch.empty(1, len(gallery))
    settled.fill(alone, np.arange(1), 0, len(gallery))
    rough_stranger = alone[0, 0] + query.double().square().sum()
    assert (rough_stranger < exact[1]) != (exact[0] < exact[1]), "the rough product was to be wrong"
    used = []
    fill = RefinedDistances.fill_near
    monkeypatch.setattr(RefinedDistances, "fill_near", lambda *args: used.append(1) or fill(*args))
    metrics = evaluate(query[None], gallery, [1], [0, 1, 2, 2, 2, 2], None, None)
    assert metrics.first_match_rank.tolist() == [1 + int((exact < exact[1]).sum())]
    assert used


def test_identical_rows_rank_in_gallery_order():
    query, gallery = people(1, queries=8, gallery=50, width=64)
    rows = gallery[0].repeat(2, 1)
    # Every match has a twin of nobody's: before it in the one gallery, after it in the other.
    nobody = np.full(50, 99)
    after = evaluate(query[0], rows, query[1], np.concatenate([gallery[1], nobody]), None, None)
    before = evaluate(query[0], rows, query[1], np.concatenate([nobody, gallery[1]]), None, None)
    once = evaluate(query[0], gallery[0], query[1], gallery[1], None, None)
    np.testing.assert_array_equal(after.first_match_rank, 2 * once.first_match_rank - 1)
    np.testing.assert_array_equal(before.first_match_rank, 2 * once.first_match_rank)


def choice(q, g):
    labels = ((np.zeros(len(q)), None), (np.zeros(len(g)), None))
    plain = EuclideanDistances(q, g, 2**28)
    return type(RefinedDistances.where_faster(plain, Identities.of(*labels, len(q), len(g)), 2**28))


def test_where_too_much_lies_close_the_plain_product_is_taken(monkeypatch):
    monkeypatch.setattr(refined, "_WORTH_IT", 0.9)
    alike = torch.ones(1, 64).expand(40, 64).contiguous()
    assert choice(alike[:5], alike) is EuclideanDistances


@pytest.mark.parametrize(
    "change",
    [lambda x: x.double(), lambda x: x.half(), lambda x: x.T.contiguous().T, lambda x: x * 1e-8, lambda x: x * 1e8],
)
def test_what_it_cannot_do_is_left_to_the_plain_product(change):
    query, gallery = people(2)
    assert choice(query[0], gallery[0]) is RefinedDistances
    assert choice(change(query[0]), change(gallery[0])) is EuclideanDistances


@pytest.mark.parametrize(
    ("likeness", "strangers", "levels"),
    [
        pytest.param(0.9, 4000, 1, id="all far from the match"),
        pytest.param(0.0, 4000, 2, id="as many before the match as after it"),
        pytest.param(0.0, 1, None, id="all as near as the next one"),
    ],
)
def test_the_cheapest_way_that_settles_nearly_all_is_taken(likeness, strangers, levels, monkeypatch):
    monkeypatch.setattr(refined, "_WORTH_IT", 0.9)
    monkeypatch.setattr(refined, "rough_products", all_products)
    rng = torch.Generator().manual_seed(0)
    people, others, noise = (torch.randn(count, 1024, generator=rng) for count in (40, strangers, 40))
    twins = likeness * people + (1 - likeness**2) ** 0.5 * noise
    query, gallery = (
        torch.nn.functional.normalize(rows, dim=1)
        for rows in (people, torch.cat([twins, others.repeat(4000 // strangers, 1)]))
    )
    labels = (np.arange(40), None), (np.arange(4040), None)
    identities = Identities.of(*labels, 40, 4040)
    chosen = RefinedDistances.where_faster(EuclideanDistances(query, gallery, 2**28), identities, 2**28)
    assert getattr(getattr(chosen, "rough", None), "levels", None) == levels


def test_products_are_offered_where_the_processor_has_them(monkeypatch):
    gallery = people(0)[1][0]
    for bf16, int8, kinds in ((1, 1, 3), (1, 0, 1), (0, 1, 2), (0, 0, 0)):
        monkeypatch.setattr(rough, "fastest_precision", lambda _, bf16=bf16: "bf16" if bf16 else "fp32")
        monkeypatch.setattr(rough, "_multiplies_int8", lambda int8=int8: bool(int8))
        assert len(list(rough.rough_products(gallery, 1.0))) == kinds
    monkeypatch.setattr(rough, "_multiplies_int8", lambda: True)
    for columns in (1, 2**16 + 1):
        assert not list(rough.rough_products(torch.ones(1, columns), 1.0))


@pytest.mark.parametrize("spoiled", [lambda exact: exact.clamp(-(2**15), 2**15 - 1), lambda exact: exact + 1])
def test_a_product_that_is_wrong_is_not_trusted(spoiled, monkeypatch):
    """As oneDNN's is where it is told to do without VNNI."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch, "_int_mm", exact_product)
    assert rough._multiplies_int8.__wrapped__()
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: spoiled(exact_product(a, b)))
    assert not rough._multiplies_int8.__wrapped__()


def test_integers_add_up_without_overflow():
    """All of 127 in as many columns as are allowed: the largest sums that there are."""
    row = torch.full((2, 2**16), 0.5)
    [*_, two] = all_products(row, 128.0)
    out = torch.empty(2, 2)
    two.write(out, row, row, torch.zeros(2))
    torch.testing.assert_close(out, torch.full((2, 2), -(2.0**15)), rtol=1e-5, atol=0)
