"""Boxes as DETR codes them, and how far two of them are apart."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-9


def corners(boxes: Tensor) -> Tensor:
    """(cx, cy, w, h) -> (x1, y1, x2, y2), (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), -1)


def centred(boxes: Tensor) -> Tensor:
    """(x1, y1, x2, y2) -> (cx, cy, w, h), (..., 4)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), -1)


def iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU of boxes (..., 4), xyxy, that broadcast."""
    inter, union, _ = _areas(boxes, others)
    return inter / union.clamp(min=_LEAST)


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of boxes (..., 4), xyxy, that broadcast: ``IoU - (hull - union) / hull``.

    Rezatofighi et al., CVPR 2019. Scaling an axis changes nothing, so shares of an image do as well
    as pixels.
    """
    inter, union, hull = _areas(boxes, others)
    return inter / union.clamp(min=_LEAST) - (hull - union) / hull.clamp(min=_LEAST)


def _areas(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Areas of intersection, of union, and of the least box around both."""
    low, high = torch.minimum(boxes, others), torch.maximum(boxes, others)
    inter = (low[..., 2:] - high[..., :2]).clamp(min=0).prod(-1)
    hull = (high[..., 2:] - low[..., :2]).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (boxes, others)]
    return inter, areas[0] + areas[1] - inter, hull
