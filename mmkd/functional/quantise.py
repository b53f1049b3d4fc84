"""Rounding of maps to a dictionary of equal steps, with the gradient of the identity."""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor


def quantise(
    x: Tensor, step: float | Tensor, signed: bool = False, levels: int | None = None
) -> Tensor:
    """``Q(f) = s * max(0, ceil(f / s - 1/2))``: the nearest of 0, s, 2 s, …, ties down.

    Args:
        x (Tensor): any shape.
        step (float): s, above 0.
        signed (bool): the dictionary goes on below 0, …, -s, 0, s, …; ties go towards 0.
        levels (int | None): values of the dictionary at or above 0: 2^b of b bits, the largest is
            ``s * (levels - 1)``. ``None``: as many as it takes.
    """
    size = x.abs() if signed else x
    number = (size / step - 0.5).ceil().clamp(0, None if levels is None else levels - 1)
    nearest = step * number
    return nearest * x.sign() if signed else nearest


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """``value``, bit for bit, with the gradient of ``x``."""
    return _StraightThrough.apply(x, value)


class _Tied(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parameter: Tensor) -> Tensor:
        ctx.save_for_backward(parameter)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return gradient, torch.zeros_like(*ctx.saved_tensors)


def tied(x: Tensor, parameter: Tensor) -> Tensor:
    """``x``, and a gradient of 0 for a parameter that DDP waits for.

    Of ``x + 0 * parameter`` it would be NaN where the sum of the gradients overflows in float16.
    """
    return _Tied.apply(x, parameter)


def percentile(x: Tensor, share: float = 0.999) -> Tensor:
    """Quantile ``share`` of the absolute values."""
    return x.abs().flatten().kthvalue(max(ceil(share * x.numel()), 1)).values


def zeros_in(maps: list[Tensor]) -> float:
    """Share of values that are 0."""
    return float(torch.stack([(x == 0).sum() for x in maps]).sum()) / sum(x.numel() for x in maps)
