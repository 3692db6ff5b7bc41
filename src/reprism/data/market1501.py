"""Market-1501: 1,501 people before a supermarket, six cameras (Zheng et al., ICCV 2015).

Three folders, ``bounding_box_train``, ``query`` and ``bounding_box_test``, hold images named
``0002_c1s1_000451_03.jpg``: identity 2, camera 1, sequence 1, frame 451, detection 3. Two identities are
special: -1 is junk (neither good nor bad: left out everywhere), 0 is a distractor (kept, in the gallery
alone).
"""

from __future__ import annotations

import re
from os import PathLike

from reprism.data.folders import PARTS, Naming, find_root, read_parts
from reprism.data.records import ReIDDataset

NAMING = Naming(
    "Market-1501",
    re.compile(r"(?P<pid>-1|\d+)_c(?P<camid>\d+)s\d+_\d+_\d+", re.ASCII),
    "0002_c1s1_000451_03.jpg",
    "identity or -1, camera, sequence, frame, detection",
)
parse_name = NAMING.parse


def load(root: str | PathLike[str]) -> ReIDDataset:
    """Read the folders of Market-1501, or of any data set in its layout.

    Files are taken in the order of their names; no image is opened.

    Args:
        root: The folder that holds the three parts. The folder around it, or one of the parts, will do too.

    Raises:
        DataError: The three parts are not there, a part holds no usable image, or an image's name does not
            say whose it is.
    """
    return read_parts("market1501", find_root(root, PARTS, NAMING.title), NAMING)
