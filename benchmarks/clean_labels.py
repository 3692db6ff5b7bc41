"""Plant faults in a copy of a data set's list, and count how many of each kind `reprism data clean` finds.

    python benchmarks/clean_labels.py market1501:/data/Market-1501 --model model.safetensors

The pictures stay as they are; copies of some are written to the folder of the list.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reprism.cli import main
from reprism.data import LOADERS, open_dataset
from reprism.data.joint import named_data


def plant(data: str, folder: Path, share: float, pairs: int, seed: int) -> tuple[Path, dict[str, Any]]:
    """Write a list with planted faults, and return it with the truth."""
    name, root, options = named_data(data, LOADERS)
    dataset = open_dataset(name, root, **options)
    rng = np.random.default_rng(seed)
    rows = [
        {"path": str(item.path.absolute()), "pid": str(item.pid), "camid": str(item.camid), "split": split}
        for split in ("train", "query", "gallery")
        for item in getattr(dataset, split)
    ]
    training = [row for row in rows if row["split"] == "train"]
    names = sorted({row["pid"] for row in training})
    chosen = [str(each) for each in rng.permutation(names)]
    merged = dict(zip(chosen[:pairs], chosen[pairs : 2 * pairs], strict=True))
    cut, leaked = set(chosen[2 * pairs : 3 * pairs]), set(chosen[3 * pairs : 4 * pairs])
    truth: dict[str, Any] = {"wrong identity": {}, "two people": set(merged.values()), "two names": set(),
                             "duplicate": set(), "leak": set()}  # fmt: skip
    free = [row for row in training if row["pid"] in chosen[4 * pairs :]]
    for row in rng.permutation(np.array(free, object))[: round(share * len(training))]:
        truth["wrong identity"][row["path"]] = row["pid"]
        row["pid"] = str(rng.choice([other for other in names if other != row["pid"]]))
    for row in training:
        if row["path"] in truth["wrong identity"]:
            continue
        if row["pid"] in merged:
            row["pid"] = merged[row["pid"]]
        elif row["pid"] in cut and rng.random() < 0.5:
            truth["two names"].add(row["pid"])
            row["pid"] += "-again"
        elif row["pid"] in leaked and rng.random() < 0.5:
            truth["leak"].add(row["pid"])
            row["pid"], row["split"] = f"{row['pid']}-again", "gallery"
    for number, row in enumerate(rng.permutation(np.array(free, object))[:pairs]):
        copy = folder / f"copy-{number}.jpg"
        if not copy.exists():  # as it is, descriptors made before hold
            with Image.open(row["path"]) as picture:
                picture.save(copy, quality=80)
        rows.append(row | {"path": str(copy)})
        truth["duplicate"].add(copy.name)
    table = folder / "planted.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "pid", "camid", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return table, truth


def hits(finding: dict[str, Any], truth: dict[str, Any]) -> set[str]:
    """Return the planted faults that a finding names."""
    kind, pictures = finding["kind"], finding["pictures"]
    if kind == "wrong identity":
        return {pictures[0]["path"]} & set(truth[kind])
    if kind == "duplicate":
        return {Path(picture["path"]).name for picture in pictures} & truth[kind]
    names = {picture["pid"] for picture in pictures}
    if kind == "two people":
        return names & truth[kind]
    return {name for name in names if f"{name}-again" in names} & truth[kind]


def run() -> None:
    """Plant, clean, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--share", type=float, default=0.02, help="share of training pictures with a stranger's name")
    parser.add_argument("--pairs", type=int, default=20, help="faults of each other kind")
    parser.add_argument("--least", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder to keep")
    given = parser.parse_args()
    folder = given.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    table, truth = plant(given.data, folder, given.share, given.pairs, given.seed)
    out = folder / "clean"
    command = ["data", "clean", "csv", str(table), "--model", given.model, "--out", str(out), "--overwrite"]
    if main([*command, "--least", str(given.least)]):
        raise SystemExit(1)
    findings = json.loads((out / "findings.json").read_text(encoding="utf-8"))["findings"]
    print("| kind | planted | found | listed | recall | precision |\n|---|---|---|---|---|---|")
    for kind, planted in truth.items():
        listed = [finding for finding in findings if finding["kind"] == kind]
        right = [found for finding in listed if (found := hits(finding, truth))]
        found = set().union(*right) if right else set()
        precision = f"{len(right) / len(listed):.0%}" if listed else ""
        print(
            f"| {kind} | {len(planted)} | {len(found)} | {len(listed)} | {len(found) / max(1, len(planted)):.0%} "
            f"| {precision} |"
        )


if __name__ == "__main__":
    run()
