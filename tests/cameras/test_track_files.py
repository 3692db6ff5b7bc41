"""Tracks of cameras in files and folders, and the mistakes in them that are told."""

from pathlib import Path

import numpy as np
import pytest

from reprism.cameras import BoxTable, TracksError, evaluate_tracks, read_boxes, read_tracks
from reprism.cameras.track_files import read_lengths

ROWS = [(1, 1, 10, 20, 30, 60), (1, 2, 100, 20, 30, 60), (2, 1, 12, 20, 30, 60), (5, 2, 90, 20, 30, 60)]
"""Frame from 1, id, left, top, width, height."""

MOT = "".join(",".join(map(str, row)) + ",1,-1,-1,-1\n" for row in ROWS)
GT = "".join(",".join(map(str, row)) + f",1,1,{0.25 * row[1]}\n" for row in ROWS)
CSV = "id,frame,left,top,right,bottom\n" + "".join(
    f"{name},{frame - 1},{left - 1},{top - 1},{left - 1 + wide},{top - 1 + high}\n"
    for frame, name, left, top, wide, high in ROWS
)


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path = path.with_name(path.name.replace("_dot_", "."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_every_form_and_layout_reads_the_same(tmp_path: Path) -> None:
    write(tmp_path / "mot", one__gt__gt_dot_txt=GT, two__gt__gt_dot_txt=GT, truth_dot_csv="a site's,own\n1,2\n")
    write(tmp_path / "flat", one_dot_txt=MOT, two_dot_csv=CSV, notes_dot_md="none", _dot_hidden_dot_txt="none")
    for folder in ("mot", "flat"):
        found = read_tracks(tmp_path / folder)
        assert list(found) == ["one", "two"]
        for boxes in found.values():
            assert boxes.frames.tolist() == [0, 0, 1, 4]
            assert boxes.ids == ("1", "2", "1", "2")
            assert boxes.xyxy[3].tolist() == [89, 19, 119, 79]
    assert read_tracks(tmp_path / "mot")["one"].visibility.tolist() == [0.25, 0.5, 0.25, 0.5]
    assert evaluate_tracks(tmp_path / "mot", tmp_path / "flat").overall.hota == pytest.approx(1)
    # Of single files the names do not matter; a sequence's own file is named after its folder.
    assert list(read_tracks(tmp_path / "mot" / "one" / "gt" / "gt.txt")) == ["one"]
    alone = evaluate_tracks(tmp_path / "mot" / "one" / "gt" / "gt.txt", tmp_path / "flat" / "two.csv")
    assert list(alone.cameras) == ["one"]
    assert alone.overall.mota == 1


def test_visibility_is_read_and_what_does_not_count_on_request(tmp_path: Path) -> None:
    lines = ["1,1,0,0,9,9,1,1,0.5", "1,2,0,0,9,9,0,1,1", "1,3,0,0,9,9,1,7,1", "1,4,0,0,9,9,0,8,1", "1,5,0,0,9,9,1,3,1"]
    (tmp_path / "gt.txt").write_text("\n".join(lines))
    assert read_boxes(tmp_path / "gt.txt").ids == ("1",)
    everything = read_boxes(tmp_path / "gt.txt", ignored=True)
    assert everything.ids == ("1", "2", "3", "4")
    assert everything.ignored.tolist() == [False, True, True, True]
    assert everything.visibility.tolist() == [0.5, 1, 1, 1]
    (tmp_path / "v.csv").write_text("frame,left,top,right,bottom,visibility,id\n0,1,2,3,4,0.75,a\n")
    seen = read_boxes(tmp_path / "v.csv")
    assert (seen.visibility.tolist(), seen.scores.tolist(), seen.ignored.tolist()) == ([0.75], [1], [False])
    # Tracks in nine columns, filled up with -1, are no truth of another class.
    (tmp_path / "nine.txt").write_text("1,1,0,0,9,9,0.5,-1,-1\n")
    assert read_boxes(tmp_path / "nine.txt").scores.tolist() == [0.5]


def test_an_empty_file_is_a_camera_without_tracks(tmp_path: Path) -> None:
    write(tmp_path / "truth", one_dot_txt=MOT, two_dot_txt=MOT)
    write(tmp_path / "tracks", one_dot_txt=MOT, two_dot_txt="")
    figures = evaluate_tracks(tmp_path / "truth", tmp_path / "tracks").cameras["two"]
    assert (figures.missed, figures.tracks, figures.hota, figures.mota) == (4, 0, 0, 0)


def test_frames_are_bounded_by_seqinfo(tmp_path: Path) -> None:
    info = "[Sequence]\nname=100%\nseqLength={}\n"
    truth = write(tmp_path / "truth", one__gt__gt_dot_txt=GT, one__seqinfo_dot_ini=info.format(5))
    assert read_lengths(truth) == read_lengths(truth / "one" / "gt" / "gt.txt") == {"one": 5}
    tracks = write(tmp_path / "tracks", one_dot_txt=MOT)
    assert evaluate_tracks(truth, tracks).overall.mota == 1
    write(tmp_path / "tracks", one_dot_txt=MOT.replace("5,2", "6,2"))
    with pytest.raises(TracksError, match=r"tracks of one: expected frames 0 to 4, as seqinfo\.ini says, got frame 5"):
        evaluate_tracks(truth, tracks)
    write(truth, one__seqinfo_dot_ini=info.format(4))
    with pytest.raises(TracksError, match="truth of one: expected frames 0 to 3"):
        evaluate_tracks(truth, tracks)
    for damaged in ("[Sequence]\nseqLength=many\n", "seqLength=5\n", "[Sequence]\n"):
        write(truth, one__seqinfo_dot_ini=damaged)
        with pytest.raises(TracksError, match=r"seqinfo\.ini: expected seqLength=NUMBER"):
            evaluate_tracks(truth, tracks)


@pytest.mark.parametrize(
    ("tracks", "complaint"),
    [
        (MOT.replace("5,2", "5,-1"), r"tracks of one: 1 of 4 boxes have no id, the first in frame 4 \(from 0\)"),
        (MOT + "5,2,90,20,30,60,1,-1,-1,-1", r"tracks of one: the id 2 is twice in frame 4 \(from 0\)"),
        (MOT.replace("5,2,90", "5,2,nan"), "tracks of one: expected finite numbers, got a box with others in frame 4"),
        ("\n".join(f"{frame},1,2,3,4,5,1" for frame in (6, 9)), "expected frames 0 to 4.* got 5 to 8: are"),
        ("0,1,2,3,4,5,1", "frames count from 1, got 0"),
        ("1,1,2,3", r"one\.txt:1: expected frame, id, left"),
    ],
    ids=["no id", "twice", "not finite", "another time", "frame 0", "too short"],
)  # fmt: skip
def test_mistakes_are_told_with_their_place(tracks: str, complaint: str, tmp_path: Path) -> None:
    write(tmp_path, truth__one_dot_txt=MOT, tracks__one_dot_txt=tracks)
    with pytest.raises(ValueError, match=complaint):
        evaluate_tracks(tmp_path / "truth", tmp_path / "tracks")


def test_other_cameras_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "truth", one_dot_txt=MOT, two_dot_txt=MOT)
    write(tmp_path / "tracks", one_dot_txt=MOT, three_dot_txt=MOT)
    with pytest.raises(TracksError, match=r"in the truth but not in the tracks: two; in the tracks but .*: three"):
        evaluate_tracks(tmp_path / "truth", tmp_path / "tracks")
    # Two folders of one camera each say its name, and mean it.
    write(tmp_path, a__one_dot_txt=MOT, b__two_dot_txt=MOT)
    with pytest.raises(TracksError, match="cameras differ"):
        evaluate_tracks(tmp_path / "a", tmp_path / "b")


def test_places_without_tracks(tmp_path: Path) -> None:
    with pytest.raises(TracksError, match=r"no tracks at .*nowhere"):
        read_tracks(tmp_path / "nowhere")
    (tmp_path / "folder" / "sub.txt").mkdir(parents=True)
    with pytest.raises(TracksError, match=r"holds no tracks: expected CAMERA/gt/gt\.txt"):
        read_tracks(tmp_path / "folder")
    write(tmp_path / "folder", one_dot_txt=MOT, one_dot_csv=CSV)
    with pytest.raises(TracksError, match=r"two files for the camera one: one\.csv and one\.txt"):
        read_tracks(tmp_path / "folder")


def test_a_table_of_nine_columns_is_complete_by_itself() -> None:
    boxes = BoxTable(np.arange(2), np.zeros((2, 4), np.float32), np.ones(2, np.float32), ("a", "b"))
    assert boxes.visibility.tolist() == [1, 1]
    assert boxes.ignored.tolist() == [False, False]
