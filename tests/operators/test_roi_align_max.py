"""RoIAlign with maxima: where they were read, and empty bins."""

import pytest
import torch
from operator_loops import read_zeros
from roi_toys import ROIS, SCALE, maps

from mmkd.operators import roi_align_max
from mmkd.operators.grid import Grid
from mmkd.operators.roi_align_max import NOTHING, NOWHERE, backward, forward


def run(x, rois, grid):
    out = torch.empty(len(rois), x.shape[1], grid.height, grid.width, dtype=x.dtype)
    places = torch.empty_like(out), torch.empty_like(out)
    forward(x, rois, grid, out, *places)
    return out, *places


def test_the_maximum_lies_where_it_is_said_to_lie():
    x, rois = maps(torch.float64).detach(), ROIS.double()
    out, y, at = run(x, rois, Grid(3, 2, SCALE, 2, True))
    for r, c, i, j in ((0, 0, 0, 0), (1, 2, 2, 1), (len(rois) - 1, 1, 1, 0)):
        plane, height, width = x[int(rois[r, 0]), c], *x.shape[2:]
        row, column = float(y[r, c, i, j]), float(at[r, c, i, j])
        inside = -1 <= row <= height and -1 <= column <= width
        read = read_zeros(plane, min(max(row, 0), height - 1), min(max(column, 0), width - 1))
        assert float(out[r, c, i, j]) == pytest.approx(float(read) if inside else 0.0)


def test_the_gradient_goes_to_the_cells_around_the_maximum():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 2] = 5.0
    rois = torch.tensor([[0.0, 0, 0, 4, 4]])
    out, *places = run(x, rois, Grid(1, 1, 1.0, 2, False))
    gradient = torch.empty_like(x)
    backward(torch.ones_like(out), rois, gradient, *places)
    assert float(gradient.sum()) == pytest.approx(1)
    assert float((gradient * x).sum()) == pytest.approx(float(out)), 'it is linear there'


def test_a_bin_without_points():
    rois = torch.tensor([[0.0, 2, 2, 2, 2]])  # aligned boxes may have no side
    out, y, x = run(torch.ones(1, 1, 4, 4), rois, Grid(1, 1, 1.0, 0, True))
    assert out.item() == NOTHING and y.item() == x.item() == NOWHERE
    gradient = torch.empty(1, 1, 4, 4)
    backward(torch.ones_like(out), rois, gradient, y, x)
    assert not gradient.any()


def test_chunks_change_nothing(monkeypatch):
    x, rois, grid = maps().detach(), ROIS.repeat(3, 1), Grid(2, 3, SCALE, 0, True)
    whole = run(x, rois, grid)
    monkeypatch.setattr(roi_align_max, 'CHUNK', 2)
    for one, other in zip(run(x, rois, grid), whole, strict=True):
        torch.testing.assert_close(one, other)
