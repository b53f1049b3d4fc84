"""Overlaps of boxes against the formula, box by box."""

import mmcv.ops
import pytest
import torch

from mmkd.operators import overlaps


def area(box, offset):
    return max(box[2] - box[0] + offset, 0) * max(box[3] - box[1] + offset, 0)


def overlap(first, second, mode, offset):
    shared = [max(first[i], second[i]) for i in (0, 1)] + [min(first[i], second[i]) for i in (2, 3)]
    inter = area(shared, offset)
    union = area(first, offset) + (mode == 'iou') * (area(second, offset) - inter)
    return inter / union if union else float('nan')


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('mode', ['iou', 'iof'])
def test_bbox_overlaps(both, mode, aligned, offset):
    first, second = torch.rand(2, 6, 4).mul(8).unbind()
    for boxes in (first, second):
        boxes[:, 2:] += boxes[:, :2]
    first[0, 2:], second[0] = first[0, :2], first[1]  # no area; equal to another
    found, others = both(lambda: mmcv.ops.bbox_overlaps(first, second, mode, aligned, offset))
    pairs = torch.tensor(
        [[overlap(a, b, mode, offset) for b in second.tolist()] for a in first.tolist()]
    )
    for wanted in (pairs.diagonal() if aligned else pairs, *others):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_areas_above_the_largest_number_of_float16():
    first = torch.tensor([[0.0, 0, 640, 480]])
    found = torch.zeros(1, 1).half()
    overlaps.bbox_overlaps(first.half(), (first / 2).half(), found, 0, False, 0)
    assert found.item() == 0.25
