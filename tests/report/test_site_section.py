"""What the demo says of its site is what was seen there."""

import io
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reprism.report.site_section import Answer, Sighting, _lanes, answerable, site_section

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def jpeg(width=30):
    content = io.BytesIO()
    Image.new("RGB", (width, 60), "red").save(content, format="jpeg")
    return content.getvalue()


def seen(camera, first, last, person, strip=()):
    return Sighting(camera, START + timedelta(seconds=first), START + timedelta(seconds=last), person, list(strip))


def test_a_person_whom_one_camera_saw_is_not_asked_for():
    here, there, alone, nobody = (
        seen("c1", 0, 1, 1), seen("c2", 5, 6, 1), seen("c1", 2, 3, 2), seen("c2", 0, 1, None),
    )  # fmt: skip
    again = seen("c1", 8, 9, 2)
    answers = [
        Answer(here, [(there, 0.5)]),
        Answer(there, [(alone, 0.4)]),
        Answer(alone, [(there, 0.3)]),
        Answer(nobody, [(here, 0.1)]),
        Answer(again, [(there, 0.2)]),
    ]
    assert [answer.sighting for answer in answerable(answers)] == [here, there]
    assert [answer.is_right for answer in answerable(answers)] == [True, False]
    # Of several cameras the nearest one counts.
    third = seen("c3", 0, 1, 1)
    assert Answer(here, [(alone, 0.2), (third, 0.19)]).is_right
    assert not Answer(here, [(alone, 0.2), (third, 0.21)]).is_right


def test_the_section_counts_by_person_and_shows_one_tracklet_of_each():
    strip = [jpeg()] * 7
    one, other, mixed = seen("c1", 0, 4, 3, strip), seen("c2", 65, 70, 3, strip), seen("c2", 30, 31, None, strip)
    answers = [Answer(one, [(other, 0.25)]), Answer(mixed, [(one, 0.2)]), Answer(other, [(one, 0.3)])]
    section = site_section([one, mixed, other], answers, {})
    assert section["people"].rows == [
        ("Person\N{NO-BREAK SPACE}3", 2, "c1, c2", "2 of 2"),
        ("Nobody, or several", 1, "c2", ""),
    ]
    (row,) = section["rows"]
    assert [picture.caption for picture in row] == [
        "Person 3, c1, 0:00 to 0:04",
        "c2, 1:05 to 1:10: the same person, distance 0.25",
    ]
    assert section["cameras"] == 2
    assert not site_section([], [], {})["rows"]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50), st.integers(0, 20)), max_size=30).map(
        lambda found: sorted(found, key=lambda one: one[1])
    )
)
def test_bars_of_a_lane_do_not_touch_and_none_is_empty(spans):
    sightings = [seen(camera, first, first + length, 0) for camera, first, length in spans]
    lanes = _lanes(sightings)
    for camera in "ab":
        mine = [(lane, one) for lane, one in zip(lanes, sightings, strict=True) if one.camera == camera]
        assert {lane for lane, _ in mine} == set(range(len({lane for lane, _ in mine})))
        for lane in {lane for lane, _ in mine}:
            bars = [one for each, one in mine if each == lane]
            assert all(before.last < after.first for before, after in pairwise(bars))
        # As many lanes as people at once, and no more.
        most = max((sum(a.first <= b.first <= a.last for _, a in mine) for _, b in mine), default=0)
        assert len({lane for lane, _ in mine}) <= most
