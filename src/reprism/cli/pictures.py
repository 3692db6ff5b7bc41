"""Find the pictures that a command's arguments name."""

import os
from collections.abc import Sequence
from pathlib import Path

from reprism.data.folders import IMAGE_SUFFIXES, image_names


def find_pictures(given: Sequence[Path]) -> list[Path]:
    """Return the pictures as they were given, and in place of a folder the images below it, sorted by path.

    Raises:
        ValueError: A folder holds no image.
    """
    pictures: list[Path] = []
    for path in given:
        if not path.is_dir():
            pictures.append(path)
            continue
        found = [Path(place) / name for place, _, _ in os.walk(path) for name in image_names(Path(place))]
        if not found:
            raise ValueError(f"the folder {path} holds no image ({', '.join(IMAGE_SUFFIXES)})")
        pictures += sorted(found)
    return pictures
