"""Write drawn pedestrians as data sets, in the folders and tables of Market-1501 and MARS.

Whatever reads the real data sets reads these. A data set appears under its name only once it is complete.
As in the real sets, the numbers of training and test identities lie mixed and have gaps.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reprism.drawn.output import (
    check_range,
    counter,
    mark_drawn,
    part_of,
    save_jpeg,
    save_mat,
    split_pids,
)
from reprism.drawn.people import dressed
from reprism.drawn.shots import Camera, Person, Shot, camera, draw_shot, generator, person, take_shot
from reprism.files import whole_folder
from reprism.progress import Count

# A real Thumbs.db is an OLE container, which starts like this.
_THUMBS_DB = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504)


def render_market1501(
    root: str | Path,
    *,
    train_identities: int = 32,
    test_identities: int = 32,
    cameras: int = 4,
    images_per_camera: int = 4,
    junk: int = 24,
    distractors: int = 32,
    gt_bbox: bool = False,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
    progress: Count | None = None,
) -> Path:
    """Write a drawn data set in the layout of Market-1501.

    Every camera sees every identity. One image per test identity and camera is a query, the others lie in the
    gallery. As in the real data set, each folder holds a stray ``Thumbs.db``.

    Args:
        root: The folder to write; it may exist if it is empty.
        train_identities: Number of identities to train with, 1 or more.
        test_identities: Number of other identities to test with, 1 or more.
        cameras: 2 to 6.
        images_per_camera: Number of times that a camera sees an identity, 2 or more.
        junk: Number of badly cut boxes in the gallery (pid -1): parts of a body, or mostly background.
        distractors: Number of boxes with a stranger or nobody in the gallery (pid 0).
        gt_bbox: Write the folder of hand-drawn boxes, for multi-query evaluation: every image of the test
            identities in a tight box, the queries as they are.
        size: Height and width of the images in pixels, at least (16, 8).
        seed: The same seed gives the same files.
        progress: Called as progress(done, total) after every image.

    Returns:
        root.

    Raises:
        ValueError: An argument is out of range; the message names it.
        FileExistsError: Root exists and is not an empty folder.
    """
    check_range(1, None, train_identities=train_identities, test_identities=test_identities)
    # With one image per camera, which is the query, a test identity would have nothing in the gallery.
    check_range(2, None, images_per_camera=images_per_camera)
    check_range(2, 6, cameras=cameras)
    check_range(0, None, junk=junk, distractors=distractors, seed=seed)
    train, test = split_pids(seed, train_identities, test_identities)
    network = {camid: camera(seed, camid) for camid in range(1, cameras + 1)}
    views = cameras * images_per_camera
    hand_drawn = test_identities * views if gt_bbox else 0
    count = counter(len(train | test) * views + hand_drawn + junk + distractors, progress)
    with whole_folder(root) as folder:
        mark_drawn(folder, seed)
        if gt_bbox:
            (folder / "gt_bbox").mkdir()
        for part in ("bounding_box_train", "query", "bounding_box_test"):
            (folder / part).mkdir()
            (folder / part / "Thumbs.db").write_bytes(_THUMBS_DB)
        for pid in sorted(train | test):
            someone = person(seed, pid)
            for camid, place in network.items():
                first = int(generator(seed, "frame", pid, camid).integers(1, 50_000))
                for index in range(images_per_camera):
                    shot = take_shot(place, generator(seed, "image", pid, camid, index))
                    part = part_of(pid in train, index)
                    # Box 00 is one drawn by hand, as queries are; a detector's boxes count from 01.
                    frame, box = first + 25 * index, 0 if part == "query" else 1
                    path = folder / part / f"{pid:04d}_c{camid}s{1 + pid % 6}_{frame:06d}_{box:02d}.jpg"
                    save_jpeg(draw_shot(someone, place, shot, size), path, place)
                    count()
                    if not gt_bbox or pid in train:
                        continue
                    tight = folder / "gt_bbox" / f"{pid:04d}_c{camid}s{1 + pid % 6}_{frame:06d}_00.jpg"
                    if part == "query":
                        shutil.copyfile(path, tight)
                    else:
                        same = take_shot(place, generator(seed, "image", pid, camid, index), box="tight")
                        save_jpeg(draw_shot(someone, place, same, size), tight, place)
                    count()
        for kind, label, amount in (("junk", "-1", junk), ("distractor", "0000", distractors)):
            for index in range(amount):
                camid = 1 + index % cameras
                who, shot = _nobody(seed, kind, index, network[camid])
                # Frames from 60000 on: no name of an identity's image can be met again.
                name = f"{label}_c{camid}s{1 + index % 6}_{60_000 + 25 * index:06d}_{1 + index % 9:02d}.jpg"
                image = draw_shot(who, network[camid], shot, size)
                save_jpeg(image, folder / "bounding_box_test" / name, network[camid])
                count()
    return Path(root)


@dataclass(frozen=True)
class _Track:
    """A tracklet to draw: label is the pid as folders and names have it, pid as the tables have it."""

    label: str
    pid: int
    camid: int
    number: int
    start: Shot
    who: Person | None
    frames: int


def render_mars(
    root: str | Path,
    *,
    train_identities: int = 8,
    test_identities: int = 8,
    cameras: int = 4,
    tracklets_per_camera: int = 2,
    frames: tuple[int, int] = (8, 24),
    junk: int = 4,
    distractors: int = 6,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
    progress: Count | None = None,
) -> Path:
    """Write a drawn video data set in the layout of MARS, tables included.

    A test identity's first tracklet in a camera is its query there. The last test identity is seen by cameras
    1 and 2 only, and just once by camera 2: when the queries are taken out of the gallery, its query from
    camera 1 has no match in another camera; it is lost.

    Args:
        root: The folder to write; it may exist if it is empty.
        train_identities: Number of identities to train with, 1 or more.
        test_identities: Number of other identities to test with, 1 or more.
        cameras: 2 to 6.
        tracklets_per_camera: Number of times that an identity walks past a camera, 2 or more.
        frames: The fewest and the most frames of a tracklet, 1 to 999.
        junk: Number of tracklets of badly cut boxes in the test split (pid -1).
        distractors: Number of tracklets of strangers or nobody in the test split (pid 0).
        size: Height and width of the images in pixels, at least (16, 8).
        seed: The same seed gives the same files.
        progress: Called as progress(done, total) after every image.

    Returns:
        root.

    Raises:
        ValueError: An argument is out of range; the message names it.
        FileExistsError: Root exists and is not an empty folder.
    """
    check_range(1, None, train_identities=train_identities, test_identities=test_identities)
    # With one tracklet per camera, which is the query, nothing would be left of a test identity.
    check_range(2, None, tracklets_per_camera=tracklets_per_camera)
    check_range(2, 6, cameras=cameras)
    check_range(0, None, junk=junk, distractors=distractors, seed=seed)
    if not 1 <= frames[0] <= frames[1] <= 999:
        raise ValueError(f"frames must be (fewest, most) with 1 <= fewest <= most <= 999, but is {frames}")
    train, test = split_pids(seed, train_identities, test_identities)
    network = {camid: camera(seed, camid) for camid in range(1, cameras + 1)}

    def tracks_of(pid: int) -> Iterator[_Track]:
        for camid, place in network.items():
            rarely_seen = pid == max(test)
            times = (tracklets_per_camera, 1, 0)[min(camid - 1, 2)] if rarely_seen else tracklets_per_camera
            for number in range(1, times + 1):
                rng = generator(seed, "tracklet", pid, camid, number)
                shot = take_shot(place, rng)
                length = int(rng.integers(frames[0], frames[1] + 1))
                yield _Track(f"{pid:04d}", pid, camid, number, shot, person(seed, pid), length)

    def tracks_of_nobody(kind: str, label: str, amount: int) -> Iterator[_Track]:
        for index in range(amount):
            camid = 1 + index % cameras
            who, shot = _nobody(seed, kind, index, network[camid])
            length = int(generator(seed, kind + " length", index).integers(frames[0], frames[1] + 1))
            yield _Track(label, int(label[-2:]), camid, 1 + index // cameras, shot, who, length)

    strangers = [
        *tracks_of_nobody("junk", "00-1", junk),
        *tracks_of_nobody("distractor", "0000", distractors),
    ]
    parts = {
        "train": [track for pid in sorted(train) for track in tracks_of(pid)],
        "test": strangers + [track for pid in sorted(test) for track in tracks_of(pid)],
    }
    count = counter(sum(track.frames for tracks in parts.values() for track in tracks), progress)
    with whole_folder(root) as folder:
        mark_drawn(folder, seed)
        (folder / "info").mkdir()
        for part, tracks in parts.items():
            # The tables count the lines of the name list, which is in the order of the names.
            tracks.sort(key=lambda track: (track.label, track.camid, track.number))
            names, rows = [], []
            for track in tracks:
                where = folder / f"bbox_{part}" / track.label
                where.mkdir(parents=True, exist_ok=True)
                place = network[track.camid]
                for frame, shot in enumerate(_walk(track.start, track.frames), start=1):
                    name = f"{track.label}C{track.camid}T{track.number:04d}F{frame:03d}.jpg"
                    save_jpeg(draw_shot(track.who, place, shot, size), where / name, place)
                    names.append(name)
                    count()
                rows.append((len(names) - track.frames + 1, len(names), track.pid, track.camid))
            (folder / "info" / f"{part}_name.txt").write_text("".join(f"{name}\n" for name in names))
            table = {f"track_{part}_info": np.array(rows, np.int32)}
            save_mat(folder / "info" / f"tracks_{part}_info.mat", table)
        queries = [i for i, t in enumerate(parts["test"], start=1) if t.pid > 0 and t.number == 1]
        save_mat(folder / "info" / "query_IDX.mat", {"query_IDX": np.array([queries], np.uint16)})
    return Path(root)


def _walk(start: Shot, frames: int) -> Iterator[Shot]:
    """Yield the moments of one tracklet: steps, a background that slides by, a box that trembles."""
    rng = np.random.default_rng((start.detail_seed, 2))
    direction, hidden = int(rng.choice((-1, 1))), int(rng.integers(0, frames))
    for frame in range(frames):
        yield replace(
            start,
            phase=start.phase + 0.4 * frame,
            yaw=start.yaw + 1.2 * direction * frame,
            dx=start.dx + float(rng.normal(0, 0.01)),
            dy=start.dy + float(rng.normal(0, 0.006)),
            zoom=start.zoom * float(rng.uniform(0.98, 1.02)),
            scene_x=float(np.clip(start.scene_x + 0.012 * direction * frame, 0, 1)),
            # What stands in the way is passed by after some frames.
            occluder=start.occluder if abs(frame - hidden) < 4 else "none",
            noise_seed=int(rng.integers(2**31)),
        )


def _nobody(seed: int, kind: str, index: int, place: Camera) -> tuple[Person | None, Shot]:
    """Choose the content of a junk or distractor box: no test identity, or no useful box."""
    rng = generator(seed, kind, index)
    shot, who = take_shot(place, rng), dressed(rng)
    if kind == "distractor":
        return (None if index % 3 == 2 else who), shot
    side = float(rng.choice((-1, 1)))
    if rng.random() < 0.5:  # a part of a body, from near
        cut = replace(shot, zoom=float(rng.uniform(0.35, 0.55)), dy=side * 0.28, dx=0.1 * float(rng.normal()))
    else:  # the edge of somebody, and much background
        cut = replace(shot, zoom=1.3, dx=side * float(rng.uniform(0.26, 0.36)), dy=float(rng.uniform(-0.3, 0.3)))
    return who, cut
