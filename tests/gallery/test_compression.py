"""Narrower descriptors are the principal components that numpy finds, and a compressed gallery searches among them."""

import numpy as np
import pytest

from reprism.embedding import DescriptorKind
from reprism.evaluation.ranking import evaluate
from reprism.gallery.compression import Projection, cost
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery, GalleryError

KIND = DescriptorKind("ab" * 32, "p1", 20, True)


def people(count, seed=0):
    rng = np.random.default_rng(seed)
    pids = rng.integers(0, count // 8, count)
    centers = rng.normal(size=(count // 8, 20)) * np.linspace(3, 0.2, 20)
    rows = (centers[pids] + 0.3 * rng.normal(size=(count, 20)) + 1).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), pids


def test_the_projection_whitens():
    rows, _ = people(600)
    projection = Projection.fit(lambda: np.array_split(rows, 7), 20, 6, whitening=1)
    assert (projection.source_dim, projection.dim) == (20, 6)
    narrow = (rows.astype(np.float64) - projection.mean) @ projection.matrix
    np.testing.assert_allclose(narrow.T @ narrow / len(rows), np.eye(6), atol=1e-3)
    _, _, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    ours = projection.matrix / np.linalg.norm(projection.matrix, axis=0)
    np.testing.assert_allclose(np.abs(axes[:6] @ ours), np.eye(6), atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(projection.apply(rows), axis=1), 1, atol=1e-6)
    again = Projection.from_bytes(projection.to_bytes())
    assert again.digest == projection.digest
    np.testing.assert_array_equal(again.apply(rows), projection.apply(rows))


def test_unwhitened_components_keep_what_they_cover():
    rows, _ = people(600)
    centered = rows - rows.mean(0)
    whole = Projection.fit(lambda: [rows], 20, 20)
    # A rotation about the mean: distances as they were, before the rows get length 1 again.
    turned = centered @ whole.matrix
    np.testing.assert_allclose(turned @ turned.T, centered @ centered.T, atol=1e-4)
    values = np.linalg.svd(centered, compute_uv=False) ** 2 / len(rows)
    for whitening, left in ((0, values), (0.5, np.sqrt(values)), (1, np.ones(20))):
        narrow = centered @ Projection.fit(lambda: [rows], 20, 6, whitening).matrix
        np.testing.assert_allclose(narrow.T @ narrow / len(rows), np.diag(left[:6]), atol=1e-3)


def test_what_cannot_be_fitted_to():
    rows, _ = people(64)
    with pytest.raises(ValueError, match="dim is 21"):
        Projection.fit(lambda: [rows], 20, 21)
    with pytest.raises(ValueError, match=r"whitening is 1\.5"):
        Projection.fit(lambda: [rows], 20, 5, 1.5)
    with pytest.raises(ValueError, match="5 rows are too few for 5"):
        Projection.fit(lambda: [rows[:5]], 20, 5)
    with pytest.raises(ValueError, match="1 directions only"):
        Projection.fit(lambda: [np.outer(np.linspace(-1, 1, 50), rows[0])], 20, 5)


def test_cost_is_the_map_of_searching_each_row_among_the_others():
    rows, pids = people(200)
    rows += 0.15 * np.random.default_rng(1).normal(size=rows.shape).astype(np.float32)
    projection = Projection.fit(lambda: [rows], 20, 2)
    wide, narrow = cost(rows, projection, pids.tolist())
    for found, descriptors in ((wide, rows), (narrow, projection.apply(rows))):
        precisions = []
        for place, row in enumerate(descriptors):
            others = np.delete(np.arange(len(rows)), place)
            order = others[np.argsort(np.linalg.norm(descriptors[others] - row, axis=1), kind="stable")]
            hits = np.flatnonzero(pids[order] == pids[place])
            if len(hits):
                precisions.append(np.mean((np.arange(len(hits)) + 1) / (hits + 1)))
        assert found == pytest.approx(np.mean(precisions), abs=1e-4)
    assert narrow < wide


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_compressed_gallery(tmp_path, storage):
    rows, pids = people(300)
    gallery = Gallery.create(tmp_path / "g", KIND, storage)
    entries = [Entry(f"k{i}", rows[i], f"{i}.jpg", pid=str(pids[i]), thumbnail=b"picture") for i in range(300)]
    gallery.add(entries[:250])
    projection = gallery.compress(6)
    assert (gallery.dim, gallery.descriptor_dim, len(gallery), gallery.storage) == (6, 20, 250, storage)
    tolerance = 1e-5 if storage == "float32" else 2e-3
    want = projection.apply(rows)
    ids = [row_id(f"k{i}") for i in range(250)]
    np.testing.assert_allclose(gallery.descriptors(ids), want[:250], atol=tolerance)
    assert (gallery.get(ids[3]).pid, gallery.thumbnail(ids[3])) == (str(pids[3]), b"picture")
    # What comes later, to be stored or to be searched for, is made narrower alike; so it is in another process.
    gallery = Gallery.open(tmp_path / "g", KIND)
    assert gallery.add(entries[240:]) == 50
    for query in (0, 290):
        matches = gallery.search(rows[query], top=10)[0]
        distances = np.linalg.norm(want - want[query], axis=1)
        np.testing.assert_allclose([m.distance for m in matches], np.sort(distances)[:10], atol=tolerance)
        assert matches[0].key == f"k{query}"
        assert matches[0].shares is None
    with pytest.raises(GalleryError, match="compressed already"):
        gallery.compress(4)


def test_a_projection_fitted_elsewhere(tmp_path):
    rows, _ = people(300)
    other, _ = people(400, seed=1)
    projection = Projection.fit(lambda: [other], 20, 5)
    gallery = Gallery.create(tmp_path / "g", KIND)
    gallery.add(Entry(f"k{i}", rows[i], "x") for i in range(50))
    with pytest.raises(ValueError, match="either"):
        gallery.compress()
    with pytest.raises(ValueError, match="of 20 columns, got one of 4"):
        gallery.compress(projection=Projection(np.zeros(4, np.float32), np.eye(4, dtype=np.float32)))
    gallery.compress(projection=projection)
    np.testing.assert_allclose(gallery.descriptors([row_id("k7")]), projection.apply(rows[7:8]), atol=1e-5)


def test_whitening_helps_where_a_few_directions_drown_the_rest():
    rng = np.random.default_rng(0)
    pids = np.repeat(np.arange(40), 6)
    rows = np.repeat(rng.normal(size=(40, 20)), 6, axis=0) + 0.3 * rng.normal(size=(240, 20))
    rows[:, :2] += 20 * rng.normal(size=(240, 2))  # what has nothing to do with who it is
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    projection = Projection.fit(lambda: [rows], 20, 20, whitening=1)
    cameras = list(range(240))
    whitened = projection.apply(rows)
    before, after = (
        evaluate(some, some, pids.tolist(), pids.tolist(), cameras, cameras).mAP for some in (rows, whitened)
    )
    assert after > before
