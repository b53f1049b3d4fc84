"""Spatial and channel attention of a feature map."""

from __future__ import annotations

from torch import Tensor


def softmax_attention(x: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Softmax of the mean absolute value, scaled to the mean 1, over places and over channels.

    Args:
        x (Tensor): (N, C, H, W).
        tau (float): temperature.

    Returns:
        tuple: spatial attention (N, H, W), which sums to H * W, and channel attention (N, C),
        which sums to C.
    """
    strength = x.abs()
    channel = (strength.mean((2, 3)) / tau).softmax(-1) * x.shape[1]
    return _spatial(strength, tau), channel


def spatial_attention(x: Tensor, tau: float) -> Tensor:
    """The first of :func:`softmax_attention` alone."""
    return _spatial(x.abs(), tau)


def _spatial(strength: Tensor, tau: float) -> Tensor:
    n, _, h, w = strength.shape
    spatial = (strength.mean(1).flatten(1) / tau).softmax(-1) * (h * w)
    return spatial.view(n, h, w)
