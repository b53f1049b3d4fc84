"""RoIPool: Girshick, *Fast R-CNN*, ICCV 2015, section 2.1, with mmcv's unrounded corners."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmkd.operators.precision import full

NOWHERE = -1


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the maximum of all cells that each bin touches.

    Args:
        input: ``(N, C, H, W)``.
        rois: ``(R, 5)``: number of the image, then the first and the last pixel ``x1, y1, x2, y2``.
        output: ``(R, C, pooled_height, pooled_width)``. Written; 0 where a bin touches nothing.
        argmax: Of the same shape, integer: ``row * W + column`` of the maximum, or -1. Written.
        pooled_height: Bins down.
        pooled_width: Bins across.
        spatial_scale: Cells of the map per unit of the RoIs.
    """
    argmax.fill_(NOWHERE)
    height, width = input.shape[2:]
    shift = torch.tensor([0, 0, 1, 1])
    corners = (full(rois[:, 1:]).cpu() + shift) * spatial_scale
    for roi, (image, (left, top, right, bottom)) in enumerate(
        zip(rois[:, 0].long().tolist(), corners.tolist(), strict=True)
    ):
        if right <= left or bottom <= top:
            continue
        for down, rows in enumerate(_bins(top, bottom, pooled_height, height)):
            for across, columns in enumerate(_bins(left, right, pooled_width, width)):
                cells = input[image, :, rows, columns]
                if cells.numel():
                    best = cells.flatten(1).max(1)
                    output[roi, :, down, across] = best.values
                    wide = cells.shape[2]
                    row = rows.start + best.indices // wide
                    column = columns.start + best.indices % wide
                    argmax[roi, :, down, across] = (row * width + column).to(argmax)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient: each bin's goes to its maximum."""
    _, channels, height, width = grad_input.shape
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    index = plane[:, :, None, None] * (height * width) + argmax.clamp(min=0)
    share = full(grad_output) * (argmax != NOWHERE)
    flat = share.new_zeros(grad_input.numel()).index_add_(0, index.flatten(), share.flatten())
    grad_input.copy_(flat.view(grad_input.shape))


def _bins(low: float, high: float, bins: int, size: int) -> list[slice]:
    """The cells that each bin touches, bins of equal length between two places."""
    step = (high - low) / bins
    ends = ((math.floor(index * step + low), math.ceil((index + 1) * step + low))
            for index in range(bins))  # fmt: skip
    return [slice(min(max(first, 0), size), min(max(end, 0), size)) for first, end in ends]
