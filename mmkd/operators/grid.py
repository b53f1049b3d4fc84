"""Where RoIAlign reads: points spread evenly over the bins of a RoI."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MAX = 0  # mmcv's number of the pooling mode; 1 is the average


class Grid(NamedTuple):
    """How RoIs are cut into bins, and bins into points."""

    height: int
    width: int
    scale: float
    ratio: int
    aligned: bool


class Axis(NamedTuple):
    """The points along one axis of each of R RoIs.

    Attributes:
        at: ``(R, bins, points)`` in cells of the map, which may lie outside.
        count: ``(R,)``: only so many of the points are the RoI's own.
    """

    at: Tensor
    count: Tensor

    def own(self) -> Tensor:
        """Which points are the RoI's own: shorter sides have fewer than there are places."""
        places = torch.arange(self.at.shape[2], device=self.at.device)
        return (places < self.count[:, None, None]).expand_as(self.at)

    def inside(self, size: int) -> Tensor:
        """Which of these are read: up to one cell outside a map, at its edge."""
        return self.own() & (self.at >= -1) & (self.at <= size)


def axes(rois: Tensor, grid: Grid) -> tuple[Axis, Axis]:
    """The points of ``(R, 5)`` RoIs down and across.

    Raises:
        ValueError: If a side is negative while ``aligned``, or a number is not finite.
    """
    corners = rois[:, 1:] * grid.scale - (0.5 if grid.aligned else 0)
    sides = corners[:, 2:] - corners[:, :2]
    sides = sides if grid.aligned else sides.clamp(min=1)
    if not bool(((sides >= 0) & sides.isfinite()).all()):
        worst = rois[int(((sides >= 0) & sides.isfinite()).all(1).int().argmin())].tolist()
        raise ValueError(
            f'RoIAlign got a box of negative size, or one that is not finite: {worst[1:]}. '
            'Boxes are x1, y1, x2, y2.'
        )
    down = _axis(corners[:, 1], sides[:, 1], grid.height, grid.ratio)
    return down, _axis(corners[:, 0], sides[:, 0], grid.width, grid.ratio)


def _axis(start: Tensor, side: Tensor, bins: int, ratio: int) -> Axis:
    step = side / bins
    count = torch.full_like(step, ratio) if ratio > 0 else step.float().ceil().to(step)
    points = torch.arange(max(int(count.max()), 1), device=start.device)
    start, step, spread = (x[:, None, None] for x in (start, step, count.clamp(min=1)))
    bin_starts = start + torch.arange(bins, device=start.device)[:, None] * step
    return Axis(bin_starts + (points + 0.5) * step / spread, count)
