"""Run the experiments beside the paper's figures, each training once, and set the figures side by side."""

from __future__ import annotations

import hashlib
import json
import logging
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from reprism.data import open_dataset
from reprism.files import write_json, write_whole
from reprism.paper.tables import RESNET50, SENET, TABLES, TARGETS, Experiment, Row, Table
from reprism.progress import Progress
from reprism.terminal import did_you_mean
from reprism.training.recipes import Recipe, released, scr, what_is_computed

QUOTED = "other authors' figure"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """Settings that may differ from the paper's, for smaller budgets; the tables then say so.

    Attributes:
        recipe: Everything that an experiment does not set itself.
        backbone: Backbone to use instead of ResNet-50.
        attention_backbone: Backbone to use instead of SE-ResNet-50 (Table 1).
        seeds: Number of runs of everything, with seeds ``recipe.seed``, ``recipe.seed + 1``, …
        pretrained: Files of starting weights by backbone, named with or without its tag; other backbones start as
            ``recipe.model.pretrained`` says.
    """

    recipe: Recipe
    backbone: str = RESNET50
    attention_backbone: str = SENET
    seeds: int = 1
    pretrained: Mapping[str, Path] = field(default_factory=dict)

    def differences(self) -> list[str]:
        """Return where it differs from the paper, as ``field value``."""
        mine, papers = map(what_is_computed, (self.recipe, scr("", "")))
        named = [("backbone", self.backbone, RESNET50), ("attention backbone", self.attention_backbone, SENET)]
        changed = [f"{name} {value}" for name, value, usual in named if value != usual]
        # What an experiment sets itself, and what is no setting of the experiment.
        left_out = {
            "data": {"name", "options", "on_error", "eval_batch", "video"},
            "model": {"backbone", "partition", "pretrained"},
            "loss": {"ce_weight", "triplet_weight"},
            "trainer": {"evaluate_every", "devices", "num_nodes", "accelerator"},
        }
        for section in ("data", "model", "loss", "optimizer", "trainer"):
            changed += [
                f"{section}.{key} {value}"
                for key, value in mine[section].items()
                if key not in left_out.get(section, ()) and value != papers[section][key]
            ]
        if self.recipe.model.pretrained is False:
            changed.append("no ImageNet weights")
        elif self.recipe.model.pretrained is not True:
            changed.append(f"starting weights {self.recipe.model.pretrained}")
        changed += [f"starting weights of {backbone} {path}" for backbone, path in self.pretrained.items()]
        return changed

    def backbone_of(self, experiment: Experiment) -> str:
        """Return the name of the network that an experiment trains."""
        backbones = {RESNET50: self.backbone, SENET: self.attention_backbone}
        return backbones.get(experiment.backbone, experiment.backbone)

    def weights_of(self, backbone: str) -> Path | None:
        """Return the file of starting weights given for a backbone, if there is one."""
        return self.pretrained.get(backbone) or self.pretrained.get(backbone.partition(".")[0])

    def check_weights(self, experiments: Sequence[Experiment]) -> None:
        """Check that each network of some experiments can start from the weights given.

        Raises:
            ValueError: A file is given for a network that none of them trains, or one file for several networks.
        """
        backbones = list(dict.fromkeys(map(self.backbone_of, experiments)))
        for name in self.pretrained:
            if not any(name in (backbone, backbone.partition(".")[0]) for backbone in backbones):
                raise ValueError(
                    f"weights are given for {name!r}, which no row trains; the rows train {', '.join(backbones)}"
                )
        file = self.recipe.model.pretrained
        without = [backbone for backbone in backbones if self.weights_of(backbone) is None]
        if not isinstance(file, bool) and len(without) > 1:
            each = " ".join(f"{backbone}=FILE" for backbone in without)
            raise ValueError(
                f"{file} cannot hold the starting weights of {len(without)} different networks. Give each its own: "
                f"--pretrained {each}"
            )

    def recipe_of(self, experiment: Experiment, target: str, root: str, seed: int) -> Recipe:
        """Return the recipe that trains an experiment."""
        backbone = self.backbone_of(experiment)
        trained_on = TARGETS[experiment.trained_on or target]
        recipe = released(self.recipe) if experiment.released else self.recipe
        changes: dict[str, Mapping[str, Any]] = {
            "data": {"name": trained_on.name, "root": Path(root), "options": dict(trained_on.options)},
            "model": {
                "partition": experiment.partition,
                "backbone": backbone,
                "pretrained": self.weights_of(backbone) or recipe.model.pretrained,
            },
            "loss": {"ce_weight": experiment.ce_weight, "triplet_weight": experiment.triplet_weight},
            # Tested afterwards, on whatever asks for it.
            "trainer": {"evaluate_every": 0},
        }
        sections = {name: getattr(recipe, name).model_copy(update=values) for name, values in changes.items()}
        return recipe.model_copy(update={**sections, "seed": seed, "name": "reproduce"})


@dataclass(frozen=True)
class Cell:
    """Figures of one row for one target.

    Attributes:
        method: The row.
        target: Key of ``TARGETS``.
        published: rank-1 and mAP in percent, or None.
        measured: rank-1 and mAP in percent, of every seed; empty if not run.
        why_not: Reason why nothing is measured.
        failed: True if it was run and ended in an error, which ``why_not`` gives.
        seeds: Random seeds of the runs.
        seconds: Duration of training with its last evaluation, summed over the seeds; a training that rows share
            counts in each.
        protocol: Protocol of the test, in words.
    """

    method: str
    target: str
    published: tuple[float, float] | None
    measured: tuple[tuple[float, float], ...] = ()
    why_not: str = ""
    failed: bool = False
    seeds: tuple[int, ...] = ()
    seconds: float = 0.0
    protocol: str = ""


def reproduce(
    name: str,
    roots: Mapping[str, str],
    folder: str | Path,
    budget: Budget,
    *,
    rows: Sequence[str] = (),
    progress: Progress | None = None,
) -> list[Cell]:
    """Measure a table here, as far as the data are there, and write it as Markdown, HTML and JSON.

    Every training has a folder below ``folder/runs``, named by what is trained; one that is there is taken up again or
    used as it is, whichever table asks for it. So an interrupted table goes on where it stopped. A row that fails is
    reported with its reason, and the others are measured; calling again tries it anew.

    Args:
        name: Key of ``TABLES``.
        roots: Folder of each data set, by the name that ``reprism.open_dataset`` knows it by.
        folder: For runs and tables.
        budget: Settings.
        rows: Texts of which a method's name must contain one to be run (default: all methods).
        progress: Called as ``progress(what, done, total)``.

    Returns:
        Its cells, row by row.

    Raises:
        ValueError: No such table, no such row, or starting weights that do not fit its networks.
    """
    if name not in TABLES:
        raise ValueError(f"there is no table {name!r}; there are {', '.join(TABLES)}.{did_you_mean(name, TABLES)}")
    table, folder = TABLES[name], Path(folder)
    chosen = [row for row in table.rows if not rows or any(part.lower() in row.method.lower() for part in rows)]
    if not chosen:
        methods = ", ".join(repr(row.method) for row in table.rows)
        raise ValueError(f"{name} has no row like {', '.join(rows)}; it has {methods}")
    budget.check_weights([row.experiment for row in chosen if row.experiment is not None])
    cells = []
    for row in table.rows:
        for target, published in row.published.items():
            cell = Cell(row.method, target, published)
            if row.experiment is None:
                cell = replace(cell, why_not=QUOTED)
            elif row not in chosen:
                cell = replace(cell, why_not="not run: not asked for")
            elif missing := _missing(row.experiment, target, roots):
                cell = replace(cell, why_not=f"not run: no data for {', '.join(missing)}")
            else:
                try:
                    cell = _measure(cell, row.experiment, roots, folder, budget, progress)
                except Exception as error:  # a table takes days: an error in one row must not cost the others
                    cell = replace(cell, why_not=f"failed: {_reason(error)}", failed=True)
            cells.append(cell)
            _write(name, table, cells, folder, budget)
    return cells


def _reason(error: Exception) -> str:
    """Return the error in one line; for one that the user did not cause, the traceback is logged."""
    lines = str(error).splitlines() or [""]
    if isinstance(error, ValueError | OSError):
        return lines[0]
    _log.error("an unexpected error; the table goes on", exc_info=error)
    return f"{type(error).__name__}: {lines[0]}"


def needs(row: Row) -> dict[str, list[str]]:
    """Return the data sets that a row needs, by target; none for other authors' figures."""
    if row.experiment is None:
        return {}
    return {target: _missing(row.experiment, target, {}) for target in row.published}


def _missing(experiment: Experiment, target: str, roots: Mapping[str, str]) -> list[str]:
    wanted = (TARGETS[experiment.trained_on or target].name, TARGETS[target].name)
    return [name for name in dict.fromkeys(wanted) if name not in roots]


def _measure(
    cell: Cell,
    experiment: Experiment,
    roots: Mapping[str, str],
    folder: Path,
    budget: Budget,
    progress: Progress | None,
) -> Cell:
    """Return the cell with its measurement."""
    target = cell.target
    root = roots[TARGETS[experiment.trained_on or target].name]
    measured, seconds, protocol = [], 0.0, ""
    seeds = tuple(budget.recipe.seed + number for number in range(budget.seeds))
    for seed in seeds:
        run = _train(budget.recipe_of(experiment, target, root, seed), folder / "runs", progress)
        result = _test(run, target, roots[TARGETS[target].name], experiment, budget.recipe, progress)
        measured.append((100 * result["rank1"], 100 * result["mAP"]))
        seconds += result["seconds"]
        protocol = result["protocol"]
    return replace(cell, measured=tuple(measured), seeds=seeds, seconds=round(seconds, 1), protocol=protocol)


def _train(recipe: Recipe, runs: Path, progress: Progress | None) -> Path:
    """Return the folder of a finished training."""
    from reprism.training.run import train

    values = what_is_computed(recipe, named=True)
    del values["data"]["video"]  # what is tested by comes from the table
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    words = (recipe.data.name, recipe.model.partition, recipe.model.backbone, f"seed{recipe.seed}", digest)
    run = runs / "-".join(words)
    if not (run / "metrics.json").is_file():
        train(recipe, run, resume=(run / "recipe.json").is_file(), progress=progress)
    return run


def _test(
    run: Path, target: str, root: str, experiment: Experiment, recipe: Recipe, progress: Progress | None
) -> dict[str, Any]:
    """Return the score of a training on a target, from the record of an earlier test if there is one."""
    from reprism.embedding import Embedder
    from reprism.evaluation.protocol import Protocol
    from reprism.evaluator import evaluate_model

    wanted = TARGETS[target]
    video = asdict(experiment.video)
    of_video = wanted.name == "mars"
    words = "-".join(str(value) for value in video.values()) if of_video else ""
    record = run / "tests" / f"{target}{'-' + words if words else ''}.json"
    trained = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    if not record.is_file():
        dataset = open_dataset(wanted.name, root, progress=progress, **dict(wanted.options))
        embedder = Embedder(
            run / "model.safetensors",
            recipe.data.eval_batch,
            recipe.trainer.flip_test,
            recipe.trainer.precision,
            device="cpu" if recipe.trainer.accelerator == "cpu" else None,
        )

        def report(what: str, done: int, total: int) -> None:
            if progress is not None:
                progress(f"testing on {wanted.title}: {what}", done, total)

        protocol = Protocol(single_shot_trials=0, video=experiment.video)
        workers = recipe.data.workers or 0
        found = evaluate_model(embedder, dataset, protocol, workers=workers, progress=report)
        write_json(record, {**found.metrics.as_dict(), "protocol": found.describe()})
    result: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    return {**result, "seconds": trained["seconds"]}


# ---- tables as text --------------------------------------------------------------------------------------


def _write(name: str, table: Table, cells: list[Cell], folder: Path, budget: Budget) -> None:
    from reprism.report import pages

    header, lines = _lines(cells)
    title = f"{name.replace('table', 'Table ')}: {table.title}"
    notes = _notes(cells, budget)
    markdown = [f"# {title}", "", *notes, "", _bar(header), _bar(["---"] * len(header)), *map(_bar, lines), ""]
    write_whole(folder / f"{name}.md", "\n".join(markdown))
    shown = pages.Table(header, lines, numbers=False)
    page = pages.render("paper_table.html", title=title, notes=[note for note in notes if note], table=shown)
    write_whole(folder / f"{name}.html", page)
    write_json(folder / f"{name}.json", {"title": title, "notes": notes, "cells": [asdict(cell) for cell in cells]})


def _lines(cells: list[Cell]) -> tuple[list[str], list[list[str]]]:
    header = ["method", "data set", "published rank-1 / mAP", "measured rank-1 / mAP", "difference", "seeds", "seconds"]
    lines = []
    for cell in cells:
        published = "-" if cell.published is None else " / ".join(f"{value:.1f}" for value in cell.published)
        measured, difference = cell.why_not, ""
        if cell.measured:
            sides = list(zip(*cell.measured, strict=True))
            means = [statistics.fmean(side) for side in sides]
            measured = " / ".join(_with_deviation(mean, side) for mean, side in zip(means, sides, strict=True))
            if cell.published is not None:
                gaps = [mean - value for mean, value in zip(means, cell.published, strict=True)]
                difference = " / ".join(f"{gap:+.1f}" for gap in gaps)
        seconds = f"{cell.seconds:.0f}" if cell.measured else ""
        seeds = " ".join(map(str, cell.seeds))
        lines.append([cell.method, TARGETS[cell.target].title, published, measured, difference, seeds, seconds])
    return header, lines


def _with_deviation(mean: float, values: Sequence[float]) -> str:
    return f"{mean:.1f}" if len(values) < 2 else f"{mean:.1f} ± {statistics.stdev(values):.1f}"


def _notes(cells: list[Cell], budget: Budget) -> list[str]:
    differences = budget.differences()
    settings = f"Settings: the paper's, but for {'; '.join(differences)}." if differences else "Settings: the paper's."
    protocols = dict.fromkeys(f"{TARGETS[cell.target].title}: {cell.protocol}." for cell in cells if cell.measured)
    return [settings, *_paragraphs(protocols)]


def _paragraphs(texts: Mapping[str, None]) -> Iterator[str]:
    for text in texts:
        yield ""
        yield text


def _bar(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
