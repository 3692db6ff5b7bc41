"""What LanceDB and the disk below it say when they fail comes out as one line with a remedy."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from reprism.cli import main
from reprism.embedding import DescriptorKind
from reprism.gallery.failures import storage_failure
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery

KIND = DescriptorKind("ab" * 32, "p1", 64, True)


def fill(gallery, count=2000):
    rows = np.random.default_rng(0).normal(size=(count, 64)).astype(np.float32)
    gallery.add(Entry(f"k{n}", rows[n], f"/c/{n}.jpg", "anna" if n % 10 == 0 else "bob") for n in range(count))
    return gallery


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 16 MB in memory, with a gallery; its owner fills it up."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if os.name == "nt" or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 8_000, 100_000, 500_000])
@pytest.mark.parametrize("command", [["erase", "--pid", "anna", "--yes"], ["optimize"], ["compress", "--dim", "32"]])
def test_a_full_disk_is_one_line_and_the_command_works_once_there_is_space(small_disk, capsys, tmp_path, command, left):
    uri = str(small_disk / "g")
    fill(Gallery.create(uri, KIND))
    name, *options = command
    arguments = [name, uri, *options] + (["--audit", str(tmp_path / "log")] if name == "erase" else [])
    (small_disk / "g" / ".audit.key").write_bytes(bytes(32))
    free = shutil.disk_usage(small_disk).free
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(max(0, free - left) // 4096 * 4096))
    status, shown = main(arguments), capsys.readouterr()
    if status:
        assert status == 1
        assert len(shown.err.splitlines()) == 1, shown.err
        assert "disk is full" in shown.err or "No space left on device" in shown.err
        assert ".rs:" not in shown.err
    else:
        assert left, "it needs some space"
    assert len(set(Gallery.open(uri).keys())) in (2000, 1800)
    ballast.unlink()
    assert main(arguments) == 0 or (name == "compress" and "compressed already" in capsys.readouterr().err)
    gallery = Gallery.open(uri)
    assert len(gallery) == (1800 if name == "erase" else 2000)
    assert not gallery.stats()["erasing"]


def test_damage_is_one_line_with_the_remedy(tmp_path, capsys):
    uri = str(tmp_path / "g")
    fill(Gallery.create(uri, KIND))
    for data in (tmp_path / "g" / "rows.lance" / "data").iterdir():
        os.truncate(data, 100)
    assert main(["erase", uri, "--pid", "anna", "--yes"]) == 1
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    assert "from a backup" in shown
    assert ".rs:" not in shown


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("lance error: LanceError(IO): Permission denied (os error 13), /a/b.rs:1:2"), "who owns"),
        (OSError("lance error: LanceError(IO): Read-only file system (os error 30)"), "can only be read"),
        (RuntimeError("lance error: Retryable commit conflict for version 3"), "try again"),
        (ValueError("lance error: LanceError(Schema): something\nof two lines, /root/x/y.rs:12:3"), "something of two"),
    ],
)
def test_a_message_is_put_into_words(error, words):
    said = storage_failure(error)
    assert words in said
    assert "\n" not in said
    assert ".rs" not in said


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error"), OSError(28, "No space left on device", "x"), ValueError("?")]
)
def test_other_errors_are_none_of_its(error):
    assert storage_failure(error) is None


def test_an_error_that_is_no_ones_fault_keeps_its_traceback(monkeypatch):
    def fail(_):
        raise RuntimeError("a defect")

    monkeypatch.setattr("reprism.cli.optimize.run", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["optimize", "g"])
