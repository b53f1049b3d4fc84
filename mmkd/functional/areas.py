"""Masks of the classes of a label map, and mean features inside them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F


def areas_of_interest(
    labels: Tensor,
    classes: int,
    size: tuple[int, int],
    kernel: int = 11,
    binary: bool = True,
    present: Iterable[int] | None = None,
) -> Tensor:
    """Mask of each class, smoothed at full size and then resized, (N, H, W) -> (N, K, h, w).

    Smoothing first keeps thin markings, which a nearest resize would lose.

    Args:
        labels (Tensor): long; outside of 0..classes - 1 a pixel belongs to no class.
        kernel (int): side of the averaging window, odd; 1 for none.
        binary (bool): 1 wherever the smoothed map is above 0; otherwise the map itself.
        present (Iterable[int] | None): the classes that occur; without it this synchronises with
            the device.
    """
    if present is None:
        present = classes_in(labels, classes)
    maps = torch.zeros(len(labels), classes, *size, device=labels.device)
    # One after the other: at full size 150 maps take gigabytes, and few classes are in a batch.
    for k in present:
        own = (labels == k).float()[:, None]
        own = F.avg_pool2d(own, (kernel, 1), 1, (kernel // 2, 0))
        own = F.avg_pool2d(own, (1, kernel), 1, (0, kernel // 2))
        maps[:, k] = F.interpolate(own, size, mode='area')[:, 0]
    return (maps > 0).float() if binary else maps


def presence(labels: Tensor, classes: int) -> Tensor:
    """Which classes occur in which image, (N, H, W) long -> (N, K) bool."""
    known = torch.where((labels >= 0) & (labels < classes), labels, classes).flatten(1)
    found = torch.zeros(len(labels), classes + 1, dtype=torch.bool, device=labels.device)
    return found.scatter_(1, known, True)[:, :classes]


def classes_in(labels: Tensor, classes: int) -> list[int]:
    """Classes that occur in a batch of label maps (N, H, W); synchronises once."""
    return [k for k, there in enumerate(presence(labels, classes).any(0).tolist()) if there]


def region_means(features: Tensor, areas: Tensor) -> Tensor:
    """Mean of each class's features, (N, C, h, w) and weights (N, K, h, w) -> (N, K, C).

    Classes without weight give 0.
    """
    total = areas.flatten(2) @ features.flatten(2).mT.to(areas)
    return total / areas.sum((2, 3)).clamp(min=1e-10)[..., None]
