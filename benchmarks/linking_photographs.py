"""Rank photographs by looks and transit times, and link them to people, by descriptors that are there already.

    reprism extract Market-1501/bounding_box_train --naming market1501 --model model.safetensors --out train.parquet
    reprism extract Market-1501/query Market-1501/bounding_box_test --naming market1501 --model model.safetensors \
        --out test.parquet
    python benchmarks/linking_photographs.py market1501:Market-1501 train.parquet test.parquet

It does what reprism link learn --data, reprism evaluate --network and reprism evaluate-links do, without describing the
images for each. Transit times are learned from the training images, of other people, and from the test images
themselves; no identity is looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from sightings import descriptors_of, named_dataset, normalized, percents, test_items

from reprism.data.records import JUNK, Label, ReIDDataset
from reprism.evaluation.items import evaluate_items
from reprism.evaluation.protocol import Protocol
from reprism.evaluation.ranking import RankingMetrics
from reprism.linking.held_out import hold_out
from reprism.linking.link_scores import evaluate_links
from reprism.linking.transit import CameraNetwork

AHEAD = 40  # seconds by which a clock is ahead


def main() -> None:
    """Print rank-1 and mAP, and B-cubed F1 of the people found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="photographs with cameras and times, as NAME:DIR")
    parser.add_argument("train", type=Path, help="table that reprism extract wrote of its training images")
    parser.add_argument("test", type=Path, help="table of its queries and gallery")
    parser.add_argument("--least", type=float, default=0.2, help="as of reprism evaluate-links")
    arguments = parser.parse_args()
    dataset = named_dataset(arguments.data)
    items = test_items(dataset)
    rows = descriptors_of(items, arguments.test)
    by_camera = normalized(rows, items)
    own = CameraNetwork.learn(by_camera, items)
    others = network_of_others(dataset, arguments.train)
    print("| ranked by | rank-1 | mAP |\n|---|---|---|")
    as_they_are, by_path = (
        {item.path: row for item, row in zip(items, each, strict=True)} for each in (rows, by_camera)
    )
    camera = min(str(item.camid) for item in items)
    late = with_clock_ahead(dataset, next(item.camid for item in items if str(item.camid) == camera), AHEAD)
    found = [
        ("descriptors as they are", ranked(dataset, as_they_are, None)),
        ("normalized by camera", ranked(dataset, by_path, None)),
        (f"and transit times, learned from {len(dataset.train):,} training images", ranked(dataset, by_path, others)),
        ("and transit times, learned from the queries' and the gallery's own images", ranked(dataset, by_path, own)),
        (f"learned from training images, then camera {camera}'s clock {AHEAD} s ahead", ranked(late, by_path, others)),
    ]
    for name, metrics in found:
        print(f"| {name} | {percents(metrics.rank(1), metrics.mAP)} |")
    print_unusual(dataset, by_path, others)
    print("\n| | B-cubed F1 | precision | recall | F1 of pairs | people found |\n|---|---|---|---|---|---|")
    for learned, network in (("own images", own), ("training images", others)):
        links = evaluate_links(by_camera, items, network, least=arguments.least)
        for name, scores in (("looks alone", links.by_looks), ("looks and times", links.with_times)):
            rates = (scores.f1, scores.precision, scores.recall, scores.pair_f1)
            print(f"| {name}, learned from {learned} | {percents(*rates)} | {scores.clusters} |", flush=True)


def network_of_others(dataset: ReIDDataset, table: Path) -> CameraNetwork:
    """Learn transit times from the training images, and leave out cameras that are doubtful."""
    items = [item for item in dataset.train if item.pid != JUNK]
    rows = normalized(descriptors_of(items, table), items)
    return replace(CameraNetwork.learn(rows, items), held_out=hold_out(rows, items))


def ranked(dataset: ReIDDataset, rows: Mapping[Path, np.ndarray], network: CameraNetwork | None) -> RankingMetrics:
    """Rank the gallery for each query, by looks and by a network's times."""
    query, gallery = (np.stack([rows[item.path] for item in split]) for split in (dataset.query, dataset.gallery))
    options = Protocol(network=network).settled(dataset, flip=True).ranking_options(dataset)
    return evaluate_items(query, gallery, dataset.query, dataset.gallery, **options)


def with_clock_ahead(dataset: ReIDDataset, camera: Label | None, seconds: float) -> ReIDDataset:
    """Return a data set of which one camera's clock is ahead."""
    query, gallery = (
        tuple(
            replace(item, time=item.time + seconds) if item.camid == camera and item.time is not None else item
            for item in split
        )
        for split in (dataset.query, dataset.gallery)
    )
    return replace(dataset, query=query, gallery=gallery)


def print_unusual(dataset: ReIDDataset, rows: Mapping[Path, np.ndarray], network: CameraNetwork) -> None:
    """Print how many other people's images come before a match, where times speak against it and where they do not."""
    query, gallery = (np.stack([rows[item.path] for item in split]) for split in (dataset.query, dataset.gallery))
    ratios = network.log_ratio(dataset.query, dataset.gallery)
    looks = network.weight * (1 - query @ gallery.T)
    pids, cameras = (np.array([getattr(item, what) for item in dataset.gallery]) for what in ("pid", "camid"))
    of_ratio, by_looks, with_times = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    for item, look, ratio in zip(dataset.query, looks, ratios, strict=True):
        matches, strangers = (pids == item.pid) & (cameras != item.camid), pids != item.pid
        of_ratio.append(ratio[matches])
        for before, distance in ((by_looks, look), (with_times, look - ratio)):
            before.append(np.searchsorted(np.sort(distance[strangers]), distance[matches]))
    against = np.concatenate(of_ratio) < 0
    print("\n| matches in other cameras | share | other people's images before one: by looks | with times |")
    print("|---|---|---|---|")
    for name, chosen in (("times speak against", against), ("all others", ~against)):
        medians = (np.median(np.concatenate(each)[chosen]) for each in (by_looks, with_times))
        print(f"| {name} | {percents(chosen.mean())} | {' | '.join(f'{median:.0f}' for median in medians)} |")


if __name__ == "__main__":
    main()
