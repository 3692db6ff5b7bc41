"""Drawn cameras: the truth that is written is the truth of the pixels, and the files are as their readers want them."""

import csv
import itertools
import json
import math
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.cli import main
from reprism.drawn.cameras import plan_recordings, render_cameras
from reprism.drawn.footage import Scenery, Sight, film, scenery
from reprism.drawn.output import DRAWN_MARK
from reprism.drawn.people import person
from reprism.drawn.shots import Camera, camera
from reprism.drawn.sites import SiteCamera, draw_site, focal, project, shared_area
from reprism.drawn.sprites import _ROOM, Pose, _drawn, obstacle_sprite, pose
from reprism.drawn.truth import number_tracks
from reprism.drawn.walks import Visit, dress, plan_visits, stance, wearers

av = pytest.importorskip("av", reason="PyAV is not installed")

SIZE = (180, 320)
SMALL: dict[str, Any] = {"cameras": 3, "people": 4, "seconds": 4, "fps": 5, "size": (96, 128), "seed": 19}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cameras without noise; camera 2 is 45 s ahead, camera 3 lacks 10 s."""
    return render_cameras(
        tmp_path_factory.mktemp("drawn") / "site",
        people=14,
        seconds=40,
        fps=5,
        size=SIZE,
        returning=0.3,
        crowd=0.4,
        uniforms=3,
        clock_offsets={2: 45},
        dropouts=[(3, 12, 22)],
        noise=0,
        seed=5,
    )


@pytest.fixture(scope="module")
def described(site: Path) -> dict[str, Any]:
    return json.loads((site / "site.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def truth(site: Path) -> list[dict[str, str]]:
    return rows(site / "truth.csv")


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def box(row: dict[str, str]) -> tuple[slice, slice]:
    left, top, right, bottom = (int(row[side]) for side in ("left", "top", "right", "bottom"))
    return slice(top, bottom), slice(left, right)


def plain(size: tuple[int, int], value: int, things: tuple[tuple[float, np.ndarray], ...] = ()) -> Scenery:
    return Scenery(np.full((*size, 3), value, np.uint8), things)


def changed(camera: SiteCamera, who: Any, visits: list[Visit], time: float, size: tuple[int, int]) -> np.ndarray:
    """The pixels that people change: what neither a black nor a white background shows as it is."""
    on_black, on_white = (next(film(plain(size, value), camera, who, visits, [time]))[0] for value in (0, 255))
    return (on_black != 0).any(axis=2) | (on_white != 255).any(axis=2)


# The geometry


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


# The walks


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


# The pixels


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


# The tables and the files


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.lists(st.sets(st.integers(1, 3)), max_size=40), st.integers(1, 9))
def test_a_new_track_begins_after_a_second_outside(fps: int, present: list[set[int]], first: int) -> None:
    seen = [[Sight(pid, 1, 0, 0, 1, 1, 1.0, 0.0, 0.0) for pid in sorted(pids)] for pids in present]
    numbers = number_tracks(seen, fps, first)
    tracks = defaultdict(list)
    for frame, (sights, given_numbers) in enumerate(zip(seen, numbers, strict=True)):
        for sight, number in zip(sights, given_numbers, strict=True):
            tracks[number].append((frame, sight.pid))
    assert sorted(tracks) == list(range(first, first + len(tracks)))
    for frames in tracks.values():
        assert len({pid for _, pid in frames}) == 1
    for pid in (1, 2, 3):
        runs = "".join("x" if pid in pids else "." for pids in present).split("." * fps)
        assert sum(any(who == pid for _, who in frames) for frames in tracks.values()) == sum(
            "x" in run for run in runs
        )


def test_videos_have_every_frame_at_its_time(site: Path, described: dict[str, Any]) -> None:
    names = [file["name"] for each in described["cameras"] for file in each["files"]]
    assert names == ["cam1.mp4", "cam2.mp4", "cam3-1.mp4", "cam3-2.mp4", "cam4.mp4"]
    assert sorted(path.name for path in site.glob("*.mp4")) == names
    for place in described["cameras"]:
        for file in place["files"]:
            with av.open(str(site / file["name"])) as video:
                stream = video.streams.video[0]
                assert (stream.codec_context.name, stream.height, stream.width) == ("h264", *SIZE)
                times = [float(frame.pts * frame.time_base) for frame in video.decode(stream)]
                assert times == pytest.approx([number / 5 for number in range(file["frames"])])
                tagged = datetime.fromisoformat(video.metadata["creation_time"])
                assert tagged == datetime.fromisoformat(file["clock_start"])
                assert tagged - datetime.fromisoformat(file["start"]) == timedelta(seconds=place["clock_offset"])
    assert [place["clock_offset"] for place in described["cameras"]] == [0, 45, 0, 0]


def test_a_dropout_leaves_no_frames_and_times_are_those_of_the_frames(site: Path, truth: list[dict[str, str]]) -> None:
    begun = datetime(2026, 1, 5, 9, tzinfo=UTC)
    seconds = defaultdict(list)
    for row in truth:
        seconds[row["file"]].append((datetime.fromisoformat(row["time"]) - begun).total_seconds())
    assert len(decoded(site / "cam3-1.mp4")) == 60
    assert len(decoded(site / "cam3-2.mp4")) == 90
    assert 0 <= min(seconds["cam3-1.mp4"]) <= max(seconds["cam3-1.mp4"]) < 12
    assert 22 <= min(seconds["cam3-2.mp4"]) <= max(seconds["cam3-2.mp4"]) < 40
    for row in truth:
        start = 22 if row["file"] == "cam3-2.mp4" else 0
        at = begun + timedelta(seconds=start + (int(row["frame"]) - 1) / 5)
        assert datetime.fromisoformat(row["time"]) == at
        assert datetime.fromisoformat(row["clock"]) == at + timedelta(seconds=45 * (row["camera"] == "cam2"))


def test_decoded_frames_are_those_of_the_truth(site: Path, truth: list[dict[str, str]]) -> None:
    """Inside a truth box the picture differs from the empty scene; outside all boxes only as much as the codec does."""
    plan = draw_site(4, 5)
    by_frame = defaultdict(list)
    for row in truth:
        by_frame[row["file"], int(row["frame"])].append(row)
    checked = 0
    for place in plan.cameras:
        empty = scenery(plan, place, SIZE).picture.astype(int)
        for path in sorted(site.glob(f"{place.name}*.mp4")):
            for number, frame in enumerate(decoded(path)[::7]):
                differs = np.abs(frame - empty).mean(axis=2)
                outside = np.ones(SIZE, bool)
                for row in by_frame[path.name, 1 + 7 * number]:
                    rows_, columns = box(row)
                    near = slice(max(rows_.start - 4, 0), rows_.stop + 4)
                    outside[near, max(columns.start - 4, 0) : columns.stop + 4] = False
                    if float(row["visibility"]) > 0.6:
                        checked += 1
                        assert np.quantile(differs[rows_, columns], 0.9) > 20
                assert np.quantile(differs[outside], 0.999) < 25
                assert differs[outside].mean() < 4
    assert checked > 40


def test_who_is_seen_by_two_cameras_is_seen_by_the_twins_at_one_time_and_place(truth: list[dict[str, str]]) -> None:
    together = defaultdict(dict)
    for row in truth:
        together[row["pid"], row["time"]][row["camera"]] = (row["x"], row["y"])
    shared = [places for places in together.values() if len(places) > 1]
    assert len(shared) > 20
    for places in shared:
        assert set(places) == {"cam1", "cam2"}
        assert len(set(places.values())) == 1


def test_tables_and_plan_agree(site: Path, described: dict[str, Any], truth: list[dict[str, str]]) -> None:
    assert json.loads((site / DRAWN_MARK).read_text("utf-8"))["seed"] == 5
    assert [overlap["cameras"] for overlap in described["overlaps"]] == [["cam1", "cam2"]]
    assert sum(each["uniform"] for each in described["people"]) == 3
    visits = {(str(visit["pid"]), str(visit["visit"])): visit for visit in described["visits"]}
    for row in truth:
        visit = visits[row["pid"], row["visit"]]
        assert visit["start"] <= row["time"] <= visit["end"]
    tracks = rows(site / "tracks.csv")
    assert len({(track["camera"], track["track"]) for track in tracks}) == len(tracks)
    for track in tracks:
        own = [row for row in truth if (row["camera"], row["track"]) == (track["camera"], track["track"])]
        assert {(row["file"], row["pid"], row["visit"]) for row in own} == {
            (track["file"], track["pid"], track["visit"])
        }
        for end, row in (("first", own[0]), ("last", own[-1])):
            assert (track[f"{end}_frame"], track[f"{end}_time"]) == (row["frame"], row["time"])
        assert float(track["visibility"]) == pytest.approx(np.mean([float(row["visibility"]) for row in own]), abs=1e-3)
    assert sum(1 for _ in truth) == sum(
        len((site / name / "gt" / "gt.txt").read_text().splitlines())
        for name in ("cam1", "cam2", "cam3-1", "cam3-2", "cam4")
    )


def test_mot_challenge_counts_from_one(site: Path, truth: list[dict[str, str]]) -> None:
    for name in ("cam1", "cam3-2"):
        lines = (site / name / "gt" / "gt.txt").read_text().splitlines()
        own = [row for row in truth if row["file"] == f"{name}.mp4"]
        for line, row in zip(lines, own, strict=True):
            frame, track, left, top, wide, tall, considered, kind, visibility = line.split(",")
            assert (frame, track, considered, kind, visibility) == (
                row["frame"],
                row["track"],
                "1",
                "1",
                row["visibility"],
            )
            assert (int(left) - 1, int(top) - 1) == (int(row["left"]), int(row["top"]))
            assert int(left) - 1 + int(wide) == int(row["right"]) <= SIZE[1]
            assert int(top) - 1 + int(tall) == int(row["bottom"]) <= SIZE[0]
    assert (site / "cam3-2" / "seqinfo.ini").read_text() == (
        "[Sequence]\nname=cam3-2\nimDir=img1\nframeRate=5\nseqLength=90\nimWidth=320\nimHeight=180\nimExt=.jpg\n"
    )


def test_the_truth_against_itself_is_perfect(site: Path, tmp_path: Path) -> None:
    evaluate = pytest.importorskip("trackers.eval.evaluate", reason="trackers is not installed")
    text = (site / "cam1" / "gt" / "gt.txt").read_text()
    (tmp_path / "found.txt").write_text("".join(f"{line.rsplit(',', 2)[0]},-1,-1,-1\n" for line in text.splitlines()))
    result = evaluate.evaluate_mot_sequence(
        site / "cam1" / "gt" / "gt.txt", tmp_path / "found.txt", metrics=["CLEAR", "HOTA", "Identity"]
    )
    perfect = pytest.approx((1, 1, 1))
    assert perfect == (result.CLEAR.MOTA, result.HOTA.HOTA, result.Identity.IDF1)


def test_trackeval_reads_it(site: Path, tmp_path: Path) -> None:
    trackeval = pytest.importorskip("trackeval", reason="trackeval is not installed")
    names = ["cam1", "cam2", "cam3-1", "cam3-2", "cam4"]
    (tmp_path / "truth" / "data").mkdir(parents=True)
    for name in names:
        text = (site / name / "gt" / "gt.txt").read_text()
        (tmp_path / "truth" / "data" / f"{name}.txt").write_text(text)
    data = trackeval.datasets.MotChallenge2DBox(
        {
            **trackeval.datasets.MotChallenge2DBox.get_default_dataset_config(),
            "GT_FOLDER": str(site),
            "TRACKERS_FOLDER": str(tmp_path),
            "TRACKERS_TO_EVAL": ["truth"],
            "SEQ_INFO": dict.fromkeys(names),
            "SKIP_SPLIT_FOL": True,
            "PRINT_CONFIG": False,
        }
    )
    for name in names:
        sequence = data.get_preprocessed_seq_data(data.get_raw_seq_data("truth", name), "pedestrian")
        assert sequence["num_gt_dets"] == len((site / name / "gt" / "gt.txt").read_text().splitlines())
        assert trackeval.metrics.HOTA().eval_sequence(sequence)["HOTA"] == pytest.approx(1)
        assert trackeval.metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(sequence)["IDF1"] == pytest.approx(1)


def test_a_wrong_clock_changes_nothing_but_what_it_says(tmp_path: Path) -> None:
    right = render_cameras(tmp_path / "right", **SMALL)
    wrong = render_cameras(tmp_path / "wrong", **SMALL, clock_offsets={1: -30})
    assert {row["camera"] for row in rows(right / "truth.csv")} >= {"cam1", "cam2"}
    for table in ("truth.csv", "tracks.csv"):
        for one, other in zip(rows(right / table), rows(wrong / table), strict=True):
            clocks = one.pop("clock", None), other.pop("clock", None)
            assert one == other
            if table == "truth.csv":
                late = datetime.fromisoformat(clocks[0] or "") - datetime.fromisoformat(clocks[1] or "")
                assert late.total_seconds() == (30 if one["camera"] == "cam1" else 0)
    for path in right.glob("*.mp4"):
        np.testing.assert_array_equal(decoded(path), decoded(wrong / path.name))
    with av.open(str(wrong / "cam1.mp4")) as video:
        assert video.metadata["creation_time"].startswith("2026-01-05T08:59:30")


def test_the_same_seed_gives_the_same_truth_and_frames(tmp_path: Path) -> None:
    first, again = (render_cameras(tmp_path / name, **SMALL) for name in ("first", "again"))
    other = render_cameras(tmp_path / "other", **{**SMALL, "seed": 8})
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for name in files:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    assert (first / "truth.csv").read_bytes() != (other / "truth.csv").read_bytes()


def test_noise_is_there_and_can_be_left_out(tmp_path: Path) -> None:
    """Without people the frames of a camera differ by their noise alone."""
    spread = {}
    for noise in (0.0, 1.0, 6.0):
        folder = render_cameras(
            tmp_path / str(noise), cameras=1, people=1, seconds=2, fps=2, size=SIZE, noise=noise, seed=6
        )
        assert not rows(folder / "truth.csv")
        frames = np.array(decoded(folder / "cam1.mp4"), float)
        spread[noise] = frames.std(axis=0).mean()
    # Without noise the codec alone makes them differ.
    assert spread[0.0] < 2
    assert spread[0.0] < spread[1.0] < spread[6.0]
    assert spread[0.0] + 3 < spread[6.0] < 25


def test_progress_counts_every_frame(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    render_cameras(tmp_path / "site", **SMALL, dropouts=[(1, 1, 2)], progress=lambda *at: told.append(at))
    assert told == [(number, 55) for number in range(1, 56)]


def test_an_occupied_root_is_refused_and_an_interrupted_rendering_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="full exists and is not empty"):
        render_cameras(tmp_path / "full", **SMALL)

    def stop(done: int, total: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_cameras(tmp_path / "new", **SMALL, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cameras": 13}, "cameras must be 1 to 12, but is 13"),
        ({"people": 0}, "people must be 1 or more, but is 0"),
        ({"fps": 61}, "fps must be 1 to 60, but is 61"),
        ({"uniforms": 5}, "uniforms must be 0 to 4, but is 5"),
        ({"seed": -1}, "seed must be 0 or more, but is -1"),
        ({"seconds": math.nan}, "seconds must be 1 to 86400, but is nan"),
        ({"returning": 1.5}, "returning must be 0 to 1, but is 1.5"),
        ({"crowd": -0.1}, "crowd must be 0 to 1, but is -0.1"),
        ({"noise": 21}, "noise must be 0 to 20, but is 21"),
        ({"size": (97, 128)}, r"even \(height, width\).*\(97, 128\)"),
        ({"start": datetime(2026, 1, 1)}, "time zone"),
        ({"clock_offsets": {4: 1}}, "camera from 1 to 3 .*got 4"),
        ({"clock_offsets": {1: 0.5}}, "whole seconds.*camera 1, got 0.5"),
        ({"dropouts": [(1, 2, 5)]}, r"within the 4 seconds of the recording, got \(2, 5\)"),
        ({"dropouts": [(1, 0, 2), (1, 1, 3)]}, r"one after the other.*got \(1, 3\)"),
        ({"dropouts": [(2, 3, 3)]}, r"got \(3, 3\)"),
        ({"dropouts": [(1, 0, 4)]}, "camera 1 leave nothing"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        render_cameras(tmp_path / "site", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


def test_several_dropouts_and_one_at_the_beginning() -> None:
    plan = draw_site(2, 0)
    begun = datetime(2026, 1, 5, 9, tzinfo=UTC)
    found = plan_recordings(
        plan, frames=100, fps=10, start=begun, clock_offsets={}, dropouts=[(2, 6, 7), (1, 0, 4), (2, 2, 3)]
    )
    assert [(each.name, each.first, each.frames, (each.start - begun).seconds) for each in found] == [
        ("cam1", 40, 60, 4),
        ("cam2-1", 0, 20, 0),
        ("cam2-2", 30, 30, 3),
        ("cam2-3", 70, 30, 7),
    ]


def test_without_pyav_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"needs PyAV. Install it: pip install 'reprism\[video\]'"):
        render_cameras(tmp_path / "site", **SMALL)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--cameras", "2", "--people", "3", "--seconds", "4", "--fps", "2", "--size", "96", "128"]
    asked = ["--clock-offsets", "1=-5", "2=45", "--dropouts", "1=1-2", "--start", "2026-05-01T12:00:00+02:00"]
    command = ["data", "render", "cameras", str(tmp_path / "site"), *small, *asked]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'site'}\n"
    written = json.loads((tmp_path / "site" / "site.json").read_text())
    assert [place["clock_offset"] for place in written["cameras"]] == [-5, 45]
    assert [file["name"] for file in written["cameras"][0]["files"]] == ["cam1-1.mp4", "cam1-2.mp4"]
    assert written["cameras"][1]["files"][0]["clock_start"] == "2026-05-01T12:00:45+02:00"
    with av.open(str(tmp_path / "site" / "cam2.mp4")) as video:
        assert video.metadata["creation_time"].startswith("2026-05-01T10:00:45")
    assert main(command) == 1
    assert "is not empty" in capsys.readouterr().err
    for option, value in (("--clock-offsets", "2:45"), ("--dropouts", "1=2"), ("--start", "noon")):
        assert main(["data", "render", "cameras", str(tmp_path / "other"), option, value]) == 1
        assert f"expected {option}" in capsys.readouterr().err
