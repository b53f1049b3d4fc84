"""Channels of a map without their mean and scale."""

import torch
from torch.nn import functional as F

from mmkd.functional.standardise import batch_standardise, deviation, standardise


def test_each_channel_over_batch_and_places():
    torch.manual_seed(0)
    x = 3 * torch.randn(2, 3, 4, 5, dtype=torch.float64) + 7
    found = standardise(x)
    for c in range(3):
        values = x[:, c].flatten()
        wanted = (x[:, c] - values.mean()) / (values.std() + 1e-6)
        torch.testing.assert_close(found[:, c], wanted)
    shifted = standardise(-2 * x + 1)
    torch.testing.assert_close(shifted, -found, atol=1e-5, rtol=1e-5)


def test_a_channel_that_hardly_varies():
    x = 5 + 1e-7 * torch.randn(2, 1, 3, 3, dtype=torch.float64)
    x.requires_grad_()
    steep, mild = (
        torch.autograd.grad(standardise(x, floor).square().sum(), x)[0].abs().max()
        for floor in (0.0, 1e-2)
    )
    assert mild < 0.1 < 1e3 < steep
    assert not standardise(torch.full((1, 2, 3, 3), 4.0)).any()


def test_as_batchnorm_in_training():
    x = 3 * torch.randn(2, 3, 4, 5, dtype=torch.float64) + 7
    torch.testing.assert_close(batch_standardise(x), F.batch_norm(x, None, None, training=True))
    one = torch.ones(1, 2, 1, 1, requires_grad=True)
    assert not batch_standardise(one).any()
    assert torch.autograd.grad(batch_standardise(one).sum(), one)[0].isfinite().all()


def test_deviation_is_torchs():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    found = deviation(x - x.mean((0, 2, 3), keepdim=True))
    wanted = x.std((0, 2, 3), keepdim=True)
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(y.square().sum(), x)[0] for y in (found, wanted)]
    torch.testing.assert_close(*slopes)
    flat = torch.zeros(1, 2, 3, 3, requires_grad=True)
    assert not torch.autograd.grad(deviation(flat).sum(), flat)[0].any(), 'and not infinite'
