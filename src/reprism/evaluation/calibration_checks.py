"""Check a calibration that was read from a file: a wrong one would make wrong matches look certain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reprism.evaluation.part_scale import PartScale

_COUNTS = ("same_pairs", "different_pairs", "queries", "mated_queries", "gallery", "identities")
_POINT_RATES = ("wanted_fmr", "fmr", "tpr")


def refuse_constant(name: str) -> float:
    """Refuse NaN and infinities, which JSON has not and Python's reader takes (its ``parse_constant``)."""
    raise ValueError(f"it holds {name}, which is no number")


def check_values(calibration: Any) -> None:
    """Refuse values that no calibration has.

    Args:
        calibration: A :class:`reprism.Calibration`, whose module imports this one.

    Raises:
        ValueError: One is of another kind, out of its range or out of order; names it.
    """
    slope = _number(calibration.slope, "slope")
    if slope > 0:
        raise ValueError(f"its slope is {slope:g}, by which pictures farther apart were likelier to be of one person")
    _number(calibration.intercept, "intercept")
    _rate(calibration.calibration_error, "calibration_error")
    for index, point in enumerate(calibration.points):
        name = f"points[{index}]"
        _distance(point.threshold, f"{name}.threshold")
        for field in _POINT_RATES:
            _rate(getattr(point, field), f"{name}.{field}")
        for field in ("fmr_interval", "tpr_interval"):
            low, high = (_rate(each, f"{name}.{field}") for each in getattr(point, field))
            if low > high:
                raise ValueError(f"{name}.{field} ends before it begins")
        if not isinstance(point.reliable, bool):
            raise ValueError(f"{name}.reliable is {point.reliable!r}; it must be true or false")
    for index, answer in enumerate(calibration.open_set):
        name = f"open_set[{index}]"
        _distance(answer.threshold, f"{name}.threshold")
        _rate(answer.false_alarm_rate, f"{name}.false_alarm_rate")
        _rate(answer.identification_rate, f"{name}.identification_rate")
    for index, shown in enumerate(calibration.reliability):
        name = f"reliability[{index}]"
        _rate(shown.predicted, f"{name}.predicted")
        _rate(shown.observed, f"{name}.observed")
        _count(shown.count, f"{name}.count")
    _in_order([-point.wanted_fmr for point in calibration.points], "wanted_fmr of points")
    _in_order([-point.threshold for point in calibration.points], "thresholds of points")
    _in_order([answer.false_alarm_rate for answer in calibration.open_set], "false_alarm_rate of open_set")
    thresholds, fmr, tpr = _columns(calibration.roc, "roc", ("threshold", "fmr", "tpr"))
    if not len(thresholds) == len(fmr) == len(tpr) > 0:
        raise ValueError("the columns of its roc are empty, or not equally long")
    for values, name in ((thresholds, "threshold"), (fmr, "fmr"), (tpr, "tpr")):
        for value in values:
            (_distance if name == "threshold" else _rate)(value, f"roc.{name}")
        _in_order(values, f"{name} of roc")
    edges, same, different = _columns(calibration.distribution, "distribution", ("edges", "same", "different"))
    if not len(edges) - 1 == len(same) == len(different):
        raise ValueError("the columns of its distribution do not fit its edges")
    for value in (*edges, *same, *different):
        _distance(value, "distribution")
    _in_order(edges, "edges of distribution")
    if not isinstance(calibration.counts, dict) or set(calibration.counts) != set(_COUNTS):
        raise ValueError(f"its counts must be {', '.join(_COUNTS)}")
    for name, count in calibration.counts.items():
        _count(count, f"counts.{name}")
    if not isinstance(calibration.about, dict):
        raise ValueError("about must be an object")
    if calibration.parts is not None:
        _check_parts(calibration.parts)


def _check_parts(scale: PartScale) -> None:
    _count(scale.stranger_pairs, "parts.stranger_pairs")
    _count(scale.same_pairs, "parts.same_pairs")
    for name, quantiles in (("strangers", scale.strangers), ("same_person", scale.same_person)):
        if quantiles is None and name == "same_person":
            continue
        if not isinstance(quantiles, dict) or not quantiles:
            raise ValueError(f"parts.{name} must have a list for each part")
        for part, values in quantiles.items():
            if not isinstance(values, list) or len(values) != len(next(iter(scale.strangers.values()))):
                raise ValueError(f"parts.{name}.{part} must be a list, as long as those of the other parts")
            for value in values:
                _distance(value, f"parts.{name}.{part}")
            _in_order(values, f"quantiles of parts.{name}.{part}")


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; it must be a finite number")
    return float(value)


def _distance(value: Any, name: str) -> float:
    if _number(value, name) < 0:
        raise ValueError(f"{name} is {value:g}; it must be 0 or more")
    return float(value)


def _rate(value: Any, name: str) -> float:
    if not 0 <= _number(value, name) <= 1:
        raise ValueError(f"{name} is {value:g}; it lies in 0 … 1")
    return float(value)


def _count(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, 0 or more")


def _columns(values: Any, name: str, columns: Sequence[str]) -> list[list[Any]]:
    if not isinstance(values, dict) or set(values) != set(columns):
        raise ValueError(f"its {name} must be {', '.join(columns)}")
    if not all(isinstance(values[column], list) for column in columns):
        raise ValueError(f"the columns of its {name} must be lists")
    return [values[column] for column in columns]


def _in_order(values: Sequence[float], name: str) -> None:
    if any(later < earlier for earlier, later in pairwise(values)):
        raise ValueError(f"the {name} are out of order")
