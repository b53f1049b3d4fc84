"""NST: worked numbers, a slow literal sum, and dead neurons."""

import pytest
import torch
from map_toys import FS, FT, on_maps
from torch.nn import functional as F

from mmkd.methods.nst import NST, neuron_mmd


@pytest.mark.parametrize(
    ('kernel', 'wanted'), [('linear', 1.8089705), ('poly', 1.3074283), ('gaussian', 0.6715095)]
)
def test_worked_numbers(kernel, wanted):
    assert float(neuron_mmd(FS, FT, kernel)) == pytest.approx(wanted, abs=1e-6)
    assert float(on_maps(NST('a', kernel=kernel), [FS], [FT])['loss']) == (
        pytest.approx(wanted, abs=1e-5)
    )
    permuted = FS[:, [1, 0]]
    assert float(neuron_mmd(permuted, FT, kernel)) == pytest.approx(wanted, abs=1e-6)
    assert abs(float(neuron_mmd(FS, FS, kernel))) < 1e-12


def test_is_one_number_whichever_gram_matrix_is_smaller():
    torch.manual_seed(0)
    few, many = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 40, 4, 4).double()
    s, t = (F.normalize(x.flatten(2), dim=2) for x in (few, many))
    literal = sum(
        sum(float(a @ b) ** 2 for a in x for b in y) / (len(x) * len(y)) * sign
        for k in range(2)
        for x, y, sign in ((s[k], s[k], 1), (t[k], t[k], 1), (s[k], t[k], -2))
    )
    assert float(neuron_mmd(few, many)) == pytest.approx(literal / 2)
    assert float(neuron_mmd(few, few[:, :1])) == pytest.approx(
        float(neuron_mmd(few, few[:, :1].repeat(1, 30, 1, 1)))
    ), 'copies of a neuron do not change its distribution'


def test_survives_dead_neurons_and_pools_the_larger_map():
    dead = FS.clone()
    dead[:, 0] = 0
    dead.requires_grad_()
    neuron_mmd(dead, FT, 'gaussian').backward()
    assert dead.grad.isfinite().all()
    large = FT.repeat_interleave(2, 2).repeat_interleave(3, 3)
    found = on_maps(NST('a'), [FS], [large])
    assert float(found['loss']) == pytest.approx(1.3074283, abs=1e-5)
