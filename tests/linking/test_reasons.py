"""What is said of two sightings is what was counted between their cameras, by hand and in words."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprism.data.records import Sample
from reprism.evaluation.part_scale import PartAgreement
from reprism.linking.ratios import View
from reprism.linking.reasons import Site, explain_pair
from reprism.linking.transit import CameraNetwork

AGREES, DIFFERS, UNCLEAR = (PartAgreement(1.0, None, verdict) for verdict in ("agrees", "differs", "unclear"))


def seen(camera, time, recording=None):
    return Sample(f"{camera}-{time}.jpg", 0, camera, time, recording)


def walks(ways, people=120, back=False, seed=0, hours=10):
    """Sightings of people who walk from camera to camera, and the pairs that are of one person."""
    rng = np.random.default_rng(seed)
    items, pairs = [], []
    for one, other, low, high in ways:
        for person, start in enumerate(rng.uniform(0, hours * 3600, people)):
            gap = rng.uniform(low, high) * (-1 if back and person % 2 else 1)
            pairs.append((len(items), len(items) + 1))
            items += [seen(one, start), seen(other, start + gap)]
    return items, pairs


@pytest.fixture(scope="module")
def site() -> Site:
    """Stairs to yard in 36 to 60 s, gate to yard likewise; five people only from the stairs to the roof."""
    items, pairs = walks([("stairs", "yard", 36, 60), ("gate", "yard", 36, 60)])
    few = walks([("roof", "stairs", 36, 60)], people=5, seed=1)
    pairs += [(one + len(items), other + len(items)) for one, other in few[1]]
    return Site.of(CameraNetwork.of_pairs([*items, *few[0]], pairs))


def test_a_usual_walk(site):
    parts = {"p2": UNCLEAR, "p2s1": UNCLEAR, "p2s2": AGREES, "p2c1": AGREES}
    reason = explain_pair(seen("stairs", 1000.0), seen("yard", 1041.0), site, parts)
    low, high = reason.usual
    # Quartiles of a uniform gap of 36 to 60 s, to a bin of 4 s.
    assert abs(low - 42) <= 4
    assert abs(high - 54) <= 4
    assert reason.text == f"p2s2 and p2c1 agree; 41 s between stairs and yard, usual {low:.0f} to {high:.0f} s"
    assert (reason.verdict, reason.cameras, reason.seconds) == ("usual", ("stairs", "yard"), 41.0)
    assert (reason.agree, reason.differ, reason.parts) == (("p2s2", "p2c1"), (), 4)
    # Whoever is the query: it is the same walk.
    turned = explain_pair(seen("yard", 1041.0), seen("stairs", 1000.0), site, parts)
    assert turned == reason
    assert reason.as_dict()["text"] == reason.text
    assert reason.as_dict()["usual"] == (low, high)


def test_an_unusual_walk_says_the_most_that_times_can_count(site):
    reason = explain_pair(seen("gate", 1000.0), seen("yard", 1000.0 + 5400), site)
    table = site.network.ratio_by_gap(View("gate", ""), View("yard", ""))
    low, high = reason.usual
    most = math.ceil(math.exp(-table.min()))
    assert reason.text == (
        f"90 min between gate and yard: no usual way (usual {low:.0f} to {high:.0f} s); "
        f"times count no more than {most} to 1 against it"
    )
    assert (reason.verdict, reason.floor) == ("unusual", pytest.approx(table.min()))
    assert reason.floor <= reason.log_ratio < 0
    assert most >= math.exp(-reason.log_ratio)
    # Beyond the horizon too, and nobody walks back.
    assert (
        "3 h between gate and yard: no usual way" in explain_pair(seen("gate", 0.0), seen("yard", 10_800.0), site).text
    )
    back = explain_pair(seen("gate", 1041.0), seen("yard", 1000.0), site)
    assert back.usual is None
    assert back.text.startswith("41 s between yard and gate: no usual way; times count no more than")


@pytest.mark.parametrize(
    ("query", "row", "text"),
    [
        (seen("stairs", 0.0), seen("roof", 50.0), "stairs to roof: too few matches to tell"),
        (seen("stairs", 0.0), seen("stairs", 50.0), "50 s apart by stairs: times say nothing of one camera"),
        (seen("cellar", 0.0), seen("yard", 50.0), "cellar is not in the network of cameras: times say nothing"),
        (seen("yard", 0.0), seen("cellar", 50.0), "cellar is not in the network of cameras: times say nothing"),
        (seen("stairs", None), seen("yard", 50.0), "a time is not known: times say nothing"),
        (seen("stairs", 0.0), seen(None, 50.0), "a camera is not known: times say nothing"),
        (seen("stairs", 0.0, "may"), seen("yard", 50.0, "june"), "stairs to yard: too few matches to tell"),
    ],
)
def test_where_nothing_is_known(site, query, row, text):
    reason = explain_pair(query, row, site)
    assert (reason.text, reason.verdict, reason.log_ratio, reason.floor) == (text, "unknown", 0.0, None)
    assert site.network.log_ratio([query], [row]) == 0


@given(
    st.sampled_from(["stairs", "yard", "gate", "roof", "cellar", None]),
    st.sampled_from(["stairs", "yard", "gate", "roof", "cellar", None]),
    st.none() | st.floats(0, 50_000),
    st.none() | st.floats(0, 50_000),
)
def test_its_figures_are_those_of_the_network(site, one, other, first, then):
    query, row = seen(one, first), seen(other, then)
    reason = explain_pair(query, row, site)
    assert reason.log_ratio == site.network.log_ratio([query], [row])[0, 0]
    assert (reason.floor is None) == (reason.verdict == "unknown")
    if reason.verdict == "usual":
        assert reason.log_ratio > 0
        assert 30 <= reason.seconds <= 90  # a way takes 36 to 60 s, smoothed by 20 s
    if reason.verdict == "unusual":
        assert reason.floor <= reason.log_ratio < 0
    if reason.verdict != "unknown":
        assert reason.seconds == pytest.approx(abs(then - first))
        earlier, later = (one, other) if (first, one) <= (then, other) else (other, one)
        assert reason.cameras in ((earlier, later), (later, earlier) if first == then else (earlier, later))
    turned = explain_pair(row, query, site)
    assert turned.log_ratio == reason.log_ratio
    assert turned.verdict == reason.verdict


def test_both_ways_have_their_own_times():
    items, pairs = walks([("a", "b", 100, 140)], people=300, back=True)
    site = Site.of(CameraNetwork.of_pairs(items, pairs))
    there, back = (explain_pair(seen("a", 0.0), seen("b", gap), site) for gap in (120.0, -120.0))
    assert (there.cameras, back.cameras) == (("a", "b"), ("b", "a"))
    for reason in (there, back):
        assert reason.verdict == "usual"
        assert 100 <= reason.usual[0] <= reason.usual[1] <= 140
        assert "2 min between" in reason.text


def test_a_clock_that_is_off_is_set_right():
    """b's clock is 40 s ahead: both see people at once, and c is 60 s away from either."""
    rng = np.random.default_rng(0)
    items, pairs = [], []
    for start in rng.uniform(0, 36_000, 200):
        at = len(items)
        items += [seen("a", start), seen("b", start + 40 + rng.uniform(-1, 1)), seen("c", start + rng.uniform(50, 70))]
        pairs += [(at, at + 1), (at + 1, at + 2), (at, at + 2)]
    site = Site.of(CameraNetwork.of_pairs(items, pairs))
    assert set(site.offsets) == {"a", "b"}
    at_once = explain_pair(seen("a", 1000.0), seen("b", 1040.0), site)
    assert at_once.at_once
    assert at_once.seconds < 4
    assert at_once.text.startswith(("a and b see people at once", "b and a see people at once"))


def test_parts_are_named_or_counted(site):
    two = seen("stairs", 0.0), seen("roof", 0.0)

    def looks(*verdicts):
        return explain_pair(*two, site, {f"p{number}": verdict for number, verdict in enumerate(verdicts, 1)}).looks

    assert looks(AGREES) == "p1 agrees"
    assert looks(AGREES, AGREES, AGREES, DIFFERS) == "p1, p2 and p3 agree, p4 differs"
    assert looks(UNCLEAR, UNCLEAR) == "no part agrees"
    assert looks(DIFFERS, DIFFERS) == "no part agrees, p1 and p2 differ"
    assert looks(*[AGREES] * 11, DIFFERS, UNCLEAR) == "11 of 13 parts agree, p12 differs"
    assert looks(*[DIFFERS] * 5) == "no part agrees, 5 of 5 parts differ"
    assert explain_pair(*two, site).looks == ""


def test_two_recordings_that_were_learned_together():
    items, pairs = walks([("a", "b", 36, 60)])
    items = [replace(item, recording="monday" if item.camid == "a" else "hall clock") for item in items]
    site = Site.of(CameraNetwork.of_pairs(items, pairs))
    reason = explain_pair(seen("a", 0.0, "monday"), seen("b", 48.0, "hall clock"), site)
    count = math.ceil(math.exp(reason.log_ratio) - 1e-6)
    assert reason.text == f"a and b in two recordings: times count {count} to 1 for it"
    assert (reason.verdict, reason.seconds) == ("unclear", None)
