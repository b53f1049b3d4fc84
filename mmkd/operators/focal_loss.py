"""Focal losses of Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017, eq. 5."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkd.operators.precision import full

SMALLEST = torch.finfo(torch.float32).tiny  # the least that mmcv takes a logarithm of


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write ``-α (1-p)^γ log p`` for the target's class, ``-(1-α) p^γ log(1-p)`` for the others.

    Args:
        input: ``(N, C)`` logits.
        target: ``(N,)`` classes; any number outside ``[0, C)`` is background.
        weight: ``(C,)`` of the target's class, or empty.
        output: ``(N, C)``. Written.
        gamma: Exponent of the focus.
        alpha: Weight of the target's class.
    """
    p = full(input).sigmoid()
    hit = -alpha * (1 - p) ** gamma * _log(p)
    miss = -(1 - alpha) * p**gamma * _log(1 - p)
    output.copy_(torch.where(_is_target(target, p), hit, miss) * _weights(weight, target)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of each loss by its logit."""
    p = full(input).sigmoid()
    hit = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * _log(p))
    miss = -(1 - alpha) * p**gamma * (gamma * (1 - p) * _log(1 - p) - p)
    slope = torch.where(_is_target(target, p), hit, miss)
    grad_input.copy_(slope * _weights(weight, target)[:, None])


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write ``-α (1-p)^γ log p`` of the target's class.

    Args:
        input: ``(N, C)`` probabilities.
        target: ``(N,)`` classes; below 0 is ignored.
        weight: ``(C,)`` of the target's class, or empty.
        output: ``(N,)``. Written.
        gamma: Exponent of the focus.
        alpha: Weight of everything.
    """
    p = _of_target(full(input), target)
    loss = -alpha * (1 - p) ** gamma * _log(p)
    output.copy_(torch.where(target < 0, 0, loss * _weights(weight, target)))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the derivative of each loss by ``(N, C)`` logits; ``buff`` is not needed."""
    q = full(input)
    p = _of_target(q, target)
    slope = alpha * (gamma * (1 - p) ** (gamma - 1) * p * _log(p) - (1 - p) ** gamma)
    slope = torch.where(target < 0, 0, slope * _weights(weight, target))
    grad_input.copy_(slope[:, None] * (_is_target(target, q).to(q) - q))


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=SMALLEST).log()


def _is_target(target: Tensor, scores: Tensor) -> Tensor:
    """``(N, C)``: where the class is the row's target."""
    return target[:, None] == torch.arange(scores.shape[1], device=scores.device)


def _of_target(probabilities: Tensor, target: Tensor) -> Tensor:
    return probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]


def _weights(weight: Tensor, target: Tensor) -> Tensor:
    """``(N,)``: the weight of the target's class, 1 for background and without weights."""
    if not weight.numel():
        return torch.ones_like(target)
    return F.pad(full(weight), (0, 1), value=1)[
        target.where(target >= 0, -1).clamp(max=len(weight))
    ]
