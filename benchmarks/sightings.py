"""Sightings of known people for the benchmarks of linking, from photographs and from drawn sites."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
from linking_sites import sightings_of

from reprism.data import LOADERS, open_dataset
from reprism.data.joint import named_data
from reprism.data.records import JUNK, Item, ReIDDataset, Sample
from reprism.embedding import Embedder
from reprism.evaluation.camera_statistics import CameraStatistics
from reprism.gallery.rows import DESCRIPTOR, Entry


def add_sightings(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name sightings: of photographs, or of drawn sites."""
    parser.add_argument("--data", help="photographs with cameras and times, as NAME:DIR")
    parser.add_argument("--descriptors", type=Path, help="with --data: table that reprism extract wrote of test images")
    parser.add_argument("--sites", type=Path, nargs="+", help="folders that reprism data render cameras wrote, by day")
    parser.add_argument("--model", type=Path, help="with --sites: model file")


def read_entries(arguments: argparse.Namespace) -> list[Entry]:
    """Read the sightings that were named, as rows of a gallery; a recording with a clock of its own is their source."""
    if arguments.data and arguments.descriptors:
        dataset = named_dataset(arguments.data)
        items = test_items(dataset)
        rows = descriptors_of(items, arguments.descriptors)
        return [_entry_of(item, row) for item, row in zip(items, rows, strict=True)]
    if not (arguments.sites and arguments.model):
        raise SystemExit("expected --data and --descriptors, or --sites and --model")
    embedder = Embedder(arguments.model)
    return [
        Entry(
            f"{site}/{each.file}/{each.track}",
            each.descriptor,
            each.file,
            f"{each.pid}",
            each.camera,
            datetime.fromtimestamp(each.first, UTC),
            f"{site}/{each.track}",
            until=datetime.fromtimestamp(each.last, UTC),
        )
        for site in arguments.sites
        for each in sightings_of(site, embedder)
    ]


def named_dataset(data: str) -> ReIDDataset:
    """Open a data set that was given as NAME:DIR."""
    name, root, options = named_data(data, LOADERS)
    return open_dataset(name, root, **options)


def test_items(dataset: ReIDDataset) -> list[Item]:
    """Return queries and gallery without junk; an image that is in both is one sighting."""
    return list({item.path: item for item in (*dataset.query, *dataset.gallery) if item.pid != JUNK}.values())


def descriptors_of(items: Sequence[Item], table: Path) -> np.ndarray:
    """Read the descriptors of items, N×D float32, from a table that reprism extract wrote."""
    found = pq.read_table(table, columns=["path", DESCRIPTOR])
    matrix = np.stack(found[DESCRIPTOR].to_numpy()).astype(np.float32)
    row_of = {Path(path).resolve(): row for row, path in enumerate(found["path"].to_pylist())}
    missing = [item.path for item in items if Path(item.path).resolve() not in row_of]
    if missing:
        raise SystemExit(f"{table} lacks {len(missing)} images, such as {missing[0]}: make it by reprism extract")
    return matrix[[row_of[Path(item.path).resolve()] for item in items]]


def normalized(rows: np.ndarray, items: Sequence[Item]) -> np.ndarray:
    """Normalize descriptors by camera, as ``reprism link`` does."""
    cameras = [item.camid for item in items]
    return CameraStatistics.fit(rows, cameras).apply(rows, cameras)


def items_of(entries: Sequence[Entry]) -> list[Sample]:
    """Return entries as images with times in seconds; a source is a recording with a clock of its own."""
    found = []
    for entry in entries:
        assert entry.time is not None
        found.append(Sample(Path(entry.path), str(entry.pid), entry.camid, entry.time.timestamp(), entry.source))
    return found


def percents(*rates: float, style: Literal["", "%"] = "%") -> str:
    """Return the cells of a table."""
    return " | ".join(f"{100 * rate:.1f} {style}".rstrip() for rate in rates)


def _entry_of(item: Item, row: np.ndarray) -> Entry:
    if item.time is None:
        raise SystemExit(f"{item.path} has no time: transit times cannot be learned")
    time = datetime.fromtimestamp(item.time, UTC)
    source = None if item.recording is None else str(item.recording)
    return Entry(str(item.path), row, str(item.path), f"{item.pid}", f"{item.camid}", time, source=source)
