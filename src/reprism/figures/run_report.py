"""A report of a training run that one would publish: what was run, on what, how well, where it fails."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from reprism.data import open_dataset
from reprism.data.check import PARTS, PUBLISHED, count
from reprism.data.images import read_image
from reprism.data.records import ReIDDataset
from reprism.data.transforms import eval_transform
from reprism.embedding import Embedder
from reprism.evaluation.calibration import CalibrationError, calibrate
from reprism.evaluation.protocols import evaluate_items
from reprism.evaluation.ranking import RankingMetrics
from reprism.figures import report
from reprism.figures.calibration import draw_calibration
from reprism.figures.lists_page import hardest
from reprism.figures.ranked import draw_ranked_lists, ranked_lists
from reprism.figures.report import Section
from reprism.figures.saliency import ExplainError, draw_saliency, saliency
from reprism.files import write_whole
from reprism.models.checkpoint import load
from reprism.training.recipes import Recipe, find_recipe

Progress = Callable[[str, int, int], None]


def write_report(
    run: str | PathLike[str],
    out: str | PathLike[str] | None = None,
    *,
    root: str | PathLike[str] | None = None,
    shown: int = 5,
    device: str | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Write a report of a finished run: one HTML file that loads nothing, and the same figures as Markdown.

    Args:
        run: the run folder.
        out: where; by custom ``report.html`` in the run folder. The Markdown lies beside it, as ``.md``.
        root: of the data set, if it is no longer where the run found it.
        shown: how many of the hardest queries are shown.
        device: such as ``cuda``.
        workers: processes that decode images.
        progress: called as ``progress(what, done, total)``.

    Returns:
        The HTML file.

    Raises:
        RecipeError: the folder holds no run.
        ValueError: the run is not finished.
        DataError: the data set cannot be read.
    """
    run = Path(run)
    recipe = find_recipe(str(run))
    if not (run / "metrics.json").is_file():
        raise ValueError(f"the run in {run} is not finished: reprism train {run} --resume")
    trained = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    data = recipe.data
    where = root if root is not None else data.root
    if where is None:
        raise ValueError(f"{run} does not say where its data lie: give the folder")
    dataset = open_dataset(data.name, where, progress=progress, **data.options)
    embedder = Embedder(
        run / "model.safetensors", data.eval_batch, recipe.trainer.flip_test, recipe.trainer.precision, device
    )

    def watch(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(what, done, total)

    query, gallery = (
        embedder.embed_items(items, data.video, workers=workers, progress=watch(part))
        for part, items in (("query", dataset.query), ("gallery", dataset.gallery))
    )
    metrics = evaluate_items(
        query, gallery, dataset.query, dataset.gallery, single_shot_trials=dataset.single_shot_trials
    )
    protocol = _protocol(recipe, embedder, dataset, metrics)
    sections = [
        Section("Results", _results(metrics, protocol)),
        Section("Training", _training(run, trained)),
        Section("Data", [_counts_table(dataset)]),
        Section("Distances", _distances(query, gallery, dataset)),
        Section("The hardest queries", _hardest(query, gallery, dataset, metrics, shown)),
        Section("Where the parts look", _saliency(run, dataset)),
        Section("What was run", _what_was_run(recipe, environment, trained, embedder)),
        Section("How to run it again", _again(recipe)),
    ]
    title = f"{recipe.name} on {dataset.name}"
    lead = [
        report.headline(
            [
                ("rank-1", f"{metrics.rank(1):.1%}", f"{metrics.num_valid_queries:,} queries"),
                ("mAP", f"{metrics.mAP:.1%}", f"AP by {metrics.ap}"),
                ("mINP", f"{metrics.mINP:.1%}", "the last match of each query"),
            ]
        )
    ]
    out = run / "report.html" if out is None else Path(out)
    write_whole(out, report.page(title, sections, lead=lead))
    write_whole(out.with_suffix(".md"), _markdown(title, metrics, protocol, dataset, recipe, environment, trained))
    return out


def _protocol(recipe: Recipe, embedder: Embedder, dataset: ReIDDataset, metrics: RankingMetrics) -> str:
    height, width = recipe.data.size
    said = [
        *([dataset.protocol] if dataset.protocol else []),
        "single query, same-camera matches ignored, Euclidean distance of L2-normalised descriptors",
        f"images at {height}×{width}, {'with' if embedder.flip else 'without'} mirrored image, {embedder.precision}",
        f"AP by {metrics.ap}, mean over {metrics.num_valid_queries:,} valid queries "
        f"({len(metrics.lost_queries)} are lost), not re-ranked",
    ]
    if dataset.is_video:
        video = recipe.data.video
        said.append(f"{video.frames} frames ({video.sampling}) in {video.runs} run(s), {video.pooling} of each")
    return ", ".join(said) + "."


def _results(metrics: RankingMetrics, protocol: str) -> list[str]:
    return [
        report.table(("rank", "queries with a match"), _cmc_rows(metrics)),
        report.side_by_side(
            report.image(report.figure_uri(report.cmc_figure({"this run": metrics.cmc.tolist()})), "CMC curve", "CMC"),
            report.image(
                report.figure_uri(_precision_histogram(metrics.average_precision)),
                "Histogram of average precision",
                "How many queries have which average precision",
            ),
        ),
        protocol,
    ]


def _cmc_rows(metrics: RankingMetrics) -> list[tuple[str, str]]:
    return [(str(k), f"{metrics.rank(k):.1%}") for k in (1, 5, 10, 20) if k <= metrics.max_rank]


def _precision_histogram(precision: np.ndarray) -> Figure:
    figure, axes = report.chart("average precision", "queries")
    axes.hist(precision[np.isfinite(precision)], bins=20, range=(0, 1), color=report.COLOURS[0])
    return figure


def _training(run: Path, trained: dict[str, Any]) -> list[str]:
    pictures = [
        report.image(
            report.figure_uri(report.loss_figure(report.read_log(run))),
            "Losses over training steps",
            "Losses (thin: as logged, thick: smoothed)",
        )
    ]
    if len(trained["evaluations"]) > 1:
        pictures.append(
            report.image(
                report.figure_uri(report.evaluations_figure(trained["evaluations"])),
                "Rank-1 and mAP over epochs",
                "Rank-1 and mAP during training; nothing was chosen by them",
            )
        )
    minutes = trained["seconds"] / 60
    return [
        report.side_by_side(*pictures),
        f"{trained['train_images']:,} images of {trained['train_identities']:,} people, {minutes:.1f} minutes"
        + (" in the last of several sittings" if trained["resumed"] else ""),
    ]


def _counts_table(dataset: ReIDDataset) -> report.Html:
    header, rows = _counts(dataset)
    return report.table(header, rows)


def _counts(dataset: ReIDDataset) -> tuple[list[str], list[list[str]]]:
    published = PUBLISHED.get((dataset.name, dataset.protocol), {})
    found = {part: count(getattr(dataset, part)) for part in PARTS}
    kinds = [
        kind for kind in ("images", "tracklets", "identities", "cameras") if any(kind in f for f in found.values())
    ]
    rows = []
    for part, counts in found.items():
        cells = []
        for kind in kinds:
            wanted = published.get(part, {}).get(kind)
            differs = wanted is not None and wanted != counts.get(kind, 0)
            cells.append(f"{counts.get(kind, 0):,}" + (f" (published: {wanted:,})" if differs else ""))
        rows.append([part, *cells])
    return ["part", *kinds], rows


def _distances(query: np.ndarray, gallery: np.ndarray, dataset: ReIDDataset) -> list[str]:
    try:
        found = calibrate(query, gallery, dataset.query, dataset.gallery)
    except CalibrationError as error:
        return [f"Not calibrated: {error}"]
    picture = io.BytesIO()
    draw_calibration(found, picture)
    rows = [
        (f"{point.wanted_fmr:g}", f"{point.threshold:.3f}", f"{point.tpr:.1%}", "" if point.reliable else "few")
        for point in found.points
    ]
    return [
        report.image(
            report.picture_uri(Image.open(picture)), "Distances, error rates and reliability", least_width=800
        ),
        report.table(("false match rate", "threshold", "true positive rate", "false matches seen"), rows),
        "Calibrated on this very query and gallery; a threshold for use wants people of its own (reprism calibrate).",
    ]


def _hardest(
    query: np.ndarray, gallery: np.ndarray, dataset: ReIDDataset, metrics: RankingMetrics, shown: int
) -> list[str]:
    chosen = hardest(metrics, shown) if metrics.trials == 1 else []
    if not chosen:
        return ["Not shown: single-gallery-shot trials have no one ranked list."]
    lists = ranked_lists(query, gallery, dataset.query, dataset.gallery, chosen, 8)
    captions = [f"average precision {metrics.average_precision[place]:.1%}" for place in chosen]
    drawn = draw_ranked_lists(lists, dataset.query, dataset.gallery, captions)
    return [
        "The queries of least average precision. Green with a tick: the person looked for; red with a cross: somebody "
        "else. What the query's own camera saw of the person is left out.",
        report.image(report.picture_uri(drawn), "Ranked lists of the hardest queries", least_width=620),
    ]


def _saliency(run: Path, dataset: ReIDDataset) -> list[str]:
    model = load(run / "model.safetensors").eval()
    image = read_image(dataset.query[0].path)
    batch = eval_transform(model.preprocessing)(image)[None]
    names = [part.name for part in model.partition.parts]
    try:
        heats = [saliency(model, batch, name)[0] for name in names]
    except ExplainError as error:
        return [f"Not drawn: {error}"]
    drawn = draw_saliency([Image.fromarray(image.permute(1, 2, 0).numpy())], [heats], names, width=64)
    return [
        "Grad-CAM of each part for the person of the training set whom its own classifier holds the query for.",
        report.image(report.picture_uri(drawn), "Saliency of every part", least_width=64 * len(names)),
    ]


def _what_was_run(
    recipe: Recipe, environment: dict[str, Any], trained: dict[str, Any], embedder: Embedder
) -> list[str]:
    parameters = sum(parameter.numel() for parameter in embedder.model.parameters())
    rows = [
        ("Partition", recipe.model.partition),
        ("Backbone", recipe.model.backbone),
        ("Parameters", f"{parameters:,}, without classifiers"),
        ("Descriptor", f"{embedder.descriptor_dim:,} columns"),
        ("Seed", str(recipe.seed)),
        *_machine(environment),
        ("Set aside", f"{len(trained['unreadable'])} unreadable images"),
    ]
    return [report.table(("", ""), rows, numbers=False), report.details("The recipe", report.code_block(_json(recipe)))]


def _machine(environment: dict[str, Any]) -> list[tuple[str, str]]:
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    hardware = environment["gpu"] or environment["cpu"] or "unknown"
    return [
        ("Machine", f"{hardware}, {environment['threads']} threads, {environment['platform']}"),
        ("Versions", f"Python {environment['python']}, {packages}"),
    ]


def _json(recipe: Recipe) -> str:
    values = recipe.model_dump(mode="json")
    values["data"]["root"] = None  # where it lay is nobody else's concern
    return json.dumps(values, indent=2)


def _commands(recipe: Recipe) -> str:
    return f"reprism train recipe.json --data.root DATA --out {shlex.quote(f'runs/{recipe.name}')}"


def _again(recipe: Recipe) -> list[str]:
    return [
        "Save the recipe above as recipe.json; then, with the data set in DATA:",
        report.code_block(_commands(recipe)),
    ]


def _markdown(
    title: str,
    metrics: RankingMetrics,
    protocol: str,
    dataset: ReIDDataset,
    recipe: Recipe,
    environment: dict[str, Any],
    trained: dict[str, Any],
) -> str:
    def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
        lines = [header, ["---"] * len(header), *rows]
        return [f"| {' | '.join(line)} |" for line in lines] + [""]

    results = [("mAP", f"{metrics.mAP:.1%}"), ("mINP", f"{metrics.mINP:.1%}")]
    results += [(f"rank-{k}", value) for k, value in _cmc_rows(metrics)]
    lines = [f"# {title}", "", *table(["", "score"], results), protocol, "", "## Data", "", *table(*_counts(dataset))]
    lines += ["## What was run", "", *(f"- {name}: {value}" for name, value in _machine(environment))]
    lines += [
        f"- Seed: {recipe.seed}",
        f"- Training: {trained['seconds']:.0f} seconds",
        "",
        "```json",
        _json(recipe),
        "```",
    ]
    return "\n".join([*lines, "", "```sh", _commands(recipe), "```", ""])
