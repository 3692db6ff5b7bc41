"""What is set for cameras is kept, and times are right by it, however often and in whatever order it is set."""

import io
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from reprism.cli import main
from reprism.embedding import DescriptorKind
from reprism.gallery.camera_settings import CameraSettings
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery

KIND = DescriptorKind("ab" * 32, "p1[s2]", 8, True)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def entry(number, camid="gate", **given):
    return Entry(f"/{number}", np.random.default_rng(number).normal(size=8).astype(np.float32), f"/{number}", None,
                 camid, **given)  # fmt: skip


def png(array):
    content = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(content, format="png")
    return content.getvalue()


def test_times_are_set_right_by_the_difference(tmp_path):
    gallery = Gallery.create(tmp_path / "g", KIND)
    gallery.add([
        entry(0, time=NOON, until=NOON + timedelta(seconds=5)),
        entry(1, time=NOON, clock_ahead=30.0),
        entry(2),  # of unknown time
        entry(3, "hall", time=NOON),
        entry(4, None, time=NOON),
    ])  # fmt: skip
    before = gallery.descriptors([row_id(f"/{number}") for number in range(5)])
    assert gallery.set_camera("gate", CameraSettings(40.5)) == 3
    rows = {row.key: row for row in Gallery.open(gallery.uri).rows()}
    assert rows["/0"].time == NOON - timedelta(seconds=40.5)
    assert rows["/0"].until == NOON - timedelta(seconds=35.5)
    assert rows["/1"].time == NOON - timedelta(seconds=10.5)  # its 30 s were taken off before
    assert rows["/2"].time is None
    assert rows["/3"].time == rows["/4"].time == NOON
    np.testing.assert_array_equal(gallery.descriptors([row_id(f"/{number}") for number in range(5)]), before)
    assert gallery.set_camera("gate", CameraSettings(40.5)) == 0
    assert gallery.camera_settings() == {"gate": CameraSettings(40.5)}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-(10**12), 10**12).map(lambda n: n / 10**6), min_size=1, max_size=3))
def test_only_the_last_setting_counts(tmp_path_factory, offsets):
    gallery = Gallery.create(tmp_path_factory.mktemp("g") / "g", KIND)
    gallery.add([entry(0, time=NOON)])
    for offset in offsets:
        gallery.set_camera("gate", CameraSettings(offset))
    found = gallery.get(row_id("/0")).time
    assert abs(found - (NOON - timedelta(seconds=offsets[-1]))) <= len(offsets) * timedelta(microseconds=1)


def test_cut_off_before_the_rows_it_is_finished_by_the_same_call(tmp_path, monkeypatch):
    gallery = Gallery.create(tmp_path / "g", KIND)
    gallery.add([entry(0, time=NOON), entry(1, time=NOON, clock_ahead=7.0)])

    def cut(*given, **more):
        raise OSError("the power")

    with monkeypatch.context() as patched:
        patched.setattr(type(gallery.store.table), "update", cut)
        with pytest.raises(OSError, match="the power"):
            gallery.set_camera("gate", CameraSettings(60))
    gallery = Gallery.open(gallery.uri)
    assert gallery.camera_settings()["gate"].clock_ahead == 60
    assert gallery.set_camera("gate", CameraSettings(60)) == 2
    assert [row.time for row in sorted(gallery.rows(), key=lambda row: row.key)] == [
        NOON - timedelta(seconds=seconds) for seconds in (60, 53)
    ]


def test_names_are_names(tmp_path):
    gallery = Gallery.create(tmp_path / "g", KIND)
    gallery.add([entry(0, "o'hara's", time=NOON), entry(1, "gate", time=NOON)])
    assert gallery.set_camera("o'hara's", CameraSettings(1)) == 1
    assert gallery.set_camera("not there yet", CameraSettings(0, b"x")) == 0
    assert gallery.camera_settings()["not there yet"] == CameraSettings(0, b"x")
    with pytest.raises(ValueError, match="a camera's name"):
        gallery.set_camera("", CameraSettings(1))
    for seconds in (math.inf, math.nan):
        with pytest.raises(ValueError, match="expected seconds"):
            gallery.set_camera("gate", CameraSettings(seconds))


def test_the_command_sets_and_shows(tmp_path, capsys):
    gallery = Gallery.create(tmp_path / "g", KIND)
    gallery.add([entry(0, time=NOON), entry(1, "hall", time=NOON)])
    half = np.zeros((10, 10))
    half[:5] = 255
    (tmp_path / "view.png").write_bytes(png(half))
    options = ["--clock-ahead", "gate=40", "hall=-2.5", "--ignore", f"hall={tmp_path / 'view.png'}"]
    assert main(["cameras", gallery.uri, *options]) == 0
    said = capsys.readouterr()
    assert "gate: times of 1 rows set right" in said.err
    assert "+40 s" in said.out
    assert "50 % of the view" in said.out
    assert gallery.camera_settings() == {
        "gate": CameraSettings(40.0),
        "hall": CameraSettings(-2.5, png(half)),
    }
    # One of the two is changed, and the other stays.
    assert main(["cameras", gallery.uri, "--ignore", "hall=none"]) == 0
    assert gallery.camera_settings()["hall"] == CameraSettings(-2.5)
    assert gallery.get(row_id("/1")).time == NOON + timedelta(seconds=2.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clock-ahead", "gate"], "expected a camera and a value, such as gate=40"),
        (["--clock-ahead", "gate=forty"], "expected seconds after the =, got 'forty'"),
        (["--clock-ahead", "gate=1", "--ignore", "gate=/nowhere.png"], "/nowhere.png"),
    ],
)
def test_the_command_explains_mistakes_and_sets_nothing(tmp_path, capsys, options, message):
    gallery = Gallery.create(tmp_path / "g", KIND)
    assert main(["cameras", gallery.uri, *options]) == 1
    assert message in capsys.readouterr().err
    assert gallery.camera_settings() == {}
