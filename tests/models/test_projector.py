"""The bottleneck that brings a map to another width."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmkd.models.projector import BottleneckProjector


@pytest.mark.parametrize(('factor', 'middle'), [(2, 6), (4, 3), (12, 1)])
def test_layers(factor, middle):
    net = BottleneckProjector(5, 12, factor)
    convolutions = [m for m in net.layers if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, *m.kernel_size) for m in convolutions] == [
        (5, middle, 1, 1),
        (middle, middle, 3, 3),
        (middle, 12, 1, 1),
    ]
    found = net(torch.randn(2, 5, 7, 9))
    assert found.shape == (2, 12, 7, 9) and (found >= 0).all() and net.out_channels == 12


def test_larger_maps_are_averaged_first():
    net, x = BottleneckProjector(5, 8, pool=2).eval(), torch.randn(2, 5, 6, 7)
    found = net(x)
    assert found.shape == (2, 8, 3, 4)
    torch.testing.assert_close(found, net.layers(F.avg_pool2d(x, 2, ceil_mode=True)))
    assert net(torch.randn(1, 5, 1, 1)).shape == (1, 8, 1, 1)


@pytest.mark.parametrize('options', [dict(factor=9), dict(factor=0), dict(pool=0)])
def test_bad_options(options):
    with pytest.raises(ValueError, match=f'BottleneckProjector: {next(iter(options))} must be'):
        BottleneckProjector(5, 8, **options)
