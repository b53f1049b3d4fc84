"""VID: the likelihood, and the variance that it learns."""

import math

import pytest
import torch
from map_toys import FS, FT, on_maps

from mmkd.methods.vid import VID, gaussian_nll


def test_worked_numbers():
    assert float(gaussian_nll(FS, FT, torch.full((2,), 5.0))) == pytest.approx(0.9609690, abs=1e-7)
    best = torch.full((2,), 1.5625, dtype=torch.float64, requires_grad=True)
    value = gaussian_nll(FS, FT, best)
    assert float(value.detach()) == pytest.approx(0.723144, abs=1e-6)
    assert abs(float(torch.autograd.grad(value, best)[0].sum())) < 1e-12


def test_starts_at_the_asked_variance_and_trains_it():
    torch.manual_seed(0)
    objective = VID('a', variance=5.0)
    found = on_maps(objective, [torch.randn(2, 3, 4, 4)], [torch.randn(2, 6, 4, 4)])
    assert float(found['variance']) == pytest.approx(5.0, rel=1e-6)
    assert float(objective.rho[0][0].detach()) == pytest.approx(4.99323, abs=1e-5)
    found['loss'].backward()
    assert objective.rho[0].grad.any() and objective.rho[0].shape == (6,)
    assert len(list(objective.adapters['0'].parameters())) == 3
    with pytest.raises(ValueError, match='variance must be'):
        VID(variance=0)


def test_softplus_of_the_start_is_the_variance():
    rho = math.log(math.expm1(5.0 - 1e-5))
    assert rho == pytest.approx(4.99323, abs=1e-5)
