"""Put images and tracklets into a gallery from many machines: a Ray cluster decodes, describes and writes.

Ray Data streams the items through tasks that decode, actors that hold the network (on a GPU where there is one), and
tasks that write files of rows (Lance fragments) to where the gallery lies. Descriptors never pass through the process
that began it, which only commits those files, many at a time.

Each item comes in exactly once. A file of rows is part of the gallery from the moment that it is committed, and of each
item one file is. When a machine is lost, Ray makes again what it was making; what two tasks wrote of one item is
committed once. When the process that began it is lost, the next run skips what is in the gallery.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reprism.embedding import Embedder
from reprism.gallery.database import GalleryError, local
from reprism.gallery.indexing import Indexing, batches_of
from reprism.gallery.inputs import IndexItem
from reprism.gallery.rows import row_id
from reprism.gallery.table import Gallery
from reprism.gallery.workers import (
    Crew,
    Describe,
    Plan,
    Result,
    crew_of,
    decode_items,
    item_table,
    plan_of,
    write_rows,
)
from reprism.progress import Count

_FRAMES_AT_ONCE = 128  # that one task decodes
_ITEMS_AT_ONCE = 1_000_000  # that Ray keeps account of
_COMMITTED_AFTER = 20.0  # seconds
_PASSES_IN_VAIN = 3


@dataclass
class ClusterIndexing(Indexing):
    """Result of indexing from many machines.

    Attributes:
        networks: Number of rows that each kind of worker described, such as ``fp32 by torch on cpu``.
    """

    networks: Counter[str] = field(default_factory=Counter)


def index_on_cluster(
    gallery: Gallery,
    embedder: Embedder,
    make_embedder: Callable[[], Embedder],
    items: Sequence[IndexItem],
    *,
    workers: int | None = None,
    cpus: int | None = None,
    thumbnails: bool = True,
    frames: int = 15,
    rows_per_file: int | None = None,
    progress: Count | None = None,
) -> ClusterIndexing:
    """Put images and tracklets into a gallery, as :func:`reprism.gallery.indexing.index_images` does, by a Ray cluster.

    The cluster is the one that ``ray.init`` connected to. Every machine must have the same Reprism, and must reach the
    images and the gallery under the same names: object storage, or a folder that all share.

    Args:
        gallery: Gallery to add to.
        embedder: Embedder of the gallery's kind; it is asked for its kind and preprocessing.
        make_embedder: Makes the same embedder on a worker.
        items: Items that :func:`reprism.gallery.inputs.find_items` found.
        workers: Maximum workers that hold the network (default: one per GPU; without any, as the processors allow).
        cpus: Processor cores of each, on machines without GPUs (default: of the smallest machine all but an eighth).
        thumbnails, frames: As of ``index_images``.
        rows_per_file: Rows that are written at once (default: so that each worker makes about 20 files).
        progress: Called with the items done and all of them, those that were there before included.

    Raises:
        GalleryError: The embedder is of another model or of other settings than the gallery; a worker's is; the
            machines do not share the gallery's folder; or a package is missing.
    """
    _check_packages()
    from ray.exceptions import RayError

    gallery.check(embedder)
    present = gallery.has(item.key for item in items)
    todo = [item for item in items if item.key not in present]
    outcome = ClusterIndexing(already=len(items) - len(todo))
    start = time.monotonic()
    with gallery.disk.writing():
        gallery.store.complete()
    plan = plan_of(
        gallery, embedder, _crew(workers, cpus), len(todo), thumbnails=thumbnails, frames=frames, rows=rows_per_file
    )

    def report() -> None:
        if progress is not None:
            progress(len(items) - len(todo) + int(run.done.sum()), len(items))

    run = Commits(gallery, plan, todo, outcome)
    in_vain = 0
    while len(left := np.flatnonzero(~run.done)):
        if in_vain == _PASSES_IN_VAIN:
            raise GalleryError(
                f"{gallery.uri} is rewritten all the time, so that no row of the {len(left):,} that are left comes in: "
                "let erasures and compressions wait"
            )
        in_vain += 1
        try:
            for results in _gathered(_stream(plan, make_embedder, todo, left[:_ITEMS_AT_ONCE])):
                run.commit(results)
                report()
                if run.done[left].any():
                    in_vain = 0
        except RayError as error:
            raise GalleryError(
                f"a worker failed: {_reason(error)}. What is in {gallery.uri} stays; the same command goes on from "
                "there"
            ) from error
    gallery.optimize(build=False)
    outcome.seconds = time.monotonic() - start
    return outcome


def _check_packages() -> None:
    for name in ("ray", "lance", "lance_ray"):
        if importlib.util.find_spec(name) is None:
            raise GalleryError(f"indexing on a cluster needs {name}: pip install 'reprism[ray]'")


def _reason(error: Exception) -> str:
    """Return what a worker said, out of the traces that Ray puts around it."""
    text = str(error).split("\nThe above exception was the direct cause")[0]
    return text.strip().rsplit("\n", 1)[-1].rstrip(".")


def _crew(workers: int | None, cpus: int | None) -> Crew:
    import ray

    if not ray.is_initialized():
        ray.init()
    return crew_of([node["Resources"] for node in ray.nodes() if node["Alive"]], workers, cpus)


def _stream(
    plan: Plan, make_embedder: Callable[[], Embedder], items: Sequence[IndexItem], numbers: np.ndarray
) -> Iterator[Result]:
    """Yield what the cluster's tasks wrote of some items, as they come."""
    import ray
    from ray.data import ActorPoolStrategy

    numbered = {items[number].key: int(number) for number in numbers}
    batches = batches_of((items[number] for number in numbers), _FRAMES_AT_ONCE, plan.decode.most_frames)
    tables = [item_table([numbered[item.key] for item in batch], batch) for batch in batches]
    found: Any = ray.data.from_arrow(tables)
    written = (
        found.map_batches(decode_items, fn_args=(plan,), batch_size=None, batch_format="pyarrow", num_cpus=0.5)
        .map_batches(
            Describe,
            fn_constructor_args=(plan, ray.put(make_embedder)),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=1, max_size=plan.crew.actors),
            num_cpus=plan.crew.cpus,
            num_gpus=plan.crew.gpus,
        )
        .map_batches(write_rows, fn_args=(plan,), batch_size=plan.rows_per_file, batch_format="pyarrow", num_cpus=0.5)
    )
    for batch in written.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for text in batch["result"].to_pylist():
            yield Result(**json.loads(text))


# ---- what this process does ------------------------------------------------------------------------------


def _gathered(results: Iterator[Result]) -> Iterator[list[Result]]:
    """Yield results, those of about 20 seconds at a time."""
    some: list[Result] = []
    last = time.monotonic()
    for result in results:
        some.append(result)
        if time.monotonic() > last + _COMMITTED_AFTER:
            yield some
            some, last = [], time.monotonic()
    if some:
        yield some


class Commits:
    """Commits what the cluster wrote, each item once.

    Attributes:
        done: For each item whether it is in the gallery, or cannot be read.
    """

    def __init__(self, gallery: Gallery, plan: Plan, items: Sequence[IndexItem], outcome: ClusterIndexing) -> None:
        self.gallery = gallery
        self.plan = plan
        self.items = items
        self.outcome = outcome
        self.done = np.zeros(len(items), bool)
        self.version: int = gallery.store.table.version

    def commit(self, results: Sequence[Result]) -> None:
        """Make the files of these results part of the gallery; those that no longer fit are left to be made again."""
        import lance

        with self.gallery.disk.writing():
            table = self.gallery.store.table
            changed = table.version != self.version  # by another process
            if changed and self.gallery.store.info != self.plan.info:
                raise GalleryError(
                    f"the gallery {self.gallery.uri} was compressed meanwhile: run the same command again"
                )
            if changed:
                self._note_present(results)
            taken, done = [], self.done.copy()
            for result in results:
                if not done[result.items].any() and self._lies_there(result, changed):
                    taken.append(result)
                    done[result.items] = True
            files = [lance.FragmentMetadata.from_json(text) for result in taken for text in result.fragments]
            if files:
                append = lance.LanceOperation.Append(files)
                lance.LanceDataset.commit(self.plan.uri, append, read_version=table.version)
            self.version = table.version
        self.done = done
        for result in taken:
            self.outcome.added += len(result.numbers)
            self.outcome.unreadable += [(path, reason) for _, bad in result.unreadable for path, reason in bad]
            self.outcome.networks.update(result.networks)

    def _note_present(self, results: Sequence[Result]) -> None:
        numbers = {row_id(self.items[number].key): number for result in results for number in result.numbers}
        for key in self.gallery.has(self.items[number].key for number in numbers.values()):
            number = numbers[row_id(key)]
            if not self.done[number]:
                self.done[number] = True
                self.outcome.already += 1

    def _lies_there(self, result: Result, changed: bool) -> bool:
        """Return whether all files of a result are where the gallery lies, as far as this process can tell."""
        if local(self.gallery.uri) is None:
            return True
        folder = Path(self.plan.uri) / "data"
        names = [one["path"] for text in result.fragments for one in json.loads(text)["files"]]
        missing = [name for name in names if not (folder / name).is_file()]
        if missing and not changed:  # a rewrite of the gallery would have removed it
            raise GalleryError(
                f"a worker wrote {missing[0]}, which is not in {folder}: the machines do not share that folder. Give a "
                "gallery in one that they share, or in object storage (s3://…)."
            )
        return not missing
