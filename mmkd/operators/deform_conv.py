"""Deformable convolutions.

Dai et al., *Deformable Convolutional Networks*, ICCV 2017, and with a mask Zhu et al.,
*Deformable ConvNets v2*, CVPR 2019. Every point that a kernel looks at is moved by an offset and
read bilinearly; the map is 0 outside its borders.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkd.operators.bilinear import corners, weighted_rows
from mmkd.operators.precision import full, without_autocast
from mmkd.operators.vision import gradient_kernels


class Geometry(NamedTuple):
    """Vertical and horizontal numbers of a convolution, and its groups."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    offset_groups: int


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **numbers: int,
) -> None:
    """Write the first version, without mask or bias, to ``output``; buffers are not needed."""
    output.copy_(convolve(input, offset, None, weight, _geometry_v1(numbers)))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **numbers: int,
) -> None:
    """Write the gradients with respect to input and offset."""
    geometry = _geometry_v1(numbers)
    gradients = _gradients((input, offset, None, weight), geometry, gradOutput, which=(0, 1))
    gradInput.copy_(gradients[0])
    gradOffset.copy_(gradients[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float,
    **numbers: int,
) -> None:
    """Add the gradient with respect to the weight, times ``scale``."""
    inputs = (input, offset, None, torch.zeros_like(gradWeight))  # linear in it: any weight will do
    (gradient,) = _gradients(inputs, _geometry_v1(numbers), gradOutput, which=(3,))
    gradWeight.add_(gradient.to(gradWeight), alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **numbers: int,
) -> None:
    """Write the second version to ``output``; buffers are not needed."""
    result = convolve(input, offset, mask, weight, _geometry_v2(numbers))
    output.copy_(result + full(bias)[:, None, None] if with_bias else result)


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **numbers: int,
) -> None:
    """Write the gradients with respect to everything."""
    inputs = (input, offset, mask, weight)
    gradients = _gradients(inputs, _geometry_v2(numbers), grad_output, which=(0, 1, 2, 3))
    written = (grad_input, grad_offset, grad_mask, grad_weight)
    for target, gradient in zip(written, gradients, strict=True):
        target.copy_(gradient)
    if with_bias:
        grad_bias.copy_(full(grad_output).sum((0, 2, 3)))


def _geometry_v1(numbers: dict[str, int]) -> Geometry:
    return Geometry(
        (numbers['dH'], numbers['dW']),
        (numbers['padH'], numbers['padW']),
        (numbers['dilationH'], numbers['dilationW']),
        numbers['group'],
        numbers['deformable_group'],
    )


def _geometry_v2(numbers: dict[str, int]) -> Geometry:
    return Geometry(
        (numbers['stride_h'], numbers['stride_w']),
        (numbers['pad_h'], numbers['pad_w']),
        (numbers['dilation_h'], numbers['dilation_w']),
        numbers['group'],
        numbers['deformable_group'],
    )


def _gradients(
    inputs: tuple[Any, ...], geometry: Geometry, grad_output: Tensor, which: tuple[int, ...]
) -> tuple[Tensor, ...]:
    leaves = [x if x is None else full(x.detach()) for x in inputs]
    with torch.enable_grad():
        wanted = [leaves[place].requires_grad_() for place in which]
        result = convolve(leaves[0], leaves[1], leaves[2], leaves[3], geometry)
    return torch.autograd.grad(result, wanted, full(grad_output))


@without_autocast
def convolve(
    input: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, geometry: Geometry
) -> Tensor:
    """A deformable convolution, in float32 or float64.

    Args:
        input: ``(B, C, H, W)``.
        offset: ``(B, G * K * 2, H', W')``, for each of G offset groups and K points of a kernel
            down and right.
        mask: ``(B, G * K, H', W')``, or `None` for ones.
        weight: ``(C', C / groups, kernel height, kernel width)``.
        geometry: Stride, padding, dilation and groups.

    Returns:
        ``(B, C', H', W')``
    """
    input, offset, weight = full(input), full(offset), full(weight)
    mask = None if mask is None else full(mask)
    if (kernels := gradient_kernels(input)) is not None:
        return _torchvision(kernels, input, offset, mask, weight, geometry)
    batch, _, *size = offset.shape
    columns = _columns(input, offset, mask, weight.shape[2:], geometry)
    columns = columns.unflatten(-1, (geometry.groups, -1))  # batch, K, places, groups, channels
    kernels = weight.flatten(2).unflatten(0, (geometry.groups, -1))  # groups, out, channels, K
    return torch.einsum('gock,bkpgc->bgop', kernels, columns).reshape(batch, -1, *size)


def _torchvision(
    kernels: Any,
    input: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    geometry: Geometry,
) -> Tensor:
    used = mask if mask is not None else input.new_zeros(len(input), 1)
    bias = input.new_zeros(len(weight))
    pairs = (*geometry.stride, *geometry.padding, *geometry.dilation)
    groups = (geometry.groups, geometry.offset_groups, mask is not None)
    return kernels.deform_conv2d(input, weight, offset, used, bias, *pairs, *groups)


def _columns(
    input: Tensor, offset: Tensor, mask: Tensor | None, kernel: torch.Size, geometry: Geometry
) -> Tensor:
    """``(B, K, H' * W', C)``: the sampled value of each kernel point at each place."""
    batch, channels, height, width = input.shape
    maps, points = batch * geometry.offset_groups, kernel.numel()
    y, x = _points(offset.reshape(maps, points, 2, *offset.shape[2:]), kernel, geometry)
    index, weight = corners(y, x, height, width)
    if mask is not None:
        weight = weight * mask.reshape(*y.shape, 1)
    first = torch.arange(maps, device=input.device) * (height * width)
    rows = input.reshape(maps, -1, height * width).transpose(1, 2).flatten(0, 1)
    index = index.flatten(1, -2) + first[:, None, None]
    read = weighted_rows(rows, index.flatten(0, 1), weight.flatten(0, -2))
    read = read.view(batch, geometry.offset_groups, points, -1, read.shape[1])
    return read.permute(0, 2, 3, 1, 4).reshape(batch, points, -1, channels)


def _points(offset: Tensor, kernel: torch.Size, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """``(maps, K, H', W')`` rows and columns of the input, from moves ``(maps, K, 2, H', W')``."""

    def along(axis: int) -> tuple[Tensor, Tensor]:
        inside = torch.arange(kernel[axis], device=offset.device) * geometry.dilation[axis]
        size = offset.shape[3 + axis]
        start = torch.arange(size, device=offset.device) * geometry.stride[axis]
        return inside, start - geometry.padding[axis]

    (by_row, top), (by_column, left) = along(0), along(1)
    rows = by_row.repeat_interleave(kernel[1])[:, None] + top
    columns = by_column.repeat(kernel[0])[:, None] + left
    return offset[:, :, 0] + rows[:, :, None], offset[:, :, 1] + columns[:, None, :]
