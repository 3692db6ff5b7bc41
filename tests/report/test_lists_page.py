"""What is drawn below the matches of ranked lists."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from reprism.data import open_dataset
from reprism.evaluation.lists import RankedList, ranked_lists
from reprism.evaluation.part_scale import PartAgreement, PartScale
from reprism.evaluation.protocol import Protocol
from reprism.evaluator import Evaluation
from reprism.notation import Partition
from reprism.report.lists_page import NO_BARS, write_lists
from reprism.report.ranked import draw_ranked_lists


def agreement(*percentiles: float) -> dict[str, PartAgreement]:
    verdicts = ["agrees" if at <= 5 else "differs" if at >= 50 else "unclear" for at in percentiles]
    return {f"p{n}": PartAgreement(at, None, verdicts[n]) for n, at in enumerate(percentiles)}


def test_a_bar_rises_with_the_percentile_and_its_kind_shows_without_color(people) -> None:
    data = open_dataset("market1501", people)
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(len(data.query), 4)), rng.normal(size=(len(data.gallery), 4))
    lists = ranked_lists(query, gallery, data.query, data.gallery, [0, 1], 3)
    parts = [agreement(100, 0), agreement(50, 25), agreement(0, 100)]
    plain = np.asarray(draw_ranked_lists(lists, data.query, data.gallery))
    # The scale is the same for all lists: a list of low bars is not stretched.
    low = [agreement(4, 4)] * 3
    barred = np.asarray(draw_ranked_lists(lists, data.query, data.gallery, parts=[parts, low]))
    height = 160 // 4
    assert barred.shape[0] - plain.shape[0] == 2 * height
    pitch = barred.shape[0] // 2
    tallest = []
    for end in (pitch + 3, barred.shape[0] - 3):
        below = (barred[end - height : end] != 255).any(2)  # the bars' strip: nothing else is drawn in it
        cells = np.array_split(np.where(below.any(1)[:, None], below, False)[:, below.shape[1] // 4 :], 3, axis=1)
        rows = [np.flatnonzero(cell.any(1)) for cell in cells]
        tallest.append([int(some.max() - some.min()) for some in rows])
    assert tallest[0][0] == tallest[0][2] > tallest[0][1] > 10
    assert max(tallest[1]) <= 4

    def inside(part):
        """Of a bar's middle column, which pixels are inked, from the floor up."""
        bar = np.asarray(draw_ranked_lists(lists[:1], data.query, data.gallery, parts=[[part] * 3]).convert("L"))
        return bar[-height - 3 : -8, -40] < 250  # within the last cell

    filled, hollow, striped = (
        inside({"p1": PartAgreement(90, None, verdict)}) for verdict in ("agrees", "unclear", "differs")
    )
    assert filled.mean() > 0.8
    assert hollow.mean() < 0.2
    assert 0.4 < striped.mean() < 0.8
    assert (np.diff(striped.astype(int)) == 1).sum() > 5
    with pytest.raises(ValueError, match="one entry for each of its matches"):
        draw_ranked_lists(lists, data.query, data.gallery, parts=[parts[:2], low])


def test_parts_of_ranked_lists_are_measured_by_the_data_set_itself(people, tmp_path) -> None:
    data = open_dataset("market1501", people)
    rng = np.random.default_rng(0)
    centers = {pid: rng.normal(size=12) for pid in {item.pid for item in (*data.query, *data.gallery)}}
    query, gallery = (
        np.stack([centers[item.pid] + 0.4 * rng.normal(size=12) for item in items])
        for items in (data.query, data.gallery)
    )
    gallery[5] = query[0]  # byte for byte
    scores = SimpleNamespace(average_precision=np.full(len(query), 0.5))
    ranked = Evaluation("one", data, Protocol(), scores, query, gallery, Partition.parse("p1(s2)"), (64, 32), "fp32")
    assert ranked.scale == PartScale.fit(query, gallery, data.query, data.gallery, Partition.parse("p1(s2)"))
    found = RankedList(0, np.arange(len(gallery)), np.zeros(len(gallery)), np.ones(len(gallery), bool))
    parts = ranked.parts(found)
    assert {(part.strangers, part.verdict) for part in parts[5].values()} == {(0.0, "agrees")}
    strangers = [one for one, item in zip(parts, data.gallery, strict=True) if item.pid != data.query[0].pid][1:]
    assert np.mean([sum(part.verdict == "agrees" for part in one.values()) >= 2 for one in strangers]) < 0.15
    page = write_lists(tmp_path / "lists", [ranked, replace(ranked, name="other")], [0], 3, title="Lists").read_text()
    assert "striped: differs. From left to right, one: p1, p1s1, p1s2; other: p1, p1s1, p1s2." in page
    few = replace(ranked, dataset=replace(data, query=data.query[:1]), query=query[:1])
    assert few.scale is None
    assert NO_BARS in write_lists(tmp_path / "few", [few], [0], 3, title="Lists").read_text()
