"""Cross entropy whose target mixes the teacher's probabilities with the label."""

from __future__ import annotations

import torch
from torch import Tensor


def teacher_share(
    teacher: Tensor, labels: Tensor, policy: str = 'confidence', fixed: float = 0.5
) -> Tensor:
    """alpha of each pixel, the share of the teacher in the target.

    Args:
        teacher (Tensor): probabilities (R, K, ...).
        labels (Tensor): (R, ...) long.
        policy (str): ``'confidence'``: the teacher's probability of the label; ``'correct'``: 1
            where the teacher is right, else 0; ``'fixed'``: always ``fixed``.
    """
    if policy == 'fixed':
        return torch.full(labels.shape, fixed, dtype=teacher.dtype, device=teacher.device)
    if policy == 'correct':
        return (teacher.argmax(1) == labels).to(teacher.dtype)
    return teacher.gather(1, labels[:, None])[:, 0]


def mixed_cross_entropy(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: Tensor, weight: Tensor | None = None
) -> Tensor:
    """``- mean_r sum_k q_rk log p^s_rk`` with ``q = alpha p^t + (1 - alpha) onehot(y)``.

    Args:
        student (Tensor): logits (R, K, ...).
        teacher (Tensor): probabilities of the same shape.
        labels, alpha (Tensor): (R, ...); labels below 0 count for nothing.
        weight (Tensor | None): (K,), weight of the pixels of each label in the mean.
    """
    log_p = student.log_softmax(1)
    known, labels = labels >= 0, labels.clamp(min=0)
    hard = -log_p.gather(1, labels[:, None])[:, 0]
    soft = -(teacher * log_p).sum(1)
    error = alpha * soft + (1 - alpha) * hard
    counts = known.to(error) if weight is None else weight[labels] * known
    return (counts * error).sum() / counts.sum().clamp(min=1e-12)
