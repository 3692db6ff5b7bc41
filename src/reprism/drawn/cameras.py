"""Write a drawn site: a video of each camera, and the exact truth about everybody in it.

The folder holds

- ``cam1.mp4``, ``cam2.mp4`` …; a camera that drops out leaves ``cam3-1.mp4`` and ``cam3-2.mp4``, each with the time of
  its own start;
- beside each video a folder of its name, as MOT-challenge has it: ``gt/gt.txt`` and ``seqinfo.ini``;
- ``truth.csv``: a row for each person in each frame; ``tracks.csv``: a row for each time that a person crosses a view;
- ``site.json``: the plan, the cameras and their files, which of them overlap, the people and their ways.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from reprism.drawn.footage import Sight, film, scenery
from reprism.drawn.output import check_range, counter, mark_drawn
from reprism.drawn.people import Person, generator
from reprism.drawn.sites import Site, SiteCamera, draw_site, shared_area
from reprism.drawn.truth import TRACKS, TRUTH, Recording, number_tracks, track_rows, truth_rows, write_mot
from reprism.drawn.video import Noise, require_av, write_video
from reprism.drawn.walks import Visit, dress, plan_visits, wearers
from reprism.files import whole_folder, write_json
from reprism.progress import Count

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
"""True time of the first frame if nothing else is asked for."""


def render_cameras(
    root: str | Path,
    *,
    cameras: int = 4,
    people: int = 12,
    seconds: float = 120.0,
    fps: int = 10,
    size: tuple[int, int] = (360, 640),
    returning: float = 0.25,
    crowd: float = 0.0,
    uniforms: int = 0,
    clock_offsets: Mapping[int, int] | None = None,
    dropouts: Sequence[tuple[int, int, int]] = (),
    noise: float = 1.0,
    start: datetime = START,
    day: int = 1,
    seed: int = 0,
    progress: Count | None = None,
) -> Path:
    """Draw a site of several cameras: videos, and who is where in them.

    Cameras 1 and 2 look at the same place from opposite sides, cameras 3 and 4 each at a place that no other sees, and
    so on in threes and fours.

    Args:
        root: The folder to write; it may exist if it is empty.
        cameras: Number of cameras, 1 to 12.
        people: Number of people, 1 or more; each visits the site once or twice.
        seconds: Length of the recording, 1 to 86,400.
        fps: Frames per second, 1 to 60.
        size: Height and width of the frames in pixels, even, at least (96, 128).
        returning: Share of the people who come back, 0 to 1: some after seconds, some as late as possible.
        crowd: Share of the people who walk in groups, 0 to 1.
        uniforms: Number of people in the same clothes.
        clock_offsets: Seconds by which a camera's clock is ahead of the true time, by camera number from 1 on.
        dropouts: (camera number, from, to) in seconds after the start: the camera records nothing meanwhile.
        noise: Factor of the cameras' noise, 0 to 20.
        start: True time of the first frame of day 1, in whole seconds, with a time zone.
        day: Day to draw, 1 to 366: the same people at the same hour, a day later each, on other ways.
        seed: The same seed gives the same truth and the same frames.
        progress: Called as progress(done, total) after every frame.

    Returns:
        root.

    Raises:
        ValueError: An argument is out of range, or PyAV is not installed.
        FileExistsError: Root exists and is not an empty folder.
    """
    require_av()
    check_range(1, 12, cameras=cameras)
    check_range(1, None, people=people)
    check_range(1, 60, fps=fps)
    check_range(0, people, uniforms=uniforms)
    check_range(0, None, seed=seed)
    check_range(1, 366, day=day)
    for name, value, low, high in (
        ("seconds", seconds, 1, 86_400),
        ("returning", returning, 0, 1),
        ("crowd", crowd, 0, 1),
        ("noise", noise, 0, 20),
    ):
        if not low <= value <= high:
            raise ValueError(f"{name} must be {low} to {high}, but is {value}")
    if size[0] % 2 or size[1] % 2 or size[0] < 96 or size[1] < 128:
        raise ValueError(f"size must be an even (height, width) of at least (96, 128) pixels, but is {size}")
    if start.tzinfo is None or start.microsecond:
        raise ValueError(f"start must be in whole seconds and have a time zone, but is {start.isoformat()}")
    start += timedelta(days=day - 1)
    site = draw_site(cameras, seed)
    recordings = plan_recordings(
        site, frames=round(seconds * fps), fps=fps, start=start, clock_offsets=clock_offsets or {}, dropouts=dropouts
    )
    visits = plan_visits(site, people=people, seconds=seconds, returning=returning, crowd=crowd, seed=seed, day=day)
    looks = dress(people, uniforms, seed)
    count = counter(sum(recording.frames for recording in recordings), progress)
    with whole_folder(root) as folder:
        mark_drawn(folder, seed)
        for table, columns in (("truth.csv", TRUTH), ("tracks.csv", TRACKS)):
            _append(folder / table, [columns])
        empty = {camera.name: scenery(site, camera, size) for camera in site.cameras}
        tracks = {camera.name: 0 for camera in site.cameras}
        for recording in recordings:
            camera = recording.camera
            times = [(recording.first + number) / fps for number in range(recording.frames)]
            seen: list[list[Sight]] = []
            write_video(
                folder / f"{recording.name}.mp4",
                _frames(film(empty[camera.name], camera, looks, visits, times), seen, count),
                fps=fps,
                size=size,
                start=recording.clock,
                noise=_noise(recording, size, noise, seed),
            )
            numbers = number_tracks(seen, fps, first=tracks[camera.name] + 1)
            write_mot(folder / recording.name, recording, seen, numbers, fps, size)
            _append(folder / "truth.csv", truth_rows(recording, seen, numbers, fps))
            rows = track_rows(recording, seen, numbers, fps)
            _append(folder / "tracks.csv", rows)
            tracks[camera.name] += len(rows)
        described = {
            "seed": seed,
            "day": day,
            "start": start.isoformat(),
            "seconds": seconds,
            "fps": fps,
            "size": list(size),
            **_describe_site(site, recordings, size),
            "people": _describe_people(looks, wearers(people, uniforms, seed)),
            "visits": [_describe_visit(visit, start) for visit in visits],
        }
        write_json(folder / "site.json", described)
    return Path(root)


def plan_recordings(
    site: Site,
    *,
    frames: int,
    fps: int,
    start: datetime,
    clock_offsets: Mapping[int, int],
    dropouts: Sequence[tuple[int, int, int]],
) -> list[Recording]:
    """Divide the recording of each camera into files at its dropouts.

    Args:
        site: The site.
        frames: Number of frames from the first to the last, dropouts included.
        fps: Frames per second.
        start: True time of the first frame.
        clock_offsets: As in :func:`render_cameras`.
        dropouts: As in :func:`render_cameras`.

    Raises:
        ValueError: There is no such camera, an offset is no whole number, or dropouts of a camera overlap, lie outside
            the recording or leave nothing of it.
    """
    numbers = range(1, len(site.cameras) + 1)
    for number in (*clock_offsets, *(number for number, _, _ in dropouts)):
        if number not in numbers:
            raise ValueError(f"expected a camera from 1 to {len(site.cameras)} in offsets and dropouts, got {number}")
    for number, offset in clock_offsets.items():
        # A video file's tag for its start, creation_time, holds no parts of seconds.
        if offset != int(offset) or abs(offset) > 86_400:
            raise ValueError(f"expected whole seconds up to a day as the offset of camera {number}, got {offset}")
    recordings: list[Recording] = []
    for number, camera in enumerate(site.cameras, start=1):
        pieces, begin = [], 0
        for _, since, until in sorted(each for each in dropouts if each[0] == number):
            if not begin <= since * fps < until * fps <= frames or (since, until) != (int(since), int(until)):
                raise ValueError(
                    f"expected dropouts of camera {number} as whole seconds (from, to), one after the other and within "
                    f"the {frames / fps:g} seconds of the recording, got ({since}, {until})"
                )
            pieces.append((begin, since * fps))
            begin = until * fps
        pieces = [(first, end) for first, end in (*pieces, (begin, frames)) if first < end]
        if not pieces:
            raise ValueError(f"the dropouts of camera {number} leave nothing of its recording: shorten them")
        for part, (first, end) in enumerate(pieces, start=1):
            begun = start + timedelta(seconds=first // fps)
            recordings.append(
                Recording(
                    name=f"{camera.name}-{part}" if len(pieces) > 1 else camera.name,
                    camera=camera,
                    first=first,
                    frames=end - first,
                    start=begun,
                    clock=begun + timedelta(seconds=clock_offsets.get(number, 0)),
                )
            )
    return recordings


def _frames(
    film: Iterable[tuple[np.ndarray, list[Sight]]], seen: list[list[Sight]], count: Callable[[], None]
) -> Iterator[np.ndarray]:
    """Yield the frames, and keep what is seen in them."""
    for frame, sights in film:
        seen.append(sights)
        yield frame
        count()


def _noise(recording: Recording, size: tuple[int, int], factor: float, seed: int) -> Noise:
    look = recording.camera.look
    # Half of what the still pictures of drawn data sets have: those are of worse cameras.
    sd = factor * look.noise / 2
    return Noise(sd, look.resolution, size, generator(seed, f"noise of {recording.name}"))


def _append(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _describe_site(site: Site, recordings: Sequence[Recording], size: tuple[int, int]) -> dict[str, Any]:
    shared = [
        (first.name, second.name, shared_area(site, first, second, size))
        for first, second in combinations(site.cameras, 2)
    ]
    return {
        "plan": {"length": site.length, "depth": site.depth, "places": list(site.places)},
        "gates": [asdict(gate) for gate in site.gates],
        "obstacles": [{name: getattr(each, name) for name in ("kind", "x", "y")} for each in site.obstacles],
        "cameras": [_describe_camera(camera, recordings) for camera in site.cameras],
        "overlaps": [{"cameras": [first, second], "square_metres": area} for first, second, area in shared if area > 0],
    }


def _describe_camera(camera: SiteCamera, recordings: Sequence[Recording]) -> dict[str, Any]:
    names = ("name", "x", "y", "height", "heading", "field_of_view", "horizon")
    files = [recording for recording in recordings if recording.camera == camera]
    return {
        **{name: getattr(camera, name) for name in names},
        "clock_offset": int((files[0].clock - files[0].start).total_seconds()),
        "files": [
            {
                "name": f"{file.name}.mp4",
                "start": file.start.isoformat(),
                "clock_start": file.clock.isoformat(),
                "frames": file.frames,
            }
            for file in files
        ],
    }


def _describe_people(looks: Mapping[int, Person], in_uniform: Sequence[int]) -> list[dict[str, Any]]:
    return [{"pid": pid, "height": round(look.height, 3), "uniform": pid in in_uniform} for pid, look in looks.items()]


def _describe_visit(visit: Visit, start: datetime) -> dict[str, Any]:
    begun, ended = ((start + timedelta(seconds=time)) for time in (visit.times[0], visit.times[-1]))
    way = zip(visit.times, visit.points, strict=True)
    return {
        "pid": visit.pid,
        "visit": visit.number,
        "group": visit.group,
        "entry": visit.entry,
        "exit": visit.exit,
        "start": begun.isoformat(timespec="milliseconds"),
        "end": ended.isoformat(timespec="milliseconds"),
        "way": [[round(time, 3), round(x, 3), round(y, 3)] for time, (x, y) in way],
    }
