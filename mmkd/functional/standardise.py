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


def batch_standardise(x: Tensor, eps: float = 1e-5) -> Tensor:
    """``(x - mean) / sqrt(var + eps)`` of each channel over the batch and all places.

    What BatchNorm without weights gives in training: the variance (N, C, H, W) is divided by the
    number of values, and there are no running statistics.
    """
    var, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0, keepdim=True)
    return (x - mean) * (var + eps).rsqrt()
