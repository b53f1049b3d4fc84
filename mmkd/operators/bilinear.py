"""Reading maps between their pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def corners(
    y: Tensor, x: Tensor, height: int | Tensor, width: int | Tensor
) -> tuple[Tensor, Tensor]:
    """The four pixels around each point: indices ``row * width + column`` and weights, ``(…, 4)``.

    Beyond the map are zeros, so a point a pixel or more outside has four weights of 0. At whole
    numbers the slope is that to the next pixel, as in mmcv's kernels.
    """
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left
    touches = (y > -1) & (y < height) & (x > -1) & (x < width)
    indices, weights = [], []
    for row, by_row in ((top, 1 - down), (top + 1, down)):
        for column, by_column in ((left, 1 - right), (left + 1, right)):
            inside = touches & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            indices.append(torch.where(inside, row * width + column, 0).long())
            weights.append(torch.where(inside, by_row * by_column, 0))
    return torch.stack(indices, -1), torch.stack(weights, -1)


def weighted_rows(rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """``(P, C)`` sums of ``(R, C)`` rows, those at ``(P, K)`` indices times their weights."""
    return F.embedding_bag(index, rows, per_sample_weights=weight, mode='sum')
