"""Divergences between rows of logits, against loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmkd.functional.logit_distances import (
    bernoulli_kl,
    decoupled_kl,
    half_squared_error,
    log_parts,
    pixel_wise_kl,
    soft_kl,
    weighted_binary_cross_entropy,
    weighted_cross_entropy,
)


def test_bernoulli_kl():
    z = torch.tensor([0.3, -2.0, 5.0, 0.0], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([0.2, 0.9, 1.0, 0.0], dtype=torch.float64)
    p = z.detach().sigmoid()
    wanted = [
        a * math.log(a / b) if a else 0.0 for a, b in zip(q.tolist(), p.tolist(), strict=True)
    ]
    for i, (a, b) in enumerate(zip(q.tolist(), p.tolist(), strict=True)):
        wanted[i] += (1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0
    assert bernoulli_kl(z, q).tolist() == pytest.approx(wanted, abs=1e-12)
    assert float(bernoulli_kl(z, p).detach().abs().max()) < 1e-12
    cross = F.binary_cross_entropy_with_logits(z, q, reduction='sum')
    gradients = [torch.autograd.grad(x.sum(), z)[0] for x in (bernoulli_kl(z, q), cross)]
    torch.testing.assert_close(*gradients)


def softmax(row, tau=1.0):
    values = [math.exp(z / tau) for z in row.tolist()]
    return [v / sum(values) for v in values]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a)


@pytest.mark.parametrize('tau', [0.5, 1.0, 4.0])
def test_soft_kl_row_by_row(tau):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 4, dtype=torch.float64)
    wanted = [
        tau**2 * kl(softmax(t, tau), softmax(s, tau)) for s, t in zip(student, teacher, strict=True)
    ]
    assert soft_kl(student, teacher, tau).tolist() == pytest.approx(wanted)
    assert soft_kl(student.view(2, 3, 4), teacher.view(2, 3, 4), tau).shape == (2, 3)
    assert soft_kl(student[:0], teacher[:0], tau).shape == (0,)


@pytest.mark.parametrize('tau', [0.5, 2.0])
def test_decoupled_kl_row_by_row(tau):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 4, dtype=torch.float64)
    labels = torch.arange(6) % 4
    target, others = decoupled_kl(student, teacher, labels, tau)
    for row, y in enumerate(labels.tolist()):
        p_s, p_t = (softmax(z[row], tau) for z in (student, teacher))
        binary_kl = kl([p_t[y], 1 - p_t[y]], [p_s[y], 1 - p_s[y]])
        rest = [[p / (1 - x[y]) for k, p in enumerate(x) if k != y] for x in (p_t, p_s)]
        assert float(target[row]) == pytest.approx(tau**2 * binary_kl)
        assert float(others[row]) == pytest.approx(tau**2 * kl(*rest))
    assert [x.shape for x in decoupled_kl(student[:0], teacher[:0], labels[:0], tau)] == [
        (0,),
        (0,),
    ]


def test_log_parts():
    b, q = log_parts(torch.tensor([[0.2, 0.3, 0.5]]).log(), torch.tensor([1]))
    torch.testing.assert_close(b.exp(), torch.tensor([[0.3, 0.7]]))
    torch.testing.assert_close(q.exp(), torch.tensor([[2 / 7, 5 / 7]]))
    b, q = log_parts(torch.tensor([[300.0, 0, 0]]), torch.tensor([0]))
    assert b.tolist() == [[0, pytest.approx(-300 + math.log(2))]], 'no logarithm of a rounded 0'


@pytest.mark.parametrize('entropy', [True, False])
def test_weighted_cross_entropy_row_by_row(entropy):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    found = weighted_cross_entropy(student, teacher, weight, 2.0, entropy)
    for row, value in enumerate(found.tolist()):
        p_s, p_t = (softmax(z[row], 2.0) for z in (student, teacher))
        terms = [
            w * t * ((0 if entropy else math.log(t)) - math.log(s))
            for w, s, t in zip(weight.tolist(), p_s, p_t, strict=True)
        ]
        assert value == pytest.approx(sum(terms))


@pytest.mark.parametrize('entropy', [True, False])
@pytest.mark.parametrize('tau', [1.0, 2.5])
def test_a_sigmoid_as_a_softmax_of_two(entropy, tau):
    torch.manual_seed(0)
    own = (10 * torch.randn(4, 3, dtype=torch.float64)).requires_grad_()
    wanted, positive, negative = torch.randn(4, 3).double(), torch.rand(4, 1).double(), 1.5
    found = weighted_binary_cross_entropy(own, wanted, (positive, negative), tau, entropy)
    two = (torch.stack((z, torch.zeros_like(z)), -1) for z in (own, wanted))
    weights = torch.stack((positive, torch.full_like(positive, negative)), -1)
    softmax = weighted_cross_entropy(*two, weights, tau, entropy)
    torch.testing.assert_close(found, softmax)
    gradients = [torch.autograd.grad(x.sum(), own)[0] for x in (found, softmax)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('reduction', ['per_pixel', 'skd_sum', 'element_mean'])
@pytest.mark.parametrize('masked', [False, True])
def test_pixel_wise_kl_pixel_by_pixel(reduction, masked):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 2, 5, dtype=torch.float64)
    valid = torch.rand(2, 2, 5) > 0.4 if masked else None
    places = [
        (n, y, x)
        for n in range(2)
        for y in range(2)
        for x in range(5)
        if valid is None or valid[n, y, x]
    ]
    total = sum(
        4 * kl(softmax(teacher[n, :, y, x], 2.0), softmax(student[n, :, y, x], 2.0))
        for n, y, x in places
    )
    divisor = dict(per_pixel=1, skd_sum=1 / 2, element_mean=3)[reduction] * len(places)
    found = pixel_wise_kl(student, teacher, 2.0, reduction, valid)
    assert float(found) == pytest.approx(total / divisor)


def test_no_valid_pixel_is_zero_with_a_gradient():
    student = torch.randn(1, 3, 2, 2, requires_grad=True)
    nothing = torch.zeros(1, 2, 2, dtype=torch.bool)
    loss = pixel_wise_kl(student, torch.randn(1, 3, 2, 2), valid=nothing)
    assert float(loss.detach()) == 0 and not torch.autograd.grad(loss, student)[0].any()


def test_half_squared_error_row_by_row():
    student, teacher = torch.randn(2, 5, 3, dtype=torch.float64)
    rows = [
        sum(float(a - b) ** 2 for a, b in zip(s, t, strict=True))
        for s, t in zip(student, teacher, strict=True)
    ]
    assert float(half_squared_error(student, teacher)) == pytest.approx(sum(rows) / 10)
