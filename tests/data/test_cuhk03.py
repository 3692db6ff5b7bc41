import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from reprism.data import DataError, cuhk03, open_dataset
from reprism.data.images import read_image
from reprism.drawn.cuhk03 import render_cuhk03, render_cuhk03_np

SPLITS = Path(__file__).parents[2].parent / "shared" / "data" / "CUHK03"


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn cuhk-03.mat of 13 people, 7 to train on, with its two split files."""
    root = tmp_path_factory.mktemp("cuhk03") / "release"
    return render_cuhk03(root, train_identities=7, test_identities=6, images_per_camera=3, size=(40, 24))


@pytest.fixture
def copy(distributed: Path, tmp_path: Path) -> Path:
    """One's own copy, images not yet written out."""
    (tmp_path / "release").mkdir()
    for path in distributed.glob("*.mat"):
        shutil.copy(path, tmp_path / "release")
    return tmp_path / "release"


def as_h5py_has_it(mat: Path, kind: str) -> dict[str, np.ndarray]:
    """Every image by its name, straight from the file, one reference at a time."""
    images = {}
    with h5py.File(mat) as file:
        for pair in range(5):
            cells = file[file[kind][0, pair]]
            for person in range(cells.shape[1]):
                for number in range(10):
                    stored = file[cells[number, person]]
                    if stored.ndim == 3:
                        name = f"{pair + 1}_{person + 1:03d}_{1 + number // 5}_{number + 1:02d}.png"
                        images[name] = np.asarray(stored)
    return images


@pytest.mark.parametrize(("boxes", "kind"), [("labelled", "labeled"), ("detected", "detected")])
def test_the_new_protocol_is_that_of_the_split_file(distributed: Path, boxes: str, kind: str) -> None:
    data = open_dataset("cuhk03", distributed, boxes=boxes)
    config = loadmat(distributed / f"cuhk03_new_protocol_config_{kind}.mat")
    for part in ("train", "query", "gallery"):
        rows = config[f"{part}_idx"].ravel().astype(int) - 1
        assert [(s.path.name, s.pid, s.camid) for s in getattr(data, part)] == [
            (config["filelist"][row, 0][0], config["labels"][row, 0], config["camId"][row, 0]) for row in rows
        ]
    assert data.protocol == f"{boxes} boxes, new protocol"
    assert (data.num_train_identities, data.num_query_identities) == (7, 6)
    assert data.single_shot_trials == 0
    assert not {s.path for s in data.query} & {s.path for s in data.gallery}


@pytest.mark.parametrize(("boxes", "kind"), [("labelled", "labeled"), ("detected", "detected")])
def test_images_are_those_of_the_file_the_right_way_round(distributed: Path, boxes: str, kind: str) -> None:
    data = open_dataset("cuhk03", distributed, boxes=boxes)
    stored = as_h5py_has_it(distributed / "cuhk-03.mat", kind)
    written = {s.path.name: s.path for s in (*data.train, *data.query, *data.gallery)}
    assert written.keys() == stored.keys()
    for name, path in written.items():
        # MATLAB's H×W×3 lies as 3×W×H in HDF5; read_image gives 3×H×W.
        np.testing.assert_array_equal(read_image(path).numpy(), stored[name].transpose(0, 2, 1))
    heights = {read_image(path).shape[1] for path in written.values()}
    assert len(heights) > 1, "images differ in size"
    assert all(read_image(path).shape[1] > read_image(path).shape[2] for path in written.values()), "people stand"


def test_a_person_the_detector_missed_is_an_empty_cell_and_no_image(distributed: Path) -> None:
    counts = {boxes: Counter(s.pid for s in open_dataset("cuhk03", distributed, boxes=boxes).train_images)
              for boxes in ("labelled", "detected")}  # fmt: skip
    fewer = {pid for pid, many in counts["labelled"].items() if counts["detected"][pid] < many}
    assert fewer == {pid for pid in counts["labelled"] if pid % 4 == 0}


def test_of_ten_images_of_a_person_five_are_of_each_camera(tmp_path: Path) -> None:
    """Li et al. 2014: a person's row holds up to five images of the first camera, then up to five of the second."""
    root = render_cuhk03(tmp_path / "c", train_identities=1, test_identities=1, images_per_camera=5, size=(26, 13))
    data = open_dataset("cuhk03", root, protocol="classic")
    [pid] = {item.pid for item in data.query}
    assert [item.path.name for item in data.query] == [f"{pid}_001_1_{number:02d}.png" for number in range(1, 6)]
    assert [item.path.name for item in data.gallery] == [f"{pid}_001_2_{number:02d}.png" for number in range(6, 11)]
    new = open_dataset("cuhk03", root)
    assert [item.camid for item in new.train] == [1] * 5 + [2] * 5


@pytest.mark.parametrize("split", [0, 19, "7"])
def test_the_classic_protocol_tests_with_the_people_of_its_split(distributed: Path, split: int | str) -> None:
    data = open_dataset("cuhk03", distributed, protocol="classic", split=split)
    with h5py.File(distributed / "cuhk-03.mat") as file:
        tested = np.asarray(file[file["testsets"][0, int(split)]]).T.astype(int)
        people = [file[file["labeled"][0, pair]].shape[1] for pair in range(5)]
    numbers = {sum(people[: pair - 1]) + person for pair, person in tested}
    assert {s.pid for s in data.query} == {s.pid for s in data.gallery} == numbers
    assert {s.pid for s in data.train} == set(range(1, 14)) - numbers
    assert {s.camid for s in data.query} == {1}
    assert {s.camid for s in data.gallery} == {2}
    assert (len(data.query), len(data.gallery), data.single_shot_trials) == (18, 18, 10)
    # The same numbers as in the new protocol's tables.
    new = open_dataset("cuhk03", distributed)
    pids = {s.path.name: s.pid for s in (*new.train, *new.query, *new.gallery)}
    assert all(pids[s.path.name] == s.pid for s in (*data.train, *data.query, *data.gallery))


def test_images_are_written_once_and_whole(copy: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    data = open_dataset("cuhk03", copy, progress=lambda *call: calls.append(call))
    assert calls[-1][1:] == (26, 26)
    assert "cuhk-03.mat" in calls[0][0]
    first = {path: path.stat().st_mtime_ns for path in (copy / "cuhk-03-images").rglob("*.png")}
    calls.clear()
    assert open_dataset("cuhk03", copy, progress=lambda *call: calls.append(call)) == data
    assert not calls
    assert {path: path.stat().st_mtime_ns for path in first} == first


def test_an_interrupted_writing_leaves_nothing(copy: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cuhk03.load(copy, progress=stop)
    assert {path.suffix for path in copy.iterdir()} == {".mat"}
    assert len(cuhk03.load(copy).train) == 42


def test_two_processes_may_write_at_once(copy: Path) -> None:
    """As those of a distributed run do: the slower one takes what the faster one made."""
    begun = []

    def overtaken(what: str, done: int, total: int) -> None:
        if not begun:
            begun.append(True)
            cuhk03.load(copy)

    data = cuhk03.load(copy, progress=overtaken)
    assert begun
    assert data == cuhk03.load(copy)
    assert {path.suffix for path in copy.iterdir()} == {".mat", ""}
    assert [path.name for path in copy.iterdir() if path.is_dir()] == ["cuhk-03-images"]


def test_images_of_another_file_are_not_taken_for_its_own(copy: Path) -> None:
    cuhk03.load(copy)
    with (copy / "cuhk-03.mat").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=r"cuhk-03-images was made from another cuhk-03.mat"):
        cuhk03.load(copy)
    (copy / "cuhk-03-images" / "index.json").write_text("{")
    with pytest.raises(DataError, match=r"index.json is damaged"):
        cuhk03.load(copy)


def test_images_can_be_kept_elsewhere(copy: Path, tmp_path: Path) -> None:
    data = cuhk03.load(copy, cache=tmp_path / "elsewhere")
    assert data.train[0].path.parent == tmp_path / "elsewhere" / "labelled"
    assert not (copy / "cuhk-03-images").exists()


@pytest.mark.parametrize("below", ["..", "cuhk-03.mat", "."])
def test_the_distributed_form_is_found(distributed: Path, below: str) -> None:
    assert cuhk03.load((distributed / below).resolve()).root == distributed.resolve()


def test_split_files_may_lie_around_or_inside(copy: Path) -> None:
    expected = len(cuhk03.load(copy).train)
    name = "cuhk03_new_protocol_config_labeled.mat"
    (copy / "new protocol").mkdir()
    (copy / name).rename(copy / "new protocol" / name)
    assert len(cuhk03.load(copy).train) == expected
    (copy / "new protocol" / name).rename(copy.parent / name)
    assert len(cuhk03.load(copy).train) == expected
    (copy.parent / name).unlink()
    with pytest.raises(DataError, match=rf"labelled boxes needs {name} beside"):
        cuhk03.load(copy)


def test_a_split_file_of_other_images_is_refused(copy: Path) -> None:
    config = copy / "cuhk03_new_protocol_config_labeled.mat"
    tables = {key: value for key, value in loadmat(config).items() if not key.startswith("__")}
    names = tables["filelist"].copy()
    names[tables["query_idx"][0, 0] - 1, 0] = np.array(["9_999_1_01.png"])
    savemat(config, {**tables, "filelist": names})
    with pytest.raises(DataError, match=r"names 1 query images that .* does not have, the first 9_999_1_01.png"):
        cuhk03.load(copy)
    savemat(config, {**tables, "gallery_idx": np.array([[0], [1]], np.uint16)})
    with pytest.raises(DataError, match=r"gallery_idx counts from 1 to \d+; it holds something else"):
        cuhk03.load(copy)
    del tables["camId"]
    savemat(config, tables)
    with pytest.raises(DataError, match=r"lacks camId; it has "):
        cuhk03.load(copy)
    config.write_bytes(b"no table")
    with pytest.raises(DataError, match=rf"{config.name} cannot be read as a MATLAB file"):
        cuhk03.load(copy)


def test_a_file_that_is_no_cuhk03_is_refused(tmp_path: Path) -> None:
    mat = tmp_path / "cuhk-03.mat"
    mat.write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(DataError, match=r"cuhk-03.mat cannot be read as a MATLAB v7.3 \(HDF5\) file"):
        cuhk03.load(tmp_path)
    with h5py.File(mat, "w") as file:
        file["labeled"] = np.zeros(3)
    with pytest.raises(DataError, match=r"is no cuhk-03.mat as distributed .*it has no detected"):
        cuhk03.load(tmp_path)
    with h5py.File(mat, "a") as file:
        file["detected"] = file["testsets"] = np.zeros(3)
    with pytest.raises(DataError, match=r"is no cuhk-03.mat as distributed"):
        cuhk03.load(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cuhk-03.mat"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"boxes": "labeled"}, "boxes='labeled': expected labelled or detected"),
        ({"protocol": "old"}, "protocol='old'"),
        ({"split": 20}, "split=20.*0 … 19"),
        ({"split": -1}, "split=-1"),
    ],
)
def test_options_out_of_range_are_named(distributed: Path, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_dataset("cuhk03", distributed, **options)


# --- the folder form ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("np") / "cuhk03-np"
    return render_cuhk03_np(root, train_identities=3, test_identities=2, images_per_camera=3, size=(32, 16))


@pytest.mark.parametrize("below", ["", "..", "labeled", "labeled/query", "detected/bounding_box_test"])
def test_the_folder_form(folders: Path, below: str) -> None:
    for boxes, kind in (("labelled", "labeled"), ("detected", "detected")):
        data = open_dataset("cuhk03", (folders / below).resolve(), boxes=boxes)
        assert data.root == folders.resolve() / kind
        assert (len(data.train), len(data.query), len(data.gallery)) == (18, 4, 8)
        assert (data.num_train_identities, data.num_query_identities) == (3, 2)
        assert {s.camid for s in data.gallery} == {1, 2}
        assert data.protocol == f"{boxes} boxes, new protocol"


def test_the_folder_form_has_no_classic_protocol(folders: Path) -> None:
    with pytest.raises(DataError, match=r"has the new protocol only. The classic one needs cuhk-03.mat"):
        cuhk03.load(folders, protocol="classic")


def test_neither_form_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "labeled").mkdir()
    with pytest.raises(DataError) as caught:
        cuhk03.load(tmp_path)
    for words in ("No CUHK03", "cuhk-03.mat", "labeled/query", f"looked in {tmp_path}"):
        assert words in str(caught.value)


# --- the official split files ------------------------------------------------------------------------------


@pytest.mark.skipif(not SPLITS.is_dir(), reason=f"the official split files of CUHK03 are not in {SPLITS}")
@pytest.mark.parametrize(
    ("boxes", "kind", "counts"),
    [("labelled", "labeled", (7368, 1400, 5328)), ("detected", "detected", (7365, 1400, 5332))],
)
def test_the_official_splits(tmp_path: Path, boxes: str, kind: str, counts: tuple[int, ...]) -> None:
    """Against the published counts; the images are stood for by their names."""
    config = f"cuhk03_new_protocol_config_{kind}.mat"
    (tmp_path / config).symlink_to(SPLITS / config)
    mat = tmp_path / "cuhk-03.mat"
    mat.touch()
    names = [str(cell[0]) for cell in loadmat(SPLITS / config)["filelist"].ravel()]
    people = Counter(name[:5] for name in names if name.split("_")[2:] == ["2", "06.png"])
    index = {
        "source": {"bytes": 0, "mtime_ns": mat.stat().st_mtime_ns},
        "images": {boxes: names},
        "people": [sum(name.startswith(f"{pair}_") for name in people) for pair in range(1, 6)],
        "testsets": [],
    }
    (tmp_path / "cuhk-03-images").mkdir()
    (tmp_path / "cuhk-03-images" / "index.json").write_text(json.dumps(index))
    data = open_dataset("cuhk03", tmp_path, boxes=boxes)
    assert (len(data.train), len(data.query), len(data.gallery)) == counts
    assert (data.num_train_identities, data.num_query_identities) == (767, 700)
    query, gallery = ({s.path for s in part} for part in (data.query, data.gallery))
    assert not query & gallery
    assert len(query) == 1400
    assert {s.pid for s in data.query} == {s.pid for s in data.gallery}
    # Numbers run through the pairs of cameras, which is what the classic protocol relies on.
    first = np.cumsum([0, *index["people"]])
    for s in (*data.train, *data.query, *data.gallery):
        pair, person, view, _ = map(int, s.path.stem.split("_"))
        assert (s.pid, s.camid) == (first[pair - 1] + person, view)


def test_the_drawn_file_is_laid_out_as_matlab_does(distributed: Path) -> None:
    """What the MAT-file v7.3 format and its known readers rely on."""
    mat = distributed / "cuhk-03.mat"
    head = mat.read_bytes()[:520]
    assert head.startswith(b"MATLAB 7.3 MAT-file")
    assert head[124:128] == b"\x00\x02IM"
    assert head[512:520] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(mat) as file:
        assert {"labeled", "detected", "testsets", "#refs#"} == set(file)
        assert (file["labeled"].shape, file["testsets"].shape) == ((1, 5), (1, 20))
        pair = file[file["detected"][0, 0]]
        assert pair.attrs["MATLAB_class"] == b"cell"
        assert pair.shape[0] == 10
        stored = file[pair[0, 0]]
        assert stored.attrs["MATLAB_class"] == b"uint8"
        assert stored.shape[0] == 3
        empty = file[pair[4, 0]]
        assert empty.attrs["MATLAB_empty"] == 1
        assert empty[:].tolist() == [0, 0]
        sets = file[file["testsets"][0, 0]]
        assert (sets.attrs["MATLAB_class"], sets.shape) == (b"double", (2, 6))
    with Image.open(next((distributed / "cuhk-03-images").rglob("*.png"))) as image:
        assert image.mode == "RGB"


# ---- a file that a stranger made -------------------------------------------------------------------------


def first_image(file: h5py.File) -> tuple[h5py.Dataset, tuple[int, int]]:
    """The cells of the first camera pair, and the place of an image in them."""
    return file[file["labeled"][0, 0]], (0, 0)


def external(file: h5py.File, secret: Path) -> None:
    cells, place = first_image(file)
    bytes_elsewhere = [(str(secret), 0, 3 * 40 * 24)]
    cells[place] = file.create_dataset("x", (3, 24, 40), "u1", external=bytes_elsewhere).ref


def virtual(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        other["pixels"] = np.full((3, 24, 40), 7, np.uint8)
    layout = h5py.VirtualLayout((3, 24, 40), "u1")
    layout[:] = h5py.VirtualSource(str(secret.with_suffix(".h5")), "pixels", (3, 24, 40))
    cells, place = first_image(file)
    cells[place] = file.create_virtual_dataset("x", layout).ref


def linked(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_suffix(".h5"), "w") as other:
        file.copy("labeled", other)
    del file["labeled"]
    file["labeled"] = h5py.ExternalLink(str(secret.with_suffix(".h5")), "labeled")


def enormous(file: h5py.File, _: Path) -> None:
    cells, place = first_image(file)
    cells[place] = file.create_dataset("x", (3, 10**6, 10**6), "u1", chunks=(1, 1000, 1000)).ref


def group(file: h5py.File, _: Path) -> None:
    cells, place = first_image(file)
    cells[place] = file.create_group("x").ref


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (external, "content from another file"), (virtual, "content from another file"), (linked, "is a link"),
        (enormous, "claims 3,000,000,000,000 values"), (group, "a group, where a data set belongs"),
    ],
)  # fmt: skip
def test_nothing_of_another_file_is_taken_for_an_image(copy: Path, tmp_path: Path, make: Any, words: str) -> None:
    """A stranger's file can say that a picture's bytes lie in any other file: it would be written out as PNG."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"a private key " * 1000)
    with h5py.File(copy / "cuhk-03.mat", "r+") as file:
        make(file, secret)
    with pytest.raises(DataError, match=words):
        open_dataset("cuhk03", copy)
    assert not list(copy.glob("cuhk-03-images*"))
