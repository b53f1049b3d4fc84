"""Means of class scores: numbers of the sheets, computed in float64."""

import math

import pytest
import torch

from mmkd.functional.logit_distances import soft_kl
from mmkd.teachers.means import (
    mean_of,
    probability_mean,
    specialist_mean,
    union_mean,
    with_oversampling,
)


def t(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(found, wanted, tol=1.5e-6):
    torch.testing.assert_close(found, wanted, rtol=0, atol=tol)


A, B = t((2, 0, 0)), t((0, 2, 0))


def test_probability_mean_is_the_mean_at_its_temperature():
    z = probability_mean([A, B], [0.5, 0.5], 2.0)
    close((z / 2).softmax(1), t((0.394029, 0.394029, 0.211942)))
    close(z - z.max(), t((0, 0, -1.240229)))
    mean = ((A / 2).softmax(1) + (B / 2).softmax(1)) / 2
    assert float(((z / 2).softmax(1) - mean).abs().max()) < 2e-16


def test_probability_mean_is_another_at_another_temperature():
    z = probability_mean([A, B], [0.5, 0.5], 2.0)
    close(z.softmax(1), t((0.436811, 0.436811, 0.126377)))
    close((A.softmax(1) + B.softmax(1)) / 2, t((0.446747, 0.446747, 0.106507)))


def test_weights_of_members():
    z = probability_mean([A, B], [0.7, 0.3], 2.0)
    close((z / 2).softmax(1), t((0.466864, 0.321194, 0.211942)))


def test_a_weight_of_zero_leaves_a_member_out():
    close(probability_mean([A, B], [1.0, 0.0], 2.0).softmax(1), A.softmax(1))


def test_logit_mean():
    close((mean_of([A, B], [0.5, 0.5]) / 2).softmax(1), t((0.383652, 0.383652, 0.232697)))


def test_students_distance_from_the_two_means():
    student = t((1, 1, 0))
    close(soft_kl(student, probability_mean([A, B], [0.5, 0.5], 2.0), 2.0), t(0.004931)[0:])
    assert float(soft_kl(student, mean_of([A, B], [0.5, 0.5]), 2.0)) == pytest.approx(0, abs=1e-12)


def test_logit_mean_is_the_geometric_mean_at_every_temperature():
    for tau in (1.0, 3.0):
        z = mean_of([A, B], [0.7, 0.3])
        product = (A / tau).softmax(1) ** 0.7 * (B / tau).softmax(1) ** 0.3
        close((z / tau).softmax(1), product / product.sum(), 1e-12)


def test_maps_of_pixels_are_pixel_by_pixel():
    maps = [z[:, :, None, None].expand(1, 3, 2, 2) for z in (A, B)]
    z = probability_mean(maps, [0.5, 0.5], 2.0)
    close(z[0, :, 1, 0], probability_mean([A, B], [0.5, 0.5], 2.0)[0], 1e-12)


# ---------------------------------------------------------------------------------- label spaces


@pytest.mark.parametrize(
    ('weights', 'wanted'),
    [
        ((0.5, 0.5), (0.457143, 0.142857, 0.4)),
        ((0.8, 0.2), (0.465116, 0.127907, 0.406977)),
    ],
)
def test_union_of_classes(weights, wanted):
    cat_dog, dog_car = t((0.8, 0.2)), t((0.3, 0.7))
    close(union_mean([cat_dog, dog_car], [[0, 1], [1, 2]], weights, 3), t(wanted))


def test_union_of_equal_classes_is_the_mean():
    p, q = t((0.8, 0.2)), t((0.3, 0.7))
    close(union_mean([p, q], [[0, 1], [0, 1]], [0.5, 0.5], 2), (p + q) / 2, 1e-12)


# ----------------------------------------------------------------------------------- specialists

GENERAL = t((0.4, 0.3, 0.2, 0.1))


def ask(special, subsets, general=GENERAL, active=None):
    active = torch.ones(len(general), len(subsets), dtype=torch.bool) if active is None else active
    return specialist_mean(general, special, subsets, active)


def test_one_specialist_has_a_closed_form():
    close(ask([t((0.7, 0.1, 0.2))], [[0, 1]]), t((0.55, 0.2, 1 / 6, 1 / 12)), 1e-12)


def objective(q, general, special, subsets):
    value = (general * (general / q).log()).sum()
    for p, subset in zip(special, subsets, strict=True):
        rest = [c for c in range(q.shape[1]) if c not in subset]
        own = torch.cat((q[:, subset], q[:, rest].sum(1, keepdim=True)), 1)
        value = value + (p * (p / own).log()).sum()
    return value


def test_two_specialists():
    special, subsets = [t((0.7, 0.1, 0.2)), t((0.2, 0.6, 0.2))], [[0, 1], [1, 2]]
    q = ask(special, subsets)
    close(q, t((0.426472, 0.2, 0.324601, 0.048927)))
    assert float(objective(q, GENERAL, special, subsets)) == pytest.approx(0.418691, abs=1e-6)


def test_it_is_the_minimum_that_gradient_descent_finds():
    torch.manual_seed(0)
    general = torch.randn(1, 5, dtype=torch.float64).softmax(1)
    subsets = [[0, 1, 2], [2, 3]]
    special = [torch.randn(1, len(s) + 1, dtype=torch.float64).softmax(1) for s in subsets]
    u = general.log().clone().requires_grad_()
    solver = torch.optim.LBFGS([u], max_iter=500, tolerance_change=0, line_search_fn='strong_wolfe')

    def closure():
        solver.zero_grad()
        loss = objective(u.softmax(1), general, special, subsets)
        loss.backward()
        return loss

    solver.step(closure)
    close(ask(special, subsets, general), u.detach().softmax(1), 1e-5)


def test_whom_nobody_asks_keeps_the_generalists_opinion():
    active = torch.tensor([[True], [False]])
    q = ask([t((0.7, 0.1, 0.2), (0.7, 0.1, 0.2))], [[0, 1]], GENERAL.repeat(2, 1), active)
    close(q[0], t((0.55, 0.2, 1 / 6, 1 / 12))[0], 1e-12)
    assert torch.equal(q[1], GENERAL[0])


def test_no_rows():
    empty = GENERAL[:0]
    assert ask([t((0.7, 0.1, 0.2))[:0]], [[0, 1]], empty).shape == (0, 4)


def test_oversampling_makes_room_for_the_dustbin():
    logits = t((2, 1, 0))
    close(logits.softmax(1), t((0.665241, 0.244728, 0.090031)))
    close(with_oversampling(logits, 8.0).softmax(1), t((0.40807, 0.15012, 0.44181)))
    assert torch.equal(with_oversampling(logits, 1.0), logits)
    assert float(with_oversampling(logits, 8.0)[0, 2]) == pytest.approx(math.log(8), abs=1e-6)
