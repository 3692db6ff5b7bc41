"""The protocol of an evaluation: one value, and the one place that puts it into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from reprism.data.records import ReIDDataset
from reprism.data.video import VideoSettings
from reprism.evaluation.camera_statistics import require_cameras
from reprism.evaluation.evidence import Evidence, require_times
from reprism.evaluation.items import boxes_of_queries
from reprism.evaluation.ranking import AveragePrecision, LostQueries, RankingMetrics

Comparison = Literal["concatenate", "all-pairs"]

DISTANCE = "Euclidean distance of L2-normalised descriptors"
"""The distance of every protocol, in words."""


@dataclass(frozen=True)
class Reranking:
    """Settings of k-reciprocal re-ranking (Zhong et al., CVPR 2017).

    Attributes:
        k1: Neighbours that reciprocity is tested on.
        k2: Neighbours whose vectors are averaged; 1 averages none.
        lambda_value: Weight of the original distance, 0 … 1.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3


@dataclass(frozen=True)
class Protocol:
    """The protocol by which a model is evaluated on a data set.

    The defaults are the field's usual protocol: single query, the whole gallery, same-camera matches ignored, the
    mirrored image added. ``dataclasses.replace`` changes a field.

    Attributes:
        ap: Average precision: the mean of k / rank_k (``step``), or the original MATLAB code's ``trapezoid``.
        lost: ``exclude`` queries without a match from the means, or count them as ``zero``.
        flip: Add the mirrored image's descriptor; None: as the embedder does, which adds it by default.
        multi_query: Describe a query by the mean over its person and camera: of the data set's further boxes if it has
            any (Market-1501: ``gt_bbox``), else of the queries.
        expand_queries: Average each query with this many of its nearest gallery items; 0: off.
        rerank: Re-rank by k-reciprocal neighbours; None: off.
        single_shot_trials: Rank one random gallery item of each identity, this many times; 0 ranks the whole gallery.
            None: as the data set's own protocol says.
        seed: Random seed of the single-shot trials.
        camera_normalize: Normalize descriptors by the statistics of their cameras
            (:class:`reprism.CameraStatistics`), fitted on the query and gallery images themselves, without junk and
            without a look at identities.
        network: Rank by the time between sightings too, as a network of cameras knows it
            (:class:`reprism.CameraNetwork`); None: by appearance alone.
        comparison: Compare tracklets by one distance over their segments side by side (``concatenate``, the paper's),
            or by the sum of the distances of every two segments (``all-pairs``, the released code's).
        video: Choice of a tracklet's frames, and how they are joined.
        max_rank: Length of the CMC curve.

    Raises:
        ValueError: A field is out of its range, or two do not go together.
    """

    ap: AveragePrecision = "step"
    lost: LostQueries = "exclude"
    flip: bool | None = None
    multi_query: bool = False
    expand_queries: int = 0
    rerank: Reranking | None = None
    single_shot_trials: int | None = None
    seed: int = 0
    camera_normalize: bool = False
    network: Evidence | None = None
    comparison: Comparison = "concatenate"
    video: VideoSettings = field(default_factory=VideoSettings)
    max_rank: int = 50

    def __post_init__(self) -> None:
        for name, allowed in (("ap", AveragePrecision), ("lost", LostQueries), ("comparison", Comparison)):
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(f"expected {name} {' or '.join(get_args(allowed))}, got {getattr(self, name)!r}")
        for name, value in (("expand_queries", self.expand_queries), ("single_shot_trials", self.single_shot_trials)):
            if value is not None and value < 0:
                raise ValueError(f"expected {name} of at least 0, got {value}")
        if self.rerank is not None and (self.single_shot_trials or self.comparison == "all-pairs"):
            raise ValueError(
                "re-ranking compares every item with every other: not with single_shot_trials or comparison='all-pairs'"
            )
        if self.network is not None and (
            self.rerank or self.single_shot_trials or self.multi_query or self.comparison == "all-pairs"
        ):
            raise ValueError(
                "a network of cameras ranks single queries by one distance: not with rerank, single_shot_trials, "
                "multi_query or comparison='all-pairs'"
            )

    def settled(self, dataset: ReIDDataset, flip: bool) -> Protocol:
        """Return the protocol with nothing left open, for one data set.

        Args:
            dataset: The data set to evaluate on.
            flip: The embedder's setting: True if it adds the mirrored image.

        Raises:
            ValueError: The protocol and the embedder disagree about the mirrored image, the data set's own protocol is
                of single-shot trials and this one re-ranks or has a network, or cameras or times are unknown that this
                one needs.
        """
        if self.flip not in (None, flip):
            raise ValueError(
                f"the protocol has flip={self.flip} and the embedder flip={flip}: give an embedder with "
                f"flip={self.flip}, or leave it out of the protocol"
            )
        if self.camera_normalize:
            require_cameras(dataset)
        if self.network is not None:
            require_times(dataset)
        trials = dataset.single_shot_trials if self.single_shot_trials is None else self.single_shot_trials
        return replace(self, flip=flip, single_shot_trials=trials)

    def segments(self, dataset: ReIDDataset) -> int:
        """Return how many descriptors lie side by side in a row: 1 for images, one for each segment of tracklets."""
        return self.video.segments if dataset.is_video else 1

    def ranking_options(self, dataset: ReIDDataset) -> dict[str, Any]:
        """Return the options of :func:`reprism.evaluation.items.evaluate_items` that this protocol stands for."""
        all_pairs = dataset.is_video and self.comparison == "all-pairs"
        return {
            "ap": self.ap,
            "lost": self.lost,
            "max_rank": self.max_rank,
            "single_shot_trials": self.single_shot_trials or 0,
            "seed": self.seed,
            "all_pairs_segments": self.video.segments if all_pairs else 1,
            "rerank": None if self.rerank is None else asdict(self.rerank),
            "evidence": self.network,
        }

    def describe(
        self,
        dataset: ReIDDataset | None = None,
        *,
        size: tuple[int, int] | None = None,
        precision: str | None = None,
        metrics: RankingMetrics | None = None,
    ) -> str:
        """Put the protocol into words, nothing left out that is known.

        Args:
            dataset: The data set that was evaluated on: its variant, its cameras, images or tracklets.
            size: Height and width of the network's images.
            precision: The network's number format, such as ``bf16``.
            metrics: The scores, for the number of lost queries.

        Returns:
            One line of phrases between commas.
        """
        said = [dataset.protocol] if dataset is not None and dataset.protocol else []
        if not self.multi_query:
            said.append("single query")
        elif dataset is not None and boxes_of_queries(dataset):
            said.append("each query the mean of the hand-drawn boxes of its person and camera")
        else:
            said.append("queries of one person and camera averaged")
        if self.single_shot_trials:
            said.append(f"one gallery item of each identity by another camera, {self.single_shot_trials} trials")
        unknown = dataset is not None and dataset.query[0].camid is None
        said.append("cameras unknown, no match ignored" if unknown else "same-camera matches ignored")
        if dataset is not None and dataset.is_video:
            said.append(self._about_tracklets())
        said.append(DISTANCE)
        if size is not None:
            said.append(f"images at {size[0]}x{size[1]}")
        if self.flip is not None:
            said.append(f"{'with' if self.flip else 'without'} mirrored image")
        said += [precision] if precision else []
        if self.camera_normalize:
            said.append("descriptors normalized by camera, on the query and gallery images without labels")
        means = "valid queries" if self.lost == "exclude" else "all queries, a lost one counting 0"
        said.append(f"AP by {self.ap}, mean over {means}")
        if metrics is not None:
            said.append(f"{len(metrics.lost_queries)} of {metrics.num_queries} queries lost")
        if self.expand_queries:
            said.append(f"queries expanded by their {self.expand_queries} nearest")
        if self.network is not None:
            said.append(f"ranked by {self.network.weight:g} x cosine and {self.network.describe()}")
        again = self.rerank
        by = "" if again is None else f"k1 {again.k1}, k2 {again.k2}, lambda {again.lambda_value:g}"
        said.append(f"re-ranked ({by})" if again else "not re-ranked")
        return ", ".join(said)

    def _about_tracklets(self) -> str:
        video = self.video
        return (
            f"{video.frames} frames of a tracklet ({video.sampling}) in {video.segments} "
            f"segment{'s' if video.segments > 1 else ''}, {video.pooling} of each, compared by {self.comparison}"
        )

    def as_dict(self, dataset: ReIDDataset) -> Mapping[str, Any]:
        """Return the fields as ``reprism evaluate`` writes them, ready for JSON."""
        return {
            "flip": self.flip,
            "multi_query": self.multi_query,
            "rerank": None if self.rerank is None else asdict(self.rerank),
            "expand_queries": self.expand_queries,
            "camera_normalize": self.camera_normalize,
            "network": None if self.network is None else self.network.describe(),
            "video": asdict(self.video) | {"comparison": self.comparison} if dataset.is_video else None,
        }
