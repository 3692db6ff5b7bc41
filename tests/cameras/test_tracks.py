"""Trackers by their names and of one's own, on boxes that are known; and the tracklets that come of them."""

import sys

import numpy as np
import pytest

import reprism
from reprism.cameras import Boxes, Frame, TrackerError, find_tracklets, open_tracker, track
from reprism.cameras.tracks import TRACKERS

IMAGE = np.zeros((100, 200, 3), np.uint8)


def crossing(index):
    """Two people who come towards each other on different heights; the second comes later."""
    boxes = [[10 + 3 * index, 10, 30 + 3 * index, 70]]
    if index >= 5:
        boxes.append([170 - 3 * index, 35, 190 - 3 * index, 95])
    return np.array(boxes, np.float32)


def frame(index, seconds=None):
    return Frame(IMAGE, index, index / 10 if seconds is None else seconds)


@pytest.mark.parametrize("name", TRACKERS)
def test_each_tracker_keeps_people_apart(name):
    tracker, found = open_tracker(name, fps=10), {}
    for index in range(30):
        boxes = crossing(index)
        order = [0] if len(boxes) == 1 else [index % 2, 1 - index % 2]  # in any order
        numbers = track(tracker, frame(index), Boxes(boxes[order]))
        for number, who in zip(numbers, order, strict=True):
            if number >= 0:
                found.setdefault(int(number), []).append((who, index))
    assert sorted({who for who, _ in sights} for sights in found.values()) == [{0}, {1}]
    assert all(len(sights) >= 22 for sights in found.values())


def test_somebody_lost_for_long_is_somebody_else():
    for seconds, tracks in ((0.5, 1), (3.0, 2)):
        tracker, numbers = open_tracker("bytetrack", fps=10, lost_seconds=1.0), set()
        for index in range(20):
            late = 0 if index < 10 else seconds
            numbers |= set(track(tracker, frame(index, index / 10 + late), Boxes([[10, 10, 30, 70]])).tolist())
        assert len(numbers - {-1}) == tracks


def test_frames_of_one_moment_and_without_boxes_are_no_trouble(recwarn):
    tracker = open_tracker("bytetrack", fps=10)
    none = Boxes(np.empty((0, 4)))
    assert track(tracker, frame(0), none).shape == (0,)
    for index in range(1, 6):
        (number,) = track(tracker, frame(index, 0.0), Boxes([[10, 10, 30, 70]]))
    assert number >= 0
    assert track(tracker, frame(7, 0.1), none).dtype == np.int64
    assert not [warning for warning in recwarn if "timestamp" in str(warning.message)]


def test_only_sure_boxes_begin_a_track_and_bytetrack_follows_by_others():
    numbers = []
    tracker = open_tracker("bytetrack", fps=10, sure=0.6)
    for index in range(20):
        score = 0.9 if 5 <= index < 8 else 0.3
        numbers += track(tracker, frame(index), Boxes([[10 + index, 10, 30 + index, 70]], [score])).tolist()
    assert numbers[:5] == [-1] * 5
    assert len(set(numbers[7:])) == 1
    assert numbers[-1] >= 0


def test_a_function_an_object_and_a_class_of_ones_own():
    def by_place(frame, boxes):
        return (boxes.xyxy[:, 0] // 100).astype(int)

    assert open_tracker(by_place) is by_place
    assert track(by_place, frame(0), Boxes([[150, 0, 160, 9], [10, 0, 20, 9]])).tolist() == [1, 0]

    class Backwards:
        """As the package has them: it may change the order and leave boxes out."""

        def update(self, detections):
            found = detections[np.arange(len(detections))[::-1][:1]]
            found.tracker_id = np.array([7])
            return found

    for given in (Backwards, Backwards()):
        assert track(open_tracker(given), frame(0), Boxes([[150, 0, 160, 9], [10, 0, 20, 9]])).tolist() == [-1, 7]


def test_a_tracker_of_a_module(tmp_path, monkeypatch):
    (tmp_path / "own_tracker.py").write_text(
        "class Same:\n    def __call__(self, frame, boxes):\n        return list(range(len(boxes)))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reprism.imports._trusted", set())
    with pytest.raises(ValueError, match="only if you trust it"):
        open_tracker("own_tracker:Same")
    reprism.trust("own_tracker")
    assert track(open_tracker("own_tracker:Same"), frame(0), Boxes([[0, 0, 9, 9]])).tolist() == [0]


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        ([0], "int64 of shape .1,. for frame 3; expected a whole number for each of 2 boxes"),
        ([0.5, 1.5], "float64 of shape"),
        ([4, 4], "gave two boxes of frame 3 the same number"),
    ],
)
def test_what_is_no_numbering_is_refused(returned, match):
    def mine(frame, boxes):
        return returned

    with pytest.raises(ValueError, match=f"the tracker mine.*{match}"):
        track(mine, frame(3), Boxes([[0, 0, 9, 9], [10, 0, 20, 9]]))


def test_mistakes_are_explained(monkeypatch):
    with pytest.raises(TrackerError, match=r"unknown tracker 'bytetrak'. Did you mean 'bytetrack'\? Known: bytetrack"):
        open_tracker("bytetrak")
    with pytest.raises(TrackerError, match=r"or an object with update\(detections\), got int"):
        open_tracker(3)
    for option in ({"fps": 0}, {"lost_seconds": 0}, {"sure": 2}, {"fps": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(option))):
            open_tracker("sort", **option)
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(TrackerError, match=r"pip install 'reprism\[track\]'"):
        open_tracker("sort")


# ---- tracklets -------------------------------------------------------------------------------------------


def test_tracklets_end_and_are_named_by_their_first_frames():
    """A tracker's numbers may be any; two who come at once are told apart by their order."""
    present = {0: [5, 9], 1: [5, 9], 2: [5], 3: [5], 30: [5, 2], 31: [2]}  # frame: numbers of the tracks
    frames = [frame(index) for index in present]

    def mine(frame, boxes):
        return present[frame.index]

    def detector(frame):
        return np.array([[20 * number, 10, 20 * number + 9, 60] for number in present[frame.index]])

    counts = reprism.cameras.tracklets.Counts()
    found = list(find_tracklets(frames, detector, mine, np.copy, lost_seconds=1.0, counts=counts))
    told = [(one.number, one.first.index, one.rank, one.last.index, one.boxes, one.is_open) for one in found]
    assert sorted(told) == [
        (2, 30, 1, 31, 2, True),
        (5, 0, 0, 3, 4, False),
        (5, 30, 0, 30, 1, True),
        (9, 0, 1, 1, 2, False),
    ]
    assert len({(one.first.index, one.rank) for one in found}) == 4
    assert (counts.frames, counts.boxes, counts.open, counts.tracklets) == (6, 9, 0, 4)
    assert [one.seconds for one in found if one.number == 9] == [pytest.approx(0.1)]


def test_memory_holds_no_frames():
    """What is kept of a frame is what ``keep`` makes; people who stay keep so many crops and no more."""
    made = []

    def frames():
        for index in range(200):
            yield Frame(np.random.default_rng(index).integers(0, 255, (100, 200, 3), np.uint8), index, index / 10)

    def keep(pixels):
        made.append(pixels.shape)
        return pixels.copy()

    (one,) = find_tracklets(frames(), lambda frame: [[10, 10, 40, 90]], lambda frame, boxes: [3], keep, crops=8)
    assert 4 <= len(one.crops) <= 8
    assert {crop.picture.shape for crop in one.crops} == {(80, 30, 3)}
    for crop in one.crops:
        whole = np.random.default_rng(crop.sight.index).integers(0, 255, (100, 200, 3), np.uint8)
        np.testing.assert_array_equal(crop.picture, whole[10:90, 10:40])
    assert len(made) < 200
