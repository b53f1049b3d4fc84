"""The toy network."""

import pytest
import torch
from torch import nn

from mmkd.testing import ToyNet, class_labels, pixels


def test_levels_logits_and_losses():
    net = ToyNet(6, num_classes=5)
    fine, coarse = net.extract_feat(pixels(2, (64, 96)))
    assert fine.shape == (2, 6, 8, 12) and coarse.shape == (2, 6, 4, 6)
    assert net(pixels()).shape == (2, 5)
    losses = net(pixels(), class_labels(torch.tensor([1, 4])), mode='loss')
    assert set(losses) == {'loss_cls'} and losses['loss_cls'].requires_grad
    assert len(net(pixels(), mode='predict')) == 2


def test_the_head_is_called_once_a_level():
    net, calls = ToyNet(), []
    net.head.shared.register_forward_hook(lambda *_: calls.append(1))
    net(pixels())
    assert len(calls) == 2


@pytest.mark.parametrize(
    ('norm', 'kind'), [('BN', nn.BatchNorm2d), ('GN', nn.GroupNorm), ('none', nn.Identity)]
)
def test_norms(norm, kind):
    assert type(ToyNet(norm=norm).backbone[1]) is kind


def test_an_activation_in_place_overwrites_what_is_in_front_of_it():
    for inplace in (False, True):
        net, seen = ToyNet(inplace=inplace), []
        net.neck.conv.register_forward_hook(lambda m, i, out: seen.append(out))  # noqa: B023
        net(pixels())
        assert bool((seen[0] < 0).any()) != inplace


def test_arguments_of_the_preprocessor():
    net = ToyNet(data_preprocessor=dict(type='x', mean=[1.0, 2, 3]))
    assert net.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
    assert net.data_preprocessor.std.flatten().tolist() == [1, 1, 1]
