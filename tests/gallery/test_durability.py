"""What a power cut leaves of a gallery: all that was promised, and nothing that cannot be opened."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reprism.embedding import DescriptorKind
from reprism.gallery import durability, upkeep
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery, GalleryError

ROOT = Path(__file__).parents[2]
KIND = DescriptorKind("ab" * 32, "p1[s2]", 8, True)
needs_descriptors = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="which file is synced is read from /proc, which this system has not"
)


def entries(start, stop):
    return [
        Entry(f"{i}", np.random.default_rng(i).normal(size=8).astype(np.float32), f"{i}.jpg", pid=f"{i % 10}")
        for i in range(start, stop)
    ]


def keys(start, stop):
    return {str(i) for i in range(start, stop)}


def restarted(monkeypatch):
    """The machine has been started anew since whatever was noted."""
    monkeypatch.setattr(durability, "_boot", lambda: "another")


class PromisesOnly:
    """A disk that has what it was told to keep alone: contents by fsync of a file, names by fsync of its folder."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.contents, self.names, self.moment = folder, {}, {}, lambda: None
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor):
        self.moment()
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self.names[path] = self._listing(path)
        else:
            self.contents[self._file(path)] = path.read_bytes()

    @staticmethod
    def _file(path):
        about = path.stat()  # with the time, for a number that a removed file had is given to another
        return about.st_ino, about.st_mtime_ns

    def _listing(self, folder):
        return {path.name: None if path.is_dir() else self._file(path) for path in folder.iterdir()}

    def survivor(self, target, *, names):
        """What is there after a cut. Of ``names``, those of now (a journal was written) or those kept on request."""
        shutil.rmtree(target, ignore_errors=True)
        self._restore(self.folder, target, names)

    def _restore(self, folder, target, names):
        target.mkdir()
        listing = self._listing(folder) if names == "now" else self.names.get(folder, {})
        for name, file in listing.items():
            if file is None:
                self._restore(folder / name, target / name, names)
            else:
                (target / name).write_bytes(self.contents.get(file, b""))


@needs_descriptors
@pytest.mark.slow
@pytest.mark.parametrize("names", ["now", "kept"])
def test_a_cut_at_every_moment_leaves_what_was_promised(tmp_path, monkeypatch, names):
    """Cuts before every sync of some work: what calls had confirmed is there, and what they were at is there or not."""
    monkeypatch.setattr(upkeep, "EXACT_ROWS", 300)
    root, cut = tmp_path / "g", tmp_path / "cut"
    disk = PromisesOnly(root, monkeypatch)
    promised, coming, looked = None, set(), [0]

    def look():
        disk.survivor(cut, names=names)
        moment, disk.moment = disk.moment, lambda: None
        syncs, os.fsync = os.fsync, lambda descriptor: None
        try:
            with monkeypatch.context() as later:
                restarted(later)
                if promised is None and not Gallery.exists(cut):
                    Gallery.create(cut, KIND)  # what is left of a creation is no obstacle
                gallery = Gallery.open(cut)
                found = set(gallery.keys())
                assert found in (promised or set(), coming)
                assert gallery.dim in ((4, 8) if at == "narrow" else (8,))
                assert len(gallery.descriptors([row_id(key) for key in found])) == len(found)
                if at == "erase":  # whatever was done of it, doing it again finishes it
                    gallery.erase(pids=["3"])
                    gallery.optimize()
                    assert set(gallery.keys()) == coming
                    assert gallery.index()["unindexed"] == 0
                    assert not gallery.stats()["erasing"]
                if at == "narrow":
                    gallery.optimize(build=False)
                    assert gallery.has_index()
        finally:
            disk.moment, os.fsync = moment, syncs
        looked[0] += 1

    disk.moment, at = look, "create"
    gallery = Gallery.create(root, KIND)
    promised = set()
    everything = keys(0, 400)
    for at, work, coming in (  # noqa: B007 - look() reads it
        ("add", lambda: gallery.add(entries(0, 200)), keys(0, 200)),
        ("add more", lambda: gallery.add(entries(200, 400)), everything),
        ("optimize", lambda: gallery.optimize(), everything),
        ("erase", lambda: gallery.erase(pids=["3"]), {key for key in everything if int(key) % 10 != 3}),
        ("narrow", lambda: gallery.compress(4), {key for key in everything if int(key) % 10 != 3}),
    ):
        work()
        promised = coming
        look()
    assert Gallery.open(cut).dim == 4
    assert looked[0] > 60


@pytest.fixture
def gallery(tmp_path):
    made = Gallery.create(tmp_path / "g", KIND)
    made.add(entries(0, 100))
    return made


def newest(root, table="rows"):
    return min((root / f"{table}.lance" / "_versions").glob("*.manifest"))


def unconfirmed_addition(gallery, root):
    """What an addition leaves that was cut off before it was confirmed."""
    noted = (root / ".confirmed").read_bytes()
    gallery.add(entries(100, 200))
    (root / ".confirmed").write_bytes(noted)


def test_what_was_never_confirmed_is_passed_over_and_said(tmp_path, gallery, monkeypatch, caplog):
    root = tmp_path / "g"
    unconfirmed_addition(gallery, root)
    newest(root).write_bytes(b"")
    restarted(monkeypatch)
    again = Gallery.open(root)
    assert set(again.keys()) == keys(0, 100)
    assert "the last change to the table of rows had not come to the disk" in caplog.text
    caplog.clear()
    assert again.add(entries(100, 150)) == 50
    assert set(Gallery.open(root).keys()) == keys(0, 150)
    assert not caplog.text


@pytest.mark.parametrize("detached", [False, True])
def test_a_killed_process_loses_nothing_while_the_machine_runs(tmp_path, gallery, caplog, detached):
    """Unless its disk was taken from it, which leaves what a power cut leaves."""
    if durability._boot() is None:
        pytest.skip("this system does not tell one start of the machine from another")
    root = tmp_path / "g"
    unconfirmed_addition(gallery, root)
    if detached:
        newest(root).write_bytes(b"")
    assert set(Gallery.open(root).keys()) == keys(0, 100 if detached else 200)
    assert bool(caplog.text) == detached


def test_while_another_writes_nothing_is_passed_over(tmp_path, gallery, monkeypatch):
    root = tmp_path / "g"
    unconfirmed_addition(gallery, root)
    restarted(monkeypatch)
    with gallery.disk.writing():
        assert set(Gallery.open(root).keys()) == keys(0, 200)


@pytest.mark.parametrize("fault", ["empty manifest", "short data"])
def test_of_a_gallery_that_confirms_nothing_the_newest_readable_version_is_taken(tmp_path, gallery, fault, caplog):
    """Such as an earlier Reprism left."""
    root = tmp_path / "g"
    before = set((root / "rows.lance" / "data").iterdir())
    gallery.add(entries(100, 200))
    (root / ".confirmed").unlink()
    if fault == "empty manifest":
        newest(root).write_bytes(b"")
    else:
        (data,) = set((root / "rows.lance" / "data").iterdir()) - before
        os.truncate(data, data.stat().st_size // 2)
    assert set(Gallery.open(root).keys()) == keys(0, 100)
    assert "The version before it is taken" in caplog.text
    assert json.loads((root / ".confirmed").read_text())["manifests"] == {"rows": newest(root).name}


def test_a_gallery_without_any_readable_version_is_refused_and_left_as_it_is(tmp_path, gallery):
    root = tmp_path / "g"
    (root / ".confirmed").unlink()
    for data in (root / "rows.lance" / "data").iterdir():
        os.truncate(data, 10)
    newest(root).write_bytes(b"")
    os.truncate(sorted((root / "rows.lance" / "_versions").glob("*.manifest"))[-1], 7)
    before = sorted(path.name for path in root.rglob("*"))
    with pytest.raises(GalleryError, match=r"is damaged: none of the 2 versions .* from a backup"):
        Gallery.open(root)
    assert sorted(path.name for path in root.rglob("*")) == before


def test_an_unfinished_creation_is_no_obstacle(tmp_path):
    root = tmp_path / "g"
    Gallery.create(root, KIND)
    (root / ".confirmed").unlink()
    newest(root).write_bytes(b"")
    assert not Gallery.exists(root)
    with pytest.raises(GalleryError, match="no gallery at"):
        Gallery.open(root)
    assert Gallery.create(root, KIND).add(entries(0, 3)) == 3


@pytest.mark.parametrize("where", ["delete", "create_table", "optimize", "create_index", "drop_table"])
def test_an_erasure_killed_anywhere_is_finished_with_its_index(tmp_path, monkeypatch, where):
    """The process dies before a step of LanceDB's, in each erasure anew, until none is left."""
    monkeypatch.setattr(upkeep, "EXACT_ROWS", 300)
    root = tmp_path / "g"
    gallery = Gallery.create(root, KIND)
    gallery.add(entries(0, 400))
    gallery.optimize()
    target = gallery.store.connection if where in ("create_table", "drop_table") else gallery.store.table

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    calls, original = {"create_table": 1, "optimize": 1}.get(where, 0), getattr(type(target), where)

    def step(self, *args, **given):
        nonlocal calls  # the first creation is that of the note
        calls -= 1
        return original(self, *args, **given) if calls >= 0 else die()

    monkeypatch.setattr(type(target), where, step)
    with pytest.raises(Killed):
        gallery.erase(pids=["3"])
    monkeypatch.undo()
    monkeypatch.setattr(upkeep, "EXACT_ROWS", 10**6)  # so that none would be built but for the note
    again = Gallery.open(root)
    again.erase(pids=["3"])
    assert again.index()["indexed"] == 360
    assert not again.stats()["erasing"]


def test_a_full_disk_confirms_nothing(tmp_path, gallery, monkeypatch):
    root = tmp_path / "g"
    noted = (root / ".confirmed").read_bytes()

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(durability, "sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        gallery.add(entries(100, 200))
    assert (root / ".confirmed").read_bytes() == noted


@pytest.mark.slow
@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() != 0 or not shutil.which("mkfs.ext4"),
    reason="mounting a file system of one's own takes root and mkfs.ext4",
)
@pytest.mark.parametrize("kind", ["addition", "erasure", "model file"])
def test_a_file_system_that_is_cut_off_has_what_was_promised(tmp_path, kind):
    mount = subprocess.run(
        ["sh", "-c", "truncate -s 16M disk && mkfs.ext4 -qF disk && mkdir m && mount -o loop disk m && umount m"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    if mount.returncode:
        pytest.skip(f"no loop device can be mounted here: {mount.stderr.strip()}")
    cuts = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "power_cuts.py"), "--tries", "1", "--only", kind, "--seconds", "2"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert cuts.returncode == 0, cuts.stderr
    assert f"| {kind} | 1 | 0 |" in cuts.stdout, cuts.stdout
