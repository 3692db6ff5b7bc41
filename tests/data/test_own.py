import csv
import warnings
from collections import defaultdict
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprism.data import DataError, Sample, Tracklet, open_dataset
from reprism.data.check import lost_queries
from reprism.data.tables import frame_order

ROWS = [
    ("a/1.jpg", "anna", "door", "train"),
    ("a/2.jpg", "anna", "hall", "train"),
    ("b/1.jpg", "0007", "door", "query"),
    ("b/2.jpg", "0007", "hall", "gallery"),
    ("c/ü 3.jpg", "7", "hall", "gallery"),
]


def table(folder: Path, rows=ROWS, header="path,pid,camid,split", name="people.csv", touch=True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)
    for row in rows if touch else ():
        (folder / row[0]).parent.mkdir(parents=True, exist_ok=True)
        (folder / row[0]).touch()
    return folder / name


def test_a_table_of_images(tmp_path: Path) -> None:
    data = open_dataset("csv", table(tmp_path))
    samples = [Sample(tmp_path / path, pid, camid) for path, pid, camid, _ in ROWS]
    assert (data.train, data.query, data.gallery) == (tuple(samples[:2]), tuple(samples[2:3]), tuple(samples[3:]))
    assert data.train_labels == {"anna": 0}, "0007 and 7 are two people, and neither is the number 7"
    assert not data.is_video


@pytest.mark.parametrize("form", ["semicolons", "mark", "columns", "blank", "parquet", "absolute"])
def test_other_ways_to_write_the_same_table(tmp_path: Path, form: str) -> None:
    plain = open_dataset("csv", table(tmp_path))
    path = tmp_path / "people.csv"
    text = path.read_text(encoding="utf-8")
    if form == "semicolons":
        path.write_text(text.replace(",", ";"), encoding="utf-8")
    elif form == "mark":
        path.write_text(text, encoding="utf-8-sig")
    elif form == "blank":
        path.write_text(text.replace("\n", "\r\n\r\n"), encoding="utf-8")
    elif form == "columns":
        lines = [line.split(",") for line in text.splitlines()]
        lines[0] = [" Split", "PID", "note", "path", "camid "]
        shuffled = [lines[0], *([split, pid, "x", name, camid] for name, pid, camid, split in lines[1:])]
        path.write_text("\n".join(map(",".join, shuffled)), encoding="utf-8")
    elif form == "absolute":
        path.write_text("\n".join(line if n == 0 else f"{tmp_path}/{line}" for n, line in enumerate(text.splitlines())))
    else:
        path = tmp_path / "people.parquet"
        columns = dict(zip(("path", "pid", "camid", "split"), map(list, zip(*ROWS, strict=True)), strict=True))
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    data = open_dataset("csv", path)
    assert (data.train, data.query, data.gallery) == (plain.train, plain.query, plain.gallery)


def test_numbers_in_parquet_are_taken_as_they_are_written(tmp_path: Path) -> None:
    table(tmp_path)
    columns = {"path": ["a/1.jpg", "b/1.jpg", "b/2.jpg"], "pid": [1, 2, 2], "camid": [None, None, None],
               "split": ["train", "query", "gallery"]}  # fmt: skip
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    data = open_dataset("csv", tmp_path / "t.parquet")
    assert [(item.pid, item.camid) for item in (*data.train, *data.query)] == [("1", None), ("2", None)]


TIMED_HEADER = "path,pid,camid,split,time,recording"


def timed(folder: Path, *times: tuple[str, str]) -> Path:
    return table(folder, [(*row, *time) for row, time in zip(ROWS, times, strict=True)], TIMED_HEADER)


def clocks_of(data) -> list[tuple[float | None, str | None]]:
    return [(item.time, item.recording) for item in (*data.train, *data.query, *data.gallery)]


def test_times_in_seconds_on_the_clocks_of_recordings(tmp_path: Path) -> None:
    times = ("18.04", "day 1"), ("-3", "day 1"), ("1e3", "day 2"), ("", "day 2"), ("0,5", "")
    assert clocks_of(open_dataset("csv", timed(tmp_path, *times))) == [
        (18.04, "day 1"), (-3.0, "day 1"), (1000.0, "day 2"), (None, "day 2"), (0.5, None),
    ]  # fmt: skip


def test_moments_become_seconds_since_1970(tmp_path: Path) -> None:
    moments = (
        "1970-01-01T00:01:00Z",
        "1970-01-01T02:00:00.250+02:00",
        "1970-01-02",
        "1970-01-01 00:00:07",
        "1969-12-31T23:59:59+00:00",
    )
    data = open_dataset("csv", timed(tmp_path, *((moment, "") for moment in moments)))
    assert clocks_of(data) == [(seconds, None) for seconds in (60.0, 0.25, 86400.0, 7.0, -1.0)]


def test_parquet_has_times_of_its_own(tmp_path: Path) -> None:
    table(tmp_path)
    columns = {name: [row[at] for row in ROWS] for at, name in enumerate(("path", "pid", "camid", "split"))}
    moments = [datetime(1970, 1, 1, 0, 0, at, tzinfo=UTC) for at in range(5)]
    for values in (moments, [0.0, 1.0, 2.0, 3.0, 4.0]):
        pyarrow.parquet.write_table(pyarrow.table(columns | {"time": values}), tmp_path / "t.parquet")
        assert [time for time, _ in clocks_of(open_dataset("csv", tmp_path / "t.parquet"))] == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("time", ["noon", "12:30", "nan", "inf", "1e999", "2024-13-01", "1 2", "٣"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, time: str) -> None:
    with pytest.raises(DataError, match=r"people\.csv, line 3: expected a time in seconds, such as 18\.04"):
        open_dataset("csv", timed(tmp_path, ("1", ""), (time, ""), ("2", ""), ("", ""), ("", "")))


def test_seconds_and_moments_do_not_mix(tmp_path: Path) -> None:
    moment = "2024-05-01T12:30:00+02:00"
    with pytest.raises(DataError, match=r"line 4: the time '2024.*', but '3' in an earlier row"):
        open_dataset("csv", timed(tmp_path, ("3", ""), ("", ""), (moment, ""), ("", ""), ("", "")))


def test_a_tracklet_begins_with_its_earliest_frame_and_has_one_recording(tmp_path: Path) -> None:
    header = f"{VIDEO_HEADER},time,recording"
    seconds = ("10", "9", "50", "", "11")
    rows = [(*row, time, "day 1") for row, time in zip(VIDEO, seconds, strict=True)]
    data = open_dataset("csv", table(tmp_path, rows, header))
    assert [(walk.pid, walk.time, walk.recording) for walk in (*data.train, *data.query, *data.gallery)] == [
        ("q", None, "day 1"), ("p", 9.0, "day 1"), ("p", 50.0, "day 1"),
    ]  # fmt: skip
    assert [frame.time for frame in data.train_images] == [None]
    rows[1] = (*rows[1][:-1], "day 2")
    with pytest.raises(DataError, match="the tracklet t1 has recording 'day 2' here and 'day 1' in line 2"):
        open_dataset("csv", table(tmp_path, rows, header))


def test_a_division_keeps_the_times(tmp_path: Path) -> None:
    rows = [(f"{pid}{cam}.jpg", pid, cam, f"{10 * at}", "r") for at, pid in enumerate("abcd") for cam in "12"]
    path = table(tmp_path, rows, "path,pid,camid,time,recording")
    divided = open_dataset("csv", path, split_by_identity=0.5)
    again = open_dataset("csv", tmp_path / "people.split-0.5-0.csv")
    assert clocks_of(again) == clocks_of(divided)
    assert {item.pid: item.time for item in (*again.train, *again.query)} == {"a": 0.0, "b": 10.0, "c": 20.0, "d": 30.0}


VIDEO = [
    ("x/10.jpg", "p", "1", "query", "t1", "10"),
    ("x/9.jpg", "p", "1", "query", "t1", "9"),
    ("y/1.jpg", "p", "2", "gallery", "t2", "1"),
    ("z/1.jpg", "q", "2", "train", "t3", "1"),
    ("x/11.jpg", "p", "1", "query", "t1", "11"),
]
VIDEO_HEADER = "path,pid,camid,split,tracklet,frame"


def test_a_table_of_frames(tmp_path: Path) -> None:
    data = open_dataset("csv", table(tmp_path, VIDEO, VIDEO_HEADER))
    assert data.is_video
    assert data.query == (Tracklet(tmp_path, ("x/9.jpg", "x/10.jpg", "x/11.jpg"), "p", "1"),)
    assert data.train_images == (Sample(tmp_path / "z/1.jpg", "q", "2"),)
    for form in ("f{}", "{}.0", "{}.5", "{},5", "0:{}.25", "clip1.{}.png"):
        other = [(*row[:5], form.format(row[5])) for row in VIDEO]
        assert open_dataset("csv", table(tmp_path, other, VIDEO_HEADER)).query == data.query, form
    without = [(*row[:5], "") for row in VIDEO]
    in_table_order = ("x/10.jpg", "x/9.jpg", "x/11.jpg")
    assert open_dataset("csv", table(tmp_path, without, VIDEO_HEADER)).query[0].names == in_table_order
    bare = table(tmp_path, [row[:5] for row in VIDEO], "path,pid,camid,split,tracklet")
    assert open_dataset("csv", bare).query[0].names == in_table_order


def test_frames_of_parquet_are_seconds(tmp_path: Path) -> None:
    table(tmp_path, VIDEO, VIDEO_HEADER)
    columns = dict(zip(VIDEO_HEADER.split(","), map(list, zip(*VIDEO, strict=True)), strict=True))
    columns["frame"] = [1.5, 1e-5, 0.0, 0.0, 20.25]
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    assert open_dataset("csv", tmp_path / "t.parquet").query[0].names == ("x/9.jpg", "x/10.jpg", "x/11.jpg")


def brute_force_order(values: list[Fraction]) -> list[int]:
    """Each index at the number of values that are smaller, or equal and earlier."""
    order = [-1] * len(values)
    for i, value in enumerate(values):
        order[sum(other < value or (other == value and j < i) for j, other in enumerate(values))] = i
    return order


# A number in thousandths, with its digits after the point.
thousandths = st.tuples(st.integers(-(10**5), 10**5), st.sampled_from(["{:.3f}", "{:.4f}", "{:+.3f}", "{:e}"]))


@given(st.lists(thousandths, max_size=12), st.booleans())
def test_numbers_are_ordered_by_value(numbers, comma) -> None:
    frames = [form.format(number / 1000) for number, form in numbers]
    frames = [frame.replace(".", ",") for frame in frames] if comma else frames
    assert frame_order(frames, "") == brute_force_order([Fraction(number, 1000) for number, _ in numbers])


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 20), st.integers(0, 3)), max_size=12))
def test_names_are_ordered_by_the_numbers_in_them(numbers) -> None:
    frames = [f"walk{first}-f{'0' * zeros}{second}.jpg" for second, first, zeros in numbers]
    values = [Fraction(first * 10**7 + second) for second, first, _ in numbers]
    assert frame_order(frames, "") == brute_force_order(values)


@given(st.lists(st.text("0123456789.,-+ef:x ٣²", max_size=6), max_size=6))
def test_any_frames_are_ordered_or_refused(frames) -> None:
    try:
        order = frame_order(frames, "the tracklet x")
    except DataError:
        return
    assert sorted(order) == list(range(len(frames)))


def changed(place: int, column: int, value: str, rows=ROWS) -> list[tuple[str, ...]]:
    return [(*row[:column], value, *row[column + 1 :]) if n == place else row for n, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "header", "says"),
    [
        (ROWS, "path,person,camid,split", r"people.csv has no column pid; it has path, person, camid, split"),
        (ROWS, "file,person,camid,split", r"no column path and no column pid"),
        (ROWS, "path,pid,pid,split", r"has the column pid twice"),
        ([], "path,pid,camid,split", r"has a header and no row"),
        (changed(1, 3, "test"), None, r"people.csv, line 3: the split 'test' is none of train, query, gallery"),
        (changed(1, 3, ""), None, r"line 3: the split '' is none"),
        (changed(2, 1, " "), None, r"line 4: no pid"),
        (changed(3, 2, ""), None, r"line 5: no camera, but line 2 has one \(door\). Give all of them or none"),
        (changed(3, 0, "a/1.jpg"), None, r"line 5: the image a/1.jpg is in line 2 already"),
        (changed(2, 1, "anna"), None, r"1 identities are both to train and to test with, such as 'anna'"),
        ([*ROWS, ("x.jpg", "1", "2")], None, r"line 7: 3 fields where the header has 4"),
        (changed(1, 4, "", VIDEO), VIDEO_HEADER, r"line 3: no tracklet"),
        (changed(1, 5, "", VIDEO), VIDEO_HEADER, r"the tracklet t1: some images have a frame and others none"),
        (changed(1, 5, "f9", VIDEO), VIDEO_HEADER, r"people.csv, the tracklet t1: the frame '10' is a number and 'f9'"),
        (changed(1, 1, "q", VIDEO), VIDEO_HEADER, r"line 3: the tracklet t1 has pid 'q' here and 'p' in line 2"),
        (changed(4, 2, "2", VIDEO), VIDEO_HEADER, r"line 6: the tracklet t1 has camid '2' here and '1' in line 2"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused_with_the_row(tmp_path: Path, rows, header, says: str) -> None:
    path = table(tmp_path, rows, header or "path,pid,camid,split")
    with pytest.raises(DataError, match=says):
        open_dataset("csv", path)


def test_paths_that_are_no_images_are_refused_with_the_row(tmp_path: Path) -> None:
    path = table(tmp_path)
    (tmp_path / "b/2.jpg").unlink()
    with pytest.raises(DataError, match=r"line 5: the image .*b/2.jpg does not exist"):
        open_dataset("csv", path)
    (tmp_path / "b/2.jpg").mkdir()
    with pytest.raises(DataError, match=r"line 5: the image .*b/2.jpg is a folder"):
        open_dataset("csv", path)
    table(tmp_path / "long")
    with pytest.raises(DataError, match=r"line 5: the image .*xxx"):
        open_dataset("csv", table(tmp_path / "long", changed(3, 0, "x" * 5000), touch=False))


def test_no_file_a_folder_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no file .*people.csv"):
        open_dataset("csv", tmp_path / "people.csv")
    with pytest.raises(DataError, match=r"is a folder. Give a CSV or .* the data set 'folder'"):
        open_dataset("csv", tmp_path)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match=r"empty.csv is empty"):
        open_dataset("csv", tmp_path / "empty.csv")
    (tmp_path / "latin.csv").write_bytes("path,pid\nü.jpg,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.csv is not in UTF-8"):
        open_dataset("csv", tmp_path / "latin.csv")
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"no.parquet cannot be read as a Parquet file"):
        open_dataset("csv", tmp_path / "no.parquet")


COLUMNS, PARTS = ["path", "pid", "split", "tracklet", "frame"], ["train", "query", "gallery"]
FIELDS = [*COLUMNS, *PARTS, "a.jpg", "b", '"', "", "\0", "x" * 300]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.lists(st.lists(st.sampled_from(FIELDS), max_size=5).map(",".join), max_size=6).map("\n".join).map(str.encode),
))  # fmt: skip
def test_any_bytes_are_a_table_or_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b").touch()
    (tmp_path / "fuzz.csv").write_bytes(content)
    try:
        data = open_dataset("csv", tmp_path / "fuzz.csv")
    except DataError:
        return
    assert all(sample.path.is_file() for sample in data.train_images)


# --- junk, distractors, and one file under two names ---------------------------------------------------------

WITH_ROLES = "path,pid,camid,split,role"
ROLED = [
    *((*row, "person") for row in ROWS),
    ("g/j.jpg", "", "door", "gallery", "junk"),
    ("g/d.jpg", "anna", "hall", "gallery", "distractor"),
    ("g/z.jpg", "0", "hall", "gallery", ""),
    ("t/j.jpg", "anna", "door", "train", "junk"),
    ("q/d.jpg", "0007", "hall", "query", "distractor"),
]


def test_a_role_marks_junk_and_distractors_which_the_gallery_alone_holds(tmp_path: Path) -> None:
    data = open_dataset("csv", table(tmp_path, ROLED, WITH_ROLES))
    plain = open_dataset("csv", table(tmp_path, ROWS))
    assert (data.train, data.query) == (plain.train, plain.query)
    assert data.gallery[:2] == plain.gallery
    assert [(item.path.name, item.pid) for item in data.gallery[2:]] == [("j.jpg", -1), ("d.jpg", 0), ("z.jpg", "0")]


def test_roles_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: the role 'staff' is none of person, junk, distractor. Rename"):
        open_dataset("csv", table(tmp_path, changed(0, 4, "staff", ROLED), WITH_ROLES))
    video = [(*row, "junk" if n == 0 else "") for n, row in enumerate(VIDEO)]
    with pytest.raises(DataError, match=r"line 3: the tracklet t1 has role 'person' here and 'junk' in line 2"):
        open_dataset("csv", table(tmp_path, video, f"{VIDEO_HEADER},role"))
    with pytest.raises(ValueError, match="market_labels='maybe': expected true or false"):
        open_dataset("csv", table(tmp_path), market_labels="maybe")


def exported(root: Path, target: Path, name: str = "{}") -> Path:
    """What a script would write of Market-1501: every image's numbers, as they stand in its name."""
    splits = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
    rows = []
    for n, (folder, split) in enumerate(splits.items()):
        for m, image in enumerate(sorted((root / folder).glob("*.jpg"))):
            pid, camera = image.name.split("_")[:2]
            path = target / folder / name.format(image.name, n=n, m=m)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(image)
            rows.append((f"{folder}/{path.name}", int(pid), camera[1], split))
    return table(target, rows, touch=False)


def who(items) -> list[tuple[str, str, str]]:
    return sorted((item.path.resolve().name, str(item.pid), str(item.camid)) for item in items)


def test_market_exports_are_read_as_market_is(tmp_path: Path, people: Path) -> None:
    market = open_dataset("market1501", people)
    with pytest.warns(UserWarning, match=r"2 images of the identity -1 are junk and 3 of 0 are distractors"):
        named = open_dataset("csv", exported(people, tmp_path / "named"))
    renamed = exported(people, tmp_path / "renamed", "{n}-{m}.jpg")
    with pytest.warns(UserWarning, match=r"the identity -1 is taken for a person.*market_labels=true"):
        as_people = open_dataset("csv", renamed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = open_dataset("csv", renamed, market_labels="true")
        refused = open_dataset("csv", tmp_path / "named" / "people.csv", market_labels="false")
    for data in (named, asked):
        assert [who(part) for part in (data.train, data.query)] == [who(part) for part in (market.train, market.query)]
        assert who(item for item in data.gallery if item.pid != -1) == who(market.gallery)
        assert sum(item.pid == -1 for item in data.gallery) == 2
        assert sum(item.pid == 0 for item in data.gallery) == 3
    for data in (as_people, refused):
        assert {"-1", "0"} <= {item.pid for item in data.gallery}


def test_zero_is_somebody_in_ones_own_table(tmp_path: Path) -> None:
    rows = [
        (f"{pid}_{n}.jpg", str(pid), str(n), split) for pid, split in ((0, "gallery"), (1, "train")) for n in (1, 2)
    ]
    rows[0] = (*rows[0][:3], "query")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_dataset("csv", table(tmp_path, rows))
    assert (data.query[0].pid, data.gallery[0].pid) == ("0", "0")


@pytest.mark.parametrize("way", ["role", "market_labels"])
def test_a_division_leaves_junk_and_distractors_in_the_gallery_and_remembers_them(tmp_path: Path, way: str) -> None:
    rows = [(f"{pid}{n}.jpg", str(pid), str(n % 2), "person") for pid in range(1, 7) for n in range(4)]
    rows += [("j.jpg", "-1", "0", "junk"), ("d.jpg", "0", "1", "distractor")]
    if way == "role":
        data = open_dataset("csv", table(tmp_path, rows, "path,pid,camid,role"), split_by_identity=0.5)
    else:
        bare = table(tmp_path, [row[:3] for row in rows], "path,pid,camid")
        data = open_dataset("csv", bare, split_by_identity=0.5, market_labels=True)
    assert len({item.pid for item in data.train}) == 3, "of the six people"
    assert [(item.path.name, item.pid) for item in data.gallery[-2:]] == [("j.jpg", -1), ("d.jpg", 0)]
    again = open_dataset("csv", tmp_path / "people.split-0.5-0.csv")
    assert (again.train, again.query, again.gallery) == (data.train, data.query, data.gallery)
    nobody = table(tmp_path / "none", [(*row[:3], "junk") for row in rows[-2:]], "path,pid,camid,role")
    with pytest.raises(DataError, match="junk and distractors alone"):
        open_dataset("csv", nobody, split_by_identity=0.5)


@pytest.mark.parametrize(
    "spelling", ["./a/1.jpg", "b/../a/1.jpg", "{}/a/1.jpg", "link.jpg", "linked/1.jpg", "hard.jpg"]
)
@pytest.mark.parametrize("split", ["train", "gallery"])
def test_one_file_under_two_spellings_is_one_file(tmp_path: Path, spelling: str, split: str) -> None:
    table(tmp_path)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a/1.jpg")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    (tmp_path / "hard.jpg").hardlink_to(tmp_path / "a/1.jpg")
    rows = [*ROWS, (spelling.format(tmp_path), "zoe", "door", split)]
    with pytest.raises(DataError, match=r"line 7: the image .* is in line 2 already, as a/1.jpg"):
        open_dataset("csv", table(tmp_path, rows, touch=False))


def test_a_link_from_one_persons_folder_to_anothers_is_one_file(tmp_path: Path) -> None:
    for pid in ("anna", "zoe"):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "1.jpg").touch()
    (tmp_path / "zoe" / "2.jpg").symlink_to(tmp_path / "anna" / "1.jpg")
    with pytest.raises(DataError, match=r"zoe/2.jpg is in anna/1.jpg already"):
        open_dataset("folder", tmp_path, split_by_identity=0.5)


# --- dividing by identity ------------------------------------------------------------------------------------

people = st.dictionaries(
    st.text("abcdef0", min_size=1, max_size=3),
    st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=6),
    min_size=2,
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(people, st.floats(0.05, 0.95), st.integers(0, 5), st.booleans())
def test_a_division_is_disjoint_and_loses_no_query(tmp_path, people, share, seed, with_cameras) -> None:
    rows = [(f"{pid}{n}.jpg", pid, camid) for pid, camids in people.items() for n, camid in enumerate(camids)]
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    columns, header = (rows, "path,pid,camid") if with_cameras else ([row[:2] for row in rows], "path,pid")
    path = table(tmp_path, columns, header)
    findable = {pid for pid, camids in people.items() if len(set(camids) if with_cameras else camids) > 1}
    try:
        data = open_dataset("csv", path, split_by_identity=share, seed=seed)
    except DataError:
        assert len(findable) < len(people)
        return
    train, query, gallery = ({item.pid for item in part} for part in (data.train, data.query, data.gallery))
    assert train | query | gallery == people.keys()
    assert not train & (query | gallery)
    assert len(train) == min(len(people) - 1, max(1, round(share * len(people))))
    assert query == findable - train
    assert lost_queries(data.query, data.gallery) == []
    everything = [item.path.name for item in (*data.train, *data.query, *data.gallery)]
    assert sorted(everything) == sorted(row[0] for row in rows)
    assert len({(item.pid, item.camid) for item in data.query}) == len(data.query), "one of each camera"
    # With two cameras that saw somebody more than once, every camera asks.
    asked = defaultdict(set)
    for item in data.query:
        asked[item.pid].add(item.camid)
    for pid in query if with_cameras else ():
        several = [camid for camid in set(people[pid]) if people[pid].count(camid) > 1]
        wanted = len(set(people[pid])) - (len(several) < 2)
        assert len(asked[pid]) == wanted


def test_a_division_is_written_down_and_opens_by_itself(tmp_path: Path) -> None:
    rows = [(f"p{n}/{c}{k}.jpg", f"p{n}", c) for n in range(6) for c in "xy" for k in range(2)]
    path = table(tmp_path / "data", rows, "path,pid,camid")
    data = open_dataset("csv", path, split_by_identity="0.5", seed="3")
    written = tmp_path / "data" / "people.split-0.5-3.csv"
    assert str(written) in data.protocol
    again = open_dataset("csv", written)
    assert (again.train, again.query, again.gallery) == (data.train, data.query, data.gallery)
    assert open_dataset("csv", path, split_by_identity=0.5, seed=3) == data
    others = {seed: open_dataset("csv", path, split_by_identity=0.5, seed=seed).train for seed in range(4, 8)}
    assert any(train != data.train for train in others.values())
    elsewhere = open_dataset("csv", path, split_by_identity=0.5, seed=3, split_file=tmp_path / "mine.csv")
    moved = open_dataset("csv", tmp_path / "mine.csv")
    assert (moved.train, moved.query, moved.gallery) == (elsewhere.train, elsewhere.query, elsewhere.gallery)


def test_a_division_is_not_silently_another_when_data_change(tmp_path: Path) -> None:
    rows = [(f"p{n}{k}.jpg", f"p{n}") for n in range(4) for k in range(2)]
    path = table(tmp_path, rows, "path,pid")
    open_dataset("csv", path, split_by_identity=0.5)
    table(tmp_path, [*rows, ("new.jpg", "p9")], "path,pid")
    with pytest.raises(DataError, match=r"people.split-0.5-0.csv holds another division: the data have changed"):
        open_dataset("csv", path, split_by_identity=0.5)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, DataError, r"does not say what is to train with.*--split-by-identity 0.5"),
        ({"split_by_identity": 1}, ValueError, r"split_by_identity=1: expected a share"),
        ({"split_by_identity": "half"}, ValueError, r"split_by_identity='half'"),
        ({"split_by_identity": 0.5, "seed": -1}, ValueError, r"seed=-1"),
        ({"split_by_identity": "nan"}, ValueError, r"split_by_identity=nan"),
    ],
)
def test_what_cannot_be_divided(tmp_path: Path, options, error, says: str) -> None:
    path = table(tmp_path, [("a.jpg", "a"), ("b.jpg", "b"), ("c.jpg", "b")], "path,pid")
    with pytest.raises(error, match=says):
        open_dataset("csv", path, **options)


def test_one_identity_cannot_be_divided_nor_a_table_that_is(tmp_path: Path) -> None:
    path = table(tmp_path, [("a.jpg", "a"), ("b.jpg", "a")], "path,pid")
    with pytest.raises(DataError, match=r"has a single identity \(a\)"):
        open_dataset("csv", path, split_by_identity=0.5)
    with pytest.raises(ValueError, match=r"is divided already"):
        open_dataset("csv", table(tmp_path), split_by_identity=0.5)
    alone = table(tmp_path / "alone", [("a.jpg", "a"), ("b.jpg", "b")], "path,pid")
    with pytest.raises(DataError, match=r"none of the 1 identities to test with has a second image"):
        open_dataset("csv", alone, split_by_identity=0.5)


def test_tracklets_are_divided_whole(tmp_path: Path) -> None:
    rows = [(f"{p}{c}{t}{f}.jpg", p, c, f"{p}{c}{t}", f) for p in "abcd" for c in "xy" for t in "12" for f in "123"]
    data = open_dataset("csv", table(tmp_path, rows, "path,pid,camid,tracklet,frame"), split_by_identity=0.5)
    assert {len(item) for item in (*data.train, *data.query, *data.gallery)} == {3}
    assert (len(data.train), len(data.query), len(data.gallery)) == (8, 4, 4)
    again = open_dataset("csv", tmp_path / "people.split-0.5-0.csv")
    assert (again.train, again.query, again.gallery) == (data.train, data.query, data.gallery)


# --- a folder for each identity --------------------------------------------------------------------------------


def images(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_folder_for_each_identity(tmp_path: Path) -> None:
    root = images(tmp_path / "my people", "anna/1.jpg", "anna/2.PNG", "anna/Thumbs.db", "anna/._1.jpg", "Zoë/1.jpg",
                  "Zoë/2.jpg", ".cache/x/1.jpg", "notes.txt")  # fmt: skip
    data = open_dataset("folder", root, split_by_identity=0.5)
    assert {item.pid for item in (*data.train, *data.gallery)} == {"anna", "Zoë"}
    assert all(item.camid is None for item in data.train)
    assert len(data.train) + len(data.query) + len(data.gallery) == 4
    again = open_dataset("csv", root / "split-0.5-0.csv")
    assert (again.train, again.query, again.gallery) == (data.train, data.query, data.gallery)


def test_cameras_are_folders_inside_and_parts_are_folders_around(tmp_path: Path) -> None:
    root = images(tmp_path, "train/a/door/1.jpg", "query/b/door/1.jpg", "gallery/b/hall/1.jpg", "gallery/c/hall/2.jpg")
    data = open_dataset("folder", root)
    assert data.train == (Sample(root / "train/a/door/1.jpg", "a", "door"),)
    assert data.query == (Sample(root / "query/b/door/1.jpg", "b", "door"),)
    assert [(item.pid, item.camid) for item in data.gallery] == [("b", "hall"), ("c", "hall")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images(root, "gallery/c/3.jpg")
        with pytest.raises(DataError, match=r"gallery/c/3.jpg: no camera, but train/a/door/1.jpg has one"):
            open_dataset("folder", root)


def test_a_folder_of_nobody(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        open_dataset("folder", tmp_path / "nowhere")
    images(tmp_path, "1.jpg", "a/Thumbs.db")
    with pytest.raises(DataError, match=r"holds no image in a folder of an identity"):
        open_dataset("folder", tmp_path)
