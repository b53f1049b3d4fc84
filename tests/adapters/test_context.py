"""Blocks that gather context over a whole map, written out."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmkd.adapters.context import ContextBlock, NonLocal


def slow_non_local(block, x):
    """With the affinity between every place and every pooled place, in float64."""
    theta, phi, g = (
        F.conv2d(x, w, b)
        for w, b in zip(block.project.weight.chunk(3), block.project.bias.chunk(3), strict=True)
    )
    phi, g = (F.max_pool2d(y, block.pool).flatten(2) for y in (phi, g))
    affinity = theta.flatten(2).transpose(1, 2) @ phi / phi.shape[2]
    y = (affinity @ g.transpose(1, 2)).transpose(1, 2).reshape_as(theta)
    y = F.conv2d(y, block.out.weight)
    y = (y - y.mean((0, 2, 3), True)) / (y.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()
    return x + y * block.norm.weight.view(-1, 1, 1) + block.norm.bias.view(-1, 1, 1)


@pytest.mark.parametrize(('size', 'pool'), [((16, 16), 8), ((11, 7), 4), ((5, 6), 2)])
def test_non_local_written_out(size, pool):
    block = NonLocal(6, 3, pool).double()
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    torch.testing.assert_close(block(x), slow_non_local(block, x))


def test_non_local_on_single_cells():
    block = NonLocal(4, 2, 8)
    nn.init.ones_(block.norm.weight)
    for shape in ((1, 4, 1, 1), (2, 4, 1, 1), (1, 4, 3, 2)):
        assert block(torch.randn(shape)).shape == shape


def test_context_block_written_out():
    torch.manual_seed(0)
    block, x = ContextBlock(4).double(), torch.randn(2, 4, 3, 2, dtype=torch.float64)
    assert block.transform[0].out_features == 2
    assert not block(x).any(), 'it adds nothing at the beginning'
    nn.init.normal_(block.transform[-1].weight)
    for n in range(2):
        weights = [
            math.exp(float(block.where(x[n : n + 1])[0, 0, i, j]))
            for i in range(3)
            for j in range(2)
        ]
        cells = [x[n, :, i, j] for i in range(3) for j in range(2)]
        mean = sum(w * cell for w, cell in zip(weights, cells, strict=True)) / sum(weights)
        torch.testing.assert_close(block(x)[n], block.transform(mean))
    assert ContextBlock(1)(torch.randn(1, 1, 2, 2)).shape == (1, 1)
