"""Draw a calibration, distances, error rates, reliability; and the reliability of links."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

from reprism.evaluation.calibration import Calibration
from reprism.evaluation.probability import Reliability
from reprism.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from reprism.linking.link_scores import LinkScores


def draw_calibration(calibration: Calibration, target: str | PathLike[str] | io.BytesIO) -> None:
    """Write a PNG of three panels, to a file or into a buffer.

    The left panel shows the distances of pairs of the same and of different people, with the tabulated thresholds. The
    middle one shows the true positive rate over the false match rate, with 95 % intervals at the tabulated rates. The
    right one shows the share of right matches over their predicted probability.
    """
    # Not pyplot: a figure of its own needs no display and leaves no global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    spread, roc, reliability = figure.subplots(1, 3)
    shown = calibration.distribution
    spread.stairs(shown["same"], shown["edges"], fill=True, alpha=0.5, label="same person")
    spread.stairs(shown["different"], shown["edges"], fill=True, alpha=0.5, label="different people")
    for number, point in enumerate(calibration.points):
        style = "-" if point.reliable else ":"
        spread.axvline(point.threshold, color="0.3", linewidth=0.8, linestyle=style)
        spread.annotate(
            # One below the other: thresholds may be close.
            f"{point.wanted_fmr:g}", (point.threshold, 1 - 0.12 * number), xycoords=("data", "axes fraction"),
            rotation=90, fontsize=7, ha="right", va="top",
        )  # fmt: skip
    spread.set(xlabel="distance", ylabel="density", title="Pairs; lines: thresholds by false match rate")
    figure.legend(loc="outside lower left", ncols=2, fontsize=8, frameon=False)
    rates = [(f, t) for f, t in zip(calibration.roc["fmr"], calibration.roc["tpr"], strict=True) if f > 0]
    roc.semilogx([f for f, _ in rates], [t for _, t in rates])
    known = [point for point in calibration.points if point.fmr > 0]
    roc.errorbar(
        [point.fmr for point in known],
        [point.tpr for point in known],
        yerr=[
            [max(0.0, point.tpr - point.tpr_interval[0]) for point in known],
            [max(0.0, point.tpr_interval[1] - point.tpr) for point in known],
        ],
        fmt="o", markersize=4, capsize=3, color="0.2",
    )  # fmt: skip
    roc.set(
        xlabel="false match rate", ylabel="true positive rate", ylim=(0, 1), title="Same person or not, pair by pair"
    )
    roc.grid(True, alpha=0.3)
    _draw_reliability(reliability, calibration.reliability)
    reliability.set(
        xlabel="probability", ylabel="share of right matches",
        title=f"On people not fitted to; mean gap {calibration.calibration_error:.3f}",
    )  # fmt: skip
    _write(figure, target)


def draw_links(scores: LinkScores, target: str | PathLike[str] | io.BytesIO) -> None:
    """Write a PNG of two panels about the probability that two sightings are of one person.

    The left panel shows the share of pairs that are of one person over their predicted probability. The right one has
    a point for every two cameras: the share of their pairs that are of one person, over the mean probability.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    reliability, cameras = figure.subplots(1, 2)
    _draw_reliability(reliability, scores.reliability)
    reliability.set(
        xlabel="probability by looks and times", ylabel="share of pairs of one person",
        title=f"Pairs of two cameras; mean gap {scores.calibration_error:.3f}",
    )  # fmt: skip
    shares = [(100 * each.predicted, 100 * each.observed) for each in scores.camera_pairs.values()]
    most = 1.1 * max((value for share in shares for value in share), default=1.0) or 1.0
    cameras.plot([0, most], [0, most], color="0.7", linewidth=1)
    cameras.plot([share for share, _ in shares], [share for _, share in shares], "o", markersize=4)
    for names, share in zip(scores.camera_pairs, shares, strict=True):
        # A dollar would begin a formula.
        name = "–".join(names).replace("$", r"\$")
        cameras.annotate(name, share, fontsize=7, xytext=(4, 3), textcoords="offset points")
    cameras.set(
        xlabel="percent by the model", ylabel="percent in truth", xlim=(0, most), ylim=(0, most),
        title="Matches among the pairs of every two cameras",
    )  # fmt: skip
    _write(figure, target)


def _draw_reliability(axes: Axes, bins: Sequence[Reliability]) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    axes.plot([point.predicted for point in bins], [point.observed for point in bins], "o-", markersize=4)
    axes.set(xlim=(0, 1), ylim=(0, 1))


def _write(figure: Figure, target: str | PathLike[str] | io.BytesIO) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    if isinstance(target, io.BytesIO):
        target.write(picture.getvalue())
    else:
        write_whole(target, picture.getvalue())
