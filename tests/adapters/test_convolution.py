"""Adapters: what they compute and how they are chosen."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmkd.adapters import ADAPTERS, ConvAdapter, build_adapter
from mmkd.adapters.convolution import Ensemble, LinearAdapter
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


def drawn(*weights):
    """Linear projectors with these weights, no biases."""
    projectors = [LinearAdapter(2, len(w)) for w in weights]
    for projector, weight in zip(projectors, weights, strict=True):
        projector.weight.data, projector.bias.data = torch.tensor(weight), torch.zeros(len(weight))
    return projectors


def test_mean_of_three_projectors():
    eye, swap, other = [[1.0, 0], [0, 1]], [[0.0, 1], [1, 0]], [[1.0, -1], [0, 1]]
    found = Ensemble(drawn(eye, swap, other))(torch.tensor([[1.0, 2], [0, 1]]))  # PE-1, PE-2
    torch.testing.assert_close(found, torch.tensor([[1, 5 / 3], [1 / 3, 2 / 3]]))
    signed = Ensemble(drawn(eye, swap, other), relu=False)(torch.tensor([[1.0, 2]]))
    torch.testing.assert_close(signed, torch.tensor([[2 / 3, 5 / 3]]))
    ones = [[1.0, 0], [0, 1], [1, 1]], [[0.0, 1], [1, 0], [-1, 0]], [[1.0, -1], [0, 0.5], [0, 1]]
    found = Ensemble(drawn(*ones))(torch.tensor([[1.0, 2]]))  # G6
    torch.testing.assert_close(found, torch.tensor([[1, 4 / 3, 5 / 3]]))


@pytest.mark.parametrize('name', ['ensemble3', 'Ensemble5', 'ensemble2_signed'])
def test_an_ensemble_by_name(name):
    """Projectors begin with different weights, for one map and for vectors."""
    levels = Level((3, 8, 8), 4, 's'), Level((5, 8, 8), 4, 't')
    count, relu = int(name[8]), 'signed' not in name
    adapter = build_adapter(name, *levels)
    first, second, *_ = adapter.projectors
    assert len(adapter.projectors) == count and not torch.equal(
        first.conv.weight, second.conv.weight
    )
    x = torch.randn(2, 3, 8, 8)
    each = [p(x).relu() if relu else p(x) for p in adapter.projectors]
    torch.testing.assert_close(adapter(x), sum(each) / count)
    what = '1x1 conv 3 -> 5' + ' + ReLU' * relu
    assert adapter.describe() == f'mean of {count} x ({what})'
    rows = build_adapter(name, Level((6,), None), Level((6,), None))
    assert rows(torch.randn(4, 6)).shape == (4, 6) and 'linear 6 -> 6' in rows.describe()


@pytest.mark.parametrize('name', ['ensemble1', 'ensemble0_signed'])
def test_an_ensemble_of_one_is_refused(name):
    levels = Level((3, 8, 8), 4), Level((5, 8, 8), 4)
    with pytest.raises(ValueError, match=f"It: adapt='{name}' asks for .*adapt='conv1x1'"):
        build_adapter(name, *levels, 'It')


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
