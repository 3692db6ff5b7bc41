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
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from reprism.embedding import Embedder
from reprism.engines.files import model_files
from reprism.gallery.compression import Projection
from reprism.gallery.database import ROWS, GalleryError, GalleryInfo, local
from reprism.gallery.indexing import Decoded, Decoder, Indexing, batches_of, entries_of
from reprism.gallery.inputs import IndexItem
from reprism.gallery.rows import DESCRIPTOR, normalized, row_id, to_arrow
from reprism.gallery.table import Gallery
from reprism.progress import Count

if TYPE_CHECKING:
    from ray import ObjectRef

_FRAMES_AT_ONCE = 128  # that one task decodes
_ITEMS_AT_ONCE = 1_000_000  # that Ray keeps account of
_COMMITTED_AFTER = 20.0  # seconds
_PASSES_IN_VAIN = 3
_FILES_PER_WORKER = 20  # of rows, so that little is lost with the process that commits them
_ROWS_PER_FILE = (64, 16_384)


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


# ---- what the cluster does -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShippedModel:
    """A model's files, carried to workers that cannot read them where they lie.

    Attributes:
        name: Name of the file or folder that is given to ``make``.
        files: Content of each file, by its path beside or below that.
        make: Makes an embedder from the path of the model.
    """

    name: str
    files: dict[str, bytes]
    make: Callable[[Path], Embedder]

    @classmethod
    def of(cls, path: Path, make: Callable[[Path], Embedder]) -> ShippedModel:
        """Read a model's files.

        Raises:
            CheckpointError: It is not there, or is an ONNX file that lacks its weights.
        """
        path = path.absolute()
        return cls(
            path.name, {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in model_files(path)}, make
        )

    def __call__(self) -> Embedder:
        """Make the embedder, from files that are removed again."""
        with tempfile.TemporaryDirectory(prefix="reprism-") as folder:
            for name, content in self.files.items():
                file = Path(folder, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            return self.make(Path(folder, self.name))


@dataclass(frozen=True)
class Crew:
    """Number of actors that hold the network, and what each takes of a machine.

    Attributes:
        actors: Maximum number of them.
        cpus, gpus: What Ray sets aside for each.
        threads: Threads of each; None as PyTorch has it.
    """

    actors: int
    cpus: float
    gpus: int
    threads: int | None = None


def _crew(workers: int | None, cpus: int | None) -> Crew:
    import ray

    if not ray.is_initialized():
        ray.init()
    return crew_of([node["Resources"] for node in ray.nodes() if node["Alive"]], workers, cpus)


def crew_of(machines: Sequence[Mapping[str, float]], workers: int | None, cpus: int | None) -> Crew:
    """Return what workers machines with these resources have room for, at most ``workers`` with ``cpus`` cores each.

    Raises:
        GalleryError: No machine has a processor to give.
    """
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    if gpus:
        return Crew(workers or gpus, 1, 1)
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    if not cores:
        raise GalleryError("the Ray cluster has no processor to give: start its nodes with --num-cpus")
    # Some are left for decoding, which shares them out by halves.
    each = cpus or max(0.5, min(cores) - max(1, min(cores) // 8))
    fitting = min(sum(count // each for count in cores), (sum(cores) - 0.5) // each)
    if fitting < 1:
        raise GalleryError(
            f"workers of {each:g} cores leave none for decoding: the largest machine has {max(cores)}, all together "
            f"have {sum(cores)}. Ask for fewer cores per worker"
        )
    # Decoding hardly fills the cores that are left to it: a worker that was not given a number of cores uses them too.
    return Crew(min(workers or int(fitting), int(fitting)), each, 0, cpus or min(cores))


@dataclass(frozen=True)
class Plan:
    """What every worker is told."""

    decode: Decoder
    info: GalleryInfo
    projection: Projection | None
    uri: str
    storage_version: str
    rows_per_file: int
    crew: Crew


def plan_of(
    gallery: Gallery,
    embedder: Embedder,
    crew: Crew,
    count: int,
    *,
    thumbnails: bool = True,
    frames: int = 15,
    rows: int | None = None,
) -> Plan:
    """Make the plan by which a crew puts ``count`` items into a gallery, ``rows`` at once."""
    least, most = _ROWS_PER_FILE
    return Plan(
        decode=Decoder(embedder.resize, frames, thumbnails),
        info=gallery.store.info,
        projection=gallery.projection,
        uri=_table_uri(gallery),
        storage_version=_open_lance(gallery).data_storage_version,
        rows_per_file=rows or max(least, min(most, count // (_FILES_PER_WORKER * crew.actors))),
        crew=crew,
    )


@dataclass(frozen=True)
class Result:
    """What one task wrote: files of rows, the numbers of the items in them, and items that could not be read."""

    fragments: list[str]
    numbers: list[int]
    unreadable: list[tuple[int, list[tuple[str, str]]]]
    networks: dict[str, int]

    @property
    def items(self) -> list[int]:
        """The numbers of all items that are settled by it."""
        return sorted({*self.numbers, *(number for number, _ in self.unreadable)})


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


def item_table(numbers: Sequence[int], items: Sequence[IndexItem]) -> pa.Table:
    """Return items with their numbers as a table, which Ray hands to a task."""
    return pa.Table.from_pylist(
        [{"number": number, **asdict(item)} for number, item in zip(numbers, items, strict=True)], schema=_ITEMS
    )


_ITEMS = pa.schema(
    [
        ("number", pa.int64()),
        ("key", pa.string()),
        ("paths", pa.list_(pa.string())),
        ("pid", pa.string()),
        ("camid", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("tracklet", pa.string()),
        ("source", pa.string()),
    ]
)
_DECODED = pa.schema(
    [*_ITEMS, ("frames", pa.list_(pa.large_binary())), ("thumbnail", pa.binary()), ("unreadable", pa.string())]
)


def _items_of(table: pa.Table) -> list[IndexItem]:
    names = [one.name for one in fields(IndexItem)]
    return [IndexItem(**row | {"paths": tuple(row["paths"])}) for row in table.select(names).to_pylist()]


def decode_items(table: pa.Table, plan: Plan) -> pa.Table:
    """Decode a table's items; their pixels become a column, of the network's size."""
    decoded = [plan.decode(item) for item in _items_of(table)]
    columns = {
        "frames": [[frame.numpy().tobytes() for frame in one.frames] for one in decoded],
        "thumbnail": [one.thumbnail for one in decoded],
        "unreadable": [json.dumps(one.unreadable) for one in decoded],
    }
    arrays = [pa.array(columns[name], _DECODED.field(name).type) for name in columns]
    return pa.Table.from_arrays([*table.select(_ITEMS.names).columns, *arrays], schema=_DECODED)


class Describe:
    """Holds the network on a worker; decoded items become rows. Those without a frame become rows of nulls."""

    def __init__(self, plan: Plan, made: ObjectRef) -> None:
        import ray

        self.plan = plan
        if plan.crew.threads is not None:
            torch.set_num_threads(plan.crew.threads)
        self.embedder: Embedder = ray.get(made)()
        if self.embedder.kind != plan.info.kind:
            raise GalleryError(
                f"a worker's model is of the fingerprint {self.embedder.kind.fingerprint[:12]}, not "
                f"{plan.info.kind.fingerprint[:12]}: are there different files, or other versions of Reprism?"
            )
        embedder = self.embedder
        self.network = f"{embedder.precision} by {embedder.engine} on {embedder.device.type}"

    def __call__(self, table: pa.Table) -> pa.Table:
        """Describe decoded items."""
        plan, size = self.plan, self.embedder.model.preprocessing.size
        decoded = [
            Decoded(item, [_pixels(frame, size) for frame in row["frames"]], row["thumbnail"], [])
            for item, row in zip(_items_of(table), table.select(["frames", "thumbnail"]).to_pylist(), strict=True)
        ]
        entries = list(entries_of(self.embedder, [one for one in decoded if one.frames]))
        descriptors = normalized((one.descriptor for one in entries), plan.info.kind.dim, "the descriptor of entry")
        rows = to_arrow(
            entries, plan.projection.apply(descriptors) if plan.projection else descriptors, plan.info.schema
        )
        # A row of nulls has the place of each item that could not be read.
        places = np.cumsum([bool(one.frames) for one in decoded]) - 1
        taken = pa.array(places, mask=np.array([not one.frames for one in decoded]))
        columns = {name: rows[name].combine_chunks().take(taken) for name in rows.schema.names}
        networks = pa.array([self.network] * len(decoded))
        return pa.table({**columns, **{name: table[name] for name in ("number", "unreadable")}, "network": networks})


def _pixels(content: bytes, size: tuple[int, int]) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(3, *size)


def write_rows(table: pa.Table, plan: Plan) -> pa.Table:
    """Write described items to a file beside the gallery's rows; return the result, as JSON in a column of its own."""
    from lance_ray.fragment import write_fragment

    schema = plan.info.schema
    there = table.filter(pc.is_valid(table[DESCRIPTOR]))
    rows = there.select(schema.names).cast(schema)
    written = (
        write_fragment([rows], plan.uri, schema=schema, data_storage_version=plan.storage_version) if len(rows) else []
    )
    lists = [(number, json.loads(text)) for number, text in zip(*_lists(table, "number", "unreadable"), strict=True)]
    result = Result(
        fragments=[json.dumps(fragment.to_json()) for fragment, _ in written],
        numbers=there["number"].to_pylist(),
        unreadable=[(number, bad) for number, bad in lists if bad],
        networks=dict(Counter(there["network"].to_pylist())),
    )
    return pa.table({"result": [json.dumps(asdict(result))]})


def _lists(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


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


def _table_uri(gallery: Gallery) -> str:
    folder = local(gallery.uri)
    return f"{gallery.uri.rstrip('/') if folder is None else folder.absolute()}/{ROWS}.lance"


def _open_lance(gallery: Gallery) -> Any:
    import lance

    return lance.dataset(_table_uri(gallery))
