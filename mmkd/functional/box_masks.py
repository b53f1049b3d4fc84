"""Which cells of a map boxes cover, each box by its area."""

from __future__ import annotations

import torch
from torch import Tensor

_BOX_CHUNK = 16


def foreground_mask(
    boxes: Tensor, images: Tensor, reference: Tensor, size: tuple[int, int]
) -> Tensor:
    """(N, H, W): 1 / area in cells of the smallest box that covers a cell, 0 outside boxes.

    Both edge cells of a box are its own, so it may reach one cell beyond its pixels.

    Args:
        boxes, images (Tensor): (G, 4), xyxy in pixels, and the image of each (G,).
        reference (Tensor): (N, 2), width and height in pixels that the map covers.
        size (tuple[int, int]): height and width of the map.
    """
    h, w = size
    # Multiplied first: 150 * (20 / 150) is 20.000002, and its ceiling 21.
    cells = torch.stack([boxes[:, i] * (w, h)[i % 2] for i in range(4)], 1)
    cells = cells / reference[images].repeat(1, 2)
    low, high = cells[:, :2].floor(), cells[:, 2:].ceil()
    value = 1 / (high - low + 1).prod(-1)
    columns, rows = (
        (line >= low[..., i, None]) & (line <= high[..., i, None])
        for i, line in enumerate(torch.arange(n, device=boxes.device) for n in (w, h))
    )
    mask = boxes.new_zeros(len(reference), h, w)
    for start in range(0, len(value), _BOX_CHUNK):  # bounds the (G, H, W) products
        part = slice(start, start + _BOX_CHUNK)
        inside = (rows[part, :, None] & columns[part, None]) * value[part, None, None]
        mask.scatter_reduce_(0, images[part, None, None].expand_as(inside), inside, 'amax')
    return mask


def background_mask(foreground: Tensor) -> Tensor:
    """1 over the number of background cells there, 0 on objects; (N, H, W) both."""
    empty = (foreground == 0).float()
    return empty / empty.sum((1, 2), keepdim=True).clamp(min=1)
