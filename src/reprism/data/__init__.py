"""Data sets, images, sampling and augmentation. Nothing here imports torch until images are read."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from os import PathLike
from typing import Any

from reprism.data import market1501
from reprism.data.records import DataError, ReIDDataset, Sample

__all__ = ["LOADERS", "DataError", "ReIDDataset", "Sample", "open_dataset"]

LOADERS: dict[str, Callable[..., ReIDDataset]] = {
    "market1501": market1501.load,
}


def open_dataset(name: str, root: str | PathLike[str], **options: Any) -> ReIDDataset:
    """Open a data set that lies on disk.

    Args:
        name: Which data set: a key of ``LOADERS``.
        root: Its folder.
        **options: What the data set's own loader takes beside the folder.

    Raises:
        ValueError: No data set of this name is known.
        TypeError: The data set has no such option.
        DataError: The folder does not hold the data set.
    """
    if name not in LOADERS:
        close = difflib.get_close_matches(name.lower(), LOADERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown data set {name!r}.{hint} Known: {', '.join(sorted(LOADERS))}.")
    loader = LOADERS[name]
    known = list(inspect.signature(loader).parameters)[1:]
    if unknown := sorted(options.keys() - set(known)):
        raise TypeError(
            f"The data set {name!r} has no option {', '.join(unknown)}. Its options: {', '.join(known) or 'none'}."
        )
    return loader(root, **options)
