"""What a re-identification data set is, once read: images with an identity and a camera, in three parts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


class DataError(ValueError):
    """The data on disk cannot be used as they are. The message names the input, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of one person.

    Attributes:
        path: The image file.
        pid: The identity, an integer or a string as the data set has it. In Market-1501 and its kin 0 stands
            for distractors (people of no query, and false detections), which occur in the gallery only.
        camid: The camera, or None where cameras are not known. A gallery item that shares both identity and
            camera with a query is ignored for that query.
    """

    path: Path
    pid: int | str
    camid: int | str | None


@dataclass(frozen=True)
class ReIDDataset:
    """A data set in its three parts; training identities do not occur in the other two.

    Attributes:
        name: The name it was opened by, such as ``market1501``.
        root: The folder that was read.
        train: The images to learn from.
        query: The images that are looked for.
        gallery: The images that are searched, distractors included, junk excluded.
    """

    name: str
    root: Path
    train: tuple[Sample, ...]
    query: tuple[Sample, ...]
    gallery: tuple[Sample, ...]

    @cached_property
    def train_labels(self) -> dict[int | str, int]:
        """Training identity -> class 0 … N-1, in sorted order: the same on every machine and in every run."""
        return {pid: label for label, pid in enumerate(_sorted_identities(self.train))}

    @cached_property
    def train_targets(self) -> tuple[int, ...]:
        """The class 0 … N-1 of each image of ``train``, in its order."""
        return tuple(self.train_labels[sample.pid] for sample in self.train)

    @property
    def num_train_identities(self) -> int:
        """Identities in ``train``: the classes a network is trained on."""
        return len(self.train_labels)

    @property
    def num_query_identities(self) -> int:
        """Identities in ``query``."""
        return len(_sorted_identities(self.query))


def _sorted_identities(samples: tuple[Sample, ...]) -> list[int | str]:
    # Integers and strings do not compare with each other; integers first.
    return sorted({sample.pid for sample in samples}, key=lambda pid: (isinstance(pid, str), pid))
