"""Modules whose output is rounded: in place, with their parameters and names."""

import copy

import torch
from torch import nn

from mmkd.adapters.quantised_output import quantise_output, quantised_places


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.conv(x), self.conv(x[..., ::2])


def test_every_map_is_rounded_and_gradients_pass():
    torch.manual_seed(0)
    module = Pyramid()
    plain = copy.deepcopy(module)
    keys = list(module.state_dict())
    quantise_output(module, 0.25, True)
    x = torch.randn(2, 1, 4, 4)
    for found, wanted in zip(module(x), plain(x), strict=True):
        assert torch.equal(found / 0.25, (found / 0.25).round())
        assert (found - wanted).abs().max() <= 0.125 + 1e-6
    assert list(module.state_dict()) == keys
    sum(m.sum() for m in module(x)).backward()
    sum(m.sum() for m in plain(x)).backward()
    torch.testing.assert_close(module.conv.weight.grad, plain.conv.weight.grad)


def test_copies_and_places():
    net = nn.Sequential(Pyramid(), nn.Identity())
    quantise_output(net[0], 0.5, levels=4)
    assert quantised_places(net) == {'0': (0.5, False, 4)}
    twin = copy.deepcopy(net)
    assert quantised_places(twin) == quantised_places(net) and isinstance(twin[0], Pyramid)
    assert type(net[0]).__name__ == 'Pyramid'
    assert float(twin[0](torch.full((1, 1, 2, 2), 1e3))[0].max()) in (0.0, 1.5)
