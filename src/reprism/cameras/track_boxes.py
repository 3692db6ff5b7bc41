"""Write the boxes of every tracklet in MOT-challenge's form, to compare them with a truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TypeAlias

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
