"""Nodes of a map, and windows that are half of it."""

import pytest
import torch

from mmkd.functional.pooling import pool_nodes


@pytest.mark.parametrize(
    ('size', 'nodes'), [((64, 64), 4), ((65, 65), 9), ((97, 97), 9), ((64, 128), 4), ((1, 5), 3)]
)
def test_nodes_of_half_windows(size, nodes):
    pooled = pool_nodes(torch.rand(1, 2, *size), 'max', 'half')
    assert pooled[0, 0].numel() == nodes
    assert pool_nodes(torch.rand(1, 2, *size), None, 'half').shape[2:] == size
    assert pool_nodes(torch.rand(1, 2, 3, 3), 'avg', 8).shape[2:] == (1, 1)
