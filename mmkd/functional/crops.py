"""Squared distances inside regions of two maps, without cutting the regions out."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkd.functional.boxes import box_levels

#: what a region's squared distance is divided by: its elements, its cells, or nothing
NORMS = ('all', 'spatial', 'none')


def crop_weights(
    rois: Tensor,
    size: tuple[int, int],
    stride: int,
    n: int,
    mean: bool = True,
    own: Tensor | None = None,
) -> Tensor:
    """``sum_i 1 / m_i`` over the regions i in which a cell lies, (N, H, W); m_i cells each.

    The squared distance of a region is a sum over its cells, so all regions of a level together
    are one weighted sum, and none needs to be cropped. A region takes the cells from
    ``floor(x1 / stride)`` to before ``ceil(x2 / stride)``, at least one, inside the map.

    Args:
        rois (Tensor): (R, 5), image index and xyxy.
        mean (bool): False takes m_i = 1.
        own (Tensor | None): (R,) bool, the regions that count; all if it is not given.
    """
    cells, limits = rois[:, 1:] / stride, (size[1], size[0])
    low = [cells[:, i].floor().long().clamp(0, limit - 1) for i, limit in enumerate(limits)]
    high = [cells[:, 2 + i].ceil().long().clamp(max=limit) for i, limit in enumerate(limits)]
    low, high = torch.stack(low, 1), torch.maximum(torch.stack(high, 1), torch.stack(low, 1) + 1)
    count = torch.ones(len(rois), dtype=torch.float64, device=rois.device)
    value = torch.stack((1 / (high - low).prod(1).double() if mean else count, count), 1)
    value = value if own is None else value * own[:, None]
    corners = value.new_zeros(n, size[0] + 1, size[1] + 1, 2)
    for y, x, sign in ((low, low, 1), (low, high, -1), (high, low, -1), (high, high, 1)):
        where = rois[:, 0].long(), y[:, 1], x[:, 0]
        corners.index_put_(where, sign * value, accumulate=True)
    weight, count = corners.cumsum(1).cumsum(2)[:, :-1, :-1].unbind(-1)
    return (weight * (count > 0.5)).float()  # exactly 0 outside


def level_weights(
    maps: list[Tensor], strides: list[int], rois: Tensor, mean: bool = True
) -> list[Tensor]:
    """:func:`crop_weights` of each map; each region counts on one, that of :func:`box_levels`."""
    level, order = box_levels(rois[:, 1:], sorted(strides)), sorted(strides)
    return [
        crop_weights(rois, tuple(x.shape[2:]), stride, len(x), mean, level == order.index(stride))
        for x, stride in zip(maps, strides, strict=True)
    ]


def crop_distance(levels: list[tuple[int, Tensor, Tensor]], rois: Tensor, mean: bool) -> Tensor:
    """``sum_i 1 / m_i * ||u_i - v_i||^2`` over the regions i, m_i cells each.

    Args:
        levels (list): stride and maps of student and teacher, (N, C, H, W) each.
        rois (Tensor): (R, 5), image index and xyxy.
        mean (bool): False takes m_i = 1.
    """
    strides = [stride for stride, _, _ in levels]
    weights = level_weights([s for _, s, _ in levels], strides, rois, mean)
    distances = ((s - t).square().sum(1) for _, s, t in levels)
    return sum((d * w).sum() for d, w in zip(distances, weights, strict=True))
