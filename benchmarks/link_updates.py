"""Take sightings into the people of a gallery piece by piece, and compare with linking all of them at once.

    reprism extract Market-1501/query Market-1501/bounding_box_test --naming market1501 --model model.safetensors \
        --out test.parquet
    python benchmarks/link_updates.py --data market1501:Market-1501 --descriptors test.parquet
    python benchmarks/link_updates.py --sites day1 day2 --model model.safetensors

The first share of the sightings, in the order in which they were taken, is linked as by reprism link run, which learns
from them alone. The rest comes by reprism.update_people in equal pieces; then all of it is linked anew by what was
learned, as by reprism link run again. Where recordings have clocks of their own, each camera is another in each of
them, they lie a day apart, and the pieces come from all of them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from sightings import add_sightings, percents, read_entries

from reprism.embedding import DescriptorKind
from reprism.evaluation.clusters import score_clusters
from reprism.gallery.people import Person
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery
from reprism.linking.gallery_people import link_gallery, update_people

KEEP_DAYS = 180


def main() -> None:
    """Print what pieces change, and B-cubed F1 of either."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sightings(parser)
    parser.add_argument("--learn-from", type=float, default=0.5, help="share of the sightings that is there at first")
    parser.add_argument("--pieces", type=int, nargs="+", default=[4, 16, 64], help="pieces that the rest comes in")
    arguments = parser.parse_args()
    entries = as_one_clock(sorted(read_entries(arguments), key=_time_of))
    now = max(map(_time_of, entries)) + timedelta(seconds=1)
    first = round(arguments.learn_from * len(entries))
    truth = [str(entry.pid) for entry in entries]
    print(f"{len(entries):,} sightings of {len(set(truth)):,} people, learned from the first {first:,}\n")
    print("| pieces | sightings in each | pairs decided otherwise | of those linked by either | B-cubed F1 | at once |")
    print("|---|---|---|---|---|---|")
    for pieces in arguments.pieces:
        with tempfile.TemporaryDirectory() as folder:
            found, batch = link_both(Path(folder) / "gallery", entries, first, pieces, now)
        linked, at_once = (labels[:, None] == labels for labels in (found, batch))
        otherwise = np.triu(linked != at_once, 1).sum()
        either = np.triu(linked | at_once, 1).sum()
        all_pairs = len(entries) * (len(entries) - 1) / 2
        scores = (score_clusters(labels, truth).f1 for labels in (found, batch))
        print(
            f"| {pieces} | {(len(entries) - first) / pieces:.0f} | {100 * otherwise / all_pairs:.4f} % | "
            f"{100 * otherwise / either:.2f} % | {percents(*scores)} |",
            flush=True,
        )


def link_both(
    folder: Path, entries: Sequence[Entry], first: int, pieces: int, now: datetime
) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each sighting's person, by pieces and at once."""
    kind = DescriptorKind("0" * 64, "p1", len(entries[0].descriptor), False)
    gallery = Gallery.create(folder, kind)
    gallery.enable_linking("a measurement", KEEP_DAYS)
    gallery.add(entries[:first])
    link_gallery(gallery, now=now)
    for some in np.array_split(np.arange(first, len(entries)), pieces):
        gallery.add(entries[index] for index in some.tolist())
        people = update_people(gallery, now=now).people
    return _labels(people, entries), _labels(link_gallery(gallery, now=now).people, entries)


def as_one_clock(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries in their order, whose sources are cameras of their own and lie a day apart."""
    sources = sorted({entry.source for entry in entries if entry.source is not None})
    day = {source: timedelta(days=number) for number, source in enumerate(sources)}
    return [
        entry
        if entry.source is None
        else replace(entry, camid=f"{entry.camid}, {entry.source}", time=_time_of(entry) + day[entry.source])
        for entry in entries
    ]


def _time_of(entry: Entry) -> datetime:
    assert entry.time is not None
    return entry.time


def _labels(people: Sequence[Person], entries: Sequence[Entry]) -> np.ndarray:
    person = {row: each.id for each in people for row in each.rows}
    return np.array([person[row_id(entry.key)] for entry in entries])


if __name__ == "__main__":
    main()
