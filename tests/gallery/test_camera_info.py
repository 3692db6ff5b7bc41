"""What a gallery's cameras saw, against lists of its rows."""

import io
import json
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from reprism.cli import main
from reprism.cli.cameras import duration, hour_bars, rows_table, times_table
from reprism.embedding import DescriptorKind
from reprism.gallery import camera_info
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery

KIND = DescriptorKind("ab" * 32, "p1[s2]", 8, True)
START = datetime(2026, 3, 28, 20, tzinfo=UTC)  # clocks in Berlin go forward in the night after


def entry(number: int, **known) -> Entry:
    return Entry(f"/{number}.jpg", np.eye(8, dtype=np.float32)[number % 8], f"/{number}.jpg", **known)


def made(folder: str | Path, entries: list[Entry]) -> Gallery:
    gallery = Gallery.create(Path(folder) / "g", KIND)
    gallery.add(entries)
    return gallery


def jpeg(gray: int, height: int, width: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), gray, np.uint8)).save(content, "JPEG")
    return content.getvalue()


rows = st.builds(
    dict,
    camid=st.sampled_from(["a", "b", None]),
    time=st.none() | st.integers(0, 10**12).map(lambda us: START + timedelta(microseconds=us)),
    tracklet=st.sampled_from([None, "t1", "t2", "t3"]),
    source=st.sampled_from([None, "x", "y"]),
)


@settings(max_examples=25)
@given(st.lists(rows, max_size=20), st.sampled_from([2, 3, 100]))
def test_counts_are_those_of_the_rows(given_rows: list[dict], batch: int) -> None:
    entries = [entry(number, **known) for number, known in enumerate(given_rows)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(camera_info, "_BATCH", batch)
        patch.setattr(camera_info, "_UNMERGED", 1)
        found = made(folder, entries).cameras("Europe/Berlin")
    names = {each.camid for each in entries}
    assert [each.camid for each in found] == sorted(names - {None}) + [None] * (None in names)
    for info in found:
        mine = [each for each in entries if each.camid == info.camid]
        times = sorted(each.time for each in mine if each.time is not None)
        assert (info.rows, info.timed) == (len(mine), len(times))
        assert info.tracklets == len({(each.source, each.tracklet) for each in mine if each.tracklet})
        hours = Counter(time.astimezone(ZoneInfo("Europe/Berlin")).hour for time in times)
        assert info.hours == tuple(hours[hour] for hour in range(24))
        assert (info.first, info.last) == ((times[0], times[-1]) if times else (None, None))
        if len(times) < 2:
            assert info.longest_gap is None
        else:
            longest = max(later - earlier for earlier, later in pairwise(times))
            start, end = info.longest_gap
            assert end - start == longest
            assert start in times
            assert end in times
        span = times[-1] - times[0] if times else timedelta(0)
        want = len(times) / (span / timedelta(hours=1)) if span else None
        assert info.per_hour == (want and pytest.approx(want))


def test_a_gap_longer_than_a_bucket_is_found_among_more_times_than_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_info, "_BUCKETS", 16)
    monkeypatch.setattr(camera_info, "_BATCH", 50)
    rng = np.random.default_rng(2)
    seconds = rng.permutation(np.concatenate([rng.integers(0, 5000, 150), rng.integers(6000, 10_000, 150)]))
    entries = [
        entry(number, camid="c", time=START + timedelta(seconds=int(each))) for number, each in enumerate(seconds)
    ]
    (found,) = made(tmp_path, entries).cameras()
    ends = (seconds[seconds < 5000].max(), seconds[seconds >= 6000].min())
    assert found.longest_gap == tuple(START + timedelta(seconds=int(each)) for each in ends)


def test_pictures_are_drawn_evenly_and_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dark, light = jpeg(0, 96, 40), jpeg(255, 64, 48)
    entries = [entry(number, camid="c", thumbnail=dark if number < 400 else light) for number in range(800)]
    gallery = made(tmp_path, [*entries, entry(800, camid="bare"), entry(801, camid="broken", thumbnail=b"\xff\xd8no")])
    monkeypatch.setattr(camera_info, "_BATCH", 30)
    bare, broken, found = gallery.cameras()
    assert found.pictures == 64
    assert 0.3 < found.brightness < 0.7  # of both halves; 32 of 64 within 3 standard deviations
    assert found.picture_size[0] in (64, 80, 96)
    for each in (bare, broken):
        assert (each.pictures, each.brightness, each.picture_size) == (0, None, None)
    gray = made(tmp_path / "gray", [entry(0, camid="c", thumbnail=jpeg(51, 96, 40))]).cameras()[0]
    assert gray.brightness == pytest.approx(0.2, abs=0.01)
    assert gray.picture_size == (96, 40)


def test_progress_ends_with_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_info, "_BATCH", 3)
    told: list[tuple[int, int]] = []
    gallery = made(tmp_path, [entry(number, camid="c", time=START) for number in range(10)])
    (found,) = gallery.cameras(progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (10, 10)
    assert told == sorted(told)
    # Of one moment there is no rate, and a gap of no length.
    assert (found.per_hour, found.longest_gap) == (None, (START, START))


def test_an_unknown_time_zone_is_refused(tmp_path: Path) -> None:
    gallery = made(tmp_path, [])
    assert gallery.cameras() == []
    for zone in ("Mars", "", "../etc/passwd"):
        with pytest.raises(ValueError, match="expected a time zone"):
            gallery.cameras(zone)


def test_the_command_shows_and_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    times = [START + timedelta(hours=hours) for hours in (0, 0.5, 1, 30)]
    entries = [entry(number, camid="[red]yard", time=time, tracklet=f"t{number}") for number, time in enumerate(times)]
    made(tmp_path, [*entries, entry(9, thumbnail=jpeg(255, 96, 48))])
    assert main(["cameras", str(tmp_path / "g"), "--timezone", "Europe/Berlin"]) == 0
    shown = capsys.readouterr().out
    yard = [line for line in shown.splitlines() if "[red]yard" in line]
    assert yard[0].split()[1:7] == ["4", "4", "0.1", "1", "d", "5"]
    assert yard[0].split()[-1] == "··▄·······█▄"  # 21:00, 21:30, 22:00, and 4:00 in summer time
    assert "2026-03-28 21:00" in yard[1]
    assert "two hours" in " ".join(shown.split())
    unknown = [line.split()[1:] for line in shown.splitlines() if "(unknown)" in line]
    assert unknown == [["1", "0"], ["1", "100", "96×48"]]

    monkeypatch.setenv("COLUMNS", "100")
    assert main(["cameras", str(tmp_path / "g"), "--timezone", "Europe/Berlin"]) == 0
    assert "····▄················█▄·" in capsys.readouterr().out

    assert main(["cameras", str(tmp_path / "g"), "--json"]) == 0
    known, other = json.loads(capsys.readouterr().out)
    assert (known["camid"], other["camid"]) == ("[red]yard", None)
    assert known["last"] == "2026-03-30T02:00:00+00:00"
    assert known["longest_gap"] == ["2026-03-28T21:00:00+00:00", "2026-03-30T02:00:00+00:00"]
    assert (known["gap_hours"], other["gap_hours"], other["first"]) == (29, None, None)

    Gallery.create(tmp_path / "empty", KIND)
    assert main(["cameras", str(tmp_path / "empty")]) == 0
    assert "is empty" in capsys.readouterr().out
    assert main(["cameras", str(tmp_path / "g"), "--timezone", "Mars"]) == 1
    assert "expected a time zone" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit(tmp_path: Path, width: int) -> None:
    picture = jpeg(255, 128, 128)
    (info,) = made(tmp_path, [entry(i, camid="entrance-010", time=START, thumbnail=picture) for i in (0, 1)]).cameras()
    values = vars(info) | {"rows": 1_234_567, "tracklets": 1_234_567, "timed": 34_567, "per_hour": 12_345.0}
    info = camera_info.CameraInfo(**values | {"longest_gap": (START, START + timedelta(hours=2399))})
    for table in (rows_table([info], "UTC", width), times_table([info], "UTC")):
        console = Console(file=io.StringIO(), width=width)
        console.print(table)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        assert max(map(len, lines)) <= width
        (row,) = (line for line in lines if "entrance" in line)
        assert row.split()[0] == "entrance-010"
        assert not lines[-1].strip()  # nothing was folded to a second line
        assert lines[-2] == row


def test_bars_and_durations() -> None:
    assert hour_bars([0, 1, 8, 4, 7]) == "·▁█▄▇"
    assert hour_bars([1, 1000]) == "▁█"
    lengths = {0.2: "0 s", 59: "59 s", 60: "1 min", 750: "12 min 30 s", 3600: "1 h", 90_000: "1 d 1 h", 864_059: "10 d"}
    assert {seconds: duration(timedelta(seconds=seconds)) for seconds in lengths} == lengths
