"""Overlaps of boxes."""

from __future__ import annotations

from torch import Tensor

from mmkd.operators.precision import full


def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Write intersection over union, or with ``mode=1`` over the area of the first box.

    Args:
        bboxes1: ``(M, 4)`` corners ``x1, y1, x2, y2``.
        bboxes2: ``(N, 4)``, or ``(M, 4)`` if ``aligned``.
        ious: ``(M, N)``, or ``(M,)`` if ``aligned``. Written.
        mode: 0 for IoU, 1 for intersection over foreground.
        aligned: Row with row, instead of every pair.
        offset: Added to the width ``x2 - x1``: 1 in the old convention of whole pixels.
    """
    bboxes1, bboxes2 = full(bboxes1), full(bboxes2)
    first = bboxes1 if aligned else bboxes1[:, None]
    sides = first[..., 2:].minimum(bboxes2[..., 2:]) - first[..., :2].maximum(bboxes2[..., :2])
    overlap = (sides + offset).clamp(min=0).prod(-1)
    area = _area(first, offset)
    ious.copy_(overlap / (area if mode else area + _area(bboxes2, offset) - overlap))


def _area(boxes: Tensor, offset: int) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2] + offset).prod(-1)
