"""Tiny instance segmentors train and predict."""

import pytest
import torch

from mmkd.families import family_of
from mmkd.teacher import build_model
from mmkd.testing import mask_batch, tiny_cascade_mask_rcnn, tiny_mask_rcnn


@pytest.mark.parametrize('make', [tiny_mask_rcnn, tiny_cascade_mask_rcnn])
def test_trains_and_predicts_masks(make):
    torch.manual_seed(0)
    model = build_model(make(4))
    assert family_of(model) == 'instance'
    inputs, samples = mask_batch()
    assert samples[0].gt_instances.masks.areas.min() > 10
    losses = model.loss(inputs, samples)
    assert any('loss_mask' in key for key in losses)
    with torch.no_grad():
        found = model.eval().predict(*mask_batch())
    assert found[0].pred_instances.masks.shape[1:] == (64, 96)


def test_ellipses_lie_in_their_boxes():
    _, samples = mask_batch(3, objects=4)
    for sample in samples:
        for mask, box in zip(
            sample.gt_instances.masks.masks, sample.gt_instances.bboxes, strict=True
        ):
            rows, columns = mask.nonzero()
            assert columns.min() >= box[0] - 1 and columns.max() <= box[2]
            assert rows.min() >= box[1] - 1 and rows.max() <= box[3]
