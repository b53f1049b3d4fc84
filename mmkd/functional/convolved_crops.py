"""RoIAlign of a convolved map that convolves what the RoIs read, not the whole map.

Both are linear, and RoIAlign treats all channels alike. So it first reads the map under each shift
of the kernel, ``Y_d F X_e^T`` for the shifts d and e, and then one product of matrices with the
kernel is left, with a row for each bin instead of each cell. Small maps are convolved as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkd.functional.boxes import roi_features

#: cells of a map whose convolution takes as long as the row of a bin, its shifts included
CELLS_A_ROW = 1.3


def adapted_crops(
    adapter: nn.Module | None,
    levels: Sequence[tuple[int, Tensor]],
    rois: Tensor,
    sizes: list[list[int]],
    bins: int,
    sampling: int,
) -> Tensor:
    """RoI-aligned features of adapted maps, (R, C, bins, bins).

    Args:
        adapter (nn.Module | None): for all levels; more than one convolution takes whole maps.
        levels (list): stride and map (N, C_s, H, W) of each level, finest first.
        rois (Tensor): (R, 5), sorted by level and then by image.
        sizes (list[list[int]]): how many RoIs each image has on each level.
        sampling (int): sampling points per bin and direction.
    """
    conv, parts = _only_convolution(adapter), rois.split([sum(own) for own in sizes])
    used = [i for i, part in enumerate(parts) if len(part)] or [len(levels) - 1]
    cells = sum(levels[i][1][:, 0].numel() for i in used)
    if conv is None or cells < CELLS_A_ROW * len(rois) * bins**2:
        strides, maps = zip(*levels, strict=True)
        placed = list(parts), torch.arange(len(rois), device=rois.device)
        return roi_features(maps, strides, rois, bins, sampling, adapter, placed)
    kernel = conv.kernel_size[0]
    read = [_reads(*levels[i], parts[i], sizes[i], bins, sampling, kernel) for i in used]
    rows, shares = (torch.cat(x) for x in zip(*read, strict=True))
    found = rows @ conv.weight.permute(2, 3, 1, 0).flatten(0, 2)
    if conv.bias is not None:
        found = found + shares[..., None] * conv.bias
    return found.permute(0, 3, 1, 2)


def _only_convolution(adapter: nn.Module | None) -> nn.Conv2d | None:
    """The convolution with which an adapter begins, if nothing follows."""
    conv = getattr(adapter, 'conv', None)
    rest = [m for m in (adapter.children() if conv else ()) if m is not conv]
    return conv if all(isinstance(m, nn.Identity) for m in rest) else None


def _reads(
    stride: int, x: Tensor, rois: Tensor, sizes: list[int], bins: int, sampling: int, kernel: int
) -> tuple[Tensor, Tensor]:
    """What each bin reads of one level under all shifts of the kernel, (R, bins, bins, k k C), and
    its part inside the map, (R, bins, bins)."""
    h, w = x.shape[2:]
    corners = rois[:, 1:] / stride - 0.5
    down = interpolation(corners[:, 1], corners[:, 3], h, bins, sampling, kernel)
    across = interpolation(corners[:, 0], corners[:, 2], w, bins, sampling, kernel)
    found = [x.new_zeros(0, bins * kernel, bins * kernel, x.shape[1]) + x[:0].sum()]
    for image, count in enumerate(sizes):
        if count:
            own, place = x[image].permute(1, 2, 0).reshape(h, -1), sum(sizes[:image])
            own_down, own_across = (m[place : place + count] for m in (down, across))
            rows = (own_down.flatten(0, 2) @ own).view(count, bins * kernel, w, -1)
            found.append(own_across.flatten(1, 2)[:, None] @ rows)
    shifted = torch.cat(found).view(-1, bins, kernel, bins, kernel, x.shape[1])
    middle = kernel // 2
    inside = down[:, :, middle].sum(-1)[:, :, None] * across[:, :, middle].sum(-1)[:, None]
    return shifted.transpose(2, 3).flatten(3), inside


def interpolation(
    low: Tensor, high: Tensor, size: int, bins: int, sampling: int, kernel: int
) -> Tensor:
    """How much of each cell a bin reads under each shift, (R, bins, k, size).

    As RoIAlign reads: a point beyond the edge by less than a cell lies on the edge, one further out
    counts 0. What a shift takes from outside the map is 0, the convolution's padding.

    Args:
        low, high (Tensor): sides of the RoIs in cells, (R,).
        size (int): cells of the map.
        kernel (int): k, odd: shifts from ``-(k // 2)`` to ``k // 2``.
    """
    step = ((high - low) / bins)[:, None, None]
    bin_starts = low[:, None, None] + torch.arange(bins, device=low.device)[:, None] * step
    at = bin_starts + (torch.arange(sampling, device=low.device) + 0.5) * step / sampling
    inside = (at >= -1) & (at <= size)
    shifts = torch.arange(kernel, device=low.device)[:, None] - kernel // 2
    gap = at.clamp(0, size - 1)[..., None, None] + shifts - torch.arange(size, device=low.device)
    return ((1 - gap.abs()).clamp(min=0) * inside[..., None, None]).mean(2)
