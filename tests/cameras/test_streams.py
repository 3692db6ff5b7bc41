"""Streams over HTTP on this machine, which are cut off, stall, end and come back."""

import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import numpy as np
import pytest

from reprism.cameras import SourceError, Timeouts, describe_source, read_frames

QUICK = Timeouts(opening=5, reading=5, first_wait=0.01, longest_wait=0.05)


@contextmanager
def served(answer):
    """Serve whatever ``answer(handler, number)`` writes to the number-th request; yields the address and a count."""
    count = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            count.append(self.path)
            with suppress(BrokenPipeError, ConnectionResetError):
                answer(self, len(count) - 1)
            self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_port}/live?token=secret", count
    finally:
        server.shutdown()
        server.server_close()


def send(handler, content, kind="video/mp4", length=None):
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(content)
    handler.wfile.flush()


@pytest.fixture
def noise():
    return [np.random.default_rng(n).integers(0, 256, (96, 128, 3), np.uint8) for n in range(30)]


def test_a_recording_that_is_cut_off_goes_on_after_its_last_frame(tmp_path, write_video, noise):
    path = write_video(tmp_path / "a.mp4", noise, container={"movflags": "+faststart"})
    content, told = path.read_bytes(), []

    def answer(handler, number):
        send(handler, content[: len(content) // 2] if number == 0 else content, length=len(content))

    with served(answer) as (address, requests):
        frames = list(read_frames(address, timeouts=QUICK, report=told.append))
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.seconds for frame in frames] == pytest.approx([n / 10 for n in range(30)])
    expected = list(read_frames(path))
    assert all(
        np.abs(one.image.astype(int) - other.image).mean() < 1 for one, other in zip(frames, expected, strict=True)
    )
    assert len(told) == 1
    assert "reconnecting in 0.01 s" in told[0]
    assert "secret" not in told[0]
    assert len(requests) >= 2


def live(path):
    """Return the bytes of an MPEG-TS file, which says nothing of its length when it is not seekable."""
    return path.read_bytes()


def test_a_live_stream_that_ends_is_opened_again(tmp_path, write_video, noise):
    content = live(write_video(tmp_path / "a.ts", noise))
    told, before = [], datetime.now(UTC)
    with served(lambda handler, number: send(handler, content, "video/mp2t")) as (address, requests):
        frames = list(islice(read_frames(address, timeouts=QUICK, report=told.append), 70))
    assert [frame.index for frame in frames] == list(range(70))
    seconds = [frame.seconds for frame in frames]
    assert seconds == sorted(seconds)
    assert seconds[:30] == pytest.approx([n / 10 for n in range(30)], abs=1e-4)  # by the stream's own clock
    assert before <= frames[0].time <= datetime.now(UTC)
    assert [frame.time - frames[0].time for frame in frames] == [timedelta(seconds=each) for each in seconds]
    assert len(told) == 2
    assert len(requests) >= 3


def test_times_go_on_where_a_cameras_clock_is_set_back(tmp_path, write_video, noise):
    content = live(write_video(tmp_path / "a.ts", noise[:20]))
    with served(lambda handler, number: send(handler, 2 * content, "video/mp2t")) as (address, requests):
        frames = list(islice(read_frames(address, timeouts=QUICK, report=lambda _: None), 40))
    assert len(requests) == 1 or len(frames) == 40
    steps = np.diff([frame.seconds for frame in frames])
    assert (steps > 0).all()
    assert steps[:17] == pytest.approx(0.1, abs=1e-4)
    assert steps[22:38] == pytest.approx(0.1, abs=1e-4)


def test_every_nth_frame_of_a_stream(tmp_path, write_video, noise):
    content = live(write_video(tmp_path / "a.ts", noise))
    with served(lambda handler, number: send(handler, content, "video/mp2t")) as (address, _):
        frames = list(islice(read_frames(address, every=7, timeouts=QUICK, report=lambda _: None), 6))
    assert [frame.index for frame in frames] == [0, 7, 14, 21, 28, 35]


def test_a_stream_that_stalls_is_opened_again(tmp_path, write_video, noise):
    content, told, over = live(write_video(tmp_path / "a.ts", noise)), [], threading.Event()

    def answer(handler, number):
        send(handler, content, "video/mp2t")
        if number == 0:
            over.wait(60)  # says no more, and does not hang up

    limits = Timeouts(opening=30, reading=0.3, first_wait=0.01)
    with served(answer) as (address, requests):
        frames = list(islice(read_frames(address, timeouts=limits, report=told.append), 35))
        over.set()
    assert [frame.index for frame in frames] == list(range(35))
    assert "no data for 0.3 s" in told[0]
    assert len(requests) >= 2


def test_waits_double_until_the_stream_is_given_up(tmp_path, write_video, noise):
    content, told = live(write_video(tmp_path / "a.ts", noise)), []

    def answer(handler, number):
        if number:
            handler.send_error(503)
        else:
            send(handler, content, "video/mp2t")

    limits = Timeouts(opening=30, reading=30, first_wait=0.01, longest_wait=0.04, give_up=1)
    with served(answer) as (address, _):
        frames = read_frames(address, timeouts=limits, report=told.append)
        assert len(list(islice(frames, 20))) == 20
        with pytest.raises(SourceError, match=r"/live was given up after 1 s without a frame") as raised:
            list(frames)
    assert "secret" not in str(raised.value)
    waits = [float(line.rsplit("in ", 1)[1].removesuffix(" s")) for line in told]
    assert len(waits) >= 2
    assert waits == [0.01, 0.02, *[0.04] * len(waits)][: len(waits)]
    assert "secret" not in " ".join(told)


def test_a_stream_that_never_worked_is_an_error_at_once(tmp_path):
    told = []
    with served(lambda handler, number: handler.send_error(404)) as (address, _):
        with pytest.raises(SourceError, match=r"http://127.0.0.1:\d+/live cannot be opened: .*404") as raised:
            next(read_frames(address, timeouts=QUICK, report=told.append))
        assert "secret" not in str(raised.value)
    with pytest.raises(SourceError, match="cannot be opened"):
        next(read_frames("rtsp://127.0.0.1:1/none", timeouts=QUICK, report=told.append))
    assert told == []


def test_a_playlist_of_a_stream_opens_no_file_of_this_machine(tmp_path, write_video, noise):
    inside = write_video(tmp_path / "a.ts", noise[:5])
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:0.5,\nfile://{inside}\n#EXT-X-ENDLIST\n"
    kind = "application/vnd.apple.mpegurl"
    served_list = served(lambda handler, number: send(handler, text.encode(), kind))
    with served_list as (address, _), pytest.raises(SourceError):
        next(read_frames(address.replace("/live", "/live.m3u8"), timeouts=QUICK))


def test_facts_and_resuming_of_streams(tmp_path):
    facts = describe_source("rtsp://user:secret@camera:554/1?x=secret")
    assert (facts.name, facts.kind, facts.is_live) == ("rtsp://camera:554/1", "stream", True)
    assert describe_source(0).kind == describe_source("/dev/video3").kind == "device"
    with pytest.raises(ValueError, match="start_at=5: rtsp://camera/1 is live"):
        read_frames("rtsp://camera/1", start_at=5)
    with pytest.raises(SourceError, match="/dev/video999"):
        next(read_frames("/dev/video999"))


@pytest.mark.parametrize("name", ["opening", "reading", "first_wait", "longest_wait", "give_up"])
def test_limits_out_of_range(name):
    with pytest.raises(ValueError, match=f"{name}=0: expected a number of seconds greater than 0"):
        Timeouts(**{name: 0})
