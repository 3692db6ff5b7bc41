"""Write a report of a training run: what was run, on what data, how well it did and where it fails."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from reprism.data import open_dataset
from reprism.data.check import PARTS, count, is_drawn, published_counts
from reprism.data.images import read_image
from reprism.data.records import ReIDDataset
from reprism.data.transforms import eval_transform
from reprism.embedding import Embedder
from reprism.evaluation.calibration import CalibrationError, calibrate
from reprism.evaluation.lists import RankedList
from reprism.evaluation.protocol import Protocol
from reprism.evaluator import Evaluation, evaluate_model
from reprism.files import write_whole
from reprism.models.checkpoint import load
from reprism.progress import Progress
from reprism.report.calibration import draw_calibration
from reprism.report.charts import COLORS, chart, cmc_figure, evaluations_figure, loss_figure, read_log
from reprism.report.lists_page import LEAST_WIDTH, draw_lists, legend
from reprism.report.pages import Code, Picture, Table, figure_uri, picture_uri, render
from reprism.report.saliency import ExplainError, draw_saliency, saliency
from reprism.training.recipes import Recipe, find_recipe

_MATCHES = 8  # shown of each of the hardest queries
_EXPLAINED = 3  # queries explained by saliency maps


_Piece = str | Table | Code | Picture | list[Picture]
"""A piece of a section: a paragraph, a table, code, a picture or pictures in a row. Markdown leaves out pictures."""


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
        run: Run folder.
        out: HTML file to write (default: ``report.html`` in the run folder). The Markdown goes beside it, as ``.md``.
        root: Folder of the data set (default: where the run found it).
        shown: Number of hardest queries to show.
        device: Torch device, such as ``cuda`` (default: chosen by what is there).
        workers: Processes that decode images.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The HTML file's path.

    Raises:
        RecipeError: The folder holds no run.
        ValueError: The run is not finished, or ``shown`` is below 1.
        DataError: The data set cannot be read.
    """
    if shown < 1:
        raise ValueError(f"expected 1 or more of the hardest queries to show, got {shown}")
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
    found = evaluate_model(embedder, dataset, Protocol(video=data.video), workers=workers, progress=progress)
    found = replace(found, name=recipe.name)
    metrics = found.metrics
    lists = _hardest(found, shown)
    sections: dict[str, list[_Piece]] = {
        "Results": _results(found),
        "Training": _training(run, trained),
        "Data": _counts(dataset),
        "Distances": _distances(found),
        "Hardest queries": _drawn_lists(found, lists),
        "Saliency of the parts": _saliency(run, lists, dataset),
        "Settings": _what_was_run(recipe, environment, trained, embedder),
        "Run it again": _again(recipe),
    }
    title = f"{recipe.name} on {dataset.name}"
    figures = [
        ("rank-1", f"{metrics.rank(1):.1%}", f"{metrics.num_valid_queries:,} queries"),
        ("mAP", f"{metrics.mAP:.1%}", f"AP by {metrics.ap}"),
        ("mINP", f"{metrics.mINP:.1%}", "precision at each query's last match"),
    ]
    out = run / "report.html" if out is None else Path(out)
    bodies = [{"title": heading, "pieces": pieces} for heading, pieces in sections.items()]
    write_whole(out, render("run_report.html", title=title, figures=figures, sections=bodies))
    write_whole(out.with_suffix(".md"), _markdown(title, sections))
    return out


def _results(found: Evaluation) -> list[_Piece]:
    metrics = found.metrics
    scores = [("mAP", f"{metrics.mAP:.1%}"), ("mINP", f"{metrics.mINP:.1%}")]
    scores += [(f"rank-{k}", f"{metrics.rank(k):.1%}") for k in (1, 5, 10, 20) if k <= metrics.max_rank]
    return [
        Table(("", "score"), scores),
        [
            Picture(
                figure_uri(cmc_figure({"this run": metrics.cmc.tolist()})),
                "CMC curve",
                "CMC: share of queries with a match among the first k",
            ),
            Picture(
                figure_uri(_precision_histogram(metrics.average_precision)),
                "Histogram of average precision",
                "Queries by average precision",
            ),
        ],
        f"Protocol: {found.describe()}.",
    ]


def _precision_histogram(precision: np.ndarray) -> Figure:
    figure, axes = chart("average precision", "queries")
    axes.hist(precision[np.isfinite(precision)], bins=20, range=(0, 1), color=COLORS[0])
    return figure


def _training(run: Path, trained: dict[str, Any]) -> list[_Piece]:
    pictures = [
        Picture(
            figure_uri(loss_figure(read_log(run))),
            "Losses over training steps",
            "Losses (thin: as logged, thick: smoothed)",
        )
    ]
    choice = "nothing was chosen by them"
    if "validation" in trained:
        people = trained["validation"]["identities"]
        choice = f"on {people} training people set aside, by whom epoch {trained['epoch']} was chosen"
    if len(trained["evaluations"]) > 1:
        pictures.append(
            Picture(
                figure_uri(evaluations_figure(trained["evaluations"])),
                "Rank-1 and mAP over epochs",
                f"Rank-1 and mAP during training; {choice}",
            )
        )
    minutes = trained["seconds"] / 60
    return [
        pictures,
        f"{trained['train_images']:,} images of {trained['train_identities']:,} people, {minutes:.1f} minutes"
        + (" in several sittings" if trained["resumed"] else ""),
    ]


def _counts(dataset: ReIDDataset) -> list[_Piece]:
    published = published_counts(dataset)
    found = {part: count(getattr(dataset, part)) for part in PARTS}
    kinds = [
        kind for kind in ("images", "tracklets", "identities", "cameras") if any(kind in f for f in found.values())
    ]
    rows, said = [], "These are the published counts." if published else "No counts were published for these data."
    if is_drawn(dataset):
        said = "Drawn people: published counts do not apply."
    for part, counts in found.items():
        cells = []
        for kind in kinds:
            cells.append(f"{counts.get(kind, 0):,}")
            wanted = published.get(part, {}).get(kind)
            if wanted is not None and wanted != counts.get(kind, 0):
                cells[-1] += f" (published: {wanted:,})"
                said = "These are not the published counts: another data set."
        rows.append([part, *cells])
    return [Table(["part", *kinds], rows), said]


def _distances(found: Evaluation) -> list[_Piece]:
    try:
        calibration = calibrate(found.query, found.gallery, found.dataset.query, found.dataset.gallery)
    except CalibrationError as error:
        return [f"Not calibrated: {error}"]
    picture = io.BytesIO()
    draw_calibration(calibration, picture)
    rows = [
        (
            f"{point.wanted_fmr:g}",
            f"{point.threshold:.3f}",
            f"{point.tpr:.1%}",
            "30 or more" if point.reliable else "fewer than 30",
        )
        for point in calibration.points
    ]
    return [
        Picture(picture_uri(Image.open(picture)), "Distances, error rates and reliability", least_width=800),
        Table(("false match rate", "threshold", "true positive rate", "false matches seen"), rows),
        "Calibrated on this very query and gallery; a threshold for use wants people of its own (reprism calibrate).",
    ]


def _hardest(found: Evaluation, shown: int) -> list[RankedList]:
    """Return the ranked lists of the hardest queries; none of single-gallery-shot trials, which have many a query."""
    return [] if found.protocol.single_shot_trials else found.ranked_lists(found.hardest(shown), _MATCHES)


def _drawn_lists(found: Evaluation, lists: Sequence[RankedList]) -> list[_Piece]:
    if not lists:
        return ["Not shown: single-gallery-shot trials have no one ranked list."]
    metrics = found.metrics
    rows = [
        (
            str(number),
            found.dataset.query[one.query].path.name,
            f"{metrics.average_precision[one.query]:.1%}",
            str(metrics.first_match_rank[one.query]),
            f"{one.distances[0]:.3f}",
        )
        for number, one in enumerate(lists, start=1)
    ]
    captions = [
        f"{number}. {name}: AP {precision}, first match at rank {rank}" for number, name, precision, rank, _ in rows
    ]
    return [
        "The queries of least average precision (AP), the rank of the first image that shows the person, and the "
        "distance of the nearest image. What the query's own camera saw of the person is left out.",
        Table(("query", "image", "AP", "first match", "nearest"), rows),
        # A picture each: on paper a picture is not divided.
        *(
            Picture(
                picture_uri(draw_lists([(found, one)], [caption])),
                f"Ranked list of hardest query {caption}; {one.correct.sum()} of {len(one.correct)} show the person",
                least_width=LEAST_WIDTH,
                about="" if number else legend([found]),
            )
            for number, (one, caption) in enumerate(zip(lists, captions, strict=True))
        ),
        *_parts_of_nearest(found, lists),
    ]


def _parts_of_nearest(found: Evaluation, lists: Sequence[RankedList]) -> list[_Piece]:
    """Say how well each part of each query's nearest image agrees."""
    if found.scale is None:
        return []
    nearest = [found.parts(one)[0] for one in lists]
    rows = [
        (name, *(f"{parts[name].verdict}, {parts[name].nearer_than} of 100" for parts in nearest))
        for name in found.scale.strangers
    ]
    return [
        "Whether each part of the nearest image agrees with the query, and how many of 100 pairs of strangers are "
        "farther apart in it. Strangers are different people in these data, seen by different cameras.",
        Table(("part", *(f"query {number}" for number in range(1, len(lists) + 1))), rows),
    ]


def _saliency(run: Path, lists: Sequence[RankedList], dataset: ReIDDataset) -> list[_Piece]:
    pairs = [(dataset.query[one.query], dataset.gallery[one.gallery[0]]) for one in lists[:_EXPLAINED]]
    if not pairs:
        return ["Not drawn: there is no ranked list to explain."]
    model = load(run / "model.safetensors").eval()
    images = [read_image(item.path) for pair in pairs for item in pair]
    batch = torch.stack([eval_transform(model.preprocessing)(image) for image in images])
    other = batch.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    names = [part.name for part in model.partition.parts]
    try:
        by_part = [saliency(model, batch, name, against=other) for name in names]
    except ExplainError as error:
        return [f"Not drawn: {error}"]
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    drawn = draw_saliency(pictures, list(zip(*by_part, strict=True)), names, width=64)
    about = (
        "What made two pictures alike, part by part: Grad-CAM of the similarity of that part's features. In pairs of "
        f"rows, the first {len(pairs)} such queries, and below each its nearest image"
        f"{' (of tracklets the first frame)' if dataset.is_video else ''}. A stripe's map is set to 0 outside its "
        "rows; reprism explain shows it without that mask too."
    )
    return [Picture(picture_uri(drawn), "Saliency of every part", least_width=48 * len(names), about=about)]


def _what_was_run(
    recipe: Recipe, environment: dict[str, Any], trained: dict[str, Any], embedder: Embedder
) -> list[_Piece]:
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
    return [Table(("", ""), rows, numbers=False), Code(_json(recipe), "json", "The recipe")]


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


def _again(recipe: Recipe) -> list[_Piece]:
    command = f"reprism train recipe.json --data.root DATA --out {shlex.quote(f'runs/{recipe.name}')}"
    return ["Save the recipe above as recipe.json; then, with the data set in DATA:", Code(command, "sh")]


# ---- as Markdown ----------------------------------------------------------------------------------------------------


def _markdown(title: str, sections: Mapping[str, Sequence[_Piece]]) -> str:
    lines = [f"# {title}", ""]
    for heading, pieces in sections.items():
        words = [_as_markdown(piece) for piece in pieces if not isinstance(piece, Picture | list)]
        if words:
            lines += [f"## {heading}", "", *words]
    return "\n".join(lines)


def _as_markdown(piece: _Piece) -> str:
    if isinstance(piece, Table):
        rows = [piece.header, ["---"] * len(piece.header), *piece.rows]
        cells = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
        return "".join(f"| {' | '.join(row)} |\n" for row in cells)
    if isinstance(piece, Code):
        return f"```{piece.language}\n{piece.text}\n```\n"
    return f"{piece}\n"
