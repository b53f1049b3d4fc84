"""Channels of a map, standardised to mean 0 and variance 1."""

from __future__ import annotations

import torch
from torch import Tensor


def standardise(x: Tensor, std_floor: float = 0.0) -> Tensor:
    """``(x - mean) / (max(std, std_floor) + 1e-6)`` of each channel over the batch and all places.

    Args:
        x (Tensor): (N, C, H, W); the standard deviation is the unbiased one.
        std_floor (float): keeps the gradient of channels that hardly vary small.
    """
    std, mean = torch.std_mean(x, dim=(0, 2, 3), keepdim=True)
    return (x - mean) / (std.clamp(min=std_floor) + 1e-6)
