"""Training on several data sets: whose images are joined, and that nobody becomes somebody else."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reprism
from reprism.data import LOADERS
from reprism.data.joint import join_training, named_data
from reprism.data.records import DataError, ReIDDataset, Sample


def made(name: str, pids: list[int | str]) -> ReIDDataset:
    items = tuple(Sample(Path(f"{name}-{number}.png"), pid, 1) for number, pid in enumerate(pids))
    return ReIDDataset(name, Path(name), items, items[:1], items[1:])


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=8), min_size=1, max_size=4), st.data())
def test_images_are_of_one_identity_only_if_they_were(sizes: list[list[int]], data: st.DataObject) -> None:
    names = [data.draw(st.sampled_from(["a", "b", "a/1"])) for _ in sizes]
    sets = [made(name, list(pids)) for name, pids in zip(names, sizes, strict=True)]
    try:
        joined = join_training(sets[0], sets[1:])
    except DataError:
        # Two names that read alike, such as identity 1/1 of a and 1 of a/1.
        return
    before = [(number, item.pid) for number, one in enumerate(sets) for item in one.train]
    after = [item.pid for item in joined.train]
    assert len(after) == len(before)
    assert [item.path for item in joined.train] == [item.path for one in sets for item in one.train]
    for i in range(len(before)):
        for j in range(i):
            assert (after[i] == after[j]) == (before[i] == before[j])
    assert (joined.query, joined.gallery, joined.name) == (sets[0].query, sets[0].gallery, sets[0].name)
    assert joined.num_train_identities == sum(one.num_train_identities for one in sets)


def test_clocks_of_two_data_sets_stay_apart() -> None:
    def timed(name: str, *clocks: tuple[float | None, str | None]) -> ReIDDataset:
        one = made(name, list(range(len(clocks))))
        train = tuple(replace(item, time=t, recording=r) for item, (t, r) in zip(one.train, clocks, strict=True))
        return replace(one, train=train)

    sets = [timed(name, (1.0, "s1"), (2.0, None), (None, None)) for name in ("a", "b", "b")]
    joined = join_training(sets[0], sets[1:])
    assert [(item.time, item.recording) for item in joined.train] == [
        *((1.0, "s1"), (2.0, None), (None, None)),
        *((1.0, "b/s1"), (2.0, "b"), (None, None)),
        *((1.0, "b-2/s1"), (2.0, "b-2"), (None, None)),
    ]


def test_what_cannot_be_joined_is_named() -> None:
    with pytest.raises(DataError, match="b in b has no train split"):
        join_training(made("a", [1]), [replace(made("b", [1]), train=())])
    with pytest.raises(DataError, match="a has an identity called 'b/1' already"):
        join_training(made("a", ["b/1"]), [made("b", [1])])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("market1501:/data/m", ("market1501", "/data/m", {})),
        ("market1501:C:/m", ("market1501", "C:/m", {})),
        ("cuhk03,boxes=detected:/c", ("cuhk03", "/c", {"boxes": "detected"})),
        ("my.module:load:/d", ("my.module:load", "/d", {})),
        ("my.module:load,a=b:/d:e", ("my.module:load", "/d:e", {"a": "b"})),
    ],
)
def test_names_of_data_sets(text: str, expected: tuple[str, str, dict[str, str]]) -> None:
    assert named_data(text, LOADERS) == expected


@pytest.mark.parametrize("text", ["market1501", ":x", "market1501:", "cuhk03,boxes:/c", "a,=b:/c"])
def test_what_names_no_data_set(text: str) -> None:
    with pytest.raises(ValueError, match="expected NAME:DIR"):
        named_data(text, LOADERS)


def test_a_run_is_trained_on_both(people: Path, tmp_path: Path) -> None:
    from reprism.cli import main
    from reprism.drawn.layouts import render_market1501

    other = render_market1501(tmp_path / "other", train_identities=5, test_identities=1, cameras=2, size=(64, 32))
    small = ["--data.size", "32", "16", "--optimizer.epochs", "1", "--trainer.evaluate-every", "0"]
    data = ["--data.root", str(people), "--data.also", f"market1501:{other}"]
    command = ["train", "cpu-minutes", *data, *small, "--out", str(tmp_path / "run")]
    assert main(command) == 0
    model = reprism.load(tmp_path / "run" / "model.safetensors")
    assert model.num_classes == 12 + 5
