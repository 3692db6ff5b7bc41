"""What a power cut leaves of a gallery and of files that appear whole, on a real file system.

    sudo python benchmarks/power_cuts.py

A process writes on an ext4 file system of its own, which lies in a file. At a random moment the file system is stopped
as a power cut stops it: what had not come to the disk is lost, and no journal is written out. It is mounted again,
which replays the journal, and what is there is compared with what the process had been promised by then. Needs root,
and Linux with loop devices.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from measure import from_extra

from reprism.embedding import DescriptorKind
from reprism.files import whole_file, write_whole

with from_extra():
    from reprism.gallery import durability, upkeep
    from reprism.gallery.rows import Entry
    from reprism.gallery.search import Filter
    from reprism.gallery.table import Gallery

DIM, ROWS = 64, 6_000
KIND = DescriptorKind("ab" * 32, "p1[s2]", DIM, True)
WITH_INDEX = 4_000
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH = struct.pack("I", 2)


@dataclass
class Arguments:
    """What power cuts leave of a gallery, and of files that appear whole."""

    tries: int = 20
    """Cuts of each kind of work."""
    seconds: float = 4.0
    """Longest time from the first thing promised to the cut."""
    seed: int = 0
    """Of the moments."""
    only: str | None = None
    """One kind of work alone."""
    kill: bool = False
    """Kill the process alone; its file system goes on, and no root is needed."""
    unsynced: bool = False
    """Reference: nothing is brought to the disk, as if a program trusted the system with it."""
    restarted: bool = False
    """With --check: the machine was started again since the cut; otherwise its disk was taken from it."""
    work: tuple[str, str] | None = None
    """What the script runs itself for: a kind of work, and a folder."""
    check: tuple[str, str, str] | None = None
    """What the script runs itself for: a kind of work, a folder, and what was promised."""


# ---- the work, each promising by a line when a call has returned ------------------------------------------


def entries(start: int, stop: int) -> list[Entry]:
    """Each depends on its number alone; of every ten, one is of the person who is erased."""
    return [
        Entry(
            f"{i}.jpg",
            np.random.default_rng(i).normal(size=DIM).astype(np.float32),
            f"{i}.jpg",
            pid="gone" if i % 10 == 0 else "stays",
        )
        for i in range(start, stop)
    ]


def add(folder: Path) -> Iterator[int]:
    """Add a hundred rows at a time; promises how many are in."""
    gallery = Gallery.open(folder / "gallery") if Gallery.exists(folder / "gallery") else None
    gallery = gallery or Gallery.create(folder / "gallery", KIND)
    yield 0
    for start in range(0, 10**6, 100):
        gallery.add(entries(start, start + 100))
        yield start + 100
        if start % 1000 == 0:
            gallery.optimize(build=False)


def erase(folder: Path) -> Iterator[int]:
    """Erase a person of a gallery with indices; promises 1 when it is done, and then adds to the gallery."""
    gallery = Gallery.open(folder / "gallery")
    yield 0
    gallery.erase(pids=["gone"])
    yield 1
    for _ in range(10**6):
        gallery.optimize()


def compress(folder: Path) -> Iterator[int]:
    """Make the descriptors narrower; promises 1 when it is done."""
    gallery = Gallery.open(folder / "gallery")
    yield 0
    gallery.compress(DIM // 2)
    yield 1
    for _ in range(10**6):
        gallery.optimize()


def save(folder: Path) -> Iterator[int]:
    """Write a resume point's worth, keeping the one before, and a small file; promises the number of both."""
    for number in range(1, 10**6):
        with whole_file(folder / "last.ckpt", previous=folder / "previous.ckpt") as file:
            torch.save({"number": number, "weights": torch.full((200_000,), float(number))}, file)
        write_whole(folder / "metrics.json", f'{{"number": {number}}}' + " " * 5000)
        yield number


def model(folder: Path) -> Iterator[int]:
    """Save a model again and again; promises how often it was."""
    import reprism

    net = reprism.build_model("p1[s2]", "mobilenetv2_035", num_classes=4, pretrained=False)
    for number in range(1, 10**6):
        net.state_dict()["classifiers.p1s1.weight"].fill_(number)
        reprism.save(net, folder / "model.safetensors")
        yield number


# ---- what is there afterwards: an error says what is lost -------------------------------------------------


def opened(folder: Path) -> Gallery:
    """The gallery, every row of which could be read, and which a search finds."""
    gallery = Gallery.open(folder / "gallery")
    ids = [row.id for row in gallery.rows()]
    assert len(gallery.descriptors(ids)) == len(gallery) == len(set(gallery.keys())), "rows differ from descriptors"
    if len(gallery):
        gallery.search(entries(1, 2)[0].descriptor, top=3, where=Filter(pids=("stays",)))
    return gallery


def check_add(folder: Path, promised: int) -> None:
    """What was promised is in; what was not is in by hundreds."""
    keys = set(opened(folder).keys())
    assert len(keys) >= promised, f"{promised - len(keys)} of {promised} rows lost"
    assert keys == {f"{i}.jpg" for i in range(len(keys))}, "other rows than were added"
    assert len(keys) % 100 == 0, "half an addition"


def check_erase(folder: Path, promised: int) -> None:
    """Who was erased is gone, everybody else is there; and finishing it brings the indices back."""
    gallery = opened(folder)
    stays = {f"{i}.jpg" for i in range(ROWS) if i % 10}
    keys = set(gallery.keys())
    assert stays <= keys, f"{len(stays - keys)} rows lost that were not to be erased"
    assert not promised or keys == stays, "an erased person is back"
    gallery.erase(pids=["gone"])
    gallery.optimize()
    assert set(gallery.keys()) == stays, "others than the person went"
    assert gallery.index() == {"kind": gallery.index()["kind"], "indexed": len(stays), "unindexed": 0}, "index lost"
    assert not gallery.stats()["erasing"], "the erasure is unfinished"


def check_compress(folder: Path, promised: int) -> None:
    """All rows are there, wide or narrow; and the index."""
    gallery = opened(folder)
    assert set(gallery.keys()) == {f"{i}.jpg" for i in range(ROWS)}, "rows lost"
    assert gallery.dim == DIM // 2 or not promised, "the compression is undone"
    gallery.optimize()
    assert gallery.index() is not None, "index lost"


def check_save(folder: Path, promised: int) -> None:
    """The last promised point or a later one is there, whole, or its predecessor under that name."""
    path = folder / "last.ckpt"
    point = torch.load(path if path.exists() else folder / "previous.ckpt", weights_only=True)
    assert point["number"] >= promised, "an older resume point"
    assert bool((point["weights"] == point["number"]).all()), "a resume point of other content"
    text = (folder / "metrics.json").read_text()
    assert len(text) > 5000, "a small file is cut off"
    assert int(text.split()[1].strip("}")) >= promised, "an older small file"


def check_model(folder: Path, promised: int) -> None:
    """The model last promised is there, or a later one."""
    import reprism

    net = reprism.load(folder / "model.safetensors")
    assert net.state_dict()["classifiers.p1s1.weight"].min() >= promised, "an older model"


WORK: dict[str, tuple[Callable[[Path], Iterator[int]], Callable[[Path, int], None]]] = {
    "addition": (add, check_add),
    "erasure": (erase, check_erase),
    "compression": (compress, check_compress),
    "resume point": (save, check_save),
    "model file": (model, check_model),
}


# ---- a file system that can be cut off --------------------------------------------------------------------


@contextmanager
def file_system(image: Path, mount: Path) -> Iterator[None]:
    """Mount the file system in a file, if there is one."""
    if not image.exists():
        yield
        return
    subprocess.run(["mount", "-o", "loop,commit=1", image, mount], check=True)
    try:
        yield
    finally:
        # A process that was killed may hold it a moment longer.
        for _ in range(100):
            if subprocess.run(["umount", mount], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
        else:
            subprocess.run(["umount", "-l", mount], check=True)


def cut(mount: Path) -> None:
    """Stop a file system as a power cut does."""
    descriptor = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
    finally:
        os.close(descriptor)


def run_self(*options: str, **given: object) -> subprocess.Popen[str]:
    """This script in a process of its own."""
    command = [sys.executable, __file__, *options]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **given)  # type: ignore[call-overload]


def attempt(kind: str, folder: Path, delay: float, arguments: Arguments, *, restarted: bool) -> tuple[int, str | None]:
    """Work, cut, look. Returns what had been promised, and what is lost."""
    image, mount = folder / "disk", folder / "mount"
    mount.mkdir(exist_ok=True)
    if not arguments.kill:
        with image.open("wb") as file:
            file.truncate(2**28)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    if kind in ("erasure", "compression"):
        with file_system(image, mount):
            gallery = Gallery.create(mount / "gallery", KIND)
            gallery.add(entries(0, ROWS))
            upkeep.EXACT_ROWS = WITH_INDEX
            gallery.optimize()
            os.sync()
    with file_system(image, mount):
        worker = run_self("--work", kind, str(mount), *(["--unsynced"] if arguments.unsynced else []))
        assert worker.stdout is not None
        assert worker.stderr is not None
        first = worker.stdout.readline()
        assert first, f"the work did not begin: {worker.stderr.read()}"
        time.sleep(delay)
        if not arguments.kill:
            cut(mount)
        worker.kill()
        promised = [int(line) for line in [first, *worker.communicate()[0].splitlines()]]
    with file_system(image, mount):
        last = max(promised)
        checker = run_self("--check", kind, str(mount), str(last), *(["--restarted"] if restarted else []))
        _, said = checker.communicate()
        reason = said.strip().splitlines()[-1] if checker.returncode and said.strip() else None
        return last, reason if checker.returncode else None


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    if arguments.work is not None:
        kind, folder = arguments.work
        if arguments.unsynced:
            os.fsync = lambda _: None  # type: ignore[assignment]
        upkeep.EXACT_ROWS = WITH_INDEX
        for promised in WORK[kind][0](Path(folder)):
            print(promised, flush=True)
        return
    if arguments.check is not None:
        kind, folder, said = arguments.check
        if arguments.restarted:
            durability._BOOT = Path(folder) / "no name"
        WORK[kind][1](Path(folder), int(said))
        return
    if not arguments.kill and os.geteuid() != 0:
        sys.exit("power_cuts.py: mounting a file system needs root: run it by sudo")
    rng = random.Random(arguments.seed)
    for kind in WORK if arguments.only is None else [arguments.only]:
        lost: list[str] = []
        for number in range(arguments.tries):
            with tempfile.TemporaryDirectory() as folder:
                delay = rng.uniform(0, arguments.seconds)
                promised, reason = attempt(kind, Path(folder), delay, arguments, restarted=number % 2 == 0)
            print(f"{kind} {number + 1}: after {delay:.2f} s, {promised} promised: {reason or 'whole'}", flush=True)
            lost += [reason] if reason else []
        print(f"| {kind} | {arguments.tries} | {len(lost)} |", flush=True)


if __name__ == "__main__":
    main()
