"""Operators that cannot run on the model's device are an error before training."""

import mmcv.ops
import pytest
from torch import nn

from mmkd.checks.on_device import check_operators
from mmkd.operators import OperatorMissing


def detector(device):
    model = nn.Module()
    model.bbox_head = nn.Linear(1, 1, device=device)
    return model


def failing(error):
    def nms(*args):
        raise error

    return nms


def test_operators_compiled_for_another_device_are_said(monkeypatch):
    lacks = RuntimeError('nms_impl: implementation for device meta not found.\nand more')
    monkeypatch.setattr(mmcv.ops, 'nms', failing(lacks))
    with pytest.raises(OperatorMissing) as caught:
        check_operators(detector('meta'))
    assert str(caught.value).startswith(
        "mmcv's compiled operators do not run on meta: nms_impl: implementation for device meta not"
    )
    assert 'MMKD_OPERATORS=own' in str(caught.value)


def test_what_mmkd_says_stays(monkeypatch):
    monkeypatch.setattr(mmcv.ops, 'nms', failing(OperatorMissing('needs torchvision')))
    with pytest.raises(OperatorMissing, match='^needs torchvision$'):
        check_operators(detector('meta'))


def test_nothing_is_tried_on_a_cpu_nor_for_models_without_nms(monkeypatch):
    monkeypatch.setattr(mmcv.ops, 'nms', failing(RuntimeError('tried')))
    check_operators(detector('cpu'))
    segmentor = nn.Module()
    segmentor.decode_head = nn.Linear(1, 1, device='meta')
    check_operators(segmentor)
    check_operators(nn.Identity())
