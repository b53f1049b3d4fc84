"""RoIAlign: He et al., *Mask R-CNN*, ICCV 2017.

The points where a bin is read form a grid, and bilinear interpolation is linear along either axis.
So the average over a bin is ``Y F Xᵀ``: two small interpolation matrices of each RoI, and the part
``F`` of the map that it touches. The gradient is ``Yᵀ G X``. Maps lie with channels last meanwhile,
which makes both a product of matrices with all channels side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mmkd.operators import roi_align_max
from mmkd.operators.grid import MAX, Axis, Grid, axes
from mmkd.operators.precision import full, without_autocast
from mmkd.operators.vision import gradient_kernels

CHUNK = 128  # RoIs whose matrices are made together


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the average, or the maximum, of the points read in each bin.

    Args:
        input: ``(N, C, H, W)``.
        rois: ``(R, 5)``: number of the image, then corners ``x1, y1, x2, y2``.
        output: ``(R, C, aligned_height, aligned_width)``. Written.
        argmax_y: Of the output's shape: row of the maximum. Written in that mode.
        argmax_x: Likewise its column.
        aligned_height: Bins down.
        aligned_width: Bins across.
        spatial_scale: Cells of the map per unit of the RoIs.
        sampling_ratio: Points along each side of a bin; 0 for as many as cells, rounded up.
        pool_mode: 0 for the maximum, 1 for the average.
        aligned: Whether pixels have their centres at halves. Otherwise sides are at least 1 cell.

    Raises:
        ValueError: If a side is negative while ``aligned``, or a number is not finite.
    """
    grid = Grid(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    maps, boxes = full(input), rois.to(full(input))
    if not len(rois):
        return
    if pool_mode == MAX:
        roi_align_max.forward(maps, boxes, grid, output, argmax_y, argmax_x)
    elif (kernels := gradient_kernels(input)) is not None:
        bins = (aligned_height, aligned_width)
        output.copy_(kernels.roi_align(maps, boxes, spatial_scale, *bins, sampling_ratio, aligned))
    else:
        output.copy_(average(maps, boxes, grid))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient with respect to the map; RoIs have none."""
    grid = Grid(aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned)
    gradient, boxes = full(grad_output), rois.to(full(grad_output))
    if not len(rois):
        return
    if pool_mode == MAX:
        roi_align_max.backward(gradient, boxes, grad_input, full(argmax_y), full(argmax_x))
    elif (kernels := gradient_kernels(grad_output)) is not None:
        numbers = (spatial_scale, aligned_height, aligned_width, *grad_input.shape, sampling_ratio)
        grad_input.copy_(kernels._roi_align_backward(gradient, boxes, *numbers, aligned))
    else:
        grad_input.copy_(average_gradient(gradient, boxes, grad_input.shape, grid))


class Window(NamedTuple):
    """The part of a map under one RoI, and the weights of its rows and columns in each bin."""

    image: int
    rows: slice
    columns: slice
    by_row: Tensor  # (bins, rows)
    by_column: Tensor  # (bins, columns)

    def of(self, maps: Tensor) -> Tensor:
        """``(rows, columns, C)`` of maps ``(N, H, W, C)``."""
        return maps[self.image, self.rows, self.columns]


@without_autocast
def average(input: Tensor, rois: Tensor, grid: Grid) -> Tensor:
    """``(R, C, grid.height, grid.width)`` averages of maps ``(N, C, H, W)``."""
    maps = input.permute(0, 2, 3, 1).contiguous()
    output = maps.new_zeros(len(rois), grid.height, grid.width, maps.shape[3])
    for bins, window in zip(output, windows(rois, maps.shape, grid), strict=True):
        part = window.of(maps)
        if part.numel():
            down = window.by_row @ part.flatten(1)
            torch.matmul(window.by_column, down.view(len(down), *part.shape[1:]), out=bins)
    return output.permute(0, 3, 1, 2)


@without_autocast
def average_gradient(
    grad_output: Tensor, rois: Tensor, shape: tuple[int, ...], grid: Grid
) -> Tensor:
    """The gradient of `average` with respect to maps of a shape ``(N, C, H, W)``."""
    count, channels, height, width = shape
    maps = grad_output.new_zeros(count, height, width, channels)
    gradients = grad_output.permute(0, 2, 3, 1).contiguous()
    for bins, window in zip(gradients, windows(rois, maps.shape, grid), strict=True):
        part = window.of(maps)
        if part.numel():
            across = window.by_column.mT @ bins
            part.view(len(part), -1).addmm_(window.by_row.mT, across.flatten(1))
    return maps.permute(0, 3, 1, 2)


def windows(rois: Tensor, shape: tuple[int, ...], grid: Grid) -> Iterator[Window]:
    """One after the other for ``(R, 5)`` RoIs and maps of a shape ``(N, H, W, C)``."""
    for part in rois.split(CHUNK):
        down, across = axes(part, grid)
        by_row, by_column = interpolation(down, shape[1]), interpolation(across, shape[2])
        images = part[:, 0].long().tolist()
        touched = zip(images, extents(by_row), extents(by_column), strict=True)
        for index, (image, rows, columns) in enumerate(touched):
            yield Window(
                image,
                rows,
                columns,
                by_row[index, :, rows],
                by_column[index, :, columns],
            )


def interpolation(axis: Axis, size: int) -> Tensor:
    """``(R, bins, size)``: how much of each cell is in the average over a bin."""
    weight = axis.inside(size) / axis.count.clamp(min=1)[:, None, None]
    at = axis.at.clamp(0, size - 1)
    low = at.floor()
    matrix = at.new_zeros(*at.shape[:2], size)
    matrix.scatter_add_(2, low.long(), (1 - (at - low)) * weight)
    return matrix.scatter_add_(2, (low.long() + 1).clamp(max=size - 1), (at - low) * weight)


def extents(matrices: Tensor) -> list[slice]:
    """The columns of each ``(R, bins, size)`` matrix from the first to the last that is not 0."""
    used = (matrices != 0).any(1).int()
    first = used.argmax(1)
    end = torch.where(used.any(1), used.shape[1] - used.flip(1).argmax(1), first)
    return [slice(*ends) for ends in zip(first.tolist(), end.tolist(), strict=True)]
