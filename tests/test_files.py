"""What a file or a folder is made of is on the disk before it takes its name, and the name before the call returns."""

import errno
import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import reprism
from reprism.files import make_folder, one_at_a_time, sync_folder, whole_file, whole_folder


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers (inodes) of what was synced, in order."""
    done: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.fstat(file).st_ino) or sync(file))
    return done


def test_a_model_file_is_synced_and_may_be_read_by_whom_others_may(tmp_path: Path, synced: list[int]) -> None:
    """safetensors puts a file of its own, which the owner alone may read, in the place of the one that was opened."""
    net = reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(32, 16))
    path = reprism.save(net, tmp_path / "model.safetensors")
    assert synced == [path.stat().st_ino, tmp_path.stat().st_ino]
    with whole_file(tmp_path / "notes") as file:
        file.write(b"text")
    (tmp_path / "plain").write_bytes(b"text")
    modes = {stat.S_IMODE(some.stat().st_mode) for some in (path, tmp_path / "notes", tmp_path / "plain")}
    assert len(modes) == 1


def test_new_folders_are_in_those_that_hold_them(tmp_path: Path, synced: list[int]) -> None:
    (tmp_path / "a").mkdir()
    make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [(tmp_path / "a").stat().st_ino, (tmp_path / "a" / "b").stat().st_ino]
    make_folder(tmp_path / "a" / "b" / "c")
    assert len(synced) == 2


def test_a_whole_folder_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, synced: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(os, "sync", lambda: seen.append((tmp_path / "data").exists()))
    with whole_folder(tmp_path / "data") as folder:
        (folder / "notes").write_text("text")
        synced.clear()
        assert not seen
    assert seen == [False]
    assert synced == [tmp_path.stat().st_ino]


def test_a_failing_disk_is_an_error_and_one_that_cannot_sync_folders_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(number: int) -> None:
        def sync(_: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", sync)

    failing(errno.EINVAL)
    sync_folder(tmp_path)
    failing(errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


def test_who_does_not_wait_is_told_that_another_is_inside(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with one_at_a_time(lock), pytest.raises(BlockingIOError), one_at_a_time(lock, seconds=0.1):
        pass
    with one_at_a_time(tmp_path / "lock", seconds=0.1):
        pass


def test_threads_are_inside_one_after_the_other(tmp_path: Path) -> None:
    count, most, inside = 0, 0, 0

    def work(_: int) -> None:
        nonlocal count, most, inside
        with one_at_a_time(tmp_path / "lock"):
            inside += 1
            most = max(most, inside)
            before = count
            time.sleep(0.002)
            count = before + 1
            inside -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(40)))
    assert (count, most) == (40, 1)


HOLDS = """
import sys, time
from reprism.files import one_at_a_time
with one_at_a_time(sys.argv[1]):
    print("inside", flush=True)
    time.sleep(600)
"""


def test_a_process_that_is_killed_lets_others_in(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(lock)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "inside\n"
            with pytest.raises(BlockingIOError, match="another process"), one_at_a_time(lock, seconds=0):
                pass
        finally:
            holder.kill()
    with one_at_a_time(lock, seconds=60):
        pass
