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
from dataclasses import replace
from pathlib import Path

import numpy as np
from sightings import descriptors_of, named_dataset, normalized, percents, test_items

from reprism.data.records import JUNK, Item, ReIDDataset
from reprism.evaluation.items import evaluate_items
from reprism.evaluation.protocol import Protocol
from reprism.linking.held_out import hold_out
from reprism.linking.link_scores import evaluate_links
from reprism.linking.transit import CameraNetwork


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
    for name, some, network in (
        ("descriptors as they are", rows, None),
        ("normalized by camera", by_camera, None),
        (f"and transit times, learned from the {len(dataset.train):,} training images", by_camera, others),
        ("and transit times, learned from the queries' and the gallery's own images", by_camera, own),
    ):
        print(f"| {name} | {percents(*ranked(dataset, items, some, network))} |", flush=True)
    print("\n| | B-cubed F1 | precision | recall | F1 of pairs | people found |\n|---|---|---|---|---|---|")
    for learned, network in (("own images", own), ("training images", others)):
        found = evaluate_links(by_camera, items, network, least=arguments.least)
        for name, scores in (("looks alone", found.by_looks), ("looks and times", found.with_times)):
            rates = (scores.f1, scores.precision, scores.recall, scores.pair_f1)
            print(f"| {name}, learned from {learned} | {percents(*rates)} | {scores.clusters} |", flush=True)


def network_of_others(dataset: ReIDDataset, table: Path) -> CameraNetwork:
    """Learn transit times from the training images, and leave out cameras that are doubtful."""
    items = [item for item in dataset.train if item.pid != JUNK]
    rows = normalized(descriptors_of(items, table), items)
    return replace(CameraNetwork.learn(rows, items), held_out=hold_out(rows, items))


def ranked(
    dataset: ReIDDataset, items: list[Item], rows: np.ndarray, network: CameraNetwork | None
) -> tuple[float, float]:
    """Return rank-1 and mAP of the queries in the gallery, by looks and by a network's times."""
    row_of = {item.path: row for row, item in enumerate(items)}
    # Junk was not described; it is ignored in any case.
    query, gallery = ([item for item in split if item.path in row_of] for split in (dataset.query, dataset.gallery))
    query_rows, gallery_rows = (rows[[row_of[item.path] for item in split]] for split in (query, gallery))
    options = Protocol(network=network).settled(dataset, flip=True).ranking_options(dataset)
    metrics = evaluate_items(query_rows, gallery_rows, query, gallery, **options)
    return metrics.rank(1), metrics.mAP


if __name__ == "__main__":
    main()
