import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprism.data import DataError, Sample, dukemtmc, open_dataset
from reprism.data.dukemtmc import WithdrawnDatasetWarning, parse_name

NAMES = {
    "bounding_box_train": ("0001_c2_f0046182.jpg", "0005_c8_f0100000.jpg"),
    "query": ("0002_c1_f0044158.jpg",),
    "bounding_box_test": ("0002_c3_f0044158.jpg", "7139_c5_f0000001.jpg"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder, names in NAMES.items():
        (tmp_path / "DukeMTMC-reID" / folder).mkdir(parents=True)
        for name in (*names, "Thumbs.db"):
            (tmp_path / "DukeMTMC-reID" / folder / name).touch()
    return tmp_path / "DukeMTMC-reID"


def test_reads_identity_and_camera_from_the_names(root: Path) -> None:
    data = open_dataset("dukemtmc", root.parent)
    assert data.name == "dukemtmc"
    assert data.root == root
    assert data.train == tuple(
        Sample(root / "bounding_box_train" / name, pid, camid, time)
        # By hand: 46,182 and 100,000 frames of 1001/60000 seconds.
        for name, pid, camid, time in zip(
            NAMES["bounding_box_train"],
            (1, 5),
            (2, 8),
            (pytest.approx(770.4697), pytest.approx(1668.3333)),
            strict=True,
        )
    )
    assert [sample.pid for sample in data.gallery] == [2, 7139]


def test_says_once_that_it_was_withdrawn(root: Path) -> None:
    code = (
        "import warnings, sys; from reprism.data import open_dataset\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(3): open_dataset('dukemtmc', sys.argv[1])\n"
        "print(len(seen), seen[0].message)"
    )
    said = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True).stdout
    assert said.startswith("1 DukeMTMC-reID was withdrawn by its authors in 2019")


def test_a_market1501_folder_is_not_taken_for_it(root: Path) -> None:
    (root / "query" / "0002_c1s1_000451_03.jpg").touch()
    with pytest.raises(DataError, match=r"not of DukeMTMC-reID's form '0001_c2_f0046182.jpg'.*query"):
        dukemtmc.load(root)


@given(st.integers(0, 10**5), st.integers(0, 99), st.integers(0, 10**8))
def test_parse_name_gives_back_what_was_written(pid: int, camid: int, frame: int) -> None:
    assert parse_name(f"{pid:04d}_c{camid}_f{frame:07d}.jpg") == (pid, camid)


@given(st.text(max_size=30))
def test_parse_name_answers_or_refuses_any_text(name: str) -> None:
    try:
        answer = parse_name(name)
    except DataError:
        return
    assert min(answer) >= 0


@pytest.fixture(autouse=True)
def _silent():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WithdrawnDatasetWarning)
        yield
