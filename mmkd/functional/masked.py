"""Means and squared distances over masked cells of a map; distances cost only those cells."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmkd.functional.device import positions


def masked_mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Mean, or that over the valid cells, 0 without any."""
    if valid is None:
        return x.mean()
    return (x * valid).sum() / valid.sum().clamp(min=1)


def masked_distance(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    adapter: nn.Module | None = None,
    count: int | None = None,
) -> Tensor:
    """``sum over masked cells and channels of (phi(S) - T)^2``.

    The adapter is evaluated at the masked cells only while they are few: same numbers, less work.

    Args:
        student, teacher (Tensor): (N, C_s, H, W) and (N, C_t, H, W).
        mask (Tensor): (N, H, W) bool.
        adapter (nn.Module | None): phi, a ConvAdapter, or None for the identity.
        count (int | None): number of masked cells; without it this synchronises with the device.
    """
    where = positions(mask.flatten(), int(mask.sum()) if count is None else count)
    wanted = _rows(teacher).index_select(0, where)
    if adapter is None:
        found = _rows(student).index_select(0, where)
    elif len(where) > mask.numel() // 4:
        found = _rows(adapter(student)).index_select(0, where)
    else:
        found = conv_at(student, where, adapter)
    return (found - wanted).square().sum()


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N * H * W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def conv_at(x: Tensor, where: Tensor, adapter: nn.Module) -> Tensor:
    """A ConvAdapter without norm at some cells, (P, C_t), as one matrix product.

    Args:
        x (Tensor): (N, C_s, H, W).
        where (Tensor): (P,) flat indices into (N, H, W).
        adapter (nn.Module): its convolution keeps the size of the map.
    """
    conv = adapter.conv
    k = conv.kernel_size[0]
    padded = F.pad(x, [k // 2] * 4)
    height, width = padded.shape[2:]
    n, cell = where // (x.shape[2] * x.shape[3]), where % (x.shape[2] * x.shape[3])
    corner = n * height * width + cell // x.shape[3] * width + cell % x.shape[3]
    offsets = torch.arange(k, device=x.device)
    offsets = (offsets[:, None] * width + offsets).flatten()
    patches = _rows(padded).index_select(0, (corner[:, None] + offsets).flatten())
    weight = conv.weight.permute(2, 3, 1, 0).reshape(-1, conv.out_channels)
    out = patches.view(len(where), len(weight)) @ weight
    return adapter.relu(out if conv.bias is None else out + conv.bias)
