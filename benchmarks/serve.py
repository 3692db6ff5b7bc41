"""What the HTTP service answers under load: requests a second, their times, errors, and the server's memory.

    python benchmarks/serve.py                              10,000 searches by each of 1, 4 and 16 clients
    python benchmarks/serve.py --requests 200 --rows 10000  a quick look

The server is a process of its own (`reprism serve`), with the network in the loop; the gallery's rows are synthetic,
and the pictures are drawn. Clients run in this process, each on a connection of its own, and send the next request when
the last is answered. They take time of the same machine.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
import tyro
from measure import from_extra

import reprism
from reprism.drawn.layouts import render_market1501

with from_extra():
    import fastapi  # noqa: F401  # the service, in a process of its own, needs it
    import httpx2
    import psutil

    from reprism.gallery.rows import Entry
    from reprism.gallery.table import Gallery

ADDED_AT_ONCE = 5_000


@dataclass
class Arguments:
    """What the HTTP service answers under load."""

    requests: int = 10_000
    """Searches by each number of clients."""
    clients: tuple[int, ...] = (1, 4, 16)
    """At a time."""
    rows: int = 100_000
    """Of the gallery."""
    model: Path | None = None
    """A model file; by custom an untrained one of 512 columns on mobilenetv3_small_050, 128 x 64 pixels."""
    index: bool = True
    """Whether to build the gallery's index first."""
    port: int = 0
    """By custom a free one."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = arguments.model or untrained(work / "model.safetensors")
        fill(work / "gallery", model, arguments.rows, index=arguments.index)
        pictures = drawn(work / "people")
        with served(work, model, arguments.port) as (address, server):
            print(f"{arguments.rows:,} rows, {torch.get_num_threads()} threads, {arguments.requests:,} searches each")
            load(address, pictures, 1, min(50, arguments.requests))  # what is loaded on first use is loaded
            for clients in arguments.clients:
                before = resident(server)
                seconds, times, errors = load(address, pictures, clients, arguments.requests)
                p50, p95 = np.percentile(times, [50, 95]) * 1000
                print(
                    f"{clients:3} clients  {len(times) / seconds:7.1f} requests/s  p50 {p50:6.1f} ms  p95 {p95:6.1f} ms"
                    f"  errors {errors}  memory {before:.0f} MB before, {resident(server):.0f} MB after"
                )


def untrained(path: Path) -> Path:
    """A network whose descriptors have 512 columns."""
    torch.manual_seed(0)
    model = reprism.build_model("p1(s1)", "mobilenetv3_small_050", part_dim=256, size=(128, 64))
    return reprism.save(model.eval(), path)


def fill(place: Path, model: Path, rows: int, *, index: bool) -> None:
    """A gallery of random descriptors: 20 rows around a centre for each person, six cameras."""
    gallery = Gallery.create(place, reprism.Embedder(model), model=model)
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(rows // 20 + 1, gallery.descriptor_dim)).astype(np.float32)
    for start in range(0, rows, ADDED_AT_ONCE):
        places = range(start, min(start + ADDED_AT_ONCE, rows))
        noise = rng.normal(size=(len(places), gallery.descriptor_dim)).astype(np.float32)
        gallery.add(
            Entry(f"row-{n}", centers[n // 20] + row, f"row-{n}.jpg", pid=str(n // 20), camid=f"c{n % 6}")
            for n, row in zip(places, noise, strict=True)
        )
    gallery.optimize(build=index)


def drawn(folder: Path) -> list[bytes]:
    """Pictures of drawn people."""
    root = render_market1501(folder, train_identities=2, test_identities=10, size=(128, 64))
    return [path.read_bytes() for path in sorted((root / "bounding_box_test").glob("*.jpg"))]


@contextmanager
def served(work: Path, model: Path, port: int) -> Iterator[tuple[str, psutil.Process]]:
    """A server that is ready, by its address and process."""
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    command = [sys.executable, "-m", "reprism", "serve", "--gallery", str(work / "gallery"), "--model", str(model)]
    process = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx2.get(f"{address}/healthz").raise_for_status()
                break
            except httpx2.TransportError:
                if process.poll() is not None:
                    raise SystemExit("the server did not start: run its command by hand to see why") from None
                time.sleep(0.2)
        yield address, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def load(address: str, pictures: list[bytes], clients: int, requests: int) -> tuple[float, list[float], int]:
    """Search; gives the seconds it took in all, those of every answer, and how many were not 200."""
    turns = count()

    def client() -> tuple[list[float], int]:
        times, errors = [], 0
        with httpx2.Client(base_url=address, timeout=120) as session:
            while (turn := next(turns)) < requests:
                began = time.perf_counter()
                try:
                    status = session.post("/search", files={"image": pictures[turn % len(pictures)]}).status_code
                except httpx2.HTTPError:
                    status = 0
                times.append(time.perf_counter() - began)
                errors += status != 200
        return times, errors

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        results = [future.result() for future in [pool.submit(client) for _ in range(clients)]]
    seconds = time.perf_counter() - began
    return seconds, [each for times, _ in results for each in times], sum(errors for _, errors in results)


def resident(process: psutil.Process) -> float:
    """Megabytes in memory: the median of five looks."""
    looks = []
    for _ in range(5):
        looks.append(process.memory_info().rss / 2**20)
        time.sleep(0.1)
    return statistics.median(looks)


if __name__ == "__main__":
    main()
