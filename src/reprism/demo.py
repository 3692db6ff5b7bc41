"""The demo: draw people, train a small part network on them, measure before and after, and show what came out.

It takes the way that a user takes with data of their own: render (instead of collect), train by a recipe, load the
model file, embed, evaluate, look at ranked lists, search a gallery. Everybody in it is drawn; nothing is downloaded.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reprism._version import __version__
from reprism.data import open_dataset
from reprism.data.records import ReIDDataset, Sample, as_images
from reprism.demo_site import SiteSettings, can_watch, site_metrics, watch_site
from reprism.drawn.layouts import render_market1501
from reprism.embedding import Embedder
from reprism.evaluation.protocol import Protocol
from reprism.evaluator import Evaluation, evaluate_model
from reprism.files import write_json, write_whole
from reprism.models.checkpoint import load, save
from reprism.models.network import PartNet, build_model
from reprism.progress import Progress, step
from reprism.report.demo_page import demo_page
from reprism.report.site_section import site_section
from reprism.training.recipes import (
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    Recipe,
    TrainerSettings,
    write_recipe,
)
from reprism.training.run import train
from reprism.training.stopping import TrainingInterrupted

if TYPE_CHECKING:
    from reprism.gallery.search import Match


_MADE_BY = "reprism demo"
_CONTENTS = frozenset({
    "data", "run", "gallery", "cameras", "tracklets", "report.html", "search.html", "metrics.json",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Size of the demo. The default takes three to four minutes on two cores.

    Attributes:
        train_identities: People to train on.
        test_identities: Other people, to look for.
        cameras: Places that all of them are seen at, 2 to 6.
        images_per_camera: Number of times that a camera sees a person; of a test person, once as a query.
        distractors: Gallery images of strangers, or of nobody.
        size: Height and width of the images in pixels.
        partition: The network's branches and parts.
        backbone: A timm network, trained from random weights.
        part_dim: Width of a part's feature.
        epochs: In each, every training person is shown once with four images.
        lr: Peak learning rate; it rises over the first epoch and falls along half a cosine.
        evaluate_every: Epochs between evaluations during training.
        list_length: Images in a ranked list.
        site: Size of the site whose cameras are watched after training; None: without.
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
    site: SiteSettings | None = field(default_factory=SiteSettings)

    def recipe(self, root: Path, seed: int) -> Recipe:
        """Return the recipe of the training run, on the data set in ``root``."""
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
    """Draw a data set, train on it, evaluate before and after, watch a drawn site, and write a report.

    Args:
        out: The folder for ``report.html``, ``metrics.json``, ``data/`` (in the layout of Market-1501) and
            ``run/`` (the training run). An earlier demo there is replaced, once the network of the new one is
            measured. Where the packages for video are installed, ``cameras/`` (drawn videos) and ``tracklets/`` (the
            gallery of what was seen there) come in then, and into the report.
        seed: Random seed of the people drawn, the starting weights and the batches.
        progress: Called while people are drawn, and while images are embedded; training draws a bar of its own.
        settings: Sizes (default: ``DemoSettings()``).

    Returns:
        The contents of ``metrics.json``: ``before`` and ``after`` (mAP, mINP, rank1 … as fractions, the CMC curve, and
        ``same_camera``: queries whose nearest image is from their own camera), ``chance`` (the rank-1 that a random
        order has on average), ``site`` (:func:`reprism.demo_site.site_metrics`; None if no site was watched),
        ``seconds`` in all, ``timings`` by step, counts, settings and versions.

    Raises:
        FileExistsError: ``out`` is a file, or a folder with anything in it that no demo put there.
        ValueError: The settings fit nothing, or ``seed`` is negative.
    """
    settings = settings or DemoSettings()
    progress = progress or _ignore
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
                progress=step(progress, "drawing people"),
            )
        recipe = settings.recipe(folder / "data", seed)
        dataset = open_dataset(recipe.data.name, folder / "data")
        with clock.step("evaluating before"):
            untrained = _starting_network(recipe, dataset.num_train_identities)
            before = _measure(untrained, dataset, recipe, "before", progress)
        with clock.step("training"):
            try:
                result = train(recipe, folder / "run", progress=progress)
            except TrainingInterrupted as stop:
                raise TrainingInterrupted(stop.signum, "A demo begins anew: nothing of this one is kept.") from None
        model_file = _settle(result.model, recipe, folder / "run", out.resolve() / "data")
        with clock.step("evaluating after"):
            after = _measure(load(model_file), dataset, recipe, "after", progress)
        metrics: dict[str, Any] = {
            "made_by": _MADE_BY,
            "version": __version__,
            "seed": seed,
            "before": _summary(before),
            "after": _summary(after),
            "chance": _chance(dataset),
            "site": None,
            "counts": _counts(dataset, settings),
            "evaluations": result.metrics["evaluations"],
            "settings": asdict(settings),
            "timings": clock.seconds,
            "environment": json.loads((folder / "run" / "environment.json").read_text(encoding="utf-8")),
        }
        _write(folder, demo_page(out, folder / "run", recipe, dataset, result.model, after, metrics), metrics, clock)
    if settings.site is not None and can_watch():
        # Rows name their videos, which are in their place now.
        with clock.step("cameras"):
            seen, found = watch_site(out, out / "run" / "model.safetensors", settings.site, seed, progress)
        metrics["site"] = site_metrics(seen, found)
        site = site_section(seen, found, metrics["site"])
        data = open_dataset(recipe.data.name, out / "data")
        page = demo_page(out, out / "run", recipe, data, result.model, replace(after, dataset=data), metrics, site)
        _write(out, page, metrics, clock)
    return metrics


def _write(folder: Path, page: str, metrics: dict[str, Any], clock: _Clock) -> None:
    write_whole(folder / "report.html", page)
    metrics["seconds"] = clock.total()
    write_json(folder / "metrics.json", metrics)


def search_demo(
    out: Path, people: int = 6, top: int = 6, progress: Progress | None = None
) -> list[tuple[Sample, list[Match]]]:
    """Put the images of a finished demo's gallery into a gallery on disk, and look there for some of its queries.

    Args:
        out: The folder of :func:`run_demo`; gets ``gallery/`` and ``search.html``.
        people: Number of people to look for, each in all cameras but the query's own.
        top: Number of matches of each.
        progress: Called while images go in.

    Returns:
        The queries, each with its matches, best first.

    Raises:
        GalleryError: LanceDB is not installed, or there is a gallery already.
    """
    from reprism.gallery.filters import Filter
    from reprism.gallery.indexing import index_images
    from reprism.gallery.inputs import find_items
    from reprism.gallery.table import Gallery
    from reprism.report.search_page import write_search_page

    progress = progress or _ignore
    # fp32 as in training: this network is too small for mixed precision to pay.
    model = out / "run" / "model.safetensors"
    embedder = Embedder(model, precision="fp32")
    gallery = Gallery.create(out / "gallery", embedder, model=model)
    items = find_items([out / "data" / "bounding_box_test"], naming="market1501")
    index_images(gallery, embedder, items, progress=step(progress, "indexing"))
    one_each = {sample.pid: sample for sample in as_images(open_dataset("market1501", out / "data").query)}
    queries = list(one_each.values())[:people]
    answers = []
    for query, descriptor in zip(queries, embedder.embed([query.path for query in queries]), strict=True):
        elsewhere = Filter(not_cameras=(str(query.camid),))
        answers += [(query, matches) for matches in gallery.search(descriptor, top, elsewhere)]
    write_search_page(
        out / "search.html",
        gallery,
        [(str(query.path), matches) for query, matches in answers],
        "Seen in other cameras",
    )
    return answers


def _ignore(what: str, done: int, total: int) -> None:
    """Ignore progress."""


# ---- the folder ------------------------------------------------------------------------------------------------------


@contextmanager
def _replaced_when_whole(out: Path) -> Iterator[Path]:
    """Make a folder beside ``out`` that replaces it if all goes well, and is removed if not."""
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
    """Name the data's final folder in run and model; return the model file."""
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


def _starting_network(recipe: Recipe, classes: int) -> PartNet:
    """Build the network as training starts it: the same seed draws the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return build_model(
            recipe.model.partition,
            recipe.model.backbone,
            num_classes=classes,
            part_dim=recipe.model.part_dim,
            size=recipe.data.size,
        )


def _measure(model: PartNet, dataset: ReIDDataset, recipe: Recipe, when: str, progress: Progress) -> Evaluation:
    return evaluate_model(
        model,
        dataset,
        Protocol(flip=recipe.trainer.flip_test, max_rank=20),
        batch_size=recipe.data.eval_batch,
        precision=recipe.trainer.precision,
        progress=lambda what, done, total: progress(f"{what} ({when})", done, total),
    )


def _summary(found: Evaluation) -> dict[str, Any]:
    dataset, metrics = found.dataset, found.metrics
    nearest = found.ranked_lists(range(len(dataset.query)), top=1)
    same_camera = [dataset.gallery[one.gallery[0]].camid == dataset.query[one.query].camid for one in nearest]
    return {**metrics.as_dict(), "cmc": metrics.cmc.tolist(), "same_camera": float(np.mean(same_camera))}


def _chance(dataset: ReIDDataset) -> float:
    """Return the expected rank-1 accuracy of a random order: the mean share of true matches among the candidates."""
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
