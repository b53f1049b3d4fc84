"""Edges of masks and of classes: what lies between a widened and a narrowed mask."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from mmkd.functional.areas import classes_in


def edges(mask: Tensor, radius: int = 1) -> Tensor:
    """Dilation less erosion by a square of ``2 * radius + 1`` cells.

    Windows end at the border of the map, so that a mask that reaches it has no edge there.

    Args:
        mask (Tensor): (N, H, W), values in [0, 1].

    Returns:
        Tensor: (N, H, W), 1 within ``radius`` cells of the outline, on both sides.
    """
    dilated, eroded = (sign * _largest(sign * mask[:, None], radius) for sign in (1, -1))
    return (dilated - eroded)[:, 0]


def _largest(x: Tensor, radius: int) -> Tensor:
    """Maximum over a square, by columns and then by rows."""
    size = 2 * radius + 1
    return F.max_pool2d(F.max_pool2d(x, (size, 1), 1, (radius, 0)), (1, size), 1, (0, radius))


def class_edges(
    labels: Tensor,
    classes: int,
    radius: int,
    size: tuple[int, int],
    present: Iterable[int] | None = None,
) -> Tensor:
    """Share of each cell that is edge of each class, (N, H, W) -> (N, K, h, w).

    Args:
        labels (Tensor): long; -1 belongs to no class and is never an edge.
        classes (int): K.
        radius (int): see :func:`edges`, in pixels of the labels.
        size (tuple[int, int]): h, w; edges are found at full size and then averaged.
        present (Iterable[int] | None): the classes that occur; without it this synchronises with
            the device.
    """
    if present is None:
        present = classes_in(labels, classes)
    maps = torch.zeros(len(labels), classes, *size, device=labels.device)
    # One after the other: at full size 150 maps take gigabytes, and few classes are in a batch.
    for k in present:
        own = edges((labels == k).float(), radius) * (labels >= 0)
        maps[:, k] = F.adaptive_avg_pool2d(own[:, None], size)[:, 0]
    return maps
