"""People who stand in a region to be left out are left out, whatever the sizes of picture and frame."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reprism.cameras import Boxes, DetectorError, Frame, leave_out, read_regions


@settings(max_examples=60, deadline=None)
@given(
    scale=st.sampled_from([(1, 1), (2, 3), (5, 4)]),
    seed=st.integers(0, 10**6),
)
def test_who_stands_on_a_marked_pixel_is_left_out(scale: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    regions = rng.random((12, 16)) < 0.4
    # The same regions pixel by pixel of the frame: a box of whole pixels stands on the last row that it covers.
    large = np.kron(regions, np.ones(scale, bool))
    height, width = large.shape
    corners = rng.integers(0, (width - 2, height - 1), (20, 2))
    sizes = rng.integers(1, 8, (20, 2))
    ends = np.minimum(corners + 2 * sizes, (width, height))
    boxes = np.concatenate([corners, ends], axis=1)
    scores = rng.random(20).astype(np.float32)
    frame = Frame(np.zeros((height, width, 3), np.uint8), 0)
    found = leave_out(lambda frame: Boxes(boxes, scores), regions)(frame)
    expected = [row for row, (left, _, right, bottom) in enumerate(boxes) if not large[bottom - 1, (left + right) // 2]]
    assert found.xyxy.tolist() == boxes[expected].tolist()
    assert found.scores.tolist() == scores[expected].tolist()


def test_white_parts_of_a_picture_are_read(tmp_path: Path) -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[5:, 10:] = 255
    picture[:5] = 100
    Image.fromarray(picture).save(tmp_path / "view.png")
    expected = np.zeros((20, 30), bool)
    expected[5:, 10:] = True
    assert (read_regions(tmp_path / "view.png") == expected).all()


def test_pictures_that_mark_nothing_useful_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (4, 4), 255).save(tmp_path / "white.png")
    with pytest.raises(DetectorError, match=r"text\.png: expected a picture whose white parts"):
        read_regions(tmp_path / "text.png")
    with pytest.raises(DetectorError, match=r"none\.png: expected a picture"):
        read_regions(tmp_path / "none.png")
    with pytest.raises(DetectorError, match="white all over"):
        read_regions(tmp_path / "white.png")
    with pytest.raises(ValueError, match="expected regions H×W, got 3"):
        leave_out(lambda frame: Boxes([]), np.ones(3, bool))
