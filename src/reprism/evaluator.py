"""Test a model on a data set by a protocol: the central act of the field, as one function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from reprism.data.check import require_evaluable
from reprism.data.records import Item, Label, ReIDDataset, sorted_labels
from reprism.data.transforms import Preprocessing
from reprism.data.video import VideoSettings
from reprism.embedding import Embedder
from reprism.engines.session import Engine
from reprism.evaluation.camera_statistics import statistics_of_items
from reprism.evaluation.distances import part_distances
from reprism.evaluation.items import (
    average_boxes,
    average_queries,
    boxes_of_queries,
    evaluate_items,
    expand_queries,
    require_multi_query,
)
from reprism.evaluation.lists import RankedList, hardest, ranked_lists
from reprism.evaluation.part_scale import PartAgreement, PartScale
from reprism.evaluation.protocol import Protocol
from reprism.evaluation.ranking import RankingMetrics
from reprism.files import write_json
from reprism.notation import Partition
from reprism.precision import Precision
from reprism.progress import Progress, step


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a model on a data set, with the protocol and the descriptors behind them.

    Attributes:
        name: Name of the model: its file, or its class.
        dataset: The data set that was ranked. If queries are averaged, its queries are the first of each group.
        protocol: The protocol, with nothing left open.
        metrics: Scores, over all queries and for every query.
        query: N×D float32, descriptors as they were compared, in the order of ``dataset.query``.
        gallery: M×D float32, in the order of ``dataset.gallery``.
        partition: The model's branches and parts.
        size: Height and width of the model's images in pixels.
        precision: Number format of the model, such as ``bf16``.
        engine: Program that ran it, such as ``torch``.
    """

    name: str
    dataset: ReIDDataset
    protocol: Protocol
    metrics: RankingMetrics
    query: np.ndarray
    gallery: np.ndarray
    partition: Partition
    size: tuple[int, int]
    precision: str
    engine: str = "torch"

    def __repr__(self) -> str:
        scores = f"mAP {self.metrics.mAP:.1%}, rank-1 {self.metrics.rank(1):.1%}"
        return f"Evaluation({self.name!r} on {self.dataset.name!r}: {scores}; {self.describe()})"

    def describe(self) -> str:
        """Return the protocol in words, with what is known of data and model."""
        numbers = self.precision if self.engine == "torch" else f"{self.precision} by {self.engine}"
        return self.protocol.describe(self.dataset, size=self.size, precision=numbers, metrics=self.metrics)

    @property
    def lost_queries(self) -> tuple[Item, ...]:
        """The queries whose person no other camera saw."""
        return tuple(self.dataset.query[index] for index in self.metrics.lost_queries)

    @property
    def segments(self) -> int:
        """Descriptors side by side in a row: 1 for images, one for each segment of tracklets."""
        return self.protocol.segments(self.dataset)

    def hardest(self, n: int = 10) -> list[int]:
        """Return the indices of the n queries of least average precision, hardest first, without lost ones.

        Raises:
            ValueError: The protocol is of single-shot trials, which rank a query many times.
        """
        self._require_one_ranking()
        return hardest(self.metrics, n)

    def ranked_list(self, query: int, top: int = 10) -> RankedList:
        """Return the nearest gallery items of one query, by the distance of whole rows.

        Args:
            query: Its index in ``dataset.query``.
            top: Maximum number of items.

        Raises:
            ValueError: There is no such query, or the protocol does not rank by that distance alone.
        """
        return self.ranked_lists([query], top)[0]

    def ranked_lists(self, queries: Sequence[int], top: int = 10) -> list[RankedList]:
        """Return the ranked lists of several queries, in their order; see :meth:`ranked_list`."""
        self._require_one_ranking()
        if self.protocol.network is not None:
            raise ValueError("ranked lists are by the distance of descriptors alone: not with a network of cameras")
        if self.protocol.rerank is not None or (self.dataset.is_video and self.protocol.comparison == "all-pairs"):
            raise ValueError(
                "ranked lists are by one distance between rows: not re-ranked, not by all pairs of segments"
            )
        return ranked_lists(self.query, self.gallery, self.dataset.query, self.dataset.gallery, queries, top)

    @cached_property
    def scale(self) -> PartScale | None:
        """The scale that parts are compared by; None where there are too few pairs of strangers."""
        items = self.dataset.query, self.dataset.gallery
        return PartScale.fit(self.query, self.gallery, *items, self.partition, self.segments)

    def parts(self, found: RankedList) -> list[dict[str, PartAgreement]]:
        """Return how well each part of each match agrees; a match of no parts where there is no scale."""
        if self.scale is None:
            return [{} for _ in found.gallery]
        distances = part_distances(self.query[found.query], self.gallery[found.gallery], self.partition, self.segments)
        return self.scale.agreement(distances)

    def by_camera_pair(self) -> dict[tuple[Label, Label], RankingMetrics]:
        """Score the queries of each camera against the gallery of each other camera alone.

        Returns:
            By query camera and gallery camera, in the cameras' order; without pairs that have no match. Other options
            are the protocol's. Re-ranking sees the pair's rows only.

        Raises:
            ValueError: Cameras are unknown, or the protocol is of single-shot trials.
        """
        self._require_one_ranking()
        cameras = [_rows_by_camera(items) for items in (self.dataset.query, self.dataset.gallery)]
        if not cameras[0]:
            raise ValueError(f"the cameras of {self.dataset.name} are unknown")
        options = self.protocol.ranking_options(self.dataset)
        found = {}
        for asked, queries in cameras[0].items():
            for shown, rows in cameras[1].items():
                some, others = [self.dataset.query[row] for row in queries], [self.dataset.gallery[row] for row in rows]
                if asked != shown and {item.pid for item in some} & {item.pid for item in others}:
                    found[asked, shown] = evaluate_items(
                        self.query[queries], self.gallery[rows], some, others, **options
                    )
        return found

    def _require_one_ranking(self) -> None:
        if self.protocol.single_shot_trials:
            raise ValueError("single-shot trials rank each query many times: there is no one ranked list")

    def rescored(self, query: np.ndarray, gallery: np.ndarray, progress: Progress | None = None) -> Evaluation:
        """Return the evaluation of other descriptors of the same items by the same protocol, such as projected ones."""
        asked, rows = np.asarray(query), np.asarray(gallery)
        return replace(
            self, query=asked, gallery=rows, metrics=_score(asked, rows, self.dataset, self.protocol, progress)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the scores with data, model and protocol, ready for JSON: fractions, counts, options, words."""
        return {
            "data": self.dataset.name,
            "root": str(self.dataset.root),
            "checkpoint": self.name,
            **self.metrics.as_dict(),
            "num_gallery": len(self.dataset.gallery),
            "lost_queries": [str(item.path) for item in self.lost_queries],
            **self.protocol.as_dict(self.dataset),
            "precision": self.precision,
            "engine": self.engine,
            "variant": self.dataset.protocol,
            "protocol": self.describe(),
        }

    def save(self, path: str | PathLike[str]) -> Path:
        """Write :meth:`as_dict` as JSON; the file appears whole."""
        write_json(Path(path), self.as_dict())
        return Path(path)


def evaluate_model(
    model: str | PathLike[str] | nn.Module | Embedder | Callable[[Tensor], Tensor],
    dataset: ReIDDataset,
    protocol: Protocol | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    batch_size: int = 64,
    precision: Precision = "auto",
    device: str | None = None,
    engine: Engine = "auto",
    workers: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Test a model on a data set: describe its queries and its gallery, rank, and score.

    Args:
        model: A model file, a :class:`PartNet`, an :class:`Embedder`, or any function or module that takes a B×3×H×W
            batch and returns B×D descriptors; the last with a ``preprocessing``.
        dataset: A data set that :func:`reprism.open_dataset` opened, or one of your own.
        protocol: The protocol of ranking and scoring (default: ``Protocol()``).
        preprocessing: Size, mean and deviation of the images that a function or module takes.
        batch_size, precision, device, engine: Settings of the embedder; an :class:`Embedder` has its own.
        workers: Processes that decode images; 0 decodes in this one.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        The scores, with the descriptors, the protocol and the data behind them.

    Raises:
        CheckpointError: A model file cannot be loaded.
        DataError: No query has a match, or query or gallery is empty.
        ImageError: An image cannot be read; names it.
        ValueError: Protocol, model and data do not go together; says which.

    Example:
        >>> dataset = reprism.open_dataset("market1501", "people")
        >>> result = reprism.evaluate_model("runs/cpu-minutes/model.safetensors", dataset)
        >>> result.metrics.mAP
    """
    require_evaluable(dataset)
    protocol = protocol or Protocol()
    if protocol.multi_query:
        require_multi_query(dataset)
    if isinstance(model, Embedder):
        embedder = model
    else:
        flip = protocol.flip is not False
        embedder = Embedder(model, batch_size, flip, precision, device, preprocessing=preprocessing, engine=engine)
    protocol = protocol.settled(dataset, embedder.flip)
    describe = partial(_describe, embedder, protocol.video, workers, progress)
    query: Any
    query, gallery = describe("query", dataset.query), describe("gallery", dataset.gallery)
    boxes = boxes_of_queries(dataset) if protocol.multi_query else []
    box_rows = describe("boxes of the queries", boxes) if boxes else None
    if protocol.camera_normalize:
        cameras = statistics_of_items(query, gallery, dataset.query, dataset.gallery)
        query, gallery = (
            cameras.apply(rows, [item.camid for item in items])
            for rows, items in ((query, dataset.query), (gallery, dataset.gallery))
        )
        if box_rows is not None:
            box_rows = cameras.apply(box_rows, [item.camid for item in boxes])
    if box_rows is not None:
        query = average_boxes(query, dataset.query, box_rows, boxes)
    elif protocol.multi_query:
        query, items = average_queries(query, dataset.query)
        dataset = replace(dataset, query=tuple(items))
    if protocol.expand_queries:
        query = expand_queries(query, gallery, dataset.query, dataset.gallery, protocol.expand_queries)
    rows = np.asarray(query)
    metrics = _score(rows, gallery, dataset, protocol, progress)
    net = embedder.model
    size = net.preprocessing.size
    name = str(model) if isinstance(model, str | PathLike) else type(net).__name__
    return Evaluation(
        name, dataset, protocol, metrics, rows, gallery, net.partition, size, embedder.precision, embedder.engine
    )


def describe_dataset(
    embedder: Embedder,
    dataset: ReIDDataset,
    video: VideoSettings | None = None,
    *,
    workers: int = 0,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the descriptors of a data set's queries and of its gallery, N×D and M×D float32.

    Raises:
        ImageError: An image cannot be read; names it.
    """
    describe = partial(_describe, embedder, video, workers, progress)
    return describe("query", dataset.query), describe("gallery", dataset.gallery)


def _describe(
    embedder: Embedder,
    video: VideoSettings | None,
    workers: int,
    progress: Progress | None,
    what: str,
    items: tuple[Item, ...] | list[Item],
) -> np.ndarray:
    return embedder.embed_items(items, video, workers=workers, progress=step(progress, what))


def _score(
    query: np.ndarray, gallery: np.ndarray, dataset: ReIDDataset, protocol: Protocol, progress: Progress | None
) -> RankingMetrics:
    options = protocol.ranking_options(dataset)
    return evaluate_items(query, gallery, dataset.query, dataset.gallery, **options, progress=step(progress, "ranking"))


def _rows_by_camera(items: tuple[Item, ...]) -> dict[Label, list[int]]:
    """Return the indices of the items of each camera."""
    rows: dict[Label, list[int]] = {}
    for index, item in enumerate(items):
        if item.camid is not None:
            rows.setdefault(item.camid, []).append(index)
    return {camera: rows[camera] for camera in sorted_labels(rows)}
