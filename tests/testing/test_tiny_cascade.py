"""The tiny cascade is mmdet's, with as many stages as asked for."""

import pytest
import torch

from mmkd.teacher import build_model
from mmkd.testing import detection_batch, tiny_cascade_rcnn


@pytest.mark.parametrize('stages', [1, 3])
def test_it_trains(stages):
    torch.manual_seed(0)
    model = build_model(tiny_cascade_rcnn(4, stages=stages, neck=dict(out_channels=8)))
    losses = model(*detection_batch(2, (64, 96), 2), mode='loss')
    assert [key for key in losses if 'loss_cls' in key] == [f's{i}.loss_cls' for i in range(stages)]
    demanded = [assigner.pos_iou_thr for assigner in model.roi_head.bbox_assigner]
    assert demanded == pytest.approx([0.5, 0.6, 0.7][:stages])
