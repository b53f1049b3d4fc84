"""Widths: sizes of layers, and errors that name the layer which does not fit."""

import pytest
import torch
from torch import nn

from mmkd.distiller import Distiller
from mmkd.edits import Widths, apply_edits, made_in
from mmkd.teacher import build_model
from mmkd.testing import tiny_classifier, tiny_pspnet

NARROW = {
    'backbone.layer1.0.conv1': [2, 4],
    'backbone.layer1.0.bn1': [2],
    'backbone.layer1.0.conv2': [4, 2],
}


def classifier():
    torch.manual_seed(0)
    return build_model(tiny_classifier(4))


def test_layers_have_their_sizes():
    model = apply_edits(classifier(), [dict(type='mmkd.Widths', sizes=NARROW)])
    block = model.backbone.layer1[0]
    assert block.conv1.weight.shape == (2, 4, 3, 3) and block.conv1.out_channels == 2
    assert block.bn1.num_features == 2 and block.bn1.running_var.tolist() == [1, 1]
    assert block.conv2.weight.shape == (4, 2, 3, 3)
    (made,) = made_in(model)
    assert made.line.startswith('3 layers resized') and not made.in_weights


def test_no_sizes_and_own_sizes_change_nothing():
    plain = classifier()
    for sizes in ({}, {'backbone.layer1.0.bn1': [4]}):
        same = apply_edits(classifier(), [Widths(sizes)])
        assert same.state_dict().keys() == plain.state_dict().keys()
        assert all(torch.equal(v, same.state_dict()[k]) for k, v in plain.state_dict().items())


def test_a_depthwise_convolution_keeps_a_group_for_each_channel():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    model = nn.Module()
    model.conv = conv
    from mmkd.edits.widths import resize

    resize('conv', conv, [2, 2])
    assert conv.groups == 2 and conv.weight.shape == (2, 1, 3, 3) and conv.bias.shape == (2,)
    with pytest.raises(ValueError, match='has 2 groups'):
        resize('conv', nn.Conv2d(4, 4, 3, groups=2), [3, 4])


@pytest.mark.parametrize(
    'sizes, words',
    [
        ({'backbone.layer9': [2]}, 'has no such module'),
        ({'backbone.layer1.0.conv1': [2]}, r'must be \[out, in\], found \[2\]'),
        ({'backbone.layer1.0.bn1': [2, 2]}, r'must be \[channels\]'),
        ({'backbone.layer1.0.bn1': [0]}, 'all at least 1; found'),
        ({'backbone.layer1.0': [2, 2]}, 'whose channels cannot be chosen'),
        (
            {'backbone.layer1.0.conv1': [2, 4]},
            r'do not fit each other: backbone.layer1.0.bn1 takes 4 channels and gets 2',
        ),
        (
            {'head.fc': [3, 5]},
            r'do not fit each other: head.fc takes 5 channels and gets 16',
        ),
    ],
)
def test_bad_sizes(sizes, words):
    with pytest.raises(ValueError, match=words):
        apply_edits(classifier(), [Widths(sizes)])


def test_a_layer_that_is_asked_twice():
    model = classifier()
    model.again = model.backbone.layer1[0].bn1
    with pytest.raises(ValueError, match='are one layer, asked twice'):
        Widths({'backbone.layer1.0.bn1': [4], 'again': [4]})(model)


def test_a_width_that_a_head_does_not_accept():
    model = build_model(tiny_pspnet(4))
    conv = model.backbone.layer4[-1].conv2
    name = next(n for n, m in model.named_modules() if m is conv)
    with pytest.raises(ValueError, match='do not fit each other'):
        Widths({name: [conv.out_channels - 1, conv.in_channels]})(model)


def test_edits_beside_peers_are_refused():
    with pytest.raises(ValueError, match='peers'):
        Distiller(
            tiny_classifier(4),
            dict(kd=dict(type='mmkd.KD', learner='a', teacher_name='student')),
            peers=dict(a=dict(model=tiny_classifier(4))),
            edits=[Widths({})],
        )
