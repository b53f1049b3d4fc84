"""Gumbel noise: exact draws from a softmax, and their continuous relaxation."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Independent draws from the Gumbel distribution, in the shape and on the device of ``like``.

    ``(logits + noise).argmax(-1)`` is a draw from softmax(logits).
    """
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    tiny = torch.finfo(like.dtype).tiny
    return -(-torch.log1p(-uniform)).clamp(min=tiny).log()


def concrete(logits: Tensor, noise: Tensor, tau: float) -> Tensor:
    """``softmax((logits + noise) / tau)``, (..., K) -> (..., K): a draw that has a gradient in the
    logits, and nears a one-hot one as tau nears 0 (Maddison et al., ICLR 2017)."""
    return ((logits + noise) / tau).softmax(-1)
