"""What a drawn camera records: the truth about a frame is the truth of its pixels."""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.drawn.footage import Scenery, film, scenery
from reprism.drawn.people import person
from reprism.drawn.shots import Camera, camera
from reprism.drawn.sites import SiteCamera, draw_site, focal, project
from reprism.drawn.sprites import _ROOM, Pose, _drawn, obstacle_sprite, pose
from reprism.drawn.walks import Visit, dress, plan_visits, stance

SIZE = (180, 320)


def plain(size: tuple[int, int], value: int, things: tuple[tuple[float, np.ndarray], ...] = ()) -> Scenery:
    return Scenery(np.full((*size, 3), value, np.uint8), things)


def changed(camera: SiteCamera, who: Any, visits: list[Visit], time: float, size: tuple[int, int]) -> np.ndarray:
    """The pixels that people change: what neither a black nor a white background shows as it is."""
    on_black, on_white = (next(film(plain(size, value), camera, who, visits, [time]))[0] for value in (0, 255))
    return (on_black != 0).any(axis=2) | (on_white != 255).any(axis=2)


def test_no_pose_is_cut_by_its_canvas() -> None:
    for pid, turn, phase in itertools.product(range(12), range(0, 16, 2), (None, 0, 2, 5)):
        picture, (left, top) = _drawn(person(7, pid), Pose(turn, phase), 0.7, 128)
        assert left > -round(_ROOM[1] * 128) // 2
        assert left + picture.width < round(_ROOM[1] * 128) // 2
        assert -round((_ROOM[0] + 1) / 2 * 128) < top
        assert top + picture.height < round((_ROOM[0] - 1) / 2 * 128)


def test_poses_follow_the_way() -> None:
    somebody = person(0, 1)
    assert pose(somebody, 359, None) == pose(somebody, 0, None) == Pose(0, None)
    assert pose(somebody, -90, 0.0).yaw == 270
    phases = [pose(somebody, 0, walked).phase for walked in np.arange(0, 3, 0.02).tolist()]
    turns = sum(one == 7 and after == 0 for one, after in itertools.pairwise(phases))
    # Two steps of about 0.4 body heights a cycle.
    assert 3 / (2 * 0.6 * somebody.height) < turns + 1 < 1 + 3 / (2 * 0.25 * somebody.height)


def looking_north(look: Camera, tall: int, wide: int, margin: int = 0) -> SiteCamera:
    """The same pinhole, its picture larger by a margin on every side."""
    focus = wide / 2 / math.tan(math.radians(60) / 2)
    angle = 2 * math.degrees(math.atan((wide / 2 + margin) / focus))
    return SiteCamera("cam1", 14, -2, 3, 90, angle, (0.1 * tall + margin) / (tall + 2 * margin), look)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_boxes_and_visibilities_are_those_of_counted_pixels(seed: int) -> None:
    """Each person alone on black and white, in a picture with a margin: the pixels are counted one by one."""
    rng = np.random.default_rng(seed)
    tall, wide, margin = 120, 200, 110
    who = {pid: person(seed, pid) for pid in range(1, 6)}
    visits = [
        Visit(pid, 1, None, "a", "b", (0.0, 5.0, 9.0), tuple((float(x), float(y)) for x, y in ends))
        for pid in who
        for ends in [np.column_stack([rng.uniform(8, 20, 3), rng.uniform(2, 9, 3)])]
    ]
    things = []
    for distance in sorted(rng.uniform(4, 10, 2).tolist()):
        mask = np.zeros((tall, wide), bool)
        top, left = rng.integers(0, (tall, wide))
        mask[top : top + 50, left : left + 40] = True
        things.append((distance, mask))
    time = float(rng.uniform(0, 9))
    look = camera(seed, 1)
    narrow, large = looking_north(look, tall, wide), looking_north(look, tall, wide, margin)
    [(_, sights)] = film(plain((tall, wide), 0, tuple(things)), narrow, who, visits, [time])
    places = {visit.pid: stance(visit, time) for visit in visits}
    whole = {visit.pid: changed(large, who, [visit], time, (tall + 2 * margin, wide + 2 * margin)) for visit in visits}
    inside = {pid: mask[margin:-margin, margin:-margin] for pid, mask in whole.items()}
    assert [sight.pid for sight in sights] == [pid for pid in who if inside[pid].any()]
    for sight in sights:
        at = places[sight.pid]
        assert at is not None
        assert (sight.x, sight.y) == (at.x, at.y)
        lines, columns = (np.flatnonzero(whole[sight.pid].any(axis=axis)) - margin for axis in (1, 0))
        assert (sight.left, sight.right) == (max(columns[0], 0), min(columns[-1] + 1, wide))
        assert (sight.top, sight.bottom) == (max(lines[0], 0), min(lines[-1] + 1, tall))
        hidden = np.zeros((tall, wide), bool)
        for pid, other in places.items():
            assert other is not None
            if other.y < at.y:
                hidden |= inside[pid]
        for distance, mask in things:
            if distance < at.y + 2:
                hidden |= mask
        shown = np.count_nonzero(inside[sight.pid] & ~hidden)
        assert sight.visibility == pytest.approx(shown / np.count_nonzero(whole[sight.pid]))


def test_figures_are_as_tall_as_the_pinhole_says() -> None:
    look = camera(0, 1)
    seen_by = looking_north(look, 360, 640)
    aside = []
    for pid in range(1, 8):
        somebody = replace(person(0, pid), hat="none", hair="short", bag="none")
        # Standing, after steps towards the camera.
        visit = Visit(
            pid, 1, None, "a", "b", (0.0, 1.0, 9.0), ((14, 8 + pid / 4), (14, 6 + pid / 4), (14, 6 + pid / 4))
        )
        [(_, [sight])] = film(plain((360, 640), 0), seen_by, {pid: somebody}, [visit], [5.0])
        expected = 320 / math.tan(math.radians(30)) * somebody.height / (8 + pid / 4)
        assert sight.bottom - sight.top == pytest.approx(expected, rel=0.05)
        aside.append((sight.left + sight.right) / 2 - 320)
        assert sight.bottom == pytest.approx(36 + 3 * 320 / math.tan(math.radians(30)) / (8 + pid / 4), abs=4)
    # Seen from the front, both halves are alike.
    assert np.mean(aside) == pytest.approx(0, abs=0.6)
    assert max(map(abs, aside)) < 3


def test_frames_are_the_background_outside_the_boxes_and_not_inside() -> None:
    plan = draw_site(4, 2)
    who = dress(10, 0, 2)
    visits = plan_visits(plan, people=10, seconds=60, returning=0, crowd=0.5, seed=2)
    boxes = 0
    for place in plan.cameras:
        empty = scenery(plan, place, SIZE)
        for frame, sights in film(empty, place, who, visits, np.arange(0, 60, 1.0).tolist()):
            differs = (frame != empty.picture).any(axis=2)
            outside = differs.copy()
            for sight in sights:
                inside = differs[sight.top : sight.bottom, sight.left : sight.right]
                boxes += 1
                if sight.visibility > 0.5:
                    assert inside.mean() > 0.15
                if sight.visibility == 1:
                    assert inside[0].any()
                    assert inside[-1].any()
                outside[sight.top : sight.bottom, sight.left : sight.right] = False
            assert not outside.any()
    assert boxes > 50


def test_obstacles_stand_where_the_plan_has_them() -> None:
    plan = draw_site(2, 0)
    for place in plan.cameras:
        with_things, without = (scenery(each, place, (360, 640)) for each in (plan, replace(plan, obstacles=())))
        differs = (with_things.picture != without.picture).any(axis=2)
        masks = np.logical_or.reduce([mask for _, mask in with_things.things])
        assert not (differs & ~masks).any()
        assert differs[masks].mean() > 0.9
        distances = [distance for distance, _ in with_things.things]
        assert distances == sorted(distances)
        placed = [project(place, thing.x, thing.y, (360, 640)) for thing in plan.obstacles]
        assert sorted(distances) == pytest.approx(sorted(each[2] for each in placed))
        for (column, row, distance), thing in zip(placed, plan.obstacles, strict=True):
            mask = next(mask for each, mask in with_things.things if each == pytest.approx(distance))
            sprite = obstacle_sprite(thing, place.look, focal(place, (360, 640)) / distance)
            assert sprite is not None
            columns = np.flatnonzero(mask.any(axis=0))
            assert columns.mean() == pytest.approx(column, abs=0.08 * focal(place, (360, 640)) / distance + 1)
            assert np.flatnonzero(mask.any(axis=1))[-1] == pytest.approx(min(row, 359), abs=2)


def test_who_is_behind_is_painted_behind() -> None:
    look = camera(3, 1)
    seen_by = looking_north(look, 180, 320)
    who = {1: person(1, 1), 2: person(1, 2)}
    ways = {1: ((12.0, 5.0), (16.0, 5.0)), 2: ((16.0, 5.5), (12.0, 5.5))}
    visits = [Visit(pid, 1, None, "a", "b", (0.0, 4.0), way) for pid, way in ways.items()]
    near_only, far_only, both = (
        next(film(plain((180, 320), 0), seen_by, who, some, [2.0])) for some in (visits[:1], visits[1:], visits)
    )
    near = changed(seen_by, who, visits[:1], 2.0, (180, 320))
    solid = near & (near_only[0].max(axis=2) > 40)
    assert [sight.pid for sight in both[1]] == [1, 2]
    assert both[1][0].visibility == 1
    assert both[1][1].visibility < 0.5
    assert (both[0][~near] == far_only[0][~near]).all()
    assert (both[0][solid] == near_only[0][solid]).mean() > 0.9


@pytest.mark.parametrize(("camera_y", "heading"), [(-2.0, 90.0), (18.0, 270.0)])
@pytest.mark.parametrize("east", [False, True])
def test_a_backpack_is_carried_behind(camera_y: float, heading: float, east: bool) -> None:
    """Who walks to the right in the picture has the backpack on the left, in the cameras of both sides."""
    look = replace(camera(0, 1), gains=(1.0, 1.0, 1.0), saturation=1.0, contrast=1.0, brightness=1.0, gamma=1.0)
    seen_by = SiteCamera("cam1", 14, camera_y, 3, heading, 60, 0.1, look)
    somebody = replace(person(0, 1), bag="backpack", bag_color=(255, 0, 255), skin=(90, 90, 90), hat="none")
    somebody = replace(
        somebody,
        upper=replace(somebody.upper, kind="coat", color=(90, 90, 90)),
        lower=replace(somebody.lower, kind="trousers", color=(90, 90, 90)),
    )
    ends = ((12.0, 8.0), (16.0, 8.0)) if east else ((16.0, 8.0), (12.0, 8.0))
    visit = Visit(1, 1, None, "a", "b", (0.0, 4.0), ends)
    [(frame, [sight])] = film(plain((360, 640), 0), seen_by, {1: somebody}, [visit], [2.0])
    pink = np.flatnonzero((frame[:, :, 0].astype(int) - frame[:, :, 1] > 100).any(axis=0))
    to_the_right = east == (heading == 90)
    assert (pink.mean() < (sight.left + sight.right) / 2) == to_the_right
