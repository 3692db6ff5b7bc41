"""Samples as labels."""

from pathlib import Path

import numpy as np
import pytest

from reprism.data.records import Sample
from reprism.evaluation.protocols import evaluate_samples

# On a line: the query at 0; its own camera's image at 1, a stranger at 2, the true match at 3.
POSITIONS = np.array([[1.0], [2.0], [3.0]], np.float32)
QUERY = np.array([[0.0]], np.float32)


def sample(pid: int | str, camid: int | str | None) -> Sample:
    return Sample(Path(f"{pid}_{camid}.jpg"), pid, camid)


def test_the_querys_own_camera_is_ignored() -> None:
    gallery = [sample("a", 1), sample("b", 1), sample("a", 2)]
    metrics = evaluate_samples(QUERY, POSITIONS, [sample("a", 1)], gallery, max_rank=3)
    assert metrics.cmc.tolist() == [0, 1, 1]
    assert metrics.mAP == 0.5


def test_without_cameras_nothing_is_ignored() -> None:
    gallery = [sample("a", None), sample("b", None), sample("a", None)]
    metrics = evaluate_samples(QUERY, POSITIONS, [sample("a", None)], gallery, ap="step")
    assert metrics.rank(1) == 1
    assert metrics.mAP == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_half_known_cameras_are_refused() -> None:
    gallery = [sample("a", 1), sample("b", None), sample("a", 2)]
    with pytest.raises(ValueError, match=r"b_None\.jpg"):
        evaluate_samples(QUERY, POSITIONS, [sample("a", 1)], gallery)
