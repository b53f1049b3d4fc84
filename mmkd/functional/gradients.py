"""Gradients of a loss at places of its graph, without a backward pass through what lies before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge


def gradients_at(
    loss: Tensor, places: Sequence[Tensor | GradientEdge], scale: float = 1.0
) -> list[Tensor | None]:
    """Gradient of a scalar loss at each place, in float32; None where the loss does not reach.

    The backward pass ends at the places, and the graph is kept for the real one.

    Args:
        loss (Tensor): a single element.
        places (Sequence[Tensor | GradientEdge]): tensors that require a gradient, or edges of
            the graph, see :meth:`mmkd.tap.Side.places`.
        scale (float): factor of the loss on the way, against underflow in float16; the result is
            divided by it.
    """
    if not places or not loss.requires_grad:
        return [None] * len(places)
    scaled = loss if scale == 1 else loss * scale
    found = torch.autograd.grad(scaled, list(places), retain_graph=True, allow_unused=True)
    wide = [None if g is None else g.float() for g in found]
    return wide if scale == 1 else [None if g is None else g / scale for g in wide]


def in_half(tensors: Iterable[Tensor], device: str) -> bool:
    """Whether gradients at these tensors pass through float16, where small ones become 0: one of
    them is in float16, or autocast computes in it what lies behind them."""
    amp = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    return amp or any(tensor.dtype == torch.float16 for tensor in tensors)


def gradients_by_place(
    loss: Tensor, groups: Iterable[Iterable[GradientEdge]], scale: float = 1.0
) -> dict[GradientEdge, Tensor | None]:
    """:func:`gradients_at` every place of several groups, which may share some, by one pass."""
    places = list(dict.fromkeys(place for group in groups for place in group))
    return dict(zip(places, gradients_at(loss, places, scale), strict=True))
