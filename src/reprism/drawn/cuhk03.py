"""Write drawn pedestrians in both forms of CUHK03: the file ``cuhk-03.mat`` and the folders ``cuhk03-np``.

Whatever reads the real data set reads these. A data set appears under its name only once it is complete.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from reprism.drawn.output import check_range, counter, mark_drawn, part_of, save_mat, split_pids
from reprism.drawn.shots import camera, draw_shot, generator, person, take_shot
from reprism.files import whole_folder
from reprism.progress import Count

Box = Literal["tight", "detected"]

# The names of the two kinds of boxes in the files, and ours.
_BOXES: tuple[tuple[str, Box], ...] = (("labeled", "tight"), ("detected", "detected"))
_PAIRS = 5  # pairs of cameras; an identity is seen by one pair
_PER_VIEW = 5  # images of an identity that the file has room for, in each camera
_SPLITS = 20  # test sets of the classic protocol

# Written and read by MATLAB as the first 512 bytes, before what HDF5 sees.
_USER_BLOCK = b"MATLAB 7.3 MAT-file, written by reprism, HDF5 schema 1.00 .".ljust(116) + bytes(8) + b"\x00\x02IM"


def render_cuhk03(
    root: str | Path,
    *,
    train_identities: int = 32,
    test_identities: int = 32,
    images_per_camera: int = 4,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
    progress: Count | None = None,
) -> Path:
    """Write a drawn data set as CUHK03 is distributed: ``cuhk-03.mat`` and the new protocol's two split files.

    ``cuhk-03.mat`` is a MATLAB v7.3 file (HDF5): cell arrays of references, images stored with their axes reversed,
    empty cells where a camera saw somebody less than five times. As in the real one, images differ in size, the
    detector missed some people once (never the first time), and the same moments are in both kinds of boxes.
    One image per test identity and camera is a query of the new protocol.

    Args:
        root: The folder to write; it may exist if it is empty.
        train_identities: Number of identities that the new protocol trains with, 1 or more.
        test_identities: Number of other identities to test with, 1 or more; also the size of the classic test sets.
        images_per_camera: Number of times that a camera sees an identity, 2 to 5.
        size: Height and width of the largest images in pixels, at least (26, 13).
        seed: The same seed gives the same images and tables.
        progress: Called as progress(done, total) after every image.

    Returns:
        root.

    Raises:
        ValueError: An argument is out of range; the message names it.
        FileExistsError: Root exists and is not an empty folder.
    """
    import h5py

    check_range(1, None, train_identities=train_identities, test_identities=test_identities)
    check_range(2, _PER_VIEW, images_per_camera=images_per_camera)
    check_range(0, None, seed=seed)
    check_range(26, None, **{"size[0]": size[0]})  # the smallest are 0.6 of it, and at least 16×8
    check_range(13, None, **{"size[1]": size[1]})
    people = train_identities + test_identities
    rng = generator(seed, "cuhk03")
    # As even as possible over the pairs of cameras, the first ones larger; numbered through, as the real ones are.
    sizes = [people // _PAIRS + (pair < people % _PAIRS) for pair in range(_PAIRS)]
    everybody = [(pair, number) for pair, many in enumerate(sizes, 1) for number in range(1, many + 1)]
    test = set(rng.permutation(people)[:test_identities].tolist())
    count = counter(len(_BOXES) * people * 2 * images_per_camera, progress)
    with whole_folder(root) as folder:
        mark_drawn(folder, seed)
        with h5py.File(folder / "cuhk-03.mat", "w", userblock_size=512) as file:
            cells = _Cells(file)
            for kind, box in _BOXES:
                names: list[str] = []
                pids: list[int] = []
                pairs: dict[int, list[list[Any]]] = defaultdict(list)
                for pid, (pair, number) in enumerate(everybody, 1):
                    row = [cells.empty] * (2 * _PER_VIEW)
                    for place, image in _images_of(pid, pair, seed, images_per_camera, box, size):
                        count()
                        if image is None:
                            continue
                        row[place] = cells.add(image.T, "uint8")
                        view = 1 + place // _PER_VIEW
                        names.append(f"{pair}_{number:03d}_{view}_{place + 1:02d}.png")
                        pids.append(pid)
                    pairs[pair].append(row)
                cells.array(kind, [cells.nested(pairs[pair]) for pair in range(1, _PAIRS + 1)])
                _write_split(folder / f"cuhk03_new_protocol_config_{kind}.mat", names, pids, test)
            sets = [
                np.array([everybody[place] for place in rng.permutation(people)[:test_identities]], np.float64)
                for _ in range(_SPLITS)
            ]
            cells.array("testsets", [cells.add(table.T, "double") for table in sets])
        with (folder / "cuhk-03.mat").open("r+b") as file:
            file.write(_USER_BLOCK)
    return Path(root)


def _images_of(
    pid: int, pair: int, seed: int, images_per_camera: int, box: Box, size: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Places 0 … 9 in an identity's row, each with its image, or None where the detector missed it."""
    someone = person(seed, pid)
    for view in range(2):
        place = camera(seed, 2 * pair - 1 + view)
        for index in range(images_per_camera):
            missed = box == "detected" and index == images_per_camera - 1 and pid % 4 == 0
            scale = 1 - 0.1 * ((pid + index) % 5)  # to 0.6
            shape = (round(scale * size[0]), round(scale * size[1]))
            shot = take_shot(place, generator(seed, "image", pid, view + 1, index), box=box)
            yield view * _PER_VIEW + index, None if missed else draw_shot(someone, place, shot, shape)


def _write_split(path: Path, names: list[str], pids: list[int], test: set[int]) -> None:
    """Return the tables of the new protocol, with indices from 1; test identities are counted from 0."""
    views = [int(name.split("_")[2]) for name in names]
    parts: dict[str, list[int]] = {"train": [], "query": [], "gallery": []}
    asked: set[tuple[int, int]] = set()
    for row, who in enumerate(zip(pids, views, strict=True), 1):
        part = "train" if who[0] - 1 not in test else "gallery" if who in asked else "query"
        parts[part].append(row)
        asked.add(who)
    save_mat(
        path,
        {
            "filelist": np.array(names, dtype=object)[:, None],
            "labels": np.array(pids, np.uint16)[:, None],
            "camId": np.array(views, np.uint8)[:, None],
            **{f"{part}_idx": np.array(rows, np.uint16)[:, None] for part, rows in parts.items()},
        },
    )


class _Cells:
    """Writes cell arrays as MATLAB v7.3 lays them out: arrays of references to what lies in the group ``#refs#``."""

    def __init__(self, file: Any) -> None:
        import h5py

        self.file = file
        self.references = file.create_group("#refs#")
        self.type = h5py.ref_dtype
        # One empty matrix for all empty cells: stored as its own size.
        empty = self.references.create_dataset("a", data=np.zeros(2, np.uint64))
        empty.attrs["MATLAB_class"] = np.bytes_("double")
        empty.attrs["MATLAB_empty"] = np.uint8(1)
        self.empty = empty.ref

    def add(self, values: np.ndarray, kind: str) -> Any:
        """Write numbers, axes already reversed; gives the reference."""
        data = self.references.create_dataset(f"b{len(self.references)}", data=values)
        data.attrs["MATLAB_class"] = np.bytes_(kind)
        return data.ref

    def nested(self, rows: list[list[Any]]) -> Any:
        """Write a cell array people×10 among the references."""
        return self._write(self.references, f"b{len(self.references)}", rows).ref

    def array(self, name: str, references: list[Any]) -> None:
        """Write a column of cells under a name."""
        self._write(self.file, name, [[reference] for reference in references])

    def _write(self, where: Any, name: str, rows: list[list[Any]]) -> Any:
        width = len(rows[0]) if rows else 2 * _PER_VIEW
        data = where.create_dataset(name, (width, len(rows)), self.type)
        for column, row in enumerate(rows):
            for line, reference in enumerate(row):
                data[line, column] = reference
        data.attrs["MATLAB_class"] = np.bytes_("cell")
        return data


def render_cuhk03_np(
    root: str | Path,
    *,
    train_identities: int = 32,
    test_identities: int = 32,
    images_per_camera: int = 4,
    size: tuple[int, int] = (128, 64),
    seed: int = 0,
    progress: Count | None = None,
) -> Path:
    """Write a drawn data set in the folder form of CUHK03's new protocol.

    root gets the folders ``labeled`` (tight boxes) and ``detected`` (loose and shifted ones): the same
    moments under the same names. Two cameras see every identity; one image per test identity and camera is a
    query.

    Args:
        root: The folder to write, parent of ``labeled`` and ``detected``; it may exist if it is empty.
        train_identities: Number of identities to train with, 1 or more.
        test_identities: Number of other identities to test with, 1 or more.
        images_per_camera: Number of times that a camera sees an identity, 2 or more.
        size: Height and width of the images in pixels, at least (16, 8).
        seed: The same seed gives the same files.
        progress: Called as progress(done, total) after every image.

    Returns:
        root.

    Raises:
        ValueError: An argument is out of range; the message names it.
        FileExistsError: Root exists and is not an empty folder.
    """
    check_range(1, None, train_identities=train_identities, test_identities=test_identities)
    check_range(2, None, images_per_camera=images_per_camera)
    check_range(0, None, seed=seed)
    train, test = split_pids(seed, train_identities, test_identities)
    network = {camid: camera(seed, camid) for camid in (1, 2)}
    count = counter(len(_BOXES) * len(train | test) * len(network) * images_per_camera, progress)
    with whole_folder(root) as folder:
        for kind, _ in _BOXES:
            for part in ("bounding_box_train", "query", "bounding_box_test"):
                (folder / kind / part).mkdir(parents=True)
            mark_drawn(folder / kind, seed)
        number = 0  # runs through the whole data set
        for pid in sorted(train | test):
            someone = person(seed, pid)
            for camid, place in network.items():
                for index in range(images_per_camera):
                    number += 1
                    for kind, box in _BOXES:
                        shot = take_shot(place, generator(seed, "image", pid, camid, index), box=box)
                        path = folder / kind / part_of(pid in train, index) / f"{pid:04d}_c{camid}_{number}.png"
                        Image.fromarray(draw_shot(someone, place, shot, size)).save(path)
                        count()
    return Path(root)
