"""What a gallery costs as it grows, beside FAISS in the same run: putting in, indexing, disk, memory, latency, recall.

    python benchmarks/search.py                                10 and 100 thousand rows
    python benchmarks/search.py --rows 1000000                 a million
    python benchmarks/search.py --rows 1000000 --no-hnsw       without FAISS's graph, which takes long to build
    python benchmarks/search.py --like people.parquet          descriptors with the spread of these

Descriptors are 512 wide, random with identity structure: a centre for each person of some 20 rows, and noise. Both
spread alike in all directions, which is hard for an index; --like takes their covariances from a table that
`reprism extract` wrote of people whose identities are known. Every row has a camera (of 8), a time and an identity.
Queries are further rows of the same people. Each library searches in a process of its own, one query after the other,
as a service would; recall@10 is against exact search.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from measure import from_extra, memory, reset_peak

from reprism.embedding import DescriptorKind

with from_extra():
    from reprism.gallery.rows import Entry
    from reprism.gallery.search import Filter
    from reprism.gallery.table import Gallery

DIM, PER_PERSON, CAMERAS, TOP = 512, 20, 8, 10
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
AT_A_TIME = 20_000


@dataclass
class Arguments:
    """What a gallery costs as it grows, beside FAISS in the same run."""

    rows: tuple[int, ...] = (10_000, 100_000)
    """Rows of each gallery."""
    queries: int = 500
    """Searches of each kind."""
    noise: float = 0.9
    """How far descriptors lie from their person's centre, in its own length. At 0.9 those of one person are 0.95 apart
    and those of different people 1.41: as the cpu-hour network's are on photographs (reprism calibrate)."""
    like: Path | None = None
    """Table of descriptors, with identities, whose mean and covariances between and within people the rows take."""
    hnsw: bool = True
    """Whether to build FAISS's HNSW graph too."""
    at: Path | None = None
    """Folder for the galleries, on the disk that is to be measured. None: the system's folder for temporary files."""


class Searches(NamedTuple):
    """What searching took."""

    latencies: np.ndarray  # seconds
    found: np.ndarray  # N×TOP rows, -1 where there was none
    resident: float  # megabytes that the process held in the end
    peak: float  # and at most


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    with from_extra():
        import faiss  # noqa: F401  # found missing here, not after an hour; those that search load it themselves
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.at) as folder:
            benchmark(arguments, rows, Path(folder))


def benchmark(arguments: Arguments, rows: int, folder: Path) -> None:
    """One size."""
    print(f"\n{rows:,} rows of {DIM} columns")
    spread = equal_spread(arguments.noise) if arguments.like is None else spread_of(arguments.like)
    everything = draw(rows + arguments.queries, spread)
    gallery, queries = everything[:rows], everything[rows:]
    np.save(folder / "gallery.npy", gallery)
    np.save(folder / "queries.npy", queries)
    wanted = exact(gallery, queries)

    uri, began = str(folder / "gallery"), time.perf_counter()
    table = Gallery.create(uri, DescriptorKind("synthetic", "p1[s2]", DIM, flip=True))
    for start in range(0, rows, AT_A_TIME):
        table.add(entries(gallery, start, min(start + AT_A_TIME, rows)))
    added = time.perf_counter()
    table.optimize()
    optimized = time.perf_counter()
    disk = sum(file.stat().st_size for file in Path(uri).rglob("*") if file.is_file()) / 2**20
    print(
        f"  gallery: put in {rows / (added - began):,.0f} rows/s, optimised in {optimized - added:.1f} s, "
        f"{disk:,.0f} MB on disk ({2**20 * disk / rows:,.0f} bytes a row), index: {table.index()}"
    )
    filters = {
        "": Filter(),
        ", 2 of 8 cameras": Filter(cameras=("1", "2")),
        ", last quarter of the time": Filter(after=moment(int(rows * 0.75))),
        ", all but the first tenth of it": Filter(after=moment(rows // 10)),
        ", an hour": Filter(after=moment(rows // 2), before=moment(rows // 2 + 3600)),
    }
    for name, where in filters.items():
        passing = np.flatnonzero(passes(where, rows))
        target = wanted if not name else passing[exact(gallery[passing], queries)]
        report(f"gallery{name}", alone(search_gallery, uri, folder, where), target)
    few = max(20, min(len(queries), 10_000_000 // rows))
    report("gallery, exact", alone(search_gallery, uri, folder, Filter(), True, few), wanted[:few])
    for kind in ("flat", "hnsw") if arguments.hnsw else ("flat",):
        report(f"FAISS {kind}", alone(search_faiss, kind, folder), wanted)


class Spread(NamedTuple):
    """Distribution of descriptors: their mean, and square roots of the covariances between people and within them."""

    mean: np.ndarray
    between: np.ndarray  # DIM×DIM
    within: np.ndarray  # DIM×DIM


def equal_spread(noise: float) -> Spread:
    """In all directions alike."""
    unit = np.eye(DIM, dtype=np.float32)
    return Spread(np.zeros(DIM, np.float32), unit, noise * unit)


def spread_of(path: Path) -> Spread:
    """As a table's, by the usual estimates of the covariances between and within groups."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["pid", "descriptor"]).drop_null()
    rows = np.stack(table["descriptor"].to_numpy()).astype(np.float64)
    if rows.shape[1] != DIM:
        raise SystemExit(f"{path} has descriptors of {rows.shape[1]} columns; expected {DIM}")
    _, people, counts = np.unique(table["pid"].to_numpy(), return_inverse=True, return_counts=True)
    centers = np.zeros((len(counts), DIM))
    np.add.at(centers, people, rows)
    centers /= counts[:, None]
    apart = rows - centers[people]
    within = apart.T @ apart / (len(rows) - len(counts))
    return Spread(
        centers.mean(0).astype(np.float32), root(np.cov(centers.T) - within * (1 / counts).mean()), root(within)
    )


def root(covariance: np.ndarray) -> np.ndarray:
    """The matrix that gives noise a covariance. Where that is negative, as only chance makes it, it counts as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return ((vectors * np.sqrt(values.clip(0))) @ vectors.T).astype(np.float32)


def draw(rows: int, spread: Spread) -> np.ndarray:
    """Rows of length 1, in random order of people."""
    rng = np.random.default_rng(0)
    people = rng.integers(0, max(1, rows // PER_PERSON), rows)
    centers = spread.mean + rng.standard_normal((people.max() + 1, DIM), np.float32) @ spread.between
    out = np.empty((rows, DIM), np.float32)
    for start in range(0, rows, AT_A_TIME):
        some = people[start : start + AT_A_TIME]
        noise = rng.standard_normal((len(some), DIM), np.float32) @ spread.within
        out[start : start + len(some)] = centers[some] + noise
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return out


def moment(row: int) -> datetime:
    """When a row was taken: a second after the one before."""
    return BEGINNING + timedelta(seconds=row)


def entries(gallery: np.ndarray, start: int, stop: int) -> Iterator[Entry]:
    """Rows as they are put in."""
    for row in range(start, stop):
        path = f"/cameras/{row % CAMERAS}/{row:09}.jpg"
        yield Entry(path, gallery[row], path, f"person {row % 50_000}", str(row % CAMERAS), moment(row))


def passes(where: Filter, rows: int) -> np.ndarray:
    """Which rows a filter lets through, by what it says."""
    row = np.arange(rows)
    out = np.ones(rows, bool)
    if where.cameras:
        out &= np.isin((row % CAMERAS).astype(str), where.cameras)
    if where.after is not None:
        out &= row >= (where.after - BEGINNING).total_seconds()
    if where.before is not None:
        out &= row < (where.before - BEGINNING).total_seconds()
    return out


def exact(gallery: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """N×TOP: the nearest rows by the largest dot product."""
    best = np.empty((len(queries), 0), np.float32)
    rows = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(gallery), AT_A_TIME):
        products = queries @ gallery[start : start + AT_A_TIME].T
        best = np.concatenate([best, products], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + products.shape[1]), products.shape)], 1)
        chosen = np.argpartition(-best, min(TOP, best.shape[1]) - 1, axis=1)[:, :TOP]
        best, rows = np.take_along_axis(best, chosen, 1), np.take_along_axis(rows, chosen, 1)
    return rows


def alone(run: Callable[..., Searches], *arguments: object) -> Searches:
    """A call in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, *arguments).result()


def timed(search: Callable[[np.ndarray], list[int]], queries: np.ndarray) -> Searches:
    """One search after the other, after ten that do not count."""
    for query in queries[:10]:
        search(query)
    reset_peak()
    latencies, found = [], np.full((len(queries), TOP), -1)
    for number, query in enumerate(queries):
        began = time.perf_counter()
        rows = search(query)
        latencies.append(time.perf_counter() - began)
        found[number, : len(rows)] = rows
    return Searches(np.array(latencies), found, memory("VmRSS"), memory("VmHWM"))


def search_gallery(
    uri: str, folder: Path, where: Filter, whole: bool | None = None, most: int | None = None
) -> Searches:
    """Search as the command and the service do: distances, and all that is known of each match."""
    gallery = Gallery.open(uri)

    def search(query: np.ndarray) -> list[int]:
        return [int(Path(match.path).stem) for match in gallery.search(query, TOP, where, exact=whole)[0]]

    return timed(search, np.load(folder / "queries.npy")[:most])


def search_faiss(kind: str, folder: Path) -> Searches:
    """Search row numbers alone: FAISS keeps nothing else, and filters nothing."""
    import faiss

    gallery = np.load(folder / "gallery.npy", mmap_mode="r")
    index = faiss.IndexFlatL2(DIM) if kind == "flat" else faiss.IndexHNSWFlat(DIM, 32)
    began = time.perf_counter()
    for start in range(0, len(gallery), AT_A_TIME):
        index.add(np.ascontiguousarray(gallery[start : start + AT_A_TIME]))
    print(f"  FAISS {kind}: built in {time.perf_counter() - began:.1f} s", flush=True)
    if kind == "hnsw":
        index.hnsw.efSearch = 128
    return timed(lambda query: index.search(query[None], TOP)[1][0].tolist(), np.load(folder / "queries.npy"))


def report(name: str, searches: Searches, wanted: np.ndarray) -> None:
    """One line."""
    hits = [len(set(found) & set(true)) / len(true) for found, true in zip(searches.found, wanted, strict=True)]
    p50, p95 = 1000 * np.percentile(searches.latencies, [50, 95])
    print(
        f"  {name:36} p50 {p50:7.1f} ms  p95 {p95:7.1f} ms  recall@10 {np.mean(hits):.4f}  "
        f"resident {searches.resident:,.0f} MB, at most {searches.peak:,.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
