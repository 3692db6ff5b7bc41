"""CUHK03: 1,467 people on a campus, two of ten cameras each (Li et al., CVPR 2014).

Boxes were drawn by hand (``labelled``) or found by a detector (``detected``). Two protocols are in use:

- ``new`` (Zhong et al., CVPR 2017): 767 people to train on, 700 to test with; one image of each person and camera
  is a query, the others are the gallery.
- ``classic`` (Li et al., CVPR 2014): one of twenty splits into 1,367 people to train on and 100 to test with. The
  images of the first camera are queries; the gallery is one image of each person by the second camera, drawn anew
  ten times.

It is read in two forms: ``cuhk-03.mat`` as it is distributed (a MATLAB v7.3 file, that is HDF5), with the two
``cuhk03_new_protocol_config_….mat`` beside it for the new protocol; or the folder form ``cuhk03-np``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from reprism.data.folders import PARTS, Naming, find_root, read_parts
from reprism.data.matlab import read_tables
from reprism.data.records import DataError, ReIDDataset, Sample
from reprism.files import whole_folder, write_json
from reprism.progress import Progress

Boxes = Literal["labelled", "detected"]
Protocol = Literal["new", "classic"]

MAT = "cuhk-03.mat"
CLASSIC_SPLITS = 20
SINGLE_SHOT_TRIALS = 10
_CAMERA_PAIRS = 5
_MOST_VALUES = 2**26  # of an image or a table
# The spelling of the distributed files.
_IN_FILES = {"labelled": "labeled", "detected": "detected"}
_SPLIT_FILE = "cuhk03_new_protocol_config_{}.mat"

NAMING = Naming(
    "CUHK03",
    re.compile(r"(?P<pid>\d+)_c(?P<camid>[12])_\d+", re.ASCII),
    "0001_c1_1.png",
    "identity, camera 1 or 2, image",
)


def load(
    root: str | PathLike[str],
    boxes: Boxes = "labelled",
    protocol: Protocol = "new",
    split: int = 0,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ReIDDataset:
    """Read CUHK03 from ``cuhk-03.mat`` or from the folder form.

    The images in ``cuhk-03.mat`` are written out once, as PNG files in a folder ``cuhk-03-images`` beside it (some
    minutes; it appears once it is complete), and read from there ever after.

    Args:
        root: The folder with ``cuhk-03.mat``, or with ``labeled`` and ``detected`` in the folder form.
        boxes: ``labelled`` (drawn by hand) or ``detected``.
        protocol: ``new`` or ``classic``; the folder form has the new one only.
        split: Number of the classic protocol's split, 0 … 19.
        cache: Another folder for the images of ``cuhk-03.mat``, where the one beside it cannot be written.
        progress: Called as ``progress(what, done, total)`` while they are written.

    Raises:
        DataError: Neither form is there, a file of it is missing or not what it should be.
        ValueError: An option is unknown or out of range.
    """
    for option, value, allowed in (("boxes", boxes, Boxes), ("protocol", protocol, Protocol)):
        if value not in get_args(allowed):
            raise ValueError(f"{option}={value!r}: expected {' or '.join(get_args(allowed))}")
    split = int(split)
    if not 0 <= split < CLASSIC_SPLITS:
        raise ValueError(f"split={split}: the classic protocol's splits are 0 … {CLASSIC_SPLITS - 1}")
    folder, mat = _find(root, boxes)
    if mat is None:
        if protocol == "classic":
            raise DataError(
                f"{folder} is CUHK03 in the folder form, which has the new protocol only. The classic one needs {MAT}."
            )
        return read_parts("cuhk03", folder, NAMING, protocol=f"{boxes} boxes, new protocol")
    images = Path(cache).expanduser().absolute() if cache is not None else mat.with_name("cuhk-03-images")
    index = _images_of(mat, images, progress)
    if protocol == "classic":
        return _classic(mat, images, index, boxes, split)
    return _new(mat, images, index, boxes)


def _find(root: str | PathLike[str], boxes: Boxes) -> tuple[Path, Path | None]:
    """Return the folder to read and, in the distributed form, the path of ``cuhk-03.mat``."""
    given = Path(root).expanduser().absolute()
    if given.is_file() and given.suffix == ".mat":
        return given.parent, given
    kind = _IN_FILES[boxes]
    reasons = []
    for wanted in ([MAT], [f"{kind}/{part}" for part in PARTS]):
        try:
            # From inside the other kind of boxes too.
            found = find_root(given, wanted, "CUHK03", within=tuple(_IN_FILES.values()))
        except DataError as error:
            reasons.append(str(error))
        else:
            return (found, found / MAT) if wanted == [MAT] else (found / kind, None)
    raise DataError(" Nor in the folder form: ".join(reasons))


# ---- the two protocols of the distributed form -----------------------------------------------------------


def _new(mat: Path, images: Path, index: dict[str, Any], boxes: Boxes) -> ReIDDataset:
    config = _SPLIT_FILE.format(_IN_FILES[boxes])
    places = [folder / config for folder in (mat.parent, mat.parent.parent, *sorted(mat.parent.glob("*/")))]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"The new protocol of CUHK03 with {boxes} boxes needs {config} beside {mat}; it is not in "
            f"{', '.join(sorted({str(place.parent) for place in places}))}. It comes with the protocol's paper, "
            "not with CUHK03."
        )
    tables = read_tables(path, ("filelist", "labels", "camId", "train_idx", "query_idx", "gallery_idx"))
    names = [str(np.ravel(cell)[0]) for cell in tables["filelist"].ravel()]
    # MATLAB keeps them in the smallest type that holds them: sums of uint8 and uint16 would wrap.
    pids, camids = (tables[key].ravel().astype(np.int64).tolist() for key in ("labels", "camId"))
    if not len(names) == len(pids) == len(camids):
        raise DataError(f"{path}: {len(names)} files, {len(pids)} labels and {len(camids)} cameras; they must agree.")
    present = set(index["images"][boxes])
    parts: list[tuple[Sample, ...]] = []
    for part in ("train", "query", "gallery"):
        rows = tables[f"{part}_idx"].ravel().astype(np.int64) - 1
        if len(rows) == 0 or rows.min() < 0 or rows.max() >= len(names):
            raise DataError(f"{path}: {part}_idx counts from 1 to {len(names)}; it holds something else.")
        missing = [names[row] for row in rows if names[row] not in present]
        if missing:
            raise DataError(
                f"{path} names {len(missing)} {part} images that {mat} does not have, the first {missing[0]}: "
                "the two files do not belong together."
            )
        folder = images / boxes
        parts.append(tuple(Sample(folder / names[row], pids[row], camids[row]) for row in rows))
    train, query, gallery = parts
    return ReIDDataset("cuhk03", mat.parent, train, query, gallery, protocol=f"{boxes} boxes, new protocol")


def _classic(mat: Path, images: Path, index: dict[str, Any], boxes: Boxes, split: int) -> ReIDDataset:
    testsets = index["testsets"]
    if split >= len(testsets):
        raise DataError(f"{mat} has {len(testsets)} test sets; there is no split {split}.")
    tested = {(pair, person) for pair, person in testsets[split]}
    # Numbers that run through the camera pairs, as in the new protocol's tables.
    people = index["people"]
    first = np.cumsum([0, *people])
    parts: dict[str, list[Sample]] = {"train": [], "query": [], "gallery": []}
    for name in index["images"][boxes]:
        pair, person, view, _ = (int(field) for field in Path(name).stem.split("_"))
        part = "train" if (pair, person) not in tested else "query" if view == 1 else "gallery"
        parts[part].append(Sample(images / boxes / name, int(first[pair - 1]) + person, view))
    return ReIDDataset(
        "cuhk03",
        mat.parent,
        tuple(parts["train"]),
        tuple(parts["query"]),
        tuple(parts["gallery"]),
        protocol=f"{boxes} boxes, classic protocol, split {split}",
        single_shot_trials=SINGLE_SHOT_TRIALS,
    )


# ---- cuhk-03.mat -----------------------------------------------------------------------------------------


def _images_of(mat: Path, folder: Path, progress: Progress | None) -> dict[str, Any]:
    """Return the contents of ``cuhk-03.mat`` from the folder of its images, which is made if absent.

    Returns:
        ``images``: the names in each kind of boxes; ``people``: how many in each camera pair; ``testsets``: of each
        split, (pair, person) of those to test with, both from 1.
    """
    stat = mat.stat()
    source = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    record = folder / "index.json"
    if record.is_file():
        try:
            index = json.loads(record.read_text(encoding="utf-8"))
            same = index["source"] == source
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{record} is damaged ({error}). Remove {folder}; it is made again.") from error
        if not same:
            raise DataError(
                f"{folder} was made from another {MAT} than {mat}, or that one has been touched since. "
                f"Remove {folder}; it is made again."
            )
        return dict(index)
    try:
        with whole_folder(folder) as unfinished:
            index = {"source": source, **_write_images(mat, unfinished, progress)}
            write_json(unfinished / "index.json", index)
    except FileExistsError:
        if record.is_file():  # another process was faster
            return _images_of(mat, folder, progress)
        raise
    except PermissionError as error:
        raise DataError(
            f"{folder} cannot be written ({error}). Give another folder by the option cache=DIR."
        ) from error
    return index


def _write_images(mat: Path, folder: Path, progress: Progress | None) -> dict[str, Any]:
    import h5py

    try:
        file = h5py.File(mat, "r")
    except OSError as error:
        raise DataError(
            f"{mat} cannot be read as a MATLAB v7.3 (HDF5) file: {error}. Fetch it again, whole."
        ) from error
    with file:
        try:
            sets = {boxes: _cells(file, name) for boxes, name in _IN_FILES.items()}
            people = [_own(file, pair).shape[1] for pair in sets["labelled"]]
            testsets = [
                # MATLAB's columns are HDF5's rows: 2×100 here, (pair, person) there.
                np.asarray(_own(file, cell)).T.astype(np.int64).tolist()
                for cell in _cells(file, "testsets")
            ]
            total = sum(_own(file, pair).shape[1] for pairs in sets.values() for pair in pairs)
            done = 0
            names: dict[str, list[str]] = {}
            for boxes, pairs in sets.items():
                (folder / boxes).mkdir()
                names[boxes] = []
                for pair, cell in enumerate(pairs, 1):
                    for person, cells in enumerate(np.asarray(_own(file, cell)).T, 1):
                        for name, image in _images_of_person(file, cells, pair, person):
                            # The fastest compression: the files are some two fifths larger than at their smallest.
                            Image.fromarray(image).save(folder / boxes / name, compress_level=1)
                            names[boxes].append(name)
                        done += 1
                        if progress is not None:
                            progress(f"writing the images of {MAT}", done, total)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            raise DataError(
                f"{mat} is no {MAT} as distributed ({error}): expected the cell arrays labeled, detected and testsets."
            ) from error
    return {"people": people, "testsets": testsets, "images": names}


def _cells(file: Any, name: str) -> np.ndarray:
    """Return the references in a MATLAB cell array, in MATLAB's order."""
    if name not in file:
        raise KeyError(f"it has no {name}")
    return np.asarray(_own(file, name)).T.ravel()


def _own(file: Any, name: Any) -> Any:
    """Return a data set of an HDF5 file by name or reference; refuses links out of the file and enormous sizes.

    HDF5 can put what a data set holds into any other file, by a link, by external storage or as a virtual data set: a
    stranger's file would have a private one written out as an image.

    Raises:
        ValueError: It lies elsewhere, is no data set, or claims to be larger than any image.
    """
    import h5py

    if isinstance(name, str) and not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link, not in the file itself")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{found.name} is a group, where a data set belongs")
    if found.external or found.is_virtual:
        raise ValueError(f"{found.name} takes its content from another file")
    if found.size is not None and found.size > _MOST_VALUES:
        raise ValueError(f"{found.name} claims {found.size:,} values, more than any image or table has")
    return found


def _images_of_person(file: Any, cells: np.ndarray, pair: int, person: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and H×W×3 images of one person: up to five by the first camera, then up to five by the second."""
    for number, cell in enumerate(cells, 1):
        image = _own(file, cell)
        # An empty cell is stored as its own size, two numbers.
        if image.ndim != 3 or "MATLAB_empty" in image.attrs:
            continue
        yield f"{pair}_{person:03d}_{1 if number <= 5 else 2}_{number:02d}.png", np.asarray(image).T.astype(np.uint8)
