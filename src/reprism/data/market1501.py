"""Market-1501: 1,501 people before a supermarket, six cameras (Zheng et al., ICCV 2015).

Three folders, ``bounding_box_train``, ``query`` and ``bounding_box_test``, hold images named
``0002_c1s1_000451_03.jpg``: identity 2, camera 1, sequence 1, frame 451, detection 3. A sequence is a recording, with
one counter of frames at 25 per second (frame 451: 18.04 s), which the cameras do not share to the second. Two
identities are special: -1 is junk (neither good nor bad: left out everywhere), 0 is a distractor (kept, in the gallery
alone). A fourth folder, ``gt_bbox``, holds boxes drawn by hand, of which multi-query evaluation averages those of a
query's identity and camera.
"""

from __future__ import annotations

import re
from dataclasses import replace
from os import PathLike
from pathlib import Path

from reprism.data.folders import PARTS, Naming, find_root, image_names, read_parts
from reprism.data.records import DataError, ReIDDataset, Sample

HAND_DRAWN = "gt_bbox"

NAMING = Naming(
    "Market-1501",
    re.compile(r"(?P<pid>-1|\d+)_c(?P<camid>\d+)(?P<recording>s\d+)_(?P<frame>\d+)_\d+", re.ASCII),
    "0002_c1s1_000451_03.jpg",
    "identity or -1, camera, sequence, frame, detection",
    frames_per_second=25.0,
)
parse_name = NAMING.parse


def load(root: str | PathLike[str]) -> ReIDDataset:
    """Read the folders of Market-1501, or of any data set in its layout.

    Files are taken in the order of their names; no image is opened. ``gt_bbox`` is read where it is there.

    Args:
        root: The folder that holds the three parts. The folder around it, or one of the parts, will do too.

    Raises:
        DataError: The three parts are not there, a part holds no usable image, or an image's name does not
            say whose it is.
    """
    dataset = read_parts("market1501", find_root(root, PARTS, NAMING.title, within=(HAND_DRAWN,)), NAMING)
    return replace(dataset, multi_query=_hand_drawn(dataset.root / HAND_DRAWN))


def _hand_drawn(folder: Path) -> tuple[Sample, ...]:
    """Return the hand-drawn boxes; none without their folder. Files with other names are skipped."""
    samples = []
    for name in image_names(folder) if folder.is_dir() else ():
        try:
            samples.append(Sample(folder / name, *NAMING.read(name)))
        except DataError:
            continue
    return tuple(samples)
