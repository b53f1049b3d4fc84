"""Boxes as DETR codes them."""

import pytest
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps

from mmkd.functional.box_distances import centred, corners, giou


def some(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 4, generator=generator, dtype=torch.float64) * 0.8 + 0.1


def test_corners_and_back():
    boxes = some(6)
    torch.testing.assert_close(corners(boxes), bbox_cxcywh_to_xyxy(boxes))
    torch.testing.assert_close(centred(corners(boxes)), boxes)


def test_giou_is_mmdets():
    a, b = corners(some(6)), corners(some(5, 1))
    wanted = bbox_overlaps(a, b, mode='giou', eps=1e-12)
    torch.testing.assert_close(giou(a[:, None], b[None]), wanted)
    torch.testing.assert_close(giou(a[:5], b), wanted[:5].diagonal())


def test_scaling_an_axis_changes_nothing():
    a, b = corners(some(6)), corners(some(6, 1))
    scale = torch.tensor([1333.0, 800, 1333, 800], dtype=torch.float64)
    torch.testing.assert_close(giou(a * scale, b * scale), giou(a, b))


def test_degenerate_boxes_are_finite():
    a = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    found = giou(a, torch.tensor([[0.5, 0.5, 0.5, 0.5]]))
    found.sum().backward()
    assert found.isfinite().all() and a.grad.isfinite().all()
    assert float(giou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 0, 3, 1]))) == pytest.approx(
        -1 / 3
    )
