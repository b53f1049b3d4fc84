"""Resized maps: enlarged by bilinear interpolation, shrunk by averaging."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def resize(x: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """(N, C, H, W) -> (N, C, h, w); no cell of the larger map is left out.

    Bilinear interpolation reads two cells per direction, so a side that shrinks to half, rounded
    up, or less is averaged first (adaptive average pooling). With ``align_corners`` it would take
    every other cell of 97 for 49, the maps of mmseg's crops of 769 at strides 8 and 16.
    """
    height, width = (
        new if new * 2 <= old + 1 else old for new, old in zip(size, x.shape[2:], strict=True)
    )
    if (height, width) != tuple(x.shape[2:]):
        x = F.adaptive_avg_pool2d(x, (height, width))
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode='bilinear', align_corners=align_corners)
