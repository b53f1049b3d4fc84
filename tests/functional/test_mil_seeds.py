"""Seeds of OICR, WSOD2 and PCL, on scores where each can be read off."""

import pytest
import torch

from mmkd.functional.mil_seeds import (
    clustered_seeds,
    highest_cluster,
    near_best_seeds,
    top_seeds,
)

#: three boxes side by side, each with a neighbour of IoU 0.6 below it
BOXES = torch.tensor(
    [[x, 0, x + 8, 10 if tall else 6] for x in (0, 20, 40) for tall in (1, 0)], dtype=torch.float
)
ONE = torch.zeros(6, dtype=torch.long)
BOTH = torch.tensor([[True, True]])


def seeds(found):
    rows = zip(*(x.tolist() for x in found), strict=True)
    return sorted((row, label, pytest.approx(score)) for row, label, score in rows)


def test_oicr_takes_the_best_of_each_present_class_and_image():
    scores = torch.tensor([[0.1, 0.5], [0.9, 0.2], [0.3, 0.9], [0.3, 0.7], [0.2, 0.9], [0.3, 0.1]])
    images = torch.tensor([0, 0, 0, 1, 1, 1])
    present = torch.tensor([[True, True], [True, False]])
    assert seeds(top_seeds(scores, BOXES, images, present)) == [
        (1, 0, 0.9),
        (2, 1, 0.9),
        (3, 0, 0.3),
    ]
    assert seeds(top_seeds(scores, BOXES, images, ~present)) == [(4, 1, 0.9)]


def test_wsod2_takes_all_that_are_near_the_best_and_apart():
    scores = torch.tensor([[1.0, 0], [0.95, 0], [0.92, 0], [0.5, 0], [0.1, 0], [0.1, 0.8]])
    found = near_best_seeds(scores, BOXES, ONE, BOTH)
    assert seeds(found) == [(0, 0, 1.0), (2, 0, 0.92), (5, 1, 0.8)]  # row 1 overlaps row 0


def test_wsod2_drops_a_seed_below_one_of_another_class_unless_told_otherwise():
    scores = torch.tensor([[1.0, 0], [0, 0.9]] + [[0.0, 0.0]] * 4)
    assert seeds(near_best_seeds(scores, BOXES, ONE, BOTH)) == [(0, 0, 1.0)]
    found = near_best_seeds(scores, BOXES, ONE, BOTH, per_class=True)
    assert seeds(found) == [(0, 0, 1.0), (1, 1, 0.9)]


def test_casd_takes_centres_of_the_highest_cluster():
    scores = torch.tensor([[0.8], [0.9], [0.7], [0.2], [0.1], [0.1]])
    found = clustered_seeds(scores, BOXES, ONE, BOTH[:, :1])
    # Row 0 and 1 are neighbours: the first is the centre, with the better score of both.
    assert seeds(found) == [(0, 0, 0.9), (2, 0, 0.7)]


def test_casd_leaves_seeds_out_for_later_classes():
    scores = torch.tensor([[0.9, 0.9], [0.0, 0.8], [0, 0], [0, 0], [0, 0], [0, 0]])
    found = clustered_seeds(scores, BOXES, ONE, BOTH)
    assert seeds(found) == [(0, 0, 0.9), (1, 1, 0.8)]


def test_casd_takes_five_at_most():
    boxes = torch.tensor([[20.0 * i, 0, 20 * i + 8, 8] for i in range(7)])
    found = clustered_seeds(torch.full((7, 1), 0.5), boxes, torch.zeros(7).long(), BOTH[:, :1])
    assert len(found.rows) == 5


@pytest.mark.parametrize('of', [top_seeds, near_best_seeds, clustered_seeds])
def test_images_do_not_depend_on_each_other(of):
    g = torch.Generator().manual_seed(3)
    boxes = torch.rand(40, 2, generator=g) * 50
    boxes = torch.cat((boxes, boxes + 10 + 20 * torch.rand(40, 2, generator=g)), 1)
    scores, images = torch.rand(40, 3, generator=g), torch.arange(40) % 2
    present = torch.tensor([[True, False, True], [True, True, False]])
    together = seeds(of(scores, boxes, images, present))
    alone = []
    for i in (0, 1):
        own = (images == i).nonzero()[:, 0]
        found = of(scores[own], boxes[own], images[own] * 0, present[i : i + 1])
        alone += seeds(found._replace(rows=own[found.rows]))
    assert together == sorted(alone, key=lambda one: one[:2]) and together


@pytest.mark.parametrize('of', [top_seeds, near_best_seeds, clustered_seeds])
def test_nothing_gives_nothing(of):
    scores = torch.rand(6, 2)
    assert not len(of(scores, BOXES, ONE, ~BOTH).rows)
    assert not len(of(scores[:0], BOXES[:0], ONE[:0], BOTH).rows)


def test_three_clusters_of_each_image():
    score = torch.tensor([0.1, 0.9, 0.5, 0.12, 0.88, 0.52, 0.3, 0.3])
    images = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    found = highest_cluster(score, images, torch.ones(8, dtype=torch.bool), 3)
    assert found.tolist() == [False, True, False, False, True, False, True, True]
