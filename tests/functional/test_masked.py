"""The squared distance at some cells is that of the whole maps."""

import pytest
import torch

from mmkd.adapters import ConvAdapter
from mmkd.functional.masked import masked_distance, masked_mean


@pytest.mark.parametrize('kernel', [1, 3])
@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('count', [0, 1, 7])
def test_the_adapter_at_few_cells_equals_the_whole_map(kernel, relu, count):
    """Values, and gradients of the student, weight and bias; corners included."""
    torch.manual_seed(0)
    adapter = ConvAdapter(3, 4, kernel, relu=relu).double()
    student = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    corners = [(0, 0, 0), (0, 4, 6), (1, 0, 6), (1, 4, 0), (0, 2, 3), (1, 2, 0), (1, 4, 3)]
    for n, y, x in corners[:count]:
        mask[n, y, x] = True
    inputs = [student, *adapter.parameters()]
    found = masked_distance(student, teacher, mask, adapter)
    wanted = ((adapter(student) - teacher).square() * mask[:, None]).sum()
    torch.testing.assert_close(found, wanted)
    for a, b in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, inputs), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_dense_masks_take_the_other_route_to_the_same_numbers():
    adapter = ConvAdapter(3, 4, 3).double()
    student, teacher = torch.randn(1, 3, 4, 4).double(), torch.randn(1, 4, 4, 4).double()
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    wanted = (adapter(student) - teacher).square().sum()
    torch.testing.assert_close(masked_distance(student, teacher, mask, adapter), wanted)
    mask[0, 0] = False
    wanted = ((adapter(student) - teacher).square() * mask[:, None]).sum()
    torch.testing.assert_close(masked_distance(student, teacher, mask, adapter), wanted)


def test_without_an_adapter():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    student.requires_grad_()
    mask = torch.rand(2, 4, 5) > 0.5
    wanted = sum(
        float((student[n, c, y, x] - teacher[n, c, y, x]) ** 2)
        for n, y, x in mask.nonzero().tolist()
        for c in range(3)
    )
    found = masked_distance(student, teacher, mask)
    assert float(found.detach()) == pytest.approx(wanted)
    nothing = masked_distance(student, teacher, torch.zeros_like(mask))
    assert float(nothing.detach()) == 0
    assert not torch.autograd.grad(nothing, student)[0].any(), 'a gradient of zeros, not none'


def test_a_mean_over_some_cells():
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]], requires_grad=True)
    assert float(masked_mean(x, None).detach()) == 3
    assert float(masked_mean(x, torch.tensor([[True, False], [False, True]])).detach()) == 3.5
    nothing = masked_mean(x, torch.zeros(2, 2, dtype=torch.bool))
    assert float(nothing.detach()) == 0 and not torch.autograd.grad(nothing, x)[0].any()
