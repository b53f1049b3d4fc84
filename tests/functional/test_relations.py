"""Distances and directions of rows."""

import itertools

import pytest
import torch
from row_toys import random_rows

from mmkd.analysis.benchmark import peak_bytes
from mmkd.functional.relations import (
    at_least_float32,
    at_most,
    conditional,
    cosines,
    distances,
    relation_loss,
    smooth_unit,
    unit,
    without_diagonal,
)


def test_distances_of_close_rows_far_from_the_origin():
    x = 1000 + random_rows(b=4, dtype=torch.float32)[0] / 100
    wanted = (x[:, None].double() - x).norm(dim=2)
    torch.testing.assert_close(distances(x).double(), wanted, rtol=1e-6, atol=0)
    twins = torch.cat((x, x[:1])).requires_grad_()
    found = distances(twins)
    assert not found[0, 4] and not found.diagonal().any()
    assert torch.autograd.grad(found[0, 4], twins)[0].abs().max() == 0
    wide = torch.rand(48, 4096, requires_grad=True)  # not 48 * 48 * 4096 * 4 = 38e6 bytes
    assert peak_bytes(lambda: distances(wide).sum().backward()) < 15e6


def test_distances_and_cosines_pair_by_pair():
    (x,) = random_rows(widths=(3,))
    for i in range(5):
        for j in range(5):
            cosine = float(x[i] @ x[j] / (x[i].norm() * x[j].norm()))
            assert float(distances(x)[i, j]) == pytest.approx(float((x[i] - x[j]).norm()), abs=1e-7)
            assert float(cosines(x)[i, j]) == pytest.approx(cosine)
    assert distances(x[:0]).shape == cosines(x[:0]).shape == (0, 0)
    assert distances(x[:1]).tolist() == [[0]]
    assert distances(x.half()).dtype == torch.float32


def test_gradient_of_distances():
    (x,) = random_rows(widths=(3,))
    assert torch.autograd.gradcheck(distances, x.requires_grad_())


def test_short_vectors():
    x = torch.tensor([[3.0, 4.0], [1e-9, 0.0], [0.0, 0.0]], requires_grad=True)
    found = unit(x)
    torch.testing.assert_close(found.detach(), torch.tensor([[0.6, 0.8], [0, 0], [0, 0]]))
    assert torch.autograd.grad(found.sum(), x)[0][1:].eq(0).all()
    found = smooth_unit(x)
    torch.testing.assert_close(found[0].detach(), torch.tensor([0.6, 0.8]))
    assert found[2].eq(0).all()
    assert float(torch.autograd.grad(found.sum(), x)[0].abs().max()) <= 1e4
    assert unit(x.half()).dtype == torch.float32


@pytest.mark.parametrize('groups', [None, torch.tensor([0, 0, 1, 0, 1])])
def test_relation_loss_pair_by_pair(groups):
    s, t = random_rows()

    def relative(x):
        found = [
            float((x[i] - x[j]).norm())
            for i, j in itertools.permutations(range(5), 2)
            if groups is None or groups[i] == groups[j]
        ]
        return [value / (sum(found) / len(found)) for value in found]

    gaps = [abs(a - b) for a, b in zip(relative(s), relative(t), strict=True)]
    wanted = sum(g - 0.5 if g > 1 else g * g / 2 for g in gaps) / len(gaps)
    assert float(relation_loss(s, t, groups)) == pytest.approx(wanted)


def test_relation_loss_of_too_few_rows_is_zero_with_a_gradient():
    s, t = random_rows()
    s.requires_grad_()
    for loss in (relation_loss(s[:2], t[:2]), relation_loss(s, t, torch.arange(5))):
        assert float(loss.detach()) == 0 and not torch.autograd.grad(loss, s)[0].any()


def test_relation_loss_of_maps_flattens_them():
    s, t = torch.rand(4, 2, 3, 3), torch.rand(4, 5, 2, 2)
    torch.testing.assert_close(relation_loss(s, t), relation_loss(s.flatten(1), t.flatten(1)))
    same = torch.ones(4, 3, requires_grad=True)
    assert torch.autograd.grad(relation_loss(same, t), same)[0].isfinite().all()


def test_rows_of_similarities_as_probabilities():
    found = conditional(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
    assert found.tolist() == [[0.25, 0.75], [0, 0]]
    assert without_diagonal(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist() == [[0, 2], [3, 0]]


def test_rows_are_thinned_out_evenly():
    rows = torch.arange(10)
    assert at_most(rows, 4).tolist() == [0, 2, 5, 7]
    assert at_most(rows, 10) is rows and at_most(rows, 11) is rows


def test_half_precision_becomes_float32():
    for dtype in (torch.float16, torch.bfloat16):
        assert at_least_float32(torch.ones(1, dtype=dtype)).dtype == torch.float32
    double = torch.ones(1, dtype=torch.float64)
    assert at_least_float32(double) is double
