"""People who walk a site of three cameras."""

from collections.abc import Callable

import numpy as np
import pytest

from reprism.data.records import Sample

WAYS = {("a", "b"): 40.0, ("b", "c"): 90.0}  # seconds from camera to camera


def _site(people=150, noise=0.55, seed=0):
    """People who pass a, then b, then c; they look alike from camera to camera, and somewhat like others."""
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(people, 32))
    items, rows = [], []
    for person, start in enumerate(rng.uniform(0, 20_000, people)):
        time = start
        for place in "abc":
            if place != "a":
                time += rng.normal(WAYS[chr(ord(place) - 1), place], 5)
            if rng.random() < 0.85:
                items.append(Sample(f"{person}-{place}.jpg", person + 1, place, time, "day"))
                rows.append(looks[person] + noise * 2 * rng.normal(size=32))
    rows = np.array(rows, np.float32)
    order = rng.permutation(len(items))
    items = [items[index] for index in order]
    return rows[order] / np.linalg.norm(rows[order], axis=1, keepdims=True), items


@pytest.fixture(scope="session")
def walks_of() -> Callable:
    """Return descriptors and items of people who walk by, as many as asked for."""
    return _site
