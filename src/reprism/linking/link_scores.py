"""Score linking on labelled sightings: people found with and without times, and whether probabilities hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from reprism.data.records import DISTRACTOR, JUNK, Item
from reprism.evaluation.clusters import ClusterScores, LinkedPairs, pairs_by_camera, score_clusters
from reprism.evaluation.items import evaluate_items
from reprism.evaluation.probability import Reliability
from reprism.linking.odds import PairOdds, Times, pairs_in_blocks
from reprism.linking.people import Likely, check_sightings, learn_odds, likely_pairs, people_of, times_of
from reprism.linking.transit import CameraNetwork
from reprism.progress import Count, Progress, step

_BINS = 10


class Ranks(NamedTuple):
    """How sightings of known people rank those of other cameras.

    Attributes:
        queries: Sightings of people whom the cameras that were searched saw too.
        rank1: Share of them whose first hit is of their person.
        mAP: Mean average precision.
    """

    queries: int
    rank1: float
    mAP: float  # noqa: N815 - the field's own name


@dataclass(frozen=True)
class CameraPairScores:
    """Scores of linking between two cameras, over sightings of known people.

    Attributes:
        pairs: Pairs of a sighting by each.
        predicted: Mean probability that a pair is of one person; the share of those that are is ``with_times.same``
            over ``pairs``.
        with_times, by_looks: Pairs that were linked, and those of one person.
        ranks_with_times, ranks_by_looks: Either camera's sightings search the other's; None where nobody is in both.
    """

    pairs: int
    predicted: float
    with_times: LinkedPairs
    by_looks: LinkedPairs
    ranks_with_times: Ranks | None
    ranks_by_looks: Ranks | None

    @property
    def observed(self) -> float:
        """True share of the pairs that are of one person."""
        return self.with_times.same / self.pairs


@dataclass(frozen=True, eq=False)
class LinkScores:
    """Scores of linking.

    Attributes:
        with_times: People found by appearance and transit times.
        by_looks: People found by appearance alone, with the same odds.
        ranks_with_times, ranks_by_looks: Every sighting of a known person searches all others; None if nobody is in
            two cameras.
        odds: The odds of pairs, learned without labels.
        true_share: True share of pairs of two cameras that are of one person, beside ``odds.prior``.
        reliability: Bins of the joint probability: what it says, beside the share of pairs that are of one person.
        camera_pairs: By two cameras, in order.
        least: Least mean probability between two groups that become one.
    """

    with_times: ClusterScores
    by_looks: ClusterScores
    ranks_with_times: Ranks | None
    ranks_by_looks: Ranks | None
    odds: PairOdds
    true_share: float
    reliability: tuple[Reliability, ...]
    camera_pairs: Mapping[tuple[str, str], CameraPairScores]
    least: float

    @property
    def calibration_error(self) -> float:
        """Mean gap between probability and truth over the bins from 0.1 on, weighted by pairs; 0 without such pairs.

        Nearly all pairs are of two people and said to be: with these, any model's mean gap is about 0.
        """
        likely = [each for each in self.reliability if each.predicted >= 1 / _BINS]
        pairs = sum(each.count for each in likely)
        return sum(abs(each.predicted - each.observed) * each.count for each in likely) / pairs if pairs else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, rates as fractions."""
        return {
            "with_times": _scores(self.with_times) | _ranks(self.ranks_with_times),
            "by_looks": _scores(self.by_looks) | _ranks(self.ranks_by_looks),
            "share_of_matches": self.odds.prior,
            "true_share_of_matches": self.true_share,
            "calibration_error": self.calibration_error,
            "reliability": [asdict(each) for each in self.reliability],
            "camera_pairs": [
                {
                    "cameras": list(cameras),
                    "pairs": each.pairs,
                    "of_one_person": each.with_times.same,
                    "predicted_share": each.predicted,
                    "true_share": each.observed,
                    "with_times": _linked(each.with_times) | _ranks(each.ranks_with_times),
                    "by_looks": _linked(each.by_looks) | _ranks(each.ranks_by_looks),
                }
                for cameras, each in self.camera_pairs.items()
            ],
            "least": self.least,
        }


def evaluate_links(
    descriptors: np.ndarray,
    items: Sequence[Item],
    network: CameraNetwork,
    *,
    least: float = 0.2,
    progress: Progress | None = None,
) -> LinkScores:
    """Find people with and without times, and compare them with the identities.

    Args:
        descriptors, items, network, least, progress: As of :func:`reprism.linking.people.find_people`. Junk and
            distractors take part as any sighting does, and have no score.

    Raises:
        ValueError: No item has an identity; and what ``find_people`` raises.
    """
    known = np.array([item.pid not in (JUNK, DISTRACTOR) for item in items], bool)
    if not known.any():
        raise ValueError("expected sightings of known people to compare with, got none")
    check_sightings(descriptors, items, least)
    times = times_of(network, items)
    odds = learn_odds(descriptors, items, times, progress=progress)
    compared = _compare(descriptors, items, times, odds, known, step(progress, "comparing sightings"))
    pids = [item.pid for item, is_known in zip(items, known, strict=True) if is_known]
    camids = [str(item.camid) for item, is_known in zip(items, known, strict=True) if is_known]
    people, linked = [], []
    for found in (compared.with_times, compared.by_looks):
        labels = people_of(len(items), found, odds, least=least).labels[known]
        people.append(score_clusters(labels, pids))
        linked.append(pairs_by_camera(labels, pids, camids))
    with_times, by_looks = (
        _rank(descriptors, items, known, evidence, step(progress, f"ranking {how}"))
        for evidence, how in ((network, "by looks and times"), (None, "by looks"))
    )
    pairs, matches, said = compared.bins
    bins = pairs > 0
    return LinkScores(
        with_times=people[0],
        by_looks=people[1],
        ranks_with_times=with_times.get(None),
        ranks_by_looks=by_looks.get(None),
        odds=odds,
        true_share=float(matches.sum() / pairs.sum()) if pairs.sum() else 0.0,
        reliability=tuple(
            Reliability(float(total / count), float(right / count), int(count))
            for total, right, count in zip(said[bins], matches[bins], pairs[bins], strict=True)
        ),
        camera_pairs={
            cameras: CameraPairScores(
                pairs=count,
                predicted=total / count,
                with_times=linked[0][cameras],
                by_looks=linked[1][cameras],
                ranks_with_times=with_times.get(cameras),
                ranks_by_looks=by_looks.get(cameras),
            )
            for cameras, (count, total) in compared.by_cameras.items()
        },
        least=least,
    )


class _Compared(NamedTuple):
    """All pairs, compared once.

    Attributes:
        with_times, by_looks: Likely pairs of each block.
        bins: For each tenth of the probability the number of pairs of known people by two cameras, of those of one
            person, and the sum of their probabilities.
        by_cameras: By two cameras the number of such pairs, and the sum of their probabilities.
    """

    with_times: list[Likely]
    by_looks: list[Likely]
    bins: np.ndarray
    by_cameras: dict[tuple[str, str], tuple[int, float]]


def _compare(
    descriptors: np.ndarray,
    items: Sequence[Item],
    times: Times,
    odds: PairOdds,
    known: np.ndarray,
    progress: Count | None,
) -> _Compared:
    names, cameras = np.unique([str(item.camid) for item in items], return_inverse=True)
    people = np.unique([str(item.pid) for item in items], return_inverse=True)[1]
    bins, between = np.zeros((3, _BINS)), np.zeros((2, len(names) ** 2))
    with_times, by_looks = list[Likely](), list[Likely]()
    for some, others, distances, said in pairs_in_blocks(descriptors, times, progress):
        probability = odds.probability(distances, said)
        with_times.append(likely_pairs(some, others, probability))
        by_looks.append(likely_pairs(some, others, odds.probability(distances)))
        counted = (some[:, None] < others) & (cameras[some][:, None] != cameras[others])
        counted &= known[some][:, None] & known[others]
        likely = probability[counted]
        right = (people[some][:, None] == people[others])[counted]
        tenths = np.minimum((likely * _BINS).astype(int), _BINS - 1)
        for row, weights in enumerate((None, right, likely)):
            bins[row] += np.bincount(tenths, weights, minlength=_BINS)
        pair = (cameras[some][:, None] * len(names) + cameras[others])[counted]
        for row, weights in enumerate((None, likely)):
            between[row] += np.bincount(pair, weights, minlength=between.shape[1])
    # Which of two cameras comes first is by chance: both ways are added.
    counts, sums = (way + way.T for way in between.reshape(2, len(names), len(names)))
    by_cameras = {
        (str(names[one]), str(names[other])): (int(counts[one, other]), float(sums[one, other]))
        for one, other in zip(*np.nonzero(np.triu(counts)), strict=True)
    }
    return _Compared(with_times, by_looks, bins, by_cameras)


def _rank(
    descriptors: np.ndarray,
    items: Sequence[Item],
    known: np.ndarray,
    network: CameraNetwork | None,
    progress: Count | None,
) -> dict[tuple[str, str] | None, Ranks]:
    """Rank all sightings for those of known people, and those of every two cameras for each other.

    Returns:
        By the two cameras, in order, where somebody is in both; and with the key None over all.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, item in enumerate(items):
        if item.camid is not None and item.pid != JUNK:
            rows[str(item.camid)].append(row)
    asked = {camera: [row for row in some if known[row]] for camera, some in rows.items()}
    ways: list[tuple[tuple[str, str] | None, list[int], list[int]]] = [
        ((min(one, other), max(one, other)), asked[one], rows[other]) for one in rows for other in rows if one != other
    ]
    ways.append((None, list(chain.from_iterable(asked.values())), list(chain.from_iterable(rows.values()))))
    found: dict[tuple[str, str] | None, list[Ranks]] = defaultdict(list)
    for done, (cameras, query, gallery) in enumerate(ways, start=1):
        some, others = [items[row] for row in query], [items[row] for row in gallery]
        seen: dict[Any, set[str]] = defaultdict(set)
        for item in others:
            seen[item.pid].add(str(item.camid))
        if any(seen[item.pid] - {str(item.camid)} for item in some):
            ranked = evaluate_items(descriptors[query], descriptors[gallery], some, others, evidence=network)
            found[cameras].append(Ranks(ranked.num_valid_queries, ranked.rank(1), ranked.mAP))
        if progress is not None:
            progress(done, len(ways))
    return {cameras: _together(each) for cameras, each in found.items()}


def _together(ranks: Sequence[Ranks]) -> Ranks:
    """Return the means over the queries of several."""
    queries = sum(each.queries for each in ranks)
    rank1, mean = (sum(each.queries * each[at] for each in ranks) / queries for at in (1, 2))
    return Ranks(queries, rank1, mean)


def _scores(found: ClusterScores) -> dict[str, Any]:
    return asdict(found) | {"f1": found.f1, "pair_f1": found.pair_f1}


def _ranks(found: Ranks | None) -> dict[str, Any]:
    return {} if found is None else {"queries": found.queries, "rank1": found.rank1, "mAP": found.mAP}


def _linked(found: LinkedPairs) -> dict[str, Any]:
    return {"linked": found.linked, "right": found.right, "precision": found.precision, "recall": found.recall}
