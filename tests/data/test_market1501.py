from collections import Counter
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reprism.data import DataError, Sample, market1501, open_dataset
from reprism.data.market1501 import parse_name

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "Market-1501-split"

TRAIN = ("0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.jpg", "0007_c6s3_077592_06.jpg")
QUERY = ("0001_c1s1_001051_00.jpg",)
GALLERY = ("0001_c2s1_000476_01.jpg", "0000_c1s1_000151_01.jpg", "-1_c3s2_000901_04.jpg")


def make(root, train=TRAIN, query=QUERY, gallery=GALLERY):
    for folder, names in (("bounding_box_train", train), ("query", query), ("bounding_box_test", gallery)):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).touch()
    return root


def identities(samples):
    return [(sample.path.name, sample.pid, sample.camid) for sample in samples]


def test_reads_the_three_parts_sorted_by_name(tmp_path):
    data = open_dataset("market1501", make(tmp_path, train=reversed(TRAIN)))
    assert data.name == "market1501"
    assert data.root == tmp_path
    assert data.train == (
        Sample(tmp_path / "bounding_box_train" / "0002_c1s1_000451_03.jpg", 2, 1, 18.04, "s1"),
        Sample(tmp_path / "bounding_box_train" / "0002_c2s1_000301_01.jpg", 2, 2, 12.04, "s1"),
        Sample(tmp_path / "bounding_box_train" / "0007_c6s3_077592_06.jpg", 7, 6, 3103.68, "s3"),
    )
    assert identities(data.query) == [("0001_c1s1_001051_00.jpg", 1, 1)]


def test_junk_is_dropped_everywhere_and_distractors_stay_in_the_gallery_only(tmp_path):
    special = ("-1_c3s2_000901_04.jpg", "0000_c1s1_000151_01.jpg")
    make(tmp_path, TRAIN + special, QUERY + special, GALLERY)
    data = market1501.load(tmp_path)
    assert {sample.pid for sample in data.train} == {2, 7}
    assert {sample.pid for sample in data.query} == {1}
    assert Counter(sample.pid for sample in data.gallery) == {0: 1, 1: 1}


def test_boxes_drawn_by_hand_are_read_where_they_are(tmp_path):
    root = make(tmp_path / "Market-1501-v15.09.15")
    assert market1501.load(root).multi_query == ()
    (root / "gt_bbox").mkdir()
    for name in ("0001_c1s1_001051_00.jpg", "0001_c1s1_001076_00.jpg", "0002_c3s1_000551_00.jpg", "x.jpg", "Thumbs.db"):
        (root / "gt_bbox" / name).touch()
    data = market1501.load(root)
    assert identities(data.multi_query) == [
        ("0001_c1s1_001051_00.jpg", 1, 1), ("0001_c1s1_001076_00.jpg", 1, 1), ("0002_c3s1_000551_00.jpg", 2, 3),
    ]  # fmt: skip
    assert [(box.time, box.recording) for box in data.multi_query] == [(42.04, "s1"), (43.04, "s1"), (22.04, "s1")]
    assert data.multi_query[0].path == root / "gt_bbox" / "0001_c1s1_001051_00.jpg"
    assert market1501.load(root / "gt_bbox") == data
    assert len(data.query) == 1


def test_stray_files_are_passed_over(tmp_path):
    make(tmp_path)
    for name in ("Thumbs.db", "readme.txt", ".DS_Store", "._0002_c1s1_000451_03.jpg"):
        (tmp_path / "bounding_box_train" / name).touch()
    (tmp_path / "bounding_box_train" / "more.jpg").mkdir()
    assert len(market1501.load(tmp_path).train) == len(TRAIN)


def test_image_whose_name_says_nothing_is_an_error_that_names_file_and_folder(tmp_path):
    make(tmp_path, gallery=(*GALLERY, "holiday.JPG"))
    with pytest.raises(DataError, match=r"(?s)holiday\.JPG.*0002_c1s1_000451_03\.jpg.*bounding_box_test"):
        market1501.load(tmp_path)


@pytest.mark.parametrize("below", ["", "bounding_box_train", "query", "bounding_box_test"])
def test_root_is_found_from_one_of_its_parts(tmp_path, below):
    root = make(tmp_path / "Market-1501-v15.09.15")
    assert market1501.load(root / below).root == root


def test_root_is_found_from_the_folder_around_it(tmp_path):
    root = make(tmp_path / "Market-1501-v15.09.15")
    (tmp_path / "another").mkdir()
    (tmp_path / "archive.zip").touch()
    assert market1501.load(tmp_path).root == root


def test_relative_root_and_home(tmp_path, monkeypatch):
    make(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here" / "query")
    assert market1501.load(".").root == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    data = market1501.load("~/here")
    assert data.train[0].path.is_absolute()
    assert data.train[0].path.is_file()


def test_two_data_sets_around_are_not_guessed_between(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b")
    with pytest.raises(DataError, match=r"holds 2 data sets.*a, .*b\. Give one"):
        market1501.load(tmp_path)


def test_missing_part_is_named_with_where_it_was_looked_for(tmp_path):
    make(tmp_path / "x")
    (tmp_path / "x" / "query" / QUERY[0]).unlink()
    (tmp_path / "x" / "query").rmdir()
    with pytest.raises(DataError) as caught:
        market1501.load(tmp_path / "x")
    assert f"looked in {tmp_path / 'x'}" in str(caught.value)
    assert f": query missing from {tmp_path / 'x'}" in str(caught.value)


def test_a_wrong_sibling_does_not_lead_to_the_data_set(tmp_path):
    make(tmp_path)
    (tmp_path / "readme").mkdir()
    with pytest.raises(DataError, match="No Market-1501 in"):
        market1501.load(tmp_path / "readme")
    with pytest.raises(DataError, match="There is no folder"):
        market1501.load(tmp_path / "boundingbox_train")


@pytest.mark.parametrize("part", ["train", "query", "gallery"])
def test_part_without_an_image_is_an_error(tmp_path, part):
    make(tmp_path, **{part: ("Thumbs.db",)})
    with pytest.raises(DataError, match="holds no image"):
        market1501.load(tmp_path)


def test_part_of_junk_alone_is_an_error(tmp_path):
    make(tmp_path, query=("-1_c3s2_000901_04.jpg", "0000_c3s2_000901_04.jpg"))
    with pytest.raises(DataError, match=r"query holds no image of a person"):
        market1501.load(tmp_path)


def test_symlinks_and_names_in_any_script(tmp_path):
    store = make(tmp_path / "商品" / "Überwachung é")
    link = tmp_path / "link"
    link.mkdir()
    (link / "bounding_box_train").symlink_to(store / "bounding_box_train", target_is_directory=True)
    (link / "bounding_box_test").symlink_to(store / "bounding_box_test", target_is_directory=True)
    (link / "query").mkdir()
    (link / "query" / "0001_c4s1_001051_00.jpg").symlink_to(store / "query" / QUERY[0])
    assert len(market1501.load(store).train) == 3
    data = market1501.load(link)
    assert identities(data.query) == [("0001_c4s1_001051_00.jpg", 1, 4)]
    assert data.train[0].path == link / "bounding_box_train" / TRAIN[0]
    (tmp_path / "straight").symlink_to(store, target_is_directory=True)
    assert len(market1501.load(tmp_path / "straight" / "query").train) == 3


def test_a_link_to_nowhere_is_kept_so_that_reading_it_complains(tmp_path):
    make(tmp_path)
    (tmp_path / "query" / "0009_c1s1_000001_00.jpg").symlink_to(tmp_path / "gone.jpg")
    assert [sample.pid for sample in market1501.load(tmp_path).query] == [1, 9]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0002_c1s1_000451_03.jpg", (2, 1)),
        ("-1_c3s2_000901_04.jpg", (-1, 3)),
        ("0000_c6s4_002427_05.jpg", (0, 6)),
        ("1501_c5s3_065212_01.jpg.jpg", (1501, 5)),
        ("0002_c1s1_000451_03.PNG", (2, 1)),
        ("12345_c12s10_000451_03.jpeg", (12345, 12)),
    ],
)
def test_parse_name(name, expected):
    assert parse_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "0002.jpg",
        "-2_c1s1_000451_03.jpg",
        "0002_c1s1_000451_03",
        "0002_c1s1_000451_03.jpg ",
        "x0002_c1s1_000451_03.jpg",
        "0002_c1_f0046182.jpg",
        "0002_cAs1_000451_03.jpg",
        "٠٠٠٢_c1s1_000451_03.jpg",
        "0002_c1s1_000451_03.jpg\n",
        "",
    ],
)
def test_parse_name_refuses(name):
    with pytest.raises(DataError, match="not of Market-1501's form"):
        parse_name(name)


number = st.integers(0, 10**6)


@given(st.integers(-1, 10**5), number, number, number, number, st.integers(1, 7))
def test_parse_name_gives_back_what_was_written(pid, camid, sequence, frame, box, width):
    person = "-1" if pid == -1 else f"{pid:0{width}d}"
    assert parse_name(f"{person}_c{camid}s{sequence}_{frame:06d}_{box:02d}.jpg") == (pid, camid)


@given(st.text(max_size=40))
def test_parse_name_answers_or_refuses_any_text(name):
    try:
        pid, camid = parse_name(name)
    except DataError:
        return
    assert name.startswith(("-1_c", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"))
    assert pid >= -1
    assert camid >= 0


@given(st.text(max_size=3), st.integers(0, 23))
def test_parse_name_takes_nothing_between_its_fields_but_digits(text, at):
    assume(not text.isascii() or not text.replace("_", "").isalnum())
    name = "0002_c1s1_000451_03.jpg"
    assume(text != "" and text not in (".jpg", ".png", ".bmp"))
    with pytest.raises(DataError):
        parse_name(name[:at] + text + name[at:])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the photographs of Market-1501 are not in {REAL}")
def test_the_real_photographs():
    data = open_dataset("market1501", REAL)
    assert (len(data.train), len(data.query), len(data.gallery)) == (8660, 1107, 3169)
    assert (data.num_train_identities, data.num_query_identities) == (501, 250)
    assert {sample.camid for sample in data.train} == {1, 2, 3, 4, 5, 6}
    assert not {sample.pid for sample in data.train} & {sample.pid for sample in data.query}
    # By hand, from the folder: its first file.
    assert identities(data.train)[0] == ("0002_c1s1_000451_03.jpg", 2, 1)
    assert data.num_query_identities == 250
