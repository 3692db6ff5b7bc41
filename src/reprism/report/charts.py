"""Draw the charts of reports: data in, a matplotlib figure out."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Colors that keep their contrast on a light page and on a dark one: a chart cannot know on which it is shown.
GRAY = "#7b8490"
COLORS = ("#3b82f6", "#e2711d", "#2a9d6f", "#a855c7", "#c9a227")


def read_log(run: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Return what a training run logged, by name: (step, value) pairs in the order of the steps.

    Args:
        run: Run folder; the logs of all its sittings, ``csv/version_*/metrics.csv``, are read. Where a resumed run
            repeated steps, the later sitting counts.
    """
    sittings = sorted(Path(run).glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name.split("_")[1]))
    curves: dict[str, dict[int, float]] = {}
    for sitting in sittings:
        with sitting.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, text in row.items():
                    if name != "step" and text:
                        curves.setdefault(name, {})[int(row["step"])] = float(text)
    return {name: sorted(curve.items()) for name, curve in curves.items()}


def loss_figure(log: Mapping[str, Sequence[tuple[int, float]]]) -> Figure:
    """Draw the losses of a run over its steps, each smoothed; ``log`` is what :func:`read_log` gives."""
    titles = {"loss/cross_entropy": "cross-entropy", "loss/triplet": "batch-hard triplet"}
    # A loss of somebody's own has terms of its own; the total comes first.
    logged = sorted((name for name in log if name.startswith("loss/")), key=lambda name: name != "loss/total")
    names = {name: titles.get(name, name.removeprefix("loss/").replace("_", " ")) for name in logged}
    figure, axes = chart("step", "loss")
    for (name, label), color in zip(names.items(), COLORS, strict=False):
        curve = [(step, value) for step, value in log.get(name, ()) if math.isfinite(value)]
        if curve:
            steps, values = zip(*curve, strict=True)
            axes.plot(steps, values, color=color, alpha=0.25, linewidth=1)
            axes.plot(steps, _smoothed(values), color=color, label=label)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    _legend(figure)
    return figure


def cmc_figure(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Draw cumulative matching characteristics, by name: the k-th value is the fraction found by rank k."""
    figure, axes = chart("rank k", "queries with a match among the first k")
    for (name, curve), color in zip(curves.items(), COLORS, strict=False):
        axes.plot(range(1, len(curve) + 1), curve, color=color, label=name, marker="o", markersize=3)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return figure


def evaluations_figure(evaluations: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw mAP and rank-1 over epochs; ``metrics.json`` of a run lists them under ``evaluations``."""
    set_aside = any(each.get("of") == "validation" for each in evaluations)
    figure, axes = chart("epoch", "on training people set aside" if set_aside else "on query and gallery")
    epochs = [each["epoch"] for each in evaluations]
    for (key, label), color in zip({"rank1": "rank-1", "mAP": "mAP"}.items(), COLORS, strict=False):
        axes.plot(epochs, [each[key] for each in evaluations], color=color, label=label, marker="o", markersize=4)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure)
    return figure


def chart(x: str, y: str) -> tuple[Figure, Any]:
    """Return an empty chart and its axes, with their labels, in the style of the pages."""
    # A Figure of its own, not pyplot's: nothing global is touched, and no display is looked for.
    figure = Figure(figsize=(4.8, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=GRAY)
    axes.set_ylabel(y, color=GRAY)
    axes.tick_params(colors=GRAY)
    axes.grid(color=GRAY, alpha=0.2)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRAY)
    return figure, axes


def _legend(figure: Figure) -> None:
    # Above the axes: inside them, no area is free of every curve.
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=GRAY)


def _smoothed(values: Sequence[float]) -> list[float]:
    """Return centered means over a twentieth of the values; a mean of the past alone would lag behind a fall."""
    reach = len(values) // 40
    means = []
    for index in range(len(values)):
        near = min(reach, index, len(values) - 1 - index)
        window = values[index - near : index + near + 1]
        means.append(sum(window) / len(window))
    return means
