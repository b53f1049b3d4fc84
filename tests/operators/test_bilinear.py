"""Reading maps between their pixels, against a loop."""

import pytest
import torch
from operator_loops import read_zeros

from mmkd.operators.bilinear import corners, weighted_rows


@pytest.mark.parametrize(
    ('y', 'x'),
    [(0.0, 0.0), (1.25, 2.5), (-0.75, 3.9), (2.999, -0.5), (3.5, 4.5), (-1.0, 2.0), (9.0, 1.0)],
)
def test_a_point_is_read_as_the_loop_reads_it(y, x):
    plane = torch.randn(4, 5, dtype=torch.float64)
    points = torch.tensor([[y]], dtype=torch.float64), torch.tensor([[x]], dtype=torch.float64)
    index, weight = corners(*points, 4, 5)
    assert index.shape == weight.shape == (1, 1, 4)
    found = weighted_rows(plane.view(-1, 1), index.view(1, 4), weight.view(1, 4))
    assert float(found) == pytest.approx(float(read_zeros(plane, y, x)), abs=1e-12)


def test_points_a_pixel_or_more_outside_have_no_weight():
    y = torch.tensor([-1.0, -2.0, 4.0, 1.0, float('inf'), float('nan')])
    x = torch.tensor([1.0, 1.0, 1.0, 5.0, 1.0, 1.0])
    index, weight = corners(y, x, 4, 5)
    assert not weight.any() and not index.any()


def test_the_gradient_of_the_place():
    y = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([2.7], dtype=torch.float64, requires_grad=True)
    rows = torch.randn(20, 3, dtype=torch.float64)

    def read(y, x):
        index, weight = corners(y, x, 4, 5)
        return weighted_rows(rows, index, weight)

    assert torch.autograd.gradcheck(read, (y, x))


def test_sums_of_rows():
    rows, index = torch.randn(6, 3), torch.tensor([[0, 5], [2, 2]])
    weight = torch.tensor([[1.0, -2], [0.5, 0.25]])
    wanted = torch.stack([rows[0] - 2 * rows[5], 0.75 * rows[2]])
    torch.testing.assert_close(weighted_rows(rows, index, weight), wanted)
    assert weighted_rows(rows, index[:0], weight[:0]).shape == (0, 3)
