"""What the demo's report says: the words, tables and pictures of its one page."""

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
from reprism.report import report
from reprism.report.ranked import draw_ranked_lists
from reprism.report.report import Html, Section
from reprism.training.recipes import Recipe


def demo_page(
    out: Path,
    run: Path,
    recipe: Recipe,
    dataset: ReIDDataset,
    model: PartNet,
    trained: Evaluation,
    metrics: dict[str, Any],
) -> str:
    """The demo's report, a whole HTML document.

    Args:
        out: The demo's folder as the user named it; the commands on the page name it so too.
        run: Where the run folder lies now; its logs are read.
        recipe: What was trained.
        dataset: What was measured on.
        model: The trained network.
        trained: Its evaluation.
        metrics: The contents of the demo's ``metrics.json``.
    """
    sections = [
        Section("What came out", _results(metrics, trained)),
        Section("Training", _training(run, metrics)),
        Section("Ranked lists", _lists(dataset, trained, metrics["settings"]["list_length"])),
        Section("The people", _people(metrics)),
        Section("What was run", _what_was_run(recipe, model, metrics)),
        Section("How long it took", _timings(metrics)),
        Section("How to go on", _how_to_go_on(out)),
    ]
    return report.page("Reprism demo", sections, lead=_lead(metrics))


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _lead(metrics: dict[str, Any]) -> list[str]:
    counts, before, after = metrics["counts"], metrics["before"], metrics["after"]
    return [
        report.paragraph(
            "Person re-identification: given a picture of a person from one camera, find the same person among what "
            f"other cameras saw. Here a network learned it from {counts['train_images']} drawn pictures of "
            f"{counts['train_identities']} people, starting from random weights, and was then asked for "
            f"{counts['query_identities']} others that it had never seen."
        ),
        report.headline(
            [
                (
                    "Rank-1",
                    _percent(after["rank1"]),
                    f"{_percent(before['rank1'])} before training, {_percent(metrics['chance'])} by chance",
                ),
                ("mAP", _percent(after["mAP"]), f"{_percent(before['mAP'])} before training"),
                ("Time", f"{sum(metrics['timings'].values()):.0f} s", "drawing, training and measuring"),
            ]
        ),
    ]


def _results(metrics: dict[str, Any], trained: Evaluation) -> list[str]:
    before, after, counts = metrics["before"], metrics["after"], metrics["counts"]
    said = trained.describe()
    rows = [
        (name, _percent(before[key]), _percent(after[key]))
        for key, name in (
            ("rank1", "Rank-1: the nearest image is the person"),
            ("rank5", "Rank-5: the person is among the nearest five"),
            ("rank10", "Rank-10"),
            ("mAP", "mAP: mean average precision"),
            ("mINP", "mINP: how soon the hardest match is found"),
            ("same_camera", "Nearest image is from the query's own camera"),
        )
    ]
    return [
        report.side_by_side(
            report.table(("", "before", "after"), rows),
            report.image(
                report.figure_uri(report.cmc_figure({"after": after["cmc"], "before": before["cmc"]})),
                "Cumulative matching characteristic before and after training",
                "CMC: the share of queries with the right person among the first k.",
            ),
        ),
        f"“Before” is the very network that training started from (seed {metrics['seed']}): random weights, measured "
        "by the same code on the same images. "
        f"A random order would have a rank-1 of {_percent(metrics['chance'])}. An untrained network can fall below "
        "that: it finds pictures alike that were taken at the same place, and there the person is not to be found, "
        "for pictures of the person by the query's own camera do not count (last row of the table).",
        "Protocol: "
        f"{counts['query_images']} queries, each ranked alone against {counts['gallery_images']} gallery images, of "
        f"which {counts['distractors']} are distractors that show nobody looked for. "
        f"{said[0].upper()}{said[1:]}.",
    ]


def _training(run: Path, metrics: dict[str, Any]) -> list[str]:
    return [
        report.side_by_side(
            report.image(
                report.figure_uri(report.loss_figure(report.read_log(run))),
                "Losses over training steps",
                "Losses (thin: as logged, thick: smoothed). Total = triplet + 2 × cross-entropy.",
            ),
            report.image(
                report.figure_uri(report.evaluations_figure(metrics["evaluations"])),
                "Rank-1 and mAP over epochs",
                "Rank-1 and mAP on query and gallery during training. Nothing was chosen by them: what counts is the "
                "network after the last epoch.",
            ),
        )
    ]


def _lists(dataset: ReIDDataset, trained: Evaluation, k: int) -> list[str]:
    kinds = _chosen_queries(trained.metrics.average_precision, [sample.pid for sample in dataset.query])
    chosen = [place for places in kinds.values() for place in places]
    lists = trained.ranked_lists(chosen, k)
    by_query = {one.query: one for one in lists}
    pieces: list[str] = [
        "What the trained network finds, nearest first. Green with a tick: the person looked for. Red with a cross: "
        "somebody else. Under each picture its distance, then its identity and camera (identity 0: a distractor). "
        "What the query's own camera saw of the person is left out. The queries were chosen by their average precision "
        "(AP) alone: the highest, those about the median, and the lowest; of equal ones the first, and of each person "
        "one at most."
    ]
    for kind, places in kinds.items():
        drawn = draw_ranked_lists(
            [by_query[place] for place in places],
            dataset.query,
            dataset.gallery,
            [_list_caption(by_query[place], trained.metrics) for place in places],
        )
        right = sum(int(by_query[place].correct.sum()) for place in places)
        shown = sum(len(by_query[place].correct) for place in places)
        pieces += [
            report.subheading(f"The {kind} queries"),
            report.image(
                report.picture_uri(drawn),
                f"Ranked lists of the {kind} queries: {right} of the {shown} images show the person",
                least_width=620,
            ),
        ]
    return pieces


def _chosen_queries(average_precision: np.ndarray, pids: Sequence[int | str]) -> dict[str, list[int]]:
    """Places of queries to show, by kind: at most one of each person, ties in query order, lost queries never."""
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
        places: list[int] = []
        for place in valid[order].tolist():
            if len(places) < wanted[kind] and pids[place] not in taken:
                taken.add(pids[place])
                places.append(place)
        if places:
            chosen[kind] = places
    return {kind: chosen[kind] for kind in ("easiest", "median", "hardest") if kind in chosen}


def _list_caption(one: RankedList, metrics: RankingMetrics) -> str:
    return (
        f"AP {100 * metrics.average_precision[one.query]:.1f} %, "
        f"first match at rank {metrics.first_match_rank[one.query]}"
    )


def _people(metrics: dict[str, Any]) -> list[str]:
    counts, seed = metrics["counts"], metrics["seed"]
    cameras = counts["cameras"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sheet.png"
        contact_sheet(path, identities=3, cameras=cameras, seed=seed)
        with Image.open(path) as sheet:
            uri = report.picture_uri(sheet.convert("RGB"))
    return [
        "Nobody here exists: the people are drawn by a program. Each camera has its own background, light, colour "
        "cast, sharpness and habitual angle; what tells people apart is what they wear and carry. Boxes slip, and at "
        "times something stands in the way.",
        report.image(
            uri,
            f"Three drawn people, each seen twice by each of {cameras} cameras",
            f"Three people of this population, one a row, seen twice by each of the {cameras} cameras (two columns "
            "each).",
            least_width=520,
        ),
        report.table(
            ("part", "people", "images"),
            [
                ("train", counts["train_identities"], counts["train_images"]),
                ("query", counts["query_identities"], counts["query_images"]),
                ("gallery", f"{counts['query_identities']} and strangers", counts["gallery_images"]),
            ],
        ),
        "Figures on drawn people say that the software works. They say nothing about photographs.",
    ]


def _what_was_run(recipe: Recipe, model: PartNet, metrics: dict[str, Any]) -> list[str]:
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
    final = {**recipe.model_dump(mode="json"), "data": {**recipe.data.model_dump(mode="json"), "root": "data"}}
    return [
        report.table(("", ""), rows, numbers=False),
        report.details("The whole recipe", report.code_block(json.dumps(final, indent=2))),
    ]


def _timings(metrics: dict[str, Any]) -> list[str]:
    timings = metrics["timings"]
    rows: list[tuple[str, str]] = [(step, f"{seconds:.1f} s") for step, seconds in timings.items()]
    rows.append((Html("<strong>in all</strong>"), f"{sum(timings.values()):.1f} s"))
    return [report.table(("step", "time"), rows)]


def _how_to_go_on(out: Path) -> list[str]:
    model, data, run = (shlex.quote(str(out / name)) for name in ("run/model.safetensors", "data", "run"))
    return [
        "Measure this network again, from its file:",
        report.code_block(f"reprism evaluate {model} --data market1501:{data}"),
        "Train longer on the same people:",
        report.code_block(f"reprism train {run} --out runs/longer --optimizer.epochs 90"),
        "Train the network of the paper on Market-1501 (a GPU is advisable):",
        report.code_block("reprism train scr-market1501 --data.root /path/to/Market-1501-v15.09.15"),
        "Describe pictures of your own, cropped to one person each; near descriptors are alike:",
        report.code_block(
            "import reprism\n\n"
            f"embedder = reprism.Embedder({str(out / 'run/model.safetensors')!r})\n"
            'descriptors = embedder.embed(["first.jpg", "second.jpg"])\n'
            "similarity = descriptors[0] @ descriptors[1]"
        ),
    ]
