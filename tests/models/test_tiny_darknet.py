"""TinyDarknet: maps of two strides, or those of three depths in one."""

import pytest
import torch

from mmkd.models.tiny_darknet import TinyDarknet

SMALL = (2, 4, 6, 8, 10, 12)


def test_two_maps():
    maps = TinyDarknet(SMALL)(torch.randn(2, 3, 64, 96))
    assert [tuple(x.shape) for x in maps] == [(2, 10, 4, 6), (2, 12, 2, 3)]
    (last,) = TinyDarknet(SMALL, out_indices=(1,))(torch.randn(2, 3, 64, 96))
    assert last.shape == (2, 12, 2, 3)


def test_stacked_maps():
    net = TinyDarknet(SMALL, stack=True, squeeze=5)
    (found,) = net(torch.randn(2, 3, 64, 96))
    assert found.shape == (2, 15, 2, 3)
    assert [block[0].in_channels for block in net.squeezes] == [8, 10, 12]


def test_statistics_may_be_kept():
    net = TinyDarknet(SMALL, norm_eval=True).train()
    assert not net.conv1[1].training and net.training
    assert TinyDarknet(SMALL).train().conv1[1].training


def test_bad_widths():
    with pytest.raises(ValueError, match='six convolutions, found'):
        TinyDarknet((1, 2))
    with pytest.raises(ValueError, match='each of widths must be'):
        TinyDarknet((0, 1, 2, 3, 4, 5))
