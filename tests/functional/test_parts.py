"""Sums in parts: values, gradients and memory."""

import pytest
import torch

from mmkd.analysis.benchmark import peak_bytes
from mmkd.functional.parts import sum_in_parts


def gaps(x, y):
    return (x.square() * y).sum()


@pytest.mark.parametrize('rows', [1, 3, 4, 10, 99])
def test_parts_add_up_to_the_whole_and_so_do_their_gradients(rows):
    torch.manual_seed(0)
    x, y = (torch.randn(10, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    whole = gaps(x, y)
    found = sum_in_parts(gaps, (x, y), rows)
    torch.testing.assert_close(found, whole)
    for one, other in zip(
        torch.autograd.grad(found, (x, y)), torch.autograd.grad(whole, (x, y)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_no_part_is_larger_than_asked_and_none_is_called_without_rows_at_most():
    seen = []

    def count(x):
        seen.append(len(x))
        return x.sum()

    sum_in_parts(count, [torch.ones(10, 1)], 4)
    assert seen == [4, 4, 2]
    assert float(sum_in_parts(count, [torch.ones(0, 1)], 4)) == 0 and seen[3:] == [0]


def test_parts_hold_less_at_a_time():
    x = torch.rand(400, 1, requires_grad=True)

    def wide(x):  # what it leaves for the way back takes 1000 numbers a row
        return (x.expand(-1, 1000).sin().cos() ** 2).sum()

    whole, parts = (
        peak_bytes(lambda rows=rows: sum_in_parts(wide, [x], rows).backward()) for rows in (400, 40)
    )
    assert parts < whole / 3
