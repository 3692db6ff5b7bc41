"""The demo: draw people, train a small part network on them, measure before and after, and show what came out.

It takes the way that a user takes with data of their own: render (instead of collect), train by a recipe, load the
model file, embed, evaluate, look at ranked lists. Everybody in it is drawn; nothing is downloaded.
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reprism._version import __version__
from reprism.data import open_dataset
from reprism.data.records import ReIDDataset
from reprism.data.rendered import contact_sheet
from reprism.data.rendered_layouts import render_market1501
from reprism.embedding import Embedder
from reprism.evaluation.ranking import RankingMetrics, evaluate
from reprism.figures import report
from reprism.figures.ranked import RankedList, draw_ranked_lists, ranked_lists
from reprism.figures.report import Html, Section
from reprism.models.checkpoint import load, save
from reprism.models.network import PartNet, build_model
from reprism.training.recipes import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    TrainerSettings,
    write_recipe,
)
from reprism.training.run import train

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``."""

_MADE_BY = "reprism demo"
_CONTENTS = frozenset({"data", "run", "report.html", "metrics.json"})


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """How large the demo is. By default it takes two to three minutes on two cores.

    Attributes:
        train_identities: people to train on.
        test_identities: other people, to look for.
        cameras: places that all of them are seen at, 2 to 6.
        images_per_camera: how often a camera sees a person; of a test person, once as a query.
        distractors: gallery images of strangers, or of nobody.
        size: height and width of the images in pixels.
        partition: the network's branches and parts.
        backbone: a timm network, trained from random weights.
        part_dim: width of a part's feature.
        epochs: in each, every training person is shown once with four images.
        lr: learning rate at its highest; it rises over the first epoch and falls along half a cosine.
        evaluate_every: epochs between evaluations during training.
        list_length: images in a ranked list.
    """

    train_identities: int = 96
    test_identities: int = 32
    cameras: int = 4
    images_per_camera: int = 3
    distractors: int = 32
    size: tuple[int, int] = (96, 48)
    partition: str = "p1+p2(s2c2)"
    backbone: str = "resnet10t"
    part_dim: int = 64
    epochs: int = 25
    lr: float = 4e-3
    evaluate_every: int = 5
    list_length: int = 8

    def recipe(self, root: Path, seed: int) -> Recipe:
        """The training run, on the data set in ``root``."""
        return Recipe(
            name="demo",
            seed=seed,
            data=DataSettings(
                name="market1501",
                root=root,
                size=self.size,
                cache="ram",
                # Both cores are busy with the network; a process more would only take turns with it.
                workers=0,
            ),
            model=ModelSettings(
                partition=self.partition, backbone=self.backbone, part_dim=self.part_dim, pretrained=False
            ),
            optimizer=OptimizerSettings(epochs=self.epochs, lr=self.lr, schedule="cosine", warmup=1),
            # fp32: on CPUs mixed precision gains nothing for a network this small, and figures compare better.
            trainer=TrainerSettings(precision="fp32", evaluate_every=self.evaluate_every, log_every=2),
        )


def run_demo(
    out: Path,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    settings: DemoSettings | None = None,
) -> dict[str, Any]:
    """Draw a data set, train on it, evaluate before and after, and write a report.

    Args:
        out: the folder for ``report.html``, ``metrics.json``, ``data/`` (in the layout of Market-1501) and
            ``run/`` (the training run). An earlier demo there is replaced, once the new one is complete.
        seed: of the people drawn, of the starting weights and of the batches.
        progress: called while people are drawn, and while images are embedded; training draws a bar of its own.
        settings: sizes; those of :class:`DemoSettings` by default.

    Returns:
        The contents of ``metrics.json``: ``before`` and ``after`` (mAP, mINP, rank1 … as fractions, the CMC curve, and
        ``same_camera``: queries whose nearest image is from their own camera), ``chance`` (the rank-1 that a random
        order has on average), ``seconds`` in all, ``timings`` by step, counts, the recipe and the versions.

    Raises:
        FileExistsError: ``out`` is a file, or a folder with anything in it that no demo put there.
        ValueError: the settings fit nothing, or ``seed`` is negative.
    """
    settings = settings or DemoSettings()
    report_progress = progress or _ignore
    clock = _Clock()
    out = Path(out)
    with _replaced_when_whole(out) as folder:
        with clock.step("drawing"):
            render_market1501(
                folder / "data",
                train_identities=settings.train_identities,
                test_identities=settings.test_identities,
                cameras=settings.cameras,
                images_per_camera=settings.images_per_camera,
                distractors=settings.distractors,
                size=settings.size,
                seed=seed,
                progress=lambda done, total: report_progress("drawing people", done, total),
            )
        recipe = settings.recipe(folder / "data", seed)
        dataset = open_dataset(recipe.data.name, folder / "data")
        with clock.step("evaluating before"):
            untrained = _starting_network(recipe, dataset.num_train_identities)
            before = _measure(untrained, dataset, recipe, "before", report_progress)
        with clock.step("training"):
            result = train(recipe, folder / "run", progress=report_progress)
        model_file = _settle(result.model, recipe, folder / "run", out.resolve() / "data")
        with clock.step("evaluating after"):
            after = _measure(load(model_file), dataset, recipe, "after", report_progress)
        metrics: dict[str, Any] = {
            "made_by": _MADE_BY,
            "version": __version__,
            "seed": seed,
            "before": before.summary,
            "after": after.summary,
            "chance": _chance(dataset),
            "counts": _counts(dataset, settings),
            "evaluations": result.metrics["evaluations"],
            "settings": asdict(settings),
            "environment": json.loads((folder / "run" / "environment.json").read_text(encoding="utf-8")),
        }
        with clock.step("writing the report"):
            sections = _sections(out, folder, recipe, dataset, result.model, before, after, metrics)
        metrics["timings"] = clock.seconds
        metrics["seconds"] = clock.total()
        sections.insert(-1, _timings(metrics))
        html = report.page("Reprism demo", sections, lead=_lead(metrics))
        (folder / "report.html").write_text(html, encoding="utf-8")
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return metrics


def _ignore(what: str, done: int, total: int) -> None:
    """The progress that nobody watches."""


# ---- the folder ------------------------------------------------------------------------------------------------------


@contextmanager
def _replaced_when_whole(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place if all goes well, and is removed if not."""
    out = out.resolve()
    _refuse_foreign(out)
    mark = uuid.uuid4().hex[:8]
    unfinished, old = (out.with_name(f".{out.name}.{mark}.{end}") for end in ("unfinished", "old"))
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _refuse_foreign(out)  # minutes have passed
        if out.exists():
            out.rename(old)
        try:
            unfinished.rename(out)
        except BaseException:
            if old.exists():
                old.rename(out)
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)


def _refuse_foreign(out: Path) -> None:
    """Raise FileExistsError unless ``out`` is absent, empty, or holds an earlier demo and nothing else."""
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file: choose a folder for the demo by --out")
    if out.is_mount():
        raise FileExistsError(f"{out} is a mount point, which cannot be replaced: choose a folder in it by --out")
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    try:
        made_by = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["made_by"]
    except (OSError, ValueError, KeyError, TypeError):
        made_by = None
    foreign = sorted(names - _CONTENTS)
    if made_by != _MADE_BY or foreign:
        found = f"holds {foreign[0]}, which no demo wrote" if foreign else "holds no earlier demo"
        raise FileExistsError(f"{out} is not empty and {found}: choose another folder by --out, or remove it")


def _settle(model: PartNet, recipe: Recipe, run: Path, root: Path) -> Path:
    """Let run and model name the data's folder by its final place; returns the model file."""
    final = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
    write_recipe(final, run / "recipe.json")
    return save(model, run / "model.safetensors", recipe=final.model_dump(mode="json"))


class _Clock:
    """Seconds by step, and in all."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 1)

    def total(self) -> float:
        return round(time.perf_counter() - self.started, 1)


# ---- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Measured:
    query: np.ndarray
    gallery: np.ndarray
    metrics: RankingMetrics
    same_camera: float
    summary: dict[str, Any] = field(default_factory=dict)


def _starting_network(recipe: Recipe, classes: int) -> PartNet:
    """The network as training starts it: the same seed draws the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return build_model(
            recipe.model.partition,
            recipe.model.backbone,
            num_classes=classes,
            part_dim=recipe.model.part_dim,
            size=recipe.data.size,
        )


def _measure(model: PartNet, dataset: ReIDDataset, recipe: Recipe, when: str, progress: Progress) -> _Measured:
    embedder = Embedder(model, recipe.data.eval_batch, recipe.trainer.flip_test, precision=recipe.trainer.precision)
    query, gallery = (
        embedder.embed_samples(
            samples,
            progress=lambda done, total, part=part: progress(f"embedding {part} ({when})", done, total),  # type: ignore[misc]
        )
        for part, samples in (("query", dataset.query), ("gallery", dataset.gallery))
    )
    metrics = evaluate(
        query,
        gallery,
        [sample.pid for sample in dataset.query],
        [sample.pid for sample in dataset.gallery],
        [sample.camid for sample in dataset.query],
        [sample.camid for sample in dataset.gallery],
        max_rank=20,
    )
    nearest = ranked_lists(query, gallery, dataset.query, dataset.gallery, k=1)
    same_camera = np.mean([dataset.gallery[one.gallery[0]].camid == dataset.query[one.query].camid for one in nearest])
    summary = {**metrics.as_dict(), "cmc": metrics.cmc.tolist(), "same_camera": float(same_camera)}
    return _Measured(query, gallery, metrics, float(same_camera), summary)


def _chance(dataset: ReIDDataset) -> float:
    """The rank-1 accuracy of a random order, on average: the mean share of true matches among the candidates."""
    shares = []
    for query in dataset.query:
        same = [sample.camid == query.camid for sample in dataset.gallery if sample.pid == query.pid]
        matches = same.count(False)
        shares.append(matches / (len(dataset.gallery) - same.count(True)))
    return float(np.mean(shares))


def _counts(dataset: ReIDDataset, settings: DemoSettings) -> dict[str, int]:
    return {
        "cameras": settings.cameras,
        "train_images": len(dataset.train),
        "train_identities": dataset.num_train_identities,
        "query_images": len(dataset.query),
        "query_identities": dataset.num_query_identities,
        "gallery_images": len(dataset.gallery),
        "distractors": sum(sample.pid == 0 for sample in dataset.gallery),
    }


# ---- the report ------------------------------------------------------------------------------------------------------


def _sections(
    out: Path,
    folder: Path,
    recipe: Recipe,
    dataset: ReIDDataset,
    model: PartNet,
    before: _Measured,
    after: _Measured,
    metrics: dict[str, Any],
) -> list[Section]:
    return [
        Section("What came out", _results(metrics, before.metrics, recipe)),
        Section("Training", _training(folder / "run", metrics)),
        Section("Ranked lists", _lists(dataset, after, metrics["settings"]["list_length"])),
        Section("The people", _people(metrics)),
        Section("What was run", _what_was_run(recipe, model, metrics)),
        Section("How to go on", _how_to_go_on(out)),
    ]


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
                ("Time", f"{metrics['seconds']:.0f} s", "drawing, training and measuring"),
            ]
        ),
    ]


def _results(metrics: dict[str, Any], ranking: RankingMetrics, recipe: Recipe) -> list[str]:
    before, after, counts = metrics["before"], metrics["after"], metrics["counts"]
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
        f"which {counts['distractors']} are distractors that show nobody looked for. Gallery images with the query's "
        "person and camera are ignored. "
        f"Euclidean distance of descriptors (image plus mirrored image, then one L2 norm) at "
        f"{recipe.data.size[0]}×{recipe.data.size[1]} pixels; average precision by {ranking.ap}; mean over the "
        f"{ranking.num_valid_queries} queries with a match ({len(ranking.lost_queries)} lost); not re-ranked.",
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


def _lists(dataset: ReIDDataset, after: _Measured, k: int) -> list[str]:
    kinds = _chosen_queries(after.metrics.average_precision, [sample.pid for sample in dataset.query])
    chosen = [place for places in kinds.values() for place in places]
    lists = ranked_lists(after.query, after.gallery, dataset.query, dataset.gallery, chosen, k)
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
            [_list_caption(by_query[place], after.metrics) for place in places],
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


def _timings(metrics: dict[str, Any]) -> Section:
    rows: list[tuple[Html | str, str]] = [(step, f"{seconds:.1f} s") for step, seconds in metrics["timings"].items()]
    rows.append((Html("<strong>in all</strong>"), f"{metrics['seconds']:.1f} s"))
    return Section("How long it took", [report.table(("step", "time"), rows)])


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
