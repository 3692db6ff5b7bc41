"""Frames of files and folders, against what was written, and against OpenCV's reader."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reprism.cameras import SourceError, describe_source, read_frames, start_time, videos
from reprism.cameras.folders import natural_order

MORNING = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


@pytest.fixture
def warnings() -> list[str]:
    return []


def step_of(image: np.ndarray) -> int:
    """Return the number that a frame of ``counted`` shows: where its bright column starts, in steps of 2 pixels."""
    bright = image[20:].astype(int).sum(axis=2).mean(axis=0) > 380
    return int(np.flatnonzero(bright)[0]) // 2


def test_frames_come_in_order_with_their_times(tmp_path, write_video, counted):
    path = write_video(tmp_path / "a.mp4", counted(24), metadata={"creation_time": "2026-03-01T09:30:00Z"})
    frames = list(read_frames(path))
    assert [step_of(frame.image) for frame in frames] == [frame.index for frame in frames] == list(range(24))
    assert [frame.seconds for frame in frames] == pytest.approx([n / 10 for n in range(24)])
    assert [frame.time for frame in frames] == [MORNING + timedelta(seconds=n / 10) for n in range(24)]
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.dtype == np.uint8
    red = frames[0].image[2:10, 2:10].reshape(-1, 3).mean(axis=0)
    assert red[0] > 180 > 90 > red[1:].max()  # channels are red, green, blue


def test_the_facts_of_a_file(tmp_path, write_video, counted):
    path = write_video(tmp_path / "a.mp4", counted(24), metadata={"creation_time": "2026-03-01T11:30:00+02:00"})
    facts = describe_source(path)
    assert (facts.kind, facts.frames, facts.size, facts.start, facts.is_live) == ("file", 24, (48, 64), MORNING, False)
    assert facts.fps == pytest.approx(10)
    assert facts.seconds == pytest.approx(2.4)


def test_a_start_that_is_given_goes_before_the_files(tmp_path, write_video, counted):
    path = write_video(tmp_path / "a.mp4", counted(3), metadata={"creation_time": "2020-01-01T00:00:00Z"})
    assert next(read_frames(path, start=MORNING)).time == MORNING
    assert start_time(path, MORNING) == MORNING
    assert start_time(path) == datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("written", [None, "1904-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_a_start_that_nothing_says_is_asked_for(tmp_path, write_video, counted, written):
    path = write_video(tmp_path / "a.mkv", counted(3), metadata={"creation_time": written} if written else None)
    with av.open(str(path)) as file:
        assert ("creation_time" in file.metadata) == (written is not None)
    assert next(read_frames(path)).time is None
    with pytest.raises(SourceError, match=r"a\.mkv: its start time is not known.*--start"):
        start_time(path)
    assert start_time("rtsp://camera/1") is None


def test_a_variable_frame_rate_is_kept(tmp_path, write_video, counted):
    times = [0, 40, 80, 500, 520, 1900, 1940, 5000]
    path = write_video(tmp_path / "a.mkv", counted(8), milliseconds=times)
    assert [frame.seconds for frame in read_frames(path)] == pytest.approx([time / 1000 for time in times])


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("start_at", [1, 29, 30, 31, 47, 58, 59])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"g": "10", "bf": "3"}),
        # Frames that are shown before a keyframe and come after it are made of the frames before.
        ("a.mkv", {"g": "12", "keyint_min": "12", "x264-params": "open-gop=1:bframes=4:b-adapt=0:scenecut=0"}),
        ("a.ts", {"g": "12", "keyint_min": "12", "x264-params": "open-gop=1:bframes=4:b-adapt=0:scenecut=0"}),
    ],
)
def test_going_on_gives_the_very_same_frames(tmp_path, write_video, counted, start_at, name, options, every):
    path = write_video(tmp_path / name, counted(60, (64, 144)), options=options)
    whole = [frame for frame in read_frames(path, every=every) if frame.index >= start_at]
    rest = list(read_frames(path, start_at=start_at, every=every))
    assert [(frame.index, frame.seconds) for frame in rest] == [(frame.index, frame.seconds) for frame in whole]
    assert all((one.image == other.image).all() for one, other in zip(rest, whole, strict=True))


def test_going_on_does_not_decode_the_frames_before(tmp_path, write_video, counted, monkeypatch):
    path = write_video(tmp_path / "a.mp4", counted(90), options={"g": "10"})
    made = []

    class Counting(videos.Decoder):
        def frames(self, container):
            for frame in super().frames(container):
                made.append(frame.pts)
                yield frame

    monkeypatch.setattr(videos, "Decoder", Counting)
    assert [frame.index for frame in read_frames(path, start_at=80)] == list(range(80, 90))
    assert len(made) < 40


def test_going_on_where_times_are_missing_or_the_file_has_ended(tmp_path, write_video, counted, warnings):
    path = write_video(tmp_path / "a.h264", counted(30))  # a bare stream has no times
    assert [step_of(frame.image) for frame in read_frames(path, start_at=25)] == [25, 26, 27, 28, 29]
    path = write_video(tmp_path / "a.mp4", counted(10))
    assert list(read_frames(path, start_at=10, report=warnings.append)) == []
    assert warnings == [f"{path}: has no frame 10"]


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_phones_recording_is_upright(tmp_path, write_video, counted, rotation):
    path = write_video(tmp_path / "a.mp4", counted(3), rotation=rotation)
    image = next(read_frames(path)).image
    _, bgr = cv2.VideoCapture(str(path)).read()  # which turns by itself
    assert image.shape == bgr.shape
    assert np.abs(image.astype(int) - bgr[:, :, ::-1]).mean() < 4
    assert describe_source(path).size == image.shape[:2]


def test_a_file_that_is_cut_off_gives_what_it_has_and_one_warning(tmp_path, write_video, counted, warnings):
    noise = [np.random.default_rng(n).integers(0, 256, (96, 128, 3), np.uint8) for n in range(40)]
    whole = write_video(tmp_path / "a.mp4", noise, container={"movflags": "+faststart"}).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    frames = list(read_frames(path, report=warnings.append))
    assert 15 < len(frames) < 30
    assert len(warnings) == 1
    assert "of the 40 frames that it announces" in warnings[0]
    assert str(path) in warnings[0]

    whole = write_video(tmp_path / "a.mkv", noise).read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: len(whole) // 2])
    warnings.clear()
    frames = list(read_frames(path, report=warnings.append))
    assert 10 < len(frames) < 30
    assert len(warnings) == 1
    assert "announces 4.0 s" in warnings[0]


def test_a_whole_file_gives_no_warning(tmp_path, write_video, counted, warnings):
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4")):
        path = write_video(tmp_path / name, counted(12), codec=codec)
        assert len(list(read_frames(path, report=warnings.append))) == 12
    assert warnings == []


def test_damage_in_the_middle_is_listed_once(tmp_path, write_video, warnings):
    noise = [np.random.default_rng(n).integers(0, 256, (96, 128, 3), np.uint8) for n in range(20)]
    content = bytearray(write_video(tmp_path / "a.avi", noise, codec="png").read_bytes())
    starts = [at for at in range(len(content)) if content[at : at + 8] == b"\x89PNG\r\n\x1a\n"]
    for start in starts[5:7]:
        content[start + 12 : start + 20] = b"damaged!"  # its header: the marks between images stay
    path = tmp_path / "damaged.avi"
    path.write_bytes(content)
    frames = list(read_frames(path, report=warnings.append))
    assert [frame.index for frame in frames] == [n for n in range(20) if n not in (5, 6)]
    assert [frame.seconds for frame in frames] == pytest.approx([frame.index / 10 for frame in frames])
    assert len(warnings) == 1
    assert "2 of its frames could not be decoded, the first at frame 5" in warnings[0]


def test_frames_are_counted_right_where_the_decoder_tells_of_one_error_only_and_late():
    class Stream:  # shows the frames of packets 0, 1, 4, 5 of six; of 2 and 3 it says something once, after 4
        given = iter([[], [0], [1], av.error.InvalidDataError(0, "damaged"), [4], [5]])

        def decode(self, packet):
            answer = next(self.given)
            if isinstance(answer, Exception):
                raise answer
            return [SimpleNamespace(pts=pts) for pts in answer]

    packets = [SimpleNamespace(pts=pts, is_discard=False) for pts in range(6)]
    decoder = videos.Decoder(Stream())
    counts = [decoder.count for _ in decoder.frames(SimpleNamespace(demux=lambda stream: packets))]
    assert counts == [1, 2, 5, 6]  # one more than the frame's index
    assert (decoder.lost, decoder.first_lost) == (2, 2)


def test_what_is_no_video_is_refused_with_the_reason(tmp_path, write_video, counted):
    content = write_video(tmp_path / "a.mp4", counted(12)).read_bytes()
    sound = tmp_path / "sound.mp4"
    with av.open(str(sound), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    given = {
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"hello " * 100, "is no video that is read"),
        "no-index.mp4": (content[: len(content) // 2], "cut off"),
        "codec.mp4": (content.replace(b"avc1", b"zzzz"), "no decoder"),
        "sound.mp4": (sound.read_bytes(), "no video stream \\(only audio\\)"),
    }
    for name, (written, reason) in given.items():
        path = tmp_path / name
        path.write_bytes(written)
        for read in (lambda path: next(read_frames(path)), describe_source):
            with pytest.raises(SourceError, match=rf"{name}.*{reason}"):
                read(path)
    with pytest.raises(SourceError, match=r"no video at .*missing.mp4"):
        read_frames(tmp_path / "missing.mp4")
    with pytest.raises(SourceError, match="expected an address with rtsp, rtsps, http, https, got ftp://"):
        read_frames("ftp://user:secret@host/a.mp4")


def test_a_playlist_opens_no_other_file(tmp_path, write_video, counted):
    inside = write_video(tmp_path / "a.ts", counted(12))
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{inside}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{inside.name}'\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text, "utf-8")
        with av.open(str(tmp_path / name)) as file:  # FFmpeg follows it, unless it is told not to
            assert next(file.decode(video=0)) is not None
        for disguise in (name, f"{name}.mp4"):
            (tmp_path / disguise).write_text(text, "utf-8")
            with pytest.raises(SourceError, match="playlists are refused"):
                next(read_frames(tmp_path / disguise))


def test_a_name_that_looks_like_a_protocol_is_a_file(tmp_path, write_video, counted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", counted(3)).rename(tmp_path / "concat:a|b.mp4")
    assert len(list(read_frames("concat:a|b.mp4"))) == 3


def test_a_4k_frame_is_read_and_a_larger_one_than_allowed_is_not(tmp_path, write_video, counted):
    path = write_video(tmp_path / "a.mp4", counted(2, (2160, 3840)), options={"preset": "ultrafast"})
    assert next(read_frames(path)).image.shape == (2160, 3840, 3)
    with pytest.raises(SourceError, match="frames of 3840×2160 pixels; expected 1 … 1,000,000"):
        next(read_frames(path, max_pixels=1_000_000))


@pytest.mark.parametrize("starts", [(0, 0), (0, 50)])
def test_recordings_one_behind_the_other_and_a_size_that_grows(tmp_path, write_video, counted, warnings, starts):
    first, second = (
        write_video(
            tmp_path / "a.ts",
            counted(12, (size, 64)),
            milliseconds=[start + 100 * number for number in range(12)],
            options={"g": "4"},
        ).read_bytes()
        for start, size in zip(starts, (48, 96), strict=True)
    )
    path = tmp_path / "both.ts"
    path.write_bytes(first + second)
    frames = list(read_frames(path, report=warnings.append))
    assert [frame.image.shape[0] for frame in frames] == [48] * 12 + [96] * 12
    assert np.diff([frame.seconds for frame in frames]) == pytest.approx(0.1, abs=0.061)
    assert warnings == []
    rest = list(read_frames(path, start_at=15))
    assert [(frame.index, frame.seconds) for frame in rest] == [(frame.index, frame.seconds) for frame in frames[15:]]
    small = list(read_frames(path, max_pixels=64 * 48, report=warnings.append))
    assert {frame.image.shape for frame in small} == {(48, 64, 3)}
    assert len(warnings) == 1


def test_a_folder_of_images_in_natural_order(tmp_path, counted, warnings):
    for number, image in enumerate(counted(12)):
        Image.fromarray(image).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "frame3.png").write_bytes(b"no image")
    frames = list(read_frames(tmp_path, fps=4, start=MORNING, report=warnings.append))
    assert [step_of(frame.image) for frame in frames] == [frame.index for frame in frames]
    assert [frame.index for frame in frames] == [n for n in range(12) if n != 3]
    assert frames[-1].seconds == 11 / 4
    assert frames[-1].time == MORNING + timedelta(seconds=2.75)
    assert len(warnings) == 1
    assert "1 of its images could not be read, the first at frame 3" in warnings[0]
    assert [frame.index for frame in read_frames(tmp_path, fps=4, every=4, start_at=2)] == [4, 8]
    assert describe_source(tmp_path, fps=4).frames == 12
    with pytest.raises(SourceError, match="rate is not known: give fps=10"):
        next(read_frames(tmp_path))


def test_an_empty_folder(tmp_path):
    with pytest.raises(SourceError, match="holds no images"):
        next(read_frames(tmp_path, fps=10))


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=20))
def test_numbers_in_names_are_ordered_as_numbers(numbers):
    names = [f"cam1_{number}.jpg" for number in sorted(numbers)]
    assert sorted(sorted(names), key=natural_order) == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every=0: expected 1 or more"),
        ({"start_at": -1}, "start_at=-1"),
        ({"fps": 0}, "fps=0"),
        ({"start": datetime(2026, 1, 1)}, "no time zone"),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        read_frames(tmp_path, **arguments)


def test_only_one_frame_is_held(tmp_path, write_video, counted):
    path = write_video(tmp_path / "a.mp4", counted(10))
    frames = read_frames(path)
    first = next(frames).image.copy()
    second = next(frames).image
    assert not (first == second).all()
    frames.close()  # closes the file
    path.unlink()


def test_the_package_imports_neither_torch_nor_opencv_nor_pyav():
    code = "import sys, reprism.cameras; print([name for name in ('torch', 'cv2', 'av') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_pyav_opencv_and_torch_in_one_process(tmp_path, write_video, counted):
    path = write_video(tmp_path / "a.mp4", counted(5))
    code = f"""
import cv2, torch, av
from reprism.cameras import read_frames
images = [frame.image for frame in read_frames({str(path)!r})]
cv2.createBackgroundSubtractorMOG2().apply(images[0])
print(len(images), cv2.VideoCapture({str(path)!r}).read()[1].shape, torch.ones(3).sum().item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "5 (48, 64, 3) 3.0\n"
