"""Folders of images whose names say whose they are; and where a data set begins, if the root given is near it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from reprism.data.records import DISTRACTOR, JUNK, DataError, Label, ReIDDataset, Sample

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
PARTS = (TRAIN, QUERY, GALLERY)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class Named(NamedTuple):
    """The fields of ``Sample`` beside the path, as read from an image's name."""

    pid: int
    camid: int
    time: float | None
    recording: str | None


@dataclass(frozen=True)
class Naming:
    """The naming scheme of a data set's images.

    Attributes:
        title: The data set's name, for messages.
        pattern: Pattern of a whole name, without its suffix; its groups ``pid`` and ``camid`` are integers. Groups
            that not every data set has: ``frame``, an integer, and ``recording``, which its counter belongs to.
        example: A name.
        fields: Meaning of the example's fields.
        frames_per_second: Rate that turns the frame into seconds; None if names have no frame.
    """

    title: str
    pattern: re.Pattern[str]
    example: str
    fields: str
    frames_per_second: float | None = None

    def parse(self, name: str) -> tuple[int, int]:
        """Identity and camera from a file name.

        Raises:
            DataError: The name is not of this form.
        """
        named = self.read(name)
        return named.pid, named.camid

    def read(self, name: str) -> Named:
        """Read all that a file name says: identity, camera, and where there are any time and recording.

        Raises:
            DataError: The name is not of this form.
        """
        stem = name
        # A doubled suffix, "….jpg.jpg", does no harm.
        while stem.lower().endswith(IMAGE_SUFFIXES):
            stem = stem[: stem.rindex(".")]
        match = self.pattern.fullmatch(stem)
        if match is None or stem == name:
            raise DataError(
                f"The image name {name!r} is not of {self.title}'s form {self.example!r} ({self.fields}). "
                "Rename it or move it out of the folder."
            )
        fields = match.groupdict()
        rate = self.frames_per_second
        time = None if rate is None else int(fields["frame"]) / rate
        # A million names share a handful of recordings.
        recording = sys.intern(fields["recording"]) if "recording" in fields else None
        return Named(int(fields["pid"]), int(fields["camid"]), time, recording)


def read_parts(name: str, root: Path, naming: Naming, protocol: str = "") -> ReIDDataset:
    """Read a data set from the three folders of Market-1501's layout below ``root``.

    Raises:
        DataError: A part holds no usable image, or an image's name does not say whose it is.
    """
    return ReIDDataset(
        name=name,
        root=root,
        train=_read_part(root / TRAIN, naming, without=(JUNK, DISTRACTOR)),
        query=_read_part(root / QUERY, naming, without=(JUNK, DISTRACTOR)),
        gallery=_read_part(root / GALLERY, naming, without=(JUNK,)),
        protocol=protocol,
    )


def _read_part(folder: Path, naming: Naming, without: Collection[Label]) -> tuple[Sample, ...]:
    samples = []
    for name in image_names(folder):
        try:
            named = naming.read(name)
        except DataError as error:
            raise DataError(f"{error} The folder is {folder}.") from None
        if named.pid not in without:
            samples.append(Sample(folder / name, *named))
    if not samples:
        raise DataError(
            f"{folder} holds no image of a person (junk, and outside the gallery distractors, do not count). "
            "Unpack the data set again, whole."
        )
    return tuple(samples)


def image_names(folder: Path) -> list[str]:
    """Return the names of a folder's image files, sorted. No file is opened.

    Files that are no images by their suffix (``Thumbs.db``) are skipped, and so are hidden ones:
    ``._0002_c1s1_000451_03.jpg`` is what macOS leaves beside an image on a foreign disk.
    """
    # scandir knows folders from files without asking about each: on a network disk that is half a minute.
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".") and not _is_folder(entry)
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links: an image that cannot be read, as it will be found out
        return False


def find_root(root: str | PathLike[str], wanted: Sequence[str], title: str, within: Sequence[str] = ()) -> Path:
    """Find the folder that holds all of ``wanted``: ``root``, a folder in it, or one of its parents.

    Args:
        root: Folder that the user gave.
        wanted: Paths of files or folders that must be there, from the folder looked for.
        title: The data set's name, for messages.
        within: Names of other folders in it, from which it is looked for upwards too.

    Raises:
        DataError: It is not to be found, or there are several; says where it was looked for.
    """
    root = Path(root).expanduser().absolute()
    if not root.is_dir():
        what = f"{root} is a file" if root.exists() else f"There is no folder {root}"
        raise DataError(f"{what}. Give the folder that holds {', '.join(wanted)}.")
    if _holds_all(root, wanted):
        return root
    inside = sorted(path for path in root.iterdir() if _holds_all(path, wanted))
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise DataError(f"{root} holds {len(inside)} data sets: {', '.join(map(str, inside))}. Give one of them.")
    looked = [root, root / "*"]
    # From a folder that the layout itself names, and from nowhere else, upwards.
    named = {*within, *(part for path in wanted for part in Path(path).parts)}
    above = root
    while above.name in named and above != above.parent:
        above = above.parent
        if _holds_all(above, wanted):
            return above
        looked.append(above)
    missing = [path for path in wanted if not (root / path).exists()]
    raise DataError(
        f"No {title} in {root} (looked in {', '.join(map(str, looked))}): "
        f"{', '.join(missing)} missing from {root}. Give the folder that holds {', '.join(wanted)}."
    )


def _holds_all(folder: Path, wanted: Sequence[str]) -> bool:
    try:
        return all((folder / path).exists() for path in wanted)
    except OSError:  # a stranger's folder beside the one that is looked for, which may not be entered
        return False
