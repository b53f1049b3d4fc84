"""Where RoIAlign reads."""

import math

import pytest
import torch

from mmkd.operators.grid import Axis, Grid, axes

ROIS = torch.tensor([[0.0, 2, 4, 10, 16], [1, 0, 0, 1, 1]])


@pytest.mark.parametrize('ratio', [0, 1, 3])
@pytest.mark.parametrize('aligned', [True, False])
def test_points_are_spread_evenly_over_the_bins(aligned, ratio):
    down, across = axes(ROIS, Grid(3, 2, 0.5, ratio, aligned))
    shift = 0.5 if aligned else 0
    for axis, bins, low, high in ((down, 3, 2, 4), (across, 2, 1, 3)):
        for r, roi in enumerate(ROIS.tolist()):
            start, end = roi[low] * 0.5 - shift, roi[high] * 0.5 - shift
            side = end - start if aligned else max(end - start, 1)
            count = ratio or math.ceil(side / bins)
            assert int(axis.count[r]) == count
            wanted = [
                [start + side / bins * (b + (p + 0.5) / count) for p in range(count)]
                for b in range(bins)
            ]
            own = axis.own()[r]
            assert own.sum(1).tolist() == [count] * bins
            found = axis.at[r][own].view(bins, count)
            torch.testing.assert_close(found, torch.tensor(wanted))


def test_up_to_one_cell_outside_is_read():
    axis = Axis(torch.tensor([[[-1.5, -1.0, 0.0, 4.0, 4.5, 2.0]]]), torch.tensor([5]))
    assert axis.inside(4).tolist() == [[[False, True, True, True, False, False]]]


@pytest.mark.parametrize('box', [[4.0, 1, 2, 3], [0, 0, float('nan'), 3], [0, 0, float('inf'), 3]])
def test_boxes_that_are_none(box):
    rois = torch.tensor([[0.0, 0, 0, 1, 1], [0, *box]])
    with pytest.raises(ValueError, match='RoIAlign got a box of negative size, or one that is not'):
        axes(rois, Grid(2, 2, 1.0, 0, True))
    if box[0] == 4:  # without alignment sides are at least one cell
        assert axes(rois, Grid(2, 2, 1.0, 0, False))[1].at[1].min() >= 4
