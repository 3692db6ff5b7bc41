"""From a data set's samples to the labels that ranking needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reprism.data.records import Sample
from reprism.evaluation.distances import Matrix
from reprism.evaluation.ranking import RankingMetrics, evaluate


def evaluate_samples(
    query: Matrix, gallery: Matrix, query_samples: Sequence[Sample], gallery_samples: Sequence[Sample], **options: Any
) -> RankingMetrics:
    """Rank and score as :func:`reprism.evaluate`, with identities and cameras taken from the samples.

    Args:
        query: N×D descriptors of ``query_samples``.
        gallery: M×D descriptors of ``gallery_samples``.
        query_samples, gallery_samples: in the descriptors' order. Where no sample has a camera, cameras are unknown
            and no match is ignored.
        **options: of :func:`reprism.evaluate`.

    Raises:
        ValueError: some samples have a camera and others none; and all that :func:`reprism.evaluate` raises.
    """
    known = {sample.camid is not None for sample in (*query_samples, *gallery_samples)}
    if len(known) == 2:
        without = next(sample for sample in (*query_samples, *gallery_samples) if sample.camid is None)
        raise ValueError(
            f"some images have a camera and others none, such as {without.path}: give all of them one, or none"
        )
    cameras = (
        [[sample.camid for sample in samples] for samples in (query_samples, gallery_samples)]
        if True in known
        else [None, None]
    )
    return evaluate(
        query,
        gallery,
        [sample.pid for sample in query_samples],
        [sample.pid for sample in gallery_samples],
        cameras[0],
        cameras[1],
        **options,
    )
