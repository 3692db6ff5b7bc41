"""Draw a calibration: distances, error rates, reliability."""

from __future__ import annotations

import io
from os import PathLike

from reprism.evaluation.calibration import Calibration
from reprism.files import write_whole


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
    reliability.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    reliability.plot(
        [point.predicted for point in calibration.reliability],
        [point.observed for point in calibration.reliability],
        "o-", markersize=4,
    )  # fmt: skip
    reliability.set(
        xlabel="probability", ylabel="share of right matches", xlim=(0, 1), ylim=(0, 1),
        title=f"On people not fitted to; mean gap {calibration.calibration_error:.3f}",
    )  # fmt: skip
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    if isinstance(target, io.BytesIO):
        target.write(picture.getvalue())
    else:
        write_whole(target, picture.getvalue())
