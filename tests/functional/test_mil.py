"""Multiple instance learning: the sheet's numbers, and images of a batch against each alone."""

import pytest
import torch

from mmkd.functional.mil import (
    IGNORED,
    Seeds,
    assign,
    box_loss,
    image_loss,
    proposal_scores,
    refinement_loss,
)

CLASSES = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
DETECTION = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
BOXES = torch.tensor([[0, 0, 4, 4], [10, 10, 14, 14], [0, 0, 4, 5]], dtype=torch.float64)
ONE = torch.zeros(3, dtype=torch.long)
PRESENT = torch.tensor([[True, False]])
SEED = Seeds(torch.tensor([0]), torch.tensor([0]), torch.tensor([0.5074421], dtype=torch.float64))


def test_wsd_1_scores_and_loss():
    phi = proposal_scores(CLASSES, DETECTION, ONE, 1)
    wanted = [[0.5074421, 0.0126959], [0.0569999, 0.5753329], [0.1549417, 0.0286441]]
    assert phi.tolist() == [pytest.approx(row, rel=1e-5) for row in wanted]
    assert phi.sum(0).tolist() == pytest.approx([0.7193836, 0.6166730], rel=1e-6)
    assert float(image_loss(phi, ONE, PRESENT)) == pytest.approx(1.2882273, rel=1e-6)


def test_wsd_2_twice_the_proposals_change_nothing():
    once = proposal_scores(CLASSES, DETECTION, ONE, 1).sum(0)
    twice = [torch.cat((x, x)) for x in (CLASSES, DETECTION, ONE)]
    assert torch.allclose(proposal_scores(*twice, 1).sum(0), once, rtol=1e-12)


def test_wsd_2_two_images_are_the_mean_of_both_alone():
    g = torch.Generator().manual_seed(0)
    sizes, labels = (4, 7), torch.tensor([[True, False, True], [False, True, False]])
    own = [torch.randn(2, n, 3, generator=g, dtype=torch.float64) for n in sizes]
    alone = [
        image_loss(proposal_scores(*x, x.new_zeros(n).long(), 1), x.new_zeros(n).long(), row[None])
        for x, n, row in zip(own, sizes, labels, strict=True)
    ]
    images = torch.tensor([0] * 4 + [1] * 7).roll(3)  # in any order
    x = torch.cat(own, 1).roll(3, 1)
    both = image_loss(proposal_scores(*x, images, 2), images, labels)
    assert float(both) == pytest.approx(float(sum(alone)) / 2, rel=1e-12)


def test_an_image_without_proposals_is_left_out():
    phi = proposal_scores(CLASSES, DETECTION, ONE + 1, 3)
    present = torch.tensor([[True, True], [True, False], [False, True]])
    assert float(image_loss(phi, ONE + 1, present)) == pytest.approx(1.2882273, rel=1e-6)
    none = torch.zeros(0, 2, requires_grad=True)
    loss = image_loss(proposal_scores(none, none, ONE[:0], 3), ONE[:0], present)
    assert float(loss.detach()) == 0 and loss.requires_grad


def test_oicr_1_labels():
    found = assign(SEED, BOXES, ONE, background=2)
    assert found.labels.tolist() == [0, 2, 0]
    assert found.seeds.tolist() == [0, 0, 0]
    assert found.weights.tolist() == pytest.approx([0.5074421] * 3)


def test_what_lies_between_is_ignored_and_images_do_not_mix():
    images = torch.tensor([0, 0, 0, 1])
    boxes = torch.cat((BOXES, BOXES[:1]))
    boxes[1] = torch.tensor([0.0, 0, 4, 10])  # IoU 0.4 with the seed
    found = assign(SEED, boxes, images, 2, positive=0.6, negative=(0.1, 0.4))
    assert found.labels.tolist() == [0, IGNORED, 0, IGNORED]
    assert found.weights[3] == 0
    found = assign(SEED, boxes + 10, images, 2, positive=0.85, negative=(0.1, 0.5))
    assert found.labels.tolist() == [0, 2, IGNORED, IGNORED]


def test_oicr_2_cross_entropy():
    logits = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.float64)
    labels, weights = torch.tensor([0, 2, 0]), torch.full((3,), 0.5074421, dtype=torch.float64)
    alone = [
        float(refinement_loss(z[None], one[None], torch.ones(1), ONE[:1], 1))
        for z, one in zip(logits, labels, strict=True)
    ]
    assert alone == pytest.approx([0.5514447, 0.5514447, 1.0986123], rel=1e-6)
    assert float(refinement_loss(logits, labels, weights, ONE, 1)) == pytest.approx(
        0.3723782, rel=1e-6
    )
    labels[2] = IGNORED  # counts among the proposals, adds nothing
    assert float(refinement_loss(logits, labels, torch.ones(3), ONE, 1)) == pytest.approx(
        2 * 0.5514447 / 3, rel=1e-6
    )


def test_oicr_3_boxes():
    errors = torch.tensor([[0.2, 0, 0, 0], [0, 0, 0.5, 2], [9, 9, 9, 9]], dtype=torch.float64)
    weights = torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64)
    found = box_loss(errors, weights, torch.tensor([True, True, False]))
    assert 30 / 4 * float(found) == pytest.approx(3.1218750, rel=1e-6)


def test_wsod_4_without_a_positive_the_box_loss_is_zero_with_a_gradient():
    errors = torch.ones(3, 4, requires_grad=True)
    loss = box_loss(errors, torch.ones(3), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0 and not errors.grad.any()
