"""Several data sets to train on at once, and data sets as text names them: NAME:DIR."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace

from reprism.data.records import DataError, Item, ReIDDataset
from reprism.imports import is_import_path


def named_data(text: str, known: Iterable[str]) -> tuple[str, str, dict[str, str]]:
    """Return name, folder and options of NAME,OPTION=VALUE,…:DIR; NAME is a known one or package.module:load.

    Raises:
        ValueError: The text is not of that form.
    """
    before, separator, root = text.partition(":")
    name, *pairs = before.split(",")
    function, colon, folder = root.partition(":")
    if name not in known and colon and is_import_path(f"{name}:{function.partition(',')[0]}"):
        function, *pairs = function.split(",")
        name, root = f"{name}:{function}", folder
    options = dict(pair.partition("=")[::2] for pair in pairs)
    if not (name and separator and root and all(options) and all(options.values())):
        raise ValueError(
            f"expected NAME:DIR, such as market1501:/data/Market-1501, or with options NAME,OPTION=VALUE:DIR, such as "
            f"cuhk03,boxes=detected:/data/cuhk03; got {text!r}"
        )
    return name, root, options


def join_training(dataset: ReIDDataset, others: Iterable[ReIDDataset]) -> ReIDDataset:
    """Return a data set to train on several and evaluate on the first.

    Identities are kept apart: the other data sets' are called ``NAME/IDENTITY``, of a second data set of the same name
    ``NAME-2/IDENTITY``. So are recordings, whose clocks differ.

    Args:
        dataset: The first; query, gallery and all else are its own.
        others: Further ones, of which the train splits are added in their order.

    Raises:
        DataError: One of the others has nothing to train on, or an identity of the first is called so already.
    """
    train: list[Item] = list(dataset.train)
    taken = {item.pid for item in train}
    names: list[str] = []
    for other in others:
        names.append(other.name)
        name = other.name if names.count(other.name) == 1 else f"{other.name}-{names.count(other.name)}"
        if not other.train:
            raise DataError(f"{other.name} in {other.root} has no train split to add")
        added = [
            replace(item, pid=f"{name}/{item.pid}", recording=_recording(name, item.time, item.recording))
            for item in other.train
        ]
        if shared := taken & {item.pid for item in added}:
            raise DataError(f"{dataset.name} has an identity called {min(map(str, shared))!r} already")
        train += added
    return replace(dataset, train=tuple(train))


def _recording(name: str, time: float | None, recording: str | None) -> str | None:
    """Return a recording's name that no other data set has: their clocks are not comparable."""
    if time is None and recording is None:
        return None
    return sys.intern(name if recording is None else f"{name}/{recording}")
