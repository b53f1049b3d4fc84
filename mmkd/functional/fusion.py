"""Maps of several teachers: standardised, and weighed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

EPS = 1e-6


def standard(x: Tensor) -> Tensor:
    """``(x - mean) / sqrt(variance + 1e-6)`` of each channel over the batch and all places.

    (N, C, H, W); the variance divides by their number.
    """
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + EPS).sqrt()


def confidence_weights(confidences: Tensor, tau: float = 0.5) -> Tensor:
    """softmax over teachers of confidences (J, N) over tau, (J, N)."""
    return (confidences / tau).softmax(0)


def top_confidence(scores: Tensor, count: int = 10) -> Tensor:
    """Mean of the largest scores of each image, (N, P) -> (N,)."""
    return scores.topk(min(count, scores.shape[1]), 1).values.mean(1)


def fused(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Weighted sum of standardised maps (N, C, H, W) of J teachers.

    Args:
        weights (Tensor): (J,) or, image by image, (J, N).
    """
    shaped = weights.view(len(maps), -1, 1, 1, 1)
    return sum(w * standard(x) for w, x in zip(shaped, maps, strict=True))
