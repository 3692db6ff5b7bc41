"""Divide people: some to learn from, others to test with, so that every query keeps a match."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from reprism.data.records import DataError, Item, Label, ReIDDataset, sorted_labels

T = TypeVar("T")


def hold_out(dataset: ReIDDataset, share: float, seed: int = 0) -> tuple[ReIDDataset, ReIDDataset]:
    """Set aside some of a data set's *training* identities to choose an epoch or settings by.

    The test set takes no part: what is chosen by the people set aside says nothing of it.

    Args:
        dataset: The data set to train on.
        share: Share of the training identities to set aside, between 0 and 1; at least two are.
        seed: Random seed of the choice.

    Returns:
        The data set with the other training identities only; and one of the identities set aside, whose ``query`` has
        one item of each camera that can spare one, and whose ``gallery`` has the rest.

    Raises:
        DataError: There are too few identities, or none set aside has an item that another can find.
    """
    identities = sorted_labels(item.pid for item in dataset.train)
    count = max(2, round(share * len(identities)))
    if count >= len(identities):
        raise DataError(
            f"expected more than {count} training identities in {dataset.root} to set {count} aside, got "
            f"{len(identities)}: give a smaller share, or train without"
        )
    rng = np.random.default_rng(seed)
    chosen = {identities[row] for row in rng.permutation(len(identities))[:count]}
    items: dict[Label, dict[Label | None, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in dataset.train:
        if item.pid in chosen:
            items[item.pid][item.camid].append(item)
    query: list[Item] = []
    gallery: list[Item] = []
    for pid in sorted_labels(items):
        asked, rest = queries_of(items[pid], rng)
        query += asked
        gallery += rest
    if not query:
        raise DataError(
            f"none of the {count} training identities set aside in {dataset.root} has two images of different cameras "
            "to find each other by: give a larger share, or train without"
        )
    left = tuple(item for item in dataset.train if item.pid not in chosen)
    held = replace(
        dataset,
        train=(),
        query=tuple(query),
        gallery=tuple(gallery),
        protocol=f"{count} training identities set aside",
        single_shot_trials=0,
        multi_query=(),
    )
    return replace(dataset, train=left), held


def queries_of(items: Mapping[Any, Sequence[T]], rng: np.random.Generator) -> tuple[list[T], list[T]]:
    """Divide one person's items into queries, at most one from each camera, and the rest, in which each has a match.

    A match is an item of another camera or, where cameras are unknown (None), any other item.

    Args:
        items: The person's items by camera.
        rng: Chooses the queries.

    Returns:
        The queries and the rest, both by camera.
    """
    giving = _cameras_that_give_a_query(items, rng)
    queries: list[T] = []
    rest: list[T] = []
    for camera, some in sorted(items.items(), key=lambda pair: str(pair[0])):
        asked = int(rng.integers(len(some))) if camera in giving else -1
        for index, item in enumerate(some):
            (queries if index == asked else rest).append(item)
    return queries, rest


def _cameras_that_give_a_query(items: Mapping[Any, Sequence[Any]], rng: np.random.Generator) -> set[Any]:
    several = [camera for camera, some in items.items() if len(some) > 1]
    if None in items:
        return set(several)
    if len(items) < 2:
        return set()
    if len(several) >= 2:
        return set(items)
    # One camera keeps all it has, for the others to find.
    cameras = sorted(items, key=str)
    keeper = several[0] if several else cameras[int(rng.integers(len(cameras)))]
    return set(items) - {keeper}
