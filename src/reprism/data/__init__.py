"""Data sets, images, sampling and augmentation. Nothing here imports torch until images are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from os import PathLike
from typing import Any

from reprism.data import cuhk03, dukemtmc, market1501, mars, own
from reprism.data.records import DataError, ReIDDataset, Sample, Tracklet
from reprism.imports import import_object, is_import_path
from reprism.progress import Progress
from reprism.terminal import did_you_mean

__all__ = ["LOADERS", "DataError", "ReIDDataset", "Sample", "Tracklet", "open_dataset"]

LOADERS: dict[str, Callable[..., ReIDDataset]] = {
    "market1501": market1501.load,
    "dukemtmc": dukemtmc.load,
    "cuhk03": cuhk03.load,
    "mars": mars.load,
    "csv": own.load_table,
    "folder": own.load_folder,
}


def open_dataset(
    name: str, root: str | PathLike[str], *, progress: Progress | None = None, **options: Any
) -> ReIDDataset:
    """Open a data set that lies on disk.

    Args:
        name: Name of the data set, a key of ``LOADERS``; or ``package.module:load``, a loader of your own, whose module
            :func:`reprism.trust` knows. It is called with the folder and the options.
        root: Folder of the data set; for ``csv``, the table.
        progress: Called by loaders that have long work to do (the first opening of ``cuhk-03.mat``).
        **options: Options of the data set's loader; numbers may be given as text.

    Raises:
        ValueError: No data set of this name is known, it has no such option, or its loader is not trusted.
        DataError: The folder does not hold the data set.
    """
    if name not in LOADERS and not is_import_path(name):
        hint = did_you_mean(name, LOADERS)
        raise ValueError(f"Unknown data set {name!r}.{hint} Known: {', '.join(sorted(LOADERS))}.")
    loader = LOADERS[name] if name in LOADERS else import_object(name, "the data set")
    parameters = list(inspect.signature(loader).parameters)[1:]
    known = [parameter for parameter in parameters if parameter != "progress"]
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(
            f"The data set {name!r} has no option {', '.join(unknown)}. Its options: {', '.join(known) or 'none'}."
        )
    if "progress" in parameters:
        options["progress"] = progress
    dataset = loader(root, **options)
    if not isinstance(dataset, ReIDDataset):
        raise ValueError(f"expected a ReIDDataset from {name}, got {type(dataset).__name__}")
    return dataset
