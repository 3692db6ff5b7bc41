import numpy as np

from reprism.report.demo_page import _chosen_queries


def test_queries_shown_are_the_extremes_and_the_middle_one_of_each_person():
    scores = np.array([1.0, 1.0, np.nan, 0.1, 0.5, 0.2, 0.6, 0.9, 0.3])
    pids = [1, 1, 2, 3, 4, 3, 5, 6, 7]
    chosen = _chosen_queries(scores, pids)
    assert chosen == {"easiest": [0, 7], "median": [6], "hardest": [3, 8, 4]}


def test_few_queries_are_each_shown_once():
    chosen = _chosen_queries(np.array([0.5, np.nan]), ["a", "b"])
    assert chosen == {"easiest": [0]}
