"""Distances between classes that are each scored by a sigmoid, element by element."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def joint_logit(first: Tensor, second: Tensor) -> Tensor:
    """Logit of ``sigmoid(first) * sigmoid(second)``, exact where these round to 0 or 1."""
    first, second = torch.broadcast_tensors(first, second)
    return -torch.stack((-first, -second, -first - second)).logsumexp(0)


def against_rest(scores: Tensor) -> Tensor:
    """Logits (..., K) of each class against all others and background, ``log p / (1 - p)``, of a
    softmax over (..., K + 1), background last."""
    log_p = scores.log_softmax(-1)[..., :-1]
    return log_p - (-log_p.expm1()).clamp(min=1e-7).log()


def gap_weighted_cross_entropy(
    student: Tensor, teacher: Tensor, beta: float = 1.0, detach: bool = False
) -> Tensor:
    """``|q - p|^beta BCE(z, q)`` with p = sigmoid(z) and q of the teacher; 0 where both agree.

    Args:
        student, teacher (Tensor): logits z of any shape; the teacher's are the target.
        beta (float): 1 is BCKD's and CrossKD's, 2 that of quality focal loss.
        detach (bool): without the gradient of the weight, which published code has.
    """
    wanted = teacher.sigmoid()
    weight = (student.sigmoid() - wanted).abs()
    weight = weight if beta == 1 else weight**beta
    cross = F.binary_cross_entropy_with_logits(student, wanted, reduction='none')
    return cross * (weight.detach() if detach else weight)


def varifocal_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``q BCE(z, q)``; least, and above 0, where both agree."""
    wanted = teacher.sigmoid()
    return wanted * F.binary_cross_entropy_with_logits(student, wanted, reduction='none')


def adaptive_distance(
    student: Tensor, teacher: Tensor, alpha: float = 0.5, gamma: float = 2.0, beta: float = 0.0
) -> Tensor:
    """``(1 - e^-D)^gamma [alpha q (-log p) + (1 - alpha) (1 - q) (-log(1 - p))]``.

    ``D = BCE(z, q) - beta H(q)`` with the entropy H; the gradient passes through both factors.

    Args:
        student, teacher (Tensor): logits z of any shape; the teacher's q = sigmoid is the target.
        alpha (float): share of what is an object.
        gamma (float): at least 1, below which the slope at D = 0 is infinite.
        beta (float): at most 1, where the distance is 0 at equality.
    """
    q = teacher.sigmoid()
    wrong, missed = F.softplus(student), F.softplus(-student)  # -log(1 - p) and -log p
    apart = q * missed + (1 - q) * wrong
    if beta:
        apart = apart - beta * (torch.special.entr(q) + torch.special.entr(1 - q))
    hard = -torch.expm1(-apart.clamp(min=0))
    return hard**gamma * (alpha * q * missed + (1 - alpha) * (1 - q) * wrong)
