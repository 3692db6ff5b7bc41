"""What a distance means: error rates of a threshold, and the probability that a match is right.

Everything is counted from a labelled query and gallery, block by block: histograms of the distances between the same
and between different people, for each query identity (so that the bootstrap can draw identities, not pairs: pairs of
one person are no independent witnesses), and the nearest gallery items of every query.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from reprism.data.records import JUNK, Item
from reprism.evaluation.distances import Matrix, as_matrix
from reprism.files import write_json

FMRS = (1e-2, 1e-3, 1e-4, 1e-5)
"""False match rates that a calibration tabulates."""

FALSE_ALARM_RATES = (0.01, 0.05, 0.1, 0.2)
"""False alarm rates of open-set search that it tabulates."""

_BINS = 4096
_CANDIDATES = 10  # nearest gallery items of a query whose rightness the probability is fitted to
_RELIABILITY_BINS = 10
_FEWEST_ERRORS = 30  # an error rate is known to about a third from 30 errors ("rule of 30", Doddington et al. 2000)
_BLOCK = 2**21  # distances at a time


class CalibrationError(ValueError):
    """A file holds no calibration; or pairs are too few for one."""


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold on the distance does, pair by pair.

    Attributes:
        wanted_fmr: The false match rate asked for.
        threshold: Pairs nearer than this count as the same person. The largest edge of a histogram's bin at which the
            false match rate does not exceed the one asked for.
        fmr: False match rate there: share of the pairs of different people that count as the same.
        tpr: True positive rate: share of the pairs of the same person that do.
        fmr_interval, tpr_interval: 95 % intervals (bootstrap over query identities), the threshold being given.
        reliable: Whether at least 30 false matches are behind ``fmr``.
    """

    wanted_fmr: float
    threshold: float
    fmr: float
    tpr: float
    fmr_interval: tuple[float, float]
    tpr_interval: tuple[float, float]
    reliable: bool


@dataclass(frozen=True)
class OpenSetPoint:
    """What a threshold on the distance of the best match does in a search of a gallery.

    Attributes:
        false_alarm_rate: Of queries whose person is not in the gallery, the share that get an answer.
        threshold: The distance that an answer must not exceed.
        identification_rate: Of queries whose person is, the share whose first answer is right and not held back
            (detection and identification rate at rank 1).
    """

    false_alarm_rate: float
    threshold: float
    identification_rate: float


@dataclass(frozen=True)
class Reliability:
    """A bin of the reliability diagram, on identities that the fit did not see.

    Attributes:
        predicted: Mean probability.
        observed: Share of right matches.
        count: Matches in the bin.
    """

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True)
class Calibration:
    """Error rates and probabilities of distances, for one model on data like those it was made from.

    Attributes:
        points: By false match rate, descending.
        open_set: By false alarm rate, ascending.
        slope, intercept: The probability that one of the ten nearest items is right is
            1 / (1 + exp(-(slope·distance + intercept))), slope negative.
        calibration_error: Mean gap of the reliability diagram (expected calibration error), weighted by counts.
        reliability: The diagram's bins.
        roc: ``threshold``, ``fmr`` and ``tpr``, equally long, ascending.
        distribution: ``edges`` (one more than the others), and the densities ``same`` and ``different``.
        counts: ``same_pairs``, ``different_pairs``, ``queries``, ``mated_queries``, ``gallery``, ``identities``.
        about: Whatever the maker adds: data, model, protocol.
    """

    points: tuple[OperatingPoint, ...]
    open_set: tuple[OpenSetPoint, ...]
    slope: float
    intercept: float
    calibration_error: float
    reliability: tuple[Reliability, ...]
    roc: dict[str, list[float]]
    distribution: dict[str, list[float]]
    counts: dict[str, int]
    about: dict[str, Any] = field(default_factory=dict)

    def probability(self, distance: float | np.ndarray) -> np.ndarray:
        """The probability that a match at this distance is right, 0 … 1.

        It holds for galleries like the one it was fitted to: a larger gallery has more people who look alike.
        """
        return 1 / (1 + np.exp(-(self.slope * np.asarray(distance, dtype=float) + self.intercept)))

    def threshold(self, fmr: float) -> float:
        """The largest tabulated threshold whose false match rate does not exceed ``fmr``.

        Raises:
            CalibrationError: the pairs of different people are too few to show so small a rate.
        """
        if fmr * self.counts["different_pairs"] < 1:
            raise CalibrationError(
                f"a false match rate of {fmr:g} cannot be told from none: only {self.counts['different_pairs']:,} "
                "pairs of different people were counted. Calibrate on more people, or ask for a higher rate."
            )
        return max(t for t, rate in zip(self.roc["threshold"], self.roc["fmr"], strict=True) if rate <= fmr)

    def write(self, path: str | PathLike[str]) -> None:
        """Write it as JSON, whole."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Calibration:
        """Read what :meth:`write` wrote.

        Raises:
            CalibrationError: the file is missing or holds something else.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            for point in values["points"]:
                point.update({key: tuple(point[key]) for key in ("fmr_interval", "tpr_interval")})
            values["points"] = tuple(OperatingPoint(**point) for point in values["points"])
            values["open_set"] = tuple(OpenSetPoint(**point) for point in values["open_set"])
            values["reliability"] = tuple(Reliability(**point) for point in values["reliability"])
            return cls(**values)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CalibrationError(f"{path} holds no calibration ({error}); make one by: reprism calibrate") from error


def calibrate(
    query: Matrix,
    gallery: Matrix,
    query_items: Sequence[Item],
    gallery_items: Sequence[Item],
    *,
    fmrs: Sequence[float] = FMRS,
    bootstrap: int = 500,
    seed: int = 0,
    about: dict[str, Any] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Calibration:
    """Calibrate distances on a labelled query and gallery.

    Pairs are all of a query with a gallery item of another camera; junk takes no part. In the open-set rates and in the
    fit of the probability, a query is ranked as in evaluation: only its own person's items by its own camera are left
    out. Working memory does not grow with the number of pairs.

    Args:
        query: N×D descriptors of ``query_items``.
        gallery: M×D descriptors of ``gallery_items``.
        query_items, gallery_items: in the descriptors' order.
        fmrs: the false match rates to tabulate.
        bootstrap: samples of the query identities, for the intervals.
        seed: of these samples, and of the half of the identities that the probability is checked on.
        about: kept with the result.
        progress: called with queries done and all of them.

    Raises:
        CalibrationError: no pair of the same person, or of different people, in different cameras; or fewer than four
            query identities.
        ValueError: a rate that is not between 0 and 1, or rows and items that do not agree.
    """
    if not fmrs or not all(0 < rate < 1 for rate in fmrs):
        raise ValueError(f"fmrs={list(fmrs)}: wanted are rates between 0 and 1")
    pairs = _count_pairs(as_matrix(query, "query"), as_matrix(gallery, "gallery"), query_items, gallery_items, progress)
    same, different = pairs.same.sum(0), pairs.different.sum(0)
    if not same.sum() or not different.sum():
        raise CalibrationError(
            f"{int(same.sum())} pairs of the same person and {int(different.sum())} of different people in different "
            "cameras: both are needed. Use a data set with several people in several cameras."
        )
    if len(pairs.same) < 4:
        raise CalibrationError(f"{len(pairs.same)} query identities are too few: some are fitted to, others checked on")
    # Edge e bounds the bins before it: rates are cumulative sums.
    edges = pairs.edges
    fmr, tpr = (np.concatenate([[0], np.cumsum(side) / side.sum()]) for side in (different, same))
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(pairs.same), np.full(len(pairs.same), 1 / len(pairs.same)), size=bootstrap)
    points = tuple(_operating_point(rate, edges, fmr, tpr, pairs, draws) for rate in sorted(fmrs, reverse=True))
    slope, intercept, reliability = _fit_probability(pairs, rng)
    gaps = [(abs(point.predicted - point.observed), point.count) for point in reliability]
    return Calibration(
        points=points,
        open_set=tuple(_open_set_point(rate, pairs) for rate in FALSE_ALARM_RATES),
        slope=slope,
        intercept=intercept,
        calibration_error=sum(gap * count for gap, count in gaps) / sum(count for _, count in gaps),
        reliability=reliability,
        roc=_thinned_roc(edges, fmr, tpr),
        distribution=_densities(edges, same, different),
        counts={
            "same_pairs": int(same.sum()),
            "different_pairs": int(different.sum()),
            "queries": len(query_items),
            "mated_queries": int(np.isfinite(pairs.nearest_same).sum()),
            "gallery": pairs.gallery_size,
            "identities": len(pairs.same),
        },
        about=dict(about or {}),
    )


# ---- counting --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pairs:
    """What one pass over all pairs leaves."""

    edges: np.ndarray  # bins + 1
    same: np.ndarray  # identities × bins
    different: np.ndarray  # identities × bins
    nearest_same: np.ndarray  # N, infinite without a mate
    nearest_different: np.ndarray  # N
    identity: np.ndarray  # N, 0 … identities-1
    candidates: np.ndarray  # N×k distances of the nearest items
    right: np.ndarray  # N×k: whether they are of the query's person
    gallery_size: int


def _count_pairs(
    query: Tensor,
    gallery: Tensor,
    query_items: Sequence[Item],
    gallery_items: Sequence[Item],
    progress: Callable[[int, int], object] | None,
) -> _Pairs:
    for name, rows, items in (("query", query, query_items), ("gallery", gallery, gallery_items)):
        if len(rows) != len(items):
            raise ValueError(f"{name} has {len(rows)} descriptors for {len(items)} items")
    wanted = [place for place, item in enumerate(gallery_items) if item.pid != JUNK]
    gallery = gallery[torch.tensor(wanted, dtype=torch.int64)].float().cpu()
    query = query.float().cpu()
    pids, camids = _codes([(item.pid, item.camid) for item in query_items],
                          [(gallery_items[place].pid, gallery_items[place].camid) for place in wanted])  # fmt: skip
    norms, own = gallery.square().sum(1), query.square().sum(1)
    if not bool(torch.isfinite(norms).all() and torch.isfinite(own).all()):
        raise ValueError("a descriptor holds NaN or infinite values, or is too long: every value must be finite")
    # No distance is longer than this.
    reach = float(norms.amax().sqrt() + own.amax().sqrt()) or 1.0
    identities = int(pids[0].max()) + 1
    sides = torch.zeros((2, identities, _BINS), dtype=torch.int64)
    k = min(_CANDIDATES, len(gallery))
    near = torch.empty((2, len(query)))
    candidates, right = torch.empty((len(query), k)), torch.empty((len(query), k), dtype=torch.bool)
    step = max(1, _BLOCK // max(1, len(gallery)))
    for start in range(0, len(query), step):
        some = slice(start, min(start + step, len(query)))
        distance = torch.addmm(norms, query[some], gallery.T, alpha=-2).add_(own[some, None]).clamp_(min=0).sqrt_()
        alike = pids[0][some, None] == pids[1]
        together = camids[0][some, None] == camids[1]
        bins = (distance * (_BINS / reach)).long().clamp_(max=_BINS - 1)
        bins += pids[0][some, None] * _BINS
        for place, chosen in enumerate((alike & ~together, ~alike & ~together)):
            sides[place] += torch.bincount(bins[chosen], minlength=identities * _BINS).view(identities, _BINS)
        nothing = torch.tensor(torch.inf)
        near[0, some] = torch.where(alike & ~together, distance, nothing).amin(1)
        near[1, some] = torch.where(alike, nothing, distance).amin(1)
        found = distance.masked_fill_(alike & together, torch.inf).topk(k, dim=1, largest=False)
        candidates[some], right[some] = found.values, alike.gather(1, found.indices)
        if progress is not None:
            progress(some.stop, len(query))
    return _Pairs(
        np.linspace(0, reach, _BINS + 1),
        sides[0].numpy(),
        sides[1].numpy(),
        near[0].numpy(),
        near[1].numpy(),
        pids[0].numpy(),
        candidates.numpy(),
        right.numpy(),
        len(gallery),
    )


def _codes(query: list[tuple[Any, Any]], gallery: list[tuple[Any, Any]]) -> tuple[list[Tensor], list[Tensor]]:
    """Identities and cameras of both sides as integers; an unknown camera is like no other, not even itself."""
    pid_code: dict[Any, int] = {}
    camid_code: dict[Any, int] = {}
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for unknown, items in ((-1, query), (-2, gallery)):
        sides[0].append(torch.tensor([pid_code.setdefault(pid, len(pid_code)) for pid, _ in items]))
        codes = [unknown if camid is None else camid_code.setdefault(camid, len(camid_code)) for _, camid in items]
        sides[1].append(torch.tensor(codes))
    return sides


# ---- from counts to rates --------------------------------------------------------------------------------


def _operating_point(
    wanted: float, edges: np.ndarray, fmr: np.ndarray, tpr: np.ndarray, pairs: _Pairs, draws: np.ndarray
) -> OperatingPoint:
    place = int(np.searchsorted(fmr, wanted, side="right")) - 1
    intervals = []
    for side in (pairs.different, pairs.same):
        accepted, total = side[:, :place].sum(1), side.sum(1)
        rates = (draws @ accepted) / np.maximum(draws @ total, 1)
        intervals.append(tuple(np.quantile(rates, (0.025, 0.975)).tolist()))
    return OperatingPoint(
        wanted_fmr=float(wanted),
        threshold=float(edges[place]),
        fmr=float(fmr[place]),
        tpr=float(tpr[place]),
        fmr_interval=intervals[0],
        tpr_interval=intervals[1],
        reliable=int(pairs.different[:, :place].sum()) >= _FEWEST_ERRORS,
    )


def _open_set_point(rate: float, pairs: _Pairs) -> OpenSetPoint:
    # Without its mates every query is one whose person is not in the gallery.
    alarms = np.sort(pairs.nearest_different)
    one_too_many = alarms[min(int(rate * len(alarms) + 1e-9), len(alarms) - 1)]
    # Midway to the last alarm that is allowed; just before the first one where none is.
    below = alarms[alarms < one_too_many]
    threshold = float((below[-1] + one_too_many) / 2) if len(below) else float(one_too_many) * (1 - 1e-5)
    mated = np.isfinite(pairs.nearest_same)
    first = pairs.nearest_same < pairs.nearest_different
    answered = pairs.nearest_same <= threshold
    return OpenSetPoint(
        false_alarm_rate=float((alarms <= threshold).mean()),
        threshold=threshold,
        identification_rate=float((first & answered)[mated].mean()),
    )


def _thinned_roc(edges: np.ndarray, fmr: np.ndarray, tpr: np.ndarray) -> dict[str, list[float]]:
    """The edges at which something changes by enough to be seen: some hundreds."""
    height = np.stack([np.round(np.log10(np.maximum(fmr, 1e-12)) * 50), np.round(tpr * 200)], axis=1)
    # The last edge of each run of equals: the largest threshold with these rates.
    last = np.flatnonzero(np.append((height[1:] != height[:-1]).any(1), True))
    return {"threshold": edges[last].tolist(), "fmr": fmr[last].tolist(), "tpr": tpr[last].tolist()}


def _densities(edges: np.ndarray, same: np.ndarray, different: np.ndarray, bins: int = 128) -> dict[str, list[float]]:
    coarse = edges[:: _BINS // bins]
    width = coarse[1] - coarse[0]
    densities = {
        name: (side.reshape(bins, -1).sum(1) / side.sum() / width).tolist()
        for name, side in (("same", same), ("different", different))
    }
    return {"edges": coarse.tolist(), **densities}


def _fit_probability(pairs: _Pairs, rng: np.random.Generator) -> tuple[float, float, tuple[Reliability, ...]]:
    """Logistic regression of rightness on distance (Platt 1999), fitted to all; checked on half of the identities."""
    identities = len(pairs.same)
    held = np.zeros(identities, dtype=bool)
    held[rng.permutation(identities)[: identities // 2]] = True
    checked = held[pairs.identity]
    known = np.isfinite(pairs.candidates)
    half = _logistic(*(values[~checked][known[~checked]] for values in (pairs.candidates, pairs.right)))
    distances, right = (values[checked][known[checked]] for values in (pairs.candidates, pairs.right))
    predicted = 1 / (1 + np.exp(-(half[0] * distances + half[1])))
    place = np.minimum((predicted * _RELIABILITY_BINS).astype(int), _RELIABILITY_BINS - 1)
    bins = tuple(
        Reliability(float(predicted[place == n].mean()), float(right[place == n].mean()), int((place == n).sum()))
        for n in range(_RELIABILITY_BINS)
        if (place == n).any()
    )
    return (*_logistic(pairs.candidates[known], pairs.right[known]), bins)


def _logistic(distances: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Slope and intercept; Platt's targets keep them finite where the two kinds do not overlap."""
    x, positive = distances.astype(float), int(right.sum())
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (len(x) - positive + 2))
    centre, spread = x.mean(), x.std() or 1.0
    z = (x - centre) / spread

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        logit = w[0] * z + w[1]
        gradient = 1 / (1 + np.exp(-logit)) - target
        value = np.logaddexp(0, logit) - target * logit
        return float(value.mean()), np.array([(gradient * z).mean(), gradient.mean()])

    slope, intercept = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    return float(slope / spread), float(intercept - slope * centre / spread)
