"""What moves before a fixed camera, against the pixels that drawn people cover."""

import numpy as np
import pytest

from reprism.cameras import Frame, detect, motion_detector
from reprism.cameras.motion import find_people

SHAPE = {"min_height": 0.1, "aspect": (1.4, 6.0)}


def watch(frames, detector=None):
    detector = detector or motion_detector()
    for index, (image, truth) in enumerate(frames):
        yield image, truth, detect(detector, Frame(image, index))


@pytest.mark.parametrize(("people", "seed"), [(1, 0), (1, 1), (2, 1), (2, 2)])
def test_walking_people_are_found(walks, overlap, people, seed):
    whole = found = others = 0
    for image, truth, boxes in watch(walks(45, people, seed=seed, first=12)):
        for box in truth:
            if box[0] > 2 and box[2] < image.shape[1] - 2:
                whole += 1
                found += any(overlap(box, other) >= 0.5 for other in boxes.xyxy)
        others += sum(all(overlap(box, other) < 0.3 for box in truth) for other in boxes.xyxy)
    assert whole >= 20
    assert found >= 0.9 * whole
    assert others <= 0.05 * whole


def test_nothing_is_found_where_nothing_moves(walks):
    assert sum(len(boxes) for _, _, boxes in watch(walks(60, 0, noise=4))) == 0


def test_light_that_is_switched_on_is_nobody(walks):
    frames = [(np.clip(image * (1.0 if n < 20 else 1.6), 0, 255).astype(np.uint8), truth)
              for n, (image, truth) in enumerate(walks(40, 0))]  # fmt: skip
    assert sum(len(boxes) for _, _, boxes in watch(frames)) == 0


def test_a_shadow_on_the_ground_is_not_in_the_box(overlap):
    rng = np.random.default_rng(0)
    ground = rng.integers(120, 200, (240, 320, 1)).repeat(3, axis=2)

    def shaded():
        for number in range(40):
            image, left = ground + rng.normal(0, 2, (240, 320, 1)), 4 * number
            truth = [[left, 40, left + 40, 140]] if number >= 12 else []
            if truth:
                image[40:140, left : left + 40] = (60, 20, 20)
                image[140:200, left : left + 40] *= 0.7
            yield np.clip(image, 0, 255).astype(np.uint8), np.array(truth, np.float32)

    seen = [(truth, boxes) for _, truth, boxes in watch(shaded()) if len(truth)]
    right = [len(boxes) == 1 and overlap(truth[0], boxes.xyxy[0]) >= 0.8 for truth, boxes in seen]
    assert np.mean(right) > 0.9


def test_who_stands_still_disappears_after_a_third_of_the_history(walks):
    empty, (image, _) = [frame for frame, _ in walks(15, 0)], list(walks(36, 1, noise=0))[-1]
    rng = np.random.default_rng(0)
    detector = motion_detector(history=100)
    frames = empty + [np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8) for _ in range(60)]
    found = [len(detect(detector, Frame(frame, n))) for n, frame in enumerate(frames)]
    assert found[15:40] == [1] * 25
    assert found[60:] == [0] * 15


def test_two_detectors_share_nothing(walks):
    first, second = motion_detector(), motion_detector()
    frames = list(walks(30, 1, first=12))
    alone = [boxes.xyxy.tolist() for *_, boxes in watch(frames, first)]
    mixed = []
    third = motion_detector()
    for index, (image, _) in enumerate(frames):
        detect(second, Frame(image[:, ::-1].copy(), index))
        mixed.append(detect(third, Frame(image, index)).xyxy.tolist())
    assert mixed == alone


def test_a_frame_of_another_size_begins_anew(walks):
    detector = motion_detector(warm_up=3)
    *_, (image, _, boxes) = watch(walks(30, 1, first=5), detector)
    assert len(boxes) == 1
    small = np.ascontiguousarray(image[::2, ::2])
    assert [len(detect(detector, Frame(small, n))) for n in range(6)] == [0] * 6


def test_boxes_of_a_large_frame_are_in_its_own_pixels(walks, overlap):
    large = ((image.repeat(4, axis=0).repeat(4, axis=1), truth * 4) for image, truth in walks(28, 1, first=12, noise=0))
    *_, (_, truth, boxes) = watch(large)
    assert max(overlap(truth[0], box) for box in boxes.xyxy) > 0.9


def test_blobs_become_people_by_hand():
    def people(*rectangles, shadow=()):
        moving, dark = np.zeros((200, 300), bool), np.zeros((200, 300), bool)
        for mask, boxes in ((moving, rectangles), (dark, shadow)):
            for left, top, right, bottom in boxes:
                mask[top:bottom, left:right] = True
        return find_people(moving, dark, **SHAPE)[0].tolist()

    assert people((50, 40, 80, 120)) == [[50, 40, 80, 120]]
    assert people((50, 40, 54, 44)) == []  # a speck
    assert people((50, 40, 250, 50)) == []  # too low
    assert people((50, 40, 80, 75), (52, 85, 78, 120)) == [[50, 40, 80, 120]]  # a belt of the wall's colour
    assert people((50, 40, 80, 60), (50, 100, 80, 120), shadow=[(50, 60, 80, 100)]) == [[50, 40, 80, 120]]
    assert people((50, 50, 80, 120), shadow=[(50, 43, 80, 50)]) == [[50, 43, 80, 120]]  # grey hair
    assert people((50, 40, 80, 120), shadow=[(80, 110, 200, 125)]) == [[50, 40, 80, 120]]  # beside the feet
    assert people((50, 40, 114, 120)) == [[50, 40, 82, 120], [82, 40, 114, 120]]  # two side by side
    assert people((50, 40, 80, 120), (150, 40, 180, 120)) == [[50, 40, 80, 120], [150, 40, 180, 120]]
    assert people() == []


def test_a_score_is_the_share_that_moves():
    moving = np.zeros((100, 100), bool)
    moving[20:80, 30:50] = True
    moving[40:60, 35:45] = False
    _, scores = find_people(moving, np.zeros_like(moving), **SHAPE)
    assert scores == pytest.approx([1 - 200 / 1200], abs=0.02)


@pytest.mark.parametrize(
    "arguments", [{"min_height": 0}, {"aspect": (3, 2)}, {"history": 0}, {"threshold": 0}, {"warm_up": -1}]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match="expected"):
        motion_detector(**arguments)
