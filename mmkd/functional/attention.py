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
    n, c, h, w = x.shape
    strength = x.abs()
    spatial = (strength.mean(1).flatten(1) / tau).softmax(-1) * (h * w)
    channel = (strength.mean((2, 3)) / tau).softmax(-1) * c
    return spatial.view(n, h, w), channel
