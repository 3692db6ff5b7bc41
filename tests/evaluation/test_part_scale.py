"""Percentiles of parts are what counting pairs by the definition gives, and verdicts follow from them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.data.records import Sample
from reprism.evaluation import part_scale
from reprism.evaluation.calibration import Calibration, calibrate
from reprism.evaluation.distances import part_distances
from reprism.evaluation.part_scale import PartAgreement, PartScale, summary
from reprism.notation import Partition

PARTITION = Partition.parse("p1(s2)")
NAMES = ["p1", "p1s1", "p1s2"]


def people(count: int, seed: int, identities: int = 12, segments: int = 1) -> tuple[np.ndarray, list[Sample]]:
    """Rows of length 1, three parts of four columns: the people differ in p1 and p1s1, and not at all in p1s2."""
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(99).normal(size=(identities, segments, 3, 4)) * np.array([1, 1, 0])[:, None]
    pids = rng.integers(0, identities, count)
    rows = (centers[pids] + 0.3 * rng.normal(size=(count, segments, 3, 4))).reshape(count, -1).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cameras = [None if n % 17 == 0 else int(camera) for n, camera in enumerate(rng.integers(0, 3, count))]
    # One in nine is junk.
    items = [
        Sample(Path(f"{n}.jpg"), -1 if n % 9 == 4 else int(pid), camera)
        for n, (pid, camera) in enumerate(zip(pids, cameras, strict=True))
    ]
    return rows, items


def by_definition(query, gallery, query_items, gallery_items, segments=1) -> tuple[np.ndarray, np.ndarray]:
    """Squared part distances of all pairs of strangers, and of all of the same person, of different cameras."""
    found: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for one, asked in zip(query, query_items, strict=True):
        for other, item in zip(gallery, gallery_items, strict=True):
            if -1 in (asked.pid, item.pid) or (asked.camid is not None and asked.camid == item.camid):
                continue
            found[asked.pid == item.pid].append(
                sum(
                    np.square(a.reshape(3, -1) - b.reshape(3, -1)).sum(1)
                    for a, b in zip(np.split(one, segments), np.split(other, segments), strict=True)
                )
            )
    return np.array(found[False]), np.array(found[True])


@pytest.mark.parametrize("segments", [1, 2])
def test_percentiles_are_shares_of_the_pairs_that_are_nearer(segments: int) -> None:
    (query, asked), (gallery, items) = people(40, 0, segments=segments), people(90, 1, segments=segments)
    scale = PartScale.fit(query, gallery, asked, items, PARTITION, segments)
    strangers, same = by_definition(query, gallery, asked, items, segments)
    assert (scale.stranger_pairs, scale.same_pairs) == (len(strangers), len(same))
    matches = part_distances(query[1], gallery, PARTITION, segments)
    for distances, parts in zip(matches, scale.agreement(matches), strict=True):
        assert list(parts) == NAMES
        for place, part in enumerate(parts.values()):
            # Quantiles are kept to half a percent; between two pairs lies 100 / pairs.
            for kept, pairs in ((part.strangers, strangers), (part.same_person, same)):
                assert kept == pytest.approx(
                    100 * (pairs[:, place] < distances[place]).mean(), abs=0.5 + 100 / len(pairs)
                )


@given(st.lists(st.floats(0, 4, width=32), min_size=2, max_size=30), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_a_part_that_is_farther_never_has_a_lower_percentile_whatever_the_match(values, seed) -> None:
    pairs = np.random.default_rng(seed).choice([0.0, 0.1, 0.5, 1.0, 3.0], size=(300, 3))  # many are equally far
    scale = PartScale.of_distances(PARTITION, pairs, pairs[:60])
    distances = np.array(values)[:, None].repeat(3, axis=1)
    found = scale.agreement(distances)
    order = np.argsort(values, kind="stable")
    for name in NAMES:
        for kept in ("strangers", "same_person"):
            percentiles = [getattr(found[at][name], kept) for at in order]
            assert percentiles == sorted(percentiles)
            assert all(0 <= percentile <= 100 for percentile in percentiles)
    for value, parts in zip(values, found, strict=True):
        assert (parts["p1"].strangers == 0) >= (value <= pairs[:, 0].min())
        assert (parts["p1"].strangers == 100) >= (value > pairs[:, 0].max())


def test_the_same_picture_agrees_in_every_part_and_strangers_do_not() -> None:
    (query, asked), (gallery, items) = people(60, 0), people(200, 1)
    for scale in (
        PartScale.fit(query, gallery, asked, items, PARTITION),
        PartScale.of_distances(PARTITION, by_definition(query, gallery, asked, items)[0]),
    ):
        [itself] = scale.agreement(part_distances(query[3], query[3:4], PARTITION))
        assert [(part.strangers, part.verdict) for part in itself.values()] == [(0.0, "agrees")] * 3
        assert summary(itself) == "agree: 3 of 3"
        (query, asked), (gallery, items) = people(30, 7), people(90, 8)
        strangers, same = map(scale.agreement, by_definition(query, gallery, asked, items))
        most = [
            np.mean([sum(p.verdict == "agrees" for p in m.values()) >= 2 for m in some]) for some in (strangers, same)
        ]
        assert most[0] < 0.05 < 0.5 < most[1]


@pytest.mark.parametrize(
    ("distance", "labelled", "unlabelled"),
    # Strangers lie at 1, 2, … 1000; the same person's at 1, 2, … 400.
    [(30, "agrees", "agrees"), (49, "agrees", "agrees"), (60, "unclear", "unclear"), (370, "unclear", "unclear"),
     (390, "differs", "unclear"), (490, "differs", "unclear"), (510, "differs", "differs"),
     (2000, "differs", "differs")],
)  # fmt: skip
def test_the_rule_of_the_verdict(distance: float, labelled: str, unlabelled: str) -> None:
    one = Partition.parse("p1")
    strangers, same = np.arange(1.0, 1001)[:, None], np.arange(1.0, 401)[:, None]
    for pairs, verdict in ((same, labelled), (None, unlabelled)):
        [parts] = PartScale.of_distances(one, strangers, pairs).agreement(np.array([[distance]], dtype=float))
        assert parts["p1"].verdict == verdict
        assert parts["p1"].strangers == pytest.approx(min(100, distance / 10), abs=0.2)


def test_differing_goes_before_agreeing_where_the_same_person_is_nearer_still() -> None:
    one = Partition.parse("p1")
    scale = PartScale.of_distances(one, np.arange(1.0, 1001)[:, None], np.full((60, 1), 0.5))
    [near, far] = scale.agreement(np.array([[0.4], [20.0]]))
    assert (near["p1"].verdict, far["p1"].verdict) == ("agrees", "differs")


def test_too_few_pairs_give_no_percentiles() -> None:
    (query, asked), (gallery, items) = people(10, 0), people(20, 1)
    assert PartScale.fit(query, gallery, asked, items, PARTITION) is None
    (query, asked), (gallery, items) = people(15, 0), people(40, 1)
    scale = PartScale.fit(query, gallery, asked, items, PARTITION)
    strangers, same = by_definition(query, gallery, asked, items)
    assert len(strangers) >= 200 > 50 > len(same) > 0
    assert (scale.stranger_pairs, scale.same_person, scale.same_pairs) == (len(strangers), None, 0)
    assert all(part.same_person is None for part in scale.agreement(np.zeros((1, 3)))[0].values())


def test_of_many_pairs_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    (query, asked), (gallery, items) = people(200, 0), people(600, 1)
    whole = PartScale.fit(query, gallery, asked, items, PARTITION)
    monkeypatch.setattr(part_scale, "_DRAWN", 4000)
    some = PartScale.fit(query, gallery, asked, items, PARTITION)
    assert some.stranger_pairs < 4000 < whole.stranger_pairs
    assert some.same_pairs < 4000 < whole.same_pairs
    for kind in ("strangers", "same_person"):
        for name in NAMES:
            np.testing.assert_allclose(
                getattr(some, kind)[name][40:-40:20], getattr(whole, kind)[name][40:-40:20], rtol=0.1
            )


def test_a_calibration_keeps_it(tmp_path: Path) -> None:
    (query, asked), (gallery, items) = people(60, 0), people(200, 1)
    found = calibrate(query, gallery, asked, items, partition=PARTITION)
    assert found.parts == PartScale.fit(query, gallery, asked, items, PARTITION)
    found.write(tmp_path / "c.json")
    assert Calibration.read(tmp_path / "c.json").parts == found.parts
    assert calibrate(query, gallery, asked, items).parts is None


def test_words() -> None:
    parts = {
        "p1": PartAgreement(0.0, None, "agrees"),
        "p1s1": PartAgreement(2.6, None, "agrees"),
        "p1s2": PartAgreement(99.9, None, "differs"),
    }
    assert [part.words for part in parts.values()] == [
        "nearer than 100 of 100 strangers",
        "nearer than 97 of 100 strangers",
        "nearer than 0 of 100 strangers",
    ]
    assert summary(parts) == "agree: 2 of 3; differ: p1s2"
    many = {f"p{n}": PartAgreement(99.9, None, "differs") for n in range(6)}
    assert summary(many) == "agree: 0 of 6; differ: p0, p1, p2, p3, …"


def test_what_does_not_fit() -> None:
    (query, asked), (gallery, items) = people(15, 0), people(40, 1)
    scale = PartScale.fit(query, gallery, asked, items, PARTITION)
    with pytest.raises(ValueError, match="15 descriptors for 14 items"):
        PartScale.fit(query, gallery, asked[1:], items, PARTITION)
    with pytest.raises(ValueError, match="a multiple of the 13 parts"):
        PartScale.fit(query, gallery, asked, items, Partition.parse("p1+p2(s2c2)+p3(s3c3)"))
    with pytest.raises(ValueError, match="expected distances of 3 parts"):
        scale.agreement(np.zeros((1, 4)))
