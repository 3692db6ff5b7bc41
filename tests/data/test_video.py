from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reprism.data.records import Sample, Tracklet, as_images, without_images
from reprism.data.tracklets import TrackletSet
from reprism.data.video import VideoSettings, choose_frames

lengths, counts = st.integers(1, 200), st.integers(1, 40)
samplings = st.sampled_from(["even", "random", "all"])


@given(lengths, counts, samplings, st.integers(0, 2**32))
def test_frames_are_in_order_and_of_the_tracklet(length: int, frames: int, sampling: str, seed: int) -> None:
    chosen = choose_frames(length, frames, sampling, np.random.default_rng(seed))
    assert chosen == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < length
    assert len(chosen) == (max(length, frames) if sampling == "all" else frames)
    if length <= frames or sampling == "all":
        assert chosen == [*range(length)] + [length - 1] * max(0, frames - length)
    else:
        assert len(set(chosen)) == frames


@given(lengths, counts)
def test_even_frames_start_stretches_of_equal_length(length: int, frames: int) -> None:
    if length > frames:
        gaps = np.diff([*choose_frames(length, frames), length])
        assert gaps.max() - gaps.min() <= 1


def test_the_papers_fifteen_of_thirty() -> None:
    assert choose_frames(30) == list(range(0, 30, 2))
    assert choose_frames(3, 5) == [0, 1, 2, 2, 2]


def test_random_frames_are_all_equally_likely() -> None:
    rng = np.random.default_rng(0)
    seen = np.bincount([n for _ in range(4000) for n in choose_frames(10, 3, "random", rng)], minlength=10)
    assert np.abs(seen - 1200).max() < 5 * np.sqrt(4000 * 0.3 * 0.7)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((0, 15), "both must be 1 or more"),
        ((5, 0), "both must be 1 or more"),
        ((5, 3, "odd"), "sampling='odd'"),
        ((5, 3, "random"), "needs a generator"),
    ],
)
def test_what_cannot_be_chosen(arguments: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        choose_frames(*arguments)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"segments": 0}, "segments=0"),
        ({"segments": 4, "frames": 3}, "segments=4 and frames=3"),
        ({"sampling": "odd"}, "sampling='odd': expected even or random or all"),
        ({"pooling": "sum"}, "pooling='sum'"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_out_of_range(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        VideoSettings(**settings)


@pytest.fixture
def walk(tmp_path: Path) -> Tracklet:
    """Six frames, each of one grey: its number."""
    for n in range(6):
        Image.new("RGB", (4, 8), (n, n, n)).save(tmp_path / f"{n}.png")
    return Tracklet(tmp_path, tuple(f"{n}.png" for n in range(6)), 7, 2)


def test_a_tracklet_needs_a_frame(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a tracklet without a frame: identity 7, camera 2"):
        Tracklet(tmp_path, (), 7, 2)


def test_frames_as_images(walk: Tracklet, tmp_path: Path) -> None:
    single = Sample(tmp_path / "x.png", 3, 1)
    assert len(walk) == 6
    assert walk.path == tmp_path / "0.png"
    assert as_images([single, walk]) == (single, *(Sample(tmp_path / f"{n}.png", 7, 2) for n in range(6)))


def test_unreadable_frames_are_left_out_and_tracklets_of_nothing_else(walk: Tracklet, tmp_path: Path) -> None:
    single = Sample(tmp_path / "x.png", 3, 1)
    bad = [walk.frame(0), walk.frame(4)]
    assert without_images([walk, single], bad) == [
        Tracklet(tmp_path, ("1.png", "2.png", "3.png", "5.png"), 7, 2),
        single,
    ]
    assert without_images([walk, single], [*as_images([walk]), single]) == []
    assert without_images([walk, single], []) == [walk, single]


def test_the_torch_data_set_gives_the_chosen_frames(walk: Tracklet) -> None:
    def gray(image: torch.Tensor) -> torch.Tensor:
        return image[:, :1, :1].float()

    even = TrackletSet([walk, walk], gray, VideoSettings(frames=3, segments=1))
    frames, index = even[1]
    assert index == 1
    assert len(even) == 2
    assert frames.shape == (3, 3, 1, 1)
    assert frames[:, 0, 0, 0].tolist() == [0, 2, 4]
    padded = TrackletSet([walk], gray, VideoSettings(frames=8))[0][0]
    assert padded[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 5]
    chance = [TrackletSet([walk] * 9, gray, VideoSettings(3, "random", 1, seed=seed)) for seed in (0, 0, 1)]
    drawn = [[tuple(some[i][0][:, 0, 0, 0].tolist()) for i in range(9)] for some in chance]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) > 1, "another draw for every tracklet"
