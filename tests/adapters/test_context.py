"""Blocks that gather context over a whole map, written out."""

import math

import pytest
import torch
from pyramid_toys import slow_non_local
from torch import nn

from mmkd.adapters.context import ContextBlock, NonLocal


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
