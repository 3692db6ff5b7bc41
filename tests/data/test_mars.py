from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from reprism.data import DataError, Tracklet, mars, open_dataset
from reprism.data.check import lost_queries
from reprism.data.records import JUNK
from reprism.drawn.layouts import render_mars

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "MARS" / "info"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mars") / "MARS"
    return render_mars(root, train_identities=3, test_identities=3, cameras=3, frames=(2, 5), junk=2, distractors=3,
                       size=(32, 16))  # fmt: skip


def write(root: Path, train_rows, test_rows, queries, train_names=None, test_names=None) -> Path:
    """Lists and tables alone; names made up to fit where none are given."""
    info = root / "info"
    info.mkdir(parents=True)
    for part, rows, names in (("train", train_rows, train_names), ("test", test_rows, test_names)):
        rows = np.asarray(rows)
        if names is None:
            names = [""] * int(rows[:, 1].max())
            for track, (first, last, pid, camid) in enumerate(rows.tolist()):
                label = "00-1" if pid == -1 else f"{pid:04d}"
                for line in range(first, last + 1):
                    names[line - 1] = f"{label}C{camid}T{track:05d}F{line - first + 1:04d}.jpg"
        (info / f"{part}_name.txt").write_text("\n".join(names) + "\n")
        savemat(info / f"tracks_{part}_info.mat", {f"track_{part}_info": rows})
    savemat(info / "query_IDX.mat", {"query_IDX": np.asarray(queries)})
    return root


def test_tracklets_are_the_rows_of_the_tables(drawn: Path) -> None:
    data = open_dataset("mars", drawn)
    for part, tracklets in (("train", data.train), ("test", data.gallery)):
        names = (drawn / "info" / f"{part}_name.txt").read_text().split()
        rows = loadmat(drawn / "info" / f"tracks_{part}_info.mat")[f"track_{part}_info"]
        assert len(rows) == len(tracklets)
        for (first, last, pid, camid), tracklet in zip(rows.tolist(), tracklets, strict=True):
            assert isinstance(tracklet, Tracklet)
            assert (tracklet.pid, tracklet.camid) == (pid, camid)
            assert list(tracklet.names) == names[first - 1 : last]
            assert tracklet.folder == drawn / f"bbox_{part}" / tracklet.names[0][:4]
            assert all((tracklet.folder / name).is_file() for name in tracklet.names)
    places = loadmat(drawn / "info" / "query_IDX.mat")["query_IDX"].ravel()
    assert data.query == tuple(data.gallery[int(place) - 1] for place in places)
    # Every frame on disk is in one tracklet.
    on_disk = sorted(path.name for path in (drawn / "bbox_train").rglob("*.jpg"))
    assert sorted(sample.path.name for sample in data.train_images) == on_disk
    assert Counter(data.train_targets) == Counter(
        data.train_labels[int(path.name)] for path in (drawn / "bbox_train").iterdir() for _ in path.iterdir()
    )


def test_the_two_galleries(drawn: Path) -> None:
    original = open_dataset("mars", drawn, protocol="original")
    without = open_dataset("mars", drawn, protocol="without-queries")
    assert without.query == original.query
    assert set(original.gallery) - set(without.gallery) == {
        track for track in original.gallery if track in original.query or track.pid == JUNK
    }
    assert {track.pid for track in without.gallery} >= {0}
    assert sum(track.pid == JUNK for track in original.gallery) == 2
    assert lost_queries(original.query, original.gallery) == []
    # The drawn last identity: its query by camera 1 has no other match than the query by camera 2.
    (lost, reason), *others = lost_queries(without.query, without.gallery)
    assert not others
    assert (lost.pid, lost.camid) == (max(track.pid for track in original.query), 1)
    assert "only the query's own camera, 1" in reason
    assert original.protocol == "original gallery"


@pytest.mark.parametrize("below", ["", "..", "info", "bbox_train"])
def test_the_root_is_found(drawn: Path, below: str) -> None:
    assert mars.load((drawn / below).resolve()).root == drawn.resolve()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, [[1, 2, 1, 1]], [[1, 2, 2, 1], [3, 4, 2, 2]], [[1]])
    (tmp_path / "info" / "query_IDX.mat").unlink()
    with pytest.raises(DataError, match=r"No MARS in .*: info/query_IDX.mat missing from"):
        mars.load(tmp_path)


TRAIN = [[1, 2, 1, 1]]
TEST = [[1, 2, 2, 1], [3, 4, 2, 2]]


@pytest.mark.parametrize(
    ("train", "test", "queries", "says"),
    [
        ([[1, 2, 1, 1], [3, 9, 1, 2]], TEST, [[1]], r"tracks_train_info.mat, row 2: lines 3 to 9 .* which has 4"),
        (TRAIN, [*TEST, [4, 3, 2, 1]], [[1]], r"tracks_test_info.mat, row 3: lines 4 to 3 .*needs a frame"),
        (TRAIN, [[0, 2, 2, 1], [3, 4, 2, 2]], [[1]], r"tracks_test_info.mat, row 1: lines 0 to 2"),
        (TRAIN, [[1, 2, 2, 1], [3, 4, 3, 2]], [[1]], r"row 2: identity 3, camera 2, but line 3 .* is '0002C2"),
        (TRAIN, TEST, [[1, 3]], r"query_IDX.mat, entry 2: there is no test tracklet 3; they count from 1 to 2"),
        (TRAIN, TEST, [[0]], r"query_IDX.mat, entry 1: there is no test tracklet 0"),
        (TRAIN, TEST, [[1, 1]], r"query_IDX.mat names a test tracklet twice"),
        ([[1, 2, 1]], TEST, [[1]], r"tracks_train_info.mat holds a table of 1×3; expected 4 columns"),
        ([[1.5, 2, 1, 1]], TEST, [[1]], r"tracks_train_info.mat holds numbers that are not whole"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_refused_with_the_row(tmp_path: Path, train, test, queries, says: str) -> None:
    names = ["0001C1T0001F001.jpg", "0001C1T0001F002.jpg", "0001C2T0001F001.jpg", "0001C2T0001F002.jpg"]
    tests = ["0002C1T0001F001.jpg", "0002C1T0001F002.jpg", "0002C2T0001F001.jpg", "0002C2T0001F002.jpg"]
    write(tmp_path, train, test, queries, names[: 4 if len(train) > 1 else 2], tests)
    with pytest.raises(DataError, match=says):
        mars.load(tmp_path)


def test_indices_of_few_bits_do_not_wrap(tmp_path: Path) -> None:
    """query_IDX is uint16 and counts from 1; uint8 tables would wrap at 256."""
    rows = np.array([[1 + 2 * n, 2 + 2 * n, 5, 1 + n % 2] for n in range(120)], np.uint8)
    write(tmp_path, TRAIN, rows, np.array([[120]], np.uint8))
    data = mars.load(tmp_path)
    assert data.query[0].names == data.gallery[119].names
    assert len(data.query[0]) == 2


def test_an_unknown_protocol_is_named(drawn: Path) -> None:
    with pytest.raises(ValueError, match="protocol='new': expected original or without-queries"):
        open_dataset("mars", drawn, protocol="new")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the official tables of MARS are not in {REAL}")
@pytest.mark.parametrize(("protocol", "gallery", "lost"), [("original", 12_180, 0), ("without-queries", 9_330, 140)])
def test_the_official_tables(tmp_path: Path, protocol: str, gallery: int, lost: int) -> None:
    """Against the published counts; file names made up to fit."""
    tables = {part: loadmat(REAL / f"tracks_{part}_info.mat")[f"track_{part}_info"] for part in ("train", "test")}
    write(tmp_path, tables["train"], tables["test"], loadmat(REAL / "query_IDX.mat")["query_IDX"])
    data = open_dataset("mars", tmp_path, protocol=protocol)
    assert len(data.train) == 8_298
    assert data.num_train_identities == 625
    assert len(data.train_images) == 509_914
    assert (len(data.query), data.num_query_identities) == (1_980, 626)
    assert len(data.gallery) == gallery
    assert len(lost_queries(data.query, data.gallery)) == lost
    assert sum(track.pid == JUNK for track in data.gallery) == (870 if protocol == "original" else 0)
    assert sum(track.pid == 0 for track in data.gallery) == 3_248
