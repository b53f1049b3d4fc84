"""A code that is coarser and narrower, and the way back."""

import pytest
import torch
from torch import nn

from mmkd.methods.ka import AutoEncoder


@pytest.mark.parametrize('shrink', [1, 2, 4, 8])
@pytest.mark.parametrize('size', [(16, 24), (13, 9)])
def test_the_code_is_as_coarse_as_asked_and_leads_back(shrink, size):
    net = AutoEncoder(6, 4, shrink)
    x = torch.randn(2, 6, *size)
    code = net.encoder(x)
    assert code.shape == (2, 4, *(-(-side // shrink) for side in size))
    assert net.reconstruct(x, code).shape == x.shape


def test_widths_lead_down_to_the_code():
    net = AutoEncoder(16, 4, 2)
    assert [m.out_channels for m in net.encoder if isinstance(m, nn.Conv2d)] == [10, 10, 4]
    assert [m.out_channels for m in net.decoder if isinstance(m, nn.ConvTranspose2d)] == [
        10,
        10,
        16,
    ]
    wide = AutoEncoder(2, 8, 1)  # a code may be wider than its map
    assert [m.out_channels for m in wide.encoder if isinstance(m, nn.Conv2d)] == [8, 8, 8]
