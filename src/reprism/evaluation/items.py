"""Rank a data set's items: junk left out, queries averaged, one gallery item of each identity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reprism.data.records import JUNK, Item, Label, ReIDDataset
from reprism.deprecation import renamed_arguments
from reprism.evaluation.crowding import warn_of_collapse
from reprism.evaluation.distances import Matrix, as_matrix
from reprism.evaluation.evidence import Evidence, JoinedDistances
from reprism.evaluation.ranking import RankingMetrics, evaluate, evaluate_distances
from reprism.evaluation.reranking import RerankedDistances, average_query_expansion


@renamed_arguments(all_pairs_runs="all_pairs_segments")
def evaluate_items(
    query: Matrix,
    gallery: Matrix,
    query_items: Sequence[Item],
    gallery_items: Sequence[Item],
    *,
    single_shot_trials: int = 0,
    seed: int = 0,
    rerank: Mapping[str, Any] | None = None,
    evidence: Evidence | None = None,
    **options: Any,
) -> RankingMetrics:
    """Rank and score as :func:`reprism.evaluate`, with identities and cameras taken from the items.

    Gallery items that are junk (:data:`reprism.data.records.JUNK`) are ignored, as if they were not there.

    Args:
        query: N×D descriptors of ``query_items``.
        gallery: M×D descriptors of ``gallery_items``.
        query_items, gallery_items: Images or tracklets, in the descriptors' order. Where no item has a camera,
            cameras are unknown and no match is ignored.
        single_shot_trials: 0 ranks the whole gallery. N ranks one item of each identity, chosen at random from those
            of other cameras than the query's, N times over (single gallery shot: the classic protocol of CUHK03); the
            result's means are over all trials.
        seed: Random seed of that choice.
        rerank: Rank by re-ranked distances, with these options of :func:`reprism.rerank` (``{}``: its own defaults).
        evidence: Rank by evidence beside appearance (:class:`reprism.evaluation.evidence.JoinedDistances`).
        **options: Further options of :func:`reprism.evaluate`.

    Raises:
        ValueError: Some items have a camera and others none; re-ranking or evidence is asked for together with single
            shots or all pairs of segments, or with each other; and all that :func:`reprism.evaluate` raises.
    """
    known = {item.camid is not None for item in (*query_items, *gallery_items)}
    if len(known) == 2:
        without = next(item for item in (*query_items, *gallery_items) if item.camid is None)
        raise ValueError(
            f"some images have a camera and others none, such as {without.path}: give all of them one, or none"
        )
    query, gallery = as_matrix(query, "query"), as_matrix(gallery, "gallery")
    for name, rows, items in (("query", query, query_items), ("gallery", gallery, gallery_items)):
        if len(rows) != len(items):
            raise ValueError(f"{name} has {len(rows)} descriptors for {len(items)} items")
    wanted = [index for index, item in enumerate(gallery_items) if item.pid != JUNK]
    if len(wanted) < len(gallery_items):
        gallery, gallery_items = gallery[torch.tensor(wanted)], [gallery_items[index] for index in wanted]
    if evidence is not None:
        if rerank is not None or single_shot_trials or options.pop("all_pairs_segments", 1) != 1:
            raise ValueError(
                "evidence beside appearance goes with neither re-ranking, single shots nor pairs of segments"
            )
        joined = JoinedDistances(query, gallery, query_items, gallery_items, evidence)
        return evaluate_distances(joined, **_labels(query_items, gallery_items), **options)
    if rerank is not None:
        if single_shot_trials or options.pop("all_pairs_segments", 1) != 1:
            raise ValueError(
                "re-ranking compares every item with every other: not with single shots or pairs of segments"
            )
        warn_of_collapse(gallery)
        labels = _labels(query_items, gallery_items)
        return evaluate_distances(RerankedDistances(query, gallery, **rerank), **labels, **options)
    if not single_shot_trials:
        return evaluate(query, gallery, **_labels(query_items, gallery_items), **options)
    return _single_shot(query, gallery, query_items, gallery_items, single_shot_trials, seed, options)


def expand_queries(
    query: Matrix, gallery: Matrix, query_items: Sequence[Item], gallery_items: Sequence[Item], k: int
) -> np.ndarray:
    """Expand queries by their nearest gallery rows, of those that the protocol ranks.

    Junk does not join, nor does what shares identity and camera with the query, nor the query's own file.
    See :func:`reprism.evaluation.reranking.average_query_expansion`.

    Args:
        query: N×D descriptors of ``query_items``.
        gallery: M×D descriptors of ``gallery_items``.
        query_items, gallery_items: Images or tracklets, in the descriptors' order.
        k: Number of gallery rows that join.

    Returns:
        N×D, rows of length 1.
    """
    rows = as_matrix(gallery, "gallery")
    kept = [index for index, item in enumerate(gallery_items) if item.pid != JUNK]
    same: dict[Any, set[int]] = defaultdict(set)
    for index, row in enumerate(kept):
        item = gallery_items[row]
        same[item.path].add(index)
        if item.camid is not None:
            same[item.pid, item.camid].add(index)
    ignored = [same.get((item.pid, item.camid), set()) | same.get(item.path, set()) for item in query_items]
    return average_query_expansion(query, rows[torch.tensor(kept, dtype=torch.int64)], k, ignored=ignored)


def average_queries(query: Matrix, items: Sequence[Item]) -> tuple[Tensor, list[Item]]:
    """Multi-query: the mean descriptor of each identity in each camera, and an item that stands for them.

    Args:
        query: N×D descriptors.
        items: Whose they are, in their order.

    Returns:
        n×D descriptors in the order in which identities and cameras first occur, and the first item of each. Means
        are not normalised: among gallery rows of one length this changes no ranking.
    """
    rows = as_matrix(query, "query")
    groups: dict[tuple[Label, Label | None], int] = {}
    group_of = torch.tensor([groups.setdefault((item.pid, item.camid), len(groups)) for item in items])
    sums = torch.zeros(len(groups), rows.shape[1], dtype=torch.float64).index_add_(0, group_of, rows.double().cpu())
    means = sums / group_of.bincount()[:, None]
    first: dict[int, Item] = {}
    for group, item in zip(group_of.tolist(), items, strict=True):
        first.setdefault(group, item)
    return means.to(rows.dtype), list(first.values())


def average_boxes(query: Matrix, items: Sequence[Item], boxes: Matrix, box_items: Sequence[Item]) -> Tensor:
    """Multi-query of Market-1501: describe each query by the mean of the boxes of its identity and camera.

    Zheng et al., *Scalable Person Re-identification: A Benchmark*, ICCV 2015, by average pooling. A query that no box
    shows keeps its own descriptor.

    Args:
        query: N×D descriptors.
        items: Whose they are, in their order.
        boxes: M×D descriptors, such as of the hand-drawn boxes in ``gt_bbox``.
        box_items: Whose they are, in their order.

    Returns:
        N×D, one row for each query. Means are not normalised: among gallery rows of one length this changes no ranking.
    """
    rows = as_matrix(query, "query").clone()
    if not len(box_items):
        return rows
    means, first = average_queries(boxes, box_items)
    first_of = {(item.pid, item.camid): index for index, item in enumerate(first)}
    for row, item in enumerate(items):
        index = first_of.get((item.pid, item.camid))
        if index is not None:
            rows[row] = means[index].to(rows)
    return rows


def boxes_of_queries(dataset: ReIDDataset) -> list[Item]:
    """List the boxes of ``dataset.multi_query`` that show a query's identity by its camera."""
    asked = {(item.pid, item.camid) for item in dataset.query}
    return [item for item in dataset.multi_query if (item.pid, item.camid) in asked]


def require_multi_query(dataset: ReIDDataset) -> None:
    """Refuse multi-query evaluation where it would average nothing.

    Raises:
        ValueError: Every query is the only one of its identity and camera, and the data set has no further boxes.
    """
    groups = {(item.pid, item.camid) for item in dataset.query}
    if len(groups) == len(dataset.query) and not boxes_of_queries(dataset):
        raise ValueError(
            f"multi-query has nothing to average: {dataset.name} in {dataset.root} has one query of each identity and "
            "camera, and no further boxes of them (those of Market-1501 lie in its folder gt_bbox). "
            "Evaluate it without --multi-query."
        )


def _labels(query_items: Sequence[Item], gallery_items: Sequence[Item]) -> dict[str, Any]:
    """Identities and cameras of both sides, as ``evaluate`` calls them; cameras are None where unknown."""
    labels: dict[str, Any] = {}
    for side, items in (("query", query_items), ("gallery", gallery_items)):
        labels[f"{side}_pids"] = [item.pid for item in items]
        labels[f"{side}_camids"] = None if items[0].camid is None else [item.camid for item in items]
    return labels


def _single_shot(
    query: Tensor,
    gallery: Tensor,
    query_items: Sequence[Item],
    gallery_items: Sequence[Item],
    trials: int,
    seed: int,
    options: dict[str, Any],
) -> RankingMetrics:
    progress = options.pop("progress", None)
    rng = np.random.default_rng(seed)
    arrays = ("average_precision_step", "average_precision_trapezoid", "inverse_negative_penalty")
    shape = (trials, len(query_items))
    # A query that no trial reaches stays as a lost one is.
    whole: dict[str, Any] = {name: np.full(shape, np.nan) for name in arrays}
    whole["first_match_rank"] = np.zeros(shape, np.int64)
    pids = [item.pid for item in gallery_items]
    metrics = None
    for trial in range(trials):
        order = rng.permutation(len(gallery_items)).tolist()
        for camid in {item.camid: None for item in query_items}:
            asking = [index for index, item in enumerate(query_items) if item.camid == camid]
            chosen: dict[Label, int] = {}
            for index in order:
                if camid is None or gallery_items[index].camid != camid:
                    chosen.setdefault(pids[index], index)
            if not any(query_items[index].pid in chosen for index in asking):
                continue  # all of them are lost
            shots = sorted(chosen.values())
            here, there = [query_items[index] for index in asking], [gallery_items[index] for index in shots]
            metrics = evaluate(query[asking], gallery[shots], **_labels(here, there), **options)
            for name, values in whole.items():
                values[trial, asking] = getattr(metrics, name)
        if progress is not None:
            progress(trial + 1, trials)
    if metrics is None:
        raise ValueError(f"no valid query: none of the {len(query_items)} queries was seen by another camera")
    return RankingMetrics(
        **{name: values.ravel() for name, values in whole.items()},
        ap=metrics.ap,
        lost=metrics.lost,
        max_rank=metrics.max_rank,
        trials=trials,
    )
