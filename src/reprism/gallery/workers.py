"""What the machines of a cluster do to put items into a gallery: decode, describe, and write files of rows.

Each stage takes and returns a table, which Ray carries between machines; :mod:`reprism.gallery.cluster` joins them.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
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
from reprism.gallery.indexing import Decoded, Decoder, entries_of
from reprism.gallery.inputs import IndexItem
from reprism.gallery.rows import DESCRIPTOR, normalized, to_arrow
from reprism.gallery.table import Gallery

if TYPE_CHECKING:
    from ray import ObjectRef

_FILES_PER_WORKER = 20  # of rows, so that little is lost with the process that commits them
_ROWS_PER_FILE = (64, 16_384)


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
    """Settings that every task and worker gets."""

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
    """Outcome of a task that writes.

    Attributes:
        fragments: Files of rows, each a Lance fragment as JSON.
        numbers: Numbers of the items in them.
        unreadable: Numbers of items of which images could not be read: each with those images and the reasons.
        networks: Number of rows by what described them.
    """

    fragments: list[str]
    numbers: list[int]
    unreadable: list[tuple[int, list[tuple[str, str]]]]
    networks: dict[str, int]

    @property
    def items(self) -> list[int]:
        """The numbers of all items that are settled by it."""
        return sorted({*self.numbers, *(number for number, _ in self.unreadable)})


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


def _table_uri(gallery: Gallery) -> str:
    folder = local(gallery.uri)
    return f"{gallery.uri.rstrip('/') if folder is None else folder.absolute()}/{ROWS}.lance"


def _open_lance(gallery: Gallery) -> Any:
    import lance

    return lance.dataset(_table_uri(gallery))
