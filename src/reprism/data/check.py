"""Check a data set on disk: counts beside the published ones, missing and unreadable images, lost queries."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reprism.data.records import (
    DISTRACTOR,
    JUNK,
    DataError,
    Item,
    Label,
    ReIDDataset,
    Tracklet,
    as_images,
    sorted_labels,
)
from reprism.drawn.output import DRAWN_MARK
from reprism.progress import Count, Progress, step

PARTS = ("train", "query", "gallery")

PUBLISHED: dict[tuple[str, str], dict[str, dict[str, int]]] = {
    ("market1501", ""): {
        "train": {"images": 12_936, "identities": 751, "cameras": 6},
        "query": {"images": 3_368, "identities": 750, "cameras": 6},
        "gallery": {"images": 15_913, "cameras": 6},
        "multi_query": {"images": 25_259},
    },
    ("dukemtmc", ""): {
        "train": {"images": 16_522, "identities": 702, "cameras": 8},
        "query": {"images": 2_228, "identities": 702, "cameras": 8},
        "gallery": {"images": 17_661, "cameras": 8},
    },
    ("cuhk03", "labelled boxes, new protocol"): {
        "train": {"images": 7_368, "identities": 767, "cameras": 2},
        "query": {"images": 1_400, "identities": 700, "cameras": 2},
        "gallery": {"images": 5_328, "identities": 700, "cameras": 2},
    },
    ("cuhk03", "detected boxes, new protocol"): {
        "train": {"images": 7_365, "identities": 767, "cameras": 2},
        "query": {"images": 1_400, "identities": 700, "cameras": 2},
        "gallery": {"images": 5_332, "identities": 700, "cameras": 2},
    },
    ("mars", "original gallery"): {
        "train": {"tracklets": 8_298, "images": 509_914, "identities": 625, "cameras": 6},
        "query": {"tracklets": 1_980, "identities": 626, "cameras": 6},
        "gallery": {"tracklets": 12_180, "images": 681_089, "cameras": 6},
    },
    ("mars", "without-queries gallery"): {
        "train": {"tracklets": 8_298, "images": 509_914, "identities": 625, "cameras": 6},
        "query": {"tracklets": 1_980, "identities": 626, "cameras": 6},
        "gallery": {"tracklets": 9_330, "cameras": 6},
    },
}
"""Published counts of a data set's splits, by its name and protocol. Identities include the distractors' 0."""


def is_drawn(dataset: ReIDDataset) -> bool:
    """Tell whether a data set's people are drawn, by the mark in its root."""
    return (dataset.root / DRAWN_MARK).is_file()


def published_counts(dataset: ReIDDataset) -> dict[str, dict[str, int]]:
    """Return the published counts of each part; none where there are none, and of drawn people."""
    return {} if is_drawn(dataset) else PUBLISHED.get((dataset.name, dataset.protocol), {})


def count(items: Sequence[Item]) -> dict[str, int]:
    """Count the images (frames), tracklets if any, identities and cameras of a split."""
    tracklets = [item for item in items if isinstance(item, Tracklet)]
    counts = {"images": len(items) - len(tracklets) + sum(map(len, tracklets))}
    if tracklets:
        counts["tracklets"] = len(tracklets)
    counts["identities"] = len({item.pid for item in items} - {JUNK})
    counts["cameras"] = len({item.camid for item in items} - {None})
    return counts


def lost_queries(query: Sequence[Item], gallery: Sequence[Item]) -> list[tuple[Item, str]]:
    """Return the queries that nothing in the gallery can match, each with the reason."""
    cameras: dict[Label, Counter[Label | None]] = defaultdict(Counter)
    for item in gallery:
        if item.pid != JUNK:
            cameras[item.pid][item.camid] += 1
    lost = []
    for item in query:
        seen = cameras.get(item.pid, Counter())
        if not seen:
            lost.append((item, f"nothing in the gallery shows identity {item.pid}"))
        elif item.camid is not None and set(seen) == {item.camid}:
            reason = f"in the gallery, only the query's own camera, {item.camid}, shows identity {item.pid}"
            lost.append((item, reason))
    return lost


def evaluation_faults(dataset: ReIDDataset) -> list[str]:
    """List what keeps a data set from being evaluated, each as one sentence with its remedy; empty if nothing does.

    Reads labels only: no file is opened.
    """
    query, gallery = dataset.query, tuple(item for item in dataset.gallery if item.pid != JUNK)
    if not query or not gallery:
        empty = " and ".join(name for name, items in (("query", query), ("gallery", gallery)) if not items)
        only = " (training images alone)" if not (query or dataset.gallery) else ""
        junk = " but junk" if dataset.gallery and not gallery else ""
        return [
            f"no {empty}{only}{junk}: add images of other people with the splits query and gallery, "
            "or leave the split out and divide by identity (--split-by-identity 0.5)"
        ]
    for item in (*query, *gallery):
        if isinstance(item, Tracklet) != isinstance(query[0], Tracklet):
            return [f"query and gallery mix images and tracklets, such as {item.path}: use one kind for both"]
        if (item.camid is None) != (query[0].camid is None):
            return [
                f"some test images have a camera and others none, such as {item.path} with {item.camid}: "
                "give all of them one, or none"
            ]
    lost = lost_queries(query, gallery)
    if len(lost) == len(query):
        return [
            f"no valid query: none of the {len(query):,} queries has a match in the gallery; of the first, "
            f"{query[0].path}, {lost[0][1]}. Add gallery images of the queries' people"
            + (" from other cameras" if query[0].camid is not None else "")
        ]
    return []


def training_faults(dataset: ReIDDataset, ids_per_batch: int, processes: int = 1) -> list[str]:
    """List what keeps a data set from being trained on, each as one sentence with its remedy; empty if nothing does.

    Args:
        dataset: A data set that :func:`reprism.open_dataset` opened.
        ids_per_batch: P of the identity sampler, identities in each process's batch.
        processes: Number of processes that train together.
    """
    identities = dataset.num_train_identities
    if not identities:
        return ["no training images: add images with the split train"]
    if identities >= ids_per_batch * processes:
        return []
    most = identities // processes
    among = f" for each of {processes} processes" if processes > 1 else ""
    remedy = f"lower it to {most} (--data.ids-per-batch {most})" if most else "add identities, or use fewer processes"
    return [f"{identities} training identities cannot fill a batch of {ids_per_batch} identities{among}: {remedy}"]


def require_evaluable(dataset: ReIDDataset) -> None:
    """Refuse a data set that cannot be evaluated, before any work is spent on it.

    Raises:
        DataError: Query or gallery is empty, or no query has a match; names the data set and the remedy.
    """
    _refuse(dataset, evaluation_faults(dataset))


def require_trainable(dataset: ReIDDataset, ids_per_batch: int, processes: int = 1) -> None:
    """Refuse a data set that cannot be trained on and then evaluated, before any work is spent on it.

    Args:
        dataset: A data set that :func:`reprism.open_dataset` opened.
        ids_per_batch: P of the identity sampler, identities in each process's batch.
        processes: Number of processes that train together.

    Raises:
        DataError: No training image, fewer training identities than a step takes, an empty query or gallery, or no
            query that has a match; names the data set, every fault and its remedy.
    """
    _refuse(dataset, [*training_faults(dataset, ids_per_batch, processes), *evaluation_faults(dataset)])


def _refuse(dataset: ReIDDataset, faults: list[str]) -> None:
    if faults:
        raise DataError(f"the data set {dataset.name} in {dataset.root} cannot be used: {'; '.join(faults)}")


def missing_files(items: Iterable[Item], progress: Count | None = None) -> list[Path]:
    """Return the images that are not on disk. Each folder is listed once; no image is opened."""
    wanted: dict[Path, set[str]] = defaultdict(set)
    for item in items:
        if isinstance(item, Tracklet):
            for name in item.names:
                above, last = os.path.split(name)
                wanted[item.folder / above if above else item.folder].add(last)
        else:
            wanted[item.path.parent].add(item.path.name)
    missing = []
    for done, (folder, names) in enumerate(sorted(wanted.items()), 1):
        try:
            with os.scandir(folder) as entries:
                # A link to nowhere is listed, and is no image.
                present = {entry.name for entry in entries if not entry.is_symlink() or Path(entry.path).exists()}
        except OSError:
            present = set()
        missing += [folder / name for name in sorted(names - present)]
        if progress is not None:
            progress(done, len(wanted))
    return missing


def check_dataset(
    dataset: ReIDDataset,
    *,
    decode: bool = False,
    ids_per_batch: int = 8,
    images_per_id: int = 4,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Count and look through a data set.

    Args:
        dataset: A data set that :func:`reprism.open_dataset` opened.
        decode: Decode every image, minutes at the size of the known data sets; otherwise folders are listed.
        ids_per_batch: P of the identity sampler; fewer training identities cannot fill a batch.
        images_per_id: K of the identity sampler; training identities with fewer images repeat some in a batch.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        Values ready for JSON:

        - ``drawn``: true if the people are drawn; published counts do not apply then.
        - ``parts``: counts of each split, and ``published`` ones where known; ``differences`` between them, as text.
        - ``missing`` and ``unreadable`` images.
        - ``unusable``: reasons why it cannot be trained on (unless it has test data alone) or evaluated on.
        - ``one_camera`` and ``few_images``: training identities seen by one camera, or in few images.
        - ``unmatchable``: test identities that one camera saw; ``lost_queries``.
        - ``times``: ``known`` and ``unknown``, images or tracklets with a time and without, and ``recordings``: first
          and last time of each, where any is known (the only recording may have no name: "").
        - ``problems``: number of differences, missing and unreadable images and reasons; ``ok``: true if there is none.
    """

    parts: dict[str, Any] = {}
    differences = []
    published = published_counts(dataset)
    for part in (*PARTS, *(("multi_query",) if dataset.multi_query else ())):
        found = count(getattr(dataset, part))
        parts[part] = found | ({"published": published[part]} if part in published else {})
        differences += [
            f"{part}: {found.get(what, 0):,} {what} where {wanted:,} were published"
            for what, wanted in published.get(part, {}).items()
            if found.get(what, 0) != wanted
        ]
    # In the original protocol of MARS the queries are in the gallery too: every file once.
    items = list(dict.fromkeys((*dataset.train, *dataset.query, *dataset.gallery, *dataset.multi_query)))
    missing = missing_files(items, step(progress, "listing folders"))
    unreadable = []
    if decode:
        from reprism.data.images import check_images

        gone = set(missing)
        images = [sample for sample in as_images(items) if sample.path not in gone]
        unreadable = check_images(images, step(progress, "decoding images"))[1]
    unusable = evaluation_faults(dataset)
    if dataset.train:
        unusable = training_faults(dataset, ids_per_batch) + unusable
    problems = len(differences) + len(missing) + len(unreadable) + len(unusable)
    images_of: Counter[Label] = Counter(sample.pid for sample in dataset.train_images)
    test = [item for item in (*dataset.query, *dataset.gallery) if item.pid not in (JUNK, DISTRACTOR)]
    return {
        "data": dataset.name,
        "root": str(dataset.root),
        "protocol": dataset.protocol,
        "drawn": is_drawn(dataset),
        "parts": parts,
        "differences": differences,
        "missing": [str(path) for path in missing],
        "unreadable": [{"path": str(sample.path), "reason": reason} for sample, reason in unreadable],
        "unusable": unusable,
        "one_camera": _seen_by_one_camera(dataset.train),
        "few_images": {str(pid): images_of[pid] for pid in sorted_labels(images_of) if images_of[pid] < images_per_id},
        "unmatchable": _seen_by_one_camera(test),
        "lost_queries": [
            {"path": str(item.path), "pid": item.pid, "camid": item.camid, "reason": reason}
            for item, reason in lost_queries(dataset.query, dataset.gallery)
        ],
        "times": _times(items),
        "problems": problems,
        "ok": not problems,
    }


def _times(items: Iterable[Item]) -> dict[str, Any]:
    known = unknown = 0
    spans: dict[str, list[float]] = {}
    for item in items:
        if item.time is None:
            unknown += 1
            continue
        known += 1
        span = spans.setdefault(item.recording or "", [item.time, item.time])
        span[:] = min(span[0], item.time), max(span[1], item.time)
    return {"known": known, "unknown": unknown, "recordings": dict(sorted(spans.items()))}


def _seen_by_one_camera(items: Iterable[Item]) -> list[Label]:
    cameras: dict[Label, set[Label]] = defaultdict(set)
    for item in items:
        if item.camid is not None:
            cameras[item.pid].add(item.camid)
    return sorted_labels(pid for pid, seen in cameras.items() if len(seen) < 2)
