"""A re-identification data set: three splits of images or tracklets, with identities and cameras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

Label: TypeAlias = int | str
"""An identity or a camera, as the data set has it."""

JUNK = -1
"""The identity (the integer, no string) of badly cut boxes: neither right nor wrong, ignored in every ranking."""

DISTRACTOR = 0
"""The identity (the integer) of people of no query and of false detections: they occur in the gallery only."""


class DataError(ValueError):
    """The data on disk cannot be used as they are. The message names the input, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of one person.

    Attributes:
        path: The image file.
        pid: The identity, an integer or a string as the data set has it; see also ``JUNK`` and ``DISTRACTOR``.
        camid: The camera, or None where cameras are not known. A gallery item that shares both identity and
            camera with a query is ignored for that query.
        time: When the image was taken, in seconds on its recording's clock; None where not known.
        recording: What the clock belongs to: times are comparable within one recording alone. None where the whole
            data set has one clock. Cameras of a recording may still differ by an offset that stays the same.
    """

    path: Path
    pid: Label
    camid: Label | None
    time: float | None = None
    recording: str | None = None


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One person on one walk past one camera: some frames, in their order.

    Attributes:
        folder: Folder of the frames.
        names: Their paths from there, at least one. (A million names take a tenth of the memory of paths.)
        pid: The identity, as in ``Sample``.
        camid: The camera, as in ``Sample``.
        time: When the walk began, as in ``Sample``. The frames' own times are not kept.
        recording: What the clock belongs to, as in ``Sample``.
    """

    folder: Path
    names: tuple[str, ...]
    pid: Label
    camid: Label | None
    time: float | None = None
    recording: str | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"a tracklet without a frame: identity {self.pid!r}, camera {self.camid!r}, {self.folder}")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Tracklet({str(self.folder)!r}, {len(self)} frames, pid={self.pid!r}, camid={self.camid!r})"

    @property
    def path(self) -> Path:
        """The first frame, which stands for the tracklet in messages and reports."""
        return self.folder / self.names[0]

    def frame(self, index: int) -> Sample:
        """Return one frame as an image of its own, of unknown time."""
        return Sample(self.folder / self.names[index], self.pid, self.camid)


Item: TypeAlias = Sample | Tracklet


@dataclass(frozen=True)
class ReIDDataset:
    """A data set in its three parts; training identities do not occur in the other two.

    Attributes:
        name: The name it was opened by, such as ``market1501``.
        root: The folder or file that was read.
        train: The items to learn from. The items of one part are all images, or all tracklets.
        query: The items that are looked for.
        gallery: The items that are searched, distractors included. Junk may be among them: it is ignored.
        protocol: The variant of the data set and of its protocol, in words, such as ``labelled boxes, new
            protocol``; empty where there is one only.
        single_shot_trials: 0: each query is ranked against the whole gallery. N: against one item of each
            identity, N times over (the classic protocol of CUHK03).
        multi_query: Boxes to average in multi-query evaluation: a query is described by the boxes of its identity
            and camera. Empty for most data sets; boxes of other identities are skipped.
    """

    name: str
    root: Path
    train: tuple[Item, ...]
    query: tuple[Item, ...]
    gallery: tuple[Item, ...]
    protocol: str = ""
    single_shot_trials: int = field(default=0, kw_only=True)
    multi_query: tuple[Item, ...] = field(default=(), kw_only=True)

    def __repr__(self) -> str:
        unit = "tracklets" if self.is_video else "images"
        parts = (
            f"{len(items):,} {name} {unit} of {len({item.pid for item in items} - {JUNK, DISTRACTOR}):,} identities"
            for name, items in (("train", self.train), ("query", self.query), ("gallery", self.gallery))
        )
        return f"ReIDDataset({self.name!r}, {str(self.root)!r}: {', '.join(parts)})"

    @cached_property
    def train_labels(self) -> dict[Label, int]:
        """Training identity -> class 0 … N-1, in sorted order: the same on every machine and in every run."""
        return {pid: label for label, pid in enumerate(sorted_labels(item.pid for item in self.train))}

    @cached_property
    def train_images(self) -> tuple[Sample, ...]:
        """Training images: ``train``, or every frame of its tracklets."""
        return as_images(self.train)

    @cached_property
    def train_targets(self) -> tuple[int, ...]:
        """The class 0 … N-1 of each image of ``train_images``, in its order."""
        return tuple(self.train_labels[sample.pid] for sample in self.train_images)

    @property
    def is_video(self) -> bool:
        """True if queries and gallery are tracklets."""
        return any(isinstance(item, Tracklet) for item in (*self.query[:1], *self.gallery[:1]))

    @property
    def num_train_identities(self) -> int:
        """Identities in ``train``: the classes a network is trained on."""
        return len(self.train_labels)

    @property
    def num_query_identities(self) -> int:
        """Identities in ``query``."""
        return len({item.pid for item in self.query})


def as_images(items: Iterable[Item]) -> tuple[Sample, ...]:
    """Return images as they are, and every frame of tracklets as an image, in order."""
    images: list[Sample] = []
    for item in items:
        if isinstance(item, Tracklet):
            images.extend(item.frame(index) for index in range(len(item)))
        else:
            images.append(item)
    return tuple(images)


def without_images(items: Iterable[Item], bad: Iterable[Sample]) -> list[Item]:
    """Return the items without some images; tracklets lose those frames, and are left out once they have none."""
    paths = {sample.path for sample in bad}
    left: list[Item] = []
    for item in items:
        if isinstance(item, Tracklet) and paths:
            names = tuple(name for name in item.names if item.folder / name not in paths)
            left += [replace(item, names=names)] if names else []
        elif item.path not in paths:
            left.append(item)
    return left


def sorted_labels(labels: Iterable[Label]) -> list[Label]:
    """Return the different labels in order; integers before strings, which do not compare with them."""
    return sorted(set(labels), key=lambda label: (isinstance(label, str), label))
