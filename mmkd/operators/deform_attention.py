"""Multi-scale deformable attention: Zhu et al., *Deformable DETR*, ICLR 2021, eq. 3.

All levels are read at once, and nothing has to be known about their sizes outside the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.operators.bilinear import corners, weighted_rows
from mmkd.operators.precision import full


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """``(B, Q, heads * D)``: the sampled value of each query.

    Args:
        value: ``(B, keys, heads, D)``, the maps of all levels one after the other.
        value_spatial_shapes: ``(L, 2)`` heights and widths.
        value_level_start_index: ``(L,)``, where each level begins in ``value``.
        sampling_locations: ``(B, Q, heads, L, P, 2)`` columns and rows, 0 to 1 over a map.
        attention_weights: ``(B, Q, heads, L, P)``.
        im2col_step: Not needed.
    """
    shapes, starts = value_spatial_shapes, value_level_start_index
    read = _attend(full(value), shapes, starts, full(sampling_locations), full(attention_weights))
    return read.to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients with respect to values, locations and weights."""
    leaves = [full(x.detach()) for x in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        values, locations, weights = (leaf.requires_grad_() for leaf in leaves)
        starts = value_level_start_index
        read = _attend(values, value_spatial_shapes, starts, locations, weights)
    gradients = torch.autograd.grad(read, (values, locations, weights), full(grad_output))
    written = (grad_value, grad_sampling_loc, grad_attn_weight)
    for target, gradient in zip(written, gradients, strict=True):
        target.copy_(gradient)


def _attend(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, attention: Tensor
) -> Tensor:
    batch, keys, heads, width = value.shape
    device = value.device
    rows, columns = shapes.to(device)[:, :, None].unbind(1)  # (L, 1), beside P points
    x, y = locations[..., 0] * columns - 0.5, locations[..., 1] * rows - 0.5
    index, weight = corners(y, x, rows, columns)
    image, head = torch.arange(batch, device=device), torch.arange(heads, device=device)
    key = index + starts.to(device)[:, None, None] + image.view(-1, 1, 1, 1, 1, 1) * keys
    index = key * heads + head[:, None, None, None]
    weight = weight * attention[..., None]
    flat = (part.flatten(3).flatten(0, 2) for part in (index, weight))
    return weighted_rows(value.reshape(-1, width), *flat).view(batch, -1, heads * width)
