"""A search by looks and times finds what scoring every row by hand and sorting finds."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reprism
from reprism.embedding import DescriptorKind
from reprism.evaluation.calibration import Calibration, CalibrationError
from reprism.evaluation.camera_statistics import CameraStatisticsError, MadeBy
from reprism.evaluation.fitted_on import FittedOn
from reprism.evaluation.part_scale import PartScale
from reprism.gallery.filters import Filter
from reprism.gallery.permission import LinkingError
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.search import Match
from reprism.gallery.table import Gallery
from reprism.linking import looks as looks_module
from reprism.linking import network_search
from reprism.linking.gallery_sightings import read_sightings
from reprism.linking.learned import learn_and_keep
from reprism.linking.looks import LearnedLooks, learn_looks, log_odds
from reprism.linking.network_search import Seen, favoured, search_by_network, search_like
from reprism.linking.odds import DISTANCE_BINS, OddsError, PairOdds
from reprism.linking.reasons import Site
from reprism.linking.transit import CameraNetwork

KIND = DescriptorKind("ab" * 32, "p1(s2c1)", 24, True)
START = datetime(2026, 5, 1, 8, tzinfo=UTC)


def calibration(kind=KIND, slope=-9.0, intercept=6.0):
    on = FittedOn(kind.fingerprint, kind.flip, "images", "images", projection=None)
    scale = PartScale(
        {name: np.linspace(0, 0.8, 201).tolist() for name in ("p1", "p1s1", "p1s2", "p1c1")}, None, 10_000, 0
    )
    return Calibration((), (), slope, intercept, 0.0, (), {}, {}, {}, fitted_on=on, parts=scale)


def random_entries(count: int, seed: int) -> list[Entry]:
    """Rows of four cameras; some of unknown camera or time, some exactly alike."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 24)).astype(np.float32)
    rows[: count // 8] = rows[0]
    cameras = [None if n == 4 else "abcd"[n] for n in rng.integers(0, 5, count)]
    times = [None if rng.random() < 0.1 else START + timedelta(seconds=rng.uniform(0, 20_000)) for _ in range(count)]
    return [Entry(f"k{i}", rows[i], f"/{i}.jpg", f"{i % 9}", cameras[i], times[i]) for i in range(count)]


@cache
def network_of(seed: int) -> CameraNetwork:
    """Cameras a, b and c whose matches lie 60 and 300 s apart; of d too few are known."""
    rng = np.random.default_rng(seed)
    items, pairs = [], []
    for one, other, gap, people in (("a", "b", 60, 80), ("b", "c", 300, 80), ("a", "d", 60, 5)):
        for start in rng.uniform(START.timestamp(), START.timestamp() + 20_000, people):
            pairs.append((len(items), len(items) + 1))
            items += [Seen(c, None).as_item() for c in (one, other)]
            items[-2:] = [
                reprism.Sample("x", 0, one, start), reprism.Sample("x", 0, other, start + rng.normal(gap, 10)),
            ]  # fmt: skip
    return CameraNetwork.of_pairs(items, pairs)


def learned(entries) -> LearnedLooks:
    known = [entry for entry in entries if entry.camid]
    statistics = reprism.CameraStatistics.fit(
        np.stack([entry.descriptor for entry in known]),
        [entry.camid for entry in known],
        made_by=MadeBy(KIND.fingerprint, KIND.flip),
    )
    return LearnedLooks(PairOdds(0.01, np.linspace(8, -8, DISTANCE_BINS), 1_000_000), statistics)


def by_hand(entries, network, looks, query, seen, top, keep=lambda _: True):
    """Score row by row from the definitions."""
    scored = []
    for entry in filter(keep, entries):
        one, other = (np.asarray(row, float) / np.linalg.norm(row) for row in (query, entry.descriptor))
        if isinstance(looks, LearnedLooks):
            one = looks.statistics.apply(one[None], [seen.camera])[0].astype(float)
            other = looks.statistics.apply(other[None], [entry.camid])[0].astype(float)
        distance = np.linalg.norm(one - other)
        if isinstance(looks, LearnedLooks):
            centers = (np.arange(DISTANCE_BINS) + 0.5) * 2 / DISTANCE_BINS
            alike = np.interp(distance, centers, looks.odds.appearance) + np.log(0.01 / 0.99)
        else:
            alike = looks.slope * distance + looks.intercept
        time = Seen(entry.camid, entry.time).as_item()
        said = float(np.clip(network.log_ratio([seen.as_item()], [time])[0, 0], -10, 10))
        scored.append((alike + said, distance, row_id(entry.key), alike))
    return sorted(scored, key=lambda one: (-one[0], one[1]))[:top]


def assert_same(found, expected, tied=1e-5):
    assert [match.rank for match in found] == list(range(1, len(expected) + 1))
    odds = [np.log(match.probability) - np.log1p(-match.probability) for match in found]
    np.testing.assert_allclose(odds, [score for score, *_ in expected], atol=tied)
    scores = {row: (score, distance, alike) for score, distance, row, alike in expected}
    last = expected[-1][0] if expected else 0
    for match, score in zip(found, odds, strict=True):
        if match.id not in scores:  # only where it is as likely as the last one
            assert score == pytest.approx(last, abs=tied)
            continue
        assert score == pytest.approx(scores[match.id][0], abs=tied)
        assert match.distance == pytest.approx(scores[match.id][1], abs=1e-5)
        alike = scores[match.id][2]
        assert match.by_looks == pytest.approx(1 / (1 + np.exp(-alike)), abs=1e-6)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A gallery of random rows, one for each seed."""

    @cache
    def make(seed: int) -> tuple[Gallery, list[Entry]]:
        entries = random_entries(250, seed)
        gallery = Gallery.create(tmp_path_factory.mktemp("galleries") / f"g{seed}", KIND)
        gallery.add(entries)
        return gallery, entries

    return make


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2),
    camera=st.sampled_from(["a", "b", "c", "d", "elsewhere", None]),
    seconds=st.none() | st.floats(0, 20_000),
    top=st.sampled_from([1, 7, 300]),
    learn=st.booleans(),
    only=st.sampled_from([(), ("b",), ("b", "d")]),
)
def test_it_finds_what_scoring_every_row_finds(made, seed, camera, seconds, top, learn, only):
    gallery, entries = made(seed)
    network, looks = network_of(seed), learned(entries) if learn else calibration()
    seen = Seen(camera, None if seconds is None else START + timedelta(seconds=seconds))
    query = np.random.default_rng(seed + 10).normal(size=24)
    (found,) = search_by_network(gallery, query, [seen], Site.of(network), looks, top, Filter(cameras=only))
    expected = by_hand(entries, network, looks, query, seen, top, lambda one: not only or one.camid in only)
    assert_same(found, expected)


def test_several_queries_are_each_alone_and_reading_in_blocks_changes_nothing(made, monkeypatch):
    gallery, entries = made(0)
    site, looks = Site.of(network_of(0)), calibration()
    rng = np.random.default_rng(4)
    queries = rng.normal(size=(3, 24))
    seen = [Seen("a", START), Seen("b", START + timedelta(seconds=900)), Seen()]
    monkeypatch.setattr("reprism.gallery.store._BLOCK", 4 * 24 * 37)
    found = search_by_network(gallery, queries, seen, site, looks, 12)
    for query, one, matches in zip(queries, seen, found, strict=True):
        assert_same(matches, by_hand(entries, site.network, looks, query, one, 12))
        alone = search_by_network(gallery, query, [one], site, looks, 12)[0]
        assert [match.id for match in matches] == [match.id for match in alone]


def test_rows_that_times_favour_are_found_through_the_index(tmp_path, monkeypatch):
    """Many rows look nearer than the one at the right time, more than the index proposes by looks."""
    monkeypatch.setattr(network_search, "PROPOSED", 40)
    monkeypatch.setattr(network_search, "PROPOSED_BY_CAMERA", 20)
    monkeypatch.setattr("reprism.gallery.upkeep.EXACT_ROWS", 100, raising=False)
    rng = np.random.default_rng(0)
    query = rng.normal(size=24)
    near = query + 0.3 * rng.normal(size=(300, 24))
    far = query + 0.6 * rng.normal(size=(100, 24))
    times = START + np.array([timedelta(seconds=each) for each in rng.uniform(3000, 20_000, 400)])
    entries = [
        Entry(f"k{i}", row.astype(np.float32), f"/{i}.jpg", None, "b", time)
        for i, (row, time) in enumerate(zip([*near, *far], times, strict=True))
    ]
    right = [Entry(f"right{i}", far[i].astype(np.float32) + 0.01, f"/r{i}.jpg", None, "b",
                   START + timedelta(seconds=55 + i)) for i in range(5)]  # fmt: skip
    gallery = Gallery.create(tmp_path / "g", KIND)
    gallery.add([*entries, *right])
    gallery.optimize()
    if not gallery.has_index():
        pytest.fail("expected an index")
    site, looks, seen = Site.of(network_of(0)), calibration(), Seen("a", START)
    (plain,) = gallery.search(query, 60, exact=False)
    assert not {row_id(entry.key) for entry in right} & {match.id for match in plain}
    (found,) = search_by_network(gallery, query, [seen], site, looks, 4, exact=False)
    expected = by_hand([*entries, *right], site.network, looks, query, seen, 4)
    assert_same(found, expected)
    assert {row for *_, row, _ in expected} <= {row_id(entry.key) for entry in right}
    # Those that the filter leaves out are not found.
    late = Filter(after=START + timedelta(seconds=100))
    (found,) = search_by_network(gallery, query, [seen], site, looks, 4, late, exact=False)
    assert not {row_id(entry.key) for entry in right} & {match.id for match in found}


@pytest.mark.parametrize("camera", ["a", "b", "c"])
def test_favoured_times_are_those_at_which_the_network_speaks_for_it(camera):
    network, seen = network_of(1), Seen(camera, START + timedelta(seconds=10_000))
    filters = {each.cameras: each for each in favoured(seen.as_item(), network)}
    for other in set("abcd") - {camera}:
        times = [START + timedelta(seconds=each) for each in range(0, 20_000, 3)]
        said = network.log_ratio([seen.as_item()], [Seen(other, time).as_item() for time in times])[0]
        if not (said > 0).any():
            continue
        window = filters[(other,)]
        inside = [(window.after is None or time >= window.after) and (window.before is None or time < window.before)
                  for time in times]  # fmt: skip
        assert all(within for within, value in zip(inside, said, strict=True) if value > 0)
    assert ("d",) not in filters


def test_a_match_says_why(made):
    gallery, entries = made(0)
    site, looks = Site.of(network_of(0)), calibration()
    walked = next(entry for entry in entries if entry.camid == "b" and entry.time is not None)
    seen = Seen("a", walked.time - timedelta(seconds=60))
    (found,) = search_by_network(gallery, entries[0].descriptor, [seen], site, looks, 100)
    assert any(match.reason.verdict == "usual" for match in found)
    for match in found:
        assert isinstance(match, Match)
        assert match.reason.agree == tuple(name for name, part in match.parts.items() if part.verdict == "agrees")
        assert match.reason.parts == 4
        assert sum(match.shares.values()) == pytest.approx(match.distance**2, abs=1e-5)
        values = match.to_json()
        assert next(iter(values)) == "rank"
        assert values["reason"]["text"] == match.reason.text
    plain = {match.id: match for match in gallery.search(entries[0].descriptor, 250, calibration=looks)[0]}
    for match in found:
        assert match.parts == plain[match.id].parts
        assert match.by_looks == pytest.approx(plain[match.id].probability, abs=1e-5)


def test_a_row_of_the_gallery_asks(made):
    gallery, entries = made(1)
    asking = next(entry for entry in entries if entry.camid == "a" and entry.time is not None)
    for looks in (calibration(), learned(entries)):
        site = Site.of(network_of(1))
        found = search_like(gallery, row_id(asking.key), site, looks, 9)
        seen = Seen("a", asking.time)
        others = [entry for entry in entries if entry is not asking]
        assert_same(found, by_hand(others, site.network, looks, asking.descriptor, seen, 9))
    with pytest.raises(KeyError):
        search_like(gallery, "0" * 32, site, looks)


def test_a_compressed_gallery_is_searched_as_its_rows_are_projected(tmp_path):
    entries = random_entries(120, 5)
    gallery = Gallery.create(tmp_path / "g", KIND)
    gallery.add(entries)
    projection = gallery.compress(8)
    on = FittedOn(KIND.fingerprint, KIND.flip, "images", "images", projection=projection.digest)
    looks = Calibration((), (), -9.0, 6.0, 0.0, (), {}, {}, {}, fitted_on=on)
    site, seen = Site.of(network_of(0)), Seen("a", START + timedelta(seconds=500))
    (found,) = search_by_network(gallery, entries[3].descriptor, [seen], site, looks, 5)
    rows = np.stack([entry.descriptor for entry in entries])
    rows = projection.apply(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    shorter = [replace(entry, descriptor=row) for entry, row in zip(entries, rows, strict=True)]
    assert_same(found, by_hand(shorter, site.network, looks, shorter[3].descriptor, seen, 5))
    assert found[0].parts is None
    assert found[0].reason.looks == ""
    like = search_like(gallery, row_id("k3"), site, looks, 5)
    assert all(match.id != row_id("k3") for match in like)


def test_what_cannot_be_asked_is_refused(made):
    gallery, entries = made(0)
    site, looks = Site.of(network_of(0)), calibration()
    query = entries[0].descriptor
    with pytest.raises(ValueError, match="top of at least 1, got 0"):
        search_by_network(gallery, query, [Seen()], site, looks, 0)
    with pytest.raises(ValueError, match="each of 1 queries was seen, got 2"):
        search_by_network(gallery, query, [Seen()] * 2, site, looks)
    other = DescriptorKind("cd" * 32, "p1", 24, True)
    with pytest.raises(CalibrationError, match="other distances"):
        search_by_network(gallery, query, [Seen()], site, calibration(other))
    foreign = learned(entries)
    foreign = replace(foreign, statistics=replace(foreign.statistics, made_by=MadeBy("cd" * 32, True)))
    with pytest.raises(CameraStatisticsError):
        search_by_network(gallery, query, [Seen()], site, foreign)
    with pytest.raises(ValueError, match="no index"):
        search_by_network(gallery, query, [Seen()], site, looks, exact=False)


def test_looks_are_learned_from_the_gallery_alone(gallery_of, seen, monkeypatch):
    gallery = gallery_of(seen)
    network = learn_and_keep(gallery, read_sightings(gallery))[0]
    looks = learn_looks(gallery, network)
    found = reprism.link_gallery(gallery)
    assert found.rows == len(seen)
    # Nearer rows are likelier to be of one person, by who is who.
    distances = np.linspace(0, 2, 50)
    assert (np.diff(log_odds(looks, distances)) <= 0).all()
    ranks_with, ranks_without = [], []
    site = Site.of(network)
    statistics = looks.statistics
    for entry in seen[:40]:
        others = {row_id(each.key) for each in seen if each.pid == entry.pid and each is not entry}
        if not others:
            continue
        with_times = search_like(gallery, row_id(entry.key), site, looks, 50)
        by_looks = gallery.search_by_camera(entry.descriptor, [entry.camid], statistics, 500)[0]
        by_looks = [match for match in by_looks if match.id != row_id(entry.key)]
        for ranks, matches in ((ranks_with, with_times), (ranks_without, by_looks)):
            ranks.append(next((match.rank for match in matches if match.id in others), 51))
    assert np.mean(ranks_with) < 0.5 * np.mean(ranks_without)
    # Fewer rows are enough, and the same come out each time.
    monkeypatch.setattr(looks_module, "MOST_COMPARED", 250)
    some, again = (learn_looks(gallery, network, seed=3) for _ in range(2))
    assert some.odds.pairs < 250**2
    np.testing.assert_array_equal(some.odds.appearance, again.odds.appearance)


def test_looks_are_learned_only_where_linking_is_on_and_times_tell(gallery_of, seen):
    with pytest.raises(LinkingError, match="reprism link enable"):
        learn_looks(gallery_of(seen, "off", on=False), network_of(0))
    few = gallery_of(seen[:20], "few")
    with pytest.raises(OddsError, match=r"calibration instead: reprism calibrate --gallery .*few"):
        learn_looks(few, network_of(0))
    with pytest.raises(OddsError, match="no pair of two cameras"):
        learn_looks(gallery_of([], "empty"), network_of(0))
