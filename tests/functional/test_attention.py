"""Attention over places and over channels, one by one."""

import math

import pytest
import torch

from mmkd.functional.attention import softmax_attention, spatial_attention


@pytest.mark.parametrize('tau', [0.1, 0.5, 2.0])
def test_places_and_channels_one_by_one(tau):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    spatial, channel = softmax_attention(x, tau)
    for n in range(2):
        places = [
            math.exp(float(x[n, :, i, j].abs().mean()) / tau) for i in range(2) for j in range(4)
        ]
        channels = [math.exp(float(x[n, c].abs().mean()) / tau) for c in range(3)]
        assert spatial[n].flatten().tolist() == pytest.approx([8 * e / sum(places) for e in places])
        assert channel[n].tolist() == pytest.approx([3 * e / sum(channels) for e in channels])


def test_sums_signs_and_constants():
    x = torch.randn(2, 5, 3, 4)
    spatial, channel = softmax_attention(x, 0.5)
    torch.testing.assert_close(spatial.sum((1, 2)), torch.full((2,), 12.0))
    torch.testing.assert_close(channel.sum(1), torch.full((2,), 5.0))
    assert torch.equal(softmax_attention(-x, 0.5)[0], spatial)
    assert torch.equal(spatial_attention(x, 0.5), spatial)
    for value in (0.0, 1e4):
        flat = softmax_attention(torch.full((1, 2, 3, 3), value), 0.5)
        torch.testing.assert_close(flat, (torch.ones(1, 3, 3), torch.ones(1, 2)))
