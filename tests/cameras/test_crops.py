"""The choice of crops, compared with counting pixels and with looking at everything at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from reprism.cameras.crops import BestOverTime, covered, crop_score, cut, edges_cut, sharpness, usual_height
from reprism.drawn.people import person
from reprism.drawn.shots import camera, draw_shot, generator, take_shot

SIDE = 12
corner = st.tuples(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1))
box = st.tuples(corner, st.integers(1, SIDE), st.integers(1, SIDE)).map(
    lambda one: (*one[0], min(SIDE, one[0][0] + one[1]), min(SIDE, one[0][1] + one[2]))
)


def pixels(one):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[one[1] : one[3], one[0] : one[2]] = True
    return mask


@given(st.lists(box, max_size=6))
def test_covered_is_what_counting_pixels_gives(boxes):
    masks = [pixels(one) for one in boxes]
    want = [
        max((float((mask & other).sum()) / mask.sum() for n, other in enumerate(masks) if n != number), default=0.0)
        for number, mask in enumerate(masks)
    ]
    np.testing.assert_allclose(covered(np.array(boxes)), want)


@given(box)
def test_edges_are_those_whose_pixels_the_box_has(one):
    border = [pixels(one)[:, 0], pixels(one)[0], pixels(one)[:, -1], pixels(one)[-1]]
    # A box that ends a pixel before the edge counts as cut: detectors are not so exact.
    near = [pixels(one)[:, 1], pixels(one)[1], pixels(one)[:, -2], pixels(one)[-2]]
    want = sum(bool(a.any() or b.any()) for a, b in zip(border, near, strict=True))
    assert edges_cut(np.array([one]), SIDE, SIDE).tolist() == [want]
    assert edges_cut(np.empty((0, 4)), SIDE, SIDE).shape == (0,)


@given(box, st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_cut_has_every_pixel_that_the_box_touches(one, before, after):
    image = np.arange(SIDE * SIDE * 3).reshape(SIDE, SIDE, 3)
    given_box = np.array([max(0, one[0] - before), max(0, one[1] - before), one[2] - after, one[3] - after])
    rows, columns = np.arange(SIDE), np.arange(SIDE)
    inside = np.ix_(
        rows[(rows + 1 > given_box[1]) & (rows < given_box[3])],
        columns[(columns + 1 > given_box[0]) & (columns < given_box[2])],
    )
    np.testing.assert_array_equal(cut(image, given_box), image[inside])


def test_a_cut_of_a_box_at_the_very_edge_is_a_pixel():
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    assert cut(image, np.array([SIDE, SIDE, SIDE, SIDE])).shape == (1, 1, 3)


# ---- sharpness -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people():
    place = camera(3, 1)
    return [
        Image.fromarray(
            np.asarray(draw_shot(person(3, pid), place, take_shot(place, generator(3, "crop", pid)), (256, 128)))
        )
        for pid in range(5)
    ]


def test_blur_always_lowers_sharpness(people):
    for picture in people:
        values = [sharpness(np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)))) for radius in (0, 1, 2, 4)]
        assert values == sorted(values, reverse=True)
        assert values[0] > 1.5 * values[1]
        assert all(0 < value < 1 for value in values)


def test_neither_brightness_nor_contrast_nor_size_counts(people):
    for picture in people:
        array = np.asarray(picture, np.float32)
        want = sharpness(np.asarray(picture))
        dim = sharpness((0.5 * array + 20).astype(np.uint8))
        assert dim == pytest.approx(want, rel=0.15)
        # A picture shown twice as large, each pixel four times, is brought back.
        assert sharpness(np.asarray(picture).repeat(2, 0).repeat(2, 1)) == pytest.approx(want, rel=0.05)


def test_sharpness_of_what_is_known():
    assert sharpness(np.full((128, 64, 3), 90, np.uint8)) == 0
    noise = np.random.default_rng(0).integers(0, 256, (128, 64, 1), np.uint8).repeat(3, 2)
    assert sharpness(noise) == pytest.approx(1, abs=0.05)
    assert sharpness(noise[:1, :1]) == 0


GOOD = {"height": 128.0, "usual": 128.0, "sharp": 1.0, "edges": 0, "share": 0.0, "sure": 1.0}


@pytest.mark.parametrize(
    ("flaw", "left"),
    [
        ({}, 1),
        ({"height": 400.0, "usual": 400.0}, 1),  # larger than networks take
        ({"height": 16.0, "usual": 16.0}, 1 / 2),
        ({"sharp": 1 / 16}, 1 / 2),
        ({"sharp": 0.0}, 0),
        ({"edges": 1}, 1 / 2),
        ({"edges": 2}, 1 / 4),
        ({"share": 0.75}, 1 / 4),
        ({"share": 1.0}, 0),
        ({"sure": 0.3}, 0.3),
        ({"sure": 0.0}, 0.01),  # files of boxes have zeros
        ({"sure": 7.0}, 1),
        ({"usual": 128 * np.exp(0.1)}, 1 / 2),
        ({"usual": 128 * np.exp(-0.1)}, 1 / 2),
        ({"usual": 128 * np.exp(-0.3)}, 1 / 4),
        ({"edges": 1, "share": 0.5, "sure": 0.5, "sharp": 1 / 16}, 1 / 16),
    ],
)
def test_each_flaw_takes_its_share_of_the_score(flaw, left):
    assert crop_score(**GOOD | flaw) == pytest.approx(left)


@given(st.lists(st.floats(1, 4000), min_size=1, max_size=30))
def test_the_usual_height_is_a_weighted_mean_of_logarithms(heights):
    usual = heights[0]
    for height in heights:
        usual = usual_height(usual, height)
    weights = 0.2 * 0.8 ** np.arange(len(heights))[::-1]
    want = np.exp(weights @ np.log(heights) + (1 - weights.sum()) * np.log(heights[0]))
    assert usual == pytest.approx(want)


# ---- the best over time ----------------------------------------------------------------------------------

moments = st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True).map(sorted)


def all_at_once(moments, scores, most):
    """The same of the whole: the best of each stretch, and of these the highest that are good enough.

    There are at most twice as many stretches as are kept, and their length is the least power of two for that.
    """
    length = 1
    while moments[-1] // length >= 2 * most:
        length *= 2
    best = []
    for stretch in range(2 * most):
        there = [n for n, moment in enumerate(moments) if moment // length == stretch]
        if there:
            best.append(max(there, key=lambda n: (scores[n], -n)))
    highest = sorted(best, key=lambda n: (-scores[n], n))[:most]
    return sorted(n for n in highest if scores[n] >= 0.6 * scores[highest[0]])


@given(moments, st.integers(1, 9), st.data())
def test_the_best_over_time_is_that_of_the_whole(moments, most, data):
    scores = data.draw(st.lists(st.integers(0, 10), min_size=len(moments), max_size=len(moments)))
    best = BestOverTime(most)
    for number, (moment, score) in enumerate(zip(moments, scores, strict=True)):
        made = []
        was_held = best.offer(moment, score, lambda n=number, made=made: made.append(n) or n)
        assert was_held == bool(made)  # nothing is made in vain
        assert 1 <= len(best.kept()) <= most
    assert best.kept() == all_at_once(moments, scores, most)


@given(st.integers(1, 500), st.integers(1, 20))
def test_of_frames_that_are_equally_good_as_many_as_may_be_are_kept(frames, most):
    best = BestOverTime(most)
    for moment in range(frames):
        best.offer(moment, 0.5, lambda moment=moment: moment)
    assert len(best.kept()) == min(frames, most)


def test_what_is_much_worse_than_the_best_is_left_out():
    best = BestOverTime(4)
    for moment, score in enumerate([0.1, 0.59, 0.61, 1.0, 0.0]):
        best.offer(moment, score, lambda moment=moment: moment)
    assert best.kept() == [2, 3]


def test_the_best_of_all_is_kept_however_long_it_goes_on():
    best = BestOverTime(2)
    for moment in range(10_000):
        best.offer(moment, 1.0 if moment == 17 else 0.9, lambda moment=moment: moment)
    assert 17 in best.kept()
    assert len(best._best) <= 4  # what is held is bounded


def test_none_is_too_few():
    with pytest.raises(ValueError, match="most=0: expected 1 or more"):
        BestOverTime(0)


def test_what_is_changed_is_what_is_kept():
    """Called once for each, in the order of time: descriptors are handed out so."""
    best, rng = BestOverTime(4), np.random.default_rng(0)
    for moment in range(57):
        best.offer(moment, float(rng.random()), lambda moment=moment: moment)
    seen = []
    other = best.changed(lambda moment: seen.append(moment) or -moment)
    assert seen == best.kept() == sorted(seen)
    assert other.kept() == [-moment for moment in seen]
