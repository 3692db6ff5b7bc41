"""Write the boxes of every tracklet in MOT-challenge's form, to compare them with a truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from reprism.cameras.boxes import Boxes
from reprism.cameras.records import Frame
from reprism.cameras.tracks import UNTRACKED
from reprism.files import whole_file

Seen: TypeAlias = Callable[[Frame, Boxes, np.ndarray], object]
"""Called with each frame, the boxes in it and the number of each box's track."""


def files_in(folder: str | PathLike[str], names: Sequence[str]) -> list[Path]:
    """Return a text file in a folder for each name.

    Raises:
        ValueError: Two names are the same, or one cannot be a file's.
    """
    for name in names:
        if names.count(name) > 1 or name != Path(name).name:
            raise ValueError(f"boxes: two sources are called {name}, or it is no file's name: rename one of them")
    return [Path(folder) / f"{name}.txt" for name in names]


@contextmanager
def written_boxes(path: Path) -> Iterator[Seen]:
    """Write the boxes that the function it gives is called with; the file appears whole at the end.

    Frames, numbers and pixels count from 1, as in MOT-challenge; boxes of no track are left out.

    Args:
        path: Text file to write, whose folder is made if absent. An existing one is replaced.
    """
    with whole_file(path) as file:

        def write(frame: Frame, boxes: Boxes, numbers: np.ndarray) -> None:
            for row in np.flatnonzero(numbers != UNTRACKED):
                left, top, right, bottom = boxes.xyxy[row].tolist()
                line = (
                    f"{frame.index + 1},{numbers[row] + 1},{left + 1:.2f},{top + 1:.2f},{right - left:.2f},"
                    f"{bottom - top:.2f},{boxes.scores[row]:.4f},-1,-1,-1\n"
                )
                file.write(line.encode())

        yield write


class Span(NamedTuple):
    """The boxes of a tracklet among those of its track.

    Attributes:
        number: Number of the track, as the tracker has it.
        first, last: Index of the first frame, and of the last one.
    """

    number: int
    first: int
    last: int


def renumber_boxes(path: Path, joined: Sequence[Sequence[Span]]) -> None:
    """Give the tracklets that were joined one number in a file of :func:`written_boxes`; it is replaced whole.

    Args:
        path: The file.
        joined: Tracklets that are one; each one's boxes get a number that was not in the file.
    """
    spans: dict[int, list[tuple[Span, int]]] = {}
    for order, together in enumerate(joined, start=1):
        for span in together:
            spans.setdefault(span.number, []).append((span, order))
    with path.open() as boxes:
        most = max((int(line.split(",", 2)[1]) for line in boxes), default=0)
    with path.open() as boxes, whole_file(path) as file:
        for line in boxes:
            frame, number, rest = line.split(",", 2)
            index = int(frame) - 1
            of = [order for span, order in spans.get(int(number) - 1, ()) if span.first <= index <= span.last]
            file.write(f"{frame},{most + of[0] if of else number},{rest}".encode())
