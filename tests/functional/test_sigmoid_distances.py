"""Distances of independently scored classes, against the sheet's numbers."""

import math

import pytest
import torch

from mmkd.functional.logit_distances import weighted_binary_cross_entropy
from mmkd.functional.sigmoid_distances import (
    adaptive_distance,
    against_rest,
    gap_weighted_cross_entropy,
    joint_logit,
    varifocal_distance,
)

Z, T = (torch.tensor(x, dtype=torch.float64) for x in ([0.0, 1.5], [2.0, 1.5]))


def test_gap_weighted_cross_entropy():  # XKD-1
    found = gap_weighted_cross_entropy(Z, T)
    assert float(found[0]) == pytest.approx(0.2639484, abs=1e-7)
    assert float(found[1]) == 0
    z, other = torch.randn(2, 6, dtype=torch.float64)
    z.requires_grad_()  # also through the factor
    assert torch.autograd.gradcheck(lambda x: gap_weighted_cross_entropy(x, other, 2.0), z)
    confident = torch.tensor([-80.0, 80.0]), torch.tensor([80.0, 80.0])
    assert gap_weighted_cross_entropy(*confident).tolist() == pytest.approx([80, 0])


@pytest.mark.parametrize(('detach', 'slope'), [(False, -0.3182932), (True, -0.1450064)])
def test_the_weight_has_a_gradient_or_not(detach, slope):  # BCKD-2
    z = torch.zeros((), dtype=torch.float64, requires_grad=True)
    gap_weighted_cross_entropy(z, T[0], detach=detach).backward()
    assert float(z.grad) == pytest.approx(slope, abs=1e-7)


def test_other_distances_of_the_same_pair():  # 15.2
    one = Z[:1], T[:1]
    assert float(gap_weighted_cross_entropy(*one, 2.0)) == pytest.approx(0.1005108, abs=1e-7)
    assert float(varifocal_distance(*one)) == pytest.approx(0.6105220, abs=1e-7)
    kl = weighted_binary_cross_entropy(*one, (1.0, 1.0), entropy=False)
    assert float(kl) == pytest.approx(0.3278133, abs=1e-7)


def test_joint_probability():  # YX-1
    pairs = torch.tensor([[1.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    s, t = joint_logit(*pairs.T)
    assert [float(x.sigmoid()) for x in (s, t)] == pytest.approx([0.3655293, 0.6439143], abs=1e-7)
    assert float(gap_weighted_cross_entropy(s, t)) == pytest.approx(0.2255050, abs=1e-7)
    far = joint_logit(torch.tensor([-90.0, 90.0, 200.0]), torch.tensor(60.0))
    assert far.isfinite().all() and far[:2].tolist() == pytest.approx([-90, 60])
    many = joint_logit(torch.zeros(2, 5, 3), torch.zeros(2, 5, 1))
    assert many.shape == (2, 5, 3) and float(many[0, 0, 0]) == pytest.approx(-math.log(3))


Q = torch.tensor([2.0, 2.0, math.log(0.02 / 0.98), math.log(0.02 / 0.98)], dtype=torch.float64)
S = torch.tensor([0.0, 2, -4, 3], dtype=torch.float64)


@pytest.mark.parametrize(
    ('beta', 'each', 'loss'),
    [
        (0.0, [0.0866434, 0.0171081, 0.0004289, 1.3475823], 0.9111964),  # ADL-1
        (1.0, [0.0270749, 0, 0, 1.3329007], 0.8535863),  # ADL-2
    ],
)
def test_adaptive_distance(beta, each, loss):
    found = adaptive_distance(S, Q, beta=beta)
    assert found.tolist() == pytest.approx(each, abs=1e-6)
    total = (Q.sigmoid() ** 1.8).sum()
    assert float(total) == pytest.approx(1.5932490, abs=1e-7)
    assert float(found.sum() / total) == pytest.approx(loss, abs=1e-7)


def test_adaptive_distance_where_both_agree():  # ADL-3
    z = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    assert float(adaptive_distance(z.detach(), T[0], beta=1.0)) == pytest.approx(0, abs=1e-12)
    found = adaptive_distance(z, T[0])
    assert float(found.detach()) == pytest.approx(0.0171081, abs=1e-7)
    # With alpha = 0.5 the second factor is BCE / 2, whose slope is 0 there, too.
    assert float(torch.autograd.grad(found, z)[0]) == pytest.approx(0, abs=1e-12)
    tilted = adaptive_distance(z, T[0], alpha=0.25)
    assert abs(float(torch.autograd.grad(tilted, z)[0])) > 1e-3


def test_adaptive_distance_of_sure_networks_is_finite():
    z = torch.tensor([-90.0, 90.0, 0.0], requires_grad=True)
    for beta in (0.0, 1.0, -0.5):
        found = adaptive_distance(z, torch.tensor([90.0, -90.0, 0.0]), beta=beta)
        (slope,) = torch.autograd.grad(found.sum(), z)
        assert found.isfinite().all() and slope.isfinite().all()
    z, other = torch.randn(2, 6, dtype=torch.float64)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: adaptive_distance(x, other, 0.3, 1.5, 0.5), z)


def test_a_class_against_the_rest():  # JQ-1
    found = against_rest(torch.tensor([2.0, 0, 1], dtype=torch.float64))
    assert found.sigmoid().tolist() == pytest.approx([0.6652410, 0.0900306], rel=1e-6)
    one = torch.tensor([[3.0, -2.0], [-9.0, 4.0]])
    torch.testing.assert_close(against_rest(one), one[:, :1] - one[:, 1:])
    assert against_rest(torch.tensor([90.0, 0, 0])).isfinite().all()
