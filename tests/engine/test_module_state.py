"""What modules of OpenMMLab count by themselves is saved and put back."""

from types import SimpleNamespace

import numpy as np
import torch
from mmdet.models.layers import DropBlock
from resume_toys import Net, by_iter
from torch import nn

from mmkd.engine.module_state import get_module_state, set_module_state


class Dropping(Net):
    """With a layer of mmdet that counts by itself."""

    def __init__(self):
        super().__init__()
        self.drop = DropBlock(drop_prob=0.9, block_size=1, warmup_iters=20)

    def forward(self, inputs, mode='tensor'):
        dropped = self.drop(torch.stack(inputs)[:, :, None, None])[..., 0, 0]
        return super().forward(list(dropped), mode)


def test_what_modules_count_by_themselves(chain):
    chain('iter_5.pth', 'iter_9.pth', save=by_iter, model=dict(type=Dropping))


class DynamicRoIHead(nn.Module):
    """By its name alone one of those whose attributes are kept."""

    def __init__(self):
        super().__init__()
        self.iou_history, self.beta_history = [np.float32(0.5)], []
        self.bbox_assigner = SimpleNamespace(pos_iou_thr=0.4, neg_iou_thr=0.4, min_pos_iou=0.4)
        self.bbox_head = SimpleNamespace(loss_bbox=SimpleNamespace(beta=1.0))


def test_values_by_address_and_back():
    model = nn.Sequential(nn.Identity(), DynamicRoIHead())
    state = get_module_state(model)
    assert state['1.bbox_head.loss_bbox.beta'] == 1.0 and len(state) == 6
    assert type(state['1.iou_history'][0]) is float, 'a checkpoint holds plain values'
    state |= {'1.bbox_assigner.pos_iou_thr': 0.7, '0.unknown': 3, '2.bbox_head.loss_bbox.beta': 9}
    set_module_state(model, state)
    assert model[1].bbox_assigner.pos_iou_thr == 0.7 and model[1].bbox_head.loss_bbox.beta == 1.0
    assert not hasattr(model[0], 'unknown')
    for nothing in (None, 'text', [1]):  # as a foreign file may have it
        set_module_state(model, nothing)


def test_other_modules_keep_nothing():
    assert get_module_state(nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())) == {}
