"""What a detector returns is made boxes of the frame, or refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reprism.cameras import Boxes, Frame, detect
from reprism.cameras.boxes import MAX_BOXES

FRAME = Frame(np.zeros((100, 200, 3), np.uint8), index=7)
NUMBERS = st.one_of(st.floats(width=32), st.integers(-300, 300).map(float))


def found(*boxes, scores=None):
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return detect(lambda frame: Boxes(xyxy, scores), FRAME)


def test_boxes_are_clipped_to_the_frame_and_what_is_none_is_dropped_and_counted():
    boxes = found(
        (10, 20, 30, 60),
        (-50, -50, 20, 20),
        (150, 50, 999, 999),
        (300, 10, 310, 20),  # beside the frame
        (30, 20, 10, 60),  # of negative width
        (10, 20, 10, 60),  # of none
        (np.nan, 0, 10, 10),
        (0, 0, np.inf, 10),
        (0, 0, 10, 10),  # whose score is no number
        scores=[0.9, 0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.5, np.nan],
    )
    assert boxes.xyxy.tolist() == [[10, 20, 30, 60], [0, 0, 20, 20], [150, 50, 200, 100]]
    assert boxes.scores == pytest.approx([0.9, 0.8, 0.7])
    assert boxes.dropped == 6
    assert boxes.xyxy.dtype == boxes.scores.dtype == np.float32


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=20))
def test_whatever_is_found_boxes_lie_in_the_frame_and_none_goes_uncounted(given_boxes):
    boxes = found(*given_boxes)
    left, top, right, bottom = boxes.xyxy.T
    assert ((left >= 0) & (left < right) & (right <= 200) & (top >= 0) & (top < bottom) & (bottom <= 100)).all()
    kept = []
    for box in given_boxes:  # one after the other, in Python's numbers
        if all(np.isfinite(np.float32(side)) for side in box):
            x1, y1, x2, y2 = (min(max(side, 0), limit) for side, limit in zip(box, (200, 100, 200, 100), strict=True))
            if np.float32(x2) > np.float32(x1) and np.float32(y2) > np.float32(y1):
                kept.append((x1, y1, x2, y2))
    assert boxes.xyxy == pytest.approx(np.array(kept, np.float32).reshape(-1, 4))
    assert len(boxes) + boxes.dropped == len(given_boxes)


def test_of_ten_thousand_boxes_the_surest_are_kept_in_their_order():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (10_000, 2))
    scores = rng.permutation(10_000) / 10_000
    boxes = detect(lambda frame: Boxes(np.concatenate([corners, corners + 10], axis=1), scores), FRAME)
    expected = scores[scores >= 1 - MAX_BOXES / 10_000].astype(np.float32)
    assert boxes.scores.tolist() == expected.tolist()
    assert boxes.dropped == 10_000 - MAX_BOXES


def test_a_plain_function_may_return_an_array_or_a_pair():
    assert detect(lambda frame: [[1, 2, 3, 4]], FRAME).scores.tolist() == [1]
    assert detect(lambda frame: (torch.tensor([[1, 2, 3, 4]]), torch.tensor([0.5])), FRAME).scores.tolist() == [0.5]
    assert len(detect(lambda frame: np.empty((0, 4)), FRAME)) == 0
    assert len(detect(lambda frame: [], FRAME)) == 0
    assert detect(lambda frame: [[frame.index, 0, frame.image.shape[1], 9]], FRAME).xyxy.tolist() == [[7, 0, 200, 9]]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "N×4.*got a number"),
        ([[1, 2, 3]], "N×4.*got 1×3"),
        (([[1, 2, 3, 4]], [0.5, 0.5]), "a score for each of 1 boxes, got 2"),
        ([["a", "b", "c", "d"]], "boxes as numbers"),
        (np.zeros((2, 2, 4)), "N×4.*got 2×2×4"),
    ],
)
def test_what_is_no_boxes_is_an_error_that_names_the_detector(returned, message):
    def careless(frame):
        return returned

    with pytest.raises(ValueError, match=f"the detector careless returned no boxes for frame 7: expected .*{message}"):
        detect(careless, FRAME)
