"""Link the rows of a gallery of drawn cameras to people, and compare them with the truth.

    reprism data render cameras site --seconds 900 --people 70 --seed 5
    reprism watch site/*.mp4 --model model.safetensors --gallery seen
    reprism link enable seen --purpose "a measurement on drawn people" --keep-days 180
    python benchmarks/linking.py site seen

A row's person is the one whose true boxes its first and its last box cover best; rows of nobody, or that begin with one
person and end with another, are linked like the others and have no score.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timedelta
from pathlib import Path

from reprism.demo_site import read_truth, sighting_of
from reprism.evaluation.clusters import ClusterScores, score_clusters
from reprism.gallery.table import Gallery
from reprism.linking.gallery_people import link_gallery
from reprism.linking.gallery_sightings import read_sightings
from reprism.linking.people import find_people


def main() -> None:
    """Print how well people are found with transit times, and by looks alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, help="folder that reprism data render cameras wrote")
    parser.add_argument("gallery", help="gallery that reprism watch filled from it, with linking switched on")
    parser.add_argument("--least", type=float, default=0.2, help="as of reprism link run")
    arguments = parser.parse_args()
    site = json.loads((arguments.site / "site.json").read_text(encoding="utf-8"))
    height, width = site["size"]
    # The drawn day lies in the past: rows' ages count from its end.
    now = datetime.fromisoformat(site["start"]) + timedelta(days=1)
    gallery, truth = Gallery.open(arguments.gallery), read_truth(arguments.site / "truth.csv")
    person = {row.id: sighting_of(gallery, row, truth, (height, width)).person for row in gallery.rows()}
    known = [row for row, who in person.items() if who is not None]
    linked = link_gallery(gallery, least=arguments.least, relearn=True, now=now)
    found = read_sightings(gallery, now)
    descriptors = found.normalized(found.statistics())
    odds = find_people(descriptors, found.items, linked.network, least=arguments.least).odds
    looks = find_people(descriptors, found.items, odds=odds, least=arguments.least).labels.tolist()
    of_looks = {row.id: label for row, label in zip(found.rows, looks, strict=True)}
    of_people = {row: each.id for each in linked.people for row in each.rows}
    print(f"{len(person):,} rows, {len(known):,} of them of {len({person[row] for row in known})} people")
    print("| | B-cubed F1 | precision | recall | F1 of pairs | people found |\n|---|---|---|---|---|---|")
    for name, label in (("looks alone", of_looks), ("looks and times", of_people)):
        scores = score_clusters([label[row] for row in known], [person[row] for row in known])
        print(f"| {name} | {_percents(scores)} | {scores.clusters} |")


def _percents(scores: ClusterScores) -> str:
    rates = (scores.f1, scores.precision, scores.recall, scores.pair_f1)
    return " | ".join(f"{100 * rate:.1f} %" for rate in rates)


if __name__ == "__main__":
    main()
