"""Data sets as the command line names them: NAME:DIR, or NAME,OPTION=VALUE,…:DIR."""

from typing import Any

from reprism.data import LOADERS, Progress, ReIDDataset, open_dataset
from reprism.imports import is_import_path, trust


def named_data(text: str) -> tuple[str, str, dict[str, str]]:
    """Return name, folder and options of NAME,OPTION=VALUE,…:DIR; NAME may be package.module:load.

    Raises:
        ValueError: the text is not of that form.
    """
    before, separator, root = text.partition(":")
    name, *pairs = before.split(",")
    function, colon, folder = root.partition(":")
    if name not in LOADERS and colon and is_import_path(f"{name}:{function.partition(',')[0]}"):
        # A loader of the user's own, typed by them: package.module:load:DIR.
        function, *pairs = function.split(",")
        name, root = f"{name}:{function}", folder
        trust(name.partition(":")[0])
    options = dict(pair.partition("=")[::2] for pair in pairs)
    if not (name and separator and root and all(options) and all(options.values())):
        raise ValueError(
            f"--data {text!r}: wanted is NAME:DIR, such as market1501:/data/Market-1501, or with options "
            "NAME,OPTION=VALUE:DIR, such as cuhk03,boxes=detected:/data/cuhk03"
        )
    return name, root, options


def open_named(text: str, progress: Progress, *, split_by_identity: float | None = None, seed: int = 0) -> ReIDDataset:
    """Open the data set that ``text`` names; one without a split is divided by identity, if a share is given.

    Raises:
        ValueError: it is not named so, no such data set is known, or it has no such option.
        DataError: the folder does not hold the data set.
    """
    name, root, options = named_data(text)
    division: dict[str, Any] = {}
    if split_by_identity is not None:
        division = {"split_by_identity": split_by_identity, "seed": seed}
    return open_dataset(name, root, progress=progress, **(division | options))
