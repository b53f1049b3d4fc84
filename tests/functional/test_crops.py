"""Squared distances inside regions, against crops cut out one by one."""

import math

import pytest
import torch

from mmkd.functional.crops import crop_distance, crop_weights, level_weights


def test_many_regions_leave_exactly_nothing_outside():
    low = torch.rand(500, 2) * 60 + 8
    rois = torch.cat((torch.zeros(500, 1), low, low + 1 + torch.rand(500, 2) * 40), 1)
    weight = crop_weights(rois, (20, 20), 8, 1)
    assert (weight >= 0).all() and (weight[:, 0] == 0).all() and (weight[:, -1] == 0).all()
    assert float(weight.sum()) == pytest.approx(500, rel=1e-6)


def cells(roi, size, stride):
    """Rows and columns of a region, by the words of the docstring."""
    x1, y1, x2, y2 = roi
    left, top = (
        min(max(math.floor(v / stride), 0), s - 1)
        for v, s in zip((x1, y1), size[::-1], strict=True)
    )
    right = max(min(math.ceil(x2 / stride), size[1]), left + 1)
    bottom = max(min(math.ceil(y2 / stride), size[0]), top + 1)
    return slice(top, bottom), slice(left, right)


ROIS = torch.tensor(
    [
        [0, 3.0, 5, 30, 20],
        [0, -9, 0, 8, 8],
        [1, 60, 40, 90, 70],
        [1, 16, 16, 16, 16],
        [1, 0, 0, 240, 240],
        [0, 100, 60, 120, 70],  # beyond the map: its last cell
    ]
)


@pytest.mark.parametrize('mean', [True, False])
def test_weights_region_by_region(mean):
    wanted = torch.zeros(2, 6, 9)
    for n, *roi in ROIS.tolist():
        place = (int(n), *cells(roi, (6, 9), 8))
        wanted[place] += 1 / wanted[place].numel() if mean else 1
    torch.testing.assert_close(crop_weights(ROIS, (6, 9), 8, 2, mean), wanted)
    assert not crop_weights(ROIS[:0], (6, 9), 8, 2, mean).any()


@pytest.mark.parametrize('mean', [True, False])
def test_distance_crop_by_crop(mean):
    torch.manual_seed(0)
    levels = [(s, *torch.randn(2, 2, 3, 48 // s, 72 // s)) for s in (16, 8)]
    wanted = 0.0
    for n, *roi in ROIS.tolist():
        stride, s, t = levels[0] if roi[2] - roi[0] >= 224 else levels[1]
        place = (int(n), slice(None), *cells(roi, s.shape[2:], stride))
        gap = (s[place] - t[place]).square()
        wanted += float(gap.sum() / gap[0].numel() if mean else gap.sum())
    found = crop_distance(levels, ROIS, mean)
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    assert float(crop_distance(levels, ROIS[:0], mean)) == 0


def test_a_region_counts_on_one_level():
    maps = [torch.zeros(2, 3, 48 // s, 72 // s) for s in (8, 16)]
    fine, coarse = level_weights(maps, [8, 16], ROIS, mean=False)
    assert not coarse[0].any() and coarse[1].all(), 'the region of the whole image'
    assert fine[0].any() and not fine[1].all()
