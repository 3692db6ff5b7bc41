"""The plan of a drawn site and the walks over it: a pinhole's projection, views that overlap, people who come back."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.drawn.footage import Scenery, film
from reprism.drawn.people import person
from reprism.drawn.shots import camera
from reprism.drawn.sites import SiteCamera, draw_site, focal, project, shared_area
from reprism.drawn.walks import Visit, dress, plan_visits, stance, wearers

SIZE = (180, 320)


def plain(size: tuple[int, int], value: int, things: tuple[tuple[float, np.ndarray], ...] = ()) -> Scenery:
    return Scenery(np.full((*size, 3), value, np.uint8), things)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.floats(-20, 20)] * 2),
    st.floats(2, 5),
    st.floats(0, 360),
    st.floats(30, 100),
    st.floats(0, 0.5),
    st.tuples(*[st.floats(-20, 20)] * 2),
)
def test_projection_is_a_pinholes(
    where: tuple[float, float],
    height: float,
    heading: float,
    field: float,
    horizon: float,
    point: tuple[float, float],
) -> None:
    """The product of the matrices K and [R | t] of any textbook, with the principal point on the horizon."""
    seen_by = SiteCamera("cam1", *where, height, heading, field, horizon, camera(0, 1))
    tall, wide = SIZE
    focus = wide / 2 / math.tan(math.radians(field / 2))
    inner = np.array([[focus, 0, wide / 2], [0, focus, horizon * tall], [0, 0, 1]])
    cos, sin = math.cos(math.radians(heading)), math.sin(math.radians(heading))
    turn = np.array([[sin, -cos, 0], [0, 0, -1], [cos, sin, 0]])  # rows: right, down, ahead
    outer = np.column_stack([turn, -turn @ [*where, height]])
    feet, head = (inner @ outer @ [*point, z, 1] for z in (0.0, 1.7))
    column, row, distance = project(seen_by, *point, SIZE)
    assert distance == pytest.approx(feet[2], abs=1e-9)
    if distance > 0.5:
        assert (column, row) == pytest.approx((feet[0] / feet[2], feet[1] / feet[2]))
        # Upright things stay upright, and shrink with the distance.
        assert head[0] / head[2] == pytest.approx(column)
        assert row - head[1] / head[2] == pytest.approx(focal(seen_by, SIZE) * 1.7 / distance)


@pytest.mark.parametrize("cameras", [1, 2, 3, 4, 7])
def test_twins_overlap_and_no_others(cameras: int) -> None:
    plan = draw_site(cameras, 3)
    assert [each.name for each in plan.cameras] == [f"cam{number + 1}" for number in range(cameras)]
    overlapping = {
        (first.name, second.name)
        for first, second in itertools.combinations(plan.cameras, 2)
        if shared_area(plan, first, second, SIZE)
    }
    assert overlapping == {("cam1", "cam2"), ("cam5", "cam6")} & set(
        itertools.combinations([each.name for each in plan.cameras], 2)
    )


@pytest.mark.parametrize("cameras", [1, 2, 4, 8])
def test_nobody_is_seen_to_appear(cameras: int) -> None:
    for seed in range(12):
        plan = draw_site(cameras, seed)
        who = dress(8, 0, seed)
        visits = plan_visits(plan, people=8, seconds=60, returning=0.5, crowd=0.5, seed=seed)
        for visit, place in itertools.product(visits, plan.cameras):
            ends = (visit.times[0], math.nextafter(visit.times[-1], -math.inf))
            assert all(not seen for _, seen in film(plain(SIZE, 0), place, who, [visit], ends))


def test_walks_are_steady_and_stay_on_the_lanes() -> None:
    plan = draw_site(4, 1)
    gates = {gate.name: (gate.x, gate.y) for gate in plan.gates}
    visits = plan_visits(plan, people=40, seconds=120, returning=0.25, crowd=0, seed=1)
    assert {visit.pid for visit in visits} == set(range(1, 41))
    for visit in visits:
        assert [visit.points[0], visit.points[-1]] == [
            pytest.approx((gates[end][0] + dx, gates[end][1]))
            for end in (visit.entry, visit.exit)
            for dx in [visit.points[0][0] - gates[visit.entry][0]]
        ]
        speeds = [
            math.dist(a, b) / (to - since)
            for (a, b), (since, to) in zip(
                itertools.pairwise(visit.points), itertools.pairwise(visit.times), strict=True
            )
        ]
        walking = [speed for speed in speeds if speed]
        assert min(walking) == pytest.approx(max(walking))
        assert 1.0 <= walking[0] <= 1.6
        assert all(4 <= y <= 12 for _, y in visit.points)
        middle = [stance(visit, time) for time in np.linspace(visit.times[0], visit.times[-1], 200)[:-1].tolist()]
        assert None not in middle
        step = (visit.times[-1] - visit.times[0]) / 199
        for one, next_one in itertools.pairwise(middle):
            assert one is not None
            assert next_one is not None
            assert math.dist((one.x, one.y), (next_one.x, next_one.y)) <= walking[0] * step + 1e-9
        assert stance(visit, visit.times[0] - 1e-6) is stance(visit, visit.times[-1]) is None


def test_stance_between_corners_by_hand() -> None:
    visit = Visit(1, 1, None, "a", "b", (10, 12, 15, 17), ((0, 0), (0, 2), (0, 2), (4, 2)))
    at = stance(visit, 11)
    assert at is not None
    assert (at.x, at.y, at.heading, at.walked, at.standing) == pytest.approx((0, 1, 90, 1, False))
    at = stance(visit, 14)
    assert at is not None
    assert (at.x, at.y, at.heading, at.walked, at.standing) == pytest.approx((0, 2, 90, 2, True))
    at = stance(visit, 16.5)
    assert at is not None
    assert (at.x, at.y, at.heading, at.walked, at.standing) == pytest.approx((3, 2, 0, 5, False))


def test_some_come_back_soon_and_some_late() -> None:
    plan = draw_site(4, 0)
    visits = plan_visits(plan, people=40, seconds=300, returning=0.5, crowd=0, seed=0)
    by_pid = defaultdict(list)
    for visit in visits:
        by_pid[visit.pid].append(visit)
    gaps = [second.times[0] - first.times[-1] for first, second in (each for each in by_pid.values() if len(each) > 1)]
    assert len(gaps) == 20
    soon, late = [gap for gap in gaps if gap <= 15], [gap for gap in gaps if gap > 120]
    assert len(soon) == len(late) == 10
    assert min(soon) >= 5
    assert {visit.number for visit in visits} == {1, 2}


def test_the_same_people_come_back_the_next_day_on_other_ways() -> None:
    plan = draw_site(4, 0)
    first, second, third = (
        plan_visits(plan, people=30, seconds=300, returning=0.2, crowd=0.3, seed=0, day=day) for day in (1, 2, 3)
    )
    assert first == plan_visits(plan, people=30, seconds=300, returning=0.2, crowd=0.3, seed=0)
    for one, other in itertools.combinations((first, second, third), 2):
        assert {visit.pid for visit in one} == {visit.pid for visit in other} == set(range(1, 31))
        # Groups stay together, and nobody walks at the same time again.
        assert {(visit.pid, visit.group) for visit in one} == {(visit.pid, visit.group) for visit in other}
        assert not {(visit.pid, visit.times) for visit in one} & {(visit.pid, visit.times) for visit in other}


def test_a_crowd_walks_together() -> None:
    plan = draw_site(3, 0)
    visits = plan_visits(plan, people=30, seconds=60, returning=0, crowd=0.6, seed=4)
    groups = defaultdict(list)
    for visit in visits:
        groups[visit.group].append(visit)
    assert sum(len(members) for group, members in groups.items() if group is not None) == 18
    for group, members in groups.items():
        if group is not None:
            assert 2 <= len(members) <= 6
            assert len({member.times for member in members}) == 1
            for one, other in itertools.combinations(members, 2):
                gaps = [math.dist(a, b) for a, b in zip(one.points, other.points, strict=True)]
                assert 0.5 < min(gaps) < 4
                assert min(gaps) == pytest.approx(max(gaps))


@pytest.mark.parametrize("people", range(1, 12))
@pytest.mark.parametrize("crowd", [0.0, 0.3, 1.0])
def test_everybody_walks_once_whatever_the_crowd(people: int, crowd: float) -> None:
    visits = plan_visits(draw_site(1, 0), people=people, seconds=60, returning=0, crowd=crowd, seed=people)
    assert [visit.pid for visit in visits] == list(range(1, people + 1))
    assert 1 not in Counter(visit.group for visit in visits if visit.group is not None).values()


def test_uniforms_are_the_same_clothes_on_different_people() -> None:
    who = dress(10, 4, 0)
    chosen = wearers(10, 4, 0)
    assert len(chosen) == 4
    clothes = {pid: (look.upper, look.lower, look.shoes, look.hat) for pid, look in who.items()}
    assert len({clothes[pid] for pid in chosen}) == 1
    assert len(set(clothes.values())) == 7
    assert len({look.height for look in who.values()}) == 10
    assert dress(10, 0, 0) == {pid: person(0, pid) for pid in range(1, 11)}
