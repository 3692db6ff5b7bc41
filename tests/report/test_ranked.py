import numpy as np
import pytest
from PIL import Image

from reprism.data.images import ImageError
from reprism.data.records import Sample
from reprism.evaluation.lists import ranked_lists
from reprism.report.ranked import RIGHT, WRONG, draw_ranked_lists


def samples(pids, camids, path):
    return [Sample(path, pid, camid) for pid, camid in zip(pids, camids, strict=True)]


@pytest.fixture
def gray(tmp_path):
    """A picture without any colour, so that all colour in a drawing comes from its frames."""
    path = tmp_path / "grey.png"
    Image.new("RGB", (24, 48), (128, 128, 128)).save(path)
    return path


def drawn(gray, gallery_pids, captions=None, **options):
    query, gallery = samples([7], [1], gray), samples(gallery_pids, [2] * len(gallery_pids), gray)
    columns = np.arange(1.0, 1 + len(gallery))[:, None]
    lists = ranked_lists(np.zeros((1, 1)), columns, query, gallery, k=len(gallery))
    return draw_ranked_lists(lists, query, gallery, captions, **options)


def frames_met(image, height):
    """The frame colours met on the way from left to right at a height, one entry per run of pixels."""
    names = {RIGHT: "right", WRONG: "wrong"}
    line = [names.get(image.getpixel((x, height))) for x in range(image.width)]
    return [name for name, before in zip(line, [None, *line], strict=False) if name and name != before]


@pytest.mark.parametrize("pattern", [[7, 8, 7, 0], [8, 8, 8, 8], [7, 7, 7, 7]])
def test_frames_are_green_around_the_person_and_red_around_others(gray, pattern):
    image = drawn(gray, pattern)
    # Below the mark, a line crosses the left and the right side of every frame.
    want = [("right" if pid == 7 else "wrong") for pid in pattern for _ in range(2)]
    assert frames_met(image, 100) == want


def test_a_list_is_captioned_and_hostile_names_stay_in_their_cell(gray):
    plain = drawn(gray, [7, "x" * 500])
    titled = drawn(gray, [7, "x" * 500], ["AP 50 %\nand a second line, " + "very long" * 100])
    assert titled.width == plain.width
    assert titled.height > plain.height


def test_pictures_have_the_size_asked_for(gray):
    small, large = drawn(gray, [7], size=(40, 20)), drawn(gray, [7], size=(320, 160))
    assert small.height < large.height
    assert small.getpixel((small.width - 15, 25)) == (128, 128, 128)


def test_drawing_refuses_what_it_cannot_draw(gray, tmp_path):
    with pytest.raises(ValueError, match="no ranked list"):
        draw_ranked_lists([], [], [])
    with pytest.raises(ValueError, match="1 ranked lists but 2 captions"):
        drawn(gray, [7], ["one", "two"])
    with pytest.raises(ValueError, match=r"at least \(40, 20\)"):
        drawn(gray, [7], size=(10, 10))
    with pytest.raises(ImageError, match=r"missing\.png"):
        drawn(tmp_path / "missing.png", [7])
