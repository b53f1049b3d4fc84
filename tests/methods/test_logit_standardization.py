"""LogitStandardization: worked numbers, before KD and before DKD."""

import pytest
import torch
from logit_toys import ZS, ZT, Y, images
from torch.nn import functional as F

from mmkd.functional.logit_distances import decoupled_kl, soft_kl
from mmkd.methods.logit_standardization import LogitStandardization, standardize


def test_worked_numbers():
    assert float(images(LogitStandardization())['loss']) == pytest.approx(0.1794363, abs=1e-6)
    biased = [
        (z - z.mean(1, keepdim=True)) / z.std(1, correction=0, keepdim=True) for z in (ZS, ZT)
    ]
    assert float(soft_kl(*biased, 2.0).mean()) == pytest.approx(0.244849, abs=1e-6)
    affine = ZS * torch.tensor([[2.0], [0.3], [5.0]]) + torch.tensor([[1.0], [-2.0], [9.0]])
    assert float(images(LogitStandardization(), affine)['loss']) == pytest.approx(
        0.1794363, abs=1e-6
    )
    assert standardize(torch.full((2, 3), 4.0)).abs().max() == 0
    wide = standardize(F.one_hot(torch.zeros(1).long(), 100).double())
    assert float(wide.max()) == pytest.approx(99 / 10, rel=1e-5)


def test_before_dkd():
    found = images(LogitStandardization(loss='dkd', beta=2.0))
    target, others = decoupled_kl(standardize(ZS), standardize(ZT), Y, 2.0)
    assert float(found['loss_target']) == pytest.approx(float(target.mean()), rel=1e-4)
    assert float(found['loss_others']) == pytest.approx(2 * float(others.mean()), rel=1e-4)


def test_options_out_of_range():
    with pytest.raises(ValueError, match='loss must be one of'):
        LogitStandardization(loss='mse')
