"""AB: worked numbers, levels, and connectors."""

import pytest
import torch
from map_toys import FS, FT, check_first_connector
from torch import nn

from mmkd.methods.ab import AB, boundary_error
from mmkd.testing import make_trace, ready


def test_worked_numbers():
    error = boundary_error(FS, FT)
    assert float(error.flatten(1).sum(1).mean()) == pytest.approx(18.625)
    assert float(error.mean()) == pytest.approx(2.328125)
    at_zero = boundary_error(torch.zeros(1), torch.tensor([3.0]), margin=2.0)
    assert float(at_zero) == 4.0
    assert float(boundary_error(torch.tensor([1.0, -1.0]), torch.tensor([9.0, -0.1])).sum()) == 0


def test_counts_earlier_levels_half_and_reports_disagreement():
    def run(objective, *pairs):
        objective.bind(nn.Module(), nn.Module())
        trace = make_trace(
            *(dict(zip('ab', side, strict=False)) for side in zip(*pairs, strict=True))
        )
        ready(objective, trace)
        for adapter in objective.adapters.values():
            nn.init.dirac_(adapter.conv.weight)
            adapter.norm = nn.Identity()
        return objective(trace)

    one = run(AB('a'), (FS, FT))
    assert float(one['loss']) == pytest.approx(18.625, rel=1e-6)
    assert float(one['disagreement']) == pytest.approx(0.5625)
    small = torch.nn.functional.max_pool2d(FT, 2)
    last = run(AB('a'), (small, -small))['loss']
    two = run(AB(['a', 'b']), (FS, FT), (small, -small))['loss']
    assert float(two) == pytest.approx(18.625 / 2 + float(last), rel=1e-6)
    assert float(run(AB('a', reduction='mean'), (FS, FT))['loss']) == pytest.approx(2.328125)


def test_the_connector_starts_as_the_authors_start_it():
    check_first_connector(AB('a'))
