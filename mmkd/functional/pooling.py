"""Average pooling: two maps to the smaller size of both, or windows as nodes of a graph."""

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


def pool_nodes(x: Tensor, pool: str | None, size: int | str) -> Tensor:
    """(N, C, H, W) -> (N, C, h, w), one cell per node; incomplete windows at the border are kept.

    Args:
        pool (str | None): ``'max'``, ``'avg'``, or None for the map as it is.
        size (int | str): side of the windows; ``'half'`` is floor(H / 2) x floor(W / 2): four
            nodes, nine for odd sizes.
    """
    if pool is None:
        return x
    h, w = x.shape[2:]
    kernel = (h // 2, w // 2) if size == 'half' else (min(size, h), min(size, w))
    kernel = tuple(max(side, 1) for side in kernel)
    function = F.max_pool2d if pool == 'max' else F.avg_pool2d
    return function(x, kernel, kernel, ceil_mode=True)
