"""Maps made by rule, for losses on the feature maps of classifiers."""

import pytest
import torch
from torch import Tensor, nn

from mmkd.objective import Objective
from mmkd.testing import make_trace, ready

i = torch.arange(16, dtype=torch.float64)
#: two maps of each network, (2, 2, 2, 2)
FS, FT = ((i - 7) / 4).view(2, 2, 2, 2), (((5 * i) % 9 - 4) / 4).view(2, 2, 2, 2)
FS2, FT2 = (((3 * i) % 7 - 3) / 4).view(2, 2, 2, 2), (((7 * i) % 11 - 5) / 4).view(2, 2, 2, 2)


def on_maps(objective: Objective, *maps: list[Tensor]) -> dict[str, Tensor]:
    """Set up for the maps of (student, teacher) at taps 'a', 'b', …, and run."""
    sides = [dict(zip('abc', side, strict=False)) for side in maps]
    objective.bind(nn.Module(), nn.Module())
    trace = make_trace(*sides)
    return ready(objective, trace)(trace)


def check_first_connector(objective: Objective) -> None:
    """An untrained connector at tap 'a' is drawn as the authors of AB and OFD draw it."""
    torch.manual_seed(0)
    on_maps(objective, [torch.randn(2, 32, 2, 2)], [torch.randn(2, 128, 2, 2)])
    weight = objective.adapters['0'].conv.weight
    assert float(weight.detach().std()) == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert objective.adapters['0'].conv.bias is None
