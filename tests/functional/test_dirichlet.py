"""Dirichlet distributions against torch's own, the sheet's numbers and draws."""

import pytest
import torch

from mmkd.functional.dirichlet import concentrations, negative_log_likelihood, uncertainties

ALPHA = torch.tensor([5.0, 2, 1], dtype=torch.float64)
MEMBERS = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], dtype=torch.float64)


def test_likelihood():
    """[V] procedures B5."""
    flat = negative_log_likelihood(torch.ones(3, dtype=torch.float64), MEMBERS.log().mean(0))
    assert float(flat) == pytest.approx(-0.6931, abs=1e-4)
    found = negative_log_likelihood(ALPHA, MEMBERS.log().mean(0))
    assert float(found) == pytest.approx(-2.20540, abs=1e-5)
    torchs = -torch.distributions.Dirichlet(ALPHA).log_prob(MEMBERS).mean()
    assert float(found) == pytest.approx(float(torchs), abs=1e-12)
    swapped = negative_log_likelihood(ALPHA, MEMBERS.flip(0).log().mean(0))
    assert float(swapped) == pytest.approx(float(found), abs=1e-12)


def test_identical_members_have_no_optimum():
    """[V] The loss falls with alpha_0 for ever, which is what smoothing and a cap are for."""
    p = MEMBERS[0]
    scales = [1, 10, 100, 1e3, 1e4]
    found = [float(negative_log_likelihood(scale * p, p.log())) for scale in scales]
    assert found == pytest.approx([0.57, -2.47, -4.89, -7.20, -9.51], abs=5e-3)


def test_stationarity():
    """The gradient is 0 where psi(alpha_k) - psi(alpha_0) is the mean logarithm."""
    alpha = ALPHA.clone().requires_grad_()
    wanted = (ALPHA.digamma() - ALPHA.sum().digamma()).detach()
    negative_log_likelihood(alpha, wanted).backward()
    assert alpha.grad.abs().max() < 1e-12


def test_uncertainties():
    """[V] and by drawing."""
    found = {name: float(value) for name, value in uncertainties(ALPHA).items()}
    assert found == pytest.approx(dict(total=0.9003, data=0.7908, knowledge=0.1095), abs=1e-4)
    torch.manual_seed(0)
    drawn = torch.distributions.Dirichlet(ALPHA).sample((20_000,))
    assert float(torch.special.entr(drawn).sum(1).mean()) == pytest.approx(found['data'], abs=0.01)
    rows = uncertainties(torch.rand(100, 5, dtype=torch.float64).mul(8).exp())
    assert all(value.shape == (100,) and bool((value >= 0).all()) for value in rows.values())


def test_concentrations_have_bounds():
    found = concentrations(torch.tensor([0.0, 2.0, 1e6, -1e6]), tau=2.0)
    assert found.dtype == torch.float64
    assert found.log().tolist() == pytest.approx([0, 1, 15, -15])
