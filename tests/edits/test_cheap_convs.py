"""CheapConvs: shapes stay, weights are as many as the sheet says, bad input."""

import pytest
import torch
from torch import nn

from mmkd.edits import CheapConvs, apply_edits, made_in
from mmkd.edits.cheap_convs import CheapConv
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_faster_rcnn, tiny_pspnet

MODELS = dict(cls=tiny_classifier(8), frcnn=tiny_faster_rcnn(8), pspnet=tiny_pspnet(8))


def weights(block):
    return sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(
    'bottleneck, groups, count',
    [
        (2, 4, 64 * 32 + 9 * 32 * 32 // 4 + 32 * 64),
        (2, 1, 64 * 32 + 9 * 32 * 32 + 32 * 64),
        (1, 8, 9 * 64 * 64 // 8 + 64 * 64),
        (1, 'depthwise', 9 * 64 + 64 * 64),
    ],
)
def test_weights(bottleneck, groups, count):
    conv = nn.Conv2d(64, 64, 3, 2, 2, 2)
    block = CheapConv(conv, bottleneck, groups)
    assert weights(block) == count
    x = torch.randn(1, 64, 9, 9)
    assert block(x).shape == conv(x).shape
    grouped = block.grouped
    assert (grouped.stride, grouped.dilation, grouped.padding) == ((2, 2), (2, 2), (2, 2))
    assert block.up.bias is not None and block.up.kernel_size == (1, 1)


def test_the_sheet_counts_6400_of_36864():
    conv = nn.Conv2d(64, 64, 3, bias=False)
    assert (weights(CheapConv(conv, 2, 4)), conv.weight.numel()) == (6400, 36864)


@pytest.mark.parametrize('name', MODELS)
def test_all_outputs_keep_their_shapes(name):
    model = apply_edits(build_model(MODELS[name]), [dict(type='mmkd.CheapConvs')])
    (made,) = made_in(model)
    assert 'convolutions exchanged' in made.line and 'outputs differ by at most' in made.line
    cheap = [n for n, m in model.named_modules() if isinstance(m, CheapConv)]
    assert cheap and all(n.startswith('backbone.layer') for n in cheap)
    assert not any('downsample' in n for n in cheap)


def test_only_and_skip_and_shared_layers():
    model = build_model(MODELS['frcnn'])
    model.again = model.rpn_head.rpn_conv
    apply_edits(model, [CheapConvs(1, 'depthwise', only=['rpn_head'])])
    assert isinstance(model.again, CheapConv) and model.again is model.rpn_head.rpn_conv
    assert sum(isinstance(m, CheapConv) for m in model.modules()) == 1
    apply_edits(model, [CheapConvs(skip=['layer1', 'layer2'])])
    assert isinstance(model.backbone.layer1[0].conv1, nn.Conv2d)


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(bottleneck=0), 'bottleneck must be'),
        (dict(groups=1.5), 'groups must be'),
        (dict(groups=3), 'do not divide the widths of backbone.layer1.0.conv1'),
        (dict(bottleneck=3), 'do not divide the widths of backbone.layer1.0.conv1'),
        (dict(only=['neck']), "only names 'neck'"),
        (dict(only=['head']), 'no convolution of 3 x 3 of Classifier'),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(ValueError, match=words):
        apply_edits(build_model(MODELS['cls']), [CheapConvs(**options)])


def test_a_layer_that_is_asked_twice():
    model = apply_edits(build_model(MODELS['cls']), [CheapConvs(2, 1)])
    with pytest.raises(ValueError, match='backbone.layer1.0.conv1 is cheap already'):
        CheapConvs(2, 1)(model)
