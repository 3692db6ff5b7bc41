"""A search finds what reading every row by the definition finds."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.embedding import DescriptorKind
from reprism.evaluation.reranking import rerank
from reprism.gallery import search as searching
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.search import Filter
from reprism.gallery.table import Gallery

KIND = DescriptorKind("ab" * 32, "p1(s2c1)", 24, True)
START = datetime(2024, 1, 1, tzinfo=UTC)
NASTY = ["a'b", "'; DROP TABLE rows; --", "\\", "\\'", '"', "%", "ü", "", " ", "\x00", "NULL", "''"]


def people(count, seed=0):
    """Rows with identities, cameras and times; some of each unknown, and some rows equal to others."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(40, 24))
    pids = rng.integers(0, 40, count)
    rows = (centers[pids] + 0.5 * rng.normal(size=(count, 24))).astype(np.float32)
    rows[count // 2 : count // 2 + 10] = rows[:10]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [
        Entry(
            f"k{i}",
            rows[i],
            f"/{i}.jpg",
            pid=None if i % 11 == 0 else str(pids[i]),
            camid=None if i % 7 == 0 else str(i % 5),
            time=None if i % 13 == 0 else START + timedelta(hours=i),
            tracklet=None if i % 3 == 0 else f"t{i % 50}",
            source="yard" if i % 2 else None,
        )
        for i in range(count)
    ]


def brute(entries, query, keep=lambda entry: True, group=None):
    """(distance, id) of every row that is kept, in order; of each group the first only."""
    query = query / np.linalg.norm(query)
    ranked = sorted(
        (float(np.linalg.norm(entry.descriptor.astype(np.float64) - query)), row_id(entry.key), entry)
        for entry in entries
        if keep(entry)
    )
    if group is not None:
        seen = set()
        ranked = [hit for hit in ranked if not ((name := group(hit[2])) in seen or seen.add(name))]
    return [(distance, row) for distance, row, _ in ranked]


def same(matches, want):
    assert [match.rank for match in matches] == list(range(1, len(want) + 1))
    assert [match.id for match in matches] == [row for _, row in want]
    np.testing.assert_allclose([match.distance for match in matches], [distance for distance, _ in want], atol=1e-5)


@pytest.fixture(scope="module")
def entries():
    return people(1500)


@pytest.fixture(scope="module")
def gallery(entries, tmp_path_factory):
    gallery = Gallery.create(tmp_path_factory.mktemp("search") / "g", KIND)
    for start in range(0, 1500, 400):
        gallery.add(entries[start : start + 400])
    return gallery


@pytest.mark.parametrize(("few", "block"), [(0, 2**25), (0, 2**13), (10, 2**25)])
def test_the_nearest_rows_in_order_with_ties_by_id(gallery, entries, few, block, monkeypatch):
    monkeypatch.setattr(searching, "_FEW_QUERIES", few)  # up to so many are looked for one by one
    monkeypatch.setattr("reprism.gallery.store._BLOCK", block)
    monkeypatch.setattr(searching, "_QUERIES", 3)
    queries = np.stack([entry.descriptor for entry in entries[:8]]) * 3  # of any length
    for top in (1, 20, 1500, 4000):
        for query, matches in zip(queries, gallery.search(queries, top=top), strict=True):
            same(matches, brute(entries, query)[:top])


@pytest.mark.parametrize("few", [0, 10])
def test_of_many_equal_rows_the_first_ids(tmp_path, few, monkeypatch):
    monkeypatch.setattr(searching, "_FEW_QUERIES", few)
    gallery = Gallery.create(tmp_path / "g", KIND)
    alike = np.eye(24, dtype=np.float32)[0]
    gallery.add([Entry(f"k{i}", alike, f"/{i}.jpg") for i in range(300)])
    [matches] = gallery.search(alike, top=5)
    assert [match.id for match in matches] == sorted(row_id(f"k{i}") for i in range(300))[:5]


@pytest.mark.parametrize("few", [0, 10])
def test_crowded_rows_rank_by_their_true_distances(tmp_path, few, monkeypatch):
    """As collapsed descriptors lie: a product's rounding is larger than the distances between them."""
    monkeypatch.setattr(searching, "_FEW_QUERIES", few)
    gallery = Gallery.create(tmp_path / "g", KIND)
    rows = (1 + 1e-5 * np.random.default_rng(0).normal(size=(400, 24))).astype(np.float32)
    gallery.add([Entry(f"k{i}", row, f"/{i}.jpg") for i, row in enumerate(rows)])
    ids = [row_id(f"k{i}") for i in range(400)]
    stored, queries = gallery.descriptors(ids).astype(float), searching.normalized(rows[:6], 24, "query")
    for query, matches in zip(queries, gallery.search(rows[:6], top=9), strict=True):
        distances = np.linalg.norm(stored - query, axis=1)
        want = sorted(zip(distances.tolist(), ids, strict=True))[:9]
        assert [match.id for match in matches] == [row for _, row in want]
        np.testing.assert_allclose([match.distance for match in matches], [far for far, _ in want], rtol=1e-6)


def test_one_descriptor_is_one_query_and_none_are_none(gallery, entries):
    assert len(gallery.search(entries[0].descriptor, top=3)) == 1
    assert gallery.search(np.zeros((0, 24), np.float32)) == []


def test_filters_come_before_the_search(gallery, entries):
    query = entries[3].descriptor
    after, before = START + timedelta(hours=100), START + timedelta(hours=900)
    for where, keep in (
        (Filter(cameras=("1", "2")), lambda e: e.camid in ("1", "2")),
        (Filter(not_cameras=("1", "2")), lambda e: e.camid not in ("1", "2")),
        (Filter(after=after, before=before), lambda e: e.time is not None and after <= e.time < before),
        (Filter(pids=("3", "4"), source="yard"), lambda e: e.pid in ("3", "4") and e.source == "yard"),
        (Filter(cameras=("nowhere",)), lambda e: False),
    ):
        same(gallery.search(query, top=30, where=where)[0], brute(entries, query, keep)[:30])


@pytest.mark.parametrize("by", ["pid", "tracklet"])
def test_a_group_is_stood_for_by_its_nearest_row(gallery, entries, by):
    def group(entry):
        if by == "pid":
            return entry.key if entry.pid is None else ("pid", entry.pid)
        return entry.key if entry.tracklet is None else ("t", entry.tracklet, entry.camid, entry.source)

    for top in (1, 10, 5000):
        for query in (entries[0].descriptor, entries[700].descriptor):
            same(gallery.search(query, top=top, group_by=by)[0], brute(entries, query, group=group)[:top])


def test_no_match_is_farther_than_the_threshold(gallery, entries):
    query = entries[1].descriptor
    want = [hit for hit in brute(entries, query) if hit[0] <= 0.7]
    assert 1 < len(want) < 1000
    same(gallery.search(query, top=1000, threshold=0.7)[0], want)
    assert gallery.search(query, top=5, threshold=0)[0][0].distance == 0


def test_shares_sum_to_the_squared_distance(gallery, entries):
    query = entries[2].descriptor
    for match in gallery.search(query, top=10)[0]:
        assert list(match.shares) == ["p1", "p1s1", "p1s2", "p1c1"]
        row = entries[int(match.key[1:])].descriptor
        np.testing.assert_allclose(match.shares["p1s2"], np.square(row - query)[12:18].sum(), atol=1e-6)
        np.testing.assert_allclose(sum(match.shares.values()), match.distance**2, atol=1e-6)
    assert gallery.search(query, top=1, shares=False)[0][0].shares is None


def test_reranking_orders_the_nearest_rows_anew(gallery, entries):
    query = entries[2].descriptor
    near = [row for _, row in brute(entries, query)[:100]]
    rows = {row_id(entry.key): entry.descriptor for entry in entries}
    distances = rerank(query[None], np.stack([rows[row] for row in near]))[0]
    matches = gallery.search(query, top=15, rerank=True)[0]
    order = np.argsort(distances, kind="stable")[:15]
    np.testing.assert_allclose([match.reranked for match in matches], distances[order], atol=1e-5)
    assert {match.id for match in matches[:5]} == {near[at] for at in order[:5]}
    assert matches[0].distance == 0


def test_the_index_finds_them_too_and_rows_added_since(tmp_path, entries, monkeypatch):
    monkeypatch.setattr("reprism.gallery.upkeep.EXACT_ROWS", 500)
    monkeypatch.setattr(searching, "EXACT_ROWS", 500)
    monkeypatch.setattr(searching, "FEW_ROWS", 50)
    gallery = Gallery.create(tmp_path / "g", KIND)
    gallery.add(entries[:1000])
    queries = np.stack([entry.descriptor for entry in entries[::50]])
    with pytest.raises(ValueError, match="no index"):
        gallery.search(queries[0], exact=False)
    gallery.optimize()
    assert gallery.index() == {"kind": "IVF_SQ", "indexed": 1000, "unindexed": 0}
    gallery.add(entries[1000:])
    assert gallery.index()["unindexed"] == 500

    def recall():
        found = gallery.search(queries, top=10)
        wants = [{row for _, row in brute(entries, query)[:10]} for query in queries]
        return np.mean([len(want & {m.id for m in some}) / 10 for want, some in zip(wants, found, strict=True)])

    assert recall() > 0.95
    gallery.optimize()
    assert gallery.index() == {"kind": "IVF_SQ", "indexed": 1500, "unindexed": 0}
    assert recall() > 0.95
    # Few rows pass the filter: they are read, and none is missing.
    where = Filter(pids=("3",))
    for exact in (None, False):
        found = gallery.search(queries[0], top=20, where=where, exact=exact)[0]
        same(found, brute(entries, queries[0], lambda e: e.pid == "3")[:20])
    same(gallery.search(queries[0], top=30, exact=True)[0], brute(entries, queries[0])[:30])


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_wide_descriptors_are_found_by_four_bits_a_column(tmp_path, monkeypatch, storage):
    monkeypatch.setattr("reprism.gallery.upkeep.EXACT_ROWS", 500)
    monkeypatch.setattr(searching, "EXACT_ROWS", 500)
    rng = np.random.default_rng(0)
    rows = (0.3 * rng.normal(size=(150, 256))[np.arange(3000) % 150] + rng.normal(size=(3000, 256))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    gallery = Gallery.create(tmp_path / "g", DescriptorKind("ab" * 32, "p1", 256, True), storage)
    gallery.add([Entry(f"k{i}", row, f"/{i}.jpg", camid=str(i % 3)) for i, row in enumerate(rows)])
    gallery.optimize()
    assert gallery.index() == {"kind": "IVF_RQ", "indexed": 3000, "unindexed": 0}
    for where, kept in ((Filter(), np.arange(3000)), (Filter(cameras=("1",)), np.arange(1, 3000, 3))):
        hits = 0
        for query, matches in zip(rows[:40], gallery.search(rows[:40], 10, where, exact=False), strict=True):
            order = kept[np.argsort(-(rows[kept] @ query), kind="stable")[:10]]
            hits += len({f"/{i}.jpg" for i in order} & {match.path for match in matches})
            np.testing.assert_allclose(
                matches[0].distance, np.linalg.norm(rows[order[0]] - query), atol=1e-5 if storage == "float32" else 1e-3
            )
        assert hits >= 0.98 * 400


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A gallery with an index; a person's rows are of one camera alone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("reprism.gallery.upkeep.EXACT_ROWS", 500)
        rng = np.random.default_rng(0)
        people = np.repeat(np.arange(50), 60)
        rows = (rng.normal(size=(50, 256))[people] + 0.5 * rng.normal(size=(3000, 256))).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        gallery = Gallery.create(tmp_path_factory.mktemp("crowd") / "g", DescriptorKind("ab" * 32, "p1", 256, True))
        entries = [
            Entry(f"k{i}", row, f"/{i}.jpg", camid=str(people[i] % 3), time=START + timedelta(minutes=7 * i % 3000))
            for i, row in enumerate(rows)
        ]
        gallery.add(entries)
        gallery.optimize()
    return gallery, entries


@pytest.mark.parametrize("share", [None, 0.01, 1.0], ids=["estimated", "rare", "common"])
@pytest.mark.parametrize(
    ("where", "keep"),
    [
        (
            Filter(after=START + timedelta(minutes=300)),
            lambda entry: entry.time >= START + timedelta(minutes=300),
        ),
        # Of the 60 rows that are nearest to the first person none passes, and of those of a third of the people.
        (Filter(not_cameras=("0",)), lambda entry: entry.camid != "0"),
        (Filter(cameras=("0", "2")), lambda entry: entry.camid in ("0", "2")),
        (Filter(cameras=("nowhere",)), lambda entry: False),
    ],
    ids=["most of the time", "those alike are left out", "two cameras", "none"],
)
def test_a_filter_finds_the_same_before_and_after_the_index(crowd, monkeypatch, where, keep, share):
    gallery, entries = crowd
    if share is not None:
        monkeypatch.setattr(Filter, "share_of", lambda self, rows: share)
    queries = np.stack([entry.descriptor for entry in entries[::300]])
    hits, asked = 0, 0
    for query, matches in zip(queries, gallery.search(queries, 10, where, exact=False), strict=True):
        want = {row for _, row in brute(entries, query, keep)[:10]}
        assert [match.rank for match in matches] == list(range(1, len(want) + 1))
        assert all(keep(entries[int(match.path[1:-4])]) for match in matches)
        hits += len(want & {match.id for match in matches})
        asked += len(want)
    assert hits >= 0.98 * asked


def test_a_common_filter_is_not_looked_up_row_by_row(crowd, monkeypatch):
    gallery, entries = crowd
    query, asked = np.ones(256, np.float32), []
    builder = type(gallery.store.table.search(query, vector_column_name="descriptor"))
    where = builder.where

    def spy(self, condition, prefilter=True):
        asked.append(prefilter)
        return where(self, condition, prefilter=prefilter)

    monkeypatch.setattr(builder, "where", spy)
    for hours, before in ((1, False), (25, False), (49.5, True)):  # of 50
        asked.clear()
        gallery.search(query, 10, Filter(after=START + timedelta(hours=hours)), exact=False)
        assert asked == [before]
    # Too few of those that the index proposes pass: they are all alike, and left out.
    asked.clear()
    monkeypatch.setattr(Filter, "share_of", lambda self, rows: 1.0)
    gallery.search(entries[0].descriptor, 10, Filter(not_cameras=("0",)), exact=False)
    assert asked == [False, True]


_texts = st.sampled_from(["1", "2", "3"])


@settings(max_examples=60, deadline=None)
@given(
    where=st.builds(
        Filter,
        cameras=st.lists(_texts, max_size=2).map(tuple),
        not_cameras=st.lists(_texts, max_size=2).map(tuple),
        after=st.none() | st.integers(0, 1500).map(lambda hours: START + timedelta(hours=hours)),
        before=st.none() | st.integers(0, 1500).map(lambda hours: START + timedelta(hours=hours)),
        pids=st.lists(_texts, max_size=2).map(tuple),
        source=st.none() | st.sampled_from(["yard", "hall"]),
    )
)
def test_the_estimate_of_a_filters_share_is_its_share_of_the_rows_looked_at(gallery, where):
    table = gallery.store.table
    rows = table.search().select(["camid", "time", "pid", "source"]).to_arrow()
    assert where.share_of(rows) == table.count_rows(where.sql()) / len(rows)
    assert where.share_of(rows.slice(0, 0)) == 0


@pytest.fixture(scope="module")
def nasty(tmp_path_factory):
    """A gallery whose names try to break out of a condition; and what is in it."""
    gallery = Gallery.create(tmp_path_factory.mktemp("nasty") / "g", DescriptorKind("ab" * 32, "p1", 4, True))
    rng = np.random.default_rng(0)
    rows = [
        Entry(
            f"{n}", rng.normal(size=4).astype(np.float32), "/x.jpg",
            pid=NASTY[n % 12], camid=NASTY[(n * 5) % 12], source=NASTY[(n * 7) % 12],
        )
        for n in range(60)
    ]  # fmt: skip
    gallery.add(rows)
    return gallery, rows


names = st.lists(st.sampled_from(NASTY) | st.text(max_size=5), max_size=3).map(tuple)


@given(names, names, names, st.none() | st.sampled_from(NASTY))
@settings(max_examples=60, deadline=None)
def test_a_filter_means_what_it_says_whatever_the_names(nasty, cameras, not_cameras, pids, source):
    gallery, rows = nasty
    where = Filter(cameras, not_cameras, pids=pids, source=source)
    want = {
        row_id(e.key)
        for e in rows
        if (not cameras or e.camid in cameras)
        and e.camid not in not_cameras
        and (not pids or e.pid in pids)
        and (source is None or e.source == source)
    }
    assert {row.id for row in gallery.rows(where)} == want
    assert {match.id for match in gallery.search(np.ones(4, np.float32), top=100, where=where)[0]} == want


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)))
@settings(max_examples=30, deadline=None)
def test_moments_compare_to_the_microsecond(tmp_path_factory, moment):
    moment = moment.replace(tzinfo=UTC)
    gallery = Gallery.create(tmp_path_factory.mktemp("time") / "g", DescriptorKind("ab" * 32, "p1", 4, True))
    gallery.add([Entry(str(n), np.ones(4, np.float32), "x", time=moment + timedelta(microseconds=n)) for n in (0, 1)])
    one = moment + timedelta(microseconds=1)
    assert [row.key for row in gallery.rows(Filter(after=one))] == ["1"]
    assert [row.key for row in gallery.rows(Filter(before=one))] == ["0"]


def test_bad_questions(gallery):
    query = np.ones(24, np.float32)
    for options, complaint in (
        ({"top": 0}, "top of at least 1, got 0"),
        ({"group_by": "hat"}, "group_by pid or tracklet, got 'hat'"),
        ({"threshold": -1.0}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"where": Filter(after=datetime(2024, 1, 1))}, "no time zone"),
        ({"where": Filter(cameras=("\ud800",))}, "UTF-8"),
    ):
        with pytest.raises(ValueError, match=complaint):
            gallery.search(query, **options)
    with pytest.raises(ValueError, match="query 0 is of shape"):
        gallery.search(np.ones(23, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        gallery.search(np.full(24, np.inf, np.float32))
    with pytest.raises(TypeError, match="expected a tuple"):
        Filter(cameras="c1")
