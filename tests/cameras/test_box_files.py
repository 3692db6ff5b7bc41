"""One's own boxes: every format gives the same ones, and what is damaged is refused with its line."""

import json

import numpy as np
import pytest

from reprism.cameras import DetectorError, Frame, detect, open_detector, read_boxes

# Frame from 0, left, top, right, bottom, score, id.
BOXES = [
    (0, 10.0, 20.0, 30.0, 80.0, 0.5, "4"),
    (2, 11.5, 20.0, 31.5, 80.0, 0.75, "4"),
    (2, 50.0, 10.0, 90.0, 95.0, 1.0, "7"),
    (11, 0.0, 0.0, 5.0, 15.0, 0.25, "7"),
]


def mot(rows):
    lines = [f"{f + 1},{i},{x1 + 1},{y1 + 1},{x2 - x1},{y2 - y1},{s},-1,-1,-1" for f, x1, y1, x2, y2, s, i in rows]
    return "\n".join(reversed(lines))


def mot_by_spaces(rows):
    return mot(rows).replace(",", " ") + "\n\n"


def table(rows):
    lines = [f"{i},{s},{f},{x1},{y1},{x2},{y2}" for f, x1, y1, x2, y2, s, i in rows]
    return "\n".join(["\ufeffid,Score,frame,left,top,right,bottom", *lines, ""])


def coco(rows):
    images = [{"id": 100 + n, "file_name": f"frame{n}.jpg"} for n in (10, 2, 11, 0, 9, 1, 8, 7, 3, 4, 6, 5)]
    boxes = [
        {"image_id": 100 + f, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": s, "track_id": i, "category_id": 3}
        for f, x1, y1, x2, y2, s, i in rows
    ]
    others = [boxes[0] | {"category_id": 1}, boxes[0] | {"iscrowd": 1}]
    kinds = [{"id": 1, "name": "car"}, {"id": 3, "name": "Person"}]
    return json.dumps({"images": images, "annotations": boxes + others, "categories": kinds})


def coco_results(rows):
    boxes = [
        {"image_id": f, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": s, "category_id": 1}
        for f, x1, y1, x2, y2, s, _ in rows
    ]
    return json.dumps([*boxes, boxes[0] | {"category_id": 2}])


def cvat_box(row, more=""):
    x1, y1, x2, y2 = row[1:5]
    return f'<box {more} outside="0" occluded="0" keyframe="1" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"></box>'


def cvat_video(rows):
    tracks = []
    for track in ("4", "7"):
        boxes = [cvat_box(row, f'frame="{row[0]}"') for row in rows if row[6] == track]
        boxes.append(cvat_box(rows[0], 'frame="5"').replace('outside="0"', 'outside="1"'))
        tracks.append(f'<track id="{track}" label="pedestrian">{"".join(boxes)}</track>')
    car = '<track id="9" label="car">' + cvat_box(rows[0], 'frame="0"') + "</track>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{car}{"".join(tracks)}</annotations>'


def cvat_images(rows):
    images = [
        f'<image id="{f}" name="f{f}.jpg" width="100" height="100">'
        + "".join(cvat_box(row, 'label="person"') for row in rows if row[0] == f)
        + "</image>"
        for f in range(12)
    ]
    return f"<annotations>{''.join(images)}</annotations>"


@pytest.mark.parametrize(
    ("form", "has_scores", "has_ids"),
    [
        (mot, True, True),
        (mot_by_spaces, True, True),
        (table, True, True),
        (coco, True, True),
        (coco_results, True, False),
        (cvat_video, False, True),
        (cvat_images, False, False),
    ],
)
def test_all_formats_give_the_same_boxes(tmp_path, form, has_scores, has_ids):
    path = tmp_path / "boxes.txt"  # known by the content, not by the name
    path.write_text(form(BOXES), "utf-8")
    read = read_boxes(path)
    rows = sorted(
        zip(read.frames.tolist(), read.xyxy.tolist(), read.scores.tolist(), read.ids, strict=True), key=lambda r: r[:2]
    )
    assert rows == [(f, [*box], s if has_scores else 1.0, i if has_ids else "") for f, *box, s, i in BOXES]
    detector = open_detector(f"boxes:{path}")
    for index in (0, 1, 2, 11, 12):
        boxes = detect(detector, Frame(np.zeros((100, 100, 3), np.uint8), index))
        expected = [box for f, *box, _, _ in BOXES if f == index]
        assert sorted(boxes.xyxy.tolist()) == expected


def test_only_pedestrians_that_count_are_read_of_the_truth_of_mot(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text("1,1,10,20,20,60,1,1,0.9\n1,2,1,1,5,5,0,1,1\n1,3,1,1,5,5,1,3,1\n2,1,12,20,20,60,1,1,0.2\n")
    read = read_boxes(path)
    assert read.frames.tolist() == [0, 1]
    assert read.xyxy.tolist() == [[9, 19, 29, 79], [11, 19, 31, 79]]
    assert read.scores.tolist() == [1, 1]
    assert read.at(1).xyxy.tolist() == [[11, 19, 31, 79]]
    assert len(read.at(5)) == 0


def test_frames_of_coco_may_be_given(tmp_path):
    data = json.loads(coco(BOXES))
    for image in data["images"]:
        image["frame_id"] = 2 * (image["id"] - 100)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(data))
    assert read_boxes(path).frames.tolist() == [0, 4, 4, 22]


def test_boxes_that_are_none_are_dropped_and_counted_when_they_are_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("frame,left,top,right,bottom\n0,1,1,9,9\n0,nan,1,9,9\n0,9,1,1,9\n0,-5,1,inf,9\n0,900,1,990,9\n")
    boxes = detect(open_detector(f"boxes:{path}"), Frame(np.zeros((50, 50, 3), np.uint8), 0))
    assert boxes.xyxy.tolist() == [[1, 1, 9, 9]]
    assert boxes.dropped == 4


def test_no_box_at_all_is_no_error_in_a_table(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("frame,left,top,right,bottom\n")
    assert len(open_detector(f"boxes:{path}")(Frame(np.zeros((5, 5, 3), np.uint8), 0))) == 0


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotations><track id="1" label="&b;"><box frame="0" xtl="0" ytl="0" xbr="1" ybr="1"/></track></annotations>"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("1,2,3", r":1: expected frame, id, left"),
        ("1,-1,10,20,20,60,1\n1,-1,x,20,20,60,1", r":2: expected numbers"),
        ("0,-1,10,20,20,60,1", r":1: MOT's frames count from 1, got 0"),
        ("1.5,-1,10,20,20,60,1", r":1: expected a frame's number, got 1.5"),
        ("frame,left,top,width\n1,2,3,4", "right, bottom not among them"),
        ("frame,left,top,right,bottom\n1,2,3,4", r":2: expected 5 values, got 4"),
        ("frame,left,top,right,bottom\n-3,2,3,4,5", "expected frames from 0 on, got -3"),
        ("frame,left,top,right,bottom\ninf,2,3,4,5", ":2: expected a frame's number"),
        ('{"images": []}', "expected COCO JSON"),
        ("[[1, 2]]", "expected COCO JSON"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}]}',
         "expected a label person or pedestrian, got car, dog"),
        ("<annotations>", "is no XML"),
        ("<html></html>", "holds no boxes: expected CVAT's XML"),
        (BOMB, "document types and entities are not read"),
        ('<annotations><image id="0"><box label="person" xtl="a" ytl="0" xbr="1" ybr="1"/></image></annotations>',
         "expected numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, content, message):
    path = tmp_path / "boxes.any"
    path.write_text(content, "utf-8")
    with pytest.raises(DetectorError, match=message) as raised:
        read_boxes(path)
    assert str(path) in str(raised.value)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(DetectorError, match="there is no such file"):
        open_detector(f"boxes:{tmp_path / 'none.txt'}")
    (tmp_path / "a.txt").write_bytes(bytes(range(128, 256)))
    with pytest.raises(DetectorError, match="is no text"):
        read_boxes(tmp_path / "a.txt")
