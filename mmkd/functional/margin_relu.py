"""Distances of values in front of a ReLU, where the teacher's negative ones count little."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def partial_square(student: Tensor, teacher: Tensor) -> Tensor:
    """``(r - t)^2``, but 0 where ``r <= t <= 0``; any shape."""
    return (student - teacher).square() * ((student > teacher) | (teacher > 0))


def margin_of(mean: Tensor, std: Tensor) -> Tensor:
    """``E[x | x < 0]`` of normal x, (C,); ``-3 std`` where x is hardly ever negative.

    Args:
        mean, std (Tensor): (C,), std at least 0.
    """
    mean, std = mean.double(), std.double().clamp(min=1e-12)
    below = torch.special.ndtr(-mean / std)
    density = torch.exp(-(mean / std).square() / 2) / math.sqrt(2 * math.pi)
    return torch.where(below > 1e-3, mean - std * density / below.clamp(min=1e-3), -3 * std)


def margin_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """:func:`partial_square` of maps (N, C, H, W), summed over an image, mean over N.

    Args:
        margin (Tensor): (C,), below which the teacher's values are cut off.
    """
    cut = torch.maximum(teacher, margin.to(teacher).view(-1, 1, 1))
    return partial_square(student, cut).flatten(1).sum(1).mean()
