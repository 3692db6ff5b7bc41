"""Tracklets that are one: which of them are joined, against all matchings and against what each rule says by itself."""

import math
from collections import deque
from dataclasses import replace
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.cameras import stitching
from reprism.cameras.crops import BestOverTime
from reprism.cameras.stitching import (
    Limits,
    Piece,
    Stitcher,
    appearance_distance,
    best_matching,
    deviation,
    exit_velocity,
    gain,
    join,
    stitch,
)
from reprism.cameras.tracklets import Crop, Sight, Tracklet
from reprism.evaluation.calibration import Calibration, CalibrationError

FPS = 10
SIZE = (240, 400)
LIMITS = Limits(seconds=2.0, distance=0.6)
LOST = 0.5


def sight(index, x, y=150.0, height=60.0):
    box = np.array([x - 12, y - height / 2, x + 12, y + height / 2], np.float32)
    return Sight(index, index / FPS, None, box, SIZE)


def look(angle):
    """Return a descriptor: two are 2·sin(half their angle) apart."""
    return np.array([math.cos(angle), math.sin(angle)])


def piece(first, last, start, end, angle=0.0, rank=0, crops=3):
    """Return somebody who is seen from one frame to another, and walks from one column to another."""
    sights = [sight(index, start + (end - start) * (index - first) / max(1, last - first))
              for index in range(first, last + 1)]  # fmt: skip
    best = BestOverTime(crops)
    for one in sights:
        best.offer(
            one.index - first,
            (7 * one.index % 11) / 11,
            lambda one=one: Crop(one, (7 * one.index % 11) / 11, one.index),
        )
    tracklet = Tracklet(
        100 * first + rank, rank, sights[0], sights[-1], len(sights), 54.0, best, False, deque(sights[-32:])
    )
    return Piece(tracklet, look(angle))


def names(chains):
    return [[one.name for one in chain] for chain in chains]


@st.composite
def crowds(draw):
    """Draw a few tracklets in a narrow view, many of which may continue others."""
    ranks, found = {}, []
    for _ in range(draw(st.integers(1, 7))):
        first = draw(st.integers(0, 50))
        last = first + draw(st.integers(0, 12))
        start = draw(st.integers(50, 350))
        rank = ranks[first] = ranks.get(first, -1) + 1
        end = start + draw(st.integers(-60, 60))
        found.append(piece(first, last, start, end, draw(st.floats(0, 1)), rank))
    return found


def best_of_all(pieces, limits):
    """Return the largest sum of gains over every way to let each tracklet continue one other at most."""
    worth = {
        (a, b): gain(one, other, limits) for a, one in enumerate(pieces) for b, other in enumerate(pieces) if a != b
    }
    pairs = [pair for pair, value in worth.items() if value > 0]

    def best(rest, earlier, later):
        if not rest:
            return 0.0
        (a, b), *more = rest
        without = best(more, earlier, later)
        if a in earlier or b in later:
            return without
        return max(without, worth[a, b] + best(more, earlier | {a}, later | {b}))

    return best(pairs, frozenset(), frozenset())


@given(st.integers(1, 4), st.integers(1, 4), st.data())
def test_the_matching_is_the_best_of_all(rows, columns, data):
    worth = st.floats(0, 2).map(lambda value: 0.0 if value < 0.7 else value)
    gains = np.array(data.draw(st.lists(worth, min_size=rows * columns, max_size=rows * columns))).reshape(
        rows, columns
    )
    found = best_matching(gains)
    assert len({row for row, _ in found}) == len({column for _, column in found}) == len(found)
    assert all(gains[pair] > 0 for pair in found)
    wide = gains if rows <= columns else gains.T
    most = max(sum(wide[row, column] for row, column in enumerate(order))
               for order in permutations(range(wide.shape[1]), wide.shape[0]))  # fmt: skip
    assert sum(gains[pair] for pair in found) == pytest.approx(most)


@settings(deadline=None)
@given(crowds(), st.randoms(use_true_random=False))
def test_tracklets_are_joined_as_the_best_of_all_matchings_joins_them(pieces, random):
    """In any order; every one is in one chain, and no two of a chain overlap in time."""
    chains = stitch(pieces, LIMITS)
    assert sorted(name for chain in names(chains) for name in chain) == sorted(one.name for one in pieces)
    links = [pair for chain in chains for pair in pairwise(chain)]
    assert all(one.tracklet.last.seconds < other.tracklet.first.seconds for one, other in links)
    assert sum(gain(one, other, LIMITS) for one, other in links) == pytest.approx(best_of_all(pieces, LIMITS))
    random.shuffle(pieces)
    assert names(stitch(pieces, LIMITS)) == names(chains)


@settings(deadline=None)
@given(crowds(), st.sampled_from([math.inf, 2.5]), st.data())
def test_while_they_come_in_it_is_as_if_all_were_there(pieces, longest, data):
    """A tracklet is told of when it begins, and known some time after it ended; asked at any moments between."""
    limits = Limits(2.0, 0.6, longest)
    stitcher, given_out, known = Stitcher(limits), [], []
    late = data.draw(st.integers(0, 30))  # frames until what has ended is described
    asked = data.draw(st.sets(st.integers(0, 110)))
    for index in range(111):
        ended = sorted(
            (one for one in pieces if one.tracklet.last.index + LOST * FPS + 1 == index), key=lambda one: one.name
        )
        known += [(index + late, one) for one in ended]
        for one in sorted(pieces, key=lambda one: one.name):
            if one.name[0] == index:
                stitcher.begin(one.name, one.tracklet.first)
        while known and known[0][0] <= index:
            stitcher.add(known.pop(0)[1])
        if index in asked:
            given_out += stitcher.settle(index / FPS)
    given_out += stitcher.flush()
    assert len(stitcher) == 0
    assert sorted(names(given_out)) == names(stitch(pieces, limits))


def test_nothing_is_kept_once_nothing_can_continue_it():
    """Alone, or beside somebody who goes on elsewhere; but it waits for who began where it ended."""
    stitcher = Stitcher(LIMITS)
    alone, far, near = piece(0, 10, 50, 100), piece(12, 99, 390, 300), piece(30, 60, 110, 200)
    for one in (alone, far):
        stitcher.begin(one.name, one.tracklet.first)
    stitcher.add(alone)
    assert stitcher.settle(3.0) == []  # who begins in this frame may still come
    assert names(stitcher.settle(3.01)) == [[alone.name]]
    again = piece(20, 28, 50, 100)
    stitcher.begin(again.name, again.tracklet.first)
    stitcher.add(again)
    stitcher.begin(near.name, near.tracklet.first)
    assert stitcher.settle(50.0) == []
    stitcher.add(near)
    assert names(stitcher.settle(50.0)) == [[again.name, near.name]]
    assert len(stitcher) == 0


def test_who_goes_on_is_not_waited_for_after_a_cut():
    stitcher = Stitcher(LIMITS)
    early, late, after = piece(0, 9, 50, 100), piece(15, 60, 110, 200), piece(65, 70, 210, 220)
    for one in (early, late):
        stitcher.begin(one.name, one.tracklet.first)
    stitcher.add(early)
    assert names(stitcher.flush()) == [[early.name]]
    stitcher.add(late)
    stitcher.begin(after.name, after.tracklet.first)
    stitcher.add(after)
    assert names(stitcher.settle(9.5)) == [[late.name, after.name]]


def test_who_may_continue_another_waits_for_those_who_may_as_well():
    """Though it is known by whom it is continued itself: another who came into view with it goes on for long."""
    stitcher = Stitcher(LIMITS)
    early, near, rival, late = (
        piece(0, 9, 100, 100),
        piece(15, 20, 101, 101),
        piece(16, 90, 110, 110),
        piece(40, 45, 101, 101),
    )
    for one in (early, near, rival, late):
        stitcher.begin(one.name, one.tracklet.first)
    for one in (early, near, late):
        stitcher.add(one)
    assert stitcher.settle(9.0) == []
    stitcher.add(rival)
    want = [[early.name, near.name, late.name], [rival.name]]
    assert sorted(names(stitcher.settle(20.0))) == want == names(stitch([early, near, rival, late], LIMITS))


def test_no_more_wait_than_memory_is_meant_for(monkeypatch):
    """Of people who all may be one, of whom somebody is in view all the time."""
    monkeypatch.setattr(stitching, "_MOST", 50)
    stitcher, given_out = Stitcher(Limits(2.0, 0.6)), 0
    stays = sight(1, 100)
    stitcher.begin((1, 0), stays)
    for rank in range(51):
        one = piece(0, 0, 100, 100, rank=rank)
        stitcher.begin(one.name, one.tracklet.first)
        stitcher.add(one)
        given_out += len(stitcher.settle(60.0))
        assert len(stitcher) <= 50
    assert given_out == 51


@pytest.mark.parametrize(
    ("later", "joined"),
    [
        (piece(15, 30, 150, 250), True),  # goes on as before: 10 columns a frame
        (piece(15, 30, 105, 250), True),  # stood still behind the pole
        (piece(15, 30, 20, 0), False),  # far back
        (piece(15, 30, 260, 360), False),  # far ahead
        (piece(15, 30, 150, 250, angle=0.7), False),  # looks otherwise
        (piece(29, 50, 150, 250), True),  # just in time
        (piece(30, 50, 150, 250), False),  # too late
        (piece(8, 30, 100, 250), False),  # both were in view
    ],
)
def test_one_goes_on_with_another_near_by_soon_and_alike(later, joined):
    earlier = piece(0, 9, 10, 100)
    assert len(stitch([later, earlier], LIMITS)) == (1 if joined else 2)


def test_two_who_cross_behind_a_pole_keep_their_ways():
    """Alike, and as near: the way decides; and looks, where the ways are no help."""
    right, left = piece(0, 9, 20, 110), piece(0, 9, 290, 200, rank=1)
    beyond, before = piece(16, 30, 190, 300), piece(16, 30, 120, 20, rank=1)
    assert names(stitch([right, left, beyond, before], LIMITS)) == [
        [right.name, beyond.name], [left.name, before.name]
    ]  # fmt: skip
    one, other = piece(0, 9, 150, 150, 0.0), piece(0, 9, 160, 160, 1.0, rank=1)
    again, too = piece(16, 30, 152, 152, 0.95), piece(16, 30, 158, 158, 0.05, rank=1)
    assert names(stitch([one, other, again, too], LIMITS)) == [[one.name, too.name], [other.name, again.name]]


@pytest.mark.parametrize(("first", "x", "joined"), [(19, 388, True), (20, 388, False), (20, 380, True)])
def test_who_left_the_view_is_joined_only_with_who_is_back_within_a_second(first, x, joined):
    leaves, comes = piece(0, 9, 298, 388), piece(first, 30, x, 300)
    assert len(stitch([leaves, comes], LIMITS)) == (1 if joined else 2)


def test_a_joined_tracklet_is_never_too_long():
    """Of 1 s each and half a second between: so many fit into what is allowed."""
    pieces = [piece(15 * number, 15 * number + 10, 100, 100) for number in range(7)]
    for longest, sizes in ((math.inf, [7]), (2.6, [2, 2, 2, 1]), (2.4, [1] * 7), (4.0, [3, 3, 1])):
        assert [len(chain) for chain in stitch(pieces, Limits(2.0, 0.6, longest))] == sizes


# ---- two tracklets ---------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_distance_is_that_between_crops(one, other, seed):
    rng = np.random.default_rng(seed)
    a, b = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (rng.normal(size=(one, 6)), rng.normal(size=(other, 6)))
    )
    squares = [float(((x - y) ** 2).sum()) for x in a for y in b]
    assert appearance_distance(a.mean(0), b.mean(0)) == pytest.approx(math.sqrt(np.mean(squares)), abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 6), st.floats(0, 400)), min_size=2, max_size=20))
def test_the_velocity_is_that_of_the_line_through_the_last_second(steps):
    sights, index = [], 0
    for step, x in steps:
        index += step
        sights.append(replace(sight(index, x), seconds=index / 8))  # in eighths, which sum up exactly
    recent = [one for one in sights if one.index >= index - 8]
    want = 0.0
    if len(recent) > 1:
        middles = [(float(one.box[0]) + float(one.box[2])) / 2 for one in recent]
        want = np.polyfit([one.seconds - index / 8 for one in recent], middles, 1)[0]
    np.testing.assert_allclose(exit_velocity(sights), [want, 0], atol=1e-3, rtol=1e-5)


@given(st.floats(-80, 80), st.floats(-80, 80), st.integers(1, 20), st.floats(-100, 100), st.floats(-100, 100))
def test_the_deviation_is_from_where_one_would_be_within_reach_of_the_way(vx, vy, frames, dx, dy):
    """The way is gone in small steps. A velocity of less than two body heights (of 60 pixels) a second is believed."""
    first, last = sight(10 + frames, 200 + dx, 120 + dy), sight(10, 200, 120)
    gap = frames / FPS
    places, allowed = np.linspace(0, gap, 2001)[:, None] * [vx, vy], 60 * (0.5 + 0.5 * gap)
    off = np.hypot(*(places - [dx, dy]).T)
    found = deviation(last, np.array([vx, vy]), first)
    if off.min() > 1.01 * allowed:
        assert found == math.inf
    elif off.min() < 0.99 * allowed:
        assert 0 <= found <= 1
        assert found == pytest.approx(off[-1] / (allowed + np.hypot(*places[-1])), abs=0.001)


def test_nobody_runs_at_any_speed_or_grows():
    last = sight(0, 100)
    assert deviation(last, np.array([1e4, 0]), sight(10, 100 + 2 * 60)) == pytest.approx(0, abs=1e-6)
    assert deviation(last, np.array([1e4, 0]), sight(10, 100 + 2 * 60 + 61)) == math.inf
    assert deviation(last, np.zeros(2), sight(10, 100, height=120.0)) < 1
    assert deviation(last, np.zeros(2), sight(10, 100, height=121.0)) == math.inf
    assert deviation(last, np.zeros(2), sight(0, 100)) == math.inf  # at the same time


def test_limits_are_those_of_the_calibration():

    def calibration(pairs):
        roc = {"threshold": [0.2, 0.4, 0.6, 0.8], "fmr": [0.0, 0.001, 0.01, 0.1], "tpr": [0.1, 0.5, 0.7, 0.9]}
        return Calibration((), (), -1.0, 0.0, 0.0, (), roc, {}, {"different_pairs": pairs})

    limits = Limits.calibrated(calibration(100_000), 0.01, 5.0, 120.0)
    assert (limits.seconds, limits.distance, limits.longest_seconds) == (5.0, 0.6, 120.0)
    with pytest.raises(CalibrationError, match="cannot be told from none"):
        Limits.calibrated(calibration(50), 0.01, 5.0, 120.0)
    with pytest.raises(ValueError, match="fmr=1: expected a rate between 0 and 1"):
        Limits.calibrated(calibration(500), 1, 5.0, 120.0)
    with pytest.raises(ValueError, match="seconds=0: expected a number greater than 0"):
        Limits(0, 0.5)


def test_what_is_joined_has_the_best_crops_of_all():
    chain = [piece(5, 25, 10, 100), piece(35, 55, 130, 200), piece(60, 65, 210, 220)]
    one = join(chain, 8)
    assert (one.first.index, one.last.index, one.boxes) == (5, 65, 21 + 21 + 6)
    assert (one.number, one.rank, one.seconds) == (500, 0, 6.0)
    kept = [crop.picture for crop in one.crops]
    assert kept == sorted(kept)
    # 61 frames in 8 stretches of 8: the best of each of those that the tracklets had kept.
    offered = [crop for each in chain for crop in each.tracklet.crops]
    want = {}
    for crop in offered:
        stretch = (crop.sight.index - 5) // 8
        if stretch not in want or crop.score > want[stretch].score:
            want[stretch] = crop
    assert kept == [crop.picture for crop in want.values()]
    assert [sight.index for sight in one.tail] == list(range(60, 66))
    assert join(chain[:1], 8) is chain[0].tracklet


def test_pieces_tell_each_other_apart_by_their_beginning():
    pieces = [piece(0, 3, 50, 50, rank=rank) for rank in range(3)]
    assert all(one.name != other.name for one, other in combinations(pieces, 2))
