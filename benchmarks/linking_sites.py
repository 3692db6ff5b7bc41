"""Link the true tracks of drawn cameras to people, with times and without, and compare with the truth.

    reprism demo
    reprism data render cameras site --seconds 900 --people 70 --fps 2 --seed 5
    python benchmarks/linking_sites.py site --model reprism-demo/run/model.safetensors

Cameras need not be watched for it: a sighting is a track of the truth, described by up to eight crops of its true boxes
at which half of the person shows. So the figures are those of linking alone. Several folders are days of one site
(--day). A sighting of nobody who shows enough is left out, and its boxes count as not found.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import combinations, permutations
from pathlib import Path

import numpy as np

from reprism.cameras import evaluate_identities, read_frames, read_people, read_tracks
from reprism.data.records import Sample
from reprism.embedding import Embedder
from reprism.evaluation.camera_statistics import CameraStatistics
from reprism.evaluation.clusters import score_clusters
from reprism.linking.odds import OddsError
from reprism.linking.people import find_people
from reprism.linking.routes import clock_ahead, clock_offsets, find_routes
from reprism.linking.transit import CameraNetwork

_CROPS = 8
_SHOWS = 0.5  # share of a person that a crop needs
_FEWEST = 5  # matches of a way that is listed


@dataclass(frozen=True, eq=False)
class Sighting:
    """A track of the truth: who crossed a view from first to last, in seconds by the camera's clock.

    ahead is the seconds by which that clock is ahead of the true time.
    """

    site: Path
    file: str
    track: str
    camera: str
    pid: int
    visit: str
    first: float
    last: float
    ahead: float
    descriptor: np.ndarray


def main() -> None:
    """Print how well people are found with transit times and by looks alone, and the transit times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sites", type=Path, nargs="+", help="folders that reprism data render cameras wrote, by day")
    parser.add_argument("--model", type=Path, required=True, help="model file")
    parser.add_argument("--least", type=float, default=0.2, help="as of reprism link run")
    arguments = parser.parse_args()
    embedder = Embedder(arguments.model)
    seen = [each for site in arguments.sites for each in sightings_of(site, embedder)]
    cameras = [each.camera for each in seen]
    rows = np.stack([each.descriptor for each in seen])
    rows = CameraStatistics.fit(rows, cameras).apply(rows, cameras)
    items = [Sample(Path(each.track), each.pid, each.camera, each.first) for each in seen]
    network = CameraNetwork.learn(rows, items)
    # As reprism link run knows it: two in view of one camera at once are two.
    apart = np.array(
        [(a, b) for a, b in combinations(range(len(seen)), 2) if _in_view_at_once(seen[a], seen[b])], np.int64
    ).reshape(-1, 2)
    try:
        found = find_people(rows, items, network, least=arguments.least, apart=apart)
    except OddsError as error:
        raise SystemExit(f"{len(seen)} sightings are refused: {error}") from error
    looks = find_people(rows, items, odds=found.odds, least=arguments.least, apart=apart)
    people = [each.pid for each in seen]
    print(f"{len(seen)} sightings of {len(set(people))} people; {network.num_pairs} matches\n")
    print("| | B-cubed F1 | precision | recall | IDF1 | people found |\n|---|---|---|---|---|---|")
    for name, labels in (("looks alone", looks.labels), ("looks and times", found.labels)):
        scores = score_clusters(labels, people)
        rates = (scores.f1, scores.precision, scores.recall, identities(arguments.sites, seen, labels))
        print(f"| {name} | {' | '.join(f'{100 * rate:.1f} %' for rate in rates)} | {scores.clusters} |")
    print_transit_times(network, seen)


def sightings_of(site: Path, embedder: Embedder) -> list[Sighting]:
    """Read the tracks of a drawn site's truth, and describe each by crops of its boxes."""
    plan = json.loads((site / "site.json").read_text(encoding="utf-8"))
    ahead = {camera["name"]: float(camera["clock_offset"]) for camera in plan["cameras"]}
    begun = {file["name"]: datetime.fromisoformat(file["clock_start"]) for c in plan["cameras"] for file in c["files"]}
    boxes = read_tracks(site, ignored=True)
    with (site / "tracks.csv").open(newline="", encoding="utf-8") as table:
        tracks = list(csv.DictReader(table))
    found = []
    for name, start in begun.items():
        table = boxes[Path(name).stem]
        wanted: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for track in sorted(set(table.ids)):
            of = np.array([each == track for each in table.ids]) & (table.visibility >= _SHOWS)
            rows = np.flatnonzero(of)
            for row in rows[np.unique(np.linspace(0, len(rows) - 1, _CROPS).astype(int))] if len(rows) else ():
                wanted[int(table.frames[row])].append((track, int(row)))
        described: dict[str, list[np.ndarray]] = defaultdict(list)
        for frame in read_frames(str(site / name)):
            if here := wanted.get(frame.index):
                crops = embedder.embed_boxes(frame.image, table.xyxy[[row for _, row in here]])
                for (track, _), crop in zip(here, crops, strict=True):
                    described[track].append(crop)
        for row in tracks:
            if row["file"] == name and row["track"] in described:
                mean = np.mean(described[row["track"]], axis=0)
                first, last = (
                    start.timestamp() + (int(row[f"{end}_frame"]) - 1) / plan["fps"] for end in ("first", "last")
                )
                who = (row["camera"], int(row["pid"]), row["visit"])
                found.append(
                    Sighting(
                        site,
                        Path(name).stem,
                        row["track"],
                        *who,
                        first,
                        last,
                        ahead[row["camera"]],
                        mean / np.linalg.norm(mean),
                    )
                )
    return found


def _in_view_at_once(one: Sighting, other: Sighting) -> bool:
    same = one.site == other.site and one.file == other.file
    return same and one.first <= other.last and other.first <= one.last


def identities(sites: Sequence[Path], seen: Sequence[Sighting], labels: np.ndarray) -> float:
    """Return IDF1 over all cameras and days of the true boxes, each with its sighting's person."""
    person = {(each.site, each.file, each.track): f"{label}" for each, label in zip(seen, labels, strict=True)}
    truth, tracks = {}, {}
    for site in sites:
        true = read_people(site)
        for camera, table in read_tracks(site, ignored=True).items():
            kept = np.array([(site, camera, track) in person for track in table.ids], bool)
            names = tuple(person[site, camera, track] for track in table.ids if (site, camera, track) in person)
            columns = {
                name: getattr(table, name)[kept] for name in ("frames", "xyxy", "scores", "visibility", "ignored")
            }
            truth[f"{site}/{camera}"] = true[camera]
            tracks[f"{site}/{camera}"] = replace(table, ids=names, **columns)
    return evaluate_identities(truth, tracks).idf1


def print_transit_times(network: CameraNetwork, seen: Sequence[Sighting]) -> None:
    """Print of every two cameras the learned times from one to the other, beside the true ones; and clocks.

    Learned times are set right by the clocks that overlapping cameras tell; other clocks are taken to be right.
    """
    routes = find_routes(network)
    offsets = clock_offsets(routes)
    cameras = sorted({each.camera for each in seen})
    told = {camera: clock_ahead(offsets, cameras[0], camera) for camera in cameras[1:]}
    said = ", ".join(f"{camera} {ahead:+.0f} s" for camera, ahead in told.items() if ahead is not None)
    overlap = ", ".join(" and ".join(two) for two, route in routes.items() if route.at_once)
    print(f"\nsee a person at once: {overlap or 'none'}; clocks ahead of {cameras[0]}'s: {said or 'none told'}\n")
    print(
        "| from | to | true: passages | median | learned: matches | median | quartiles |\n|---|---|---|---|---|---|---|"
    )
    wrong = {camera: seconds or 0.0 for camera, seconds in told.items()}
    by_visit: dict[tuple[Path, int, str], list[Sighting]] = defaultdict(list)
    for each in seen:
        by_visit[each.site, each.pid, each.visit].append(each)

    def ahead(two: tuple[str, str]) -> float:
        return wrong.get(two[1], 0.0) - wrong.get(two[0], 0.0)

    for one, other in permutations(cameras, 2):
        passages = [
            (b.first - b.ahead) - (a.first - a.ahead)
            for walk in by_visit.values()
            for a, b in permutations(walk, 2)
            if (a.camera, b.camera) == (one, other)
        ]
        gaps = [gap for gap in passages if gap > 0]
        two = (min(one, other), max(one, other))
        way = routes[two].ways(ahead(two), least=_FEWEST)[two[0] != one] if two in routes else None
        if len(gaps) < _FEWEST and way is None:
            continue
        learned = (
            "– | – | –"
            if way is None
            else f"{way.pairs} | {way.quartiles[1]:.0f} s | {way.quartiles[0]:.0f} to {way.quartiles[2]:.0f} s"
        )
        median = f"{np.median(gaps):.0f} s" if gaps else "–"
        print(f"| {one} | {other} | {len(gaps)} | {median} | {learned} |")


if __name__ == "__main__":
    main()
