"""What is known of who is who beside looks and times: identities, and a person's answers about pairs of sightings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from reprism.data.records import DISTRACTOR, JUNK, Item
from reprism.linking.clustering import check_pairs, pair_graph
from reprism.linking.matches import Bonus


@dataclass(frozen=True)
class Basis:
    """How the matches were found that a network of cameras was learned from.

    Attributes:
        identities: Whether they are of one identity each; otherwise by looks and times.
        together, apart: Number of pairs that somebody said to be of one person, and of two.
    """

    identities: bool = False
    together: int = 0
    apart: int = 0

    def __post_init__(self) -> None:
        if type(self.identities) is not bool or not (_is_count(self.together) and _is_count(self.apart)):
            raise ValueError(f"expected whether identities were used and two numbers of pairs, got {self}")

    def describe(self) -> str:
        """Return it in words, "" if nothing but looks and times was used."""
        words = ["by identities"] if self.identities else []
        if self.together or self.apart:
            words.append(f"with answers about {self.together + self.apart:,} pairs ({self.apart:,} of two people)")
        return " ".join(words)


@dataclass(frozen=True, eq=False)
class Answers:
    """What is known of sightings, by their indices.

    Attributes:
        people: N int64: number of each sighting's person, -1 where unknown; None: nobody looks at identities.
        together: K×2: pairs of one person.
        apart: M×2: pairs of two people, those included that follow from others.
        basis: What it was made from.
    """

    people: np.ndarray | None
    together: np.ndarray
    apart: np.ndarray
    basis: Basis

    @classmethod
    def of(
        cls,
        items: Sequence[Item],
        *,
        use_identities: bool = False,
        together: np.ndarray | None = None,
        apart: np.ndarray | None = None,
    ) -> Answers:
        """Collect what is known of sightings.

        Args:
            items: N images or tracklets. With ``use_identities``, junk and distractors are of unknown people.
            use_identities: Whether to look at their identities.
            together: K×2 indices of sightings of one person.
            apart: L×2 indices of sightings of two people. Whoever is together with the one is then apart from whoever
                is together with the other.

        Raises:
            ValueError: They are no pairs of indices, or sightings are to be both together and apart.
        """
        ties, bars = check_pairs(len(items), together, "together"), check_pairs(len(items), apart, "apart")
        groups = connected_components(pair_graph(len(items), ties), directed=False)[1]
        if len(same := np.flatnonzero(groups[bars[:, 0]] == groups[bars[:, 1]])):
            one, other = bars[same[0]]
            raise ValueError(f"sightings {one} and {other} are said to be of one person and of two")
        order = np.argsort(groups, kind="stable")
        members = np.split(order, np.cumsum(np.bincount(groups, minlength=1))[:-1])
        apart_groups = np.unique(np.sort(groups[bars], axis=1), axis=0)
        implied = [_product(members[one], members[other]) for one, other in apart_groups.tolist()]
        return cls(
            _numbers(items) if use_identities else None,
            ties,
            np.concatenate([np.zeros((0, 2), np.int64), *implied]),
            Basis(use_identities, len(ties), len(bars)),
        )

    def of_rows(self, rows: np.ndarray) -> Answers:
        """Return what is known of some sightings, by their indices among ``rows``."""
        return Answers(
            None if self.people is None else self.people[rows],
            _among(rows, self.together),
            _among(rows, self.apart),
            self.basis,
        )

    def bonus(self, evidence: Bonus | None) -> Bonus | None:
        """Return evidence that lets no pair match that is known to be of two people, or not known to be of one."""
        if self.people is None and not len(self.apart):
            return evidence

        def ruled(some: np.ndarray, others: np.ndarray) -> np.ndarray:
            out = np.zeros((len(some), len(others)), np.float32) if evidence is None else evidence(some, others)
            if self.people is not None:
                people, theirs = self.people[some], self.people[others]
                out = np.where((people[:, None] == theirs) & (theirs >= 0), out, -np.inf)
            for one, other in ((0, 1), (1, 0)):
                rows, columns = _positions(some, self.apart[:, one]), _positions(others, self.apart[:, other])
                both = (rows >= 0) & (columns >= 0)
                out[rows[both], columns[both]] = -np.inf
            return out

        return ruled

    def joined(self, pairs: np.ndarray, cameras: np.ndarray) -> np.ndarray:
        """Return matches and the pairs of two cameras that are together, each once, the lesser camera first."""
        ties = self.together[cameras[self.together[:, 0]] != cameras[self.together[:, 1]]]
        if not len(ties):
            return pairs
        turned = cameras[ties[:, 0]] > cameras[ties[:, 1]]
        return np.unique(np.concatenate([pairs, np.where(turned[:, None], ties[:, ::-1], ties)]), axis=0)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _numbers(items: Sequence[Item]) -> np.ndarray:
    """Return the number of each item's identity; -1 for junk and distractors. 7 and "7" are two identities."""
    number = {pid: at for at, pid in enumerate(dict.fromkeys(item.pid for item in items))}
    return np.array([-1 if item.pid in (JUNK, DISTRACTOR) else number[item.pid] for item in items], np.int64)


def _product(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.stack([np.repeat(some, len(others)), np.tile(others, len(some))], axis=1)


def _positions(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return where each value is among ascending rows, -1 where it is not."""
    if not len(rows):
        return np.full(len(values), -1)
    at = np.minimum(np.searchsorted(rows, values), len(rows) - 1)
    return np.where(rows[at] == values, at, -1)


def _among(rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the pairs of which both are among ascending rows, by their places there."""
    found = np.stack([_positions(rows, pairs[:, 0]), _positions(rows, pairs[:, 1])], axis=1)
    return found[(found >= 0).all(axis=1)]
