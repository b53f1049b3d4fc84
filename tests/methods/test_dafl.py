"""DAFL: numbers of the three terms. Gradients: tests/rows/test_generator_objective.py."""

import math

import pytest
import torch

from mmkd.methods import DAFL
from mmkd.methods.dafl import activation, balance, one_hot


def test_classes_of_equal_shares_give_minus_1_for_10_classes():
    """The sheet's value: log10 of a tenth."""
    assert float(balance(torch.zeros(4, 10))) == pytest.approx(-1.0)
    assert float(balance(1e4 * torch.eye(10))) == pytest.approx(-1.0)


def test_balance_is_of_the_mean_probabilities():
    """Shares .75 and .25: .75 log10 .75 + .25 log10 .25 = -.244219; a single class gives 0."""
    z = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()
    assert float(balance(z)) == pytest.approx(-0.244219, abs=1e-6)
    sure = torch.tensor([[1e4, 0.0]] * 3).requires_grad_()
    loss = balance(sure)
    assert float(loss.detach()) == 0
    assert torch.autograd.grad(loss, sure)[0].isfinite().all(), 'p = 0'


def test_the_other_terms():
    z = torch.tensor([[math.log(3.0), 0.0], [0.0, math.log(3.0)]])
    assert float(one_hot(z)) == pytest.approx(-math.log(0.75))
    assert float(activation(torch.tensor([[1.0, -3.0], [0.0, 2.0]]))) == -1.5


def test_the_loss_of_the_generator_is_their_weighted_sum():
    torch.manual_seed(0)
    z, features = torch.randn(6, 4), torch.randn(6, 5)
    method = DAFL(size=8, factors=dict(one_hot=0.5))
    method.teacher_taps, method.features = ('t',), 'f'
    method.asked_teacher = lambda images, trace, tap: dict(t=[z], f=[features])
    found = method.generator_losses(torch.zeros(6, 3, 8, 8), None)
    assert {k: pytest.approx(float(v)) for k, v in found.items()} == dict(
        loss_one_hot=0.5 * float(one_hot(z)),
        loss_balance=5 * float(balance(z)),
        loss_activation=0.01 * float(activation(features)),
    )


def test_the_student_learns_probabilities():
    """KL of (.75, .25) and (.5, .5), a mean over images."""
    teacher = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log()
    loss = DAFL(size=8).student_loss(torch.zeros(2, 2), teacher)
    assert float(loss) == pytest.approx(0.130812 / 2, abs=1e-6)
    assert float(DAFL(size=8, tau=6).student_loss(torch.zeros(2, 2), teacher)) != float(loss)


def test_bad_input():
    with pytest.raises(ValueError, match='a key of factors must be one of'):
        DAFL(factors=dict(entropy=1))
    with pytest.raises(ValueError, match='DAFL: temperature tau must be'):
        DAFL(tau=0)
