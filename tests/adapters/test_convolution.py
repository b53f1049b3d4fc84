"""Adapters: what they compute and how they are chosen."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmkd.adapters import ADAPTERS, ConvAdapter, build_adapter
from mmkd.levels import Level


@pytest.mark.parametrize('kernel', [1, 3, 5])
def test_a_map_keeps_its_size(kernel):
    adapter = ConvAdapter(3, 5, kernel)
    x = torch.randn(2, 3, 7, 9)
    wanted = F.conv2d(x, adapter.conv.weight, adapter.conv.bias, padding=kernel // 2)
    assert wanted.shape == (2, 5, 7, 9)
    torch.testing.assert_close(adapter(x), wanted)


def test_norm_and_relu_follow():
    adapter = ConvAdapter(3, 5, bias=False, norm=True, relu=True)
    x = torch.randn(4, 3, 6, 6)
    convolved = F.conv2d(x, adapter.conv.weight)
    wanted = F.batch_norm(convolved, None, None, training=True).relu()
    torch.testing.assert_close(adapter(x), wanted)
    assert adapter.conv.bias is None
    assert adapter.describe() == '1x1 conv 3 -> 5 + BN + ReLU'


@pytest.mark.parametrize('name', ADAPTERS)
def test_every_name_builds_a_map_adapter(name):
    levels = Level((3, 8, 8), 4, 's'), Level((5, 8, 8), 4, 't')
    adapter = build_adapter(name, *levels)
    assert adapter(torch.randn(2, 3, 8, 8)).shape == (2, 5, 8, 8)
    assert isinstance(adapter, nn.Module) and f'{ADAPTERS[name]["kernel"]}x' in adapter.describe()


def test_none_where_none_is_needed():
    levels = Level((3, 8, 8), 4), Level((3, 8, 8), 4)
    assert build_adapter('auto', *levels) is None
    assert build_adapter(None, *levels) is None
    assert build_adapter('conv1x1', *levels) is not None


@pytest.mark.parametrize('shape', [(), (49,)])
def test_vectors_and_tokens_get_a_linear_layer(shape):
    levels = Level((*shape, 6), None), Level((*shape, 8), None)
    adapter = build_adapter('auto', *levels)
    assert adapter(torch.randn(2, *shape, 6)).shape == (2, *shape, 8)
    assert adapter.describe() == 'linear 6 -> 8'


def test_refusals_name_both_sides():
    levels = Level((3, 8, 8), 4, 'neck'), Level((5, 8, 8), 4, 'backbone')
    with pytest.raises(
        ValueError, match="It: student 'neck' has 3 channels and teacher 'backbone' 5"
    ):
        build_adapter(None, *levels, 'It')
    with pytest.raises(ValueError, match="It: adapt must be one of .*found 'conv2x2'"):
        build_adapter('conv2x2', *levels, 'It')
