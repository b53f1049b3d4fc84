"""RoIPool against a loop over cells."""

import mmcv.ops
import pytest
import torch
from operator_loops import roi_pool
from roi_toys import ROIS, SCALE, maps

pytestmark = pytest.mark.usefixtures('own')  # mmcv has no compiled one for a CPU


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_gradients(dtype):
    # All different, in every type: which of two equal ones is the maximum depends on the machine.
    cells = torch.stack([torch.randperm(8 * 11) for _ in range(6)]).view(2, 3, 8, 11)
    x = cells.to(dtype).requires_grad_()
    rois = ROIS[[0, 1, 2, 3, 6]]
    out = mmcv.ops.roi_pool(x, rois.to(dtype), (3, 2), SCALE)
    wanted = roi_pool(x, rois, (3, 2), SCALE)
    seed = torch.randn(out.shape, dtype=dtype)
    assert torch.equal(out, wanted)
    gradients = [torch.autograd.grad(result, x, seed)[0] for result in (out, wanted)]
    torch.testing.assert_close(*gradients)


def test_a_box_of_negative_size_gives_zeros_and_no_gradient():
    x = maps()
    out = mmcv.ops.roi_pool(x, torch.tensor([[0, 20.0, 20, 4, 30]]), 2, SCALE)
    assert not out.any() and not torch.autograd.grad(out.sum(), x)[0].any()
