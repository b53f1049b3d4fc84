"""Maps brought to another size: enlarged by bilinear interpolation, shrunk by averaging."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def resize(x: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """(N, C, H, W) -> (N, C, h, w); no cell of the larger map is left out.

    Bilinear interpolation looks at two cells a direction, so a side that shrinks to less than half
    is averaged first (adaptive average pooling); up to a half, bilinear sees every cell.
    """
    height, width = (
        new if new * 2 < old else old for new, old in zip(size, x.shape[2:], strict=True)
    )
    if (height, width) != tuple(x.shape[2:]):
        x = F.adaptive_avg_pool2d(x, (height, width))
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode='bilinear', align_corners=align_corners)
