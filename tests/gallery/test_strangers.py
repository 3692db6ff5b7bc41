"""What the parts of a gallery's matches are measured by: pairs of strangers among its rows, by the definition."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from reprism.embedding import DescriptorKind
from reprism.evaluation.calibration import Calibration
from reprism.evaluation.fitted_on import FittedOn
from reprism.evaluation.part_scale import PartScale
from reprism.gallery.rows import Entry
from reprism.gallery.strangers import part_scale
from reprism.gallery.table import Gallery
from reprism.notation import Partition

KIND = DescriptorKind("ab" * 32, "p1(s2)", 12, True)
PARTITION = Partition.parse(KIND.partition)


def people(count, seed=0, labelled=True):
    """Rows of ten people, whose third part says nothing; two of three have a tracklet."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(10, 3, 4)) * np.array([1, 1, 0])[:, None]
    pids = np.arange(count) % 10
    rows = (centers[pids] + 0.2 * rng.normal(size=(count, 3, 4))).reshape(count, 12)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return [
        Entry(
            f"k{i}", row, f"/{i}.jpg", pid=str(pids[i]) if labelled else None, camid=str(i % 3),
            tracklet=f"t{i % 30}" if i % 3 else None,
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip


def gallery_of(entries, path):
    gallery = Gallery.create(path, KIND)
    gallery.add(entries)
    return gallery


def of_pairs(entries, strangers):
    """The scale by the definition."""
    distances = [
        np.square((one.descriptor - other.descriptor).reshape(3, 4)).sum(1)
        for one, other in combinations(entries, 2)
        if strangers(one, other)
    ]
    return PartScale.of_distances(PARTITION, np.array(distances))


def alike(one, other):
    assert one.stranger_pairs == other.stranger_pairs
    for name in ("p1", "p1s1", "p1s2"):
        np.testing.assert_allclose(one.strangers[name], other.strangers[name], rtol=1e-4)


def test_strangers_are_the_pairs_of_two_identities(tmp_path):
    entries = people(150)
    found = part_scale(gallery_of(entries, tmp_path / "g").store)
    alike(found, of_pairs(entries, lambda one, other: one.pid != other.pid))
    assert found.same_person is None


def test_without_identities_no_neighbors_and_no_pairs_of_one_tracklet(tmp_path):
    entries = people(150, labelled=False)
    # The first ten are known: among them identities decide.
    known = people(150)[:10]
    entries[:10] = known
    rows = np.stack([entry.descriptor for entry in entries]).astype(float)
    order = np.argsort(((rows[:, None] - rows) ** 2).sum(2), axis=1)[:, 1:11]
    near = {(entries[at].key, entries[to].key) for at, some in enumerate(order) for to in some}

    def strangers(one, other):
        if one.pid and other.pid:
            return one.pid != other.pid
        if one.tracklet and (one.tracklet, one.camid) == (other.tracklet, other.camid):
            return False
        return (one.key, other.key) not in near and (other.key, one.key) not in near

    alike(part_scale(gallery_of(entries, tmp_path / "g").store), of_pairs(entries, strangers))


@pytest.mark.parametrize("labelled", [True, False])
def test_a_row_agrees_with_itself_in_every_part_and_strangers_do_not(tmp_path, labelled):
    entries = people(150, labelled=labelled)
    gallery = gallery_of(entries, tmp_path / "g")
    for query in range(5):
        matches = gallery.search(entries[query].descriptor, top=150)[0]
        assert list(matches[0].parts) == ["p1", "p1s1", "p1s2"]
        assert {part.verdict for part in matches[0].parts.values()} == {"agrees"}
        assert {part.strangers for part in matches[0].parts.values()} == {0.0}
        # Of two matches of any searches, the one that is farther in a part is so on the scale.
        strangers = [match for match in matches if int(match.key[1:]) % 10 != query % 10]
        agreeing = [sum(part.verdict == "agrees" for part in match.parts.values()) for match in strangers]
        assert np.mean(np.array(agreeing) >= 2) < 0.05


def test_matches_of_different_searches_compare(tmp_path):
    entries = people(150)
    gallery = gallery_of(entries, tmp_path / "g")
    found = gallery.search(np.stack([entry.descriptor for entry in entries[:20]]), top=30)
    for name in ("p1", "p1s1", "p1s2"):
        pairs = sorted((match.shares[name], match.parts[name].strangers) for matches in found for match in matches)
        percentiles = [percentile for _, percentile in pairs]
        assert percentiles == sorted(percentiles)
        assert percentiles[0] < 1 < 20 < percentiles[-1]


def test_it_is_measured_once_for_each_state_of_the_gallery_and_forgets_the_erased(tmp_path, monkeypatch):
    entries = people(150)
    # One person is far from all others in the first part.
    far = np.zeros(12, np.float32)
    far[:4] = -entries[0].descriptor[:4]
    entries += [Entry(f"far{i}", far / np.linalg.norm(far), "/far.jpg", pid="far") for i in range(20)]
    gallery = gallery_of(entries, tmp_path / "g")
    with_far = part_scale(gallery.store)
    assert part_scale(gallery.store) is with_far
    gallery.search(entries[0].descriptor)
    assert part_scale(gallery.store) is with_far
    # By another process, which tells this one nothing.
    assert Gallery.open(tmp_path / "g").erase(pids=["far"]) == 20
    without = part_scale(gallery.store)
    assert without != with_far
    alike(without, of_pairs(entries[:150], lambda one, other: one.pid != other.pid))
    gallery.add(people(170)[150:])
    assert part_scale(gallery.store).stranger_pairs > without.stranger_pairs


def test_a_large_gallery_is_stood_for_by_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr("reprism.gallery.strangers.SAMPLED_ROWS", 100)
    monkeypatch.setattr("reprism.gallery.strangers._PAIRS", 3000)
    entries = people(600)
    found = part_scale(gallery_of(entries, tmp_path / "g").store)
    whole = of_pairs(entries, lambda one, other: one.pid != other.pid)
    assert found.stranger_pairs == 3000
    for name in ("p1", "p1s1", "p1s2"):
        np.testing.assert_allclose(found.strangers[name][40:-40:20], whole.strangers[name][40:-40:20], rtol=0.2)


def test_too_few_rows_and_compressed_ones_have_no_percentiles(tmp_path):
    for count in (0, 1, 15):
        gallery = gallery_of(people(count), tmp_path / f"{count}")
        assert part_scale(gallery.store) is None
        for match in gallery.search(np.ones(12, np.float32))[0]:
            assert match.parts is None
            assert len(match.shares) == 3
    entries = people(150)
    gallery = gallery_of(entries, tmp_path / "narrow")
    assert part_scale(gallery.store) is not None
    gallery.compress(4)
    assert part_scale(gallery.store) is None
    match = gallery.search(entries[0].descriptor, top=1)[0][0]
    assert (match.shares, match.parts) == (None, None)
    assert gallery_of(entries, tmp_path / "plain").search(np.ones(12), shares=False)[0][0].parts is None


def test_a_calibrations_scale_goes_before_the_gallerys_own(tmp_path):
    entries = people(150)
    gallery = gallery_of(entries, tmp_path / "g")
    pairs = np.linspace(0.01, 0.02, 900).reshape(300, 3)
    scale = PartScale.of_distances(PARTITION, pairs, pairs[:60])
    fitted_on = FittedOn(KIND.fingerprint, KIND.flip)
    calibration = Calibration((), (), -8.0, 3.0, 0.0, (), {}, {}, {}, fitted_on=fitted_on, parts=scale)
    matches = gallery.search(entries[0].descriptor, top=150, calibration=calibration)[0]
    shares = np.array([list(match.shares.values()) for match in matches])
    assert [match.parts for match in matches] == scale.agreement(shares)
    assert matches[0].parts["p1"].same_person == 0
    # An older calibration knows nothing of parts.
    older = replace(calibration, parts=None)
    assert gallery.search(entries[0].descriptor, calibration=older)[0][1].parts["p1"].same_person is None
    foreign = replace(calibration, parts=PartScale.of_distances(Partition.parse("p1[s3]"), pairs))
    with pytest.raises(ValueError, match=r"parts p1s1, p1s2, p1s3, but .* p1\(s2\) has p1, p1s1, p1s2"):
        gallery.search(entries[0].descriptor, calibration=foreign)
