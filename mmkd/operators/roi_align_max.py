"""RoIAlign with the maximum in each bin instead of the average."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.operators.bilinear import corners, weighted_rows
from mmkd.operators.grid import Grid, axes

NOTHING = -10000.0  # the value that mmcv writes for a bin without points
NOWHERE = -1.0
CHUNK = 16  # RoIs that are read together


def forward(
    input: Tensor, rois: Tensor, grid: Grid, output: Tensor, argmax_y: Tensor, argmax_x: Tensor
) -> None:
    """Write the maximum of each bin and where it was read; see `roi_align.roi_align_forward`."""
    maps = input.permute(0, 2, 3, 1).contiguous()
    parts = (part.split(CHUNK) for part in (rois, output, argmax_y, argmax_x))
    for part, *written in zip(*parts, strict=True):
        for target, found in zip(written, _maxima(maps, part, grid), strict=True):
            target.copy_(found.movedim(3, 1))


def _maxima(maps: Tensor, rois: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Maxima of maps ``(N, H, W, C)``, their rows and columns: ``(R, down, across, C)`` each."""
    _, height, width, channels = maps.shape
    down, across = axes(rois, grid)
    y, x = _points(down.at, across.at)
    own, inside = (
        vertical & horizontal
        for vertical, horizontal in (
            _points(down.own(), across.own()),
            _points(down.inside(height), across.inside(width)),
        )
    )
    index, weight = _read(y, x, height, width)
    index = index + rois[:, 0].long().view(-1, 1, 1, 1, 1) * (height * width)
    weight = weight * inside[..., None]
    read = weighted_rows(maps.flatten(0, 2), index.flatten(0, 3), weight.flatten(0, 3))
    read = read.view(*y.shape, channels).masked_fill(~own[..., None], NOTHING)
    best, where = read.max(3)
    nothing = ~own.any(3, keepdim=True)
    return best, *(at.gather(3, where).masked_fill(nothing, NOWHERE) for at in (y, x))


def _points(down: Tensor, across: Tensor) -> tuple[Tensor, ...]:
    """``(R, bins down, bins across, points)`` of both axes ``(R, bins, points)``."""
    pair = torch.broadcast_tensors(down[:, :, None, :, None], across[:, None, :, None, :])
    return tuple(part.flatten(3) for part in pair)


def backward(
    grad_output: Tensor, rois: Tensor, grad_input: Tensor, argmax_y: Tensor, argmax_x: Tensor
) -> None:
    """Write the gradient: each bin's goes to the four cells around where its maximum was read."""
    count, channels, height, width = grad_input.shape
    counts = (argmax_y >= -1) & (argmax_y <= height) & (argmax_x >= -1) & (argmax_x <= width)
    counts &= argmax_y != NOWHERE
    index, weight = _read(argmax_y, argmax_x, height, width)
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    index = index + plane[:, :, None, None, None] * (height * width)
    share = weight * (grad_output * counts)[..., None]
    flat = share.new_zeros(grad_input.numel()).index_add_(0, index.flatten(), share.flatten())
    grad_input.copy_(flat.view(grad_input.shape))


def _read(y: Tensor, x: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Indices and weights ``(..., 4)`` of the cells around points, which are moved to the map."""
    return corners(y.clamp(0, height - 1), x.clamp(0, width - 1), height, width)
