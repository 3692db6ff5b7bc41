"""A gallery's calibration is that of its own rows, counted pair by pair; another gallery's or model's is refused."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from reprism.data.records import Sample
from reprism.data.video import VideoSettings
from reprism.embedding import DescriptorKind
from reprism.evaluation.calibration import Calibration, CalibrationError, calibrate
from reprism.evaluation.fitted_on import FittedOn
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery

KIND = DescriptorKind("ab" * 32, "p1", 16, True)
IMAGES = FittedOn(KIND.fingerprint, flip=True)


def people(count, seed=0, spread=0.45, cameras=3, frames=1, unknown=0):
    """Entries of people seen once or twice by each of some cameras; ``frames``: pooled from so many."""
    rng = np.random.default_rng(seed)
    # A few directions drown the rest, as of networks': what is left of a compressed row is turned and stretched.
    scale = np.linspace(2, 0.3, 16)
    entries = []
    for pid, camera in itertools.product(range(count), range(cameras)):
        center = np.random.default_rng((seed, pid)).normal(size=16) * scale + 1
        for number in range(int(rng.integers(1, 3))):
            row = center + spread * scale * rng.normal(size=(frames, 16))
            row = (row / np.linalg.norm(row, axis=1, keepdims=True)).mean(0)
            key = f"{seed}-{pid}-{camera}-{number}-{frames}"
            entries.append(Entry(key, row, f"/{key}.jpg", f"p{pid}", f"c{camera}", frames=frames))
    for number in range(unknown):
        row = rng.normal(size=16)
        who = ("p0", None) if number % 2 else (None, "c0")
        entries.append(Entry(f"unknown {number}", row, "/x.jpg", *who, frames=frames))
    return entries


def made(place, *groups, storage="float32"):
    gallery = Gallery.create(place, KIND, storage)
    gallery.add(entry for group in groups for entry in group)
    return gallery


def by_hand(gallery, asks=lambda row: True):
    """Every two rows of known identity and camera once, of different cameras, one of which may ask."""
    rows = [row for row in gallery.rows() if row.pid is not None and row.camid is not None]
    descriptors = gallery.descriptors([row.id for row in rows]).astype(float)
    pid, camid = (np.array([getattr(row, name) for row in rows]) for name in ("pid", "camid"))
    asking = np.array([asks(row) for row in rows])
    once = np.triu(np.ones((len(rows), len(rows)), bool), 1) & (camid[:, None] != camid)
    once &= asking[:, None] | asking
    same = pid[:, None] == pid
    distances = cdist(descriptors, descriptors)
    return distances[once & same], distances[once & ~same]


def agrees(calibration, same, different):
    assert calibration.counts["same_pairs"] == len(same)
    assert calibration.counts["different_pairs"] == len(different)
    for point in calibration.points:
        assert point.fmr == pytest.approx((different < point.threshold).mean(), abs=2 / len(different))
        assert point.tpr == pytest.approx((same < point.threshold).mean(), abs=2 / len(same))
        assert point.reliable == ((different < point.threshold).sum() >= 30)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_two_rows_are_a_pair_once(tmp_path, storage, compressed):
    gallery = made(tmp_path / "g", people(20, unknown=30), storage=storage)
    if compressed:
        gallery.compress(dim=6)
    calibration = gallery.calibrate(fmrs=(0.1, 0.01, 1e-3))
    agrees(calibration, *by_hand(gallery))
    digest = None if gallery.projection is None else gallery.projection.digest
    assert calibration.fitted_on == dataclasses.replace(IMAGES, projection=digest)
    # The columns of a compressed gallery belong to no part.
    assert (calibration.parts is None) == compressed
    gallery.check_calibration(calibration)


def test_images_ask_for_images_and_tracklets(tmp_path):
    gallery = made(tmp_path / "g", people(15), people(15, frames=4))
    calibration = gallery.calibrate(fmrs=(0.1,))
    agrees(calibration, *by_hand(gallery, lambda row: row.frames == 1))
    assert calibration.fitted_on == dataclasses.replace(IMAGES, rows="mixed")
    tracklets = gallery.calibrate("tracklets", fmrs=(0.1,))
    agrees(tracklets, *by_hand(gallery, lambda row: row.frames > 1))
    # Pooled rows of different people are as far apart; of one person they are nearer.
    assert tracklets.points[0].tpr > calibration.points[0].tpr
    row = people(1)[0].descriptor
    assert gallery.search(row, calibration=calibration)[0][0].probability is not None
    assert gallery.search(row, calibration=tracklets, queries="tracklets")[0][0].probability is not None
    with pytest.raises(CalibrationError, match=r"queries: expected tracklets, each pooled .*, got images"):
        gallery.search(row, calibration=calibration, queries="tracklets")
    with pytest.raises(CalibrationError, match="queries: expected images, got tracklets"):
        gallery.search(row, calibration=tracklets)


def test_after_compressing_the_old_one_is_refused_and_the_new_one_keeps_its_word(tmp_path):
    """Probabilities and thresholds, on other people of the same population."""
    gallery = made(tmp_path / "g", people(120))
    before = gallery.calibrate(fmrs=(0.01,))
    projection = gallery.compress(dim=4, whitening=1.0)
    with pytest.raises(CalibrationError, match=rf"projection: expected {projection.digest[:12]}, got none") as caught:
        gallery.search(people(1)[0].descriptor, calibration=before)
    assert f"reprism calibrate --gallery {gallery.uri}" in str(caught.value)
    after = gallery.calibrate(fmrs=(0.01,))
    others = Gallery.create(tmp_path / "others", KIND)
    others.add(people(120, seed=1))
    others.compress(projection=projection)
    gallery.check_calibration(after)
    others.check_calibration(after)
    predicted, stale, right = [], [], []
    asking = people(120, seed=1)
    matches = others.search(np.stack([entry.descriptor for entry in asking]), top=15, calibration=after)
    for entry, found in zip(asking, matches, strict=True):
        ranked = [match for match in found if (match.pid, match.camid) != (entry.pid, entry.camid)][:10]
        predicted += [match.probability for match in ranked]
        stale += [float(before.probability(match.distance)) for match in ranked]
        right += [match.pid == entry.pid for match in ranked]
    assert abs(np.mean(predicted) - np.mean(right)) < 0.03
    assert abs(np.mean(stale) - np.mean(right)) > 0.1  # what went unnoticed
    same, different = by_hand(others)
    assert 0.005 < (different < after.points[0].threshold).mean() < 0.02
    assert not 0.005 < (different < before.points[0].threshold).mean() < 0.02
    assert (same < after.points[0].threshold).mean() == pytest.approx(after.points[0].tpr, abs=0.1)


def test_a_calibration_of_images_holds_for_a_gallery_of_images_alone(tmp_path):
    entries = people(20)
    rows, items = [e.descriptor for e in entries], [Sample(Path(e.path), e.pid, e.camid) for e in entries]
    given = calibrate(np.float32(rows), np.float32(rows), items, items, fitted_on=IMAGES)
    for storage in ("float32", "float16"):
        gallery = made(tmp_path / storage, entries, storage=storage)
        assert gallery.search(rows[0], calibration=given)[0][0].probability == pytest.approx(given.probability(0.0))
        gallery.add(people(1, seed=3, frames=2))
        with pytest.raises(CalibrationError, match="rows: expected images and pooled tracklets, got images"):
            gallery.search(rows[0], calibration=given)
    empty = made(tmp_path / "empty", [])
    # Engines describe alike, so that it is noted only.
    for fitted_on in (
        IMAGES,
        dataclasses.replace(IMAGES, engine="openvino"),
        dataclasses.replace(IMAGES, rows="mixed"),
    ):
        empty.check_calibration(dataclasses.replace(given, fitted_on=fitted_on))


@pytest.mark.parametrize(
    ("fitted_on", "words"),
    [
        (dataclasses.replace(IMAGES, fingerprint="cd" * 32), "fingerprint: expected abababababab, got cdcdcdcdcdcd"),
        (dataclasses.replace(IMAGES, flip=False), "flip: expected True, got False"),
        (dataclasses.replace(IMAGES, projection="ef" * 32), "projection: expected none, got efefefefefef"),
        (dataclasses.replace(IMAGES, rows="pooled"), "rows: expected images, got tracklets, each pooled"),
        (
            FittedOn.of_dataset(KIND.fingerprint, flip=True, video=VideoSettings()),
            r"got tracklets, segments side by side.*segments: expected none, got 15 frames \(even\) in 3 segments",
        ),
        (None, "does not say what it was fitted on"),
    ],
)
def test_another_ones_is_refused(tmp_path, fitted_on, words):
    gallery = made(tmp_path / "g", people(1))
    calibration = Calibration((), (), -3.0, 1.0, 0.0, (), {}, {}, {}, fitted_on=fitted_on)
    with pytest.raises(CalibrationError, match=words) as caught:
        gallery.search(np.ones(16), calibration=calibration)
    assert str(caught.value).endswith(f"reprism calibrate --gallery {gallery.uri}")


def test_rows_that_are_not_enough(tmp_path):
    with pytest.raises(CalibrationError, match=r"no row of .* has both an identity and a camera"):
        made(tmp_path / "unknown", people(0, unknown=20)).calibrate()
    with pytest.raises(CalibrationError, match=r"expected images of known .* --queries tracklets"):
        made(tmp_path / "pooled", people(5, frames=3)).calibrate()
    assert made(tmp_path / "pooled2", people(5, frames=3)).calibrate("tracklets").fitted_on.queries == "pooled"
    with pytest.raises(CalibrationError, match=r"holds images and tracklets, but all .* are images"):
        made(tmp_path / "half", people(5), people(0, frames=3, unknown=9)).calibrate()
    with pytest.raises(CalibrationError, match="0 pairs of the same person"):
        made(tmp_path / "one camera", people(9, cameras=1)).calibrate()


def test_of_many_some_people_ask(tmp_path):
    entries = people(30)
    gallery = made(tmp_path / "g", entries)
    counts = gallery.calibrate(max_queries=40, seed=1).counts
    assert counts["gallery"] == len(entries)
    assert 35 <= counts["queries"] <= 40
    assert counts["identities"] < 15
    assert gallery.calibrate(max_queries=len(entries)).counts["queries"] == len(entries)
