"""Scores of identities against small videos counted by hand."""

import numpy as np
import pytest

from hmr_ros.training.benchmarks.identities import perfectly_named, score, without_ignored


def box(x: float) -> np.ndarray:
    return np.array([x, 0, x + 40, 100], np.float32)


def test_two_who_exchange_names_half_way():
    frames = [({"A": box(0), "B": box(100)}, {1: box(2), 2: box(99)} if i < 6 else {2: box(2), 1: box(99)}) for i in range(10)]
    scores = score(frames)
    assert (scores.switches, scores.misses, scores.false_positives, scores.boxes, scores.names) == (2, 0, 0, 20, 2)
    assert scores.idf1 == pytest.approx(0.6) and scores.mota == pytest.approx(0.9)
    assert score(perfectly_named(frames)).idf1 == 1 and score(perfectly_named(frames)).switches == 0


def test_misses_false_positives_and_fragmentations_are_counted():
    said = [{1: box(0)}, {}, {1: box(0)}, {1: box(0), 9: box(300)}, {3: box(0)}]
    scores = score([({"A": box(0)}, names) for names in said])
    assert (scores.misses, scores.false_positives, scores.fragmentations, scores.switches) == (1, 1, 1, 1)
    assert scores.mota == pytest.approx(1 - 3 / 5) and scores.idf1 == pytest.approx(2 * 3 / (5 + 5))
    assert score(perfectly_named([({"A": box(0)}, names) for names in said])).idf1 == pytest.approx(2 * 4 / (5 + 5))


def test_who_is_ignored_is_neither_missed_nor_false():
    truth, ignored = {"A": box(0)}, {"G": box(200)}
    assert set(without_ignored(truth, {1: box(0), 2: box(203), 3: box(400)}, ignored)) == {1, 3}
