"""DukeMTMC-reID: people on a campus, eight cameras (Ristani et al., ECCV 2016 workshops; Zheng et al., ICCV 2017).

Its authors withdrew it in 2019: people had been filmed who were never asked. Whoever still holds a copy can
read it here, to compare with published figures; the loader reminds once.

Folders are named as in Market-1501, files ``0001_c2_f0046182.jpg``: identity 1, camera 2, frame 46182. It is one
recording of 59.94 frames per second (frame 46182: 770.47 s). The name does not say whether all cameras began to count
at once: each pair of cameras may have an offset of its own.
"""

from __future__ import annotations

import re
import warnings
from os import PathLike

from reprism.data.folders import PARTS, Naming, find_root, read_parts
from reprism.data.records import ReIDDataset

NAMING = Naming(
    "DukeMTMC-reID",
    re.compile(r"(?P<pid>\d+)_c(?P<camid>\d+)_f(?P<frame>\d+)", re.ASCII),
    "0001_c2_f0046182.jpg",
    "identity, camera, frame",
    frames_per_second=60_000 / 1_001,
)
parse_name = NAMING.parse


class WithdrawnDatasetWarning(UserWarning):
    """A data set is used that its authors have withdrawn."""


def load(root: str | PathLike[str]) -> ReIDDataset:
    """Read the folders of DukeMTMC-reID; warns once per process that its authors withdrew it.

    Args:
        root: The folder that holds the three parts. The folder around it, or one of the parts, will do too.

    Raises:
        DataError: The three parts are not there, a part holds no usable image, or an image's name does not
            say whose it is.
    """
    found = find_root(root, PARTS, NAMING.title)
    dataset = read_parts("dukemtmc", found, NAMING)
    _warn_once()
    return dataset


_warned = False


def _warn_once() -> None:
    # Not left to the warnings module: there, once is once for each line that calls.
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "DukeMTMC-reID was withdrawn by its authors in 2019, because the people in it never agreed to be. "
            "Use it for nothing but comparison with figures already published, and say so.",
            WithdrawnDatasetWarning,
            stacklevel=4,
        )
