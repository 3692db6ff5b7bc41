"""Calibrate distances: error rates of a threshold, and the probability that a match is right.

Everything is counted from a labelled query and gallery, block by block: how far apart pairs of one person and of two
people are, and the nearest gallery items of every query.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from reprism.data.records import Item
from reprism.deprecation import renamed_arguments
from reprism.evaluation.calibration_checks import check_values, refuse_constant
from reprism.evaluation.distances import Matrix
from reprism.evaluation.fitted_on import FittedOn
from reprism.evaluation.intervals import different_people_interval, same_person_interval
from reprism.evaluation.pair_counts import BINS, Histograms, LabelledRows, PeopleCounts
from reprism.evaluation.part_scale import PartScale
from reprism.evaluation.probability import Logistic, Reliability, check_probability, fit_logistic
from reprism.files import write_json
from reprism.notation import Partition
from reprism.progress import Count

FMRS = (1e-2, 1e-3, 1e-4, 1e-5)
"""False match rates that a calibration tabulates."""

FALSE_ALARM_RATES = (0.01, 0.05, 0.1, 0.2)
"""False alarm rates of open-set search that it tabulates."""

_FEWEST_ERRORS = 30  # an error rate is known to about a third from 30 errors ("rule of 30", Doddington et al. 2000)


class CalibrationError(ValueError):
    """A file holds no calibration, it was fitted on other distances, or pairs are too few for one."""


@dataclass(frozen=True)
class OperatingPoint:
    """Error rates of a threshold on the distance, pair by pair.

    Attributes:
        wanted_fmr: The false match rate asked for.
        threshold: Pairs nearer than this count as the same person. The largest edge of a histogram's bin at which the
            false match rate does not exceed the one asked for.
        fmr: False match rate there: share of the pairs of different people that count as the same.
        tpr: True positive rate: share of the pairs of the same person that do.
        fmr_interval, tpr_interval: 95 % intervals for the rates that this threshold has among people like these
            (:mod:`reprism.evaluation.intervals`).
        reliable: True if at least 30 false matches are behind ``fmr``.
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
    """Error rates of a threshold on the distance of the best match in a gallery search.

    Attributes:
        false_alarm_rate: Share of answered queries among those whose person is not in the gallery.
        threshold: The distance that an answer must not exceed.
        identification_rate: Share of queries whose first answer is right and near enough, among those whose person is
            in the gallery (detection and identification rate at rank 1).
    """

    false_alarm_rate: float
    threshold: float
    identification_rate: float


@dataclass(frozen=True)
class Calibration:
    """Error rates and probabilities of distances, for one model on data like those it was made from.

    Attributes:
        points: Thresholds on pairs, sorted by false match rate, descending.
        open_set: Thresholds on a search's best match, sorted by false alarm rate, ascending.
        slope, intercept: The probability that one of the ten nearest items is right is
            1 / (1 + exp(-(slope·distance + intercept))); the slope is negative, or 0 where nearer is not likelier.
        calibration_error: Mean gap of the reliability diagram (expected calibration error), weighted by counts.
        reliability: The diagram's bins.
        roc: ``threshold``, ``fmr`` and ``tpr``, equally long, ascending.
        distribution: ``edges`` (one more than the others), and the densities ``same`` and ``different``.
        counts: ``same_pairs``, ``different_pairs``, ``queries``, ``mated_queries``, ``gallery``, ``identities``.
        about: Whatever the maker adds: data, protocol.
        fitted_on: The distances that it holds for; None if that is not known, and then :meth:`check` refuses it.
        parts: Distances of strangers and of pictures of one person in each part; None if no partition was given, or
            too few pairs.
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
    fitted_on: FittedOn | None = None
    parts: PartScale | None = None

    def check(self, used_on: FittedOn, remedy: str = "reprism calibrate MODEL --data NAME:DIR") -> None:
        """Refuse to be used on other distances than those that it was fitted on.

        Args:
            used_on: Kind of the distances at hand.
            remedy: The command that makes a calibration for them.

        Raises:
            CalibrationError: They are other distances, or it is not known which it was fitted on; names what differs.
        """
        if self.fitted_on is None:
            raise CalibrationError(
                "the calibration does not say what it was fitted on (it was made by an older version, or by "
                f"calibrate() without fitted_on), so it may not fit. Make it anew: {remedy}"
            )
        if differences := used_on.differences(self.fitted_on):
            raise CalibrationError(
                f"the calibration was fitted on other distances ({'; '.join(differences)}), so its probabilities and "
                f"thresholds do not hold. Make one for these: {remedy}"
            )

    def probability(self, distance: float | np.ndarray) -> np.ndarray:
        """Return the probability that a match at this distance is right, 0 … 1.

        It holds for galleries like the one it was fitted to: a larger gallery has more people who look alike.
        """
        return Logistic(self.slope, self.intercept)(distance)

    def threshold(self, fmr: float) -> float:
        """Return the largest tabulated threshold whose false match rate does not exceed ``fmr``.

        Raises:
            CalibrationError: The pairs of different people are too few to show so small a rate.
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
            CalibrationError: The file is missing or holds something else, such as a rate that is none; names it.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse_constant)
            for point in values["points"]:
                point.update({key: tuple(point[key]) for key in ("fmr_interval", "tpr_interval")})
            values["points"] = tuple(OperatingPoint(**point) for point in values["points"])
            values["open_set"] = tuple(OpenSetPoint(**point) for point in values["open_set"])
            values["reliability"] = tuple(Reliability(**point) for point in values["reliability"])
            if values.get("fitted_on") is not None:
                values["fitted_on"] = FittedOn.from_json(values["fitted_on"])
            if values.get("parts") is not None:
                values["parts"] = PartScale(**values["parts"])
            read = cls(**values)
            check_values(read)
            return read
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CalibrationError(f"{path} holds no calibration ({error}); make one by: reprism calibrate") from error


@renamed_arguments(runs="segments")
def calibrate(
    query: Matrix,
    gallery: Matrix,
    query_items: Sequence[Item],
    gallery_items: Sequence[Item],
    *,
    fitted_on: FittedOn | None = None,
    asking: Sequence[bool] | np.ndarray | None = None,
    fmrs: Sequence[float] = FMRS,
    seed: int = 0,
    about: dict[str, Any] | None = None,
    partition: Partition | None = None,
    segments: int = 1,
    progress: Count | None = None,
) -> Calibration:
    """Calibrate distances on a labelled query and gallery.

    Pairs are all of a query with a gallery item of another camera; junk takes no part, and a distractor is nobody's
    match. In the open-set rates and in the fit of the probability, a query is ranked as in evaluation: only its own
    person's items by its own camera are left out. Working memory does not grow with the number of pairs. All pairs are
    gone through twice: to find the thresholds, and to see who is in the pairs nearer than these.

    Args:
        query: N×D descriptors of ``query_items``.
        gallery: M×D descriptors of ``gallery_items``.
        query_items, gallery_items: In the descriptors' order.
        fitted_on: Kind of the descriptors. Without it the calibration cannot be used with a gallery or a model.
        asking: M booleans: which gallery rows are among the queries too. Two of them are one pair, not two.
        fmrs: The false match rates to tabulate.
        seed: Random seed that chooses the half of the identities on which the probability is checked.
        about: Kept with the result.
        partition: The network's partition, to calibrate its parts too; None if columns belong to no part (compressed).
        segments: Number of segments' descriptors side by side in a row; read with ``partition``.
        progress: Called with the queries done and all of them, each counted once in either pass.

    Raises:
        CalibrationError: No pair of the same person, or of different people, in different cameras; or fewer than four
            query identities.
        ValueError: A rate that is not between 0 and 1, or rows and items that do not agree.
    """
    if not fmrs or not all(0 < rate < 1 for rate in fmrs):
        raise ValueError(f"expected rates between 0 and 1, got fmrs={list(fmrs)}")
    rows = LabelledRows(query, gallery, query_items, gallery_items, asking)
    first, second = _passes(progress)
    found = rows.histograms(first)
    same_pairs, different_pairs = round(found.same.sum()), round(found.different.sum())
    if not same_pairs or not different_pairs:
        raise CalibrationError(
            f"{same_pairs} pairs of the same person and {different_pairs} of different people in different "
            "cameras: both are needed. Use a data set with several people in several cameras."
        )
    if rows.query_people < 4:
        raise CalibrationError(f"{rows.query_people} query identities are too few: some are fitted to, others checked")
    # Edge e bounds the bins before it: rates are cumulative sums.
    fmr, tpr = (np.concatenate([[0], np.cumsum(side) / side.sum()]) for side in (found.different, found.same))
    rates = sorted(fmrs, reverse=True)
    bins = [int(np.searchsorted(fmr, rate, side="right")) - 1 for rate in rates]
    curve = fit_logistic(found.candidates, found.right)
    reliability = check_probability(
        found.candidates, found.right, rows.query_person.numpy(), np.random.default_rng(seed)
    )
    gaps = [(abs(point.predicted - point.observed), point.count) for point in reliability]
    return Calibration(
        points=tuple(
            _operating_point(rate, float(rows.edges[index]), rows, counts, found)
            for rate, index, counts in zip(rates, bins, rows.by_people(bins, second), strict=True)
        ),
        open_set=tuple(_open_set_point(rate, found) for rate in FALSE_ALARM_RATES),
        slope=curve.slope,
        intercept=curve.intercept,
        calibration_error=sum(gap * count for gap, count in gaps) / sum(count for _, count in gaps),
        reliability=reliability,
        roc=_thinned_roc(rows.edges, fmr, tpr),
        distribution=_densities(rows.edges, found.same, found.different),
        counts={
            "same_pairs": same_pairs,
            "different_pairs": different_pairs,
            "queries": len(rows.query),
            "mated_queries": int(np.isfinite(found.nearest_same).sum()),
            "gallery": len(rows.gallery),
            "identities": rows.query_people,
        },
        about=dict(about or {}),
        fitted_on=fitted_on,
        parts=None
        if partition is None
        else PartScale.fit(query, gallery, query_items, gallery_items, partition, segments, seed),
    )


def _passes(progress: Count | None) -> tuple[Count | None, Count | None]:
    """Return the callbacks of the first half of the work and of the second."""
    if progress is None:
        return None, None
    return (
        lambda done, total: progress(done, 2 * total),
        lambda done, total: progress(total + done, 2 * total),
    )


def _operating_point(
    wanted: float, threshold: float, rows: LabelledRows, counts: PeopleCounts, all_pairs: Histograms
) -> OperatingPoint:
    false_matches, true_matches = float(counts.different.sum()), float(counts.same.sum())
    return OperatingPoint(
        wanted_fmr=float(wanted),
        threshold=threshold,
        fmr=false_matches / float(all_pairs.different.sum()),
        tpr=true_matches / float(all_pairs.same.sum()),
        fmr_interval=different_people_interval(rows, counts),
        tpr_interval=same_person_interval(rows, counts),
        reliable=false_matches >= _FEWEST_ERRORS,
    )


def _open_set_point(rate: float, pairs: Histograms) -> OpenSetPoint:
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
    """Return the few hundred edges at which something changes visibly."""
    height = np.stack([np.round(np.log10(np.maximum(fmr, 1e-12)) * 50), np.round(tpr * 200)], axis=1)
    # The last edge of each run of equals: the largest threshold with these rates.
    last = np.flatnonzero(np.append((height[1:] != height[:-1]).any(1), True))
    return {"threshold": edges[last].tolist(), "fmr": fmr[last].tolist(), "tpr": tpr[last].tolist()}


def _densities(edges: np.ndarray, same: np.ndarray, different: np.ndarray, bins: int = 128) -> dict[str, list[float]]:
    coarse = edges[:: BINS // bins]
    width = coarse[1] - coarse[0]
    densities = {
        name: (side.reshape(bins, -1).sum(1) / side.sum() / width).tolist()
        for name, side in (("same", same), ("different", different))
    }
    return {"edges": coarse.tolist(), **densities}
