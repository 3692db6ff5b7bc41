"""Clips: the pictures that a player shows of them, told by the numbers drawn into them; and who may see them."""

import asyncio
import io
import json
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from reprism.cli import main
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery
from reprism.service import clips
from reprism.service.access import Access
from reprism.service.api import create_app
from reprism.service.clips import ClipError, Sighting, cut_clip, find_sighting, is_playable
from reprism.service.settings import ServiceSettings

FPS, FRAMES = 10, 120
UNEVEN = sorted(np.random.default_rng(0).choice(np.arange(2 * FRAMES), FRAMES, replace=False).tolist())
"""Times of frames in twentieths of a second, none like the other."""


def numbered(number: int) -> np.ndarray:
    """A frame with its number in eight black and white blocks, and noise, which makes coding choose freely."""
    noise = np.random.default_rng(number).integers(0, 50, (64, 128, 3), np.uint8)
    bits = [(number >> place) & 1 for place in range(8)]
    return noise + np.repeat(np.array(bits, np.uint8) * 200, 16)[None, :, None]


def read_number(frame: av.VideoFrame) -> int:
    grey = frame.to_ndarray(format="gray").astype(float)
    blocks = grey[:64, :128].reshape(64, 8, 16).mean((0, 2))
    return sum(1 << place for place, value in enumerate(blocks) if value > 125)


def write(path: Path, *, codec="libx264", times=range(FRAMES), rate=FPS, rotation=None, pixels="yuv420p", **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 64, pixels
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[str, tuple[Path, list[float]]]:
    """Videos coded in several ways, and the seconds of their frames."""
    folder = tmp_path_factory.mktemp("videos")
    even, uneven = [n / FPS for n in range(FRAMES)], [time / 20 for time in UNEVEN]
    often, rarely = {"g": "10", "bf": "0"}, {"g": "300", "bf": "3"}
    return {
        "often": (write(folder / "often.mp4", **often), even),
        "rarely": (write(folder / "rarely.mp4", **rarely), even),
        "open": (write(folder / "open.mp4", g="12", bf="3", **{"x264-params": "open-gop=1:b-pyramid=strict"}), even),
        "uneven": (
            write(folder / "uneven.mp4", times=UNEVEN, rate=20, g="30", bf="2"),
            [t - uneven[0] for t in uneven],
        ),
    }


def shown(content: bytes) -> tuple[list[int], list[float]]:
    """What a player shows: the numbers of the frames, and their seconds."""
    with av.open(io.BytesIO(content)) as container:
        frames = list(container.decode(video=0))
        return [read_number(frame) for frame in frames], [float(frame.pts * frame.time_base) for frame in frames]


# ---- what is shown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["often", "rarely", "open", "uneven"])
@settings(max_examples=12, suppress_health_check=list(HealthCheck), derandomize=True)
@given(first=st.integers(0, 11_900), length=st.integers(0, 6_000))
def test_a_clip_shows_the_seconds_and_no_others(videos, name, first, length):
    path, times = videos[name]
    first, last = first / 1000, (first + length) / 1000
    begin, end = max(0, first - 2), last + 2
    expected = [number for number, time in enumerate(times) if begin - 1e-6 <= time <= end + 1e-6]
    numbers, seconds = shown(cut_clip(Sighting(path, first, last)))
    # Pictures that some of those are made of may follow, in the file's order before the last one.
    assert numbers[: len(expected)] == expected
    assert len(numbers) <= len(expected) + (0 if name == "often" else 4)
    for number, second in zip(numbers, seconds, strict=True):
        assert second == pytest.approx(times[number] - times[numbers[0]], abs=2e-3)


def test_a_clip_begins_and_ends_to_the_frame_wherever_key_frames_lie(videos):
    path, _ = videos["open"]
    for first in range(20, FRAMES - 25):
        content = cut_clip(Sighting(path, first / FPS, first / FPS))
        with av.open(io.BytesIO(content)) as container:
            times = [float(packet.pts * packet.time_base) for packet in container.demux() if packet.size]
            # Coded pictures after the end are there only for those behind them.
            assert times[-1] <= 4 + 1e-3
            container.seek(0)
            assert read_number(next(container.decode(video=0))) == first - 20


def test_a_clip_is_small_and_starts_at_once(videos):
    path, _ = videos["often"]
    content = cut_clip(Sighting(path, 5.0, 6.0))
    assert content.index(b"moov") < content.index(b"mdat")
    assert len(content) < path.stat().st_size
    assert content == cut_clip(Sighting(path, 5.0, 6.0))
    with av.open(io.BytesIO(content)) as container:
        coded = sum(packet.size > 0 for packet in container.demux())
    assert coded <= 51 + 10  # a key frame is never farther


def test_sound_is_left_out_and_a_turned_video_stays_turned(tmp_path):
    path = write(tmp_path / "phone.mp4", rotation=90, g="10")
    with av.open(str(path)) as source, av.open(str(tmp_path / "loud.mp4"), "w") as target:
        pictures = source.streams.video[0]
        copy, sound = target.add_stream_from_template(pictures), target.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        silence.rate = 8000
        for number in range(12):
            silence.pts = 8000 * number
            target.mux(sound.encode(silence))
        for packet in source.demux(pictures):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    content = cut_clip(Sighting(tmp_path / "loud.mp4", 3.0, 4.0))
    with av.open(io.BytesIO(content)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert next(container.decode(video=0)).rotation == 90


def test_a_clip_has_bounds(videos, monkeypatch):
    path, _ = videos["often"]
    monkeypatch.setattr(clips, "LONGEST", 3.0)
    assert shown(cut_clip(Sighting(path, 4.0, 9.0)))[0] == [*range(20, 51)]
    monkeypatch.setattr(clips, "LARGEST", 40_000)
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux() if packet.size][20:]
    fitting = int((np.cumsum(sizes) <= 40_000).sum())
    assert 2 < fitting < 30
    assert shown(cut_clip(Sighting(path, 4.0, 9.0)))[0] == [*range(20, 20 + fitting)]
    with pytest.raises(ClipError, match="no key frame within the 0 MiB before the sighting"):
        cut_clip(Sighting(videos["rarely"][0], 9.0, 9.5))


def test_seconds_that_the_video_has_not(videos):
    with pytest.raises(ClipError, match="no pictures at the time of the sighting: it is another one now"):
        cut_clip(Sighting(videos["often"][0], 500.0, 501.0))


# ---- whose it may be -------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path, videos):
    """A folder of videos that may be shown, beside one that may not."""
    for name in ("shown", "hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "gate.mp4").write_bytes(videos["often"][0].read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [
        "{site}/hidden/gate.mp4#t=1.000,2.000", "{site}/shown/../hidden/gate.mp4#t=1.000,2.000",
        "{site}/shown/out.mp4#t=1.000,2.000", "{site}/shown/outside/gate.mp4#t=1.000,2.000",
        "{site}/shown/loop.mp4#t=1.000,2.000", "{site}/shown/pipe.mp4#t=1.000,2.000", "{site}/shown#t=1.000,2.000",
        "{site}/shown/absent.mp4#t=1.000,2.000", "../../etc/passwd#t=1.000,2.000", "/etc/passwd#t=1.000,2.000",
        "/dev/zero#t=0.000,1.000", "shown/gate.mp4#t=1.000,2.000", "file:{site}/shown/gate.mp4#t=1.000,2.000",
        "{site}/shown/gate.mp4", "{site}/shown/gate.mp4#t=2.000,1.000", "{site}/shown/gate.mp4#t=-1.000,2.000",
        "{site}/shown/gate.mp4#t=nan,inf", "{site}/shown/gate.mp4\0#t=1.000,2.000", "", "#t=1.000,2.000",
        "/" + "x" * 5000 + "#t=1.000,2.000", "rtsp://camera/1#t=1.000,2.000", "{site}/showntoo/gate.mp4#t=1.000,2.000",
    ],
)  # fmt: skip
def test_no_path_leads_out(site, path):
    (site / "showntoo").symlink_to(site / "hidden")
    (site / "shown" / "out.mp4").symlink_to(site / "hidden" / "gate.mp4")
    (site / "shown" / "outside").symlink_to(site / "hidden")
    (site / "shown" / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(site / "shown" / "pipe.mp4")
    assert find_sighting(path.replace("{site}", str(site)), [site / "shown"]) is None
    assert find_sighting(f"{site}/shown/gate.mp4#t=1.000,2.000", []) is None


def test_links_may_lead_to_what_may_be_shown(site):
    (site / "shown" / "door.mp4").symlink_to("gate.mp4")
    wanted = Sighting(site / "shown" / "gate.mp4", 1.0, 2.5)
    assert find_sighting(f"{site}/shown/door.mp4#t=1.000,2.500", [site / "shown"]) == wanted
    assert find_sighting(f"{site}/hidden/../shown/gate.mp4#t=1.000,2.500", [site / "shown"]) == wanted
    (site / "shown" / "a#t=3.000,4.000").write_bytes(b"")
    named = find_sighting(f"{site}/shown/a#t=3.000,4.000#t=1.000,2.500", [site / "shown"])
    assert named == (site / "shown" / "a#t=3.000,4.000", 1.0, 2.5)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.mkv", {}), ("b.mp4", {"codec": "mpeg4"}), ("c.avi", {"codec": "mjpeg", "pixels": "yuvj420p"}),
        ("d.mp4", {"pixels": "yuv444p"}),
    ],
)  # fmt: skip
def test_what_browsers_do_not_play_is_refused(tmp_path, name, how):
    path = write(tmp_path / name, times=range(20), **how)
    assert not is_playable(path)
    with pytest.raises(ClipError, match=r"H\.264 in MP4 only"):
        cut_clip(Sighting(path, 0.0, 1.0))


@pytest.mark.parametrize("content", [b"", b"x" * 1000, b"#EXTM3U\n/etc/passwd\n"])
def test_what_is_no_video_is_told_without_its_place(tmp_path, content):
    path = tmp_path / "secret-place.mp4"
    path.write_bytes(content)
    assert not is_playable(path)
    with pytest.raises(ClipError, match="cannot be read") as told:
        cut_clip(Sighting(path, 0.0, 1.0))
    assert "secret-place" not in str(told.value)


def test_a_file_that_changes_is_looked_at_anew(tmp_path, videos):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"not yet")
    assert not is_playable(path)
    path.write_bytes(videos["often"][0].read_bytes())
    assert is_playable(path)
    path.unlink()
    assert not is_playable(path)


# ---- over HTTP -------------------------------------------------------------------------------------------


@pytest.fixture
def rows(site, gallery, embedder, pictures) -> dict[str, str]:
    """Ids of rows: of a video that may be shown, of one that may not, of one in Matroska, and of a picture."""
    write(site / "shown" / "old.mkv", times=range(60))
    paths = {
        "gate": f"{site}/shown/gate.mp4#t=5.000,6.500",
        "early": f"{site}/shown/gate.mp4#t=0.500,1.000",
        "hidden": f"{site}/hidden/gate.mp4#t=5.000,6.500",
        "old": f"{site}/shown/old.mkv#t=2.000,3.000",
        "picture": f"{site}/shown/gate.mp4",
    }
    vectors = embedder.embed([Image.open(io.BytesIO(picture)) for picture in pictures[: len(paths)]])
    gallery.add(Entry(name, vector, path) for (name, path), vector in zip(paths.items(), vectors, strict=True))
    return {name: row_id(name) for name in paths}


def test_matches_say_which_of_them_can_be_played(serve, site, rows, pictures):
    client = serve(videos=(site / "shown",))
    found = {match["id"]: match for match in client.post("/search", files={"image": pictures[0]}).json()["matches"]}
    told = {name: found[id_]["clip"] for name, id_ in rows.items()}
    assert told == {
        "gate": {"address": f"/images/{rows['gate']}/clip", "first": 2.0, "last": 3.5},
        "early": {"address": f"/images/{rows['early']}/clip", "first": 0.5, "last": 1.0},
        "hidden": None, "old": None, "picture": None,
    }  # fmt: skip
    for id_ in rows.values():
        assert client.get(f"/images/{id_}").json()["clip"] == found[id_]["clip"]


def test_a_clip_is_sent_in_parts_and_noted(serve, site, rows, tmp_path, gallery):
    client = serve(videos=(site / "shown",))
    address = f"/images/{rows['gate']}/clip"
    whole = client.get(address)
    assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
    assert shown(whole.content)[0] == [*range(30, 86)]
    assert whole.headers["cache-control"] == "no-store"
    part = client.get(address, headers={"Range": "bytes=100-299", "If-Range": whole.headers["etag"]})
    assert (part.status_code, part.content) == (206, whole.content[100:300])
    assert part.headers["content-range"] == f"bytes 100-299/{len(whole.content)}"
    beyond = client.get(address, headers={"Range": f"bytes={len(whole.content)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole.content)}")
    noted = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["who"], line["what"], len(line["ids"])) for line in noted] == [("local", "clip", 1)] * 3
    assert len({line["ids"][0] for line in noted}) == 1


def test_what_has_no_clip(serve, site, rows):
    client = serve(videos=(site / "shown",))
    answers = {name: client.get(f"/images/{id_}/clip") for name, id_ in rows.items() if name not in ("gate", "early")}
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "hidden": 404, "old": 415, "picture": 404,
    }  # fmt: skip
    assert all(str(site) not in answer.text for answer in answers.values())
    assert client.get(f"/images/{'0' * 32}/clip").status_code == 404
    # The video stays, but nobody is led to it any more.
    client.delete(f"/images/{rows['gate']}")
    assert client.get(f"/images/{rows['gate']}/clip").status_code == 404


def test_without_folders_nothing_is_shown(serve, rows):
    client = serve()
    assert client.get(f"/images/{rows['gate']}").json()["clip"] is None
    answer = client.get(f"/images/{rows['gate']}/clip")
    assert (answer.status_code, answer.json()["detail"]) == (
        404, f"of the image {rows['gate']} there is no video that may be shown",
    )  # fmt: skip


@pytest.mark.parametrize(("scope", "status"), [(None, 401), ("search", 200), ("write", 403), ("erase", 403)])
def test_clips_are_for_those_who_may_search(serve, access, bearer, site, rows, scope, status):
    client = serve(access=access, videos=(site / "shown",))
    headers = bearer(scope) if scope else {}
    assert client.get(f"/images/{rows['gate']}/clip", headers=headers).status_code == status


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_clip_that_cannot_be_noted_is_not_sent(serve, site, rows, tmp_path):
    client = serve(videos=(site / "shown",))
    (tmp_path / "audit.jsonl").unlink()
    os.dup2(os.open("/dev/full", os.O_WRONLY), client.app.state.operations._audit._file)
    client.app.state.operations._audit._on_disk = False
    assert client.get(f"/images/{rows['gate']}/clip").status_code == 503


def test_few_clips_are_sent_at_a_time(gallery: Gallery, embedder, site, rows):
    """A client that takes its clip slowly keeps the place: the memory is not free before."""
    app = create_app(gallery, embedder, ServiceSettings(videos=(site / "shown",)), access=Access())
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": f"/images/{rows['gate']}/clip", "raw_path": b"", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip

    async def ask(taken: asyncio.Event) -> int:
        statuses = []

        async def receive() -> dict:
            await asyncio.Event().wait()

        async def send(message: dict) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            elif message.get("body"):
                await taken.wait()

        await app({**scope, "state": {}}, receive, send)
        return statuses[0]

    async def run() -> list[int]:
        async with app.router.lifespan_context(app):
            taken, at_once = asyncio.Event(), asyncio.Event()
            at_once.set()
            slow = [asyncio.create_task(ask(taken)) for _ in range(4)]
            while app.state.clips.present < 4:
                await asyncio.sleep(0.01)
            refused = await ask(at_once)
            taken.set()
            return [refused, *await asyncio.gather(*slow), await ask(at_once)]

    assert asyncio.run(run()) == [503, 200, 200, 200, 200, 200]


# ---- on the command line ---------------------------------------------------------------------------------


def test_folders_are_looked_at_before_anything_starts(gallery, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    for given_, said in (
        (tmp_path / "file", "expected folders, got"),
        (tmp_path / "absent", "expected folders, got"),
        (tmp_path, "--videos needs PyAV. Install it: pip install 'reprism[video]'"),
    ):
        monkeypatch.setattr("reprism.cli.serve.find_spec", lambda name: None)
        with suppress(SystemExit):
            assert main(["serve", "--gallery", str(gallery.uri), "--videos", str(given_)]) != 0
        assert said in capsys.readouterr().err
