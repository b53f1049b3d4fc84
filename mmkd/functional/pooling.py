"""Bring two maps to one size by averaging."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def pool_to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool (N, C, H, W) maps to the smaller height and the smaller width of the two."""
    size = tuple(min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    pooled = [
        x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (student, teacher)
    ]
    return pooled[0], pooled[1]
