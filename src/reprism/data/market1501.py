"""Market-1501: 1,501 people before a supermarket, six cameras (Zheng et al., ICCV 2015).

Three folders, ``bounding_box_train``, ``query`` and ``bounding_box_test``, hold images named
``0002_c1s1_000451_03.jpg``: identity 2, camera 1, sequence 1, frame 451, detection 3. Two identities are
special: -1 is junk (neither good nor bad: left out everywhere), 0 is a distractor (kept, in the gallery
alone).
"""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

from reprism.data.records import DataError, ReIDDataset, Sample

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
PARTS = (TRAIN, QUERY, GALLERY)
JUNK, DISTRACTOR = -1, 0

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
# A doubled suffix, "….jpg.jpg", does no harm, hence the "+" at the end.
_NAME = re.compile(r"(?P<pid>-1|\d+)_c(?P<camid>\d+)s\d+_\d+_\d+(?:\.(?:jpe?g|png|bmp))+", re.ASCII | re.IGNORECASE)


def load(root: str | PathLike[str]) -> ReIDDataset:
    """Read the folders of Market-1501, or of any data set in its layout.

    Files are taken in the order of their names. Those that are no images by their suffix (``Thumbs.db``), and
    hidden ones, are passed over; no image is opened.

    Args:
        root: The folder that holds the three parts. The folder around it, or one of the parts, will do too.

    Raises:
        DataError: The three parts are not there, a part holds no usable image, or an image's name does not
            say whose it is.
    """
    found = _find_root(Path(root).expanduser().absolute())
    return ReIDDataset(
        name="market1501",
        root=found,
        train=_read_part(found / TRAIN, without=(JUNK, DISTRACTOR)),
        query=_read_part(found / QUERY, without=(JUNK, DISTRACTOR)),
        gallery=_read_part(found / GALLERY, without=(JUNK,)),
    )


def parse_name(name: str) -> tuple[int, int]:
    """Identity and camera from a file name: ``0002_c1s1_000451_03.jpg`` gives ``(2, 1)``.

    Raises:
        DataError: The name is not of this form.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"The image name {name!r} is not of Market-1501's form '0002_c1s1_000451_03.jpg' "
            "(identity or -1, camera, sequence, frame, detection). Rename it or move it out of the folder."
        )
    return int(match["pid"]), int(match["camid"])


def _find_root(root: Path) -> Path:
    if _holds_all_parts(root):
        return root
    if not root.is_dir():
        raise DataError(f"There is no folder {root}. Give the folder that holds {', '.join(PARTS)}.")
    inside = sorted(path for path in root.iterdir() if _holds_all_parts(path))
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise DataError(f"{root} holds {len(inside)} data sets: {', '.join(map(str, inside))}. Give one of them.")
    looked = [root, root / "*"]
    if root.name in PARTS:
        if _holds_all_parts(root.parent):
            return root.parent
        looked.append(root.parent)
    missing = [part for part in PARTS if not (root / part).is_dir()]
    raise DataError(
        f"No Market-1501 in {root} (looked in {', '.join(map(str, looked))}): "
        f"{', '.join(missing)} missing from {root}. Give the folder that holds {', '.join(PARTS)}."
    )


def _is_image_name(name: str) -> bool:
    # "._0002_c1s1_000451_03.jpg" is what macOS leaves beside an image on a foreign disk.
    return name.lower().endswith(_IMAGE_SUFFIXES) and not name.startswith(".")


def _holds_all_parts(folder: Path) -> bool:
    try:
        return all((folder / part).is_dir() for part in PARTS)
    except PermissionError:  # A stranger's folder beside the one that is looked for.
        return False


def _read_part(folder: Path, without: tuple[int, ...]) -> tuple[Sample, ...]:
    # scandir knows folders from files without asking about each: on a network disk that is half a minute.
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _is_image_name(entry.name) and not entry.is_dir())
    samples = []
    for name in names:
        try:
            pid, camid = parse_name(name)
        except DataError as error:
            raise DataError(f"{error} The folder is {folder}.") from None
        if pid not in without:
            samples.append(Sample(folder / name, pid, camid))
    if not samples:
        raise DataError(
            f"{folder} holds no image of a person (junk, and outside the gallery distractors, do not count). "
            "Unpack the data set again, whole."
        )
    return tuple(samples)
