"""Nodes of a map, and windows that are half of it."""

import pytest
import torch
from torch.nn import functional as F

from mmkd.functional.pooling import pool_nodes, pool_to_smaller


@pytest.mark.parametrize(
    ('size', 'nodes'), [((64, 64), 4), ((65, 65), 9), ((97, 97), 9), ((64, 128), 4), ((1, 5), 3)]
)
def test_nodes_of_half_windows(size, nodes):
    pooled = pool_nodes(torch.rand(1, 2, *size), 'max', 'half')
    assert pooled[0, 0].numel() == nodes
    assert pool_nodes(torch.rand(1, 2, *size), None, 'half').shape[2:] == size
    assert pool_nodes(torch.rand(1, 2, 3, 3), 'avg', 8).shape[2:] == (1, 1)


def test_nodes_are_the_means_or_maxima_of_windows():
    x = torch.arange(15.0).view(1, 1, 3, 5)
    assert pool_nodes(x, 'max', 2)[0, 0].tolist() == [[6, 8, 9], [11, 13, 14]]
    means = [[3, 5, 6.5], [10.5, 12.5, 14]]  # incomplete windows are means of what there is
    assert pool_nodes(x, 'avg', 2)[0, 0].tolist() == means
    assert pool_nodes(x, None, 2) is x


def test_the_larger_of_two_maps_is_averaged():
    student, teacher = torch.rand(2, 3, 4, 6), torch.rand(2, 5, 8, 3)
    s, t = pool_to_smaller(student, teacher)
    assert s.shape == (2, 3, 4, 3) and t.shape == (2, 5, 4, 3)
    torch.testing.assert_close(s, F.avg_pool2d(student, (1, 2)))
    torch.testing.assert_close(t, F.avg_pool2d(teacher, (2, 1)))
    same = pool_to_smaller(student, student)
    assert same[0] is student and same[1] is student
