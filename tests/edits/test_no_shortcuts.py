"""NoShortcuts: what blocks give without their identity, and names that stay."""

import pytest
import torch

from mmkd.edits import NoShortcuts, apply_edits, made_in
from mmkd.edits.no_shortcuts import Nothing
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_faster_rcnn


def test_blocks_give_what_their_convolutions_give():
    torch.manual_seed(0)
    model = build_model(tiny_classifier(4)).eval()
    keys, x = list(model.state_dict()), torch.randn(2, 4, 8, 8)
    block = model.backbone.layer1[0]
    with torch.no_grad():
        residual = block.bn2(block.conv2(block.relu1(block.bn1(block.conv1(x)))))
        assert torch.equal(block(x), (residual + x).relu())
        apply_edits(model, [dict(type='mmkd.NoShortcuts')])
        assert torch.equal(block(x), residual.relu())
    assert list(model.state_dict()) == keys
    assert made_in(model)[0].line.startswith('1 identity shortcuts taken out')


def test_detectors_keep_shortcuts_with_a_convolution():
    model = apply_edits(build_model(tiny_faster_rcnn(4)), [NoShortcuts(skip=['layer4'])])
    layers = [getattr(model.backbone, f'layer{i}') for i in (1, 2, 3, 4)]
    assert [[isinstance(b.downsample, Nothing) for b in layer] for layer in layers] == [
        [True, True], [False, True], [False, True], [False, False],
    ]  # fmt: skip


def test_bad_input():
    model = build_model(tiny_classifier(4))
    with pytest.raises(ValueError, match="only names 'nek'"):
        NoShortcuts(only=['nek'])(model)
    NoShortcuts()(model)
    with pytest.raises(ValueError, match='no residual block of Classifier has an identity'):
        NoShortcuts()(model)
