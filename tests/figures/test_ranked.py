import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reprism.data.images import ImageError
from reprism.data.records import Sample
from reprism.evaluation.ranking import evaluate
from reprism.figures.ranked import RIGHT, WRONG, draw_ranked_lists, ranked_lists


def samples(pids, camids, path="none.png"):
    return [Sample(path, pid, camid) for pid, camid in zip(pids, camids, strict=True)]


def brute_force(query, gallery, query_samples, gallery_samples, place, k):
    """The definition: sort all that is left of the gallery by distance, then by place."""
    one = query_samples[place]
    kept = [
        (float(np.sqrt(((gallery[j] - query[place]) ** 2).sum())), j)
        for j, other in enumerate(gallery_samples)
        if one.camid is None or (other.pid, other.camid) != (one.pid, one.camid)
    ]
    return sorted(kept)[:k]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 40),
    k=st.integers(1, 12),
    block_bytes=st.sampled_from([1, 300, 2**20]),
    cameras=st.booleans(),
)
def test_lists_are_those_of_a_full_sort(seed, size, k, block_bytes, cameras):
    rng = np.random.default_rng(seed)
    # Small integers: distances are exact, and ties abound.
    query, gallery = (rng.integers(0, 3, (rows, 2)).astype(np.float32) for rows in (5, size))
    query_samples = samples(rng.integers(0, 3, 5).tolist(), rng.integers(0, 2, 5).tolist() if cameras else [None] * 5)
    gallery_samples = samples(
        rng.integers(0, 3, size).tolist(), rng.integers(0, 2, size).tolist() if cameras else [None] * size
    )
    lists = ranked_lists(query, gallery, query_samples, gallery_samples, k=k, block_bytes=block_bytes)
    for place, got in enumerate(lists):
        want = brute_force(query, gallery, query_samples, gallery_samples, place, k)
        assert got.query == place
        assert got.gallery.tolist() == [j for _, j in want]
        assert got.distances.tolist() == pytest.approx([distance for distance, _ in want])
        assert got.correct.tolist() == [gallery_samples[j].pid == query_samples[place].pid for _, j in want]


def test_the_first_right_image_stands_where_evaluate_counts_it():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(20, 8)), rng.normal(size=(200, 8))
    ids = [rng.integers(0, 5, n).tolist() for n in (20, 200, 20, 200)]
    metrics = evaluate(query, gallery, *ids)
    lists = ranked_lists(query, gallery, samples(ids[0], ids[2]), samples(ids[1], ids[3]), k=200)
    assert [1 + one.correct.tolist().index(True) for one in lists] == metrics.first_match_rank.tolist()


def test_chosen_queries_come_in_the_order_wanted_and_again_if_wanted_again():
    query, gallery = np.eye(3), np.eye(3)
    people = samples([1, 2, 3], [1, 1, 1])
    lists = ranked_lists(query, gallery, people, samples([1, 2, 3], [2, 2, 2]), [2, 0, 2], k=1)
    assert [(one.query, one.gallery.tolist()) for one in lists] == [(2, [2]), (0, [0]), (2, [2])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"chosen": [2]}, "query 2 was chosen, but there are 2"),
        ({"chosen": [-1]}, "query -1"),
        ({"gallery": np.ones((3, 5))}, "4 wide and gallery descriptors 5"),
        ({"gallery": np.ones((2, 4))}, "gallery has 3 samples but descriptors 2×4"),
        ({"gallery": np.full((3, 4), np.nan)}, "rows 0 to 2 is not finite"),
        ({"query": np.full((2, 4), np.inf)}, "query descriptor is not finite"),
    ],
)
def test_wrong_input_is_named(change, message):
    arguments = {
        "query": np.ones((2, 4)),
        "gallery": np.ones((3, 4)),
        "query_samples": samples([1, 2], [1, 1]),
        "gallery_samples": samples([1, 2, 3], [2, 2, 2]),
    }
    with pytest.raises(ValueError, match=message):
        ranked_lists(**{**arguments, **change})


# ---- the drawing ---------------------------------------------------------------------------------------------------


@pytest.fixture
def grey(tmp_path):
    """A picture without any colour, so that all colour in a drawing comes from its frames."""
    path = tmp_path / "grey.png"
    Image.new("RGB", (24, 48), (128, 128, 128)).save(path)
    return path


def drawn(grey, gallery_pids, captions=None, **options):
    query, gallery = samples([7], [1], grey), samples(gallery_pids, [2] * len(gallery_pids), grey)
    columns = np.arange(1.0, 1 + len(gallery))[:, None]
    lists = ranked_lists(np.zeros((1, 1)), columns, query, gallery, k=len(gallery))
    return draw_ranked_lists(lists, query, gallery, captions, **options)


def frames_met(image, height):
    """The frame colours met on the way from left to right at a height, one entry per run of pixels."""
    names = {RIGHT: "right", WRONG: "wrong"}
    line = [names.get(image.getpixel((x, height))) for x in range(image.width)]
    return [name for name, before in zip(line, [None, *line], strict=False) if name and name != before]


@pytest.mark.parametrize("pattern", [[7, 8, 7, 0], [8, 8, 8, 8], [7, 7, 7, 7]])
def test_frames_are_green_around_the_person_and_red_around_others(grey, pattern):
    image = drawn(grey, pattern)
    # Below the mark, a line crosses the left and the right side of every frame.
    want = [("right" if pid == 7 else "wrong") for pid in pattern for _ in range(2)]
    assert frames_met(image, 100) == want


def test_a_list_is_captioned_and_hostile_names_stay_in_their_cell(grey):
    plain = drawn(grey, [7, "x" * 500])
    titled = drawn(grey, [7, "x" * 500], ["AP 50 %\nand a second line, " + "very long" * 100])
    assert titled.width == plain.width
    assert titled.height > plain.height


def test_pictures_have_the_size_asked_for(grey):
    small, large = drawn(grey, [7], size=(40, 20)), drawn(grey, [7], size=(320, 160))
    assert small.height < large.height
    assert small.getpixel((small.width - 15, 25)) == (128, 128, 128)


def test_drawing_refuses_what_it_cannot_draw(grey, tmp_path):
    with pytest.raises(ValueError, match="no ranked list"):
        draw_ranked_lists([], [], [])
    with pytest.raises(ValueError, match="1 ranked lists but 2 captions"):
        drawn(grey, [7], ["one", "two"])
    with pytest.raises(ValueError, match=r"at least \(40, 20\)"):
        drawn(grey, [7], size=(10, 10))
    with pytest.raises(ImageError, match=r"missing\.png"):
        drawn(tmp_path / "missing.png", [7])
