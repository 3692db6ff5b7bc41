"""Which queries are shown, and what is drawn below their matches."""

from types import SimpleNamespace

import numpy as np
import pytest

from reprism.data import open_dataset
from reprism.figures.lists_page import hardest, most_different
from reprism.figures.ranked import draw_ranked_lists, ranked_lists


def metrics(*precisions: float) -> SimpleNamespace:
    values = np.array(precisions)
    return SimpleNamespace(average_precision=values, num_valid_queries=int(np.isfinite(values).sum()))


def test_the_hardest_queries_are_those_of_least_precision_and_no_lost_ones() -> None:
    assert hardest(metrics(0.5, np.nan, 0.1, 0.9), 2) == [2, 0]
    assert hardest(metrics(0.5, np.nan, 0.1, 0.9), 9) == [2, 0, 3]


def test_networks_differ_most_where_the_gap_is_widest() -> None:
    one, other = metrics(0.5, np.nan, 0.1, 0.9), metrics(0.6, 0.2, 0.9, 0.4)
    assert most_different(one, other, 9) == [2, 3, 0]


def test_bars_rise_with_their_shares(people) -> None:
    data = open_dataset("market1501", people)
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(len(data.query), 4)), rng.normal(size=(len(data.gallery), 4))
    lists = ranked_lists(query, gallery, data.query, data.gallery, [0], 3)
    shares = np.array([[1.0, 0.0], [0.5, 0.25], [0.0, 1.0]])
    plain = np.asarray(draw_ranked_lists(lists, data.query, data.gallery))
    barred = np.asarray(draw_ranked_lists(lists, data.query, data.gallery, shares=[shares]))
    height = 160 // 4
    assert barred.shape[0] - plain.shape[0] == height
    below = (barred[-height - 12 :] != 255).any(2)  # the bars' strip: nothing else is drawn in it
    columns = below.sum(0)
    cells = np.array_split(columns[len(columns) // 4 :], 3)
    assert cells[0].max() == cells[2].max() > cells[1].max() > 10
    with pytest.raises(ValueError, match="a row for each of its matches"):
        draw_ranked_lists(lists, data.query, data.gallery, shares=[shares[:2]])


def test_junk_is_in_no_list(people) -> None:
    data = open_dataset("market1501", people)
    gallery = [
        type(item)(item.path, -1 if place < 5 else item.pid, item.camid) for place, item in enumerate(data.gallery)
    ]
    rows = np.arange(len(gallery), dtype=float)[:, None]
    (found,) = ranked_lists(np.array([[0.0]]), rows, data.query[:1], gallery, k=4)
    assert found.gallery.min() >= 5
