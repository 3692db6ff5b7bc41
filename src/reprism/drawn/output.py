"""Shared by the drawn data sets: identities, files, and how they are written."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from reprism.drawn.shots import Camera, generator
from reprism.files import write_json
from reprism.progress import Count

DRAWN_MARK = "drawn-people.json"
"""Name of the file that says that a data set's people are drawn."""


def mark_drawn(folder: Path, seed: int) -> None:
    """Leave word in a data set's root that its people are drawn: published counts do not apply to it."""
    write_json(folder / DRAWN_MARK, {"people": "drawn by reprism data render", "seed": seed})


def part_of(is_train: bool, index: int) -> str:
    """Return the folder of an identity's image in a camera; the first image of a test identity is the query."""
    if is_train:
        return "bounding_box_train"
    return "query" if index == 0 else "bounding_box_test"


def split_pids(seed: int, train: int, test: int) -> tuple[set[int], set[int]]:
    """Numbers from 1 to 9999 for the identities of both parts, mixed and with gaps."""
    if train + test > 9999:
        raise ValueError(
            f"train_identities + test_identities must be at most 9999 (names have four digits), "
            f"but they are {train} + {test}"
        )
    among = min(9999, train + test + (train + test) // 4 + 1)
    pids = (1 + generator(seed, "split").permutation(among)[: train + test]).tolist()
    return set(pids[:train]), set(pids[train:])


def check_range(low: int, high: int | None, **arguments: int) -> None:
    """Refuse arguments outside low … high by name."""
    for name, value in arguments.items():
        if value < low or (high is not None and value > high):
            raise ValueError(
                f"{name} must be {f'{low} or more' if high is None else f'{low} to {high}'}, but is {value}"
            )


def counter(total: int, progress: Count | None) -> Callable[[], None]:
    """Return a function to call after every image."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return count


def save_jpeg(image: np.ndarray, path: Path, place: Camera) -> None:
    """Write an image as well or badly as its camera does."""
    Image.fromarray(image).save(path, format="JPEG", quality=place.jpeg_quality)


def save_mat(path: Path, tables: Mapping[str, np.ndarray]) -> None:
    """Write variables as MATLAB v5 does; an array of Python strings becomes a cell array."""
    buffer = io.BytesIO()
    savemat(buffer, dict(tables))
    # The header's 116 bytes of text carry the time of writing: the same seed is to give the same bytes.
    text = b"MATLAB 5.0 MAT-file, written by reprism".ljust(116)
    path.write_bytes(text + buffer.getvalue()[116:])
