"""Voting of boxes: values of the sheet, and what a single view gives."""

import numpy as np
import pytest

from mmkd.makers.box_voting import mirrored, vote

POOL = np.array(
    [(0, 0, 10, 10), (0, 0, 10, 9), (1, 0, 11, 10), (20, 20, 30, 30), (20, 20, 30, 31)], float
)
SCORES = np.array([0.9, 0.6, 0.3, 0.5, 0.8])


def test_values_of_the_sheet():  # DD-1
    boxes, scores, weights = vote(POOL, SCORES, views=3)
    wanted = [(0.1666667, 0, 10.1666667, 9.6666667), (20, 20, 30, 30.6153846)]
    np.testing.assert_allclose(boxes, wanted, atol=1e-6)
    assert scores.tolist() == [0.9, 0.8]
    np.testing.assert_allclose(weights[0], [1 / 2, 1 / 3, 1 / 6, 0, 0])
    again, shared, _ = vote(POOL, SCORES, views=3, rule='consensus')
    np.testing.assert_allclose(again, wanted, atol=1e-6)
    assert shared.tolist() == pytest.approx([0.6, 0.4333333])


def test_flips_of_the_sheet():  # DD-3
    assert mirrored([(10, 5, 30, 25)], 100).tolist() == [[70, 5, 90, 25]]
    assert mirrored(mirrored(POOL, 40), 40).tolist() == POOL.tolist()


def test_boxes_apart_stay_as_they_are():
    boxes, scores, _ = vote(POOL[[3, 0]], SCORES[[3, 0]])
    assert boxes.tolist() == POOL[[0, 3]].tolist() and scores.tolist() == [0.9, 0.5]


def test_what_is_suppressed_still_votes_if_it_is_near_enough():
    near = np.array([(0, 0, 10, 10), (0, 0, 10, 7)], float)  # IoU 0.7
    assert vote(near, np.array([0.9, 0.9]))[0].tolist() == [[0, 0, 10, 10]]
    assert vote(near, np.array([0.9, 0.9]), same=0.7)[0].tolist() == [[0, 0, 10, 8.5]]
    assert len(vote(near, np.array([0.9, 0.9]), suppress=0.75)[0]) == 2


def test_nothing_and_scores_of_zero():
    boxes, scores, weights = vote(np.zeros((0, 4)), np.zeros(0))
    assert boxes.shape == (0, 4) and scores.shape == (0,) and weights.shape == (0, 0)
    assert vote(POOL[:1], np.zeros(1))[0].tolist() == [[0, 0, 10, 10]]
    assert vote(POOL[:2], np.array([0.9, 0.9]), rule='consensus')[1].tolist() == [1.0]
