"""Who walks a site of three cameras is found as one person, by looks and times together; and what is known holds."""

import numpy as np
import pytest

from reprism.data.records import Sample
from reprism.evaluation.clusters import score_clusters
from reprism.linking.odds import OddsError
from reprism.linking.people import find_people
from reprism.linking.transit import CameraNetwork


@pytest.fixture(scope="module")
def seen(walks_of):
    rows, items = walks_of()
    return rows, items, CameraNetwork.learn(rows, items)


def pids(items):
    return [item.pid for item in items]


def test_people_are_found_and_times_help(seen):
    rows, items, network = seen
    found = find_people(rows, items, network)
    scores = score_clusters(found.labels, pids(items))
    looks = score_clusters(find_people(rows, items, odds=found.odds).labels, pids(items))
    assert scores.f1 > 0.85
    assert scores.f1 > looks.f1 + 0.1
    true_pairs = sum(
        one.pid == other.pid and one.camid != other.camid for n, one in enumerate(items) for other in items[:n]
    )
    assert found.odds.expected_matches == pytest.approx(true_pairs, rel=0.35)
    # Those whose pairs are likely are more often right.
    right = [len({items[row].pid for row in np.flatnonzero(found.labels == label)}) == 1
             for label in range(len(found.confidence))]  # fmt: skip
    sure = found.confidence > 0.8
    assert np.mean(np.array(right)[sure]) > 0.95
    assert found.confidence.min() >= 0
    assert found.confidence.max() <= 1


def test_the_order_and_the_block_change_nothing(seen, monkeypatch):
    rows, items, network = seen
    first = find_people(rows, items, network)
    monkeypatch.setattr("reprism.linking.odds._BLOCK", 7)
    turned = np.random.default_rng(1).permutation(len(items))
    again = find_people(rows[turned], [items[index] for index in turned], network, odds=first.odds)
    back = np.empty(len(items), int)
    back[turned] = again.labels
    # The same people under other numbers.
    assert len(set(zip(first.labels.tolist(), back.tolist(), strict=True))) == len(first.confidence)
    assert len(again.confidence) == len(first.confidence)


def test_what_is_known_holds(seen):
    rows, items, network = seen
    first = find_people(rows, items, network)
    label = np.bincount(first.labels).argmax()
    one, other = np.flatnonzero(first.labels == label)[:2]
    far = np.flatnonzero(first.labels != label)[0]
    found = find_people(rows, items, network, odds=first.odds, apart=[[one, other]], together=[[one, far]])
    assert found.labels[one] != found.labels[other]
    assert found.labels[one] == found.labels[far]
    with pytest.raises(ValueError, match="to be together"):
        find_people(rows, items, network, odds=first.odds, apart=[[one, other]], together=[[one, other]])


def test_a_higher_demand_makes_more_people(seen):
    rows, items, network = seen
    counts = [len(find_people(rows, items, network, least=least).confidence) for least in (0.05, 0.3, 0.9)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_confidence_is_the_mean_over_all_pairs(seen):
    rows, items, network = seen
    found = find_people(rows, items, network)
    times = network.log_ratio(items, items)
    for label in range(0, len(found.confidence), 7):
        members = np.flatnonzero(found.labels == label)
        pairs = [(a, b) for n, a in enumerate(members) for b in members[:n]]
        likely = [float(found.odds.probability(np.linalg.norm(rows[a] - rows[b]), times[a, b])) for a, b in pairs]
        assert found.confidence[label] == pytest.approx(np.mean(likely) if pairs else 1.0, abs=0.011)


def test_mistakes_are_named(seen):
    rows, items, network = seen
    with pytest.raises(ValueError, match="a descriptor for each of"):
        find_people(rows[1:], items, network)
    with pytest.raises(ValueError, match="least=0"):
        find_people(rows, items, network, least=0)
    with pytest.raises(ValueError, match="give a network"):
        find_people(rows, items)
    alone = [Sample(item.path, item.pid, "a", item.time, item.recording) for item in items]
    with pytest.raises(OddsError, match="got no pair of two cameras"):
        find_people(rows, alone, network)
