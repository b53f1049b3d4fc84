"""Deformable attention against a loop and against mmcv's version for a CPU."""

import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from operator_loops import deform_attention

pytestmark = pytest.mark.usefixtures('own')  # mmcv has no compiled one for a CPU

SHAPES = torch.tensor([[4, 3], [2, 2]])
STARTS = torch.tensor([0, 12])


def inputs(dtype=torch.float32):
    values = (
        torch.randn(2, 16, 2, 3),
        torch.rand(2, 4, 2, 2, 3, 2) * 1.4 - 0.2,
        torch.rand(2, 4, 2, 2, 3),
    )
    return [value.to(dtype).requires_grad_() for value in values]


def attend(value, locations, weights):
    return MultiScaleDeformableAttnFunction.apply(value, SHAPES, STARTS, locations, weights, 64)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_values_and_gradients(dtype):
    value, locations, weights = leaves = inputs(dtype)
    found = attend(*leaves)
    plain = multi_scale_deformable_attn_pytorch(value, SHAPES, locations, weights)
    loop = deform_attention(value.detach(), SHAPES, STARTS, locations.detach(), weights.detach())
    seed = torch.randn_like(found)
    for wanted in (plain, loop):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(out, leaves, seed) for out in (found, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_gradients_by_finite_differences():
    assert torch.autograd.gradcheck(attend, inputs(torch.float64))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_is_float32_rounded_once(dtype):
    leaves = inputs(dtype)
    found = attend(*leaves)
    assert found.dtype == dtype
    assert torch.equal(found, attend(*(leaf.float() for leaf in leaves)).to(dtype))
