"""Data sets as the command line names them: NAME:DIR, or NAME,OPTION=VALUE,…:DIR."""

from typing import Any

from reprism.data import LOADERS, Progress, ReIDDataset, open_dataset
from reprism.data.joint import named_data
from reprism.imports import is_import_path, trust


def open_named(text: str, progress: Progress, *, split_by_identity: float | None = None, seed: int = 0) -> ReIDDataset:
    """Open the data set that ``text`` names; one without a split is divided by identity, if a share is given.

    Raises:
        ValueError: It is not named so, no such data set is known, or it has no such option.
        DataError: The folder does not hold the data set.
    """
    name, root, options = named_data(text, LOADERS)
    trust(*([name.partition(":")[0]] if is_import_path(name) else []))  # the user typed it
    division: dict[str, Any] = {}
    if split_by_identity is not None:
        division = {"split_by_identity": split_by_identity, "seed": seed}
    return open_dataset(name, root, progress=progress, **(division | options))
