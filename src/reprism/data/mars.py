"""MARS: tracklets of 1,261 people before a supermarket, six cameras (Zheng et al., ECCV 2016).

The folders ``bbox_train`` and ``bbox_test`` hold a folder per identity with frames named
``0001C1T0001F001.jpg``: identity 1, camera 1, tracklet 1, frame 1. The name lists ``info/train_name.txt`` and
``info/test_name.txt`` put them in order, and ``info/tracks_train_info.mat`` and ``info/tracks_test_info.mat`` cut these
lists into tracklets: first line, last line (from 1, inclusive), identity, camera. ``info/query_IDX.mat`` says which of
the test tracklets are queries, from 1. Identity -1 is junk (its folder is ``00-1``), 0 are distractors.

Its tracklets have no time: a name counts frames from the beginning of its own tracklet, and nothing says when that was.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from reprism.data.folders import find_root
from reprism.data.matlab import read_table
from reprism.data.records import DISTRACTOR, JUNK, DataError, ReIDDataset, Tracklet

Protocol = Literal["original", "without-queries"]

_INFO = "info"
WANTED = tuple(
    f"{_INFO}/{name}"
    for name in ("train_name.txt", "test_name.txt", "tracks_train_info.mat", "tracks_test_info.mat", "query_IDX.mat")
)


def load(root: str | PathLike[str], protocol: Protocol = "original") -> ReIDDataset:
    """Read MARS from its name lists and tables; no image is looked at.

    Args:
        root: The folder that holds ``bbox_train``, ``bbox_test`` and ``info``; the one around it, or one of them, will
            do too.
        protocol: ``original``: all test tracklets are the gallery, queries and junk included (junk is ignored in
            ranking, and so is the query itself, by its camera). ``without-queries``: queries and junk are left out of
            the gallery, as most toolkits do it; queries whose only other tracklets were queries are then lost.

    Raises:
        DataError: A list or table is missing, or they do not fit each other; names the file and the row.
        ValueError: There is no such protocol.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol={protocol!r}: expected {' or '.join(get_args(Protocol))}")
    found = find_root(root, WANTED, "MARS", within=("bbox_train", "bbox_test"))
    train = _read_tracklets(found, "train")
    test = _read_tracklets(found, "test")
    table = found / _INFO / "query_IDX.mat"
    indices = read_table(table) - 1
    if indices.min() < 0 or indices.max() >= len(test):
        row = int(np.flatnonzero((indices < 0) | (indices >= len(test)))[0])
        raise DataError(
            f"{table}, entry {row + 1}: there is no test tracklet {indices[row] + 1}; they count from 1 to {len(test)}."
        )
    if len(set(indices.tolist())) < len(indices):
        raise DataError(f"{table} names a test tracklet twice.")
    query = tuple(test[index] for index in indices)
    gallery: tuple[Tracklet, ...]
    if protocol == "original":
        gallery = test
    else:
        taken = set(indices.tolist())
        gallery = tuple(track for index, track in enumerate(test) if index not in taken and track.pid != JUNK)
    return ReIDDataset(
        "mars",
        found,
        tuple(track for track in train if track.pid not in (JUNK, DISTRACTOR)),
        query,
        gallery,
        protocol=f"{protocol} gallery",
    )


def _read_tracklets(root: Path, part: str) -> tuple[Tracklet, ...]:
    names = (root / _INFO / f"{part}_name.txt").read_text(encoding="utf-8").split()
    path = root / _INFO / f"tracks_{part}_info.mat"
    tracklets = []
    for row, (first, last, pid, camid) in enumerate(read_table(path, columns=4).tolist(), 1):
        if not 1 <= first <= last <= len(names):
            raise DataError(
                f"{path}, row {row}: lines {first} to {last} of {part}_name.txt, which has {len(names)}; "
                "expected a first and a last line, from 1. A tracklet needs a frame."
            )
        frames = names[first - 1 : last]
        # The same four characters and digit are in the name of every frame of a tracklet.
        label = "00-1" if pid == JUNK else f"{pid:04d}"
        start = f"{label}C{camid}"
        if not all(name.startswith(start) for name in frames):
            stranger = next(name for name in frames if not name.startswith(start))
            raise DataError(
                f"{path}, row {row}: identity {pid}, camera {camid}, but line "
                f"{first + frames.index(stranger)} of {part}_name.txt is {stranger!r}; "
                f"its name should start with {start!r}."
            )
        tracklets.append(Tracklet(root / f"bbox_{part}" / label, tuple(frames), pid, camid))
    return tuple(tracklets)
