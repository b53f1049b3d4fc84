"""A swapped class answers first; nothing else of the module changes."""

import copy

import torch
from torch import nn

from mmkd.adapters.class_swap import swap_class


class Doubled:
    def forward(self, x):
        return 2 * super().forward(x)


def test_the_module_is_the_same_but_for_what_it_computes():
    module = nn.Linear(2, 2)
    x, before = torch.ones(1, 2), module(torch.ones(1, 2))
    keys = list(module.state_dict())
    swap_class(module, Doubled)
    assert torch.equal(module(x), 2 * before)
    assert list(module.state_dict()) == keys and isinstance(module, nn.Linear)
    assert type(module).__name__ == 'Linear', 'initialisers look for this name'
    assert type(copy.deepcopy(module)) is type(module)
    other = nn.Linear(2, 2)
    swap_class(other, Doubled)
    assert type(other) is type(module)
