"""Write the demo's report: the tables and pictures of its one page, whose words are in ``templates/demo.html``."""

from __future__ import annotations

import json
import platform
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reprism.data.records import ReIDDataset
from reprism.drawn.shots import contact_sheet
from reprism.evaluation.lists import RankedList
from reprism.evaluation.ranking import RankingMetrics
from reprism.evaluator import Evaluation
from reprism.models.network import PartNet
from reprism.report.charts import cmc_figure, evaluations_figure, loss_figure, read_log
from reprism.report.pages import Picture, Table, figure_uri, picture_uri, render
from reprism.report.ranked import draw_ranked_lists
from reprism.training.recipes import Recipe


def demo_page(
    out: Path,
    run: Path,
    recipe: Recipe,
    dataset: ReIDDataset,
    model: PartNet,
    trained: Evaluation,
    metrics: dict[str, Any],
    site: dict[str, Any] | None = None,
) -> str:
    """Return the demo's report, a whole HTML document.

    Args:
        out: The demo's folder as the user named it; the commands on the page name it so too.
        run: Path of the run folder at this moment; its logs are read.
        recipe: The recipe that was trained.
        dataset: The data set that was measured on.
        model: The trained network.
        trained: Its evaluation.
        metrics: The contents of the demo's ``metrics.json``.
        site: What was seen on a drawn site (:func:`reprism.report.site_section.site_section`), if one was watched.
    """
    before, after = metrics["before"], metrics["after"]
    chance = _percent(metrics["chance"])
    protocol = trained.describe()
    return render(
        "demo.html",
        title="Reprism demo",
        counts=metrics["counts"],
        seed=metrics["seed"],
        chance=chance,
        figures=[
            ("Rank-1", _percent(after["rank1"]), f"{_percent(before['rank1'])} before training, {chance} by chance"),
            ("mAP", _percent(after["mAP"]), f"{_percent(before['mAP'])} before training"),
            ("Time", f"{sum(metrics['timings'].values()):.0f} s", "drawing, training and measuring"),
        ],
        scores=_scores(before, after),
        cmc=Picture(
            figure_uri(cmc_figure({"after": after["cmc"], "before": before["cmc"]})),
            "Cumulative matching characteristic before and after training",
            "CMC: the share of queries with the right person among the first k.",
        ),
        protocol=f"{protocol[0].upper()}{protocol[1:]}",
        curves=_curves(run, metrics),
        lists=_lists(dataset, trained, metrics["settings"]["list_length"]),
        sheet=_sheet(metrics),
        site=site,
        parts=_parts(metrics["counts"]),
        facts=_facts(recipe, model, metrics),
        recipe=_whole_recipe(recipe),
        timings=metrics["timings"],
        model=shlex.quote(str(out / "run/model.safetensors")),
        model_in_python=repr(str(out / "run/model.safetensors")),
        data=shlex.quote(str(out / "data")),
        run=shlex.quote(str(out / "run")),
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _scores(before: dict[str, Any], after: dict[str, Any]) -> Table:
    names = {
        "rank1": "Rank-1: the nearest image is the person",
        "rank5": "Rank-5: the person is among the nearest five",
        "rank10": "Rank-10",
        "mAP": "mAP: mean average precision",
        "mINP": "mINP: how soon the hardest match is found",
        "same_camera": "Nearest image is from the query's own camera",
    }
    rows = [(name, _percent(before[key]), _percent(after[key])) for key, name in names.items()]
    return Table(("", "before", "after"), rows)


def _curves(run: Path, metrics: dict[str, Any]) -> list[Picture]:
    return [
        Picture(
            figure_uri(loss_figure(read_log(run))),
            "Losses over training steps",
            "Losses (thin: as logged, thick: smoothed). Total = triplet + 2 × cross-entropy.",
        ),
        Picture(
            figure_uri(evaluations_figure(metrics["evaluations"])),
            "Rank-1 and mAP over epochs",
            "Rank-1 and mAP on query and gallery during training. Nothing was chosen by them: what counts is the "
            "network after the last epoch.",
        ),
    ]


def _lists(dataset: ReIDDataset, trained: Evaluation, k: int) -> dict[str, Picture]:
    """Return pictures of ranked lists by the kind of their queries."""
    kinds = _chosen_queries(trained.metrics.average_precision, [sample.pid for sample in dataset.query])
    lists = trained.ranked_lists([query for queries in kinds.values() for query in queries], k)
    by_query = {one.query: one for one in lists}
    pictures = {}
    for kind, queries in kinds.items():
        shown = [by_query[query] for query in queries]
        captions = [_list_caption(one, trained.metrics) for one in shown]
        right, total = sum(int(one.correct.sum()) for one in shown), sum(len(one.correct) for one in shown)
        pictures[kind] = Picture(
            picture_uri(draw_ranked_lists(shown, dataset.query, dataset.gallery, captions)),
            f"Ranked lists of the {kind} queries: {right} of the {total} images show the person",
            least_width=620,
        )
    return pictures


def _chosen_queries(average_precision: np.ndarray, pids: Sequence[int | str]) -> dict[str, list[int]]:
    """Return the indices of the queries to show, by kind.

    At most one is of each person; ties are in query order, and lost queries are left out.
    """
    valid = np.flatnonzero(~np.isnan(average_precision))
    score = average_precision[valid]
    orders = {
        "easiest": np.argsort(-score, kind="stable"),
        "hardest": np.argsort(score, kind="stable"),
        "median": np.argsort(np.abs(score - np.median(score)), kind="stable"),
    }
    wanted = {"easiest": 2, "hardest": 3, "median": 2}
    taken: set[int | str] = set()
    chosen: dict[str, list[int]] = {}
    for kind, order in orders.items():
        found: list[int] = []
        for query in valid[order].tolist():
            if len(found) < wanted[kind] and pids[query] not in taken:
                taken.add(pids[query])
                found.append(query)
        if found:
            chosen[kind] = found
    return {kind: chosen[kind] for kind in ("easiest", "median", "hardest") if kind in chosen}


def _list_caption(one: RankedList, metrics: RankingMetrics) -> str:
    return (
        f"AP {100 * metrics.average_precision[one.query]:.1f} %, "
        f"first match at rank {metrics.first_match_rank[one.query]}"
    )


def _sheet(metrics: dict[str, Any]) -> Picture:
    cameras = metrics["counts"]["cameras"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sheet.png"
        contact_sheet(path, identities=3, cameras=cameras, seed=metrics["seed"])
        with Image.open(path) as sheet:
            uri = picture_uri(sheet.convert("RGB"))
    return Picture(
        uri,
        f"Three drawn people, each seen twice by each of {cameras} cameras",
        f"Three people of this population, one a row, seen twice by each of the {cameras} cameras (two columns each).",
        least_width=520,
    )


def _parts(counts: dict[str, int]) -> Table:
    rows = [
        ("train", counts["train_identities"], counts["train_images"]),
        ("query", counts["query_identities"], counts["query_images"]),
        ("gallery", f"{counts['query_identities']} and strangers", counts["gallery_images"]),
    ]
    return Table(("part", "people", "images"), rows)


def _facts(recipe: Recipe, model: PartNet, metrics: dict[str, Any]) -> Table:
    environment = metrics["environment"]
    parts = model.partition.parts
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    hardware = environment["gpu"] or environment["cpu"] or platform.processor() or platform.machine()
    optimizer, loss, data = recipe.optimizer, recipe.loss, recipe.data
    rows: list[tuple[str, str]] = [
        (
            "Partition",
            f"{recipe.model.partition}: {len(parts)} parts ({', '.join(part.name for part in parts)})",
        ),
        ("Backbone", f"{recipe.model.backbone}, random starting weights"),
        ("Parameters", f"{sum(each.numel() for each in model.parameters()):,}"),
        ("Descriptor", f"{model.descriptor_dim} numbers, {model.part_dim} for each part"),
        (
            "Loss",
            f"batch-hard triplet (margin {loss.margin:g}) + {loss.ce_weight:g} × cross-entropy of every part",
        ),
        (
            "Training",
            f"{optimizer.epochs} epochs, batches of {data.ids_per_batch} people × {data.images_per_id} images, Adam "
            f"(AMSGrad), learning rate {optimizer.lr:g} falling along a cosine, "
            f"weight decay {optimizer.weight_decay:g}, mirroring",
        ),
        ("Precision", recipe.trainer.precision),
        ("Seed", str(recipe.seed)),
        ("Machine", f"{hardware}, {environment['threads']} threads, {environment['platform']}"),
        ("Versions", f"Python {environment['python']}, {packages}"),
    ]
    return Table(("", ""), rows, numbers=False)


def _whole_recipe(recipe: Recipe) -> str:
    values = {**recipe.model_dump(mode="json"), "data": {**recipe.data.model_dump(mode="json"), "root": "data"}}
    return json.dumps(values, indent=2)
