"""Which groups of sightings are worth a question: two people who might be one, and one who might be two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_LEAST_DOUBT = 0.05


class Question(NamedTuple):
    """Two groups of sightings of which somebody may say whether they are one person.

    Attributes:
        one, other: Indices of the sightings of either, in order, but first the two that are likeliest of one person.
        probability: That both groups are one person, 0 … 1.
        doubt: Probability that they are not as they are now: one, or two.
    """

    one: np.ndarray
    other: np.ndarray
    probability: float
    doubt: float


def questions_about(
    labels: np.ndarray,
    halves: np.ndarray,
    pairs: np.ndarray,
    probabilities: np.ndarray,
    *,
    least: float,
    apart: np.ndarray | None = None,
) -> list[Question]:
    """Return what is doubtful about people, the greatest doubts first.

    Two groups become one person from a mean probability of all their pairs of ``least`` on. How likely they are one
    follows from that mean ``m`` as ``m² / (m² + least² / 2)``: of two groups at that bound it is two thirds. (On
    photographs, docs/explanation/benchmarks.md.)

    Args:
        labels, halves: N: each sighting's person and half (:func:`reprism.linking.clustering.cluster_in_halves`).
        pairs, probabilities: M×2 likely pairs, and their probabilities; others count as 0.
        least: Least mean probability between groups that became one.
        apart: L×2 sightings that are known to be of two people: of these nothing is asked.
    """
    first, second = labels[pairs[:, 0]], labels[pairs[:, 1]]
    between = first != second
    across = ~between & (halves[pairs[:, 0]] != halves[pairs[:, 1]])
    # Each person's second half is a group of its own number, so that both kinds of questions are counted alike.
    group = np.where(halves, labels + len(labels), labels)
    found = [
        *_asked(labels, pairs[between], probabilities[between], least, False, _barred(labels, apart)),
        *_asked(group, pairs[across], probabilities[across], least, True, set()),
    ]
    return sorted(found, key=lambda question: (-question.doubt, question.one[0], question.other[0]))


def _asked(
    group: np.ndarray,
    pairs: np.ndarray,
    probabilities: np.ndarray,
    least: float,
    joined: bool,
    barred: set[tuple[int, int]],
) -> Iterator[Question]:
    if not len(pairs):
        return
    order = np.argsort(group, kind="stable")
    numbers, starts = np.unique(group[order], return_index=True)
    members = dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))
    ends = group[pairs]
    turned = ends[:, 0] > ends[:, 1]
    ends, pairs = np.where(turned[:, None], ends[:, ::-1], ends), np.where(turned[:, None], pairs[:, ::-1], pairs)
    # By groups, then the likeliest pair of each two first.
    order = np.lexsort((-probabilities, ends[:, 1], ends[:, 0]))
    ends, pairs, probabilities = ends[order], pairs[order], probabilities[order]
    starts = np.flatnonzero(np.concatenate([[True], (ends[1:] != ends[:-1]).any(axis=1)]))
    for start, total in zip(starts.tolist(), np.add.reduceat(probabilities, starts).tolist(), strict=True):
        one, other = (members[number] for number in ends[start].tolist())
        mean = total / (len(one) * len(other))
        probability = mean**2 / (mean**2 + least**2 / 2)
        doubt = 1 - probability if joined else probability
        if doubt < _LEAST_DOUBT or tuple(ends[start].tolist()) in barred:
            continue
        likeliest = pairs[start]
        yield Question(_led(one, likeliest[0]), _led(other, likeliest[1]), probability, doubt)


def _led(members: np.ndarray, by: int) -> np.ndarray:
    return np.concatenate([[by], members[members != by]])


def _barred(labels: np.ndarray, apart: np.ndarray | None) -> set[tuple[int, int]]:
    if apart is None or not len(apart):
        return set()
    return {(int(one), int(other)) for one, other in np.sort(labels[apart], axis=1)}
