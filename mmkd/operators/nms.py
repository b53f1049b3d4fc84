"""Non-maximum suppression: greedy, matched and soft.

The decisions are those of mmcv's loops, comparison by comparison in the same precision, so that
the same boxes stay. Greedy suppression takes boxes in blocks of the best that are left: within a
block one after the other, and those kept suppress the remaining ones at once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmkd.operators.precision import full
from mmkd.operators.vision import gpu_kernels

BLOCK = 64
NAIVE, LINEAR = 0, 1  # mmcv's numbers of the ways to be soft; 2 is gaussian


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that stay, best first.

    Args:
        boxes: ``(N, 4)`` corners.
        scores: ``(N,)``.
        iou_threshold: A box that overlaps a better one by more than this goes.
        offset: Added to the width ``x2 - x1``: 1 in the old convention of whole pixels.
    """
    if boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.long)
    if (kernels := gpu_kernels(boxes)) is not None:
        near, far = full(boxes).split(2, 1)  # torchvision knows no offset
        wider = torch.cat([near, far + offset], 1)
        return kernels.nms(wider, scores.to(wider), iou_threshold)
    order = scores.contiguous().sort(0, descending=True).indices  # not stable: ties as in mmcv
    columns = _columns(boxes[order], offset)
    ranks, kept = np.arange(len(order)), []
    while len(ranks):
        best, rest = columns[:, :BLOCK], columns[:, BLOCK:]
        keep = _greedy(_overlaps(best, best, offset) > columns.dtype.type(iou_threshold))
        kept.append(ranks[:BLOCK][keep])
        close = _overlaps(best[:, keep], rest, offset) > columns.dtype.type(iou_threshold)
        free = ~close.any(0)
        ranks, columns = ranks[BLOCK:][free], rest[:, free]
    return order[torch.from_numpy(np.concatenate(kept))]


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Every box that stays, followed by those it suppressed, best first.

    Args:
        dets: ``(N, 5)`` corners and score.
        iou_threshold: A box that overlaps a better one by this or more is suppressed.
    """
    order = dets[:, 4].contiguous().sort(0, descending=True).indices
    columns = _columns(dets[order, :4], 0)
    order, groups = order.numpy(), []
    while len(order):
        close = _overlaps(columns[:, :1], columns, 0)[0] >= columns.dtype.type(iou_threshold)
        close[0] = True
        groups.append(order[close].tolist())
        order, columns = order[~close], columns[:, ~close]
    return groups


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap a better one; indices of the kept boxes, best first.

    Args:
        boxes: ``(N, 4)`` corners.
        scores: ``(N,)``.
        dets: ``(N, 5)``. Its first rows are written: corners and lowered scores of the kept boxes.
        iou_threshold: Where a naive or linear penalty begins.
        sigma: Width of the gaussian penalty ``exp(-iou² / sigma)``.
        min_score: Boxes with a lower score are removed.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: Added to the width ``x2 - x1``.
    """
    table = np.concatenate([_columns(boxes, offset), full(scores.detach()).numpy()[None]])
    order = np.arange(len(boxes))
    rank, score = 0, 5
    while rank < len(order):
        best = rank + int(table[score, rank:].argmax())
        table[:, [rank, best]] = table[:, [best, rank]]
        order[[rank, best]] = order[[best, rank]]
        rank += 1
        overlaps = _overlaps(table[:5, rank - 1 : rank], table[:5, rank:], offset)[0]
        table[score, rank:] *= _penalty(overlaps, iou_threshold, sigma, method)
        places = np.append(np.arange(rank), rank + _filled(table[score, rank:] >= min_score))
        table, order = table[:, places], order[places]
    dets[: len(order)] = torch.from_numpy(table[[0, 1, 2, 3, score]].T).to(dets)
    return torch.from_numpy(order)


def _columns(boxes: Tensor, offset: int) -> np.ndarray:
    """``(5, N)``: corners and area."""
    x1, y1, x2, y2 = full(boxes.detach()).cpu().T.contiguous().numpy()
    return np.stack([x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)])


def _overlaps(first: np.ndarray, second: np.ndarray, offset: int) -> np.ndarray:
    """``(M, N)`` intersection over union of boxes as `_columns` gives them."""
    x1, y1, x2, y2, area = first[:, :, None]
    inter = _shared(x1, x2, second[0], second[2], offset)
    inter *= _shared(y1, y2, second[1], second[3], offset)
    union = area + second[4]
    union -= inter
    with np.errstate(divide='ignore', invalid='ignore'):  # boxes without area: nan is no overlap
        return np.divide(inter, union, out=inter)


def _shared(
    low: np.ndarray, high: np.ndarray, lows: np.ndarray, highs: np.ndarray, offset: int
) -> np.ndarray:
    """The length that intervals have in common."""
    length = np.minimum(high, highs)
    length -= np.maximum(low, lows)
    length += offset
    return np.maximum(length, 0, out=length)


def _greedy(close: np.ndarray) -> np.ndarray:
    """Which of ``(N,)`` ranked boxes are kept, from ``(N, N)``: pairs that overlap too much."""
    keep = np.ones(len(close), bool)
    for row in range(len(keep)):
        if keep[row]:
            keep[row + 1 :] &= ~close[row, row + 1 :]
    return keep


def _penalty(overlaps: np.ndarray, threshold: float, sigma: float, method: int) -> np.ndarray:
    if method in (NAIVE, LINEAR):
        beyond = overlaps >= overlaps.dtype.type(threshold)
        return np.where(beyond, 0 if method == NAIVE else 1 - overlaps, 1).astype(overlaps.dtype)
    return np.exp(-(overlaps * overlaps) / overlaps.dtype.type(sigma))


def _filled(stays: np.ndarray) -> np.ndarray:
    """Positions of the kept boxes, in mmcv's order: the last box replaces a removed one.

    Which of two equal scores comes first depends on it.
    """
    places = np.flatnonzero(stays)
    count = len(places)
    order = np.arange(count)
    free = np.flatnonzero(~stays[:count])
    order[free] = places[count - len(free) :][::-1]
    return order
