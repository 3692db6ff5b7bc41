"""Identities that look like two people, and pairs of identities that look like one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import average, to_tree
from scipy.spatial.distance import squareform

from reprism.cleaning.labels import NEAREST
from reprism.progress import Count

MOST = 200
"""Pictures of an identity that are compared, taken evenly; more would tell little more."""

_LEAST, _LEAST_SHARE = 3, 0.1  # pictures, and of an identity, that are a person of its own; fewer are wrong pictures
_PRETENDED = 400  # identities made wrong on purpose, about
_BLOCK = 512  # identities compared with all others at a time


class TwoPeople(NamedTuple):
    """P identities, each cut in two.

    Attributes:
        alike: P: mean cosine similarity between the pictures of both groups; NaN where one cannot be cut.
        groups: For each the two groups, indices of pictures, the larger first; None where it cannot be cut.
        wrong: Such similarities of two identities put under one name.
    """

    alike: np.ndarray
    groups: list[tuple[np.ndarray, np.ndarray] | None]
    wrong: np.ndarray


class TwoNames(NamedTuple):
    """Each identity and its nearest one, each pair once.

    Attributes:
        pairs: M×2 identities.
        apart: M: the lower, the more they look like one person: less than 0 where they are nearer than others are.
        wrong: The same of one identity cut in two.
    """

    pairs: np.ndarray
    apart: np.ndarray
    wrong: np.ndarray


def find_two_people(
    rows: np.ndarray, members: Sequence[np.ndarray], *, rng: np.random.Generator, progress: Count | None = None
) -> TwoPeople:
    """Cut each identity into the two groups that are least alike (average linkage).

    Each has three pictures and a tenth of the identity's, or more.

    Args:
        rows: N×D descriptors, rows of length 1.
        members: Indices of the pictures of each identity.
        rng: Draws the identities that are put together.
        progress: Called with the identities done and all of them.
    """
    alike = np.full(len(members), np.nan)
    groups: list[tuple[np.ndarray, np.ndarray] | None] = []
    for number, pictures in enumerate(members):
        found = _cut(rows, pictures)
        groups.append(None if found is None else found[:2])
        if found is not None:
            alike[number] = found[2]
        if progress is not None:
            progress(number + 1, len(members))
    wrong = []
    cut = [pictures for pictures in members if len(pictures) > 1]
    for _ in range(_PRETENDED if len(cut) > 1 else 0):
        one, other = rng.choice(len(cut), 2, replace=False)
        found = _cut(rows, np.concatenate([evenly(cut[one], MOST // 2), evenly(cut[other], MOST // 2)]))
        wrong += [] if found is None else [found[2]]
    return TwoPeople(alike, groups, np.array(wrong))


def _cut(rows: np.ndarray, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray, float] | None:
    some = evenly(pictures, MOST)
    if len(some) < 2 * _LEAST:
        return None
    similar = rows[some] @ rows[some].T
    far = np.clip(1 - similar.astype(float), 0, None)
    np.fill_diagonal(far, 0)
    node = to_tree(average(squareform((far + far.T) / 2, checks=False)))
    least = max(_LEAST, round(_LEAST_SHARE * len(some)))
    # What parts from the rest as less than a person's pictures is passed over: it may be a wrong picture.
    while not node.is_leaf() and min(node.left.count, node.right.count) < least:
        node = node.left if node.left.count > node.right.count else node.right
    if node.is_leaf():
        return None
    halves = sorted((np.array(half.pre_order()) for half in (node.left, node.right)), key=len, reverse=True)
    mean = float(similar[np.ix_(halves[0], halves[1])].mean())
    # Those that were passed over, or not taken, go where they are nearer.
    centers = np.stack([rows[some[half]].mean(axis=0) for half in halves])
    second = np.argmax(rows[pictures] @ centers.T, axis=1) == 1
    for half, is_second in zip(halves, (False, True), strict=True):
        second[np.isin(pictures, some[half])] = is_second
    one, other = pictures[~second], pictures[second]
    return (one, other, mean) if len(one) >= len(other) else (other, one, mean)


def find_two_names(
    rows: np.ndarray,
    members: Sequence[np.ndarray],
    cameras: np.ndarray,
    *,
    rng: np.random.Generator,
    progress: Count | None = None,
) -> TwoNames:
    """Compare each identity with the one that is nearest to it, by their mean descriptors.

    Two names of one person are nearer to each other than either is to any third, and their pictures interleave: those
    of the other name are as near as those of the own. The statistic is the sum of what is missing of both.

    Args:
        rows: N×D descriptors, rows of length 1.
        members: Indices of the pictures of each identity, none empty.
        cameras: N numbers of cameras, by which half of the identities are cut; the others are cut at random.
        rng: Draws the cuts.
        progress: Called with the identities done and all of them.
    """
    if len(members) < 3:
        return TwoNames(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0))
    centers = np.stack([rows[pictures].mean(axis=0) for pictures in members])
    nearest, alike = _three_nearest(centers, centers, np.arange(len(members)), progress)
    pairs = np.unique(np.sort(np.stack([np.arange(len(members)), nearest[:, 0]], axis=1), axis=1), axis=0)
    apart = []
    for one, other in pairs.tolist():
        third = max(_of_third(nearest[one], alike[one], other), _of_third(nearest[other], alike[other], one))
        between = float(centers[one] @ centers[other])
        apart.append(third - between - _interleaved(rows, members[one], members[other]))
    halves = _halves(members, cameras, rng)
    wrong = []
    if halves:
        whose = np.array([number for number, *_ in halves])
        means = [np.stack([rows[pair[side]].mean(axis=0) for pair in halves]) for side in (1, 2)]
        third = np.maximum(*(_three_nearest(mean, centers, whose)[1][:, 0] for mean in means))
        between_halves = (means[0] * means[1]).sum(axis=1)
        mixed = np.array([_interleaved(rows, one, other) for _, one, other in halves])
        wrong = list(third - between_halves - mixed)
    return TwoNames(pairs, np.array(apart), np.array(wrong))


def _three_nearest(
    means: np.ndarray, centers: np.ndarray, own: np.ndarray, progress: Count | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the three nearest identities of each mean without its own (fewer if there are), and their similarities."""
    count = min(3, len(centers) - 1)
    nearest, alike = np.empty((len(means), count), np.int64), np.empty((len(means), count))
    for start in range(0, len(means), _BLOCK):
        some = slice(start, min(start + _BLOCK, len(means)))
        block = means[some] @ centers.T
        block[np.arange(len(block)), own[some]] = -np.inf
        nearest[some] = np.argsort(-block, axis=1, kind="stable")[:, :count]
        alike[some] = np.take_along_axis(block, nearest[some], axis=1)
        if progress is not None:
            progress(some.stop, len(means))
    return nearest, alike


def _of_third(nearest: np.ndarray, alike: np.ndarray, other: int) -> float:
    """Return the similarity to the nearest identity that is not ``other``."""
    return float(alike[1] if nearest[0] == other else alike[0])


def _interleaved(rows: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
    """Return by how much less near the other's pictures are than one's own, below 0, for the side where it is most."""
    one, other = evenly(one, MOST), evenly(other, MOST)
    between = rows[one] @ rows[other].T
    found = []
    for pictures, across in ((one, between), (other, between.T)):
        if len(pictures) < 2:
            continue  # has no others of its own
        within = rows[pictures] @ rows[pictures].T
        np.fill_diagonal(within, -np.inf)
        own = np.sort(within, axis=1)[:, -min(NEAREST, len(pictures) - 1) :].mean()
        found.append(float(np.sort(across, axis=1)[:, -NEAREST:].mean() - own))
    return min(found, default=0.0)


def _halves(
    members: Sequence[np.ndarray], cameras: np.ndarray, rng: np.random.Generator
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Cut identities in two, some more than once where there are few: by camera, and at random, in turns."""
    halves = []
    turns = max(2, -(-_PRETENDED // len(members)))
    for turn in range(turns):
        for number, pictures in enumerate(members):
            if len(pictures) < 4:
                continue
            seen = np.unique(cameras[pictures])
            if (turn + number) % 2 and len(seen) > 1:
                first = np.isin(cameras[pictures], rng.permutation(seen)[: len(seen) // 2])
            else:
                first = np.zeros(len(pictures), bool)
                first[rng.permutation(len(pictures))[: len(pictures) // 2]] = True
            if min(first.sum(), (~first).sum()) > 1:
                halves.append((number, pictures[first], pictures[~first]))
    return halves


def evenly(pictures: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many pictures, taken evenly from all."""
    if len(pictures) <= most:
        return pictures
    return pictures[np.linspace(0, len(pictures) - 1, most).round().astype(int)]
